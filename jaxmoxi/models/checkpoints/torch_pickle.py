"""What a pickle describes, found by walking its opcodes: nothing of it is run, nothing is imported.

This is the part of `torch_file` that meets the file's own instructions. It knows a list of names and keeps tensors as
descriptions. An object of any other class, which training checkpoints have beside the weights, becomes a `Foreign`: the
name of its class and nothing else. Functions that run code are refused.
"""

from __future__ import annotations

import dataclasses
import io
import mmap
import pickletools
from collections.abc import Callable, Iterable
from typing import Any

import ml_dtypes
import numpy as np

from jaxmoxi.errors import InputError

_DTYPES: dict[str, Any] = {"Float": "f4", "Double": "f8", "Half": "f2", "BFloat16": ml_dtypes.bfloat16, "Long": "i8"}
_DTYPES |= {"Int": "i4", "Short": "i2", "Char": "i1", "Byte": "u1", "Bool": "?"}
_DTYPES |= {"ComplexFloat": "c8", "ComplexDouble": "c16"}
# Quantised numbers, and bytes that `_rebuild_tensor_v3` gives a dtype: their sizes are known, so they can be skipped.
_BYTES: dict[str, Any] = {"QInt8": "i1", "QUInt8": "u1", "QInt32": "i4", "QUInt4x2": "u1", "QUInt2x4": "u1"}
_BYTES |= {"Untyped": "u1"}
_STORAGES = {
    f"{place}.{n}Storage": np.dtype(d)
    for place in ("torch", "torch.cuda", "torch.storage")
    for n, d in (_DTYPES | _BYTES).items()
}
# The dtypes that `_rebuild_tensor_v3` may name and that are read.
_NAMED = {"float": "Float", "float32": "Float", "double": "Double", "float64": "Double", "half": "Half"}
_NAMED |= {"float16": "Half", "bfloat16": "BFloat16", "int64": "Long", "int32": "Int", "int16": "Short"}
_NAMED |= {"int8": "Char", "uint8": "Byte", "bool": "Bool"}
_LITERALS = {"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"}
_LITERALS |= {"SHORT_BINSTRING", "BINSTRING", "SHORT_BINBYTES", "BINBYTES", "BINBYTES8"}

# Bounds on the time that an ill-meant file can take.
_MAX_STEPS = 2_000_000  # of the interpreter; an ordinary tensor takes about 40
_MAX_DIMS, _MAX_NAME = 32, 4096

# What only a file that is meant to run code asks for. Nothing would be run, but whoever has it should know.
_CODE = {
    "os",
    "posix",
    "nt",
    "subprocess",
    "sys",
    "shutil",
    "socket",
    "runpy",
    "pty",
    "ctypes",
    "importlib",
    "commands",
}
_EVALUATE = {"eval", "exec", "execfile", "compile", "open", "__import__", "input", "breakpoint"}

SAVE = "save one with torch.save(model.state_dict(), ...)"
FETCH = "copy or download it again"


class Refusal(Exception):
    """Why the file is not read, as a clause that follows its path."""


class _Global(str):
    """A name that the file asks for; never looked up anywhere but in this module's tables."""

    __slots__ = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Foreign:
    """A class, or an object of one, that is not read. Nothing of it is built or kept but the name of the class."""

    name: str
    tensor: bool = False  # it stands for a tensor


@dataclasses.dataclass(frozen=True, slots=True)
class Storage:
    """A stored array that tensors are views of, or a view of it itself."""

    key: str
    dtype: np.dtype
    total: int  # elements of the stored whole
    start: int  # where this view of it begins, in elements,
    length: int  # and how many it has


