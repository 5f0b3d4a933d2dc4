"""Shapes of ResNets, and what Hugging Face, timm and torchvision call each tensor."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Literal

from jaxmoxi.errors import InputError
from jaxmoxi.models.checkpoints.tensors import Place
from jaxmoxi.models.networks.base import ImageSize, checked_size
from jaxmoxi.models.networks.hidden_act import ACTIVATIONS


@dataclasses.dataclass(frozen=True)
class ResNetConfig:
    """The shape of a ResNet.

    depths:        blocks of each stage.
    widths:        channels that each stage gives.
    inner:         channels between a bottleneck's 1x1 convolutions, by stage; () for blocks of two 3x3 convolutions.
    stem:          channels of the first convolution.
    first_stride:  of the first stage: 1, as published, or 2.
    stride_in_1x1: where a bottleneck strides: in its first 1x1 convolution (v1) or in its 3x3 one (v1.5, as published
                   by torchvision, timm and Hugging Face).
    activation:    of the stem and at the end of each block.
    within:        the activation within a block; Hugging Face keeps it "relu" whatever the other is.
    image_size:    a side, or (height, width), of the images it is meant for; the weights do not depend on it.
    """

    depths: tuple[int, ...] = (3, 4, 6, 3)
    widths: tuple[int, ...] = (256, 512, 1024, 2048)
    inner: tuple[int, ...] = (64, 128, 256, 512)
    stem: int = 64
    first_stride: int = 1
    stride_in_1x1: bool = False
    activation: str = "relu"
    within: str = "relu"
    num_classes: int = 1000
    image_size: ImageSize = 224
    num_channels: int = 3
    norm_eps: float = 1e-5

    def __post_init__(self):
        object.__setattr__(self, "image_size", checked_size(self.image_size))
        counts = (*self.depths, *self.widths, *self.inner, self.stem, self.num_classes, self.num_channels)
        if not self.depths or any(isinstance(n, bool) or not isinstance(n, int) or n < 1 for n in counts):
            raise InputError(f"expected depths, widths and channels of at least 1; got {self}")
        if len(self.widths) != len(self.depths) or len(self.inner) not in (0, len(self.depths)):
            raise InputError(f"expected a depth and a width for each stage; got {self.depths} and {self.widths}")
        if self.first_stride not in (1, 2):
            raise InputError(f"first_stride must be 1 or 2; got {self.first_stride}")
        for name in (self.activation, self.within):
            if name not in ACTIVATIONS:
                raise InputError(f"expected an activation of {', '.join(ACTIVATIONS)}; got {name!r}")


@dataclasses.dataclass(frozen=True)
class BlockShape:
    """The convolutions of one block: kernel size, channels in and out and stride of each, and of its shortcut's."""

    stage: int
    place: int
    convolutions: tuple[tuple[int, int, int, int], ...]
    shortcut: tuple[int, int, int, int] | None


@functools.cache
def block_shapes(config: ResNetConfig) -> tuple[BlockShape, ...]:
    """Every block, from the first."""
    blocks, fan_in = [], config.stem
    for stage, (depth, width) in enumerate(zip(config.depths, config.widths, strict=True)):
        for place in range(depth):
            stride = 1 if place else (2 if stage else config.first_stride)
            if config.inner:
                inner, early = config.inner[stage], config.stride_in_1x1
                chain = (
                    (1, fan_in, inner, stride if early else 1),
                    (3, inner, inner, 1 if early else stride),
                    (1, inner, width, 1),
                )
            else:
                chain = ((3, fan_in, width, stride), (3, width, width, 1))
            shortcut = (1, fan_in, width, stride) if fan_in != width or stride != 1 else None
            blocks.append(BlockShape(stage, place, chain, shortcut))
            fan_in = width
    return tuple(blocks)


Naming = Literal["huggingface", "timm"]

# Stem convolution and its BatchNorm, and the classifier. torchvision's names are timm's.
_ENDS = {
    "huggingface": (
        "resnet.embedder.embedder.convolution", "resnet.embedder.embedder.normalization", "classifier.1",
    ),
    "timm": ("conv1", "bn1", "fc"),
}  # fmt: skip


def detect_naming(tensors: Mapping[str, object]) -> Naming:
    """Which framework's names a checkpoint uses, told by its stem. Raises ValueError if the names are unknown."""
    for naming, (stem, *_) in _ENDS.items():
        if f"{stem}.weight" in tensors:
            return naming  # type: ignore[return-value]
    raise InputError(
        "expected a ResNet's tensors in the names of Hugging Face (resnet.embedder.embedder.convolution.weight, ...) "
        f"or timm and torchvision (conv1.weight, ...); got {', '.join(sorted(tensors)[:4]) or 'none'}, ...: rename them"
    )


def names_of(naming: Naming, block: BlockShape) -> tuple[list[tuple[str, str]], tuple[str, str]]:
    """The names of a block's convolutions, each with its BatchNorm's, and those of its shortcut."""
    count = len(block.convolutions)
    if naming == "timm":
        root = f"layer{block.stage + 1}.{block.place}"
        chain = [(f"{root}.conv{i + 1}", f"{root}.bn{i + 1}") for i in range(count)]
        return chain, (f"{root}.downsample.0", f"{root}.downsample.1")
    root = f"resnet.encoder.stages.{block.stage}.layers.{block.place}"
    chain = [(f"{root}.layer.{i}.convolution", f"{root}.layer.{i}.normalization") for i in range(count)]
    return chain, (f"{root}.shortcut.convolution", f"{root}.shortcut.normalization")


def convolutions(config: ResNetConfig, naming: Naming) -> dict[Place, tuple[str, str, tuple[int, ...]]]:
    """Of every convolution, by its place (stage and block): its name, its BatchNorm's name, the shape of its weight."""
    stem = _ENDS[naming]
    table: dict[Place, tuple[str, str, tuple[int, ...]]] = {}
    table["stem",] = (stem[0], stem[1], (config.stem, config.num_channels, 7, 7))
    for block in block_shapes(config):
        at = ("blocks", block.stage, block.place)
        chain, shortcut = names_of(naming, block)
        for j, ((conv, norm), (size, fan_in, fan_out, _)) in enumerate(zip(chain, block.convolutions, strict=True)):
            table[*at, "convolutions", j] = (conv, norm, (fan_out, fan_in, size, size))
        if block.shortcut is not None:
            size, fan_in, fan_out, _ = block.shortcut
            table[*at, "shortcut"] = (*shortcut, (fan_out, fan_in, size, size))
    return table


def classifier_name(naming: Naming) -> str:
    """What the final linear layer is called."""
    return _ENDS[naming][-1]


def stem_name(naming: Naming) -> str:
    """What the first convolution is called."""
    return _ENDS[naming][0]


def expected_tensors(config: ResNetConfig, naming: Naming) -> dict[str, tuple[int, ...]]:
    """Every tensor a checkpoint of this naming must hold, with its shape (PyTorch's layouts), BatchNorm unfolded."""
    expected: dict[str, tuple[int, ...]] = {}
    for conv, norm, shape in convolutions(config, naming).values():
        expected[f"{conv}.weight"] = shape
        expected |= {f"{norm}.{leaf}": shape[:1] for leaf in ("weight", "bias", "running_mean", "running_var")}
    linear = classifier_name(naming)
    return expected | {
        f"{linear}.weight": (config.num_classes, config.widths[-1]),
        f"{linear}.bias": (config.num_classes,),
    }
