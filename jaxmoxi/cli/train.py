"""The command `jaxmoxi train`: from labelled images to an evaluated P2P checkpoint."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from jaxmoxi.cli import shared as _command
from jaxmoxi.cli.shared import CommandError
from jaxmoxi.cli.signals import Budget, StoppedError, Stopping
from jaxmoxi.cli.together import ALONE, Others, Together
from jaxmoxi.cli.train_results import draw_curves
from jaxmoxi.cli.train_results import evaluate as _evaluate
from jaxmoxi.cli.train_results import print_epoch as _print_epoch
from jaxmoxi.cli.train_task import prepare as _prepare
from jaxmoxi.errors import InputError
from jaxmoxi.files import write_whole

if TYPE_CHECKING:  # flax and its networks take seconds to import, and no other command needs them
    from jax.sharding import Mesh

_OPTION = tyro.conf.arg


@dataclasses.dataclass(frozen=True)
class Train:
    """Train a classifier that sees only the superpixels its own selector keeps (P2P), and evaluate it.

    The same command goes on with a run that was interrupted. After SIGTERM, as a machine that is preempted gets it,
    after Ctrl-C and after --max-minutes it saves where it is. Writes into --out: the model, history.jsonl (a line for
    each epoch), curves.jsonl (for every 50 steps) and curves.png, evaluation.json and evaluation.md. Without --data it
    trains on synthetic scenes, from nothing.
    """

    out: Annotated[Path, _OPTION(metavar="DIR")]
    """The folder of the run."""
    data: Annotated[str, _OPTION(metavar="KIND[:PATH]")] = "scenes"
    """scenes, imagenet:DIR (train/ and val/), imagenet9:DIR, bam:DIR (object labels), bam-scene:DIR, coco10:DIR,
    cifar10:PATH, or folder:DIR with a folder of images for each class (or such folders in train/ and val/)."""
    preset: Annotated[
        Literal["scenes", "imagenet", "cifar10", "cifar10-96"] | None,
        _OPTION(metavar="scenes|imagenet|cifar10|cifar10-96", help_behavior_hint=""),
    ] = None
    """Settings that go together; the options below change single ones. Left out: by the data. cifar10-96: for CPUs."""
    classifier: Annotated[
        Literal["vit-tiny", "vit-base", "resnet18", "resnet34", "small"] | None,
        _OPTION(metavar="vit-tiny|vit-base|resnet18|resnet34|small", help_behavior_hint=""),
    ] = None
    """What classifies. small: a convolutional network for images of up to about 96 pixels."""
    init: Annotated[Path | None, _OPTION(metavar="FOLDER|NAME", help_behavior_hint="")] = None
    """A checkpoint folder of a vision transformer, or a name of the Hugging Face hub, to start the classifier from (its
    position embedding is interpolated to --image-size); or the folder of another run, whose classifier is taken."""
    preprocessing: Annotated[str | None, _OPTION(metavar="imagenet|half|clip|FILE", help_behavior_hint="")] = None
    """With --init: the mean and standard deviation of its images, by name or as a preprocessor_config.json. Left out:
    as the folder says."""
    init_selector: tyro.conf.FlagCreatePairsOff[bool] = False
    """With --init RUN: start from its selector too, to train a P2P model on with other settings or data."""
    freeze_selector: tyro.conf.FlagCreatePairsOff[bool] = False
    """With --init-selector: the selector stays as it is, and the classifier alone is trained, through the masks of test
    time. It sees others while both are trained."""
    teacher: Annotated[Path | None, _OPTION(metavar="RUN", help_behavior_hint="")] = None
    """A run of the same classifier on whole images (--black-box), whose answers are learned besides the labels."""
    teacher_weight: Annotated[float | None, _OPTION(metavar="SHARE", help_behavior_hint="")] = None
    """How much of the target is the teacher's answer. Left out: 0.5 with --teacher."""
    selector: Annotated[Literal["lraspp", "small"] | None, _OPTION(metavar="lraspp|small", help_behavior_hint="")] = (
        None
    )
    """What selects. small: for images of up to about 96 pixels."""
    epochs: Annotated[int | None, _OPTION(metavar="N", help_behavior_hint="")] = None
    whole_epochs: Annotated[int | None, _OPTION(metavar="N", help_behavior_hint="")] = None
    """How many of them come first and train the classifier alone, on whole images. Left out: the preset's share."""
    max_minutes: Annotated[float | None, _OPTION(metavar="MINUTES", help_behavior_hint="")] = None
    """Stop training after this time, save, and say how to go on. The evaluation comes when all epochs are trained."""
    goal_accuracy: Annotated[float | None, _OPTION(metavar="SHARE", help_behavior_hint="")] = None
    """End the training after the first validation with at least this accuracy, and (with --goal-share) at most that
    share of the pixels."""
    goal_share: Annotated[float | None, _OPTION(metavar="SHARE", help_behavior_hint="")] = None
    certainty: Annotated[float | None, _OPTION(metavar="PROBABILITY", help_behavior_hint="")] = None
    """Of the predictions in validation. Left out: the preset's, 0.95 or 0.99."""
    batch_size: Annotated[int | None, _OPTION(metavar="N", help_behavior_hint="")] = None
    """Images a step, of all devices together."""
    accumulate: Annotated[int | None, _OPTION(metavar="N", help_behavior_hint="")] = None
    """Compute each batch in N parts, one after the other, which takes as many times less memory."""
    precision: Annotated[
        Literal["float32", "bfloat16"] | None, _OPTION(metavar="float32|bfloat16", help_behavior_hint="")
    ] = None
    """bfloat16: mixed precision, which pays on accelerators. Weights and losses stay float32."""
    ema: Annotated[float | None, _OPTION(metavar="DECAY", help_behavior_hint="")] = None
    """Validate and keep an average of the weights over the steps, of this decay, such as 0.999."""
    learning_rate: Annotated[float | None, _OPTION(metavar="RATE", help_behavior_hint="")] = None
    selector_rate: Annotated[float | None, _OPTION(metavar="FACTOR", help_behavior_hint="")] = None
    """The selector's learning rate as a multiple of --learning-rate."""
    regulariser_weight: Annotated[float | None, _OPTION(metavar="WEIGHT", help_behavior_hint="")] = None
    """Of the sparsity term."""
    anneal: Annotated[bool | None, _OPTION(help_behavior_hint="")] = None
    """Let the sparsity term's weight grow over the first half of the epochs. Left out: True. False suits one that
    selects already, a selector of --init-selector."""
    straight_through: Annotated[bool | None, _OPTION(help_behavior_hint="")] = None
    """Train the classifier through sampled masks of 0 and 1, not relaxed ones. Left out: as the preset has it."""
    logit_weight: Annotated[float | None, _OPTION(metavar="WEIGHT", help_behavior_hint="")] = None
    """Of the mean squared logit of the superpixels, which keeps them from saturating."""
    weight_decay: Annotated[float | None, _OPTION(metavar="RATE", help_behavior_hint="")] = None
    image_size: Annotated[int | None, _OPTION(metavar="PIXELS", help_behavior_hint="")] = None
    """Pixels of a side."""
    num_groups: Annotated[int | None, _OPTION(metavar="N", help_behavior_hint="")] = None
    """Superpixels an image is cut into."""
    threshold: Annotated[float | None, _OPTION(metavar="SHARE", help_behavior_hint="")] = None
    """Always keep about this share of the pixels. Left out: what each image needs."""
    max_threshold: Annotated[float | None, _OPTION(metavar="SHARE", help_behavior_hint="")] = None
    """The largest share of the pixels that an image may need; it is classified there even if uncertain."""
    threshold_input: Annotated[
        Literal["shift", "rerank"] | None, _OPTION(metavar="shift|rerank", help_behavior_hint="")
    ] = None
    """shift: a higher threshold keeps more of the same order, as published; rerank: it can change the order."""
    exact_budget: tyro.conf.FlagCreatePairsOff[bool] = False
    """Never keep more pixels than the threshold allows."""
    method: Annotated[
        Literal["p2p", "blackbox", "blackbox-pixel-mask", "real-x", "comet", "comet-inverse"] | None,
        _OPTION(metavar="p2p|blackbox|blackbox-pixel-mask|real-x|comet|comet-inverse", help_behavior_hint=""),
    ] = None
    """p2p, or a method to compare it with, on the same data and networks: whole images; an evenly spaced share of the
    pixels (--threshold); a selector trained against a classifier of random masks; a continuous mask whose hidden part
    tells a frozen classifier nothing, and the same read the other way round. These have a fixed --threshold, of 0.2."""
    black_box: tyro.conf.FlagCreatePairsOff[bool] = False
    """The same as --method blackbox."""
    num_scenes: Annotated[int | None, _OPTION(metavar="N", help_behavior_hint="")] = None
    """Synthetic scenes to train on; a fifth as many test the model. Left out: 12000."""
    augment: Annotated[bool | None, _OPTION(help_behavior_hint="")] = None
    """Random crops, mirroring and colours. Left out: yes, but for scenes, which are mirrored and turned."""
    certainties: Annotated[tuple[float, ...] | None, _OPTION(metavar="PROBABILITY...", help_behavior_hint="")] = None
    """Certainties at which the trained model is evaluated. Left out: 0.8 0.9 0.95 0.99."""
    fidelity_shares: Annotated[tuple[float, ...] | None, _OPTION(metavar="SHARE...", help_behavior_hint="")] = None
    """Shares of the pixels at which the evaluation draws its fidelity curves; fewer take less time. Left out: 19."""
    test_images: Annotated[int | None, _OPTION(metavar="N", help_behavior_hint="")] = None
    """Judge the trained model by N of the test images, evenly spaced among them. Left out: by all."""
    save_every: Annotated[int | None, _OPTION(metavar="STEPS", help_behavior_hint="")] = None
    """Steps between checkpoints. Left out: an epoch."""
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

    def _follow(self, line: dict[str, Any]) -> None:
        """What is said and drawn after an epoch."""
        if not self.quiet:
            _print_epoch(line)
        draw_curves(self.out)

    def _train(self, others: Others | None) -> int:
        """Of several processes, the first one prints, and evaluates the trained model."""
        first, budget = others is None or others.first, Budget(self.max_minutes)
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
                        f"training on {len(task.data):,} images of {task.config.num_classes} classes, "
                        f"some held out to validate, in {self.out}"
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
                        teacher=task.teacher,
                        mesh=mesh,
                        progress=not self.quiet,
                        callback=self._follow,
                        should_stop=lambda: stopping.requested() or budget.passed(),
                    )
                    where = f"after step {int(result.state.step):,}, which is saved in {self.out}"
                    largest = (lambda number: number) if others is None else team_of(mesh)[1].largest
                    if others is not None and stopping.heard_by(largest):
                        return _told(stopping, where) if first else stopping.code
                    if largest(int(budget.over)) and stopping.signal is None:
                        return _out_of_time(self.max_minutes, where) if first else 0
                    stopping.work_is_saved()
                    if not first:
                        return 0
                    seconds = time.perf_counter() - started
                    ended = result.history[-1]["epoch"] if result.history else task.train.num_epochs
                    if ended < task.train.num_epochs and not self.quiet:
                        print(f"the goal is reached after epoch {ended} of {task.train.num_epochs}", flush=True)
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


def _out_of_time(minutes: float | None, where: str) -> int:
    print(
        f"jaxmoxi: the {minutes:g} minutes are over: stopped {where}; the same command goes on from there",
        file=sys.stderr,
    )
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
