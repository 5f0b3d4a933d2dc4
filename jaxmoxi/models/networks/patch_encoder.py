"""Transformers of image patches whose head reads the class token, the mean of the patch tokens, or both.

This is what DINOv2 (`dinov2`) and BEiT (`beit`) have in common and a plain ViT (`vit`) lacks: registers, relative
position biases, gated perceptrons, and heads that read all patch tokens. Layer scale is multiplied into the weights of
the layer before it, where the checkpoint is read. Inference only: no dropout.

A removed token leaves no trace: no token reads it, the mean of the patch tokens is over those present, and the position
biases are those of the tokens that stay. The mean over no token is zeros, in its place before or after the final norm.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from jaxmoxi.errors import InputError
from jaxmoxi.kernels.attention import Form, check_form
from jaxmoxi.kernels.plain_attention import Bias
from jaxmoxi.models.networks.base import (
    Carry,
    ClassifierNetwork,
    Features,
    ImageSize,
    Out,
    Present,
    TokenLayout,
    check_images,
    checked_size,
    sides,
)
from jaxmoxi.models.networks.encoder import Block
from jaxmoxi.models.networks.relative import class_index, pair_index, table_length
from jaxmoxi.models.networks.vit_config import ACTIVATIONS

Reads = Literal["class", "mean", "class+mean"]


@dataclasses.dataclass(frozen=True)
class PatchEncoderConfig:
    """The shape of a transformer of patches. Sizes in pixels, positive.

    image_size:    a side, or (height, width); multiples of `patch_size`, the side of the square patches.
    gated:         the perceptrons multiply two projections, of which one went through SiLU (SwiGLU); `activation` is
                   not used then.
    num_registers: tokens behind the class token that belong to no patch and are always there.
    relative:      every layer adds relative position biases to its scores.
    reads:         what the head reads: the class token, the mean of the patch tokens, or one behind the other.
    norm_last:     the final norm is of what the head reads, not of each token before the mean.
    attention:     the form in which it is computed (`jaxmoxi.kernels.attention`); None: what suits the platform.
    """

    image_size: ImageSize = 224
    patch_size: int = 16
    hidden_size: int = 768
    num_layers: int = 12
    num_heads: int = 12
    mlp_dim: int = 3072
    num_classes: int = 1000
    num_channels: int = 3
    norm_eps: float = 1e-6
    qkv_bias: bool = True
    activation: str = "gelu"
    gated: bool = False
    num_registers: int = 0
    relative: bool = False
    reads: Reads = "class"
    norm_last: bool = False
    attention: Form | None = None

    def __post_init__(self):
        object.__setattr__(self, "image_size", checked_size(self.image_size))
        for name in ("patch_size", "hidden_size", "num_layers", "num_heads", "mlp_dim", "num_classes", "num_channels"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InputError(f"{name} must be a whole number of at least 1; got {value!r}")
        if not isinstance(self.num_registers, int) or self.num_registers < 0:
            raise InputError(f"num_registers must be a whole number of at least 0; got {self.num_registers!r}")
        if any(side % self.patch_size for side in sides(self.image_size)):
            raise InputError(f"image_size {self.image_size} is not a multiple of patch_size {self.patch_size}")
        if self.hidden_size % self.num_heads:
            raise InputError(f"hidden_size {self.hidden_size} is not a multiple of num_heads {self.num_heads}")
        if self.activation not in ACTIVATIONS:
            raise InputError(f"expected an activation of {', '.join(ACTIVATIONS)}; got {self.activation!r}")
        check_form(self.attention)
        if self.relative and self.num_registers:
            raise InputError("relative position biases are of the class token and the patches; got registers as well")

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        height, width = sides(self.image_size)
        return height // self.patch_size, width // self.patch_size

    @property
    def num_patches(self) -> int:
        """Patches of an image."""
        return math.prod(self.grid)

    @property
    def num_prefix(self) -> int:
        """Tokens that are always there: the class token and the registers."""
        return 1 + self.num_registers


class Tokens(NamedTuple):
    """Patch tokens as they enter the encoder. They depend on the image alone, so one image's coalitions share them.

    x:      [..., D], patch embedding + position embedding.
    qkv:    [..., 3D], the first layer's queries, keys and values.
    places: [...], the number of each patch on the grid, row by row; None for a network without relative positions.
    """

    x: Float[Array, "*B D"]
    qkv: Float[Array, "*B D3"]
    places: Int[Array, "*B"] | None


class PatchBlock(Block):
    """One pre-norm encoder layer, perhaps with a table of relative position biases or a gated perceptron."""

    def __init__(self, config: PatchEncoderConfig, *, rngs: nnx.Rngs):
        super().__init__(config, rngs=rngs)
        self.gated = config.gated
        if config.gated:
            self.fc1 = nnx.Linear(config.hidden_size, 2 * config.mlp_dim, rngs=rngs)
        self.table = nnx.Param(jnp.zeros((table_length(config.grid), config.num_heads))) if config.relative else None

    def __call__(
        self, x: Float[Array, "B N D"], present: Present, pairs: Int[Array, "#B N N"] | None = None
    ) -> Float[Array, "B N D"]:
        return self.finish(x, self.attend(self.project(x), present, self.bias(pairs)))

    def bias(self, pairs: Int[Array, "#B N N"] | None) -> Bias | None:
        """What each head adds to its scores.

        Head by head, as the scores are: XLA's CPU backend reads such a column three times faster than it reads rows of
        all heads (197 tokens, 12 heads: 13 ms against 49 ms for 16 rows).
        """
        if self.table is None or pairs is None:
            return None
        table = self.table[...]
        return lambda head: jnp.take(table[:, head], pairs, mode="clip")

    def finish(self, x: Float[Array, "B Q D"], attended: Float[Array, "B Q D"]) -> Float[Array, "B Q D"]:
        """The rest of the layer: both residual sums and the perceptron."""
        if not self.gated:
            return super().finish(x, attended)
        x = x + self.proj(attended)
        gate, value = jnp.split(self.fc1(self.norm2(x)), 2, axis=-1)
        return x + self.fc2(jax.nn.silu(gate) * value)


class PatchEncoder(ClassifierNetwork):
    """A transformer of patches with a linear head on its class token, its patch tokens' mean, or both."""

    float32_parameters = frozenset({"norm", "head"})

    def __init__(self, config: PatchEncoderConfig, *, rngs: nnx.Rngs):
        width, patch = config.hidden_size, config.patch_size
        self.config = config
        init = nnx.initializers.truncated_normal(0.02)
        self.patch = nnx.Linear(patch * patch * config.num_channels, width, rngs=rngs)
        # What is learnt of positions is in these two; zeros where nothing is.
        self.prefix = nnx.Param(init(rngs.params(), (config.num_prefix, width)))
        self.position = nnx.Param(init(rngs.params(), (config.num_patches, width)))

        @nnx.split_rngs(splits=config.num_layers)
        @nnx.vmap(in_axes=0, out_axes=0)
        def stack(rngs: nnx.Rngs) -> PatchBlock:
            return PatchBlock(config, rngs=rngs)

        self.blocks = stack(rngs)
        self.norm = nnx.LayerNorm(width, epsilon=config.norm_eps, rngs=rngs)
        self.head = nnx.Linear(2 * width if config.reads == "class+mean" else width, config.num_classes, rngs=rngs)

    @classmethod
    def token_layout(cls, config: PatchEncoderConfig) -> TokenLayout:
        """Patches on a grid behind the class token and the registers."""
        return TokenLayout(config.grid, config.num_prefix, int("class" in config.reads), "mean" in config.reads)

    def embed(self, images: Float[Array, "B H W channels"]) -> Tokens:
        """The patch tokens of each image, row by row, position embedding added; see `Tokens`."""
        batch, (rows, cols), patch = images.shape[0], self.config.grid, self.config.patch_size
        images = images.astype(self.patch.kernel.dtype)
        patches = images.reshape(batch, rows, patch, cols, patch, -1).swapaxes(2, 3)
        x = self.patch(patches.reshape(batch, rows * cols, -1)) + self.position[...]
        places = jnp.broadcast_to(jnp.arange(rows * cols), x.shape[:2]) if self.config.relative else None
        return Tokens(x, self.layer(0).project(x), places)

    def encode(self, tokens: Tokens, present: Present) -> Float[Array, "B K"]:
        """Logits from any subset of an image's tokens; see `ClassifierNetwork.encode`."""
        if "mean" in self.config.reads:
            x, present, _ = self.run(tokens, present, self.config.num_layers)
            return self.decide(x, present)
        x, present, _ = self.run(tokens, present, self.config.num_layers - 1)
        bias = self.class_bias(x.shape[1] - 1)
        return self.decide(self.layer(self.config.num_layers - 1).read(x, present, 1, bias), present)

    def run(
        self, tokens: Tokens, present: Present, depth: int
    ) -> tuple[Float[Array, "B M D"], Bool[Array, "B M"] | Float[Array, "B M"], Int[Array, "B M M"] | None]:
        """All tokens behind the first `depth` layers, the prefix in front, which are there, and their `pair_index`."""
        batch, count = len(present), self.config.num_prefix
        first, prefix = self.layer(0), self.prefix[...]
        x, qkv = (
            jnp.concatenate([jnp.broadcast_to(p, (batch, *p.shape)), t], axis=1)
            for p, t in ((prefix, tokens.x), (first.project(prefix), tokens.qkv))
        )
        present = jnp.concatenate([jnp.ones((batch, count), present.dtype), present], axis=1)
        pairs = None if tokens.places is None else pair_index(tokens.places, self.config.grid)
        if depth:  # the first layer's projections came with the tokens
            x = first.finish(x, first.attend(qkv, present, first.bias(pairs)))
            # What a gradient keeps and what it computes again is as in `vit`.
            keep = jax.checkpoint_policies.dots_with_no_batch_dims_saveable
            layer = jax.checkpoint(lambda i, x: self.layer(i)(x, present, pairs), prevent_cse=False, policy=keep)
            x = jax.lax.fori_loop(1, depth, layer, x)
        return x, present, pairs

    def class_bias(self, count: int) -> Float[Array, "H M"] | None:
        """What the last layer's heads add to the class token's scores, where `count` patches are."""
        table = self.layer(self.config.num_layers - 1).table
        return None if table is None else table[...][class_index(count, self.config.grid)].T

    def decide(self, x: Float[Array, "B Q D"], present: Present) -> Float[Array, "B K"]:
        """Logits from the tokens as they leave the last layer; of a head on the class token from that one alone."""
        config = self.config
        norm = (lambda x: x) if config.norm_last else self.norm
        x = x.astype(self.head.kernel.dtype)
        read = [norm(x[:, 0])] if "class" in config.reads else []
        if "mean" in config.reads:
            weights = present[:, config.num_prefix :].astype(x.dtype)
            total = weights.sum(axis=1, keepdims=True)
            sums = jnp.einsum("bn,bnd->bd", weights, norm(x[:, config.num_prefix :]))
            read.append(sums / jnp.where(total > 0, total, 1))
        if config.norm_last:
            read = [self.norm(part) for part in read]
        return self.head(jnp.concatenate(read, axis=-1))

    def __call__(self, images: Float[Array, "B H W channels"]) -> Float[Array, "B K"]:
        """Logits of whole images."""
        tokens = self.embed(images)
        return self.encode(tokens, jnp.ones(tokens.x.shape[:2], bool))

    def features(self, images: Float[Array, "B H W channels"]) -> Features:
        """The patch tokens before the last layer, or as the class token reads them there; see `Features`.

        Raises ValueError for images of another size than the config's.
        """
        check_images(images, self.config)
        config, count = self.config, self.config.num_prefix
        tokens = self.embed(images)
        x, _, _ = self.run(tokens, jnp.ones(tokens.x.shape[:2], bool), config.num_layers - 1)
        maps, rest = x, x[:, :count]
        if "mean" not in config.reads:
            maps = self.layer(config.num_layers - 1).norm1(x)
            rest = (x[:, :1], maps[:, :count])
        return Features(maps[:, count:].reshape(len(images), *config.grid, config.hidden_size), rest)

    def classify(self, features: Features) -> Float[Array, "B K"]:
        """Logits from `features`."""
        config, last = self.config, self.layer(self.config.num_layers - 1)
        prefix = features.rest if "mean" in config.reads else features.rest[1]
        patches = features.maps.astype(prefix.dtype).reshape(len(prefix), -1, prefix.shape[-1])
        x = jnp.concatenate([prefix, patches], axis=1)
        present = jnp.ones(x.shape[:2], bool)
        if "mean" in config.reads:
            return self.decide(last(x, present, self.all_pairs()), present)
        bias = self.class_bias(patches.shape[1])
        return self.decide(last.read_normed(features.rest[0], x, present, bias), present)

    def all_pairs(self) -> Int[Array, "1 M M"] | None:
        """`pair_index` of a whole image; None for a network without relative positions."""
        return pair_index(jnp.arange(self.config.num_patches)[None], self.config.grid) if self.config.relative else None

    def scan_attention(
        self,
        image: Float[Array, "H W channels"],
        step: Callable[[Carry, Float[Array, "heads N N"]], tuple[Carry, Out]],
        start: Carry,
    ) -> tuple[Carry, Out]:
        """`jax.lax.scan` over the layers' attention; see `Classifier.scan_attention`."""
        config, pairs = self.config, self.all_pairs()
        x = jnp.concatenate([self.prefix[...], self.embed(image[None]).x[0]])
        head = config.hidden_size // config.num_heads

        def layer(carry: tuple[Array, Carry], index: Array) -> tuple[tuple[Array, Carry], Out]:
            x, kept = carry
            block = self.layer(index)
            qkv = block.project(x).reshape(len(x), 3, config.num_heads, head)
            scores = jnp.einsum("qhd,khd->hqk", qkv[:, 0] * jnp.asarray(head**-0.5, x.dtype), qkv[:, 1])
            scores = scores.astype(jnp.float32)
            bias = block.bias(pairs)
            if bias is not None:
                scores = scores + jnp.concatenate([bias(h) for h in range(config.num_heads)])
            weights = jax.nn.softmax(scores, axis=-1)
            attended = jnp.einsum("hqk,khd->qhd", weights.astype(x.dtype), qkv[:, 2]).reshape(x.shape)
            kept, out = step(kept, weights)
            return (block.finish(x[None], attended[None])[0], kept), out

        (_, kept), outs = jax.lax.scan(layer, (x, start), jnp.arange(config.num_layers))
        return kept, outs

    def layer(self, index: int | Array) -> PatchBlock:
        """One of the stacked layers; the index may be traced."""
        block, layers = nnx.split(self.blocks)
        return nnx.merge(block, jax.tree.map(lambda a: jax.lax.dynamic_index_in_dim(a, index, keepdims=False), layers))
