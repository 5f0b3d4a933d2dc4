"""What a study keeps of its photos, and how a shard holds it as plain arrays. Pure; nothing is read or written here.

A shard is three tables: of photos, of numbers and of lines. Every field of a record is one array with a row for each
record; arrays whose length differs from row to row stand one after the other, with their lengths beside them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from jaxmoxi.errors import InputError
from jaxmoxi.metrics.registry import Line, Number

# Of the arrays in a shard, and of the folder around it. 1 had keys such as "3/tokens/insertion/leads"; 2 had no
# checksum, nor what was in the photos' files.
FORMAT = 3

Status = Literal["ok", "unreadable", "not classified correctly", "of another class", "failed"]


class Measured(NamedTuple):
    """What a study keeps of one photo: M methods, P players.

    target:  the class explained.
    top:     the class that the model sees.
    methods: M names.
    regions: int32[H, W], labels 0 .. P-1.
    scores:  float32[M, 2, P], higher is more important, for insertion and for deletion.
    orders:  int32[M, 2, P], the same as orders, most important first.
    numbers, lines: what the metrics yielded.
    """

    target: int
    top: int
    methods: tuple[str, ...]
    regions: Int[np.ndarray, "H W"]
    scores: Float[np.ndarray, "M 2 P"]
    orders: Int[np.ndarray, "M 2 P"]
    numbers: tuple[Number, ...]
    lines: tuple[Line, ...]


class Result(NamedTuple):
    """One photo under one model.

    index:    its place in the study's list of photos.
    photo:    its name, as text.
    status:   "ok", or why there is nothing measured; `reason` says more.
    seconds:  of work.
    measured: None without the status "ok".
    content:  what was in the photo's file, and in its mask's (`contents.content_of`); "" where nothing could be read.
    """

    index: int  # pyright: ignore[reportIncompatibleMethodOverride]
    photo: str
    status: Status
    reason: str
    seconds: float
    measured: Measured | None
    content: str = ""


def to_arrays(results: Sequence[Result]) -> dict[str, np.ndarray]:
    """The records of one model's photos as the arrays of a shard; `from_arrays` is the way back."""
    good = [(result.index, result.measured) for result in results if result.measured is not None]
    photos = [measured for _, measured in good]
    numbers = [(index, *number) for index, measured in good for number in measured.numbers]
    lines = [(index, *line) for index, measured in good for line in measured.lines]
    return {
        "format": np.asarray(FORMAT, np.int32),
        "index": np.asarray([r.index for r in results], np.int32),
        "photo": np.asarray([r.photo for r in results], np.str_),
        "status": np.asarray([r.status for r in results], np.str_),
        "reason": np.asarray([r.reason for r in results], np.str_),
        "seconds": np.asarray([r.seconds for r in results], np.float32),
        "content": np.asarray([r.content for r in results], np.str_),
        # Of the photos that were measured: they share the model, so its methods and the size of its images.
        "methods": np.asarray(photos[0].methods if photos else (), np.str_),
        "measured": np.asarray([index for index, _ in good], np.int32),
        "target": np.asarray([m.target for m in photos], np.int32),
        "top": np.asarray([m.top for m in photos], np.int32),
        "regions": np.asarray([m.regions for m in photos], np.int32),
        "players": np.asarray([m.orders.shape[-1] for m in photos], np.int32),
        "scores": _joined([m.scores for m in photos], np.float32),
        "orders": _joined([m.orders for m in photos], np.int32),
        **_columns("number", _NUMBER, numbers),
        **_columns("line", _LINE, lines),
    }


def from_arrays(arrays: Mapping[str, np.ndarray]) -> list[Result]:
    """The records of a shard.

    Raises ValueError for a shard of another format, KeyError for one that lacks an array.
    """
    if int(arrays.get("format", np.asarray(1))) != FORMAT:
        raise InputError("another version of jaxmoxi wrote it")
    numbers: dict[int, list[Number]] = {}
    for index, *fields in _rows("number", _NUMBER, arrays):
        numbers.setdefault(index, []).append(Number._make(fields))
    lines: dict[int, list[Line]] = {}
    for index, *fields in _rows("line", _LINE, arrays):
        lines.setdefault(index, []).append(Line._make(fields))
    methods = tuple(arrays["methods"].tolist())
    per_photo = zip(
        arrays["measured"].tolist(),
        arrays["target"].tolist(),
        arrays["top"].tolist(),
        arrays["regions"],
        _parted(arrays["scores"], arrays["players"]),
        _parted(arrays["orders"], arrays["players"]),
        strict=True,
    )
    measured = {
        index: Measured(
            target, top, methods, regions, scores, orders, tuple(numbers.get(index, ())), tuple(lines.get(index, ()))
        )
        for index, target, top, regions, scores, orders in per_photo
    }
    columns = (arrays[name].tolist() for name in ("index", "photo", "status", "reason", "seconds", "content"))
    return [
        Result(index, photo, status, reason, seconds, measured.get(index), content)
        for index, photo, status, reason, seconds, content in zip(*columns, strict=True)
    ]


# The dtype of each field of a table; None: an array of its own length in every row.
_NUMBER: dict[str, Any] = {"photo": np.int32} | dict.fromkeys(Number._fields, np.str_) | {"value": np.float64}
_LINE: dict[str, Any] = {"photo": np.int32} | dict.fromkeys(Line._fields, np.str_) | {"shares": None, "values": None}
_RAGGED = {"shares": np.float64, "values": np.float32}


def _columns(table: str, fields: Mapping[str, Any], rows: Sequence[tuple[Any, ...]]) -> dict[str, np.ndarray]:
    columns = list(zip(*rows, strict=True)) or [()] * len(fields)
    out = {}
    for (name, dtype), column in zip(fields.items(), columns, strict=True):
        if dtype is None:
            out[f"{table}.length"] = np.asarray([len(array) for array in column], np.int32)
            out[f"{table}.{name}"] = _joined(column, _RAGGED[name])
        else:
            out[f"{table}.{name}"] = np.asarray(column, dtype)
    return out


def _rows(table: str, fields: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Iterable[tuple[Any, ...]]:
    columns = [
        _parted(arrays[f"{table}.{name}"], arrays[f"{table}.length"])
        if dtype is None
        else arrays[f"{table}.{name}"].tolist()
        for name, dtype in fields.items()
    ]
    return zip(*columns, strict=True)


def _joined(arrays: Sequence[np.ndarray], dtype: Any) -> np.ndarray:
    """Arrays that differ in their last axis, one after the other along it."""
    return np.concatenate(arrays, axis=-1).astype(dtype) if len(arrays) else np.zeros(0, dtype)


def _parted(joined: np.ndarray, lengths: np.ndarray) -> list[np.ndarray]:
    return np.split(joined, np.cumsum(lengths)[:-1], axis=-1) if len(lengths) else []
