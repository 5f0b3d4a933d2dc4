"""PyTorch checkpoints without PyTorch, and without running what they pickle.

A checkpoint is a pickle that describes containers and tensors, and beside it the tensors' raw bytes. Unpickling would
run whatever the file asks for. Here a small interpreter walks the opcodes instead: it knows a list of names, imports
nothing, and refuses the rest. A tensor stays a description until all of the pickle is read; only then, and only for
the tensors that are returned, are bytes read, after the description has been checked against the file's size.

Source: torch/serialization.py and torch/_utils.py of PyTorch 2.13 (its zip format, and the older one with pickles back
to back). Deviation: entries that are no tensors are left out, so their values are never built (bytes, devices, sets).
"""

from __future__ import annotations

import dataclasses
import io
import math
import mmap
import os
import pickletools
import struct
import sys
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, BinaryIO

import ml_dtypes
import numpy as np

_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # what the older format begins with
_NESTED = ("state_dict", "model", "state_dict_ema", "model_state_dict")  # training checkpoints: the first found counts

_DTYPES: dict[str, Any] = {"Float": "f4", "Double": "f8", "Half": "f2", "BFloat16": ml_dtypes.bfloat16, "Long": "i8"}
_DTYPES |= {"Int": "i4", "Short": "i2", "Char": "i1", "Byte": "u1", "Bool": "?"}
_STORAGES = {f"{place}.{n}Storage": np.dtype(d) for place in ("torch", "torch.cuda") for n, d in _DTYPES.items()}
_LITERALS = {"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"}
_LITERALS |= {"SHORT_BINSTRING", "BINSTRING", "SHORT_BINBYTES", "BINBYTES", "BINBYTES8"}

# Bounds on the time and the memory that an ill-meant file can take.
_MAX_STEPS = 2_000_000  # of the interpreter; an ordinary tensor takes about 40
_MAX_DIMS, _MAX_NAME = 32, 4096
_FREE_BYTES, _MAX_GROWTH = 1 << 26, 8  # tensors may share storage and so take more than the file: this much

_SAVE = "save one with torch.save(model.state_dict(), ...)"
_FETCH = "copy or download it again"
_OTHER_FILES = {  # what people have under a checkpoint's name, by its first bytes
    b"version https://git-lfs": "a git-lfs pointer, not the weights; fetch them with git lfs pull",
    b"\xff\xd8\xff": "a JPEG image; check the path",
    b"\x89PNG": "a PNG image; check the path",
    b"\x89HDF": f"an HDF5 file; load it where it comes from and {_SAVE}",
    b"\x1f\x8b": "a gzip archive; unpack it first",
    b"<": "a web page or XML, perhaps a login or error page; download the file itself",
}
# What `zipfile` raises for damaged archives, version by version; RuntimeError is its word for encryption.
_ZIP_ERRORS = (zipfile.BadZipFile, ArithmeticError, EOFError, LookupError, OSError, RuntimeError, ValueError)
_ZIP_ERRORS += (struct.error,)


class _Refusal(Exception):
    """Why the file is not read, as a clause that follows its path."""


class _Global(str):
    """A name that the file asks for; never looked up anywhere but in this module's tables."""

    __slots__ = ()


@dataclasses.dataclass(frozen=True, slots=True)
class _Storage:
    key: str
    dtype: np.dtype
    total: int  # elements of the stored whole
    start: int  # where this view of it begins, in elements,
    length: int  # and how many it has


