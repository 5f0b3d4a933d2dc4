"""Swin transformers (v1): attention within windows that shift from block to block, on maps that shrink stage by stage.

Source: Liu et al., "Swin Transformer: Hierarchical Vision Transformer using Shifted Windows", ICCV 2021. Checkpoints:
Hugging Face's `SwinForImageClassification`, timm's `swin_*` (in both of its layouts), torchvision's `swin_t`, `swin_s`,
`swin_b`. Inference only: no dropout. Images of any size that the framework of the weights takes; where windows and map
do not fit, each framework has a rule of its own (`SwinConfig.rule`).

The blocks of a stage are stacked and looped over in pairs (windows that stand still, windows that are shifted), so that
XLA compiles one pair of each stage. Relative position biases are gathered from their tables when weights are read.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from jaxmoxi.errors import InputError
from jaxmoxi.models.checkpoints.tensors import Place, State, check_tensors, fill_state
from jaxmoxi.models.networks.base import ClassifierNetwork, Features, check_images, checked_size
from jaxmoxi.models.networks.hidden_act import ACTIVATIONS
from jaxmoxi.models.networks.positions import resize_grid
from jaxmoxi.models.networks.registry import Family, network_kind, register
from jaxmoxi.models.networks.swin_config import (
    ABSOLUTE,
    Stage,
    SwinConfig,
    detect_naming,
    table_name,
    tensor_table,
)  # fmt: skip
from jaxmoxi.models.networks.swin_settings import config_from_settings
from jaxmoxi.models.networks.swin_windows import (
    attend,
    gather_bias,
    join_windows,
    resize_table,
    shift_mask,
    split_windows,
)  # fmt: skip
from jaxmoxi.models.networks.timm_names import published_cfg
from jaxmoxi.models.preprocess import Preprocessing
from jaxmoxi.models.processors import IMAGENET_MEAN, IMAGENET_STD

__all__ = ["Block", "Merge", "Swin", "SwinConfig", "config_from_settings", "from_tensors"]


class Block(nnx.Module):
    """Attention within windows, then a perceptron, each behind a norm and beside a shortcut."""

    def __init__(self, config: SwinConfig, stage: int, *, rngs: nnx.Rngs):
        width, heads, window = config.widths[stage], config.num_heads[stage], config.stages()[stage].window
        inner, size = heads * config.head_dims[stage], window[0] * window[1]
        self.activation = config.activation
        self.pad_first = config.rule != "timm"
        self.norm1 = nnx.LayerNorm(width, epsilon=config.norm_eps, rngs=rngs)
        self.qkv = nnx.Linear(width, 3 * inner, use_bias=config.qkv_bias, rngs=rngs)
        self.bias = nnx.Param(nnx.initializers.truncated_normal(0.02)(rngs.params(), (heads, size, size)))
        self.proj = nnx.Linear(inner, width, rngs=rngs)
        self.norm2 = nnx.LayerNorm(width, epsilon=config.norm_eps, rngs=rngs)
        self.fc1 = nnx.Linear(width, config.mlp_dims[stage], rngs=rngs)
        self.fc2 = nnx.Linear(config.mlp_dims[stage], width, rngs=rngs)

    def __call__(self, x: Float[Array, "B H W D"], stage: Stage, shifted: bool) -> Float[Array, "B H W D"]:
        shifted = shifted and any(stage.shift)
        qkv = self.qkv(split_windows(self.norm1(x), stage, shifted, pad_first=self.pad_first))
        attended = self.proj(attend(qkv, self.bias[...], shift_mask(stage) if shifted else None))
        x = x + join_windows(attended, stage, shifted, pad_first=self.pad_first)
        return x + self.fc2(ACTIVATIONS[self.activation](self.fc1(self.norm2(x))))


class Merge(nnx.Module):
    """Each 2 x 2 positions of a map as one of the next, twice as wide; an odd map is padded."""

    def __init__(self, width: int, eps: float, *, rngs: nnx.Rngs):
        self.norm = nnx.LayerNorm(4 * width, epsilon=eps, rngs=rngs)
        self.reduction = nnx.Linear(4 * width, 2 * width, use_bias=False, rngs=rngs)

    def __call__(self, x: Float[Array, "B H W D"]) -> Float[Array, "B h w D2"]:
        x = jnp.pad(x, [(0, 0), (0, x.shape[1] % 2), (0, x.shape[2] % 2), (0, 0)])
        batch, height, width, depth = x.shape
        x = x.reshape(batch, height // 2, 2, width // 2, 2, depth).transpose(0, 1, 3, 4, 2, 5)  # columns before rows
        return self.reduction(self.norm(x.reshape(batch, height // 2, width // 2, 4 * depth)))


class Swin(ClassifierNetwork):
    """Patches, stages of blocks with merges between them, a norm, the mean over positions, a linear classifier."""

    float32_parameters = frozenset({"norm", "head"})

    def __init__(self, config: SwinConfig, *, rngs: nnx.Rngs):
        self.config = config
        widths = config.widths
        self.patch = nnx.Linear(config.patch_size**2 * config.num_channels, widths[0], rngs=rngs)
        self.patch_norm = nnx.LayerNorm(widths[0], epsilon=config.merge_eps, rngs=rngs)
        grid = config.grid()
        self.position = nnx.Param(jnp.zeros((*grid, widths[0]))) if config.absolute else None

        def stack(stage: int) -> Block:
            @nnx.split_rngs(splits=config.depths[stage])
            @nnx.vmap(in_axes=0, out_axes=0)
            def make(rngs: nnx.Rngs) -> Block:
                return Block(config, stage, rngs=rngs)

            return make(rngs)

        self.stages = nnx.List([stack(i) for i in range(len(widths))])
        self.merges = nnx.List([Merge(width, config.merge_eps, rngs=rngs) for width in widths[:-1]])
        self.norm = nnx.LayerNorm(widths[-1], epsilon=config.norm_eps, rngs=rngs)
        self.head = nnx.Linear(widths[-1], config.num_classes, rngs=rngs)

    def features(self, images: Float[Array, "B H W channels"]) -> Features:
        """The last stage's maps after the final norm: h and w are H and W divided by 32, rounded up.

        Raises ValueError for images of another size than the config's.
        """
        check_images(images, self.config)
        # Not chosen by jax.default_backend(): the program may be lowered for another platform than it is traced on.
        return Features(jax.lax.platform_dependent(images, cpu=self._maps_cpu, default=self._maps))

    def _maps(self, images: Float[Array, "B H W channels"]) -> Float[Array, "B h w D"]:
        x = self.embed_patches(images)
        for i, stage in enumerate(self.config.stages()):
            x = self.merges[i - 1](x) if i else x
            x = self.run_stage(i, stage, x)
        return self.norm(x.astype(self.head.kernel.dtype))

    def _maps_cpu(self, images: Float[Array, "B H W channels"]) -> Float[Array, "B h w D"]:
        """`_maps` of a few images at a time, so that the first stage's maps stay in the cache: of 16 images of 224
        pixels four at a time are a third faster than all at once, on two cores."""
        group = math.gcd(len(images), 4)
        maps = jax.lax.map(self._maps, images.reshape(-1, group, *images.shape[1:]))
        return maps.reshape(len(images), *maps.shape[2:])

    def classify(self, features: Features) -> Float[Array, "B K"]:
        """Logits from `features`."""
        return self.head(features.maps.astype(self.head.kernel.dtype).mean((1, 2)))

    def embed_patches(self, images: Float[Array, "B H W channels"]) -> Float[Array, "B rows columns D"]:
        """The map of patches."""
        (rows, columns), side = self.config.grid(), self.config.patch_size
        height, width = rows * side, columns * side
        more = [(0, max(0, size - have)) for size, have in zip((height, width), images.shape[1:3], strict=True)]
        images = jnp.pad(images.astype(self.patch.kernel.dtype), [(0, 0), *more, (0, 0)])[:, :height, :width]
        patches = images.reshape(len(images), rows, side, columns, side, -1).swapaxes(2, 3)
        x = self.patch_norm(self.patch(patches.reshape(len(images), rows, columns, -1)))
        return x if self.position is None else x + self.position[...]

    def run_stage(self, index: int, stage: Stage, x: Float[Array, "B H W D"]) -> Float[Array, "B H W D"]:
        """All blocks of a stage."""
        depth = self.config.depths[index]
        # A gradient keeps the products with weights and computes the rest of a block again, as in `vit`.
        keep = jax.checkpoint_policies.dots_with_no_batch_dims_saveable

        def pair(i: int | Array, x: Array) -> Array:
            return self.block(index, 2 * i + 1)(self.block(index, 2 * i)(x, stage, False), stage, True)

        pair = jax.checkpoint(pair, prevent_cse=False, policy=keep)
        x = jax.lax.fori_loop(0, depth // 2, pair, x)
        return self.block(index, depth - 1)(x, stage, False) if depth % 2 else x

    def block(self, stage: int, index: int | Array) -> Block:
        """One of a stage's stacked blocks; the index may be traced."""
        block, blocks = nnx.split(self.stages[stage])
        return nnx.merge(block, jax.tree.map(lambda a: jax.lax.dynamic_index_in_dim(a, index, keepdims=False), blocks))


