"""The command `jaxmoxi predict`: the class of photos by a trained P2P model, and the superpixels that it saw.

One photo is answered here, by a picture, arrays and a record of its own; many are in `predict_many`.
"""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import numpy as np
import tyro

from jaxmoxi.cli import shared as _command
from jaxmoxi.cli.names import choose_base, identify, locked
from jaxmoxi.cli.predict_many import predict_many
from jaxmoxi.cli.predict_model import CERTAINTY, Loaded, caption_of, check_options, is_certain, load_checkpoint
from jaxmoxi.cli.predict_photos import is_collection
from jaxmoxi.cli.report import percent, write_files
from jaxmoxi.cli.shared import CommandError, one_line
from jaxmoxi.escape import printable, shorten
from jaxmoxi.files import read_photo
from jaxmoxi.plot.strokes import short

if TYPE_CHECKING:  # flax and its networks take seconds to import, and no other command needs them
    from matplotlib.figure import Figure

    from jaxmoxi.p2p import Prediction

_OPTION = tyro.conf.arg


class _Task(NamedTuple):
    """The checked inputs.

    path:    of the photo.
    loaded:  the model, and what is asked of it.
    photo:   uint8[S, S, 3], resized and cropped for the model.
    regions: int32[S, S], made as `loaded.spec` says.
    """

    path: Path
    loaded: Loaded
    photo: np.ndarray
    regions: np.ndarray


@dataclasses.dataclass(frozen=True)
class Predict:
    """Classify photos with a trained P2P model, which sees only the superpixels that its selector keeps.

    Of one photo, prints the class, and writes a picture (.png), the arrays (.npz) and a record (.json) into --out. Of
    several, or of a folder, prints a table, and writes it (predictions.csv) with a contact sheet (.png), which shows
    each photo with what was hidden in grey, and a record (.json).
    """

    photos: Annotated[
        tyro.conf.Positional[tuple[Path, ...]],
        _OPTION(metavar="PHOTO|DIR [PHOTO|DIR ...]", help_behavior_hint="(required)"),
    ]
    """Image files, of at most 134 million pixels (or JAXMOXI_MAX_PIXELS in the environment), and folders of them, with
    the folders inside. A photo is resized and its centre cut out, as for the model's evaluation. Class folders, or a
    labels.csv with the columns file and label, tell what the photos of a folder show."""
    checkpoint: Annotated[Path, _OPTION(metavar="DIR")]
    """The folder of a P2P model: of `p2p.save`, or of a training run."""
    certainty: Annotated[float | None, _OPTION(metavar="PROBABILITY", help_behavior_hint="")] = None
    """How sure the classifier must be, in (0, 1]; the higher, the more it sees of the photo. Left out: 0.99."""
    regions: Annotated[str | None, _OPTION(metavar="slic:N|grid:RxC", help_behavior_hint="")] = None
    """About N superpixels, or a grid. Left out: the model's number of superpixels."""
    out: Annotated[Path, _OPTION(metavar="DIR")] = Path("jaxmoxi-out")
    """The folder to write to. The files of the same photo, or of the same photos and folders, are replaced; those of
    others get a number."""
    report: tyro.conf.FlagCreatePairsOff[bool] = False
    """Of several photos: also write predictions-report.md, with figures: for each class where the model looks and how
    much it needs, where it errs and what it had seen, and the parts that the selector's embedding tells apart."""
    batch_size: Annotated[int, _OPTION(metavar="N")] = 32
    """Of several photos: how many go through the networks together. The answers do not depend on it."""
    quiet: tyro.conf.FlagCreatePairsOff[bool] = False
    """Print the answer alone."""

    def run(self) -> int:
        """Predicts, prints and writes. Returns the exit code."""
        _command.start_compilation_cache()
        if len(self.photos) == 1 and not is_collection(self.photos[0]):
            if self.report:
                raise CommandError(
                    "--report is about many photos: name a folder, or several photos; of one photo leave it out"
                )
            return _predict_one(self, self.photos[0])
        return predict_many(self)