@dataclasses.dataclass(frozen=True, slots=True)
class _Tensor:
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def read_torch(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """The tensors of a PyTorch checkpoint (`.pth`, `.pt`, `.bin`) by name, read without PyTorch.

    path: a file that `torch.save` wrote, in today's zip format or the older one; nothing in it is executed.

    Of a training checkpoint the state dict inside is returned: the first mapping that holds tensors among the entries
    `state_dict`, `model`, `state_dict_ema` and `model_state_dict`, in this order. Otherwise the outermost mapping is.
    Entries that are no tensors are left out. Names are kept as they are.

    Returns C-contiguous, writable arrays of their own memory, each with its tensor's shape and dtype: float16, float32,
    float64, bfloat16 (of `ml_dtypes`), int8, int16, int32, int64, uint8 or bool.
    Raises FileNotFoundError if there is no such file, and ValueError if the file is anything else than a checkpoint of
    plain tensors, is damaged, or asks for code to run (it names which).
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"expected a PyTorch checkpoint at {path}, found no file there; check the path")
    if not path.is_file():
        raise ValueError(f"{path} is not a file; expected the path of a PyTorch checkpoint (.pth, .pt, .bin)")
    try:
        with path.open("rb") as file:
            head, size = file.read(512), path.stat().st_size
            if head.startswith(b"PK\x03\x04"):
                return _read_zip(file, size)
            if head.startswith(b"\x80"):
                return _read_legacy(file, size)
            raise _Refusal(_describe(head))
    except _Refusal as refusal:
        raise ValueError(f"{path} {refusal}") from refusal.__cause__


def _describe(head: bytes) -> str:
    if not head:
        return f"is empty; expected a PyTorch checkpoint: {_FETCH}"
    if head[257:262] == b"ustar":
        return f"is in PyTorch's oldest format, a tar archive, which is not read; load it with PyTorch and {_SAVE}"
    if head[8:10] == b'{"':
        return "looks like a safetensors file, not a PyTorch checkpoint; name it .safetensors"
    for start, name in _OTHER_FILES.items():
        if head.lstrip().startswith(start):
            return f"is not a PyTorch checkpoint but {name}"
    return f"is not a PyTorch checkpoint: it begins with {head[:8]!r}; check the path, or {_FETCH}"


def _read_zip(file: BinaryIO, size: int) -> dict[str, np.ndarray]:
    """Today's format: a zip archive whose `NAME/data.pkl` describes the tensors, with one entry per storage."""
    try:
        archive = zipfile.ZipFile(file)
    except _ZIP_ERRORS as error:
        raise _Refusal(f"is a truncated or damaged zip archive ({_brief(error)}); {_FETCH}") from error
    entries = {info.filename: info for info in archive.infolist()}
    claimed = sum(info.file_size for info in archive.infolist())
    if claimed > size:  # entries that overlap, or are compressed
        raise _Refusal(f"has {size} bytes, but its zip entries claim {claimed}; torch.save writes none such: {_FETCH}")
    roots = [name.removesuffix("data.pkl") for name in entries if name.split("/")[-1] == "data.pkl"]
    if len(roots) != 1:
        raise _Refusal(f"is a zip archive with {len(roots)} entries data.pkl; a PyTorch checkpoint has one: {_SAVE}")
    if roots[0] + "constants.pkl" in entries:
        raise _Refusal(f"is a TorchScript archive, which is code and is not read; load it with PyTorch and {_SAVE}")

    def read(name: str) -> bytes:
        info = entries.get(roots[0] + name)
        if info is None:
            raise _Refusal(f"lacks its entry {_brief(roots[0] + name)}; {_FETCH}")
        if info.compress_type != zipfile.ZIP_STORED:
            raise _Refusal(f"has compressed entries, which torch.save never writes; {_SAVE}")
        try:
            return archive.read(info)
        except _ZIP_ERRORS as error:
            raise _Refusal(f"is damaged at its entry {_brief(info.filename)} ({_brief(error)}); {_FETCH}") from error

    order = read("byteorder") if roots[0] + "byteorder" in entries else b"little"
    if order not in (b"little", b"big"):
        raise _Refusal(f"has the byte order {order[:16]!r}, expected little or big; {_FETCH}")
    tensors = _state_dict(_interpret(io.BytesIO(read("data.pkl")), {}))
    return _arrays(tensors, lambda key: read(f"data/{key}"), order.decode(), size)


def _read_legacy(file: BinaryIO, size: int) -> dict[str, np.ndarray]:
    """The format before 2020: five pickles back to back, then each storage's length and bytes.

    torch.save wrote the bytes in little-endian order on every machine. Memory-mapped, the file's `read` allocates no
    more than the file has, whatever length the pickle claims.
    """
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as stream:
        for expected in (_MAGIC, _PROTOCOL):
            if _interpret(stream, {}) != expected:
                raise _Refusal(f"is a pickle, but not one that torch.save writes; {_SAVE}")
        _interpret(stream, {})  # about the machine that wrote it
        storages: dict[str, _Storage] = {}
        tensors = _state_dict(_interpret(stream, storages))
        keys = _interpret(stream, {})
        if type(keys) is not list or any(type(key) is not str or key not in storages for key in keys):
            raise _Refusal(f"is damaged: it lists storages that no tensor uses; {_FETCH}")
        places: dict[str, slice] = {}
        for key in keys:
            begin = stream.tell() + 8
            end = begin + storages[key].total * storages[key].dtype.itemsize
            if end > size or int.from_bytes(stream.read(8), "little") != storages[key].total:
                raise _Refusal(f"is truncated or damaged at storage {_brief(key)}, byte {begin} of {size}; {_FETCH}")
            stream.seek(end)
            places[key] = slice(begin, end)

        def fetch(key: str) -> bytes:
            if key not in places:
                raise _Refusal(f"lacks the bytes of storage {_brief(key)}; {_FETCH}")
            return stream[places[key]]

        return _arrays(tensors, fetch, "little", size)


def _interpret(stream: Any, storages: dict[str, _Storage]) -> Any:
    """What one pickle describes; `storages` receives the storages that it names.

    The stack works as in Python's own unpickler: MARK puts it away and begins a new one. Dicts keep the entries with
    string keys (hashing anything else could take forever); sets become lists, as only tensors are wanted.
    """
    stack: list[Any] = []
    outer: list[list[Any]] = []
    memo: dict[int, Any] = {}
    steps = 0
    try:
        for op, arg, _ in pickletools.genops(stream):
            steps += 1
            if steps > _MAX_STEPS:
                raise _Refusal(f"describes more than a checkpoint does: over {_MAX_STEPS} steps; {_SAVE}")
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
                    # Else one long argument, passed again and again from the memo, would take forever.
                    steps += len(args) + sum(len(a) for a in args if type(a) in (list, tuple))
                    stack.append(_CALLS[function](*args))
                case "BUILD":  # an OrderedDict's attributes: _metadata, the versions of the modules
                    stack.pop()
                    _expect(stack[-1], dict)
                case _:
                    raise _Refusal(f"uses the pickle opcode {op.name}, which no plain state dict needs; {_SAVE}")
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        reason = f"{type(error).__name__}: {_brief(error)}"
        raise _Refusal(f"is truncated or damaged: its pickle makes no sense ({reason}); {_FETCH}") from error
    raise _Refusal(f"is truncated: its pickle does not end; {_FETCH}")


def _expect(value: Any, kind: type) -> Any:
    if type(value) is not kind:  # exact: True is no size
        raise TypeError(f"expected {kind.__name__}, got {type(value).__name__}")
    return value


def _name(value: Any) -> str:
    """Equal long strings, compared again and again, would take forever as well."""
    if len(_expect(value, str)) > _MAX_NAME:
        raise ValueError(f"a name of {len(value)} characters")
    return value


def _update(target: dict[str, Any], pairs: Iterable[Any]) -> dict[str, Any]:
    for key, value in pairs:
        if type(key) is str:
            target[_name(key)] = value
    return target


def _global(module: str, name: str) -> _Global:
    full = _Global(f"{module}.{name}")
    if full not in _CALLS and full not in _STORAGES:
        raise _Refusal(
            f"asks for {_brief(full)}, which is not a tensor or a container; refusing to read it. "
            f"Only plain state dicts are read: {_SAVE}"
        )
    return full


def _storage(claim: Any, storages: dict[str, _Storage]) -> _Storage:
    """("storage", class, key, device, elements), and in the older format None or (view's key, start, length)."""
    if _expect(claim, tuple)[0] != "storage":
        raise _Refusal(f"is a whole saved model or unknown to PyTorch: it refers to {_brief(claim[0])}; {_SAVE}")
    dtype, key, total = _STORAGES[_expect(claim[1], _Global)], _name(claim[2]), _expect(claim[4], int)
    whole = _Storage(key, dtype, total, 0, total)
    if storages.setdefault(key, whole) != whole or total < 0:
        raise ValueError(f"storage {key} has two descriptions or a negative length")
    if len(claim) < 6 or claim[5] is None:
        return whole
    _, start, length = _expect(claim[5], tuple)
    if _expect(start, int) < 0 or _expect(length, int) < 0 or start + length > total:
        raise ValueError(f"a view reaches beyond storage {key}")
    return dataclasses.replace(whole, start=start, length=length)


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *rest: Any) -> _Tensor:
    """torch._utils._rebuild_tensor(_v2); `rest`: requires_grad, hooks, and perhaps {"neg": True} or {"conj": True}."""
    if len(rest) > 2 and rest[2]:
        raise _Refusal(f"holds a tensor with pending arithmetic (conjugate or negative); resolve it and {_SAVE}")
    if len(_expect(shape, tuple)) != len(_expect(strides, tuple)) or len(shape) > _MAX_DIMS:
        raise ValueError(f"a tensor has {len(shape)} sizes and {len(strides)} strides")
    if any(_expect(number, int) < 0 for number in (offset, *shape, *strides)):
        raise ValueError("a tensor has a negative size, stride or offset")
    return _Tensor(_expect(storage, _Storage), offset, shape, strides)


