"""The training run, to be read from top to bottom. One step of it is `training.train_step`.

Source: Vandenhirtz, Vogt, "From Pixels to Perception", ICML 2025, and their code.

Deviations from the authors' code: the validation images are never trained on, whatever the data set; the learning rate
rises at first and falls along a cosine where the authors keep it constant (as `schedule="constant", warmup=0` does),
and Adam is AdamW, the same without `weight_decay`. Everything random follows from `seed` and the step, so a run
that was killed goes on as if nothing had happened.
"""

from __future__ import annotations

import contextlib
import functools
import json
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from tqdm import tqdm

from jaxmoxi.errors import InputError
from jaxmoxi.p2p.checkpoint import Checkpoints
from jaxmoxi.p2p.config import Config
from jaxmoxi.p2p.data import Augmentation, Loader, presegment, split
from jaxmoxi.p2p.inference.predict import predict
from jaxmoxi.p2p.model import P2P, init
from jaxmoxi.p2p.placement import placement
from jaxmoxi.p2p.training.pretrained import fingerprint, start_from
from jaxmoxi.p2p.training.run_folder import claim, finish, read_history, write_history
from jaxmoxi.p2p.training.step import Metrics, TrainState, init_state, learning_rates, train_step

_CACHE_BYTES = 1 << 30


class FitResult(NamedTuple):
    """What a run leaves.

    model:   the trained model.
    history: a record for each epoch: `epoch`, `step`, the means of `Metrics`, `seconds`, and where it was validated
             `validation` with `accuracy`, `hard_share` and `threshold`.
    state:   the last `TrainState`.
    """

    model: P2P
    history: list[dict[str, Any]]
    state: TrainState


