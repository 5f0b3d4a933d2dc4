"""A selector for small images, where the published one's map of an eighth of the side would be a few pixels; and the
wrapper through which a threshold can re-rank the groups."""

from __future__ import annotations

import itertools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jaxmoxi.models.lraspp import resize


class SmallSelector(nnx.Module):
    """A U-net of three scales, 16 to 64 channels wide, with group normalisation (no running statistics, any batch)."""

    def __init__(self, channels: int, *, rngs: nnx.Rngs):
        def conv(fan_in: int, fan_out: int, stride: int = 1) -> nnx.Conv:
            return nnx.Conv(fan_in, fan_out, (3, 3), strides=stride, padding="SAME", rngs=rngs)

        widths = (16, 32, 64)
        self.stem = conv(3, widths[0])
        self.down = nnx.List([conv(a, b, 2) for a, b in itertools.pairwise(widths)])
        self.middle = conv(widths[-1], widths[-1])
        self.up = nnx.List([conv(a + b, b) for a, b in zip(widths[:0:-1], widths[-2::-1], strict=True)])
        every = (*widths, widths[-1], *widths[-2::-1])
        self.norms = nnx.List([nnx.GroupNorm(width, num_groups=8, rngs=rngs) for width in every])
        self.context = nnx.Linear(widths[-1], widths[0], rngs=rngs)
        self.head = nnx.Linear(widths[0], channels, rngs=rngs)

    def __call__(self, images: Float[Array, "B H W 3"]) -> Float[Array, "B H W D"]:
        norms = iter(self.norms)

        def act(x: Array) -> Array:
            return jax.nn.relu(next(norms)(x))

        x = act(self.stem(images))
        maps = [x]
        for conv in self.down:
            x = act(conv(x))
            maps.append(x)
        x = act(self.middle(x))
        context = self.context(x.mean((1, 2)))  # what is in the image as a whole
        maps.pop()
        for conv in self.up:
            finer = maps.pop()
            x = act(conv(jnp.concatenate([resize(x, (finer.shape[1], finer.shape[2])), finer], axis=-1)))
        return self.head(x + context[:, None, None])

    def threshold_shift(self) -> Float[Array, "D"]:
        """What one unit of threshold, added to every input of the head, adds to each of the D outputs."""
        return self.head.kernel[...].sum(0)


class Reranking(nnx.Module):
    """A selector whose threshold can change the groups' order. Beyond the paper, where it only shifts every logit.

    The selector inside gives every pixel `NUM_FEATURES` numbers more. Their mean over a group is scaled and shifted by
    a small function of the threshold, and adds to the group's logit:

        mu(tau) = mu(0) + tau * shift + w . relu(features * (1 + a(tau)) + b(tau)),   w = 0 at the start

    A threshold then costs one small product per group; the network over the pixels still runs once for all of them.
    """

    NUM_FEATURES = 16
    _HIDDEN = 16

    def __init__(self, selector: Any, *, rngs: nnx.Rngs):
        self.selector = selector
        self.hidden = nnx.Linear(1, self._HIDDEN, rngs=rngs)
        self.modulation = nnx.Linear(self._HIDDEN, 2 * self.NUM_FEATURES, rngs=rngs)
        self.out = nnx.Linear(self.NUM_FEATURES, 1, kernel_init=nnx.initializers.zeros, rngs=rngs)

    def __call__(self, images: Float[Array, "B H W 3"]) -> Float[Array, "B H W D"]:
        return self.selector(images)

    def threshold_shift(self) -> Float[Array, "D"]:
        """As for the selector inside."""
        return self.selector.threshold_shift()

    def rerank(self, features: Float[Array, "*B G F"], tau: Float[Array, "*B"]) -> Float[Array, "*B G"]:
        """What a threshold adds to each group's logit besides the shift."""
        scale, offset = jnp.split(self.modulation(jax.nn.relu(self.hidden(tau[..., None, None]))), 2, axis=-1)
        return self.out(jax.nn.relu(features * (1 + scale) + offset))[..., 0]
