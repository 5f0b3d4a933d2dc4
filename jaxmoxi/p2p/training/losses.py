"""P2P's training objective, and how its weights change over the epochs.

Source: Vandenhirtz, Vogt, "From Pixels to Perception", ICML 2025, section 3.3, and the defaults of their code.

    loss = cross entropy + weight * regulariser(p - tau) + covariance_weight * mean |E E^T|

(With a teacher, the cross entropy is `1 - teacher_weight` of the first term, and `divergence_from` it the rest.) Here
p is the share of the image that is kept in expectation (each group's probability weighted by its area) and tau
the threshold. The regulariser is 0 below the threshold. With h = max(p - tau, 0), it is the mean over the batch of

    "l1"  h
    "kl"  -log(1 - tau - h + 1e-6) + log(1 - tau + 1e-6)
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Num

Regulariser = Literal["kl", "l1"]
Growth = Literal["linear", "geometric"]
_EPS = 1e-6
_FIRST = 0.01  # of the sparsity term's final weight


class LossTerms(NamedTuple):
    """Means over the batch, `total = target + sparsity + covariance`, and `kept`: each image's share of the pixels that
    is kept in expectation, float32[B] in [0, 1]."""

    total: Float[Array, ""]
    target: Float[Array, ""]
    sparsity: Float[Array, ""]
    covariance: Float[Array, ""]
    kept: Float[Array, "B"]


def mean_log_probs(logits: Float[Array, "S B K"]) -> Float[Array, "B K"]:
    """log(mean over the samples of the softmax + 1e-6): what the published classifier returns as its logits."""
    return jnp.log(jnp.mean(jax.nn.softmax(logits, axis=-1), axis=0) + _EPS)


def exact_log_probs(logits: Float[Array, "S B K"]) -> Float[Array, "B K"]:
    """log(mean over the samples of the softmax), without a floor under small probabilities."""
    return jax.nn.logsumexp(jax.nn.log_softmax(logits, axis=-1), axis=0) - jnp.log(len(logits))


def expected_share(group_probs: Float[Array, "B G"], shares: Float[Array, "B G"]) -> Float[Array, "B"]:
    """The share of the image's pixels that is kept in expectation, in [0, 1]."""
    return jnp.sum(group_probs * shares, axis=-1)


def sparsity_penalty(
    kept: Float[Array, "B"], threshold: Float[Array, "*B"] | float, regulariser: Regulariser
) -> Float[Array, ""]:
    """The regulariser of the module's head."""
    threshold = jnp.asarray(threshold, kept.dtype)
    excess = jnp.maximum(kept - threshold, 0.0)
    if regulariser == "l1":
        return jnp.mean(excess)
    room = 1 - threshold + _EPS
    return jnp.mean(jnp.log(room) - jnp.log(room - excess))


def p2p_loss(
    log_probs: Float[Array, "B K"],
    labels: Int[Array, "B"],
    group_probs: Float[Array, "B G"],
    shares: Float[Array, "B G"],
    covariance: Float[Array, "B G G"] | None,
    threshold: Float[Array, "*B"] | float,
    *,
    regulariser: Regulariser,
    weight: Float[Array, ""] | float,
    covariance_weight: float,
) -> LossTerms:
    """All terms of the objective; see the module's head. covariance: None for independent groups, without penalty."""
    kept = expected_share(group_probs, shares)
    target = optax.softmax_cross_entropy_with_integer_labels(log_probs, labels).mean()
    sparsity = weight * sparsity_penalty(kept, threshold, regulariser)
    spread = jnp.zeros(()) if covariance is None else covariance_weight * jnp.mean(jnp.abs(covariance))
    return LossTerms(target + sparsity + spread, target, sparsity, spread, kept)


def divergence_from(logits: Float[Array, "B K"], taught: Float[Array, "B K"], temperature: float) -> Float[Array, ""]:
    """temperature**2 * KL(teacher || classifier), the mean over the batch; 0 for one that answers as the teacher does.

    Both answers are the softmax of logits divided by the temperature, whose square keeps the gradients' size (Hinton,
    Vinyals, Dean, "Distilling the Knowledge in a Neural Network", 2015, section 2).

    logits: the classifier's, of what it sees, up to a constant. taught: the teacher's, of the whole images.
    """
    ours, theirs = (jax.nn.log_softmax(x / temperature, axis=-1) for x in (logits, taught))
    return temperature**2 * jnp.mean(jnp.sum(jnp.exp(theirs) * (theirs - ours), axis=-1))


def temperature(epoch: Num[Array, ""] | int | float, num_epochs: int, final: float) -> Float[Array, ""]:
    """Temperature of the relaxed samples: from 1 to `final`, exponentially over half of the epochs, then constant.

    epoch: the epoch, or a fraction of it (`growth="geometric"` counts in steps).
    """
    half = num_epochs // 2
    share = jnp.minimum(jnp.asarray(epoch, jnp.float32) / half, 1.0) if half else 1.0
    return jnp.asarray(final, jnp.float32) ** share


def regulariser_weight(
    epoch: Num[Array, ""] | int | float,
    num_epochs: int,
    final: float,
    *,
    anneal: bool = True,
    full_first_epoch: bool = True,
    growth: Growth = "linear",
) -> Float[Array, ""]:
    """Weight of the sparsity term: from 1 % of `final` to `final` in the middle of the epochs, then constant.

    It does not start at 0, so that the covariance does not grow without bound.
    anneal:           False gives `final` throughout.
    full_first_epoch: True gives epoch 0 the full weight, as in the authors' code. A selector that starts from random
                      weights then keeps nothing after the first epoch.
    growth:           "linear", as published: 1 % for a tenth of the epochs, then a straight line, by whole epochs.
                      "geometric": by the same factor in equal times, for fractional epochs.
    """
    weight = jnp.asarray(final, jnp.float32)
    if not anneal:
        return weight
    epoch = jnp.asarray(epoch)
    if growth == "geometric":
        return weight * _FIRST ** (1 - jnp.clip(epoch / (num_epochs / 2), 0.0, 1.0))
    first, middle = num_epochs // 10, num_epochs // 2
    share = jnp.clip((epoch - first) / max(middle - first, 1), 0.0, 1.0)
    full = (epoch >= middle) | ((epoch == 0) & full_first_epoch)
    return jnp.where(full, weight, weight * (_FIRST + (1 - _FIRST) * share))
