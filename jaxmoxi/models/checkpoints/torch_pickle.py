"""What a pickle describes, found by walking its opcodes: nothing of it is run, nothing is imported.

This is the part of `torch_file` that meets the file's own instructions. It knows a list of names and refuses the rest,
and it keeps tensors as descriptions.
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
_STORAGES = {f"{place}.{n}Storage": np.dtype(d) for place in ("torch", "torch.cuda") for n, d in _DTYPES.items()}
_LITERALS = {"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"}
_LITERALS |= {"SHORT_BINSTRING", "BINSTRING", "SHORT_BINBYTES", "BINBYTES", "BINBYTES8"}

# Bounds on the time that an ill-meant file can take.
_MAX_STEPS = 2_000_000  # of the interpreter; an ordinary tensor takes about 40
_MAX_DIMS, _MAX_NAME = 32, 4096

SAVE = "save one with torch.save(model.state_dict(), ...)"
FETCH = "copy or download it again"


class Refusal(Exception):
    """Why the file is not read, as a clause that follows its path."""


class _Global(str):
    """A name that the file asks for; never looked up anywhere but in this module's tables."""

    __slots__ = ()


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
                    _expect(stack[-1], list).append(item)
                case "APPENDS" | "ADDITEMS":
                    items, stack = stack, outer.pop()
                    _expect(stack[-1], list).extend(items)
                case "SETITEM":
                    value, key = stack.pop(), stack.pop()
                    _update(_expect(stack[-1], dict), [(key, value)])
                case "SETITEMS":
                    items, stack = stack, outer.pop()
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
                case "REDUCE" | "NEWOBJ":
                    args, function = _expect(stack.pop(), tuple), _expect(stack.pop(), _Global)
                    # Counted, because one long argument passed again and again from the memo could take forever.
                    steps += len(args) + sum(len(a) for a in args if type(a) in (list, tuple))
                    stack.append(_CALLS[function](*args))
                case "BUILD":  # an OrderedDict's attributes: _metadata, the versions of the modules
                    stack.pop()
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


def _global(module: str, name: str) -> _Global:
    full = _Global(f"{module}.{name}")
    if full not in _CALLS and full not in _STORAGES:
        raise Refusal(
            f"asks for {brief(full)}, which is not a plain tensor or a container; refusing to read it. "
            f"Only plain state dicts are read: {SAVE}"
        )
    return full


def _storage(claim: Any, storages: dict[str, Storage]) -> Storage:
    """("storage", class, key, device, elements), and in the older format None or (view's key, start, length)."""
    if _expect(claim, tuple)[0] != "storage":
        raise Refusal(f"is a whole saved model or unknown to PyTorch: it refers to {brief(claim[0])}; {SAVE}")
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


def _parameter(data: Any, *_: Any) -> Tensor:
    return _expect(data, Tensor)


def _nothing(*_: Any) -> None:
    """Stands for what has no part in a tensor. It is not built, as `bytes` of long strings could fill the memory."""


_CALLS: dict[str, Callable[..., Any]] = {
    # Python 2 passed the entries as a list.
    "collections.OrderedDict": lambda *args: _update({}, (pair for pairs in args for pair in _expect(pairs, list))),
    "torch.Size": lambda sizes=(): _expect(sizes, tuple),
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch.nn.parameter.Parameter": _parameter,
    "torch.device": _nothing,
    "_codecs.encode": _nothing,  # protocol 2 writes bytes and sets as calls
    **{f"{module}.{name}": _nothing for module in ("builtins", "__builtin__") for name in ("bytes", "set")},
}


def brief(text: object) -> str:
    """A file's own words for an error message, cut to 80 characters, without line breaks."""
    words = str(text)
    return "".join(c if c.isprintable() else "?" for c in words[:80]) + ("..." if len(words) > 80 else "")
