"""Which groups of pixels are kept: a distribution over subsets of an image's superpixels.

Source: Vandenhirtz, Vogt, "From Pixels to Perception", ICML 2025, section 3. The selector gives every pixel D numbers.
Their mean over a group (superpixel) is (mu, E): the group's logit, and an embedding of D - 1 dimensions. The groups'
logits are jointly normal, N(mu, E E^T), so groups of similar embedding are kept or dropped together. Given its logit, a
group is kept with the probability sigmoid(logit).

Deviation from the authors' code, which factorises E E^T + (jitter) I by Cholesky and adds jitter until that works: the
matrix has rank D - 1, so mu + E eps with eps ~ N(0, I) of D - 1 dimensions is an exact sample, without jitter or loop.

Shapes: B images, G groups (a static number; a group without pixels is inert), S samples, D channels.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from jaxmoxi.regions.label_maps import pool_regions, region_sizes


def group_means(
    importance: Float[Array, "B H W D"], regions: Int[Array, "B H W"], num_groups: int
) -> tuple[Float[Array, "B G D"], Float[Array, "B G"]]:
    """The mean over each group's pixels, and each group's share of the image's pixels (the shares sum to 1).

    A group without pixels has mean 0 and share 0. Labels of `num_groups` and above are dropped.
    """

    def one(x: Array, labels: Array) -> tuple[Array, Array]:
        return pool_regions(x, labels, num_groups), region_sizes(labels, num_groups) / labels.size

    return jax.vmap(one)(importance, regions)


def covariance(embeddings: Float[Array, "B G E"]) -> Float[Array, "B G G"]:
    """The covariance E E^T of the groups' logits."""
    return jnp.einsum("bge,bhe->bgh", embeddings, embeddings)


def sample_logits(
    key: Key[Array, ""], mu: Float[Array, "B G"], embeddings: Float[Array, "B G E"], num_samples: int
) -> Float[Array, "S B G"]:
    """Exact samples of N(mu, E E^T); differentiable in both."""
    batch, _, width = embeddings.shape
    noise = jax.random.normal(key, (num_samples, batch, width), mu.dtype)
    return mu + jnp.einsum("bge,sbe->sbg", embeddings, noise)


def sample_relaxed(
    key: Key[Array, ""], logits: Float[Array, "*S G"], temperature: Float[Array, ""] | float, *, hard: bool = False
) -> Float[Array, "*S G"]:
    """Relaxed Bernoulli (binary concrete) samples in (0, 1), differentiable in the logits.

    Source: Maddison et al., "The Concrete Distribution", ICLR 2017. As the temperature falls they approach 0 and 1;
    P(sample > 1/2) = sigmoid(logit) at every temperature. hard: 0 or 1 forward, the relaxed gradient backward.
    """
    noise = jax.random.logistic(key, logits.shape, logits.dtype)
    soft = jax.nn.sigmoid((logits + noise) / temperature)
    return soft + jax.lax.stop_gradient((soft > 0.5) - soft) if hard else soft


def most_likely(mu: Float[Array, "*B G"], shares: Float[Array, "*B G"]) -> Bool[Array, "*B G"]:
    """The groups kept at test time: those of probability above 1/2. A group without pixels is never kept."""
    return (mu > 0) & (shares > 0)


def within_budget(
    kept: Float[Array, "*S G"], logits: Float[Array, "*S G"], shares: Float[Array, "*S G"], budget: Float[Array, "*S"]
) -> Bool[Array, "*S G"]:
    """Which groups fit a budget of the image's area: the most probable ones, up to the first that does not fit.

    kept:   how much of each group is kept, in [0, 1]; only this much counts against the budget.
    shares: float32, each group's share of the image's pixels, in [0, 1].
    budget: the largest sum of `kept * shares`, in [0, 1].
    """
    order = jnp.argsort(-logits, axis=-1)
    spent = jnp.cumsum(jnp.take_along_axis(kept * shares, order, -1), axis=-1)
    # A sum equal to the budget may round past it. 5e-6 of an image of up to 400 pixels a side is less than a pixel.
    fits = spent <= budget[..., None] * (1 + 5e-6)
    return jnp.take_along_axis(fits, jnp.argsort(order, axis=-1), -1)


def over_pixels(groups: Array, regions: Int[Array, "B H W"]) -> Array:
    """Each pixel takes its group's value, [..., B, G] -> [..., B, H, W]; labels of G and above get 0 (False)."""
    batch = jnp.arange(regions.shape[0])[:, None, None]
    inside = regions < groups.shape[-1]
    values = groups[..., batch, jnp.where(inside, regions, 0)]
    return jnp.where(inside, values, jnp.zeros((), values.dtype))
