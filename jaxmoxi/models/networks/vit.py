"""Vision transformers (ViT, DeiT) that can be run on some of their tokens.

Source: Dosovitskiy et al., "An Image is Worth 16x16 Words", ICLR 2021; Touvron et al., "Training data-efficient image
transformers", ICML 2021. Inference only: no dropout.

The forward pass is cut where token removal needs it: `embed` makes the patch tokens of an image, position embedding
added; `encode` runs the encoder on any subset of them. The encoder's layers are stacked and looped over, so that XLA
compiles three of them (the first, the last, and one in between), whatever their number.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float

from jaxmoxi.models.checkpoints.tensors import Place, State, check_tensors, fill_state
from jaxmoxi.models.networks.base import (
    Carry,
    ClassifierNetwork,
    Features,
    Out,
    Present,
    TokenLayout,
    check_images,
    checked_size,
)
from jaxmoxi.models.networks.encoder import Block
from jaxmoxi.models.networks.positions import resize_grid
from jaxmoxi.models.networks.registry import Family, register
from jaxmoxi.models.networks.vit_config import (
    Naming,
    VisionTransformerConfig,
    canonical_names,
    detect_naming,
    expected_tensors,
    tensor_table,
)
from jaxmoxi.models.networks.vit_settings import config_from_settings, published_preprocessing

__all__ = [
    "Naming",
    "Tokens",
    "ViT",
    "VisionTransformerConfig",
    "config_from_settings",
    "detect_naming",
    "expected_tensors",
    "from_tensors",
]


class Tokens(NamedTuple):
    """Patch tokens as they enter the encoder. They depend on the image alone, so one image's coalitions share them.

    x:   [..., D], patch embedding + position embedding.
    qkv: [..., 3D], the first layer's queries, keys and values.
    """

    x: Float[Array, "*B D"]
    qkv: Float[Array, "*B D3"]


class ViT(ClassifierNetwork):
    """A vision transformer with a linear head on its class token."""

    float32_parameters = frozenset({"norm", "head", "teacher_head"})

    def __init__(self, config: VisionTransformerConfig, *, rngs: nnx.Rngs):
        width, patch = config.hidden_size, config.patch_size
        self.config = config
        init = nnx.initializers.truncated_normal(0.02)
        self.patch = nnx.Linear(patch * patch * config.num_channels, width, rngs=rngs)
        self.prefix = nnx.Param(init(rngs.params(), (config.num_prefix, width)))
        self.position = nnx.Param(init(rngs.params(), (config.num_prefix + config.num_patches, width)))

        @nnx.split_rngs(splits=config.num_layers)
        @nnx.vmap(in_axes=0, out_axes=0)
        def stack(rngs: nnx.Rngs) -> Block:
            return Block(config, rngs=rngs)

        self.blocks = stack(rngs)
        self.norm = nnx.LayerNorm(width, epsilon=config.norm_eps, rngs=rngs)
        self.head = nnx.Linear(width, config.num_classes, rngs=rngs)
        self.teacher_head = nnx.Linear(width, config.num_classes, rngs=rngs) if config.teacher else None

    @classmethod
    def token_layout(cls, config: VisionTransformerConfig) -> TokenLayout:
        """Patches on a grid. The logits read a DeiT's second class token where it has the teacher's head."""
        return TokenLayout(config.grid, config.num_prefix, 2 if config.teacher else 1)

    def embed(self, images: Float[Array, "B H W channels"]) -> Tokens:
        """The patch tokens of each image, row by row, position embedding added; see `Tokens`."""
        batch, (rows, cols), patch = images.shape[0], self.config.grid, self.config.patch_size
        images = images.astype(self.patch.kernel.dtype)
        patches = images.reshape(batch, rows, patch, cols, patch, -1).swapaxes(2, 3)
        x = self.patch(patches.reshape(batch, rows * cols, -1))
        x = x + self.position[...][self.config.num_prefix :]
        return Tokens(x, self.layer(0).project(x))

    def encode(self, tokens: Tokens, present: Present) -> Float[Array, "B K"]:
        """Logits from any subset of an image's tokens; see `ClassifierNetwork.encode`."""
        x, present = self.before_last(tokens, present)
        return self.decide(self.layer(self.config.num_layers - 1).read(x, present, self.config.num_prefix))

    def before_last(
        self, tokens: Tokens, present: Present
    ) -> tuple[Float[Array, "B M D"], Bool[Array, "B M"] | Float[Array, "B M"]]:
        """All tokens as they enter the last layer, the class tokens in front, and which of them are there."""
        batch, count, depth = len(present), self.config.num_prefix, self.config.num_layers
        first = self.layer(0)
        prefix = self.prefix[...] + self.position[...][:count]
        prefix = Tokens(prefix, first.project(prefix))
        x, qkv = jax.tree.map(
            lambda p, t: jnp.concatenate([jnp.broadcast_to(p, (batch, *p.shape)), t], axis=1), prefix, tokens
        )
        present = jnp.concatenate([jnp.ones((batch, count), present.dtype), present], axis=1)
        # The first layer's projections came with the tokens; of the last layer only the class tokens' rows are read.
        if depth > 1:
            x = first.finish(x, first.attend(qkv, present))
            # A gradient keeps the products with weights and computes the rest of a layer again: to compute attention
            # and activations costs less than to write and read them (ViT-Tiny on two cores: a fifth of the time).
            keep = jax.checkpoint_policies.dots_with_no_batch_dims_saveable
            layer = jax.checkpoint(lambda i, x: self.layer(i)(x, present), prevent_cse=False, policy=keep)
            x = jax.lax.fori_loop(1, depth - 1, layer, x)
        return x, present

    def decide(self, x: Float[Array, "B Q D"]) -> Float[Array, "B K"]:
        """Logits from the class tokens as they leave the last layer."""
        x = self.norm(x.astype(self.head.kernel.dtype))
        logits = self.head(x[:, 0])
        return logits if self.teacher_head is None else (logits + self.teacher_head(x[:, 1])) / 2

    def __call__(self, images: Float[Array, "B H W channels"]) -> Float[Array, "B K"]:
        """Logits of whole images."""
        tokens = self.embed(images)
        return self.encode(tokens, jnp.ones(tokens.x.shape[:2], bool))

    def features(self, images: Float[Array, "B H W channels"]) -> Features:
        """The patch tokens as the last layer's attention reads them; see `Features`.

        Raises ValueError for images of another size than the config's.
        """
        check_images(images, self.config)
        count = self.config.num_prefix
        tokens = self.embed(images)
        x, _ = self.before_last(tokens, jnp.ones(tokens.x.shape[:2], bool))
        normed = self.layer(self.config.num_layers - 1).norm1(x)
        maps = normed[:, count:].reshape(len(images), *self.config.grid, self.config.hidden_size)
        return Features(maps, (x[:, :count], normed[:, :count]))

    def classify(self, features: Features) -> Float[Array, "B K"]:
        """Logits from `features`."""
        x, prefix = features.rest
        patches = features.maps.astype(prefix.dtype).reshape(len(prefix), -1, prefix.shape[-1])
        normed = jnp.concatenate([prefix, patches], axis=1)
        last = self.layer(self.config.num_layers - 1)
        return self.decide(last.read_normed(x, normed, jnp.ones(normed.shape[:2], bool)))

    def scan_attention(
        self,
        image: Float[Array, "H W channels"],
        step: Callable[[Carry, Float[Array, "heads N N"]], tuple[Carry, Out]],
        start: Carry,
    ) -> tuple[Carry, Out]:
        """`jax.lax.scan` over the layers' attention; see `Classifier.scan_attention`."""
        config = self.config
        prefix = self.prefix[...] + self.position[...][: config.num_prefix]
        x = jnp.concatenate([prefix, self.embed(image[None]).x[0]])
        head = config.hidden_size // config.num_heads

        def layer(carry: tuple[Array, Carry], index: Array) -> tuple[tuple[Array, Carry], Out]:
            x, kept = carry
            block = self.layer(index)
            qkv = block.project(x).reshape(len(x), 3, config.num_heads, head)
            scores = jnp.einsum("qhd,khd->hqk", qkv[:, 0] * jnp.asarray(head**-0.5, x.dtype), qkv[:, 1])
            weights = jax.nn.softmax(scores.astype(jnp.float32), axis=-1)
            attended = jnp.einsum("hqk,khd->qhd", weights.astype(x.dtype), qkv[:, 2]).reshape(x.shape)
            kept, out = step(kept, weights)
            return (block.finish(x[None], attended[None])[0], kept), out

        (_, kept), outs = jax.lax.scan(layer, (x, start), jnp.arange(config.num_layers))
        return kept, outs

    def layer(self, index: int | Array) -> Block:
        """One of the stacked layers; the index may be traced."""
        block, layers = nnx.split(self.blocks)
        return nnx.merge(block, jax.tree.map(lambda a: jax.lax.dynamic_index_in_dim(a, index, keepdims=False), layers))