def from_tensors(config: SwinConfig, tensors: Mapping[str, np.ndarray], *, source: str) -> State:
    """The parameters of a `Swin`, as an NNX state, from a checkpoint's tensors.

    tensors: in the names of Hugging Face, timm or torchvision, PyTorch's layouts.
    source:  what to call the checkpoint in an error.

    Raises ValueError that lists every missing, extra and misshapen tensor.
    """
    table = list(tensor_table(config, tensors))
    check_tensors({name: shape for name, shape, _ in table}, tensors, source)
    slots = {slot: np.asarray(tensors[name], np.float32) for name, _, slot in table}
    stages = config.stages()

    def of_block(stage: int, block: int, leaf: Place) -> np.ndarray:
        if leaf == ("bias",):
            return gather_bias(slots[stage, block, "table"], stages[stage].window)
        if leaf[0] == "qkv" and (stage, block, "query", leaf[1]) in slots:
            return np.concatenate([slots[stage, block, part, leaf[1]] for part in ("query", "key", "value")])
        return slots[(stage, block, *leaf)]

    def convert(path: Place, shape: tuple[int, ...]) -> np.ndarray:
        if path[0] == "stages":
            stage = int(path[1])
            array = np.stack([of_block(stage, i, path[2:]) for i in range(config.depths[stage])])
            return array.swapaxes(1, 2) if path[-1] == "kernel" else array
        if path == ("patch", "kernel"):  # [D, C, p, p] -> [p * p * C, D], the order in which patches are flattened
            return slots[path].transpose(2, 3, 1, 0).reshape(shape)
        array = slots[path]
        return array.reshape(shape) if path == ("position",) else array.T if path[-1] == "kernel" else array

    return fill_state(functools.partial(Swin, config), convert)


