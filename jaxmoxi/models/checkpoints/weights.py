"""The tensors of a checkpoint folder, from one file of weights or from shards that an index lists."""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxmoxi.errors import InputError
from jaxmoxi.models.checkpoints.json_file import LFS, LFS_HEAD, MissingFileError, read_json
from jaxmoxi.models.checkpoints.torch_file import read_torch
from jaxmoxi.models.checkpoints.torch_pickle import brief

WEIGHTS = ("model.safetensors", "pytorch_model.bin", "pytorch_model.pth", "model.pth")
_INDICES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
SAFETENSORS, TORCH = (".safetensors",), (".bin", ".pth", ".pt", ".pth.tar")

_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "U64": 8, "I32": 4, "U32": 4, "I16": 2, "U16": 2}
_BYTES |= {"I8": 1, "U8": 1, "BOOL": 1, "C64": 8}
_MOST_HEADER = 100_000_000  # as in the safetensors library


def read_tensors(
    folder: str | os.PathLike[str], *, file: str | None = None, entry: str | None = None
) -> dict[str, np.ndarray]:
    """All tensors of a checkpoint folder by name, as NumPy arrays.

    file:  the weights file in it to read; left out, the first of the usual names.
    entry: which state dict of a PyTorch training checkpoint to take; see `read_torch`.

    Raises FileNotFoundError for what is not there, and ValueError for a file that cannot be read, for an index that
    does not fit its shards, and for an entry of a file that has none.
    """
    folder = Path(folder)
    if file is not None:
        return _read(folder / file, entry)
    for name in (_INDICES[0], WEIGHTS[0], _INDICES[1], *WEIGHTS[1:]):
        path = folder / name
        if path.exists():
            return _read_shards(path, entry) if name in _INDICES else _read(path, entry)
    others = sorted(p.name for p in folder.iterdir() if p.name.endswith(SAFETENSORS + TORCH)) if folder.is_dir() else []
    hint = f"; it has {', '.join(others[:4])}: give the path of the file itself" if others else ""
    raise MissingFileError(f"{folder} holds no weights; expected one of {', '.join(WEIGHTS)}{hint}")


def _read(path: Path, entry: str | None) -> dict[str, np.ndarray]:
    if path.suffix not in SAFETENSORS:
        return read_torch(path, entry=entry)
    if entry is not None:
        raise InputError(f"{path} holds tensors and no entries; leave entry={entry!r} out")
    return read_safetensors(path)


def _read_shards(index: Path, entry: str | None) -> dict[str, np.ndarray]:
    """The tensors that an index lists, each from the file that it names."""
    places = read_json(index).get("weight_map")
    if not isinstance(places, Mapping) or not places or not all(isinstance(f, str) for f in places.values()):
        raise InputError(f"{index}: expected weight_map to name a file for each tensor; got {brief(repr(places))}")
    files = sorted(set(places.values()))
    for name in files:
        if Path(name).name != name or "\\" in name or "\0" in name or not name.endswith(SAFETENSORS + TORCH):
            raise InputError(f"{index}: expected the names of weights files beside it; got {brief(repr(name))}")
        if not (index.parent / name).exists():
            raise MissingFileError(f"{index} names the file {brief(name)}, which is not there; download it")
    tensors: dict[str, np.ndarray] = {}
    for name in files:
        found = _read(index.parent / name, entry)
        claimed = {tensor for tensor, place in places.items() if place == name}
        if found.keys() != claimed:
            wrong = brief(", ".join(sorted(found.keys() ^ claimed)[:4]))
            raise InputError(
                f"{index}: expected {len(claimed)} tensors in {brief(name)}; the file has {len(found)}, and they "
                f"differ in {wrong}: download both again"
            )
        tensors |= found
    return tensors


def read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a safetensors file by name. Raises FileNotFoundError, and ValueError for a file that is none."""
    import ml_dtypes  # noqa: F401  gives NumPy the name "bfloat16", which safetensors looks up
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    _check_header(path)
    try:
        return load_file(path)
    except (SafetensorError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise InputError(
            f"{path} is not a readable safetensors file ({brief(error)}); download or save it again"
        ) from None


def _check_header(path: Path) -> None:
    """Raises ValueError for what is no safetensors file, and for numbers of a kind that is not read, by name."""
    if not path.exists():
        raise MissingFileError(f"expected weights at {path}, found no file there; check the path")
    if not path.is_file():
        raise InputError(f"{path} is not a file; expected a safetensors file")
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(8)
        if head and LFS_HEAD.startswith(head):
            raise InputError(f"{path} {LFS}")
        length = struct.unpack("<Q", head)[0] if len(head) == 8 else 0
        if not 2 <= length <= min(_MOST_HEADER, size - 8):
            raise InputError(
                f"{path} is not a readable safetensors file (it has {size} bytes and claims a header of {length}); "
                "download or save it again"
            )
        header = file.read(length)
    for name, info in _header(path, header).items():
        if name == "__metadata__":
            continue
        kind, shape = (info.get("dtype"), info.get("shape")) if isinstance(info, dict) else (None, None)
        if not isinstance(kind, str) or not isinstance(shape, list) or any(_is_no_size(n) for n in shape):
            raise InputError(f"{path}: expected a dtype and a shape for the tensor {brief(name)}; got {brief(info)}")
        if kind not in _BYTES:
            raise InputError(
                f"{path}: the tensor {brief(name)} is of {brief(kind)}; expected floating-point numbers of 16, 32 "
                "or 64 bits: convert it to F32 and save it again"
            )
        if len(shape) > 32 or math.prod(shape) * _BYTES[kind] > size:
            raise InputError(
                f"{path}: the tensor {brief(name)} of shape {brief(shape)} does not fit into {size} bytes; download it "
                "again"
            )


def _is_no_size(value: Any) -> bool:
    return isinstance(value, bool) or not isinstance(value, int) or value < 0


def _header(path: Path, raw: bytes) -> dict[str, Any]:
    import json

    try:
        header = json.loads(raw.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{path} is not a readable safetensors file (its header is no JSON: {brief(error)}); download or save it "
            "again"
        ) from None
    if not isinstance(header, dict):
        raise InputError(f"{path} is not a readable safetensors file (its header is no object); save it again")
    return header