@dataclasses.dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor as the file describes it; offset and strides count elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def interpret(stream: io.BytesIO | mmap.mmap, storages: dict[str, Storage]) -> Any:
    """What one pickle describes; `storages` receives the storages that it names.

    The stack works as in Python's own unpickler: MARK puts it away and begins a new one. Dicts keep the entries with
    string keys only, as hashing other keys could take forever. Sets become lists, as only tensors are wanted.
    Raises `Refusal` for what no state dict needs and for a pickle that makes no sense.
    """
    stack: list[Any] = []
    outer: list[list[Any]] = []
    memo: dict[int, Any] = {}
    steps = 0
    try:
        for op, arg, _ in pickletools.genops(stream):  # type: ignore[arg-type]  an mmap reads like a file
            steps += 1
            if steps > _MAX_STEPS:
                raise Refusal(f"describes more than a checkpoint does: over {_MAX_STEPS} steps; {SAVE}")
            match op.name:
                case "STOP":
                    return stack.pop()
                case "PROTO" | "FRAME":
                    pass
                case name if name in _LITERALS:
                    stack.append(arg)
                case "NONE":
                    stack.append(None)
                case "NEWTRUE" | "NEWFALSE":
                    stack.append(op.name == "NEWTRUE")
                case "EMPTY_DICT":
                    stack.append({})
                case "EMPTY_LIST" | "EMPTY_SET":
                    stack.append([])
                case "EMPTY_TUPLE":
                    stack.append(())
                case "POP":
                    stack.pop()
                case "MARK":
                    outer.append(stack)
                    stack = []
                case "POP_MARK":
                    stack = outer.pop()
                case "TUPLE":
                    items, stack = stack, outer.pop()
                    stack.append(tuple(items))
                case "TUPLE1" | "TUPLE2" | "TUPLE3":
                    items = [stack.pop() for _ in range(int(op.name[-1]))]
                    stack.append(tuple(items[::-1]))
                case "APPEND":
                    item = stack.pop()
                    if type(stack[-1]) is not Foreign:
                        _expect(stack[-1], list).append(item)
                case "APPENDS" | "ADDITEMS":
                    items, stack = stack, outer.pop()
                    if type(stack[-1]) is not Foreign:
                        _expect(stack[-1], list).extend(items)
                case "FROZENSET":
                    items, stack = stack, outer.pop()
                    stack.append(items)
                case "SETITEM":
                    value, key = stack.pop(), stack.pop()
                    if type(stack[-1]) is not Foreign:
                        _update(_expect(stack[-1], dict), [(key, value)])
                case "SETITEMS":
                    items, stack = stack, outer.pop()
                    if type(stack[-1]) is not Foreign:
                        _update(_expect(stack[-1], dict), zip(items[::2], items[1::2], strict=True))
                case "BINPUT" | "LONG_BINPUT" | "MEMOIZE":
                    memo[len(memo) if arg is None else arg] = stack[-1]
                case "BINGET" | "LONG_BINGET":
                    stack.append(memo[int(arg or 0)])
                case "GLOBAL":
                    stack.append(_global(*str(arg).split(" ", 1)))
                case "STACK_GLOBAL":
                    function, module = _expect(stack.pop(), str), _expect(stack.pop(), str)
                    stack.append(_global(module, function))
                case "BINPERSID":
                    stack.append(_storage(stack.pop(), storages))
                case "REDUCE" | "NEWOBJ" | "NEWOBJ_EX":
                    if op.name == "NEWOBJ_EX":
                        _expect(stack.pop(), dict)
                    args, function = _expect(stack.pop(), tuple), stack.pop()
                    if type(function) is Foreign:
                        stack.append(_foreign(function, args))
                        continue
                    _expect(function, _Global)
                    # Counted, because one long argument passed again and again from the memo could take forever.
                    steps += len(args) + sum(len(a) for a in args if type(a) in (list, tuple))
                    stack.append(_CALLS[function](*args))
                case "BUILD":  # an object's attributes; an OrderedDict's are _metadata, the versions of the modules
                    stack.pop()
                    if type(stack[-1]) is not Foreign:
                        _expect(stack[-1], dict)
                case _:
                    raise Refusal(f"uses the pickle opcode {op.name}, which no plain state dict needs; {SAVE}")
    except (ArithmeticError, LookupError, TypeError, ValueError, Warning) as error:  # Warning: made an error by -W
        reason = f"{type(error).__name__}: {brief(error)}"
        raise Refusal(f"is truncated or damaged: its pickle makes no sense ({reason}); {FETCH}") from error
    raise Refusal(f"is truncated: its pickle does not end; {FETCH}")


def _expect(value: Any, kind: type) -> Any:
    if type(value) is not kind:  # exact: True is no size
        raise TypeError(f"expected {kind.__name__}, got {type(value).__name__}")
    return value


def _name(value: Any) -> str:
    """A name of bounded length: equal long strings, compared again and again, could take forever as well."""
    if len(_expect(value, str)) > _MAX_NAME:
        raise InputError(f"a name of {len(value)} characters")
    return value


def _update(target: dict[str, Any], pairs: Iterable[Any]) -> dict[str, Any]:
    for key, value in pairs:
        if type(key) is str:
            target[_name(key)] = value
    return target


def _global(module: str, name: str) -> _Global | Foreign:
    full = _Global(f"{module}.{name}")
    if full in _CALLS or full in _STORAGES:
        return full
    root, parts = module.partition(".")[0], set(full.split("."))
    runs = root in _CODE or parts & {"os", "subprocess"}
    if runs or (root in ("builtins", "__builtin__") and name in _EVALUATE):
        raise Refusal(
            f"asks for {brief(full)}, which is not a plain tensor or a container but runs code; refusing to read it. "
            f"Do not open this file with PyTorch either, unless you trust it; only plain state dicts are read: {SAVE}"
        )
    return Foreign(brief(full), tensor=full.startswith("torch._utils._rebuild_"))


def _foreign(function: Foreign, args: tuple[Any, ...]) -> Foreign:
    """What the call of an unknown name leaves behind."""
    if function.name in ("copyreg._reconstructor", "copy_reg._reconstructor") and args and type(args[0]) is Foreign:
        return args[0]  # protocol 0 and 1 make objects so
    return function