def at_size(
    config: SwinConfig, tensors: Mapping[str, np.ndarray], size: tuple[int, int]
) -> tuple[SwinConfig, Mapping[str, np.ndarray]]:
    """The same network for images of another size, (height, width).

    Of weights in Hugging Face's names position embeddings, where there are any, are interpolated as by
    `interpolate_pos_encoding`. Of weights in timm's the network is the one that `timm.create_model(name, img_size=size,
    pretrained=True)` builds: windows are cut to smaller maps, and their tables of biases interpolated.

    Raises ValueError for a size that the network cannot take.
    """
    resized = dataclasses.replace(config, image_size=checked_size(size))
    found = {name: shape for name, shape, _ in tensor_table(config, tensors)}
    tables: dict[str, np.ndarray] = {}
    if config.absolute:
        if any(s % config.patch_size for s in size) or len({*config.grid()}) > 1:
            raise InputError(
                "expected position embeddings of a square, and images whose sides are multiples of "
                f"{config.patch_size} pixels; got embeddings of {config.grid()} patches and images of {size}"
            )
        position = tensors.get(ABSOLUTE)
        if position is not None and tuple(position.shape) == found[ABSOLUTE]:  # else reading them tells of it
            grid = np.asarray(position, np.float32).reshape(*config.grid(), -1)
            tables[ABSOLUTE] = resize_grid(grid, resized.grid()).reshape(1, -1, config.embed_dim)
    naming = detect_naming(tensors)
    for i, (old, new) in enumerate(zip(config.stages(), resized.stages(), strict=True)):
        for j in range(config.depths[i]):
            name = table_name(naming, i, j)
            if old.window != new.window and name in tensors and tuple(tensors[name].shape) == found[name]:
                tables[name] = resize_table(tensors[name], old.window, new.window)
    return resized, {**tensors, **tables}


# The short side of a photo before torchvision's crop of 224 pixels.
_TORCHVISION_RESIZE = {"swin_t": 232, "swin_s": 246, "swin_b": 238}


def published_preprocessing(
    settings: Mapping[str, Any], tensors: Mapping[str, np.ndarray], size: int
) -> Preprocessing | None:
    """How the published weights of this name see a photo, for images of `size` pixels; None where nobody knows."""
    naming, kind = detect_naming(tensors), network_kind(settings)
    if naming == "huggingface":  # all of microsoft/swin-*
        return Preprocessing(resize=(size, size), resample=3, mean=IMAGENET_MEAN, std=IMAGENET_STD)
    if naming == "timm":
        cfg = published_cfg(kind)
        return None if cfg is None else Preprocessing.from_timm({**cfg, "input_size": (3, size, size)})
    if kind not in _TORCHVISION_RESIZE:
        return None
    resize, crop = _TORCHVISION_RESIZE[kind] * size // 224, (size, size)
    return Preprocessing(resize, crop, resample=3, mean=IMAGENET_MEAN, std=IMAGENET_STD, crop_rounding="even")


register(
    Family(
        network=Swin,
        config=SwinConfig,
        model_types=("swin",),
        architectures=("swin_*",),
        config_from_settings=config_from_settings,
        from_tensors=from_tensors,
        published=published_preprocessing,
        any_size=True,
        resize=at_size,
    )
)
