"""Weights in NumPy's `.npz`, read without pickle: what a file claims is compared with what it holds before it is read.

Source: numpy/lib/format.py. Numbers of two bytes without a type are bfloat16, as JAX's NumPy arrays are saved.
"""

from __future__ import annotations

import math
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeVar, cast

import ml_dtypes
import numpy as np

from jaxmoxi.errors import InputError
from jaxmoxi.models.checkpoints.json_file import LFS, LFS_HEAD, MissingFileError
from jaxmoxi.models.checkpoints.torch_pickle import brief

# Compressed arrays may take more memory than the file has bytes: a head of zeros does. But no more than this.
_FREE_BYTES, _MAX_GROWTH = 1 << 28, 64
_MOST_ARRAYS, _MOST_DIMS = 100_000, 32

# What `zipfile`, `zlib` and NumPy raise for damaged files, version by version.
_DAMAGED = (zipfile.BadZipFile, zlib.error, struct.error, ArithmeticError, EOFError, LookupError, OSError, RuntimeError)
_DAMAGED += (SyntaxError, TypeError, UnicodeError, ValueError, NotImplementedError)


Part = TypeVar("Part")


class _Header(NamedTuple):
    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a `.npz` file by name, each of its own memory.

    Raises FileNotFoundError, and ValueError for a file that is none, is damaged, or holds objects (which are pickled).
    """
    return _read(path, _array)


def npz_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """The shapes of the arrays of a `.npz` file by name; the arrays are not read. Raises as `read_npz` does."""
    return _read(path, lambda _, header: header.shape)


def _read(path: Path, part: Callable[[zipfile.ZipExtFile, _Header], Part]) -> dict[str, Part]:
    if not path.exists():
        raise MissingFileError(f"expected weights at {path}, found no file there; check the path")
    if not path.is_file():
        raise InputError(f"{path} is not a file; expected NumPy's .npz")
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(len(LFS_HEAD))
        if head == LFS_HEAD:
            raise InputError(f"{path} {LFS}")
        if head.startswith(b"\x93NUMPY"):
            raise InputError(f"{path} is a single array (.npy), not the weights of a network; expected NumPy's .npz")
        try:
            with zipfile.ZipFile(file) as archive:
                entries = [info for info in archive.infolist() if info.filename.endswith(".npy")]
                _check_claims(path, archive, len(entries), size)
                found = {}
                for info in entries:
                    with archive.open(info) as opened:
                        entry = cast(zipfile.ZipExtFile, opened)  # the type that a file opened for reading has
                        name = info.filename.removesuffix(".npy")
                        found[name] = part(entry, _header(path, name, entry, info.file_size))
                return found
        except InputError:
            raise
        except _DAMAGED as error:
            raise InputError(
                f"{path} is not a readable .npz file ({brief(error)}); download or save it again"
            ) from None


def _check_claims(path: Path, archive: zipfile.ZipFile, count: int, size: int) -> None:
    claimed = sum(info.file_size for info in archive.infolist())
    if claimed > _FREE_BYTES + _MAX_GROWTH * size or count > _MOST_ARRAYS:
        raise InputError(f"{path} has {size} bytes and claims {claimed} in {count} arrays, too many; download it again")
    if not count:
        raise InputError(f"{path} holds no arrays; expected NumPy's .npz with the weights of a network")


def _header(path: Path, name: str, file: zipfile.ZipExtFile, size: int) -> _Header:
    version = np.lib.format.read_magic(file)
    reader = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(version)
    if reader is None:
        raise ValueError(f"the array {name} has version {version}")
    shape, fortran, dtype = reader(file)
    if dtype.hasobject:
        raise InputError(
            f"{path}: the array {brief(name)} holds pickled objects, which are not read; save plain arrays with "
            "np.savez(file, **{name: array})"
        )
    if len(shape) > _MOST_DIMS or math.prod(shape) * dtype.itemsize != size - file.tell():
        raise InputError(f"{path}: the array {brief(name)} of shape {brief(shape)} does not fit; download it again")
    if dtype == np.dtype("V2"):
        dtype = np.dtype(ml_dtypes.bfloat16)
    return _Header(shape, fortran, dtype)


def _array(file: zipfile.ZipExtFile, header: _Header) -> np.ndarray:
    flat = np.frombuffer(bytearray(file.read()), header.dtype)
    return flat.reshape(header.shape, order="F" if header.fortran else "C")
