"""The folder of a study: whose it is, and its shards, each there as a whole or not at all.

A shard is an `.npz` of plain arrays (`records`) of a few photos that follow one another in the list. Any `etils.epath`
path will do, a bucket included: a local file comes into its place by a rename, an object in a bucket by being complete.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from etils import epath

import jaxmoxi.files as files
from jaxmoxi.errors import InputError
from jaxmoxi.files import write_whole
from jaxmoxi.study.contents import names
from jaxmoxi.study.measure import Setting
from jaxmoxi.study.photos import Photo, as_text
from jaxmoxi.study.records import FORMAT, Result, from_arrays, to_arrays

_SETTINGS = "study.json"


def claim(folder: epath.Path, record: Mapping[str, Any]) -> None:
    """Makes the folder this study's, or checks that it is.

    record: the settings its numbers depend on, as JSON can hold them.
    Raises ValueError for a folder that holds something else, or a study of other settings, which it lists.
    """
    try:
        files.claim(folder, _SETTINGS, record, kind="study")
    except RecursionError:
        raise InputError(f"{folder / _SETTINGS} does not hold the settings of a study; name another folder") from None


def check_format(folder: epath.Path) -> None:
    """Raises ValueError for the folder of a study whose shards another version wrote in another format."""
    try:
        found = json.loads((folder / _SETTINGS).read_text())
    except (OSError, ValueError, RecursionError):  # `claim` says what is wrong with the folder
        return
    if isinstance(found, dict) and "config" in found and found.get("format") != FORMAT:
        raise InputError(
            f"{folder} holds a study of another version of jaxmoxi, whose shards this version does not read; name "
            "another folder"
        )


def study_name(record: Mapping[str, Any]) -> str:
    """A hash of a study's settings, by which its shards know it."""
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


class Owner(NamedTuple):
    """Whose a shard is, written into it, so that a file of another study or place is not taken for it.

    study:  `study_name` of the settings.
    model:  the model's place in the study.
    photos: the names of its photos, by their places in the study's list; a shard holds all, a part some of them.
    """

    study: str
    model: int
    photos: Mapping[int, str]


