"""One training step of P2P, as a pure function. The loop around it is in `loop`.

Source: Vandenhirtz, Vogt, "From Pixels to Perception", ICML 2025, section 3.3 and appendix.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Float, Int, Key, Num

from jaxmoxi.errors import InputError
from jaxmoxi.p2p.config import Config
from jaxmoxi.p2p.data.example import Batch
from jaxmoxi.p2p.distribution import covariance, group_means, over_pixels, sample_logits, sample_relaxed, within_budget
from jaxmoxi.p2p.masking import shown
from jaxmoxi.p2p.model import (
    P2P,
    Classifier,
    Selector,
    State,
    at_threshold,
    fill_colour,
    kept_groups,
    normalize,
    structures,
)  # fmt: skip
from jaxmoxi.p2p.training import methods
from jaxmoxi.p2p.training.computing import Computing, averaged, in_parts, lowered, run
from jaxmoxi.p2p.training.config import Method, Objective
from jaxmoxi.p2p.training.losses import (
    divergence_from,
    exact_log_probs,
    expected_share,
    mean_log_probs,
    p2p_loss,
    regulariser_weight,
    temperature,
)
from jaxmoxi.pytrees import record

_Pair = tuple[State, State]  # of selector and classifier


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


@record
class Metrics:
    """Measures of one batch. Shares are of the pixels, in [0, 1].

    loss:        what is minimised: the terms, and `Objective.logit_weight` times the mean squared logit.
    target, sparsity, covariance: the terms of `losses.LossTerms`; with a teacher, its share is in the target.
    accuracy:    accuracy of the step's own predictions, made through the masks it trains with (relaxed ones, of P2P).
    soft_share:  share kept in expectation.
    hard_share:  share kept by the masks of test time, at the thresholds of training.
    """

    loss: Float[Array, ""]
    target: Float[Array, ""]
    sparsity: Float[Array, ""]
    covariance: Float[Array, ""]
    accuracy: Float[Array, ""]
    soft_share: Float[Array, ""]
    hard_share: Float[Array, ""]


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
        loss = functools.partial(_whole_loss, objective=objective, teacher=state.frozen if method == "p2p" else None)
    elif method == "p2p":
        of_method = _likely_loss if freeze_selector else _selected_loss
        loss = functools.partial(of_method, objective=objective, teacher=state.frozen)
    else:
        loss = functools.partial(_compared_loss, objective=objective, method=method, frozen=state.frozen)
    loss = functools.partial(loss, precision=computing.precision)

    def gradient(statistics: _Pair, batch: Batch, key: Key[Array, ""]) -> tuple[_Pair, tuple[_Pair, Metrics]]:
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


def _selected_loss(
    params: _Pair,
    statistics: _Pair,
    batch: Batch,
    key: Key[Array, ""],
    epoch: Num[Array, ""],
    config: Config,
    *,
    objective: Objective,
    teacher: State | None,
    precision: str,
) -> tuple[Array, tuple[_Pair, Metrics]]:
    selector, classifier = modules = _modules(config, params, statistics, precision)
    tau_key, sample_key, relax_key = jax.random.split(key, 3)
    images, regions, labels = normalize(batch.images, config), jnp.asarray(batch.regions), jnp.asarray(batch.labels)
    count = len(images)
    tau = _thresholds(tau_key, count, config)
    warmth, weight = _schedule(objective, epoch)

    means, shares = group_means(run(selector, images, precision), regions, config.num_groups)
    mu, embeddings = at_threshold(selector, means, shares, tau, config)
    if config.embedding_size:
        logits = sample_logits(sample_key, mu, embeddings, objective.num_samples)
        spread = covariance(embeddings)
    else:
        logits, spread = jnp.broadcast_to(mu, (objective.num_samples, *mu.shape)), None
    kept = sample_relaxed(relax_key, logits, warmth, hard=objective.straight_through)
    if config.exact_budget:
        budget = jnp.broadcast_to(tau, kept.shape[:-1])
        fits = within_budget(kept, logits, jnp.broadcast_to(shares, kept.shape), budget)
        kept = kept - jax.lax.stop_gradient(kept * ~fits)  # dropped groups still get a gradient
    masks = over_pixels(kept, regions)[..., None]  # [S, B, H, W, 1]
    fill = fill_colour(config)
    seen = (fill + (images - fill) * masks).reshape(-1, *images.shape[1:])
    answers = run(classifier, seen, precision).reshape(objective.num_samples, count, -1)
    log_probs = mean_log_probs(answers)

    probs = jax.nn.sigmoid(mu)
    terms = p2p_loss(
        log_probs, labels, probs, shares, spread, tau,
        regulariser=objective.regulariser, weight=weight, covariance_weight=objective.covariance_weight,
    )  # fmt: skip
    target = _with_teacher(
        terms.target, lambda: exact_log_probs(answers), images, teacher, config, objective, precision
    )
    total = target + terms.sparsity + terms.covariance
    total += objective.logit_weight * jnp.mean(mu**2)  # a group without pixels has the logit 0
    metrics = Metrics(
        loss=total,
        target=target,
        sparsity=terms.sparsity,
        covariance=terms.covariance,
        accuracy=jnp.mean(jnp.argmax(log_probs, -1) == batch.labels),
        soft_share=jnp.mean(terms.kept),
        hard_share=jnp.mean(jnp.sum(kept_groups(mu, shares, tau, config) * shares, -1)),
    )
    return total, (_statistics(modules), metrics)


def _likely_loss(
    params: _Pair,
    statistics: _Pair,
    batch: Batch,
    key: Key[Array, ""],
    epoch: Num[Array, ""],
    config: Config,
    *,
    objective: Objective,
    teacher: State | None,
    precision: str,
) -> tuple[Array, tuple[_Pair, Metrics]]:
    """The classifier's target through the masks of test time, at random thresholds."""
    del epoch  # this loss follows no schedule
    params = jax.lax.stop_gradient(params[0]), params[1]
    # The selector in full precision, as at test time: a superpixel that is as likely as not must not change sides.
    selector, classifier = modules = _modules(config, params, statistics, precision, of_selector="float32")
    selector.eval()
    images, regions, labels = normalize(batch.images, config), jnp.asarray(batch.regions), jnp.asarray(batch.labels)
    tau = _thresholds(key, len(images), config)
    means, shares = group_means(run(selector, images, "float32"), regions, config.num_groups)
    mu, _ = at_threshold(selector, means, shares, tau, config)
    kept = kept_groups(mu, shares, tau, config).astype(images.dtype)
    logits = run(classifier, shown(images, over_pixels(kept, regions), config), precision)
    hard = jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels))
    loss = _with_teacher(hard, lambda: logits, images, teacher, config, objective, precision)
    none = jnp.zeros(())
    metrics = Metrics(
        loss=loss,
        target=loss,
        sparsity=none,
        covariance=none,
        accuracy=jnp.mean(jnp.argmax(logits, -1) == labels),
        soft_share=jnp.mean(expected_share(jax.nn.sigmoid(mu), shares)),
        hard_share=jnp.mean(jnp.sum(kept * shares, -1)),
    )
    return loss, (_statistics(modules), metrics)