def fit(
    config: Config,
    data: Any,
    *,
    validation: Any = None,
    directory: str | Path | None = None,
    batch_size: int = 64,
    learning_rate: float = 1e-4,
    weight_decay: float = 0.0,
    schedule: Literal["cosine", "constant"] = "cosine",
    warmup: float = 0.05,
    select: bool = True,
    classifier: Any = None,
    augment: bool | Augmentation = True,
    seed: int = 0,
    certainty: float = 0.95,
    validation_share: float = 0.1,
    eval_every: int = 1,
    save_every: int | None = None,
    mesh: Mesh | None = None,
    resume: bool = True,
    progress: bool = True,
    callback: Callable[[dict[str, Any]], None] | None = None,
) -> FitResult:
    """Trains a P2P model for `config.num_epochs`.

    data:       a `Source` of labelled images, or a `Loader` (or whatever has its `steps_per_epoch` and `batch`).
    validation: the same, for validation alone. None holds out `validation_share` of a source; with a loader there is
                no validation then.
    directory:  where checkpoints, history and the model go; None keeps nothing. The same call on a directory of a run
                that has not ended goes on where it was, and on the CPU ends with the same bits.
    batch_size: images a step, of all devices together.
    learning_rate, weight_decay, schedule, warmup: of AdamW. The rate rises from 0 in the first `warmup`, a share of the
                steps, and then falls to 0 ("cosine") or stays ("constant").
    select:     False trains the black-box twin: the same classifier on whole images.
    classifier: weights to start from: a P2P (both networks) or the NNX state of a classifier (that alone).
    augment:    of a source's images; True for the published augmentation (see `data.Loader`).
    seed:       of weights, order, augmentation and samples.
    certainty, eval_every: validation predicts at this certainty, after every so many epochs and the last.
    save_every: steps between checkpoints; None: an epoch. The last two stay, and the best: that of the highest
                validation accuracy minus hard share (accuracy alone would favour the first epochs, which keep all).
    mesh:       trains data-parallel: each device takes its share of every batch, the state is the same on all.
                Statistics of BatchNorm are those of the whole batch. Results agree with one device to rounding.
    resume:     False refuses a directory with a run in it.
    progress:   a bar with loss, accuracy, and soft and hard selected share.
    callback:   called with each epoch's record.

    Raises ValueError, before anything long starts, for settings that cannot be, and for a directory of a run with other
    settings; FloatingPointError if the loss is no number; OSError if a checkpoint cannot be written, the last one
    untouched.
    """
    _check(
        config, data, batch_size=batch_size, learning_rate=learning_rate, weight_decay=weight_decay, schedule=schedule,
        warmup=warmup, certainty=certainty, validation_share=validation_share, eval_every=eval_every,
        save_every=save_every,
    )  # fmt: skip
    place = placement(mesh, batch_size)
    folder = None if directory is None else Path(directory).absolute()
    settings = dict(
        batch_size=batch_size, learning_rate=learning_rate, weight_decay=weight_decay, schedule=schedule, warmup=warmup,
        select=select, classifier=fingerprint(classifier), augment=repr(augment), seed=seed, certainty=certainty,
        validation_share=validation_share, eval_every=eval_every, examples=_size(data),
        validation=None if validation is None else _size(validation),
    )  # fmt: skip
    names = getattr(data, "class_names", None)
    record = {"config": json.loads(config.to_json()), "class_names": names and list(names), "training": settings}
    if folder is not None:
        claim(folder, record, resume=resume)

    # Data: a pure function of the step. What is never cropped at random is segmented once, where it fits the memory.
    if validation is None and not _is_loader(data):
        data, validation = split(data, validation=validation_share, seed=seed)
    sizes: Any = dict(image_size=config.image_size, num_groups=config.num_groups)

    def segmented(source: Any) -> Any:
        small = 8 * config.image_size**2 * len(source) < _CACHE_BYTES
        return presegment(source, progress=progress, **sizes) if small else source

    train, held_out = data, validation
    if not _is_loader(data):
        moved = augment.crop is not None if isinstance(augment, Augmentation) else augment
        source = data if moved else segmented(data)
        train = Loader(source, batch_size=batch_size, seed=seed, augment=augment, **sizes)
    if validation is not None and not _is_loader(validation):
        held_out = Loader(segmented(validation), batch_size=batch_size, train=False, **sizes)
    per_epoch = train.steps_per_epoch
    total = config.num_epochs * per_epoch

    # The state, and the step that makes the next one.
    optimizer, step_and_add = _compiled(learning_rate, weight_decay, schedule, warmup, total, per_epoch)
    init_key, run_key = jax.random.split(jax.random.key(seed))
    state = init_state(start_from(init(init_key, config), classifier), optimizer)
    sums = Metrics(*([jnp.zeros(())] * 7))

    with contextlib.ExitStack() as closing:
        kept = None if folder is None else closing.enter_context(Checkpoints(folder))
        history: list[dict[str, Any]] = []
        first = 0
        if kept is not None and folder is not None and kept.latest is not None:
            first = kept.latest
            tree = kept.restore(first, jax.eval_shape(lambda: {"state": state, "sums": sums}))
            state, sums = tree["state"], tree["sums"]
            history = read_history(folder, first)
        # Copies: what was handed in must outlive the donation.
        state, sums = place.everywhere(_copies((state, sums)))
        bar = closing.enter_context(tqdm(total=total, initial=first, unit="step", disable=not progress, leave=False))
        started = time.perf_counter()

        for step, batch in zip(range(first, total), _batches(train, first, total), strict=False):
            done = step + 1
            epoch, in_epoch = -(-done // per_epoch), step % per_epoch + 1
            selects = select and epoch > config.whole_epochs
            split_batch = place.split(batch._replace(masks=None))
            state, sums = step_and_add(state, sums, split_batch, run_key, select=selects)
            place.settle(sums)
            bar.update()
            if done % 10 == 0 and not bar.disable:
                bar.set_postfix_str(_summary(epoch, _means(sums, in_epoch)))

            ends = in_epoch == per_epoch
            saves = kept is not None and (done % (save_every or per_epoch) == 0 or done == total)
            score, means = None, _means(sums, in_epoch) if ends or saves else {}
            if means and not np.isfinite(means["loss"]):  # before it overwrites a checkpoint that is good
                raise FloatingPointError(
                    f"the loss of epoch {epoch} is {means['loss']}; train with a lower learning_rate than "
                    f"{learning_rate:g}, in another directory"
                )
            if ends:
                sums = jax.tree.map(jnp.zeros_like, sums)
                line = {"epoch": epoch, "step": done, **means}
                if held_out is not None and (epoch % eval_every == 0 or done == total):
                    line["validation"] = validate(
                        place.one(state.model), held_out, certainty=certainty, select=selects, mesh=mesh
                    )
                    score = line["validation"]["accuracy"] - line["validation"]["hard_share"]
                line["seconds"] = round(time.perf_counter() - started, 1)
                history.append(line)
                if folder is not None:  # before the checkpoint: a run goes on from one, and drops the lines after it
                    write_history(folder, history)
                if callback is not None:
                    callback(line)
            if kept is not None and saves:
                kept.save(done, {"state": state, "sums": sums}, score=score)

    state = place.one(state)
    if folder is not None:
        finish(folder, record, state.model)
    return FitResult(state.model, history, state)


@functools.lru_cache(maxsize=16)
def _compiled(
    learning_rate: float, weight_decay: float, schedule: str, warmup: float, total: int, per_epoch: int
) -> tuple[Any, Any]:
    """The optimizer, and the step, which another run of the same settings does not compile again."""
    optimizer = optax.adamw(learning_rates(learning_rate, schedule, warmup, total), weight_decay=weight_decay)

    @functools.partial(jax.jit, donate_argnums=(0, 1), static_argnames="select")
    def step_and_add(
        state: TrainState, sums: Metrics, batch: Any, key: Any, *, select: bool
    ) -> tuple[TrainState, Metrics]:
        state, metrics = train_step(state, batch, key, optimizer=optimizer, steps_per_epoch=per_epoch, select=select)
        return state, jax.tree.map(jnp.add, sums, metrics)

    return optimizer, step_and_add


@jax.jit
def _copies(tree: Any) -> Any:
    return jax.tree.map(jnp.copy, tree)


def validate(
    model: P2P, loader: Any, *, certainty: float = 0.95, select: bool = True, mesh: Mesh | None = None
) -> dict[str, float]:
    """Accuracy, hard share and mean threshold over a loader's batches, as means over the images.

    select: False classifies the whole images, of share and threshold 1.
    """
    correct, shares, thresholds = [], [], []
    for batch in _batches(loader, 0, loader.steps_per_epoch):
        if select:
            size = len(batch.images)
            out = predict(model, batch.images, batch.regions, certainty=certainty, batch_size=size, mesh=mesh)
            classes, share, threshold = out.classes, out.pixel_mask.mean((1, 2)), out.threshold
        else:
            classes = jnp.argmax(_whole(model, batch.images), -1)
            share = threshold = jnp.ones(len(classes))
        correct.append(np.asarray(classes) == np.asarray(batch.labels))
        shares.append(np.asarray(share))
        thresholds.append(np.asarray(threshold))
    means = (float(np.concatenate(x).mean()) for x in (correct, shares, thresholds))
    return dict(zip(("accuracy", "hard_share", "threshold"), means, strict=True))


@jax.jit
def _whole(model: P2P, images: Any) -> Any:
    return model.modules()[1](model.normalize(images))


def _check(config: Config, data: Any, **settings: Any) -> None:
    for name in ("batch_size", "learning_rate", "eval_every", "save_every"):
        if settings[name] is not None and not settings[name] > 0:
            raise InputError(f"{name} must be above 0; got {settings[name]}")
    if settings["weight_decay"] < 0:
        raise InputError(f"weight_decay must be at least 0; got {settings['weight_decay']}")
    if settings["schedule"] not in ("cosine", "constant"):
        raise InputError(f'expected a schedule of "cosine" or "constant"; got {settings["schedule"]!r}')
    if not 0 <= settings["warmup"] < 1:
        raise InputError(f"warmup is a share of the steps, in [0, 1); got {settings['warmup']}")
    for name in ("certainty", "validation_share"):
        if not 0 < settings[name] <= 1 or (name == "validation_share" and settings[name] == 1):
            raise InputError(f"{name} must lie in (0, 1{']' if name == 'certainty' else ')'}; got {settings[name]}")
    names = getattr(data, "class_names", None)
    if names and len(names) != config.num_classes:
        raise InputError(f"the data has {len(names)} classes, the configuration num_classes={config.num_classes}")


def _batches(loader: Any, first: int, end: int) -> Iterable[Any]:
    """The batches from a step on, ahead of time where the loader can; to `end` at least."""
    if first == end:
        return ()
    return loader.iterate(first) if hasattr(loader, "iterate") else map(loader.batch, range(first, end))


def _is_loader(data: Any) -> bool:
    return hasattr(data, "steps_per_epoch")


def _size(data: Any) -> int:
    return data.steps_per_epoch if _is_loader(data) else len(data)


def _means(sums: Metrics, count: int) -> dict[str, float]:
    return {name: float(value) / count for name, value in vars(jax.device_get(sums)).items()}


def _summary(epoch: int, means: dict[str, float]) -> str:
    return (
        f"epoch {epoch}: loss {means['loss']:.3f}, accuracy {means['accuracy']:.1%}, "
        f"selected {means['soft_share']:.1%} soft, {means['hard_share']:.1%} hard"
    )
