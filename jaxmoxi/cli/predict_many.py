"""`jaxmoxi predict` of many photos: batches of one size through one compiled program, a table, and contact sheets."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxmoxi.cli import shared as _command
from jaxmoxi.cli.predict_files import Files, Row, describe, table
from jaxmoxi.cli.predict_model import (
    CERTAINTY,
    Fields,
    Loaded,
    caption_of,
    check_options,
    class_names_of,
    join,
    load_checkpoint,
    on_host,
    pick,
)
from jaxmoxi.cli.predict_photos import Given, Photos, Read, find_given, listed, read_each, tell_failed
from jaxmoxi.cli.shared import CommandError
from jaxmoxi.escape import printable
from jaxmoxi.plot.strokes import short
from jaxmoxi.regions.spec import RegionSpec
from jaxmoxi.regions.superpixels import slic_regions

if TYPE_CHECKING:  # flax and its networks take seconds to import
    from jax.sharding import Mesh

    from jaxmoxi.cli.predict import Predict
    from jaxmoxi.p2p import Prediction

_ON_A_SHEET = 36
_FLUSH = 60.0  # seconds between writings of the table while it grows


def predict_many(options: Predict) -> int:
    """Predicts, prints and writes. What was computed is written, whatever ends it. Returns the exit code."""
    from jaxmoxi.cli.predict_report import Report

    asked = check_options(options)
    if not options.photos:
        raise CommandError("expected a photo, or a folder of photos; got none")
    photos = find_given(options.photos, class_names_of(options), options.out)
    if options.report and len(photos.readable) < 2:
        raise CommandError(
            f"--report is about many photos: there is 1 to predict in {listed([str(p) for p in options.photos])}; "
            "leave it out"
        )
    mesh = _command.start_devices()
    loaded = load_checkpoint(options, asked)
    _command.check_out(options.out)
    files = Files(options.out, [os.path.abspath(path) for path in options.photos])
    _tell_first(options, loaded, photos, files)
    report = Report(loaded, caption_of(options, loaded)) if options.report else None
    every = len(photos.readable) + len(photos.failed)
    started = time.perf_counter()
    rows, problem = _run(options, loaded, photos, mesh, files, report)
    if not rows:
        files.remove()
        raise problem or CommandError(f"{tell_failed(photos.failed, every)}: there is nothing to predict")
    seconds = time.perf_counter() - started
    files.flush(rows, photos.failed, loaded)  # before anything that could go wrong
    answer = describe(rows, loaded)
    if report is not None:
        files.add_report(*report.pages(files.base.name, answer, photos.failed))
    record = _record(options, loaded, photos, rows, answer) | {"finished": problem is None}
    record |= {"seconds": round(seconds, 3), **_command.versions()}
    files.finish(rows, photos.failed, loaded, record)
    print(table(rows, loaded))
    print(answer)
    if not options.quiet:
        print(f"{len(rows) / max(seconds, 1e-9):.1f} photos a second, {seconds:.1f} s")
        print(f"wrote {printable(', '.join(map(str, files.written)))}")
    if problem is not None:
        raise problem
    if photos.failed:
        raise CommandError(tell_failed(photos.failed, every))
    return 0


def _tell_first(options: Predict, loaded: Loaded, photos: Photos, files: Files) -> None:
    """What is known before the long part: a line on stdout, and notes on stderr."""
    if not options.quiet:
        count = len(photos.readable)
        some = f"{loaded.spec.count}" if loaded.spec.rows is not None else f"up to {loaded.spec.count}"
        print(
            printable(f"{options.checkpoint} chooses among {some} superpixels of each of {count:,} photos"), flush=True
        )
    for note in photos.notes:
        _command.say(f"jaxmoxi: note: {note}")
    if photos.failed:
        every = len(photos.readable) + len(photos.failed)
        _command.say(f"jaxmoxi: note: {tell_failed(photos.failed, every)}; the others are predicted")
    if files.renamed:
        _command.say(f"jaxmoxi: note: {printable(files.renamed)}")


def _run(
    options: Predict, loaded: Loaded, photos: Photos, mesh: Mesh | None, files: Files, report: Any
) -> tuple[list[Row], BaseException | None]:
    """The rows of the photos that were predicted, and what ended it early, if anything did."""
    from tqdm import tqdm

    rows: list[Row] = []
    notes: dict[str, list[str]] = {}
    problem: BaseException | None = None
    size = min(options.batch_size, len(photos.readable))
    with tqdm(
        total=len(photos.readable), desc="predict", unit="photo", leave=False, disable=True if options.quiet else None
    ) as bar:
        flushed = time.monotonic()
        sheet = _Sheet(loaded, files, len(photos.readable))
        try:
            for chunk in _chunks(photos, size, loaded.model.config.image_size, bar):
                regions = _regions(loaded.spec, np.stack([read.image for read in chunk]), size)
                found = _predict(loaded, chunk, regions, size, mesh)
                fields = on_host(found)
                rows += _rows(chunk, regions, found, loaded)
                for read in chunk:
                    for note in read.notes:
                        notes.setdefault(note, []).append(read.given.name)
                sheet.add(chunk, fields)
                if report is not None:
                    report.add(chunk, regions, found, fields)
                bar.update(len(chunk))
                bar.set_postfix_str(f"{printable(short(rows[-1].name))[:20]}", refresh=False)
                if time.monotonic() - flushed > _FLUSH:
                    files.flush(rows, photos.failed, loaded)
                    flushed = time.monotonic()
        except MemoryError as error:
            problem = CommandError(f"{error}: a batch did not fit the memory; give a smaller --batch-size than {size}")
        except (KeyboardInterrupt, Exception) as error:  # raised again when what there is has been written
            problem = error
        try:
            sheet.draw()
        except (KeyboardInterrupt, Exception) as error:
            problem = problem or error
    for note, names in notes.items():
        _command.say(f"jaxmoxi: warning: {listed(names)}: {note}")
    return rows, problem


def _chunks(photos: Photos, size: int, image_size: int, bar: Any) -> Iterator[list[Read]]:
    """The photos that can be read, so many at a time; those that cannot go to `photos.failed`."""
    chunk: list[Read] = []
    for read in read_each(photos.readable, image_size, photos.failed):
        if read is None:
            bar.update()
            continue
        chunk.append(read)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _regions(spec: RegionSpec, images: np.ndarray, size: int) -> np.ndarray:
    """int32[B, S, S], as `spec.label_map` makes them of each image."""
    if spec.rows is not None:
        return np.broadcast_to(np.asarray(spec.label_map(images[0])), images.shape[:3])
    full = np.concatenate([images, np.repeat(images[-1:], size - len(images), 0)])  # another size would compile anew
    return np.asarray(slic_regions(full, num_segments=spec.count))[: len(images)]


def _predict(loaded: Loaded, chunk: Sequence[Read], regions: np.ndarray, size: int, mesh: Mesh | None) -> Prediction:
    """The prediction of a chunk. Every chunk runs the same programs, the last and smaller one too."""
    from jaxmoxi.p2p.inference.predict import check_certainty, first_level, predict_levels

    levels = check_certainty(loaded.certainty or CERTAINTY)
    images = np.stack([read.image for read in chunk])
    try:
        return first_level(predict_levels(loaded.model, images, regions, levels, size=size, mesh=mesh))
    except FloatingPointError as error:
        raise CommandError(f"--checkpoint: {error}") from error


def _rows(chunk: Sequence[Read], regions: np.ndarray, found: Prediction, loaded: Loaded) -> list[Row]:
    classes, chances = np.asarray(found.classes), np.asarray(found.probabilities).max(-1)
    shares, kept = np.asarray(found.pixel_mask).mean((1, 2)), np.asarray(found.group_mask).sum(-1)
    thresholds = np.asarray(found.threshold)
    return [
        Row(
            given=read.given,
            top=int(classes[i]),
            name=loaded.class_names[classes[i]],
            probability=float(chances[i]),
            share=float(shares[i]),
            kept=int(kept[i]),
            superpixels=len(np.unique(regions[i])),
            threshold=float(thresholds[i]),
            note="; ".join(read.notes),
        )
        for i, read in enumerate(chunk)
    ]


class _Sheet:
    """The contact sheets, each drawn when it is full."""

    def __init__(self, loaded: Loaded, files: Files, total: int):
        self._loaded, self._files = loaded, files
        self._many, self._page = total > _ON_A_SHEET, 0
        self._images: list[np.ndarray] = []
        self._names: list[Given] = []
        self._found: list[Fields] = []

    def add(self, chunk: Sequence[Read], found: Fields) -> None:
        """Takes a chunk, and draws what sheets are full."""
        for i, read in enumerate(chunk):
            self._images.append(read.image)
            self._names.append(read.given)
            self._found.append(pick(found, i))
            if len(self._images) == _ON_A_SHEET:
                self.draw()

    def draw(self) -> None:
        """Draws what there is, if anything."""
        from jaxmoxi.p2p import plot

        if not self._images:
            return
        self._page += 1
        figure = plot.contact_sheet(
            np.stack(self._images),
            join(self._found),
            labels=np.array([given.label for given in self._names]),
            class_names=[short(name) for name in self._loaded.class_names],
            names=[given.name for given in self._names],
            hidden="grey",
        )
        self._files.add_sheet(figure, self._page if self._many else None)
        self._images, self._names, self._found = [], [], []


def _record(options: Predict, loaded: Loaded, photos: Photos, rows: Sequence[Row], answer: str) -> dict[str, Any]:
    """What was asked and what came out, for the JSON file; the table has the rows."""
    known = [row for row in rows if row.right is not None]
    return {
        "answer": answer,
        "checkpoint": str(options.checkpoint),
        "certainty": loaded.certainty,
        "regions": str(loaded.spec),
        "black_box": loaded.black_box,
        "classes": list(loaded.class_names),
        "photos": len(rows),
        "predicted": dict(Counter(row.name for row in rows)),
        "labelled": len(known),
        "accuracy": sum(bool(row.right) for row in known) / len(known) if known else None,
        "failed": [{"file": str(photo.path), "reason": reason} for photo, reason in photos.failed],
        "notes": photos.notes,
    }
