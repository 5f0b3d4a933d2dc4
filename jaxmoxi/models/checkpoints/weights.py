"""The tensors of a checkpoint folder, from one file of weights or from shards that an index lists."""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxmoxi.errors import InputError, warn
from jaxmoxi.models.checkpoints.entries import under
from jaxmoxi.models.checkpoints.json_file import LFS, LFS_HEAD, MissingFileError, read_json
from jaxmoxi.models.checkpoints.npz_file import read_npz
from jaxmoxi.models.checkpoints.torch_file import Opened, open_torch
from jaxmoxi.models.checkpoints.torch_pickle import brief

WEIGHTS = ("model.safetensors", "pytorch_model.bin", "pytorch_model.pth", "model.pth")
_INDICES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
SAFETENSORS, TORCH, NPZ = (".safetensors",), (".bin", ".pth", ".pt", ".ckpt", ".pth.tar", ".pt2", ".pte"), (".npz",)
# What trainers write beside the weights, by the beginnings of the names.
_TRAINERS = ("optimizer.", "optimizer_", "scheduler.", "scaler.", "rng_state", "training_args.", "random_states")
# What else a file or a folder may be, by the ends of names.
_NOT_READ = {
    (".distcp", ".metadata"): "a sharded checkpoint of torch.distributed; make one file of it with: python -m "
    "torch.distributed.checkpoint.format_utils dcp_to_torch FOLDER model.pt",
    ("zero_to_fp32.py", "_optim_states.pt"): "a checkpoint of DeepSpeed; make one file of it with its zero_to_fp32.py",
    (".onnx",): "an ONNX model; give its session as a function to pixel_value_fn",
    (".msgpack", ".h5", ".keras", ".pb", ".tflite"): "weights of Flax, TensorFlow or Keras; save them from PyTorch, or "
    "give the model as a function to pixel_value_fn",
    (".gguf", ".ggml"): "quantised weights; take those that were not quantised",
    (".ptl", ".mlmodel", ".engine", ".plan"): "a compiled program; take the PyTorch module it came from and save its "
    "state_dict",
}

_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "U64": 8, "I32": 4, "U32": 4, "I16": 2, "U16": 2}
_BYTES |= {"I8": 1, "U8": 1, "BOOL": 1, "C64": 8}
_MOST_HEADER = 100_000_000  # as in the safetensors library


def read_tensors(
    folder: str | os.PathLike[str], *, file: str | None = None, entry: str | None = None
) -> dict[str, np.ndarray]:
    """All tensors of a checkpoint folder by name, as NumPy arrays.

    file:  the weights file in it to read; left out, the first of the usual names, else the only one, with a warning.
    entry: which state dict of a PyTorch training checkpoint to take; see `read_torch`.

    Raises FileNotFoundError for what is not there, and ValueError for a file that cannot be read, for several files of
    unusual names, for an index that does not fit its shards, and for an entry of a file that has none.
    """
    path, opened = open_weights(folder, file=file, entry=entry)
    told = [clause for clause in (describe_found(path, file), opened.choice()) if clause]
    if told:
        warn(f"{path}: {'; '.join(told)}", UserWarning)
    return opened.tensors


def open_weights(folder: str | os.PathLike[str], *, file: str | None, entry: str | None) -> tuple[Path, Opened]:
    """What `read_tensors` returns, with the file it came from and where in it the tensors stood. Warns of nothing."""
    path = find_weights(Path(folder), file)
    return path, Opened(_read_shards(path, entry)) if path.name.endswith(".index.json") else _read(path, entry)


def find_weights(folder: Path, file: str | None = None) -> Path:
    """The weights file of a folder, or the index of its shards.

    Raises FileNotFoundError where there is none, and ValueError where none of several has a usual name.
    """
    if file is not None:
        return folder / file
    for name in (_INDICES[0], WEIGHTS[0], _INDICES[1], *WEIGHTS[1:]):
        if (folder / name).exists():
            return folder / name
    names = sorted(p.name for p in folder.iterdir()) if folder.is_dir() else []
    for ends in ((".index.json",), SAFETENSORS + TORCH, NPZ):
        others = [name for name in names if name.endswith(ends) and not name.startswith(_TRAINERS)]
        if len(others) == 1:
            return folder / others[0]
        if others:
            listed = ", ".join(others[:8]) + (f" and {len(others) - 8} more" if len(others) > 8 else "")
            raise InputError(f"{folder} holds several weights files ({listed}): give the path of the file")
    if what := describe_unread(*names):
        raise InputError(f"{folder} holds {what}")
    raise MissingFileError(f"{folder} holds no weights; expected one of {', '.join(WEIGHTS)}")


def describe_unread(*names: str) -> str:
    """What files of these names are that is not read, and what to do; "" where that is not known."""
    for ends, what in _NOT_READ.items():
        if any(name.endswith(ends) for name in names):
            return what
    return ""


def describe_found(path: Path, file: str | None) -> str:
    """That a file was taken that has no usual name and was not asked for; "" for others."""
    usual = file is not None or path.name in WEIGHTS + _INDICES
    return "" if usual else f"took {path.name}, the only weights file of the folder"


def _read(path: Path, entry: str | None) -> Opened:
    if not path.name.endswith(SAFETENSORS + NPZ):
        return open_torch(path, entry=entry)
    tensors = read_safetensors(path) if path.name.endswith(SAFETENSORS) else read_npz(path)
    if entry is None:
        return Opened(tensors)
    if found := under(tensors, f"{entry}."):
        return Opened(found, entry)
    raise InputError(
        f"{path} holds tensors and no entries, and no names that begin with {brief(entry)}.; leave entry={entry!r} out"
    )


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
        found = _read(index.parent / name, entry).tensors
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