class Study(NamedTuple):
    """A study and its folder: which shards there are, and what is in them.

    out:      the folder.
    name:     `study_name` of its settings.
    photos:   the list; folder: to which their names are relative.
    settings: each model's name, as text, and part.
    left_out: what the report says of the files that are not read as photos; "" for nothing.
    """

    out: epath.Path
    name: str
    photos: tuple[Photo, ...]
    folder: epath.Path
    settings: tuple[tuple[str, Setting], ...]
    shard_size: int
    left_out: str = ""

    @property
    def shards(self) -> list[tuple[int, int]]:
        """(model, shard) of every shard."""
        return [(m, s) for m in range(len(self.settings)) for s in range(-(-len(self.photos) // self.shard_size))]

    @property
    def reads_masks(self) -> bool:
        """Whether a metric compares with the photos' masks."""
        return any(metric.needs_objects for _, task in self.settings for metric in task.metrics)

    def places(self, pair: tuple[int, int]) -> range:
        """The places of a shard's photos in the list."""
        first = pair[1] * self.shard_size
        return range(first, min(first + self.shard_size, len(self.photos)))

    def is_done(self, pair: tuple[int, int]) -> bool:
        """Whether all photos of a shard are measured."""
        return shard_path(self.out, *pair).exists()

    def path(self, pair: tuple[int, int]) -> epath.Path | None:
        """The file with a shard's results: the whole, or else what is measured of it; None where nothing is."""
        paths = (shard_path(self.out, *pair), part_path(self.out, *pair))
        return next((path for path in paths if path.exists()), None)

    def read(self, pair: tuple[int, int]) -> list[Result]:
        """The results of a shard, as far as they are measured. Raises InputError as `read_shard`."""
        path = self.path(pair)
        return [] if path is None else read_shard(path, self._owner(pair), part=not self.is_done(pair))

    def write(self, pair: tuple[int, int], results: Sequence[Result]) -> None:
        """Writes a shard whose photos are all measured. Raises OSError."""
        write_shard(shard_path(self.out, *pair), results, self._owner(pair))
        part_path(self.out, *pair).unlink(missing_ok=True)

    def write_part(self, pair: tuple[int, int], results: Sequence[Result]) -> None:
        """Keeps what is measured of a shard, which is not done from then on. Raises OSError."""
        if results:
            write_shard(part_path(self.out, *pair), results, self._owner(pair))
        else:
            part_path(self.out, *pair).unlink(missing_ok=True)
        shard_path(self.out, *pair).unlink(missing_ok=True)

    def _owner(self, pair: tuple[int, int]) -> Owner:
        return Owner(self.name, pair[0], {i: as_text(self.photos[i].name) for i in self.places(pair)})


def shard_path(folder: epath.Path, model: int, shard: int) -> epath.Path:
    """Where the results of a shard of photos under one of the models are."""
    return folder / "shards" / f"{model}-{shard:06d}.npz"


def part_path(folder: epath.Path, model: int, shard: int) -> epath.Path:
    """Where the results of a shard are whose photos are not all measured: a run ended before."""
    return folder / "shards" / f"{model}-{shard:06d}.part.npz"


def write_shard(path: epath.Path, results: Sequence[Result], owner: Owner) -> None:
    """Writes the results of a shard's photos. Raises OSError, and the shard is then not there."""
    file = io.BytesIO()
    arrays = {
        **to_arrays(results),
        "study": np.asarray(owner.study),
        "model": np.asarray(owner.model, np.int32),
    }
    np.savez_compressed(file, **arrays, checksum=np.asarray(_checksum(arrays)))  # type: ignore[arg-type]
    write_whole(path, file.getvalue())


def read_shard(path: epath.PathLike, owner: Owner | None = None, *, part: bool = False) -> list[Result]:
    """The results of a shard's photos, in their order.

    owner: whose the shard must be; None reads anybody's.
    part:  some of the owner's photos are enough.

    Raises ValueError that names a shard which cannot be read, is damaged, or is another's.
    """
    arrays = _read_arrays(path)
    results = from_arrays(arrays)
    if owner is not None:
        told = {result.index: result.photo for result in results}
        wrong = None
        if str(arrays["study"]) != owner.study:
            wrong = "is of a study with other settings, photos or models"
        elif int(arrays["model"]) != owner.model:
            wrong = f"is of model number {int(arrays['model'])}, not {owner.model}"
        elif not told.items() <= owner.photos.items() or (not part and len(told) < len(owner.photos)):
            wrong = f"holds the photos {names(told.values())}, not {names(owner.photos.values())}"
        if wrong:
            raise InputError(
                f"the shard {path} {wrong}: another file was copied over it; delete it and run the study again"
            )
    return results


def results_in(path: epath.PathLike) -> str:
    """A hash of a shard's results, but for the seconds they took. Raises as `read_shard`."""
    arrays = _read_arrays(path)
    del arrays["seconds"]
    return _checksum(arrays)


def _read_arrays(path: epath.PathLike) -> dict[str, np.ndarray]:
    """The arrays of a shard, as they were written."""
    try:
        with np.load(io.BytesIO(epath.Path(path).read_bytes()), allow_pickle=False) as file:
            arrays = dict(file)
        written = int(arrays.get("format", np.asarray(1)))
        if written == FORMAT and str(arrays["checksum"]) != _checksum(arrays):
            raise ValueError("its arrays are not those that were written")
    except Exception as error:  # a file that is broken anywhere makes errors of every kind
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(f"the shard {path} is damaged ({reason}); delete it and run the study again") from None
    if written != FORMAT:
        raise InputError(
            f"the shard {path} is of another version of jaxmoxi; delete it and run the study again, or name another "
            "folder"
        )
    return arrays


def _checksum(arrays: Mapping[str, np.ndarray]) -> str:
    """SHA-256 of arrays by their names, but for the checksum itself."""
    found = hashlib.sha256()
    for name in sorted(arrays):
        if name != "checksum":
            found.update(f"{name} {arrays[name].dtype.str} {arrays[name].shape} ".encode())
            found.update(arrays[name].tobytes())
    return found.hexdigest()
