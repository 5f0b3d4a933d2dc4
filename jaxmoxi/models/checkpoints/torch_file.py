"""PyTorch checkpoints without PyTorch, and without running what they pickle.

A checkpoint is a pickle that describes containers and tensors, and beside it the tensors' raw bytes. Unpickling would
run whatever the file asks for. `torch_pickle` walks the opcodes instead: it knows a list of names, imports nothing,
and passes over objects of other classes. `entries` chooses the state dict. A tensor stays a description until all of
the pickle is read. Its bytes are read then, after the description has been checked against the file's size, and only if
the tensor is returned.

Source: torch/serialization.py and torch/_utils.py of PyTorch 2.13 (its zip format, and the older one with pickles back
to back). Deviations: entries that are no tensors (bytes, devices, sets) are left out, and their values never built. The
zip's checksums are verified, so files saved with PyTorch's checksums switched off are refused.
"""

from __future__ import annotations

import io
import math
import mmap
import os
import struct
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from jaxmoxi.errors import InputError, warn
from jaxmoxi.models.checkpoints.entries import Taken, take
from jaxmoxi.models.checkpoints.torch_pickle import FETCH, SAVE, Refusal, Storage, Tensor, brief, interpret

_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # what the older format begins with

# Tensors that share storage may take more memory than the file has bytes, but no more than this.
_FREE_BYTES, _MAX_GROWTH = 1 << 26, 8

_OTHER_FILES = {  # what a file with a checkpoint's name may be instead, by its first bytes
    b"version https://git-lfs": "a git-lfs pointer, not the weights; fetch them with git lfs pull",
    b"\xff\xd8\xff": "a JPEG image; check the path",
    b"\x89PNG": "a PNG image; check the path",
    b"\x89HDF": f"an HDF5 file; load it where it comes from and {SAVE}",
    b"\x1f\x8b": "a gzip archive; unpack it first",
    b"<": "a web page or XML, perhaps a login or error page; download the file itself",
}
# What a zip archive is that has entries with these names.
_PROGRAMS = {
    "/constants.pkl": "a TorchScript archive (torch.jit.save)",
    ("serialized_exported_program.json", "/archive_format", "/models/model.json"): "a program of torch.export (.pt2)",
}
# What `zipfile` raises for damaged archives, version by version; RuntimeError is its word for encryption.
_ZIP_ERRORS = (zipfile.BadZipFile, ArithmeticError, EOFError, LookupError, OSError, RuntimeError, ValueError)
_ZIP_ERRORS += (struct.error,)


class Opened(NamedTuple):
    """The tensors that were taken from a checkpoint, the entry they stood under, and others that hold weights.

    entry: keys joined by dots; "" where the tensors are all that the file holds.
    """

    tensors: dict[str, np.ndarray]
    entry: str = ""
    others: tuple[str, ...] = ()

    def choice(self) -> str:
        """The choice that was made, as a sentence without its end; "" where there was none."""
        if not self.others:
            return ""
        names = " and ".join((self.entry, *self.others))
        return (
            f"the checkpoint has the weights {names}; taking {self.entry}. "
            f"entry={self.others[-1]!r} takes {self.others[-1]} instead"
        )


def read_torch(path: str | os.PathLike, *, entry: str | None = None) -> dict[str, np.ndarray]:
    """The tensors of a PyTorch checkpoint (`.pth`, `.pt`, `.bin`, `.ckpt`) by name, read without PyTorch.

    path:  a file that `torch.save` wrote, in today's zip format or the older one; nothing in it is executed.
    entry: the entry of a training checkpoint that holds the state dict to return, such as "state_dict_ema"; entries in
           entries are joined by dots ("ema.module"), and names of tensors that all begin alike make an entry too:
           "state_dict.model" takes what `state_dict` holds as "model.conv1.weight", ..., without "model.".

    Of a training checkpoint the state dict inside is returned: the first mapping that holds tensors among the entries
    `state_dict`, `model`, `state_dict_ema`, `model_ema`, `model_state_dict`, `net` and others, in this order, with a
    warning where it is not the only one (timm itself prefers the averaged weights, `state_dict_ema`). Of any other file
    the outermost mapping is returned, or the only one in it. Entries that are no tensors are left out, of whatever
    class they are, and names are kept as they are.

    Returns C-contiguous, writable arrays of their own memory, each with its tensor's shape and dtype: float16, float32,
    float64, bfloat16 (of `ml_dtypes`), complex64, complex128, int8, int16, int32, int64, uint8 or bool.
    Raises FileNotFoundError if there is no such file, and ValueError if the file is not a checkpoint of plain tensors,
    is damaged, holds a module that was pickled whole, or asks for code to run, which the error names.
    """
    opened = open_torch(path, entry=entry)
    if choice := opened.choice():
        warn(choice, UserWarning)
    return opened.tensors


