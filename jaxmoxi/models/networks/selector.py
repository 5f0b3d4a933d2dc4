"""P2P's selector for small images, and the wrapper through which a threshold can re-rank the groups.

The published selector (`lraspp`) maps an image at an eighth of its side, which would be a few pixels here. Both
networks are trainable and have no published weights, so no checkpoint folder is read for them.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jaxmoxi.models.networks.lraspp import LRASPP, resize


class SmallSelector(nnx.Module):
    """A U-net of three scales. Its finest map has a quarter of the image's side and is enlarged bilinearly, as the
    published selector's map is. Group normalisation keeps no running statistics and takes any batch."""

    _STEM, _WIDTHS = 16, (32, 64, 96)

    def __init__(self, channels: int, *, rngs: nnx.Rngs):
        def conv(fan_in: int, fan_out: int, size: int = 3, stride: int = 1) -> nnx.Conv:
            return nnx.Conv(fan_in, fan_out, (size, size), strides=stride, padding="SAME", use_bias=False, rngs=rngs)

        def norms(widths: Iterable[int]) -> nnx.List[nnx.GroupNorm]:
            return nnx.List([nnx.GroupNorm(width, num_groups=8, rngs=rngs) for width in widths])

        widths, finer = self._WIDTHS, self._WIDTHS[-2::-1]
        self.stem, self.stem_norm = conv(3, self._STEM, stride=2), norms([self._STEM])[0]
        self.down = nnx.List([conv(a, b, stride=2) for a, b in itertools.pairwise((self._STEM, *widths))])
        self.down_norms = norms(widths)
        self.same, self.same_norms = nnx.List([conv(width, width) for width in widths[1:]]), norms(widths[1:])
        self.narrow = nnx.List([conv(a, b, 1) for a, b in itertools.pairwise(widths[::-1])])
        self.up, self.up_norms = nnx.List([conv(2 * width, width) for width in finer]), norms(finer)
        self.head = nnx.Linear(widths[0], channels, rngs=rngs)

    def __call__(self, images: Float[Array, "B H W 3"]) -> Float[Array, "B H W D"]:
        relu = jax.nn.relu
        x = relu(self.stem_norm(self.stem(images)))
        maps = [x := relu(self.down_norms[0](self.down[0](x)))]
        for i, (conv, norm) in enumerate(zip(self.same, self.same_norms, strict=True), 1):
            x = relu(self.down_norms[i](self.down[i](x)))
            maps.append(x := x + relu(norm(conv(x))))
        for narrow, conv, norm, finer in zip(self.narrow, self.up, self.up_norms, maps[-2::-1], strict=True):
            coarse = resize(narrow(x), (finer.shape[1], finer.shape[2]))
            x = finer + relu(norm(conv(jnp.concatenate([coarse, finer], axis=-1))))
        return resize(self.head(x), (images.shape[1], images.shape[2]))

    def threshold_shift(self) -> Float[Array, "D"]:
        """What one unit of threshold, added to every input of the head, adds to each of the D outputs."""
        return self.head.kernel[...].sum(0)


class Reranking(nnx.Module):
    """A selector whose threshold can change the groups' order; the paper's threshold only shifts every logit.

    The selector inside gives every pixel `NUM_FEATURES` numbers more. A small function of the threshold scales and
    shifts their mean over a group, and the result adds to the group's logit:

        mu(tau) = mu(0) + tau * shift + w . relu(features * (1 + a(tau)) + b(tau)),   w = 0 at the start

    A threshold then costs one small product per group; the network over the pixels still runs once for all of them.
    """

    NUM_FEATURES = 16
    _HIDDEN = 16

    def __init__(self, selector: LRASPP | SmallSelector, *, rngs: nnx.Rngs):
        self.selector = selector
        self.hidden = nnx.Linear(1, self._HIDDEN, rngs=rngs)
        self.modulation = nnx.Linear(self._HIDDEN, 2 * self.NUM_FEATURES, rngs=rngs)
        self.out = nnx.Linear(self.NUM_FEATURES, 1, kernel_init=nnx.initializers.zeros, rngs=rngs)

    def __call__(self, images: Float[Array, "B H W 3"]) -> Float[Array, "B H W D"]:
        return self.selector(images)

    def threshold_shift(self) -> Float[Array, "D"]:
        """What one unit of threshold adds to each of the D outputs of the selector inside."""
        return self.selector.threshold_shift()

    def rerank(self, features: Float[Array, "*B G F"], tau: Float[Array, "*B"]) -> Float[Array, "*B G"]:
        """What a threshold adds to each group's logit besides the shift."""
        scale, offset = jnp.split(self.modulation(jax.nn.relu(self.hidden(tau[..., None, None]))), 2, axis=-1)
        return self.out(jax.nn.relu(features * (1 + scale) + offset))[..., 0]
