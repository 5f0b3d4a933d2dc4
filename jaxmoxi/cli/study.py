"""The command `jaxmoxi study`: methods compared over a folder of photos."""

from __future__ import annotations

import dataclasses
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

import tyro

from jaxmoxi.attribution import METHODS
from jaxmoxi.cli import shared as _command
from jaxmoxi.cli.shared import CommandError, one_line
from jaxmoxi.cli.together import ALONE, Others, Together
from jaxmoxi.errors import InputError
from jaxmoxi.games.removal import Removal
from jaxmoxi.metrics import METRICS

if TYPE_CHECKING:
    from jaxmoxi.models.classifier import Classifier

_OPTION = tyro.conf.arg
_METHODS = "; ".join(f"{name} ({method.help})" for name, method in METHODS.items())
_METRICS = "; ".join(f"{name} ({metric.help})" for name, metric in METRICS.items())


@dataclasses.dataclass(frozen=True)
class Study:
    """Compare methods over a folder of photos: tables, curves, heat maps and a report.

    PHOTOS is a folder with a folder for each class, or a CSV file with the columns file and label (and x0, y0, x1, y1
    for objects' boxes, or mask, an image that is not black on them). The same command goes on where it was interrupted;
    a finished study is not run again, but for photos that have changed since. Writes into --out: report.md,
    table.parquet (a row for each number), figures/, shards/ (orders and curves) and study.json.
    """

    photos: Annotated[tyro.conf.Positional[str], _OPTION(metavar="PHOTOS")]
    """A folder of class folders, or a CSV file."""
    out: Annotated[str, _OPTION(metavar="DIR")]
    """The study's folder; gs://BUCKET/... and the like are fine."""
    model: tyro.conf.UseAppendAction[Annotated[tuple[Path, ...], _OPTION(metavar="FOLDER|NAME")]] = ()
    """A checkpoint folder, or a name of the Hugging Face hub; give --model several times to compare under each.
    demo, or left out: EfficientNet-Lite0 of the `demo` extra."""
    models: Annotated[tuple[Path, ...], _OPTION(metavar="FOLDER|NAME [FOLDER|NAME ...]")] = ()
    """Several models at once, as --model given several times. The report tells how far they agree on the photos that
    are measured under each, and what one model's order is worth under another."""
    classes: Annotated[tuple[int, ...] | None, _OPTION(metavar="N [N ...]", help_behavior_hint="")] = None
    """Study each model with its head restricted to so many of its classes, once for each number: those of the photos
    first, others drawn by the seed. Photos of a class that a head does not have are left out under it."""
    preprocessing: Annotated[str | None, _OPTION(metavar="imagenet|half|clip|FILE", help_behavior_hint="")] = None
    """With --model, for all of them: how a photo becomes the network's input, by name or as a preprocessor_config.json.
    Left out: as the folder says."""
    image_size: Annotated[str | None, _OPTION(metavar="SIDE|HEIGHTxWIDTH", help_behavior_hint="")] = None
    """With --model: pixels of the images that the network sees, where not its weights' own; position embeddings
    are interpolated. Left out: the weights' own."""
    preset: Literal["paper", "quick"] = "paper"
    """Settings that go together; the options below change single ones. paper: all methods, full MoXI orders, 14 x 14
    regions; quick: the same question for a CPU, with 7 x 7 regions and less of everything."""
    methods: Annotated[
        tuple[str, ...] | None,
        _OPTION(metavar="NAME [NAME ...]", help_behavior_hint="", help=f"Names from {_METHODS}."),
    ] = None
    metrics: Annotated[
        tuple[str, ...] | None,
        _OPTION(metavar="NAME [NAME ...]", help_behavior_hint="", help=f"Names from {_METRICS}."),
    ] = None
    regions: Annotated[str | None, _OPTION(metavar="grid:RxC|slic:N", help_behavior_hint="")] = None
    masking: Annotated[
        Removal | None,
        _OPTION(metavar="|".join(get_args(Removal)), help_behavior_hint=""),
    ] = None
    """How the methods hide a region. Left out: tokens are removed where the model has them, else pixels become zero."""
    removals: Annotated[tuple[str, ...] | None, _OPTION(metavar="tokens|zero|mean|blur...", help_behavior_hint="")] = (
        None
    )
    """How the curves hide regions, one set of curves for each of tokens, zero, mean, blur. Left out: as the methods."""
    target: Annotated[
        Literal["label", "prediction"] | None, _OPTION(metavar="label|prediction", help_behavior_hint="")
    ] = None
    """The class explained."""
    only_correct: Annotated[bool | None, _OPTION(metavar="True|False", help_behavior_hint="")] = None
    """Leave out photos that the model does not classify correctly. Left out: as the preset, yes."""
    steps: Annotated[int | None, _OPTION(metavar="N", help_behavior_hint="")] = None
    """How many players MoXI chooses one by one before the rest follow in eight rounds."""
    samples: Annotated[int | None, _OPTION(metavar="N", help_behavior_hint="")] = None
    """Evaluations that each sampling method may use for a photo."""
    sizes: Annotated[int | None, _OPTION(metavar="N", help_behavior_hint="")] = None
    """At about how many group sizes curves are measured."""
    num_photos: Annotated[int | None, _OPTION(metavar="N", help_behavior_hint="")] = None
    """Only so many, spread evenly over the list."""
    share: Annotated[Literal["pixels", "players"] | None, _OPTION(metavar="pixels|players", help_behavior_hint="")] = (
        None
    )
    """What curves and their areas are over. Left out: the image's pixels, which is fair to regions of every size."""
    seed: int = 0
    shard_size: Annotated[int, _OPTION(metavar="N")] = 4
    """Photos that are written, and lost, together."""
    max_minutes: Annotated[float | None, _OPTION(metavar="N", help_behavior_hint="")] = None
    """End after about so many minutes, with a report of the photos that are measured; the same command goes on."""
    batch_size: Annotated[int | None, _OPTION(metavar="N", help_behavior_hint="")] = None
    """Coalitions evaluated at once; left out: by the memory there is. Changes no result but by rounding."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """What the networks compute in."""
    quiet: tyro.conf.FlagCreatePairsOff[bool] = False
    """Print where the report is, alone."""
    together: tyro.conf.OmitArgPrefixes[Together] = ALONE
    hub: tyro.conf.OmitArgPrefixes[_command.HubOptions] = _command.NO_HUB_OPTIONS

    def run(self) -> int:
        """Runs the study, alone or with the others. Returns the exit code."""
        with self.together.joined() as others:
            return self._study(others)

    def _study(self, others: Others | None) -> int:
        _command.start_compilation_cache()
        mesh = _command.start_devices()
        import jax
        from etils import epath

        from jaxmoxi.study import PRESETS, has_results, run_study
        from jaxmoxi.study.heads import restricted_heads
        from jaxmoxi.study.photos import as_text
        from jaxmoxi.study.report import is_finished

        process = (jax.process_index(), jax.process_count())

        with one_line():
            config = dataclasses.replace(PRESETS[self.preset](), seed=self.seed, **self._changes())
            models = self._models()
            if self.classes is not None:
                models = restricted_heads(self.photos, models, self.classes, config)
        started = time.perf_counter()
        if others is not None:
            others.check_folder(epath.Path(self.out))
        with one_line():
            path = run_study(
                self.photos, models, self.out, config, shard_size=self.shard_size, mesh=mesh,
                batch_size=self.batch_size, process=process, progress=not self.quiet, max_minutes=self.max_minutes,
            )  # fmt: skip
        if process[0] == 0:
            seconds = "" if self.quiet else f" ({time.perf_counter() - started:.0f} s)"
            print(as_text(f"{path}{seconds}"))
            with one_line():
                finished, empty = is_finished(path), not has_results(path)
            if not finished:
                more = "; no photo was finished: give it more minutes" if empty else ""
                print(f"jaxmoxi: the {self.max_minutes:g} minutes are over{more}. The same command goes on where this "
                      "one ended, without --max-minutes until it is done", file=sys.stderr)  # fmt: skip
            elif empty:
                raise CommandError(f"no photo has a result; {path} says why")
        return 0

    def _changes(self) -> dict[str, Any]:
        from jaxmoxi.study import PRESETS

        names = (
            "methods", "metrics", "regions", "masking", "removals", "target", "only_correct", "steps", "samples",
            "sizes", "num_photos", "share",
        )  # fmt: skip
        changes = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        if self.metrics is None and self.methods is not None:
            # A preset's metric that needs a method which was not asked for is not asked for either.
            asked = PRESETS[self.preset]().metrics
            changes["metrics"] = tuple(m for m in asked if set(METRICS[m].methods) <= set(self.methods))
        return changes

    def _models(self) -> dict[str, Classifier]:
        if self.hub.revision is not None and len(self.model) + len(self.models) > 1:
            raise CommandError("--revision needs a single --model; for several write each as hf-hub:ORG/NAME@REVISION")
        models = [
            _command.load_model(folder, self.preprocessing, self.image_size, hub=self.hub, quiet=self.quiet)
            for folder in (*self.model, *self.models) or (None,)
        ]
        names = [model.name for model in models]
        if len(set(names)) < len(names):
            raise InputError(f"--model: expected models of different names; got {', '.join(names)}")
        return {model.name: model.astype(self.dtype) for model in models}