def from_tensors(config: VisionTransformerConfig, tensors: Mapping[str, np.ndarray], *, source: str) -> State:
    """The parameters of a `ViT`, as an NNX state, from a checkpoint's tensors.

    tensors: in the names of Hugging Face or timm, PyTorch's layouts.
    source:  what to call the checkpoint in an error.

    Raises ValueError that lists every missing, extra and misshapen tensor.
    """
    tensors = canonical_names(tensors)
    naming = detect_naming(tensors)
    check_tensors(expected_tensors(config, naming), tensors, source)
    slots = {slot: np.asarray(tensors[name], np.float32) for name, _, slot in tensor_table(config, naming)}

    def layer(i: int, module: str, leaf: str) -> np.ndarray:
        if module == "qkv" and naming != "timm":
            return np.concatenate([slots[str(i), part, leaf] for part in ("query", "key", "value")])
        return slots[str(i), module, leaf]

    def convert(path: Place, shape: tuple[int, ...]) -> np.ndarray:
        if path[0] == "blocks":
            array = np.stack([layer(i, str(path[1]), str(path[2])) for i in range(config.num_layers)])
            return array.swapaxes(1, 2) if path[-1] == "kernel" else array
        if path == ("prefix",):
            return np.concatenate([slots[k][0] for k in (("cls",), ("dist",)) if k in slots])
        if path == ("patch", "kernel"):  # [D, C, p, p] -> [p * p * C, D], the order in which `embed` flattens
            return slots[path].transpose(2, 3, 1, 0).reshape(shape)
        array = slots[path]
        return array[0] if path == ("position",) else array.T if path[-1] == "kernel" else array

    return fill_state(functools.partial(ViT, config), convert)


