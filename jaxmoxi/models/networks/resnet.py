"""ResNet-18 to ResNet-152 and their wide forms, for inference: BatchNorm is folded into the convolution before it.

Source: He et al., "Deep Residual Learning for Image Recognition", CVPR 2016 (v1); a bottleneck's stride in its 3x3
convolution is v1.5, as published by torchvision, timm and Hugging Face; Zagoruyko and Komodakis, "Wide Residual
Networks", BMVC 2016. `trainable_resnet` holds the ones that P2P trains.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from jaxmoxi.models.checkpoints.tensors import Place, State, check_tensors, fill_state, fold_norm
from jaxmoxi.models.networks.base import ClassifierNetwork, Features, check_batch
from jaxmoxi.models.networks.convolution import convolve, convolve_cpu, max_pool
from jaxmoxi.models.networks.depthwise import in_pairs
from jaxmoxi.models.networks.hidden_act import ACTIVATIONS
from jaxmoxi.models.networks.registry import Family, register
from jaxmoxi.models.networks.resnet_config import (
    BlockShape,
    ResNetConfig,
    block_shapes,
    classifier_name,
    convolutions,
    detect_naming,
    expected_tensors,
)
from jaxmoxi.models.networks.resnet_settings import ARCHITECTURES, config_from_settings, published_preprocessing

__all__ = ["ResNet", "ResNetConfig", "config_from_settings", "detect_naming", "expected_tensors", "from_tensors"]


class Conv(nnx.Module):
    """Kernel [k, k, in, out] and bias [out] of a convolution with its BatchNorm folded in."""

    def __init__(self, size: int, fan_in: int, fan_out: int, stride: int, *, rngs: nnx.Rngs):
        self.stride = stride
        self.kernel = nnx.Param(nnx.initializers.he_normal()(rngs.params(), (size, size, fan_in, fan_out)))
        self.bias = nnx.Param(jnp.zeros(fan_out))


class Block(nnx.Module):
    """Two or three convolutions beside a shortcut, which projects where the shape changes."""

    def __init__(self, shape: BlockShape, *, rngs: nnx.Rngs):
        self.convolutions = nnx.List([Conv(*conv, rngs=rngs) for conv in shape.convolutions])
        self.shortcut = None if shape.shortcut is None else Conv(*shape.shortcut, rngs=rngs)


class Stage(nnx.Module):
    """Residual blocks: the first, which may change the shape, and the others, stacked, so that XLA compiles two."""

    def __init__(self, first: BlockShape, other: BlockShape | None, count: int, *, rngs: nnx.Rngs):
        @nnx.split_rngs(splits=count)
        @nnx.vmap(in_axes=0, out_axes=0)
        def stack(rngs: nnx.Rngs) -> Block:
            assert other is not None
            return Block(other, rngs=rngs)

        self.first = Block(first, rngs=rngs)
        self.others = None if other is None else stack(rngs)


class ResNet(ClassifierNetwork):
    """Stem, stages of residual blocks, mean over positions, linear classifier."""

    float32_parameters = frozenset({"classifier"})

    def __init__(self, config: ResNetConfig, *, rngs: nnx.Rngs):
        self.num_channels = config.num_channels
        self.activation, self.within = config.activation, config.within
        self.stem = Conv(7, config.num_channels, config.stem, 2, rngs=rngs)
        self.stages = nnx.List([])
        shapes = block_shapes(config)
        for stage, depth in enumerate(config.depths):
            blocks = [shape for shape in shapes if shape.stage == stage]
            self.stages.append(Stage(blocks[0], blocks[1] if depth > 1 else None, depth - 1, rngs=rngs))
        self.classifier = nnx.Linear(config.widths[-1], config.num_classes, rngs=rngs)

    def features(self, images: Float[Array, "B H W channels"]) -> Features:
        """The last block's maps: h and w are H and W divided by 32, rounded up.

        Raises ValueError for images of another shape.
        """
        check_batch(images, self.num_channels)
        images = images.astype(self.stem.kernel.dtype)
        # Not chosen by jax.default_backend(): the program may be lowered for another platform than it is traced on.
        native = functools.partial(self._chain, convolution=convolve)
        cpu = functools.partial(in_pairs, functools.partial(self._chain, convolution=convolve_cpu))
        return Features(jax.lax.platform_dependent(images, cpu=cpu, default=native))

    def classify(self, features: Features) -> Float[Array, "B K"]:
        """Logits from `features`."""
        return self.classifier(features.maps.astype(self.classifier.kernel.dtype).mean((1, 2)))

    def _chain(self, x: Array, *, convolution: Callable[..., Array]) -> Array:
        act, within = ACTIVATIONS[self.activation], ACTIVATIONS[self.within]

        def apply(conv: Conv, x: Array) -> Array:
            margin = conv.kernel.shape[0] // 2
            return convolution(x, conv.kernel[...], conv.stride, ((margin, margin),) * 2) + conv.bias[...]

        def through(block: Block, x: Array) -> Array:
            y = x
            for i, conv in enumerate(block.convolutions):
                y = apply(conv, within(y) if i else y)
            return act(y + (x if block.shortcut is None else apply(block.shortcut, x)))

        x = max_pool(act(apply(self.stem, x)), 3, 2, 1)
        for stage in self.stages:
            x = through(stage.first, x)
            if stage.others is not None:
                block, parameters = nnx.split(stage.others)
                x, _ = jax.lax.scan(lambda x, p, block=block: (through(nnx.merge(block, p), x), None), x, parameters)
        return x


def from_tensors(config: ResNetConfig, tensors: Mapping[str, np.ndarray], *, source: str) -> State:
    """The parameters of a `ResNet`, as an NNX state, from a checkpoint's tensors.

    tensors: in the names of Hugging Face, timm or torchvision, PyTorch's layouts; BatchNorm is folded in float64 and
             rounded once to float32.
    source:  what to call the checkpoint in an error.

    Raises ValueError that lists every missing, extra and misshapen tensor.
    """
    naming = detect_naming(tensors)
    check_tensors(expected_tensors(config, naming), tensors, source)
    linear = classifier_name(naming)
    slots: dict[Place, np.ndarray] = {
        ("classifier", "kernel"): np.asarray(tensors[f"{linear}.weight"]).T,
        ("classifier", "bias"): np.asarray(tensors[f"{linear}.bias"]),
    }
    for slot, (conv, norm, _) in convolutions(config, naming).items():
        slots[*slot, "kernel"], slots[*slot, "bias"] = fold_norm(tensors, conv, norm, config.norm_eps)

    def convert(path: Place, shape: tuple[int, ...]) -> np.ndarray:
        if path[0] != "stages":
            return slots[path]
        _, stage, which, *rest = path
        assert isinstance(stage, int)
        if which == "first":
            return slots["blocks", stage, 0, *rest]
        return np.stack([slots["blocks", stage, place, *rest] for place in range(1, config.depths[stage])])

    return fill_state(functools.partial(ResNet, config), convert)


register(
    Family(
        network=ResNet,
        config=ResNetConfig,
        model_types=("resnet",),
        architectures=ARCHITECTURES,
        config_from_settings=config_from_settings,
        from_tensors=from_tensors,
        published=published_preprocessing,
        any_size=True,
    )
)
