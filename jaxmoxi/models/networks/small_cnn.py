"""P2P's classifier for small images, which learns from thousands of them where a vision transformer needs far more.

It is trainable and has no published weights, so no checkpoint folder is read for it.
"""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float


class SmallCNN(nnx.Module):
    """Logits of images [B, H, W, 3].

    Every stage halves the side by a strided 3 x 3 convolution; from the second on, a residual 3 x 3 convolution
    follows. Group normalisation keeps no running statistics and takes any batch. The logits read each channel's mean
    and largest value.
    """

    def __init__(self, widths: tuple[int, ...], num_classes: int, *, rngs: nnx.Rngs):
        def conv(fan_in: int, fan_out: int, stride: int) -> nnx.Conv:
            return nnx.Conv(fan_in, fan_out, (3, 3), strides=stride, padding="SAME", use_bias=False, rngs=rngs)

        def norm(width: int) -> nnx.GroupNorm:
            return nnx.GroupNorm(width, num_groups=8, rngs=rngs)

        self.down = nnx.List([conv(a, b, 2) for a, b in itertools.pairwise((3, *widths))])
        self.down_norms = nnx.List([norm(width) for width in widths])
        self.convs = nnx.List([conv(width, width, 1) for width in widths[1:]])
        self.norms = nnx.List([norm(width) for width in widths[1:]])
        self.head = nnx.Linear(2 * widths[-1], num_classes, rngs=rngs)

    def __call__(self, images: Float[Array, "B H W 3"]) -> Float[Array, "B K"]:
        x = jax.nn.relu(self.down_norms[0](self.down[0](images)))
        for down, down_norm, conv, norm in zip(
            list(self.down)[1:], list(self.down_norms)[1:], self.convs, self.norms, strict=True
        ):
            x = jax.nn.relu(down_norm(down(x)))
            x = x + jax.nn.relu(norm(conv(x)))
        return self.head(jnp.concatenate([x.mean((1, 2)), x.max((1, 2))], axis=-1))
