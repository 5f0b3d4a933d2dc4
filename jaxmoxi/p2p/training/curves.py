"""The learning curves of a run while it runs: `curves.jsonl`, a line for every few steps of an epoch.

A line has `epoch`, `step`, the means of `Metrics` over the steps since the line before (or since the beginning of the
epoch), and `images_per_second` and `data_wait` as `throughput` measures them. A run that goes on from a checkpoint
drops the lines after it and writes the same numbers again, to rounding; the times are those of the process that wrote
them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from jaxmoxi.files import write_whole
from jaxmoxi.p2p.training.objectives import Metrics

FILE = "curves.jsonl"
_DIGITS = 6


class Curves:
    """The file of a run's curves.

    folder:    of the run; None writes nothing.
    first:     the step that the run goes on from.
    per_epoch: steps of an epoch.
    """

    def __init__(self, folder: Path | None, first: int, per_epoch: int):
        self._path = None if folder is None else folder / FILE
        rows = [] if folder is None else [row for row in read_curves(folder) if row["step"] <= first]
        if self._path is not None and (rows or self._path.exists()):
            write_whole(self._path, "".join(json.dumps(row) + "\n" for row in rows))
        start = first // per_epoch * per_epoch
        self._step, self._sums = start, dict.fromkeys(NAMES, 0.0)  # of the epoch, where the last line ends
        for row in rows:
            if row["step"] > start:
                count, self._step = row["step"] - self._step, row["step"]
                self._sums = {name: total + count * row[name] for name, total in self._sums.items()}

    def add(self, epoch: int, step: int, in_epoch: int, sums: Metrics, measured: Mapping[str, float]) -> None:
        """A line for the steps up to this one, from the sums since the beginning of the epoch."""
        now = {name: float(value) for name, value in vars(jax.device_get(sums)).items()}
        if step - self._step >= in_epoch:  # the first line of its epoch
            self._step, self._sums = step - in_epoch, dict.fromkeys(NAMES, 0.0)
        count = step - self._step
        means = {name: float(f"{(now[name] - self._sums[name]) / count:.{_DIGITS}g}") for name in NAMES}
        self._step, self._sums = step, now
        if self._path is not None:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"epoch": epoch, "step": step, **means, **measured}) + "\n")


NAMES = tuple(Metrics.__annotations__)


def read_curves(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run's curves, in the order of their steps. A line that was cut short by a kill is left out."""
    path = folder / FILE
    rows: list[dict[str, Any]] = []
    for text in path.read_text("utf-8", errors="replace").splitlines() if path.exists() else ():
        try:
            row = json.loads(text)
            numbers = [row[name] for name in ("epoch", "step", *NAMES)]
            if all(isinstance(x, int | float) for x in numbers) and row["step"] > (rows[-1]["step"] if rows else 0):
                rows.append(row)
        except (ValueError, KeyError, TypeError, RecursionError):
            continue
    return rows


def means_of(sums: Metrics, count: int) -> dict[str, float]:
    """The means of the metrics over so many steps, from their sums."""
    return {name: float(value) / count for name, value in vars(jax.device_get(sums)).items()}


def describe_epoch(line: Mapping[str, Any]) -> str:
    """A record of the history in one line of text."""
    text = (
        f"epoch {line['epoch']}: loss {line['loss']:.3f}, accuracy {line['accuracy']:.1%}, "
        f"selected {line['soft_share']:.1%} soft, {line['hard_share']:.1%} hard"
    )
    if "validation" in line:
        found = line["validation"]
        text += f"; validation: accuracy {found['accuracy']:.1%}, selected {found['hard_share']:.1%}"
    if line.get("throughput"):
        found = line["throughput"]
        text += f"; {found['images_per_second']:.3g} images/s, {found['data_wait']:.1%} of the time waiting for data"
    return text