def _parameter(data: Any, *_: Any) -> _Tensor:
    return _expect(data, _Tensor)


def _nothing(*_: Any) -> None:
    """Stands for what has no part in a tensor. Not built: `bytes` of a long string, again and again, fill memory."""


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


def _state_dict(tree: Any) -> dict[str, _Tensor]:
    if type(tree) is not dict:
        kind = "a single tensor" if type(tree) is _Tensor else type(tree).__name__
        raise _Refusal(f"holds {kind}, expected a state dict: a mapping of names to tensors; {_SAVE}")
    for inner in [*(tree.get(name) for name in _NESTED), tree]:
        if type(inner) is dict and (tensors := {n: t for n, t in inner.items() if type(t) is _Tensor}):
            return tensors
    found = ", ".join(_brief(name) for name in list(tree)[:5]) or "nothing"
    raise _Refusal(f"holds no tensors, expected a mapping of names to tensors; found {found}; {_SAVE}")


def _arrays(tensors: dict[str, _Tensor], fetch: Callable[[str], bytes], order: str, size: int) -> dict[str, np.ndarray]:
    """Checks all descriptions, then reads the storages one at a time."""
    allowed = _FREE_BYTES + _MAX_GROWTH * size
    by_storage: dict[str, list[str]] = {}
    for name, tensor in tensors.items():
        storage = tensor.storage
        last = tensor.offset + sum((n - 1) * s for n, s in zip(tensor.shape, tensor.strides, strict=True))
        if 0 not in tensor.shape and last >= storage.length:
            raise _Refusal(
                f"is damaged: tensor {_brief(name)} of shape {_brief(tensor.shape)} reaches to element {_brief(last)} "
                f"of a storage that has {_brief(storage.length)}; {_FETCH}"
            )
        # Zeros count as ones: what has no elements may still have a size that no array has.
        allowed -= math.prod(max(n, 1) for n in tensor.shape) * storage.dtype.itemsize
        if allowed < 0 or storage.total * storage.dtype.itemsize > size:
            raise _Refusal(f"has {size} bytes, too few for the tensors it claims, such as {_brief(name)}; {_FETCH}")
        by_storage.setdefault(storage.key, []).append(name)

    arrays: dict[str, np.ndarray] = {}
    for key, names in by_storage.items():
        storage, raw = tensors[names[0]].storage, fetch(key)
        if len(raw) != storage.total * storage.dtype.itemsize:
            raise _Refusal(f"is damaged: storage {_brief(key)} has {len(raw)} bytes for {storage.total} elements")
        if order != sys.byteorder:
            raw = np.frombuffer(raw, f"u{storage.dtype.itemsize}").byteswap().tobytes()
        arrays |= {name: _array(tensors[name], raw) for name in names}
    return {name: arrays[name] for name in tensors}


def _array(tensor: _Tensor, raw: bytes) -> np.ndarray:
    """The elements copied out. `np.ndarray` itself also refuses what reaches beyond `raw`."""
    dtype = tensor.storage.dtype
    if 0 in tensor.shape:
        return np.zeros(tensor.shape, dtype)
    # An axis of length 1 may have any stride, even one that no machine integer holds.
    strides = tuple(s * dtype.itemsize if n > 1 else 0 for n, s in zip(tensor.shape, tensor.strides, strict=True))
    stored = np.dtype(np.uint8) if dtype == np.bool_ else dtype  # NumPy takes a bool of neither 0 nor 1 on trust
    view = np.ndarray(tensor.shape, stored, raw, (tensor.storage.start + tensor.offset) * dtype.itemsize, strides)
    return np.array(view != 0 if dtype == np.bool_ else view, order="C")


def _brief(text: object) -> str:
    """For an error: a file's own words, no longer than one can read, without line breaks."""
    words = str(text)
    return "".join(c if c.isprintable() else "?" for c in words[:80]) + ("..." if len(words) > 80 else "")
