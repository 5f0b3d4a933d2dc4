"""ConvNeXt for inference, of either version.

Source: Liu et al., "A ConvNet for the 2020s", CVPR 2022; Woo et al., "ConvNeXt V2", CVPR 2023 (global response
normalisation). Reads the checkpoints of Hugging Face, timm, torchvision and the authors.

The blocks of a stage are equal, so their weights lie in one array and a loop goes over them: a program of a third of
the size, which runs as fast. `from_tensors` folds the scale of a block's output into its last layer.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from jaxmoxi.models.checkpoints.tensors import Place, State, check_tensors, fill_state
from jaxmoxi.models.networks.base import ClassifierNetwork, Features, check_batch
from jaxmoxi.models.networks.convnext_config import (
    ConvNextConfig,
    block_names,
    detect_naming,
    expected_tensors,
    flat_tensors,
    outer_names,
)
from jaxmoxi.models.networks.convnext_settings import config_from_settings, published_preprocessing
from jaxmoxi.models.networks.depthwise import depthwise, in_pairs
from jaxmoxi.models.networks.hidden_act import ACTIVATIONS
from jaxmoxi.models.networks.registry import Family, register

__all__ = ["ConvNext", "ConvNextConfig", "config_from_settings", "expected_tensors", "from_tensors"]


class Conv(nnx.Module):
    """Kernel [k, k, in, out] and bias [out]; depthwise has in = 1."""

    def __init__(self, size: int, fan_in: int, fan_out: int, *, rngs: nnx.Rngs):
        self.kernel = nnx.Param(nnx.initializers.he_normal()(rngs.params(), (size, size, fan_in, fan_out)))
        self.bias = nnx.Param(jnp.zeros(fan_out))


def _norm(channels: int, eps: float, rngs: nnx.Rngs) -> nnx.LayerNorm:
    return nnx.LayerNorm(channels, epsilon=eps, use_fast_variance=False, rngs=rngs)


class Block(nnx.Module):
    """Filter each channel, then at each position a norm and a perceptron; added to the input."""

    def __init__(self, config: ConvNextConfig, dim: int, kernel: int, *, rngs: nnx.Rngs):
        self.activation = config.activation
        self.depthwise = Conv(kernel, 1, dim, rngs=rngs)
        self.norm = _norm(dim, config.norm_eps, rngs)
        self.fc1 = nnx.Linear(dim, 4 * dim, rngs=rngs)
        self.grn = Response(4 * dim) if config.grn else None
        self.fc2 = nnx.Linear(4 * dim, dim, rngs=rngs)

    def __call__(self, x: Float[Array, "B h w C"]) -> Float[Array, "B h w C"]:
        y: Any = depthwise(x, self.depthwise.kernel[...], 1, 1, self.depthwise.kernel.shape[-4] // 2)
        # The barrier keeps the filter out of the norm, which would compute it again for each of its passes.
        y = jax.lax.optimization_barrier(y + self.depthwise.bias[...])
        y = self.norm(y).reshape(-1, x.shape[-1])  # one matrix product over all positions
        y = ACTIVATIONS[self.activation](self.fc1(y))
        if self.grn is not None:
            y = self.grn(y.reshape(len(x), -1, y.shape[-1])).reshape(y.shape)
        return x + self.fc2(y).reshape(x.shape)


class Response(nnx.Module):
    """Global response normalisation: each channel is scaled by its share of the image's responses."""

    def __init__(self, channels: int):
        self.scale = nnx.Param(jnp.zeros(channels))
        self.bias = nnx.Param(jnp.zeros(channels))

    def __call__(self, x: Float[Array, "B N C"]) -> Float[Array, "B N C"]:
        squares = jnp.sum(jnp.square(x.astype(jnp.float32)), axis=1, keepdims=True)
        # The square root has no gradient at 0, where a channel never responds.
        norms = jnp.sqrt(jnp.where(squares > 0, squares, 1.0)) * (squares > 0)
        share = (norms / (norms.mean(-1, keepdims=True) + 1e-6)).astype(x.dtype)
        return x + x * share * self.scale[...] + self.bias[...]


class Stage(nnx.Module):
    """A norm and a convolution that halve the sides (`norm` and `down`, absent in the first stage), then blocks."""

    def __init__(self, config: ConvNextConfig, stage: int, *, rngs: nnx.Rngs):
        dim, kernel = config.dims[stage], config.kernels[stage]
        self.norm = _norm(config.dims[stage - 1], config.norm_eps, rngs) if stage else None
        self.down = Conv(2, config.dims[stage - 1], dim, rngs=rngs) if stage else None

        @nnx.split_rngs(splits=config.depths[stage])
        @nnx.vmap(in_axes=0, out_axes=0)
        def stack(rngs: nnx.Rngs) -> Block:
            return Block(config, dim, kernel, rngs=rngs)

        self.blocks = stack(rngs)

    def __call__(self, x: Float[Array, "B h w C"]) -> Float[Array, "B i j D"]:
        if self.norm is not None and self.down is not None:
            x = _shrink(self.norm(x), self.down)
        structure, weights = nnx.split(self.blocks)
        x, _ = jax.lax.scan(lambda x, w: (nnx.merge(structure, w)(x), None), x, weights)
        return x


