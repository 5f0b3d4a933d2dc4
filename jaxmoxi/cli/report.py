"""The result of a search in words, as a JSON record, and as files that are complete or not there."""

from __future__ import annotations

import io
import json
import math
import re
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from jaxmoxi.errors import warn
from jaxmoxi.files import write_together
from jaxmoxi.plot.chosen import flip_size
from jaxmoxi.types import GreedyResult, Stop

TOP = "the top class"
"""What a class is that leads; of independent labels it is `ABOVE`."""
ABOVE = "above 50 %"


def percent(probability: Any) -> str:
    """A probability for people: `71 %`, `0.4 %`. It is never `100 %`, as nothing is certain."""
    share = 100 * float(probability)
    if 1 <= share <= 99:
        return f"{share:.0f} %"
    if share < 0.05 or share > 99.95:
        return "under 0.1 %" if share < 1 else "over 99.9 %"
    return f"{share:.1f} %"


def group(result: GreedyResult, stop: Stop) -> np.ndarray:
    """The players that the answer names: those chosen, or, of a full order, those up to the flip."""
    size = flip_size(result) if stop == Stop() else None
    return np.asarray(result.order)[: int(result.num_steps) if size is None else size]


def describe(result: GreedyResult, stop: Stop, name: str, place: str = TOP) -> str:
    """The answer in one sentence.

    result: with leads and probabilities. name: of the class explained. place: what a class is that leads.
    """
    total, steps = result.order.shape[0], int(result.num_steps)
    chances = np.append(np.asarray(result.start_probability), np.asarray(result.probabilities)[:steps])
    leads = np.append(np.asarray(result.start_leads), np.asarray(result.leads)[:steps])
    if stop.probability is not None:
        return _about_level(result.insertion, total, chances, float(stop.probability), name)
    if stop.size is not None:
        now = place if leads[-1] else f"not {place}"
        done = "with" if result.insertion else "without"
        return f"{done} {_these(steps, total)} {name!r} is {now}, {percent(chances[-1])}"
    size = flip_size(result)
    if size is None:
        if result.insertion:
            return (
                f"{name!r} does not become {place} in this order, nor with all {total} regions ({percent(chances[-1])})"
            )
        return f"{name!r} stays {place} in this order, even without all {total} regions ({percent(chances[-1])})"
    chance = percent(chances[size])
    if size == 0:
        if result.insertion:
            return f"no region is needed: {name!r} is {place} with every region hidden, {chance}"
        whole = "of" if place == TOP else "in"
        return f"{name!r} is not {place} {whole} the whole photo ({chance}): there is nothing to take away from it"
    if result.insertion:
        return f"{_these(size, total)} {'is' if size == 1 else 'are'} enough for {name!r}, {chance}"
    return f"without {_these(size, total)} it is no longer {name!r} ({chance})"


def _about_level(insertion: bool, total: int, chances: np.ndarray, level: float, name: str) -> str:
    steps, chance = len(chances) - 1, percent(chances[-1])
    reached = chances[-1] >= level if insertion else chances[-1] <= level
    if not reached:
        best = int(np.argmax(chances) if insertion else np.argmin(chances))
        at, shown = percent(chances[best]), f"{best} of {total} regions"
        if insertion:
            return f"{name!r} does not reach {percent(level)} in this order: at most {at}, with {shown}"
        return f"{name!r} does not fall to {percent(level)} in this order: at least {at}, without {shown}"
    if steps == 0:
        seen = "with every region hidden" if insertion else "in the whole photo"
        return f"no region is needed: {name!r} is at {chance} {seen}"
    if insertion:
        return f"{_these(steps, total)} {'is' if steps == 1 else 'are'} enough for {name!r}, {chance}"
    return f"without {_these(steps, total)} {name!r} falls to {chance}"


def _these(size: int, total: int) -> str:
    return f"this 1 of {total} regions" if size == 1 else f"these {size} of {total} regions"


def arrays(result: GreedyResult, **more: Any) -> dict[str, np.ndarray]:
    """The fields of a result as NumPy arrays for `.npz`. Fields that are None are left out."""
    fields = {name: getattr(result, name) for name in result.__dataclass_fields__} | more
    return {name: np.asarray(value) for name, value in fields.items() if value is not None}


def greedy_record(result: GreedyResult, stop: Stop) -> dict[str, Any]:
    """A greedy result's entries in the JSON file: the steps that were taken."""
    steps = int(result.num_steps)
    return {
        "group": group(result, stop),
        "order": result.order[:steps],
        "values": result.values[:steps],
        "probabilities": None if result.probabilities is None else result.probabilities[:steps],
        "leads": None if result.leads is None else result.leads[:steps],
        "start": {
            "value": result.start_value,
            "probability": result.start_probability,
            "leads": result.start_leads,
        },
        "num_evaluations": int(result.num_evaluations),
    }


def plain(value: Any) -> Any:
    """A value as JSON can hold it: arrays as lists, NaN and infinity as null, float32 with its own digits."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if hasattr(value, "shape"):
        value = np.asarray(value)
        if value.dtype == np.float32:
            value = value.astype(str).astype(np.float64)
        return plain(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value


def as_json(record: dict[str, Any]) -> str:
    """A record as JSON: arrays as lists in one line each, every text as UTF-8 can hold it."""
    text = json.dumps(plain(record), indent=2, ensure_ascii=False, allow_nan=False)
    text = re.sub(r"\[\n[^][{}\"]*\]", lambda row: re.sub(r"\s+", " ", row[0]), text)  # a list of numbers is one line
    # A byte of a file's name that is no text is no UTF-8 either; JSON can spell it out.
    return re.sub("[\ud800-\udfff]", lambda half: f"\\u{ord(half[0]):04x}", text) + "\n"


def write_files(base: Path, figure: Any, data: dict[str, np.ndarray], record: dict[str, Any]) -> list[Path]:
    """Writes `base`.png, .npz and .json, all of them complete or none at all, the record last. Raises OSError.

    figure: one picture, or several by the ends of their names, such as {"-upset.png": figure}.
    """
    text = as_json(record)
    pictures = figure if isinstance(figure, dict) else {".png": figure}
    contents: dict[str, Callable[[Any], Any]] = {
        **{end: partial(_save, picture) for end, picture in pictures.items()},
        ".npz": lambda file: np.savez_compressed(file, **data),  # type: ignore[arg-type]
        ".json": lambda file: file.write(text.encode()),
    }
    paths = {suffix: base.with_name(base.name + suffix) for suffix in contents}
    write_together({paths[suffix]: content for suffix, content in contents.items()})
    return list(paths.values())


def save_figure(figure: Any) -> bytes:
    """The picture as PNG. Letters that the font has not are told once."""
    file = io.BytesIO()
    _save(figure, file)
    return file.getvalue()


def _save(figure: Any, file: Any) -> None:
    """Writes the picture. Letters that the font has not are told once, not one by one."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        figure.savefig(file, format="png")
    missing = [str(w.message) for w in caught if re.match("Glyph .* missing from", str(w.message))]
    for other in caught:
        if str(other.message) not in missing:
            warnings.warn_explicit(other.message, other.category, other.filename, other.lineno)
    if missing:
        letters = len(set(missing))
        warn(
            f"the font of the picture lacks {letters} letter{'s'[: letters > 1]} of the names in it, which are drawn "
            "as boxes; the record (.json) has the names",
            UserWarning,
        )