def _with_teacher(
    hard: Float[Array, ""],
    logits: Callable[[], Float[Array, "B K"]],
    images: Float[Array, "B H W 3"],
    teacher: State | None,
    config: Config,
    objective: Objective,
    precision: str,
) -> Float[Array, ""]:
    """The target: the cross entropy, and (`teacher_weight` of it) how far the answers are from a teacher's.

    hard: the cross entropy. logits: what was answered, asked for where there is a teacher. images: whole, normalised.
    """
    if teacher is None or not objective.teacher_weight:
        return hard
    taught = run(_frozen(teacher, config, precision), images, precision)
    soft = divergence_from(logits(), taught, objective.teacher_temperature)
    return (1 - objective.teacher_weight) * hard + objective.teacher_weight * soft


def _frozen(state: State | None, config: Config, precision: str) -> Classifier:
    """A classifier that answers and learns nothing."""
    assert state is not None  # `init_state` sees to it
    params, statistics = nnx.split_state(jax.lax.stop_gradient(state), nnx.Param, ...)
    module = nnx.merge(structures(config)[1], lowered(params, precision), statistics)
    module.eval()
    return module


def _thresholds(key: Key[Array, ""], count: int, config: Config) -> Float[Array, "B"]:
    """The thresholds that so many images are trained at."""
    if not config.dynamic_threshold:
        return jnp.full(count, config.threshold)
    return jax.random.uniform(key, (count,), minval=config.min_threshold, maxval=config.max_threshold)