class ConvNext(ClassifierNetwork):
    """Stem, stages of blocks, mean over positions, norm, linear classifier."""

    float32_parameters = frozenset({"norm", "hidden", "head"})

    def __init__(self, config: ConvNextConfig, *, rngs: nnx.Rngs):
        self.config = config
        first, last = config.dims[0], config.dims[-1]
        if config.stem_width:
            self.stem = Conv(3, config.num_channels, config.stem_width, rngs=rngs)
            self.stem_second = Conv(3, config.stem_width, first, rngs=rngs)
        else:
            self.stem = Conv(config.patch_size, config.num_channels, first, rngs=rngs)
            self.stem_second = None
        self.stem_norm = _norm(first, config.norm_eps, rngs)
        self.stages = nnx.List([Stage(config, stage, rngs=rngs) for stage in range(len(config.dims))])
        self.norm = _norm(last, config.head_eps, rngs)
        self.hidden = nnx.Linear(last, config.hidden, rngs=rngs) if config.hidden else None
        self.head = nnx.Linear(config.hidden or last, config.num_classes, rngs=rngs)

    def features(self, images: Float[Array, "B H W channels"]) -> Features:
        """The last block's maps: h and w are H and W divided by 32, rounded down where the stem makes patches.

        Raises ValueError for images of another shape, and for those too small to leave a position.
        """
        check_batch(images, self.config.num_channels, self.config.smallest_side)
        images = images.astype(self.stem.kernel.dtype)
        pairs = functools.partial(in_pairs, self._maps)
        return Features(jax.lax.platform_dependent(images, cpu=pairs, default=self._maps))

    def _maps(self, x: Float[Array, "B H W channels"]) -> Float[Array, "B h w C"]:
        x = _shrink(x, self.stem) if self.stem_second is None else _overlap(_overlap(x, self.stem), self.stem_second)
        x = self.stem_norm(x)
        for stage in self.stages:
            x = stage(x)
        return x

    def classify(self, features: Features) -> Float[Array, "B K"]:
        """Logits from `features`."""
        x = features.maps.astype(self.head.kernel.dtype)
        x = self.norm(x).mean((1, 2)) if self.config.norm_first else self.norm(x.mean((1, 2)))
        if self.hidden is not None:
            x = ACTIVATIONS["gelu"](self.hidden(x))
        return self.head(x)


def _shrink(x: Float[Array, "B H W C"], conv: Conv) -> Float[Array, "B h w D"]:
    """A convolution whose stride is its size, as one matrix product; what is left over at the far edges is not seen."""
    batch, height, width, channels = x.shape
    size = conv.kernel.shape[0]
    rows, columns = height // size, width // size
    x = x[:, : rows * size, : columns * size].reshape(batch, rows, size, columns, size, channels).swapaxes(2, 3)
    y = jnp.dot(x.reshape(batch * rows * columns, -1), conv.kernel[...].reshape(-1, conv.kernel.shape[-1]))
    return (y + conv.bias[...]).reshape(batch, rows, columns, -1)


def _overlap(x: Float[Array, "B H W C"], conv: Conv) -> Float[Array, "B h w D"]:
    """A 3x3 convolution of stride 2."""
    y = jax.lax.conv_general_dilated(
        x, conv.kernel[...], (2, 2), [(1, 1), (1, 1)], dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return y + conv.bias[...]


def from_tensors(config: ConvNextConfig, tensors: Mapping[str, np.ndarray], *, source: str) -> State:
    """The parameters of a `ConvNext`, as an NNX state, from a checkpoint's tensors.

    tensors: in the names of Hugging Face, timm, torchvision or the authors, PyTorch's layouts.
    source:  what to call the checkpoint in an error.

    Raises ValueError that lists every missing, extra and misshapen tensor.
    """
    naming, tensors = detect_naming(tensors), flat_tensors(tensors)
    check_tensors(expected_tensors(config, naming), tensors, source)
    slots: dict[Place, np.ndarray] = {}
    for part, name in outer_names(naming, config).items():
        kind, _, stage = part.partition(".")
        place: Place = ("stages", int(stage), "norm" if kind == "down_norm" else kind) if stage else (part,)
        _put(slots, place, tensors[f"{name}.weight"], tensors[f"{name}.bias"])
    for stage, depth in enumerate(config.depths):
        blocks = [_block(config, block_names(naming, stage, i), tensors) for i in range(depth)]
        for place in blocks[0]:
            slots[("stages", stage, "blocks", *place)] = np.stack([block[place] for block in blocks])
    return fill_state(functools.partial(ConvNext, config), lambda path, shape: slots[path])


def _block(
    config: ConvNextConfig, names: Mapping[str, str], tensors: Mapping[str, np.ndarray]
) -> dict[Place, np.ndarray]:
    """A block's arrays by their places in it, its scale folded into its last layer."""
    slots: dict[Place, np.ndarray] = {}
    for part in ("depthwise", "norm", "fc1", "fc2", *(("grn",) if config.grn else ())):
        _put(slots, (part,), tensors[f"{names[part]}.weight"], tensors[f"{names[part]}.bias"])
    if config.layer_scale:
        scale = np.asarray(tensors[names["scale"]], np.float64)
        slots["fc2", "kernel"], slots["fc2", "bias"] = slots["fc2", "kernel"] * scale, slots["fc2", "bias"] * scale
    return slots


def _put(slots: dict[Place, np.ndarray], place: Place, weight: np.ndarray, bias: np.ndarray) -> None:
    """A layer's two tensors in our layouts: a norm's scale, a matrix [in, out], or a kernel [k, k, in, out]."""
    leaf = "scale" if weight.ndim == 1 else "kernel"
    slots[*place, leaf] = weight if weight.ndim == 1 else weight.transpose(*range(2, weight.ndim), 1, 0)
    slots[*place, "bias"] = bias


register(
    Family(
        network=ConvNext,
        config=ConvNextConfig,
        model_types=("convnext", "convnextv2"),
        architectures=("convnext_*", "convnextv2_*"),
        config_from_settings=config_from_settings,
        from_tensors=from_tensors,
        published=published_preprocessing,
        any_size=True,
    )
)
