"""The command `jaxmoxi train`: from labelled images to an evaluated P2P checkpoint."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import tyro

from jaxmoxi.cli import shared as _command
from jaxmoxi.cli.shared import CommandError, one_line
from jaxmoxi.cli.signals import StoppedError, Stopping
from jaxmoxi.cli.together import ALONE, Others, Together
from jaxmoxi.cli.train_data import sources
from jaxmoxi.errors import InputError
from jaxmoxi.files import write_whole

if TYPE_CHECKING:  # flax and its networks take seconds to import, and no other command needs them
    from jax.sharding import Mesh

    from jaxmoxi.p2p import P2P, Config, TrainConfig
    from jaxmoxi.p2p.data import Source
    from jaxmoxi.p2p.model import State

_OPTION = tyro.conf.arg
_CERTAINTIES = (0.8, 0.9, 0.95, 0.99)


class _Task(NamedTuple):
    """The checked inputs.

    config, train: what the model is, and how it is trained.
    data, test:    what it is trained on, and what the trained model is judged by.
    classifier:    the weights to start from, or None.
    """

    config: Config
    train: TrainConfig
    data: Source
    test: Source
    classifier: State | None


@dataclasses.dataclass(frozen=True)
class Train:
    """Train a classifier that sees only the superpixels its own selector keeps (P2P), and evaluate it.

    The same command goes on with a run that was interrupted. After SIGTERM, as a machine that is preempted gets it, and
    after Ctrl-C it saves where it is. Writes into --out: the model, history.jsonl (a line for
    each epoch), evaluation.json and evaluation.md. Without --data it trains on synthetic scenes, from nothing.
    """

    out: Annotated[Path, _OPTION(metavar="DIR")]
    """The folder of the run."""
    data: Annotated[str, _OPTION(metavar="KIND[:PATH]")] = "scenes"
    """scenes, imagenet:DIR (train/ and val/), imagenet9:DIR, bam:DIR (object labels), bam-scene:DIR, coco10:DIR,
    cifar10:PATH, or folder:DIR with a folder of images for each class (or such folders in train/ and val/)."""
    preset: Annotated[
        Literal["scenes", "imagenet", "cifar10"] | None,
        _OPTION(metavar="scenes|imagenet|cifar10", help_behavior_hint=""),
    ] = None
    """Settings that go together; the options below change single ones. Left out: by the data."""
    classifier: Annotated[
        Literal["vit-tiny", "vit-base", "resnet18", "resnet34", "small"] | None,
        _OPTION(metavar="vit-tiny|vit-base|resnet18|resnet34|small", help_behavior_hint=""),
    ] = None
    """What classifies. small: a convolutional network for images of up to about 96 pixels."""
    init: Annotated[Path | None, _OPTION(metavar="FOLDER|NAME", help_behavior_hint="")] = None
    """A checkpoint folder of a vision transformer, or a name of the Hugging Face hub, to start the classifier from."""
    preprocessing: Annotated[str | None, _OPTION(metavar="imagenet|half|clip|FILE", help_behavior_hint="")] = None
    """With --init: the mean and standard deviation of its images, by name or as a preprocessor_config.json. Left out:
    as the folder says."""
    selector: Annotated[Literal["lraspp", "small"] | None, _OPTION(metavar="lraspp|small", help_behavior_hint="")] = (
        None
    )
    """What selects. small: for images of up to about 96 pixels."""
    epochs: Annotated[int | None, _OPTION(metavar="N", help_behavior_hint="")] = None
    batch_size: Annotated[int | None, _OPTION(metavar="N", help_behavior_hint="")] = None
    """Images a step, of all devices together."""
    learning_rate: Annotated[float | None, _OPTION(metavar="RATE", help_behavior_hint="")] = None
    weight_decay: Annotated[float | None, _OPTION(metavar="RATE", help_behavior_hint="")] = None
    image_size: Annotated[int | None, _OPTION(metavar="PIXELS", help_behavior_hint="")] = None
    """Pixels of a side."""
    num_groups: Annotated[int | None, _OPTION(metavar="N", help_behavior_hint="")] = None
    """Superpixels an image is cut into."""
    threshold: Annotated[float | None, _OPTION(metavar="SHARE", help_behavior_hint="")] = None
    """Always keep about this share of the pixels. Left out: what each image needs."""
    threshold_input: Annotated[
        Literal["shift", "rerank"] | None, _OPTION(metavar="shift|rerank", help_behavior_hint="")
    ] = None
    """shift: a higher threshold keeps more of the same order, as published; rerank: it can change the order."""
    exact_budget: tyro.conf.FlagCreatePairsOff[bool] = False
    """Never keep more pixels than the threshold allows."""
    black_box: tyro.conf.FlagCreatePairsOff[bool] = False
    """Train the same classifier on whole images instead, for comparison."""
    num_scenes: Annotated[int | None, _OPTION(metavar="N", help_behavior_hint="")] = None
    """Synthetic scenes to train on; a fifth as many test the model. Left out: 12000."""
    augment: Annotated[bool | None, _OPTION(help_behavior_hint="")] = None
    """Random crops, mirroring and colours. Left out: yes, but for scenes, which are mirrored and turned."""
    certainties: Annotated[tuple[float, ...] | None, _OPTION(metavar="PROBABILITY...", help_behavior_hint="")] = None
    """Certainties at which the trained model is evaluated. Left out: 0.8 0.9 0.95 0.99."""
    seed: int = 0
    one_device: tyro.conf.FlagCreatePairsOff[bool] = False
    """Train on one device of each process. Otherwise on as many of this process's as share a batch evenly (its
    accelerators, or the cores of its CPU); with --distributed, on all of all processes."""
    quiet: tyro.conf.FlagCreatePairsOff[bool] = False
    """Print the result alone."""
    together: tyro.conf.OmitArgPrefixes[Together] = ALONE

    def run(self) -> int:
        """Trains, evaluates, prints and writes. Returns the exit code; 0 also after SIGTERM, when the work is saved."""
        with self.together.joined() as others:
            return self._train(others)

    def _train(self, others: Others | None) -> int:
        """Of several processes, the first one prints, and evaluates the trained model."""
        first = others is None or others.first
        with Stopping() as stopping:
            where = "before the training"
            try:
                _command.start_compilation_cache()
                from jaxmoxi import p2p
                from jaxmoxi.p2p.processes import team_of

                devices = None if self.one_device else _command.start_devices()
                task = _prepare(self)
                if first:
                    _command.check_out(self.out)
                several = others is not None and others.count > 1
                mesh = _of_all(self.one_device) if several else _shared(devices, task.train.batch_size)
                if first and not self.quiet:
                    print(
                        f"training on {len(task.data):,} images of {task.config.num_classes} classes, in {self.out}"
                        + ("" if others is None else f", with {others.count} processes"),
                        flush=True,
                    )
                started = time.perf_counter()
                with _errors_made_for_users():
                    result = p2p.fit(
                        task.config,
                        task.data,
                        train=task.train,
                        directory=self.out,
                        classifier=task.classifier,
                        mesh=mesh,
                        progress=not self.quiet,
                        callback=None if self.quiet else _print_epoch,
                        should_stop=stopping.requested,
                    )
                    where = f"after step {int(result.state.step):,}, which is saved in {self.out}"
                    if others is not None and stopping.heard_by(team_of(mesh)[1].largest):
                        return _told(stopping, where) if first else stopping.code
                    stopping.work_is_saved()
                    if not first:
                        return 0
                    seconds = time.perf_counter() - started
                    table, record = _evaluate(self, task, result.model, devices if several else mesh)
                    record |= {"seconds": round(seconds, 1), "data": self.data, **_command.versions()}
                    write_whole(self.out / "evaluation.json", json.dumps(record, indent=1))
                    write_whole(self.out / "evaluation.md", table + "\n")
            except StoppedError:
                code = _told(stopping, where)
                if others is not None:  # the others wait for this process, and are to end with it
                    raise SystemExit(code) from None
                return code
        print(table)
        if not self.quiet:
            print(f"trained in {seconds:.0f} s; the model is in {self.out}, its evaluation in evaluation.json")
        return 0


def _told(stopping: Stopping, where: str) -> int:
    print(f"jaxmoxi: stopped {where}; the same command goes on from there", file=sys.stderr)
    return stopping.code


@contextmanager
def _errors_made_for_users() -> Iterator[None]:
    """Errors that say what to do become one line. Any other error is a mistake in the code and keeps its traceback."""
    try:
        yield
    except (InputError, FloatingPointError, MemoryError, OSError) as error:
        raise CommandError(str(error)) from error


def _prepare(options: Train) -> _Task:
    """What the options name, checked before anything long starts."""
    from jaxmoxi.p2p.training.presets import CLASSIFIERS, PRESETS
    from jaxmoxi.p2p.training.pretrained import pretrained_classifier

    _check(options)
    kind = options.data.partition(":")[0]
    preset = PRESETS[options.preset or (kind if kind in PRESETS else "imagenet")]
    config, train = preset()
    if options.epochs is not None:  # the same share of the epochs is on whole images
        whole = train.whole_epochs * options.epochs // train.num_epochs
        train = dataclasses.replace(train, num_epochs=options.epochs, whole_epochs=whole)
    changes = _typed(options, config)
    if options.classifier is not None:
        changes["classifier"] = CLASSIFIERS[options.classifier]
    if options.threshold is not None:
        changes["dynamic_threshold"] = False
    with one_line():
        config = dataclasses.replace(config, **changes)
        train = dataclasses.replace(train, select=not options.black_box, **_typed(options, train))
    with one_line("--data: "):
        data, test = sources(
            options.data, image_size=config.image_size, num_scenes=options.num_scenes, seed=options.seed
        )
    classifier = None
    with one_line():
        config = dataclasses.replace(config, num_classes=len(data.class_names))
        if options.preprocessing is not None and options.init is None:
            raise CommandError("--preprocessing needs --init, whose images it describes")
        if options.init is not None:
            classifier, config = pretrained_classifier(
                options.init, config, seed=options.seed, preprocessing=options.preprocessing
            )
    return _Task(config, train, data, test, classifier)


def _typed(options: Train, settings: Config | TrainConfig) -> dict[str, Any]:
    """The options that were typed and are settings by the same name. (A classifier is typed as the name of one.)"""
    names = {field.name for field in dataclasses.fields(settings)} - {"classifier"}
    typed = {name: value for name, value in vars(options).items() if value is not None}
    return {name: typed[name] for name in names & typed.keys()}


def _shared(mesh: Mesh | None, batch_size: int) -> Mesh | None:
    """The mesh of as many devices as share a batch evenly; None for one device."""
    from jax.sharding import Mesh

    if mesh is None:
        return None
    count = max(n for n in range(1, mesh.size + 1) if batch_size % n == 0)
    return None if count == 1 else Mesh(mesh.devices.flat[:count], ("data",))


def _of_all(one_device: bool) -> Mesh | None:
    """The mesh of the devices of all processes, or of one of each; None for all, where several processes train."""
    import jax
    import numpy as np
    from jax.sharding import Mesh

    if not one_device:
        return None
    firsts = {device.process_index: device for device in reversed(jax.devices())}
    return Mesh(np.array([firsts[i] for i in sorted(firsts)]), ("data",))


def _check(options: Train) -> None:
    for name in ("epochs", "batch_size", "learning_rate", "num_scenes"):
        value = getattr(options, name)
        if value is not None and not value > 0:
            raise CommandError(f"--{name.replace('_', '-')}: expected a number above 0; got {value}")
    levels = options.certainties
    if levels is not None and not (levels and all(0 < level <= 1 for level in levels)):
        raise CommandError(f"--certainties: expected probabilities in (0, 1], such as 0.9; got {levels}")
    if options.black_box:
        for name in ("threshold", "threshold_input", "exact_budget", "certainties"):
            if getattr(options, name):
                raise CommandError(
                    f"--{name.replace('_', '-')} is about what is selected; with --black-box nothing is: leave one out"
                )
    if options.num_scenes is not None and options.data != "scenes":
        raise CommandError(
            f"--num-scenes is about synthetic scenes; --data {options.data} brings its own images: leave one out"
        )


def _print_epoch(line: dict[str, Any]) -> None:
    from tqdm import tqdm

    from jaxmoxi.p2p.training.loop import describe_epoch

    tqdm.write(describe_epoch(line))


def _evaluate(options: Train, task: _Task, model: P2P, mesh: Mesh | None) -> tuple[str, dict[str, Any]]:
    """How the trained model does on the test images: a Markdown table, and a record."""
    from jaxmoxi import p2p
    from jaxmoxi.p2p.data import Loader
    from jaxmoxi.p2p.training.validation import validate

    config = task.config
    loader = Loader(task.test, image_size=config.image_size, num_groups=config.num_groups, batch_size=32, train=False)
    if options.black_box:
        accuracy = validate(model, loader, select=False, mesh=mesh)["accuracy"]
        return f"| accuracy % |\n| ---: |\n| {100 * accuracy:.1f} |", {
            "accuracy": accuracy,
            "num_images": len(task.test),
        }
    levels = options.certainties or _CERTAINTIES
    evaluation = p2p.evaluate(model, loader, certainty=levels, progress=not options.quiet, mesh=mesh)
    return evaluation.table(), evaluation.to_dict()
