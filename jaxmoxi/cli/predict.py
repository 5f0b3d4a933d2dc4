"""The command `jaxmoxi predict`: the class of one photo by a trained P2P model, and the superpixels that it saw."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import numpy as np
import tyro

from jaxmoxi.cli import shared as _command
from jaxmoxi.cli.names import choose_base, identify, locked
from jaxmoxi.cli.report import percent, write_files
from jaxmoxi.cli.shared import CommandError, one_line
from jaxmoxi.escape import printable, shorten
from jaxmoxi.files import read_photo
from jaxmoxi.plot.strokes import short
from jaxmoxi.regions.spec import parse_regions

if TYPE_CHECKING:  # flax and its networks take seconds to import, and no other command needs them
    from matplotlib.figure import Figure

    from jaxmoxi.p2p import P2P, Prediction

_OPTION = tyro.conf.arg
_CERTAINTY = 0.99


class _Task(NamedTuple):
    """The checked inputs.

    photo:     uint8[S, S, 3], resized and cropped for the model.
    regions:   int32[S, S], made as `spec` says.
    certainty: None for a model of a fixed threshold.
    """

    model: P2P
    class_names: tuple[str, ...]
    photo: np.ndarray
    regions: np.ndarray
    spec: str
    certainty: float | None


@dataclasses.dataclass(frozen=True)
class Predict:
    """Classify a photo with a trained P2P model, which sees only the superpixels that its selector keeps.

    Prints the class, and writes a picture (.png), the arrays (.npz) and a record (.json) into the folder --out.
    """

    photo: Annotated[tyro.conf.Positional[Path], _OPTION(metavar="PHOTO")]
    """An image file, of at most 134 million pixels (or JAXMOXI_MAX_PIXELS in the environment). It is resized and its
    centre cut out, as for the model's evaluation."""
    checkpoint: Annotated[Path, _OPTION(metavar="DIR")]
    """The folder of a P2P model: of `p2p.save`, or of a training run."""
    certainty: Annotated[float | None, _OPTION(metavar="PROBABILITY", help_behavior_hint="")] = None
    """How sure the classifier must be, in (0, 1]; the higher, the more it sees of the photo. Left out: 0.99."""
    regions: Annotated[str | None, _OPTION(metavar="slic:N|grid:RxC", help_behavior_hint="")] = None
    """About N superpixels, or a grid. Left out: the model's number of superpixels."""
    out: Annotated[Path, _OPTION(metavar="DIR")] = Path("jaxmoxi-out")
    """The folder to write to. The files of the same photo are replaced; another photo of its name gets a number."""
    quiet: tyro.conf.FlagCreatePairsOff[bool] = False
    """Print the answer alone."""

    def run(self) -> int:
        _command.start_compilation_cache()
        from jaxmoxi import p2p

        task = _prepare(self)
        _command.check_out(self.out)
        with one_line():
            photo = identify(self.photo)
        _, renamed = choose_base(self.out, self.photo.stem, "p2p", photo)  # what cannot be written shows now
        if not self.quiet:
            count = len(np.unique(task.regions))
            print(printable(f"{self.checkpoint} chooses among {count} superpixels of {self.photo}"), flush=True)
        if renamed:
            _command.say(f"jaxmoxi: note: {printable(renamed)}")
        started = time.perf_counter()
        # A model of a fixed threshold has no certainty, and ignores the one it gets.
        found = p2p.predict(task.model, task.photo[None], task.regions[None], certainty=task.certainty or _CERTAINTY)
        answer = _describe(task, found)
        seconds = time.perf_counter() - started
        figure = _draw(task, found, answer, self)
        record = _record(task, found, answer, self) | photo.record()
        record |= {"seconds": round(seconds, 3), **_command.versions()}
        try:
            with locked(self.out):
                base, _ = choose_base(self.out, self.photo.stem, "p2p", photo)
                files = write_files(base, figure, _arrays(task, found), record)
        except OSError as error:
            raise CommandError(f"--out {self.out}: could not write ({error})") from None
        print(answer)
        if not self.quiet:
            runs = int(found.num_evaluations[0])
            print(f"the classifier ran {runs} time{'' if runs == 1 else 's'}, {seconds:.1f} s")
            print(f"wrote {printable(', '.join(map(str, files)))}")
        return 0


