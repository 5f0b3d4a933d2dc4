"""ResNet-18 and ResNet-34, trainable; a classifier of P2P.

Source: He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, in torchvision's form and names.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, Literal

import jax
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from jaxmoxi.errors import InputError
from jaxmoxi.models.checkpoints.tensors import Place, State, check_tensors, fill_state
from jaxmoxi.models.networks.resnet_config import ResNetConfig, convolutions

_DEPTHS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}


@dataclasses.dataclass(frozen=True)
class ResidualNetConfig:
    """The shape of a ResNet: 18 or 34 layers, `num_classes` logits."""

    depth: Literal[18, 34] = 18
    num_classes: int = 1000

    def __post_init__(self):
        if self.depth not in _DEPTHS:
            raise InputError(f"expected a ResNet depth of 18 or 34; got {self.depth!r}")


def _conv(fan_in: int, fan_out: int, size: int, stride: int, rngs: nnx.Rngs) -> nnx.Conv:
    margin = size // 2
    return nnx.Conv(
        fan_in,
        fan_out,
        (size, size),
        strides=stride,
        padding=[(margin, margin)] * 2,
        use_bias=False,
        kernel_init=nnx.initializers.variance_scaling(2.0, "fan_out", "normal"),
        rngs=rngs,
    )


def _norm(channels: int, rngs: nnx.Rngs) -> nnx.BatchNorm:
    return nnx.BatchNorm(channels, momentum=0.9, epsilon=1e-5, rngs=rngs)


class Block(nnx.Module):
    """A residual block of two 3x3 convolutions. The shortcut projects its input where the shape changes."""

    def __init__(self, fan_in: int, fan_out: int, stride: int, *, rngs: nnx.Rngs):
        self.conv1, self.bn1 = _conv(fan_in, fan_out, 3, stride, rngs), _norm(fan_out, rngs)
        self.conv2, self.bn2 = _conv(fan_out, fan_out, 3, 1, rngs), _norm(fan_out, rngs)
        changes = stride != 1 or fan_in != fan_out
        self.shortcut = _conv(fan_in, fan_out, 1, stride, rngs) if changes else None
        self.shortcut_norm = _norm(fan_out, rngs) if changes else None

    def __call__(self, x: Float[Array, "B h w C"]) -> Float[Array, "B i j D"]:
        y = jax.nn.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        if self.shortcut is not None and self.shortcut_norm is not None:
            x = self.shortcut_norm(self.shortcut(x))
        return jax.nn.relu(x + y)


class ResNet(nnx.Module):
    """Logits of images [B, H, W, 3]."""

    def __init__(self, config: ResidualNetConfig, *, rngs: nnx.Rngs):
        self.conv1, self.bn1 = _conv(3, 64, 7, 2, rngs), _norm(64, rngs)
        blocks, fan_in = [], 64
        for stage, count in enumerate(_DEPTHS[config.depth]):
            for i in range(count):
                blocks.append(Block(fan_in, 64 * 2**stage, 2 if stage and not i else 1, rngs=rngs))
                fan_in = 64 * 2**stage
        self.blocks = nnx.List(blocks)
        self.fc = nnx.Linear(fan_in, config.num_classes, rngs=rngs)

    def __call__(self, images: Float[Array, "B H W 3"]) -> Float[Array, "B K"]:
        return self.classify(self.features(images))

    def features(self, images: Float[Array, "B H W 3"]) -> Float[Array, "B h w C"]:
        """The last block's map, not negative: h and w are H and W divided by 32, rounded up."""
        x = jax.nn.relu(self.bn1(self.conv1(images)))
        padding: Any = ((1, 1), (1, 1))  # Flax's annotation admits its names alone
        x = nnx.max_pool(x, (3, 3), strides=(2, 2), padding=padding)
        for block in self.blocks:
            x = block(x)
        return x

    def classify(self, features: Float[Array, "B h w C"]) -> Float[Array, "B K"]:
        """Logits from `features`."""
        return self.fc(features.mean((1, 2)))


def expected_tensors(config: ResidualNetConfig) -> dict[str, tuple[int, ...]]:
    """Every tensor of torchvision's checkpoint, with its shape."""
    return {name: shape for name, (_, shape) in _table(config).items()}


def _table(config: ResidualNetConfig) -> dict[str, tuple[Place, tuple[int, ...]]]:
    """torchvision's name of every tensor -> (its place in our network, its shape in theirs)."""
    table: dict[str, tuple[Place, tuple[int, ...]]] = {}
    depths = _DEPTHS[config.depth]
    shape = ResNetConfig(depths, widths=(64, 128, 256, 512), inner=(), num_classes=config.num_classes)
    for slot, (conv, norm, weight) in convolutions(shape, "timm").items():
        ours, theirs = _places(slot, depths)
        table[f"{conv}.weight"] = ((*ours, "kernel"), weight)
        for leaf, own in (("weight", "scale"), ("bias", "bias"), ("running_mean", "mean"), ("running_var", "var")):
            table[f"{norm}.{leaf}"] = ((*theirs, own), weight[:1])
    table["fc.weight"] = (("fc", "kernel"), (config.num_classes, shape.widths[-1]))
    table["fc.bias"] = (("fc", "bias"), (config.num_classes,))
    return table


def _places(slot: Place, depths: tuple[int, ...]) -> tuple[Place, Place]:
    """Where a convolution of the network with folded norms stands in this one, and where its BatchNorm does."""
    if slot == ("stem",):
        return ("conv1",), ("bn1",)
    _, stage, place, *rest = slot
    block = ("blocks", sum(depths[: int(stage)]) + int(place))
    if rest == ["shortcut"]:
        return (*block, "shortcut"), (*block, "shortcut_norm")
    number = int(rest[1]) + 1
    return (*block, f"conv{number}"), (*block, f"bn{number}")


def from_tensors(config: ResidualNetConfig, tensors: Mapping[str, np.ndarray], *, source: str) -> State:
    """The state of a `ResNet`, BatchNorm statistics included, from torchvision's names.

    Raises ValueError that lists every missing, extra and misshapen tensor.
    """
    tensors = {name: t for name, t in tensors.items() if not name.endswith("num_batches_tracked")}
    check_tensors(expected_tensors(config), tensors, source)
    by_path = {path: np.asarray(tensors[name], np.float32) for name, (path, _) in _table(config).items()}

    def convert(path: Place, shape: tuple[int, ...]) -> np.ndarray:
        array = by_path[path]
        if path[-1] == "kernel":
            array = array.T if array.ndim == 2 else array.transpose(2, 3, 1, 0)
        return array

    return fill_state(functools.partial(ResNet, config), convert)