def _compared_loss(
    params: _Pair,
    statistics: _Pair,
    batch: Batch,
    key: Key[Array, ""],
    epoch: Num[Array, ""],
    config: Config,
    *,
    objective: Objective,
    method: Method,
    frozen: State | None,
    precision: str,
) -> tuple[Array, tuple[_Pair, Metrics]]:
    """The losses of `methods`."""
    modules = _modules(config, params, statistics, precision)
    selector, classifier = (functools.partial(run, module, precision=precision) for module in modules)
    images, labels = normalize(batch.images, config), jnp.asarray(batch.labels)
    warmth, weight = _schedule(objective, epoch)
    if method == "blackbox-pixel-mask":
        terms = methods.even_terms(classifier, images, labels, config)
    elif method == "real-x":
        fixed = _modules(config, jax.lax.stop_gradient(params), statistics, precision)[1]
        fixed.eval()
        terms = methods.realx_terms(
            selector, classifier, functools.partial(run, fixed, precision=precision), images,
            jnp.asarray(batch.regions), labels, key, config, objective, weight=weight, temperature=warmth,
        )  # fmt: skip
    else:
        whole = _frozen(frozen, config, "float32")
        terms = methods.comet_terms(selector, classifier, whole, images, labels, config, objective, weight=weight)
    metrics = Metrics(
        loss=terms.total,
        target=terms.target,
        sparsity=terms.sparsity,
        covariance=jnp.zeros(()),
        accuracy=jnp.mean(jnp.argmax(terms.logits, -1) == labels),
        soft_share=terms.soft_share,
        hard_share=terms.hard_share,
    )
    return terms.total, (_statistics(modules), metrics)


def _whole_loss(
    params: _Pair,
    statistics: _Pair,
    batch: Batch,
    key: Key[Array, ""],
    epoch: Num[Array, ""],
    config: Config,
    *,
    objective: Objective,
    teacher: State | None,
    precision: str,
) -> tuple[Array, tuple[_Pair, Metrics]]:
    del key, epoch  # this loss draws nothing and follows no schedule
    modules = _modules(config, params, statistics, precision)
    images = normalize(batch.images, config)
    logits = run(modules[1], images, precision)
    hard = jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, batch.labels))
    loss = _with_teacher(hard, lambda: logits, images, teacher, config, objective, precision)
    accuracy = jnp.mean(jnp.argmax(logits, -1) == batch.labels)
    none, whole = jnp.zeros(()), jnp.ones(())
    metrics = Metrics(loss, loss, sparsity=none, covariance=none, accuracy=accuracy, soft_share=whole, hard_share=whole)
    return loss, (_statistics(modules), metrics)


def _schedule(objective: Objective, epoch: Num[Array, ""]) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """The temperature of the relaxed samples, and the weight of the sparsity term; both span the epochs that select."""
    epoch, count = epoch - objective.whole_epochs, objective.num_epochs - objective.whole_epochs
    return temperature(epoch, count, objective.final_temperature), regulariser_weight(
        epoch,
        count,
        objective.regulariser_weight,
        anneal=objective.anneal,
        full_first_epoch=objective.full_first_epoch,
        growth=objective.growth,
    )


def _statistics(modules: tuple[Selector, Classifier]) -> _Pair:
    """What a step changes besides the parameters: BatchNorm's statistics."""
    return tuple(nnx.state(module, nnx.Not(nnx.Param)) for module in modules)  # type: ignore[return-value]


def _split(model: P2P) -> tuple[_Pair, _Pair]:
    """(parameters, statistics), each of selector and classifier."""
    pairs = [nnx.split_state(state, nnx.Param, ...) for state in (model.selector, model.classifier)]
    return tuple(p for p, _ in pairs), tuple(s for _, s in pairs)  # type: ignore[return-value]


def _modules(
    config: Config, params: _Pair, statistics: _Pair, precision: str, *, of_selector: str | None = None
) -> tuple[Selector, Classifier]:
    """Selector and classifier in training mode. of_selector: its own precision; None for the same."""
    # A new tree in the trace of this call, because `jax.grad` forbids changing its auxiliary inputs in place.
    statistics = jax.tree.map(lambda x: x, statistics)
    modules = tuple(
        nnx.merge(structure, lowered(p, own), s)
        for structure, p, s, own in zip(
            structures(config), params, statistics, (of_selector or precision, precision), strict=True
        )
    )
    for module in modules:
        module.train()
    return modules  # type: ignore[return-value]
