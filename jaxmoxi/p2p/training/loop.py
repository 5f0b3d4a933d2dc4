"""The training run, to be read from top to bottom. One step of it is `step.train_step`.

Source: Vandenhirtz, Vogt, "From Pixels to Perception", ICML 2025, and their code.

Deviations from the authors' code: the validation images are never trained on, whatever the data set; the learning rate
rises at first and falls along a cosine where the authors keep it constant (`schedule="constant", warmup=0` does so);
and Adam is AdamW, which is the same without `weight_decay`. Everything random follows from the seed and the number of
the step, so a run that was killed and started again computes what it would have computed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxmoxi.errors import InputError, warn
from jaxmoxi.p2p.arrays import local_folder
from jaxmoxi.p2p.config import Config
from jaxmoxi.p2p.data.example import Batches, Source
from jaxmoxi.p2p.model import P2P, State, init
from jaxmoxi.p2p.placement import placement
from jaxmoxi.p2p.processes import local_part, team_of
from jaxmoxi.p2p.ranges import check_same_classes
from jaxmoxi.p2p.training.checkpoints import Checkpoints
from jaxmoxi.p2p.training.compiled import compiled
from jaxmoxi.p2p.training.config import TrainConfig, with_moved
from jaxmoxi.p2p.training.curves import Curves, describe_epoch, means_of
from jaxmoxi.p2p.training.feed import feed, make_batches, size_of
from jaxmoxi.p2p.training.lock import only_one
from jaxmoxi.p2p.training.methods import for_method
from jaxmoxi.p2p.training.objectives import Metrics
from jaxmoxi.p2p.training.pretrained import check_kept_selector, check_teacher, fingerprint, start_from
from jaxmoxi.p2p.training.run_folder import claim, finish, give_up, read_history, write_history
from jaxmoxi.p2p.training.step import TrainState, init_state
from jaxmoxi.p2p.training.throughput import Measured, Throughput
from jaxmoxi.p2p.training.validation import StoppedError, validate


class FitResult(NamedTuple):
    """What a run leaves.

    model:   the trained model.
    history: one record per epoch: `epoch`, `step`, the means of `Metrics`, `seconds` since the start of `fit`, and, for
             an epoch that was validated, `validation` with `accuracy`, `hard_share` and `threshold`. `throughput` has
             `images_per_second` and `data_wait`, the share of the time in which the device waited for data, of the
             steps of the epoch that this process computed (without compilations; left out where there is none).
    state:   the last `TrainState`. Its step is below that of the last epoch where a goal ended the training.
    """

    model: P2P
    history: list[dict[str, Any]]
    state: TrainState


def fit(
    config: Config,
    data: Source | Batches,
    *,
    train: TrainConfig | None = None,
    validation: Source | Batches | None = None,
    directory: str | Path | None = None,
    classifier: P2P | State | None = None,
    teacher: P2P | State | None = None,
    mesh: Mesh | None = None,
    resume: bool = True,
    progress: bool = True,
    callback: Callable[[dict[str, Any]], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
    **deprecated: Any,
) -> FitResult:
    """Trains a P2P model.

    config:     what the model is.
    data:       a `Source` of labelled images, or a `Loader` (or any object with its `steps_per_epoch` and `batch`).
    train:      the settings of the training; None for `TrainConfig()`.
    validation: the same as `data`, for validation alone. Without it, a share of a source is held out, and nothing of a
                loader is.
    directory:  folder for the checkpoints, the history, the curves and the model; None keeps nothing. The same call
                with the folder of an unfinished run continues that run, and on a CPU ends with the same bits. The last
                two checkpoints are kept, and the best one: that of the highest validation accuracy minus hard share.
                (Accuracy alone would favour the first epochs, which keep every pixel.) A damaged checkpoint is noticed
                by its checksums: the run goes on from the last good one, with a warning. A file `.lock` keeps a second
                trainer out for as long as this one lives.
    classifier: weights to start from: a P2P (both networks), or the NNX state of a classifier (that one alone).
    teacher:    a classifier of the same network that was trained on whole images, such as the black-box twin, as a P2P
                or its classifier's NNX state. It stays as it is, and what it answers to the whole image is the share
                `TrainConfig.teacher_weight` of what the classifier learns to answer to what it sees (and to whole
                images, in the epochs on these).
    mesh:       trains data-parallel: each device takes its share of every batch, and all devices hold the same state.
                BatchNorm takes its statistics over the whole batch. Results agree with one device to rounding.
                Under `jax.distributed` all processes make the same call, and None means all devices of all of them.
                Each process then loads only its rows of a batch (a loader of the user's own that does not say which
                `shard` it is makes whole batches everywhere) and validates on its share of the images. `directory` is
                one that all hosts share; a run can be continued by another number of processes.
    resume:     False refuses a directory with a run in it.
    progress:   shows a bar with loss, accuracy, and soft and hard selected share.
    callback:   called with each epoch's record; of several processes, in the first.
    should_stop: asked before every step and between the batches of a validation; where it answers True, `fit` writes a
                checkpoint and returns early, with `result.state.step` below the last step. The same call goes on from
                there, and on a CPU ends with the same bits as a run that nothing stopped. (`jaxmoxi train` answers True
                after SIGTERM and SIGINT.) Of several processes, all stop at the same step where one answers True.
    deprecated: settings of `TrainConfig` that were once keywords of this function.

    Raises ValueError, before anything long starts, for impossible settings, for a directory that holds a run with other
    settings, whose files are damaged, or in which another process trains, and for batches of impossible images or
    labels; FloatingPointError if the loss is not finite; OSError if a checkpoint cannot be written, which
    leaves the last one untouched. What one of several processes meets while it prepares its data, or in the folder, is
    raised in all of them.
    """
    mesh, team = team_of(mesh)
    with team.agreeing():
        train = with_moved(train, config.moved or {}, deprecated, stacklevel=2)
        config = for_method(dataclasses.replace(config, moved=None), train.method)
        names = getattr(data, "class_names", None)
        if names and len(names) != config.num_classes:
            raise InputError(f"the data has {len(names)} classes, the configuration num_classes={config.num_classes}")
        check_same_classes(names, getattr(validation, "class_names", None), "validation")
        if train.method in ("comet", "comet-inverse") and classifier is None and not train.whole_epochs:
            raise InputError(
                f"the method {train.method} needs a trained classifier of whole images, which stays frozen; start from "
                "one (classifier=...), or train it first (whole_epochs)"
            )
        if train.freeze_selector and not isinstance(classifier, P2P):
            raise InputError(
                "freeze_selector=True needs a selector to keep: start from a P2P that selects (classifier=...)"
            )
        if train.freeze_selector and isinstance(classifier, P2P):
            check_kept_selector(classifier, config)
        if isinstance(teacher, P2P):
            check_teacher(teacher, config)
        if (teacher is None) != (train.teacher_weight == 0):
            raise InputError(
                "teacher_weight needs a teacher: give fit(teacher=...), a classifier that was trained on whole images"
                if teacher is None
                else "a teacher needs a TrainConfig(teacher_weight=...) above 0, such as 0.5, its share of the target"
            )
        place = placement(mesh, train.batch_size)
        folder = None if directory is None else local_folder(directory)
        if folder is not None and team.count < jax.process_count():
            raise InputError(
                f"a run of one process cannot be kept in {folder} beside other processes of jax.distributed: Orbax "
                "writes with all of them; leave the directory out, or train with a mesh of all processes"
            )
        settings = train.to_record() | {
            "classifier": fingerprint(classifier),
            "examples": size_of(data),
            "validation": None if validation is None else size_of(validation),
        }
        if teacher is not None:
            teacher = teacher.classifier if isinstance(teacher, P2P) else teacher
            settings["teacher"] = fingerprint(teacher)
        record = {"config": json.loads(config.to_json()), "class_names": names and list(names), "train": settings}
    with contextlib.ExitStack() as closing:
        team.check_settings(record)
        if folder is not None:
            with team.agreeing():
                if team.first:
                    closing.enter_context(only_one(folder))
                    claim(folder, record, resume=resume)
                    closing.push(functools.partial(_give_up_without_a_checkpoint, folder))
                    read_history(folder)
            team.check_folder(folder)
        batches, held_out = make_batches(config, train, data, validation, progress, team)
        if train.has_goal and held_out is None:
            raise InputError("goal_accuracy and goal_share are goals of a validation; give validation data")
        per_epoch = batches.steps_per_epoch
        total = train.num_epochs * per_epoch

        # The state, and the step that makes the next one.
        optimizer, step_and_add = compiled(train, total=total, per_epoch=per_epoch)
        init_key, run_key = jax.random.split(jax.random.key(train.seed))
        model = start_from(init(init_key, config), classifier)
        if teacher is not None:
            teacher = start_from(model, teacher, called="the teacher's weights").classifier
        state = init_state(model, optimizer, average=train.ema is not None, method=train.method, teacher=teacher)
        sums = Metrics(*([jnp.zeros(())] * 7))

        kept = None if folder is None else closing.enter_context(Checkpoints(folder, team=team))
        history: list[dict[str, Any]] = []
        first, saved, stopped = 0, None, False
        if kept is not None and folder is not None:
            like = jax.eval_shape(lambda: {"state": state, "sums": sums})
            with team.agreeing():
                if team.first and (found := kept.restore_last(like)) is not None:
                    first, tree = found
                    state, sums, saved = tree["state"], tree["sums"], first
                    history = read_history(folder, first)
            first, saved, history = team.said_by_first(lambda: (first, saved, history))
        # Copies, because the step donates its inputs and the caller may still use the weights to start from.
        state, sums = place.everywhere(_copies((state, sums)))
        run_key = jax.random.wrap_key_data(place.everywhere(jax.random.key_data(run_key)))
        # A run that was stopped in a validation begins with it: the sums of its epoch are there still.
        ends_first = first > 0 and first % per_epoch == 0 and any(float(x) for x in jax.tree.leaves(sums))
        if len(history) < (ended := first // per_epoch - ends_first) and team.first:
            warn(
                f"{folder} holds the records of {len(history)} of the {ended} epochs that have ended; the run goes on "
                "without the others",
            )
        from tqdm import tqdm  # what needs no bar runs without the package

        shown = progress and team.first
        bar = closing.enter_context(tqdm(total=total, initial=first, unit="step", disable=not shown, leave=False))
        started = time.perf_counter()
        curves = Curves(folder if team.first else None, first, per_epoch)
        clock, epoch_time, compiles = closing.enter_context(Throughput()), Measured(), set[bool]()
        stop = should_stop or (lambda: False)
        ready = feed(batches, config, place, team, first=first, total=total, stop=stop)

        ended_by_goal = bool(history) and history[-1]["step"] == first and _reaches_goal(history[-1], train)
        for done in range(first if ends_first else first + 1, total + 1):
            if ended_by_goal:
                break
            epoch, in_epoch = -(-done // per_epoch), (done - 1) % per_epoch + 1
            selects = train.select and epoch > train.whole_epochs
            if done > first:
                if (batch := next(ready)) is None:
                    stopped = True
                    break
                if selects not in compiles:
                    compiles.add(selects)
                    clock.pause()
                state, sums, loss = step_and_add(state, sums, batch, run_key, select=selects)
                clock.step(batch, loss, len(batch.labels))
                place.settle(sums)
                bar.update()
                if in_epoch % train.log_every == 0 or in_epoch == per_epoch:
                    curves.add(epoch, done, in_epoch, sums, (measured := clock.take()).record())
                    epoch_time += measured
                if done % 10 == 0 and not bar.disable:
                    bar.set_postfix_str(describe_epoch({"epoch": epoch, **means_of(sums, in_epoch)}))

            ends = in_epoch == per_epoch
            saves = kept is not None and (done % (train.save_every or per_epoch) == 0 or done == total)
            score, means = None, means_of(sums, in_epoch) if ends or saves else {}
            if means:  # checked before a good checkpoint is overwritten
                _check_loss(means["loss"], epoch, done, train)
            if ends:
                line = {"epoch": epoch, "step": done, **means}
                if held_out is not None and (epoch % train.eval_every == 0 or done == total):
                    try:
                        line["validation"] = validate(
                            place.one(state.result), held_out, certainty=train.certainty, select=selects,
                            mesh=local_part(mesh), should_stop=stop, team=team,
                        )  # fmt: skip
                    except StoppedError:
                        stopped = True
                        break
                    score = line["validation"]["accuracy"] - line["validation"]["hard_share"]
                    clock.pause()
                    ended_by_goal = _reaches_goal(line, train)
                sums = jax.tree.map(jnp.zeros_like, sums)
                line["seconds"] = round(time.perf_counter() - started, 1)
                line |= {"throughput": epoch_time.record()} if epoch_time.seconds else {}
                epoch_time = Measured()
                history.append(line)
                with team.agreeing():
                    # Before the checkpoint, as a resumed run drops the lines after its checkpoint.
                    if folder is not None and team.first:
                        write_history(folder, history)
                    if callback is not None and team.first:
                        callback(line)
            if kept is not None and (saves or ended_by_goal):
                kept.save(done, {"state": state, "sums": sums}, score=score)
                saved = done

        if kept is not None and stopped and (at := int(state.step)) != saved:
            _check_loss(float(sums.loss), -(-at // per_epoch), at, train)
            kept.save(at, {"state": state, "sums": sums})
        state = place.one(state)
        if kept is not None and folder is not None and not stopped:
            kept.wait()
            finish(folder, record, state.result, team)
        return FitResult(state.result, history, state)


def _give_up_without_a_checkpoint(folder: Path, kind: Any, error: BaseException | None, trace: Any) -> None:
    """Where settings or data are at fault, they are mended and the same folder is named again."""
    if isinstance(error, InputError | MemoryError):
        give_up(folder)


def _reaches_goal(line: dict[str, Any], train: TrainConfig) -> bool:
    """Whether the record of an epoch ends the training. An epoch on whole images does not: nothing is selected yet."""
    whole = train.select and line["epoch"] <= train.whole_epochs
    return "validation" in line and not whole and train.met(line["validation"])


def _check_loss(loss: float, epoch: int, step: int, train: TrainConfig) -> None:
    if not np.isfinite(loss):
        raise FloatingPointError(
            f"the loss of epoch {epoch} is {loss}; train with a lower learning_rate than {train.learning_rate:g}, in "
            f"another directory (noticed at step {step})"
        )


@jax.jit
def _copies(tree: Any) -> Any:
    return jax.tree.map(jnp.copy, tree)
