"""The methods that P2P is compared with, as losses of the same trainer: same data, same networks, same schedules.

blackbox             the classifier on whole images. (Also what `select=False` means.)
blackbox-pixel-mask  the classifier on images of which an evenly spaced share of the pixels, `Config.threshold`, is
                     shown: what a number of pixels is worth where nothing chooses them.
real-x               Jethani, Sudarshan, Aphinyanaphongs, Ranganath, "Have We Learned to Explain?", AISTATS 2021. The
                     classifier is trained on random masks (each group is shown with probability 1/2) and on nothing
                     else, so it cannot learn what the selector's masks mean. The selector is trained against it.
comet                Zhang, Tsai, Shen, "Comprehensive Attribution: Inherently Explainable Vision Model with Feature
                     Detector", ECCV 2024, with two players. The selector gives every pixel a continuous mask m in
                     (0, 1). The classifier sees m * image; a frozen classifier of whole images sees (1 - m) * image,
                     and is to find nothing there:  CE + max(CE - CE_frozen + 1, 0) + weight * excess of mean(m).
comet-inverse        the same training, read the other way round: the pixels of the lowest mask count as the important
                     ones (`inference.comparison`).

Deviations. All methods pay for the share of the pixels that exceeds `Config.threshold`, by the regulariser and with the
annealing of `losses`; REAL-X pays lambda times the share, and COMET a hundred times the excess, without annealing.
REAL-X's groups are the superpixels that all methods here share, not squares; its classifier and its selector are
trained in one run, the selector against the classifier as it is. What COMET hides is black, not of the mean colour, so
that all methods hide alike. Its classifier gets the hinge's gradient too, a multiple of its own, to which Adam is all
but blind. The frozen classifier is the one after `whole_epochs`, or the weights that `fit` starts from; COMET trains it
in a run of its own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Key

from jaxmoxi.p2p.config import Config
from jaxmoxi.p2p.distribution import group_means, over_pixels
from jaxmoxi.p2p.masking import evenly_spaced, shown
from jaxmoxi.p2p.training.config import Method, Objective
from jaxmoxi.p2p.training.losses import expected_share, sparsity_penalty

Network = Any  # a callable of normalised images
_GAP = 1.0  # COMET's: by how much the frozen classifier is to do worse on what is hidden
_MASKING = {"blackbox-pixel-mask": "even", "comet": "soft", "comet-inverse": "soft"}


def for_method(config: Config, method: Method) -> Config:
    """The configuration of the models that a method trains.

    All but P2P and the black box have a fixed threshold, and logits of the groups that are independent.
    """
    if method in ("p2p", "blackbox"):
        return config
    masking: Any = _MASKING.get(method, "groups")
    return dataclasses.replace(
        config, masking=masking, dynamic_threshold=False, threshold_input="shift", embedding_size=0
    )


@dataclasses.dataclass(frozen=True)
class Terms:
    """What the loss of a method consists of, as scalars: `total` is minimised; the rest is for `Metrics`."""

    total: Float[Array, ""]
    target: Float[Array, ""]
    sparsity: Float[Array, ""]
    logits: Float[Array, "B K"]
    soft_share: Float[Array, ""]
    hard_share: Float[Array, ""]


def even_terms(classifier: Network, images: Float[Array, "B S S 3"], labels: Int[Array, "B"], config: Config) -> Terms:
    """The loss of `blackbox-pixel-mask`."""
    mask = jnp.asarray(evenly_spaced(config.image_size, config.threshold), images.dtype)
    logits = classifier(shown(images, jnp.broadcast_to(mask, images.shape[:3]), config))
    loss, share = _cross_entropy(logits, labels), jnp.mean(mask)
    return Terms(loss, loss, jnp.zeros(()), logits, share, share)


def realx_terms(
    selector: Network,
    classifier: Network,
    fixed: Network,
    images: Float[Array, "B S S 3"],
    regions: Int[Array, "B S S"],
    labels: Int[Array, "B"],
    key: Key[Array, ""],
    config: Config,
    objective: Objective,
    *,
    weight: Float[Array, ""],
    temperature: Float[Array, ""],
) -> Terms:
    """The loss of `real-x`. fixed: the classifier, without a gradient to its parameters."""
    random_key, relax_key = jax.random.split(key)
    means, shares = group_means(selector(images), regions, config.num_groups)
    mu = means[..., 0]
    some = jax.random.bernoulli(random_key, 0.5, mu.shape).astype(images.dtype)
    on_random = _cross_entropy(classifier(shown(images, over_pixels(some, regions), config)), labels)

    def answers(kept: Float[Array, "3 B G"]) -> Float[Array, "3 B K"]:
        seen = shown(jnp.tile(images, (3, 1, 1, 1)), over_pixels(kept, regions).reshape(-1, *images.shape[1:3]), config)
        return fixed(seen).reshape(3, len(images), -1)

    target, logits = rebar(relax_key, mu, temperature, answers, labels)
    share = expected_share(jax.nn.sigmoid(mu), shares)
    sparsity = weight * sparsity_penalty(share, config.threshold, objective.regulariser)
    total = on_random + target + sparsity + objective.logit_weight * jnp.mean(mu**2)
    hard = jnp.mean(jnp.sum((mu > 0) * shares, -1))
    return Terms(total, target, sparsity, logits, jnp.mean(share), hard)


def rebar(
    key: Key[Array, ""],
    mu: Float[Array, "B G"],
    temperature: Float[Array, ""],
    answers: Callable[[Float[Array, "3 B G"]], Float[Array, "3 B K"]],
    labels: Int[Array, "B"],
) -> tuple[Float[Array, ""], Float[Array, "B K"]]:
    """(the mean cross-entropy of samples of 0 and 1, their logits), with an unbiased gradient with respect to mu.

    answers: the logits for three masks of each image: sampled, relaxed, and relaxed given what was sampled.
    Source: Tucker et al., "REBAR: Low-variance, unbiased gradient estimates for discrete latent variable models",
    NeurIPS 2017, equation 7 with a weight of 1, which REAL-X trains its selector by.
    """
    first, second = jax.random.split(key)
    z = mu + jax.random.logistic(first, mu.shape, mu.dtype)
    sample = jax.lax.stop_gradient(z > 0)
    noise = jax.random.logistic(second, mu.shape, mu.dtype)
    given = jnp.where(
        sample, jax.nn.softplus(noise + jax.nn.softplus(mu)), -jax.nn.softplus(noise + jax.nn.softplus(-mu))
    )
    soft = jax.nn.sigmoid(jnp.stack([z, given]) / temperature)
    logits = answers(jnp.concatenate([sample[None].astype(mu.dtype), soft]))
    hard, relaxed, again = optax.softmax_cross_entropy_with_integer_labels(
        logits, jnp.broadcast_to(labels, (3, len(mu)))
    )
    likelihood = jnp.sum(jax.nn.log_sigmoid(jnp.where(sample, mu, -mu)), -1)
    gradient = jax.lax.stop_gradient(hard - again) * likelihood + relaxed - again
    return jnp.mean(jax.lax.stop_gradient(hard - gradient) + gradient), logits[0]


def comet_terms(
    selector: Network,
    classifier: Network,
    frozen: Network,
    images: Float[Array, "B S S 3"],
    labels: Int[Array, "B"],
    config: Config,
    objective: Objective,
    *,
    weight: Float[Array, ""],
) -> Terms:
    """The loss of `comet`. frozen: a classifier of whole images."""
    mu = selector(images)[..., 0]
    mask = jax.nn.sigmoid(mu)
    logits = classifier(shown(images, mask, config))
    target, hidden = _cross_entropy(logits, labels), _cross_entropy(frozen(shown(images, 1 - mask, config)), labels)
    share = jnp.mean(mask, axis=(1, 2))
    sparsity = weight * sparsity_penalty(share, config.threshold, objective.regulariser)
    total = target + jnp.maximum(target - hidden + _GAP, 0) + sparsity + objective.logit_weight * jnp.mean(mu**2)
    return Terms(total, target, sparsity, logits, jnp.mean(share), jnp.mean(share))


def _cross_entropy(logits: Float[Array, "B K"], labels: Int[Array, "B"]) -> Float[Array, ""]:
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels))
