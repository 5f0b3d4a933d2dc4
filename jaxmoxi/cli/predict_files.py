"""The answers of `jaxmoxi predict` about many photos, as a table in print and in CSV, and the files in `--out`."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from jaxmoxi.cli.names import locked
from jaxmoxi.cli.predict_model import Loaded, is_certain
from jaxmoxi.cli.predict_photos import Given
from jaxmoxi.cli.report import as_json, percent, save_figure
from jaxmoxi.cli.shared import CommandError
from jaxmoxi.escape import printable, shorten
from jaxmoxi.files import write_whole
from jaxmoxi.plot.strokes import short

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_PRINTED = 100  # rows of the printed table
_MOST = 10_000
COLUMNS = (
    "file", "class", "class_index", "probability", "certain", "share", "kept", "superpixels", "threshold", "true_class",
    "true_index", "right", "problem", "note",
)  # fmt: skip


class Row(NamedTuple):
    """The answer about one photo. top, name: the class predicted. share: of the pixels that was kept, in [0, 1].
    kept: of so many superpixels. note: what was assumed when the photo was read."""

    given: Given
    top: int
    name: str
    probability: float
    share: float
    kept: int
    superpixels: int
    threshold: float
    note: str

    @property
    def right(self) -> bool | None:
        """Whether the predicted class is the true one; None where that is not known."""
        return None if self.given.label < 0 else self.top == self.given.label


def table(rows: Sequence[Row], loaded: Loaded) -> str:
    """The rows for print, in aligned columns; the first of very many."""
    labelled = any(row.right is not None for row in rows)
    head = ["file", "class", "probability", "pixels", "superpixels", "threshold", *["true class"] * labelled]
    lines = [head]
    uncertain = False
    for row in rows[:_PRINTED]:
        doubted = is_certain(row.probability, loaded.certainty) is False
        uncertain = uncertain or doubted
        cells = [
            shorten(printable(row.given.name), 48),
            _short(row.name),
            percent(row.probability) + (" *" if doubted else ""),
            percent(row.share),
            f"{row.kept} of {row.superpixels}",
            f"{row.threshold:.2f}",
        ]
        if labelled:
            truth = "" if row.right is None else _short(loaded.class_names[row.given.label])
            cells.append(truth + ("  WRONG" if row.right is False else ""))
        lines.append(cells)
    wide = [max(len(line[i]) for line in lines) for i in range(len(head))]
    text = ["  ".join(cell.ljust(w) for cell, w in zip(line, wide, strict=True)).rstrip() for line in lines]
    if len(rows) > _PRINTED:
        text.append(f"... and {len(rows) - _PRINTED:,} more")
    if uncertain:
        text.append(f"* never as certain as {loaded.certainty:g}")
    return "\n".join(text)


def describe(rows: Sequence[Row], loaded: Loaded) -> str:
    """All rows in one sentence."""
    shares = np.array([row.share for row in rows])
    low, median, high = np.percentile(shares, (25, 50, 75))
    count = f"{len(rows):,} photo{'s' * (len(rows) != 1)}"
    low, median, high = (f"{100 * share:.1f} %" for share in (low, median, high))
    told = [f"{count}, seen {median} of the pixels (median; quartiles {low} and {high})"]
    known = [row for row in rows if row.right is not None]
    if known:
        right = sum(bool(row.right) for row in known)
        of = "" if len(known) == len(rows) else " whose true class is known"
        told.append(f"{right:,} of {len(known):,}{of} right ({exact_percent(right, len(known))})")
    doubted = sum(is_certain(row.probability, loaded.certainty) is False for row in rows)
    if doubted:
        told.append(f"{doubted:,} never as certain as {loaded.certainty:g}")
    return "; ".join(told)


def exact_percent(part: int, whole: int) -> str:
    """A share of a count: `95 %`, `99.9 %`; `100 %` of all, and never of less."""
    share = 100 * part / whole
    return (
        f"{share:.0f} %" if part in (0, whole) or 1 <= share <= 99 else f"{share:.1f} %" if share < 99.95 else "99.9 %"
    )


class Files:
    """The files of one run in `--out`: their names, which no other photos have, and what was written of them.

    base: the path of the files without their ends: predictions, or predictions-2 and on where that is of other photos.
    renamed: what to tell where it is not the plain name; "" else.
    """

    def __init__(self, out: Path, inputs: Sequence[str]):
        self._inputs = [name.encode("utf-8", "backslashreplace").decode() for name in inputs]
        self.written: list[Path] = []
        try:
            with locked(out):  # the record claims the name at once
                self.base, self.renamed, self._before = _choose(out, self._inputs)
                self._write_record({"finished": False, "files": self._before})
        except OSError as error:
            raise CommandError(f"--out {out}: could not write ({error})") from None

    def add_sheet(self, figure: Figure, page: int | None) -> None:
        """Writes a contact sheet; page: its number, None for the only one."""
        self._write(f"{self.base.name}-sheet{'' if page is None else f'-{page:02d}'}.png", save_figure(figure))

    def add_report(self, text: str, figures: Mapping[str, Figure]) -> None:
        """Writes a report and its figures, by their paths in the folder."""
        for name, figure in figures.items():
            self._write(name, save_figure(figure))
        self._write(f"{self.base.name}-report.md", text.encode())

    def flush(self, rows: Sequence[Row], failed: Sequence[tuple[Given, str]], loaded: Loaded) -> None:
        """Writes the table of what there is."""
        self._write(f"{self.base.name}.csv", _csv(rows, failed, loaded).encode())

    def finish(
        self, rows: Sequence[Row], failed: Sequence[tuple[Given, str]], loaded: Loaded, record: Mapping[str, Any]
    ) -> None:
        """Writes the table and, last, the record; removes what an earlier run of the same photos left."""
        self.flush(rows, failed, loaded)
        names = [str(path.relative_to(self.base.parent)) for path in self.written]
        self._write_record({**record, "files": names})
        self.written.append(_record_of(self.base))
        for old in set(self._before) - set(names):
            if old.startswith(f"{self.base.name}-") and ".." not in Path(old).parts:
                (self.base.parent / old).unlink(missing_ok=True)

    def remove(self) -> None:
        """Gives the name back: nothing was computed. Files of an earlier run of the same photos stay."""
        if not self._before:
            _record_of(self.base).unlink(missing_ok=True)

    def _write_record(self, record: Mapping[str, Any]) -> None:
        write_whole(_record_of(self.base), as_json({"inputs": self._inputs, **record}))

    def _write(self, name: str, content: bytes) -> None:
        path = self.base.parent / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, content)
        except OSError as error:
            raise CommandError(f"--out {self.base.parent}: could not write ({error})") from None
        if path not in self.written:
            self.written.append(path)


def _choose(out: Path, inputs: Sequence[str]) -> tuple[Path, str, list[str]]:
    """(the base of the names, what to tell, the files that an earlier run of these photos wrote)."""
    other = ""
    for number in range(1, _MOST):
        base = out / f"predictions{'' if number == 1 else f'-{number}'}"
        if not _record_of(base).exists() and not base.with_name(f"{base.name}.csv").exists():
            return base, f"{other}, so the files of these are called {base.name}" if other else "", []
        try:
            found = json.loads(_record_of(base).read_text(encoding="utf-8"))
            if found["inputs"] == list(inputs):
                files = [name for name in found["files"] if isinstance(name, str)]
                return base, f"{other}, so the files of these are called {base.name}" if other else "", files
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            pass  # missing or damaged: of other photos
        other = other or f"{out} has {base.name} of other photos"
    raise CommandError(f"--out {out}: has predictions of {_MOST} kinds of photos; name another folder")


def _record_of(base: Path) -> Path:
    return base.with_name(f"{base.name}.json")


def _csv(rows: Sequence[Row], failed: Sequence[tuple[Given, str]], loaded: Loaded) -> str:
    """The table in CSV: a row for each photo, those that could not be read at the end, with their `problem`."""
    from jaxmoxi.study.photos import as_text

    file = io.StringIO(newline="")
    lines = csv.writer(file, lineterminator="\n")
    lines.writerow(COLUMNS)
    names = loaded.class_names
    for row in rows:
        label = row.given.label
        certain = is_certain(row.probability, loaded.certainty)
        truth = ("", "", "") if label < 0 else (as_text(names[label]), label, row.right)
        lines.writerow(
            [
                as_text(str(row.given.path)), as_text(row.name), row.top, f"{row.probability:.6g}",
                "" if certain is None else certain, f"{row.share:.6g}", row.kept, row.superpixels,
                f"{row.threshold:.6g}", *truth, "", row.note,
            ]
        )  # fmt: skip
    for photo, reason in failed:
        truth = ("", "") if photo.label < 0 else (as_text(names[photo.label]), photo.label)
        lines.writerow([as_text(str(photo.path)), *[""] * 8, *truth, "", as_text(reason), ""])
    return file.getvalue()


def _short(name: str) -> str:
    return shorten(short(name), 30)