def _predict_one(options: Predict, path: Path) -> int:
    """The prediction of one photo."""
    from jaxmoxi import p2p

    task = _prepare(options, path)
    model, certainty = task.loaded.model, task.loaded.certainty
    _command.check_out(options.out)
    with one_line():
        photo = identify(path)
    _, renamed = choose_base(options.out, path.stem, "p2p", photo)  # what cannot be written shows now
    if not options.quiet:
        count = len(np.unique(task.regions))
        print(printable(f"{options.checkpoint} chooses among {count} superpixels of {path}"), flush=True)
    if renamed:
        _command.say(f"jaxmoxi: note: {printable(renamed)}")
    started = time.perf_counter()
    # A model of a fixed threshold has no certainty, and ignores the one it gets.
    found = p2p.predict(model, task.photo[None], task.regions[None], certainty=certainty or CERTAINTY)
    answer = _describe(task, found)
    seconds = time.perf_counter() - started
    figure = _draw(task, found, answer, options)
    record = _record(task, found, answer, options) | photo.record()
    record |= {"seconds": round(seconds, 3), **_command.versions()}
    try:
        with locked(options.out):
            base, _ = choose_base(options.out, path.stem, "p2p", photo)
            files = write_files(base, figure, _arrays(task, found), record)
    except OSError as error:
        raise CommandError(f"--out {options.out}: could not write ({error})") from None
    print(answer)
    if not options.quiet:
        runs = int(found.num_evaluations[0])
        print(f"the classifier ran {runs} time{'' if runs == 1 else 's'}, {seconds:.1f} s")
        print(f"wrote {printable(', '.join(map(str, files)))}")
    return 0


def _prepare(options: Predict, path: Path) -> _Task:
    """The inputs that the options name, checked before anything long starts."""
    from jaxmoxi.p2p.data import Example, resize_and_crop

    asked = check_options(options)
    with one_line():
        picture = read_photo(path)
    loaded = load_checkpoint(options, asked)
    with one_line(f"{path}: "):
        photo = resize_and_crop(Example(np.array(picture), 0), image_size=loaded.model.config.image_size).image
    with one_line("--regions: "):
        regions = loaded.spec.label_map(photo)
    return _Task(path, loaded, photo, np.asarray(regions))


def _describe(task: _Task, found: Prediction) -> str:
    """The answer in one sentence."""
    top, chance = int(found.classes[0]), float(found.probabilities[0].max())
    kept, count = int(found.group_mask[0].sum()), len(np.unique(task.regions))
    share = float(found.pixel_mask[0].mean())
    name, threshold = shorten(short(task.loaded.class_names[top]), 60), float(found.threshold[0])
    answer = (
        f"{name!r}, {percent(chance)}, from {kept} of {count} superpixels, {percent(share)} of the pixels, at "
        f"threshold {threshold:.2f}"
    )
    certainty = task.loaded.certainty
    return answer if is_certain(chance, certainty) in (None, True) else f"{answer} (never as certain as {certainty:g})"


def _draw(task: _Task, found: Prediction, answer: str, options: Predict) -> Figure:
    from jaxmoxi.p2p import plot

    caption = caption_of(options, task.loaded)
    fill = task.loaded.model.config.fill
    return plot.prediction(task.photo, task.regions, found, fill=fill, title=answer, caption=caption)


def _record(task: _Task, found: Prediction, answer: str, options: Predict) -> dict[str, Any]:
    top = int(found.classes[0])
    chances = found.probabilities[0]
    names, certainty = task.loaded.class_names, task.loaded.certainty
    return {
        "answer": answer,
        "photo": str(task.path),
        "checkpoint": str(options.checkpoint),
        "prediction": {"index": top, "name": names[top], "probability": chances[top]},
        "certainty": certainty,
        "certain": is_certain(float(chances[top]), certainty),
        "threshold": found.threshold[0],
        "hard_share": found.hard_share[0],
        "soft_share": found.soft_share[0],
        "regions": str(task.loaded.spec),
        "num_regions": len(np.unique(task.regions)),
        "kept": np.flatnonzero(found.group_mask[0]),
        "classes": list(names),
        "probabilities": chances,
        "num_evaluations": int(found.num_evaluations[0]),
    }


def _arrays(task: _Task, found: Prediction) -> dict[str, np.ndarray]:
    """The prediction's fields for this photo, with the photo and its regions."""
    fields = {name: np.asarray(getattr(found, name)[0]) for name in found.__dataclass_fields__}
    return fields | {"photo": task.photo, "regions": task.regions}