def open_torch(path: str | os.PathLike, *, entry: str | None = None) -> Opened:
    """What `read_torch` returns, and where in the file it stood. Warns of nothing."""
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"expected a PyTorch checkpoint at {path}, found no file there; check the path")
    if not path.is_file():
        raise InputError(f"{path} is not a file; expected the path of a PyTorch checkpoint (.pth, .pt, .bin)")
    try:
        with path.open("rb") as file:
            head, size = file.read(512), path.stat().st_size
            if head.startswith(b"PK\x03\x04"):
                return _read_zip(file, size, entry, path.name)
            if head.startswith(b"\x80"):
                return _read_legacy(file, size, entry, path.name)
            raise Refusal(_describe(head))
    except Refusal as refusal:
        raise InputError(f"{path} {refusal}") from refusal.__cause__


def _describe(head: bytes) -> str:
    if not head:
        return f"is empty; expected a PyTorch checkpoint: {FETCH}"
    if head[257:262] == b"ustar":
        return f"is in PyTorch's oldest format, a tar archive, which is not read; load it with PyTorch and {SAVE}"
    if head[8:10] == b'{"':
        return "looks like a safetensors file, not a PyTorch checkpoint; name it .safetensors"
    if head[4:6] == b"ET":
        return (
            f"is an ExecuTorch program, which is compiled code and is not read; take the model it came from and {SAVE}"
        )
    for start, name in _OTHER_FILES.items():
        if head.lstrip().startswith(start):
            return f"is not a PyTorch checkpoint but {name}"
    return f"is not a PyTorch checkpoint: it begins with {head[:8]!r}; check the path, or {FETCH}"


def _read_zip(file: BinaryIO, size: int, entry: str | None, name: str) -> Opened:
    """Today's format: a zip archive whose `NAME/data.pkl` describes the tensors, with one entry per storage."""
    try:
        archive = zipfile.ZipFile(file)
    except _ZIP_ERRORS as error:
        raise Refusal(f"is a truncated or damaged zip archive ({brief(error)}); {FETCH}") from error
    entries = {info.filename: info for info in archive.infolist()}
    for ends, kind in _PROGRAMS.items():
        if any(n.endswith(ends) for n in entries):
            raise Refusal(f"is {kind}, which is not read; take the PyTorch module it came from and {SAVE}")
    claimed = sum(info.file_size for info in archive.infolist())
    if claimed > size:  # entries that overlap, or are compressed
        raise Refusal(f"has {size} bytes, but its zip entries claim {claimed}; torch.save writes none such: {FETCH}")
    roots = [name.removesuffix("data.pkl") for name in entries if name.split("/")[-1] == "data.pkl"]
    if len(roots) != 1:
        raise Refusal(f"is a zip archive with {len(roots)} entries data.pkl; a PyTorch checkpoint has one: {SAVE}")

    def read(name: str) -> bytes:
        info = entries.get(roots[0] + name)
        if info is None:
            raise Refusal(f"lacks its entry {brief(roots[0] + name)}; {FETCH}")
        if info.compress_type != zipfile.ZIP_STORED:
            raise Refusal(f"has compressed entries, which torch.save never writes; {SAVE}")
        try:
            return archive.read(info)
        except _ZIP_ERRORS as error:
            raise Refusal(f"is damaged at its entry {brief(info.filename)} ({brief(error)}); {FETCH}") from error

    order = read("byteorder") if roots[0] + "byteorder" in entries else b"little"
    if order not in (b"little", b"big"):
        raise Refusal(f"has the byte order {order[:16]!r}, expected little or big; {FETCH}")
    taken = take(interpret(io.BytesIO(read("data.pkl")), {}), entry, name)
    return _opened(taken, lambda key: read(f"data/{key}"), order.decode(), size)