def _prepare(options: Predict) -> _Task:
    """The inputs that the options name, checked before anything long starts."""
    from jaxmoxi import p2p
    from jaxmoxi.p2p.data import Example, resize_and_crop

    if options.certainty is not None and not 0 < options.certainty <= 1:
        raise CommandError(f"--certainty: expected a probability in (0, 1], such as 0.9; got {options.certainty}")
    with one_line("--regions: "):
        asked = None if options.regions is None else parse_regions(options.regions)
    with one_line():
        picture = read_photo(options.photo)
    with one_line("--checkpoint: "):
        model = p2p.load(options.checkpoint)
        names = p2p.load_class_names(options.checkpoint)
    config = model.config
    if options.certainty is not None and not config.dynamic_threshold:
        raise CommandError(
            f"--certainty: the model of {options.checkpoint} has a fixed threshold ({config.threshold:g}) and does not "
            "search for one: leave the option out"
        )
    with one_line(f"{options.photo}: "):
        photo = resize_and_crop(Example(np.array(picture), 0), image_size=config.image_size).image
    limit = config.num_groups
    spec = asked or parse_regions(f"slic:{limit}")
    if spec.count > limit:
        raise CommandError(f"--regions {spec}: the model knows at most {limit} regions; ask for no more")
    with one_line("--regions: "):
        regions = spec.label_map(photo)
    class_names = names or tuple(f"class {i}" for i in range(config.num_classes))
    certainty = (options.certainty or _CERTAINTY) if config.dynamic_threshold else None
    return _Task(model, class_names, photo, np.asarray(regions), str(spec), certainty)


def _describe(task: _Task, found: Prediction) -> str:
    """The answer in one sentence."""
    top, chance = int(found.classes[0]), float(found.probabilities[0].max())
    kept, count = int(found.group_mask[0].sum()), len(np.unique(task.regions))
    share = float(found.pixel_mask[0].mean())
    name, threshold = shorten(short(task.class_names[top]), 60), float(found.threshold[0])
    answer = (
        f"{name!r}, {percent(chance)}, from {kept} of {count} superpixels, {percent(share)} of the pixels, at "
        f"threshold {threshold:.2f}"
    )
    return answer if _is_certain(task, chance) in (None, True) else f"{answer} (never as certain as {task.certainty:g})"


def _is_certain(task: _Task, chance: float) -> bool | None:
    """Whether the certainty was reached, to the rounding of a probability; None for a fixed threshold."""
    return None if task.certainty is None else bool(chance >= task.certainty - 1e-6)


def _draw(task: _Task, found: Prediction, answer: str, options: Predict) -> Figure:
    from jaxmoxi.p2p import plot

    caption = [shorten(printable(str(options.checkpoint)), 80), task.spec]
    if task.certainty is not None:
        caption.append(f"certainty {task.certainty:g}")
    return plot.prediction(
        task.photo, task.regions, found, fill=task.model.config.fill, title=answer, caption="  ·  ".join(caption)
    )


def _record(task: _Task, found: Prediction, answer: str, options: Predict) -> dict[str, Any]:
    top = int(found.classes[0])
    chances = found.probabilities[0]
    return {
        "answer": answer,
        "photo": str(options.photo),
        "checkpoint": str(options.checkpoint),
        "prediction": {"index": top, "name": task.class_names[top], "probability": chances[top]},
        "certainty": task.certainty,
        "certain": _is_certain(task, float(chances[top])),
        "threshold": found.threshold[0],
        "hard_share": found.hard_share[0],
        "soft_share": found.soft_share[0],
        "regions": task.spec,
        "num_regions": len(np.unique(task.regions)),
        "kept": np.flatnonzero(found.group_mask[0]),
        "classes": list(task.class_names),
        "probabilities": chances,
        "num_evaluations": int(found.num_evaluations[0]),
    }


def _arrays(task: _Task, found: Prediction) -> dict[str, np.ndarray]:
    """The prediction's fields for this photo, with the photo and its regions."""
    fields = {name: np.asarray(getattr(found, name)[0]) for name in found.__dataclass_fields__}
    return fields | {"photo": task.photo, "regions": task.regions}
