"""One training step of P2P, as a pure function. What it minimises is in `objectives`, the loop around it in `loop`.

Source: Vandenhirtz, Vogt, "From Pixels to Perception", ICML 2025, section 3.3 and appendix.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Int, Key

from jaxmoxi.errors import InputError
from jaxmoxi.p2p.data.example import Batch
from jaxmoxi.p2p.model import P2P, State
from jaxmoxi.p2p.training.computing import Computing, averaged, in_parts
from jaxmoxi.p2p.training.config import Method, Objective
from jaxmoxi.p2p.training.objectives import Metrics, Pair, compared_loss, likely_loss, selected_loss, whole_loss
from jaxmoxi.pytrees import record


@record
class TrainState:
    """The state of a run. To continue the run, only the data and the key are needed besides.

    model:     the parameters and statistics.
    optimizer: the state of Optax's optimizer.
    step:      int32[], the number of steps taken.
    average:   the average of the models of the steps (`TrainConfig.ema`); None without.
    frozen:    a classifier of whole images that stays as it is: COMET's, or a teacher; None without.
    """

    model: P2P
    optimizer: optax.OptState
    step: Int[Array, ""]
    average: P2P | None = None
    frozen: State | None = None

    @property
    def result(self) -> P2P:
        """What is validated and kept: the average, where there is one."""
        return self.model if self.average is None else self.average


def init_state(
    model: P2P,
    optimizer: optax.GradientTransformation,
    *,
    average: bool = False,
    method: Method = "p2p",
    teacher: State | None = None,
) -> TrainState:
    """The state before the first step.

    average: keeps an average of the models, as `TrainConfig.ema` needs it.
    teacher: the classifier that `Objective.teacher_weight` needs, of the same network as the model's.
    Raises ValueError for a teacher and a method other than "p2p".
    """
    if teacher is not None and method != "p2p":
        raise InputError(f"a teacher is about what P2P's classifier learns; got the method {method}")
    params, _ = _split(model)
    frozen = model.classifier if method in ("comet", "comet-inverse") else teacher
    return TrainState(model, optimizer.init(params), jnp.int32(0), model if average else None, frozen)


def learning_rates(peak: float, schedule: str, warmup: float, total: int) -> optax.Schedule:
    """The learning rate by step; see `TrainConfig`."""
    rise = round(warmup * total)
    start = 0.0 if rise else peak
    if schedule == "constant":
        return optax.warmup_constant_schedule(start, peak, rise)
    return optax.warmup_cosine_decay_schedule(start, peak, rise, total)


def train_step(
    state: TrainState,
    batch: Batch,
    key: Key[Array, ""],
    *,
    objective: Objective,
    optimizer: optax.GradientTransformation,
    steps_per_epoch: int,
    select: bool = True,
    computing: Computing = Computing(),  # noqa: B008
    method: Method = "p2p",
    freeze_selector: bool = False,
) -> tuple[TrainState, Metrics]:
    """One step of the published training: `(state, metrics)`. Pure; jit it with `state` donated.

    key:       of the whole run; the step's own randomness follows from it and `state.step`.
    objective: what is minimised; a `TrainConfig` is one.
    select:    False trains the classifier alone on whole images, by the target alone: the black-box twin, and the
               first `whole_epochs` of a model. The shares are then 1, and the selector gets no gradient.
    computing: how the step computes.
    method:    whose loss is minimised where `select` is True.
    freeze_selector: True trains P2P's classifier alone, through the selector's masks of test time.

    Raises ValueError for a `teacher_weight` where the state has no teacher, and for a method that knows none.
    """
    if objective.teacher_weight and (state.frozen is None or method != "p2p"):
        raise InputError(
            "teacher_weight needs a teacher, init_state(..., teacher=...) or fit(teacher=...), and the method p2p; got "
            f"{'no teacher' if state.frozen is None else f'the method {method}'}"
        )
    key = jax.random.fold_in(key, state.step)
    epoch = state.step // steps_per_epoch if objective.growth == "linear" else state.step / steps_per_epoch
    params, statistics = _split(state.model)
    if not select:
        loss = functools.partial(whole_loss, objective=objective, teacher=state.frozen if method == "p2p" else None)
    elif method == "p2p":
        of_method = likely_loss if freeze_selector else selected_loss
        loss = functools.partial(of_method, objective=objective, teacher=state.frozen)
    else:
        loss = functools.partial(compared_loss, objective=objective, method=method, frozen=state.frozen)
    loss = functools.partial(loss, precision=computing.precision)

    def gradient(statistics: Pair, batch: Batch, key: Key[Array, ""]) -> tuple[Pair, tuple[Pair, Metrics]]:
        return jax.grad(loss, has_aux=True)(params, statistics, batch, key, epoch, state.model.config)

    gradients, (statistics, metrics) = in_parts(gradient, computing.accumulate, statistics, batch, key)
    updates, optimizer_state = optimizer.update(gradients, state.optimizer, params)
    trained: Any = optax.apply_updates(params, updates)
    if freeze_selector:  # of which weight decay knows nothing
        trained = params[0], trained[1]
    selector, classifier = (nnx.merge_state(p, s) for p, s in zip(trained, statistics, strict=True))
    model = P2P(selector, classifier, state.model.config)
    average = None
    if state.average is not None and computing.ema is not None:
        average = averaged(state.average, model, computing.ema, state.step)
    follows = method != "p2p" and not select  # COMET's frozen classifier is the one that the first epochs train
    frozen = classifier if state.frozen is not None and follows else state.frozen
    return TrainState(model, optimizer_state, state.step + 1, average, frozen), metrics


def _split(model: P2P) -> tuple[Pair, Pair]:
    """(parameters, statistics), each of selector and classifier."""
    pairs = [nnx.split_state(state, nnx.Param, ...) for state in (model.selector, model.classifier)]
    return tuple(p for p, _ in pairs), tuple(s for _, s in pairs)  # type: ignore[return-value]