def at_size(
    config: VisionTransformerConfig, tensors: Mapping[str, np.ndarray], size: tuple[int, int]
) -> tuple[VisionTransformerConfig, dict[str, np.ndarray]]:
    """The same network for images of another size, (height, width): its position embeddings are interpolated.

    As `interpolate_pos_encoding` of Hugging Face's networks does for tensors in their names, and as timm's
    `resample_abs_pos_embed`, with its antialiasing, for tensors in timm's.

    Raises ValueError for sides that are not multiples of the patches' side.
    """
    resized = dataclasses.replace(config, image_size=checked_size(size))
    tensors = canonical_names(tensors)
    naming = detect_naming(tensors)
    name = "pos_embed" if naming == "timm" else f"{naming}.embeddings.position_embeddings"
    found, expected = tensors.get(name), expected_tensors(config, naming)[name]
    if found is None or tuple(found.shape) != expected:
        return resized, tensors  # reading them tells of it, with all that is missing or misshapen
    position = np.asarray(found, np.float32)[0]
    patches = position[config.num_prefix :].reshape(*config.grid, -1)
    patches = resize_grid(patches, resized.grid, antialias=naming == "timm").reshape(resized.num_patches, -1)
    return resized, tensors | {name: np.concatenate([position[: config.num_prefix], patches])[None]}


register(
    Family(
        network=ViT,
        config=VisionTransformerConfig,
        model_types=("vit", "deit", "vit_msn"),
        architectures=("vit_*", "deit_*", "deit3_*"),
        config_from_settings=config_from_settings,
        from_tensors=from_tensors,
        published=published_preprocessing,
        resize=at_size,
    )
)
