"""What one training step of P2P minimises: the published loss, and those of its other parts and methods.

Each is a function of (parameters, statistics, batch, key, epoch, config), for `jax.grad`, and returns the loss, the new
statistics and the measures of the batch. `step` chooses among them; the terms they are sums of are in `losses` and
`methods`.

Source: Vandenhirtz, Vogt, "From Pixels to Perception", ICML 2025, section 3.3 and appendix.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Float, Key, Num

from jaxmoxi.p2p.config import Config
from jaxmoxi.p2p.data.example import Batch
from jaxmoxi.p2p.distribution import covariance, group_means, over_pixels, sample_logits, sample_relaxed, within_budget
from jaxmoxi.p2p.masking import shown
from jaxmoxi.p2p.model import Classifier, Selector, State, at_threshold, fill_colour, kept_groups, normalize, structures
from jaxmoxi.p2p.training import methods
from jaxmoxi.p2p.training.computing import lowered, run
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

Pair = tuple[State, State]  # of selector and classifier


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


def selected_loss(
    params: Pair,
    statistics: Pair,
    batch: Batch,
    key: Key[Array, ""],
    epoch: Num[Array, ""],
    config: Config,
    *,
    objective: Objective,
    teacher: State | None,
    precision: str,
) -> tuple[Array, tuple[Pair, Metrics]]:
    """The published loss, through relaxed masks at random thresholds (section 3.3)."""
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


def likely_loss(
    params: Pair,
    statistics: Pair,
    batch: Batch,
    key: Key[Array, ""],
    epoch: Num[Array, ""],
    config: Config,
    *,
    objective: Objective,
    teacher: State | None,
    precision: str,
) -> tuple[Array, tuple[Pair, Metrics]]:
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


def compared_loss(
    params: Pair,
    statistics: Pair,
    batch: Batch,
    key: Key[Array, ""],
    epoch: Num[Array, ""],
    config: Config,
    *,
    objective: Objective,
    method: Method,
    frozen: State | None,
    precision: str,
) -> tuple[Array, tuple[Pair, Metrics]]:
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


def whole_loss(
    params: Pair,
    statistics: Pair,
    batch: Batch,
    key: Key[Array, ""],
    epoch: Num[Array, ""],
    config: Config,
    *,
    objective: Objective,
    teacher: State | None,
    precision: str,
) -> tuple[Array, tuple[Pair, Metrics]]:
    """The classifier's target on whole images; the selector gets no gradient."""
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


def _statistics(modules: tuple[Selector, Classifier]) -> Pair:
    """What a step changes besides the parameters: BatchNorm's statistics."""
    return tuple(nnx.state(module, nnx.Not(nnx.Param)) for module in modules)  # type: ignore[return-value]


def _modules(
    config: Config, params: Pair, statistics: Pair, precision: str, *, of_selector: str | None = None
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
