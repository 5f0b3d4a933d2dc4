"""The folder of a study: whose it is, and its shards, each there as a whole or not at all.

A shard is an `.npz` of plain arrays (`records`) of a few photos that follow one another in the list. Any `etils.epath`
path will do, a bucket included: a local file comes into its place by a rename, an object in a bucket by being complete.
"""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

import jaxmoxi.files as files
from jaxmoxi.errors import InputError
from jaxmoxi.files import write_whole
from jaxmoxi.study.records import FORMAT, Result, from_arrays, to_arrays

_SETTINGS = "study.json"


def claim(folder: epath.Path, record: Mapping[str, Any]) -> None:
    """Makes the folder this study's, or checks that it is.

    record: the settings its numbers depend on, as JSON can hold them.
    Raises ValueError for a folder that holds something else, or a study of other settings, which it lists.
    """
    files.claim(folder, _SETTINGS, record, kind="study")


def check_format(folder: epath.Path) -> None:
    """Raises ValueError for the folder of a study whose shards another version wrote in another format."""
    try:
        found = json.loads((folder / _SETTINGS).read_text())
    except (OSError, json.JSONDecodeError, UnicodeDecodeError):  # `claim` says what is wrong with the folder
        return
    if isinstance(found, dict) and "config" in found and found.get("format") != FORMAT:
        raise InputError(
            f"{folder} holds a study of another version of jaxmoxi, whose shards this version does not read; name "
            "another folder"
        )


def shard_path(folder: epath.Path, model: int, shard: int) -> epath.Path:
    """Where the results of a shard of photos under one of the models are."""
    return folder / "shards" / f"{model}-{shard:06d}.npz"


def write_shard(path: epath.Path, results: Sequence[Result]) -> None:
    """Writes the results of a shard's photos. Raises OSError, and the shard is then not there."""
    file = io.BytesIO()
    np.savez_compressed(file, **to_arrays(results))  # type: ignore[arg-type]
    write_whole(path, file.getvalue())


def read_shard(path: epath.PathLike) -> list[Result]:
    """The results of a shard's photos, in their order. Raises ValueError that names a shard which cannot be read."""
    try:
        with np.load(io.BytesIO(epath.Path(path).read_bytes()), allow_pickle=False) as arrays:
            return from_arrays(dict(arrays))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"the shard {path} is damaged ({error}); delete it and run the study again") from None