def _read_legacy(file: BinaryIO, size: int, entry: str | None, name: str) -> Opened:
    """The format before 2020: five pickles back to back, then each storage's length and bytes.

    torch.save wrote the bytes in little-endian order on every machine. Memory-mapped, the file's `read` allocates no
    more than the file has, whatever length the pickle claims.
    """
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as stream:
        for expected in (_MAGIC, _PROTOCOL):
            if interpret(stream, {}) != expected:
                raise Refusal(f"is a pickle, but not one that torch.save writes; {SAVE}")
        interpret(stream, {})  # about the machine that wrote it
        storages: dict[str, Storage] = {}
        taken = take(interpret(stream, storages), entry, name)
        keys = interpret(stream, {})
        if type(keys) is not list or any(type(key) is not str or key not in storages for key in keys):
            raise Refusal(f"is damaged: it lists storages that no tensor uses; {FETCH}")
        places: dict[str, slice] = {}
        for key in keys:
            begin = stream.tell() + 8
            end = begin + storages[key].total * storages[key].dtype.itemsize
            if end > size or int.from_bytes(stream.read(8), "little") != storages[key].total:
                raise Refusal(f"is truncated or damaged at storage {brief(key)}, byte {begin} of {size}; {FETCH}")
            stream.seek(end)
            places[key] = slice(begin, end)

        def fetch(key: str) -> bytes:
            if key not in places:
                raise Refusal(f"lacks the bytes of storage {brief(key)}; {FETCH}")
            return stream[places[key]]

        return _opened(taken, fetch, "little", size)


def _opened(taken: Taken, fetch: Callable[[str], bytes], order: str, size: int) -> Opened:
    return Opened(_arrays(taken.tensors, fetch, order, size), taken.entry, taken.others)


def _arrays(tensors: dict[str, Tensor], fetch: Callable[[str], bytes], order: str, size: int) -> dict[str, np.ndarray]:
    """Checks all descriptions, then reads the storages one at a time."""
    allowed = _FREE_BYTES + _MAX_GROWTH * size
    by_storage: dict[tuple[str, np.dtype], list[str]] = {}
    for name, tensor in tensors.items():
        storage = tensor.storage
        last = tensor.offset + sum((n - 1) * s for n, s in zip(tensor.shape, tensor.strides, strict=True))
        if 0 not in tensor.shape and last >= storage.length:
            raise Refusal(
                f"is damaged: tensor {brief(name)} of shape {brief(tensor.shape)} reaches to element {brief(last)} "
                f"of a storage that has {brief(storage.length)}; {FETCH}"
            )
        # Zeros count as ones: what has no elements may still have a size that no array has.
        allowed -= math.prod(max(n, 1) for n in tensor.shape) * storage.dtype.itemsize
        if allowed < 0 or storage.total * storage.dtype.itemsize > size:
            raise Refusal(f"has {size} bytes, too few for the tensors it claims, such as {brief(name)}; {FETCH}")
        by_storage.setdefault((storage.key, storage.dtype), []).append(name)

    arrays: dict[str, np.ndarray] = {}
    for (key, _), names in by_storage.items():
        storage, raw = tensors[names[0]].storage, fetch(key)
        if len(raw) != storage.total * storage.dtype.itemsize:
            raise Refusal(f"is damaged: storage {brief(key)} has {len(raw)} bytes for {storage.total} elements")
        if order != sys.byteorder:
            width = storage.dtype.itemsize // (2 if storage.dtype.kind == "c" else 1)  # of complex numbers each half
            raw = np.frombuffer(raw, f"u{width}").byteswap().tobytes()
        arrays |= {name: _array(tensors[name], raw) for name in names}
    return {name: arrays[name] for name in tensors}


def _array(tensor: Tensor, raw: bytes) -> np.ndarray:
    """The elements copied out. `np.ndarray` itself also refuses what reaches beyond `raw`."""
    dtype = tensor.storage.dtype
    if 0 in tensor.shape:
        return np.zeros(tensor.shape, dtype)
    # An axis of length 1 may have any stride, even one that no machine integer holds.
    strides = tuple(s * dtype.itemsize if n > 1 else 0 for n, s in zip(tensor.shape, tensor.strides, strict=True))
    stored = np.dtype(np.uint8) if dtype == np.bool_ else dtype  # NumPy takes a bool of neither 0 nor 1 on trust
    view = np.ndarray(tensor.shape, stored, raw, (tensor.storage.start + tensor.offset) * dtype.itemsize, strides)
    return np.array(view != 0 if dtype == np.bool_ else view, order="C")