def _storage(claim: Any, storages: dict[str, Storage]) -> Storage | Foreign:
    """("storage", class, key, device, elements), and in the older format None or (view's key, start, length).

    The older format refers to a module's class by ("module", class, file, source).
    """
    if _expect(claim, tuple)[0] == "module":
        return Foreign(str(claim[1])) if type(claim[1]) is _Global else _expect(claim[1], Foreign)
    if claim[0] != "storage":
        raise Refusal(f"is a whole saved model or unknown to PyTorch: it refers to {brief(claim[0])}; {SAVE}")
    if type(claim[1]) is Foreign:
        raise Refusal(f"holds numbers as {claim[1].name}, which are not read; convert the model to float32 and {SAVE}")
    dtype, key, total = _STORAGES[_expect(claim[1], _Global)], _name(claim[2]), _expect(claim[4], int)
    whole = Storage(key, dtype, total, 0, total)
    if storages.setdefault(key, whole) != whole:
        raise InputError(f"storage {key} has two descriptions")
    if len(claim) < 6 or claim[5] is None:
        return whole
    _, start, length = _expect(claim[5], tuple)
    if _expect(start, int) < 0 or _expect(length, int) < 0 or start + length > total:
        raise InputError(f"a view reaches beyond storage {key}")
    return dataclasses.replace(whole, start=start, length=length)


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *rest: Any) -> Tensor:
    """torch._utils._rebuild_tensor(_v2); `rest`: requires_grad, hooks, and perhaps {"neg": True} or {"conj": True}."""
    if len(rest) > 2 and rest[2]:
        raise Refusal(f"holds a tensor with pending arithmetic (conjugate or negative); resolve it and {SAVE}")
    if len(_expect(shape, tuple)) != len(_expect(strides, tuple)) or len(shape) > _MAX_DIMS:
        raise InputError(f"a tensor has {len(shape)} sizes and {len(strides)} strides")
    if any(_expect(number, int) < 0 for number in (offset, *shape, *strides)):
        raise InputError("a tensor has a negative size, stride or offset")
    return Tensor(_expect(storage, Storage), offset, shape, strides)


def _typed_tensor(storage: Any, offset: Any, shape: Any, strides: Any, grad: Any, hooks: Any, dtype: Any, *rest: Any):
    """torch._utils._rebuild_tensor_v3: of a storage that is bytes, whose dtype is named beside it."""
    name = _expect(dtype, Foreign).name.removeprefix("torch.")
    if name not in _NAMED:  # such as float8_e4m3fn
        return Foreign(name, tensor=True)
    kind = np.dtype(_DTYPES[_NAMED[name]])
    sizes = {part: getattr(_expect(storage, Storage), part) // kind.itemsize for part in ("total", "start", "length")}
    return _tensor(dataclasses.replace(storage, dtype=kind, **sizes), offset, shape, strides, grad, hooks, *rest)


def _parameter(data: Any, *_: Any) -> Tensor | Foreign:
    return data if type(data) is Foreign and data.tensor else _expect(data, Tensor)


def _of_class(function: Any, kind: Any, args: Any, *_: Any) -> Tensor | Foreign:
    """torch._tensor._rebuild_from_type_v2: a tensor that has attributes, or one of a class of its own."""
    name = kind.name if type(kind) is Foreign else str(_expect(kind, _Global))
    if type(function) is Foreign or name not in _PLAIN_CLASSES:
        return Foreign(name, tensor=True)
    return _TENSORS[_expect(function, _Global)](*_expect(args, tuple))


def _nothing(*_: Any) -> None:
    """Stands for what has no part in a tensor. It is not built, as `bytes` of long strings could fill the memory."""


_PLAIN_CLASSES = {"torch.Tensor", "torch._tensor.Tensor", "torch.nn.parameter.Parameter", "torch.nn.parameter.Buffer"}
_TENSORS: dict[str, Callable[..., Any]] = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _typed_tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch.nn.parameter.Parameter": _parameter,
}
_CALLS: dict[str, Callable[..., Any]] = _TENSORS | {
    # Python 2 passed the entries as a list.
    "collections.OrderedDict": lambda *args: _update({}, (pair for pairs in args for pair in _expect(pairs, list))),
    "collections.defaultdict": lambda *_: {},  # its entries follow
    "torch.Size": lambda sizes=(): _expect(sizes, tuple),
    "torch._tensor._rebuild_from_type_v2": _of_class,
    "torch.device": _nothing,
    "_codecs.encode": _nothing,  # protocol 2 writes bytes and sets as calls
    **{f"{module}.{name}": _nothing for module in ("builtins", "__builtin__") for name in ("bytes", "set")},
}


def brief(text: object) -> str:
    """A file's own words for an error message, cut to 80 characters, without line breaks."""
    words = str(text)
    return "".join(c if c.isprintable() else "?" for c in words[:80]) + ("..." if len(words) > 80 else "")
