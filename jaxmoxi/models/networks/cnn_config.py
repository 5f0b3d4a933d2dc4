"""Shapes of EfficientNet-Lite0 and MobileNetV2, and what four frameworks call each tensor.

The network is in `cnn`; what a `config.json` says of it is read in `cnn_settings`.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Literal

from jaxmoxi.errors import InputError
from jaxmoxi.models.checkpoints.tensors import Place
from jaxmoxi.models.networks.base import ImageSize, checked_size

# (expansion, channels, blocks, stride of the first, kernel size) of every stage.
_STAGES = {
    "efficientnet_lite0": (
        (1, 16, 1, 1, 3),
        (6, 24, 2, 2, 3),
        (6, 40, 2, 2, 5),
        (6, 80, 3, 2, 3),
        (6, 112, 3, 1, 5),
        (6, 192, 4, 2, 5),
        (6, 320, 1, 1, 3),
    ),
    "mobilenet_v2": (
        (1, 16, 1, 1, 3),
        (6, 24, 2, 2, 3),
        (6, 32, 3, 2, 3),
        (6, 64, 4, 2, 3),
        (6, 96, 3, 1, 3),
        (6, 160, 3, 2, 3),
        (6, 320, 1, 1, 3),
    ),
}


@dataclasses.dataclass(frozen=True)
class InvertedResidualConfig:
    """The shape of a chain of inverted residual blocks.

    image_size: a side, or (height, width), in pixels, of the images it is meant for; the weights do not depend on it.
    width:      MobileNetV2's multiplier of all channels; EfficientNet-Lite0 has 1.
    padding:    "tf_same" (as TensorFlow: the odd pixel of a stride below and to the right) or "symmetric" (as PyTorch).
    norm_eps:   what BatchNorm adds to the variance. `from_tensors` reads it once, when it folds the weights.

    The defaults are TensorFlow's conventions; `config_from_settings` finds those of a checkpoint.
    """

    arch: Literal["efficientnet_lite0", "mobilenet_v2"]
    num_classes: int = 1000
    image_size: ImageSize = 224
    width: float = 1.0
    padding: Literal["tf_same", "symmetric"] = "tf_same"
    norm_eps: float = 1e-3
    num_channels: int = 3

    def __post_init__(self):
        if self.arch not in _STAGES:
            raise InputError(f"expected arch to be one of {', '.join(_STAGES)}; got {self.arch!r}")
        if self.padding not in ("tf_same", "symmetric"):
            raise InputError(f'expected padding "tf_same" or "symmetric"; got {self.padding!r}')
        object.__setattr__(self, "image_size", checked_size(self.image_size))
        for name in ("num_classes", "num_channels"):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < 1:
                raise InputError(f"{name} must be a whole number of at least 1; got {getattr(self, name)!r}")
        if not self.width > 0 or (self.arch == "efficientnet_lite0" and self.width != 1):
            raise InputError(f"width must be positive, and 1 for EfficientNet-Lite0; got {self.width}")
        if not self.norm_eps >= 0:
            raise InputError(f"norm_eps must not be negative; got {self.norm_eps}")


@dataclasses.dataclass(frozen=True)
class BlockShape:
    """Channels, kernel size and stride of one inverted residual block, and its place in its stage."""

    stage: int  # timm numbers blocks within stages
    place: int
    fan_in: int
    hidden: int
    fan_out: int
    kernel: int
    stride: int


def _round_channels(channels: int, width: float) -> int:
    """A multiple of eight near channels * width, at least eight and never below 90 % of it."""
    wanted = channels * width
    rounded = max(8, int(wanted + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * wanted else rounded


@functools.cache
def network_shape(config: InvertedResidualConfig) -> tuple[int, tuple[BlockShape, ...], int]:
    """Channels of the stem, every block, channels of the head (which never gets narrower than 1280)."""
    stem = channels = _round_channels(32, config.width)
    blocks = []
    for stage, (expansion, base, count, stride, kernel) in enumerate(_STAGES[config.arch]):
        for place in range(count):
            out = _round_channels(base, config.width)
            step = stride if place == 0 else 1
            blocks.append(BlockShape(stage, place, channels, expansion * channels, out, kernel, step))
            channels = out
    return stem, tuple(blocks), max(1280, _round_channels(1280, config.width))


Naming = Literal["efficientnet_pytorch", "timm", "torchvision", "huggingface"]

# Stem convolution and BatchNorm, head convolution and BatchNorm, classifier. torchvision numbers its head.
_ENDS = {
    "efficientnet_pytorch": ("_conv_stem", "_bn0", "_conv_head", "_bn1", "_fc"),
    "timm": ("conv_stem", "bn1", "conv_head", "bn2", "classifier"),
    "torchvision": ("features.0.0", "features.0.1", "features.{last}.0", "features.{last}.1", "classifier.1"),
    "huggingface": (
        "mobilenet_v2.conv_stem.first_conv.convolution",
        "mobilenet_v2.conv_stem.first_conv.normalization",
        "mobilenet_v2.conv_1x1.convolution",
        "mobilenet_v2.conv_1x1.normalization",
        "classifier",
    ),
}


def detect_naming(tensors: Mapping[str, object]) -> Naming:
    """Which framework's names a checkpoint uses, told by its stem. Raises ValueError if the names are unknown."""
    for naming, (stem, *_) in _ENDS.items():
        if f"{stem}.weight" in tensors:
            return naming  # type: ignore[return-value]
    signs = ", ".join(f"{naming} ({stem}.weight, ...)" for naming, (stem, *_) in _ENDS.items())
    raise InputError(
        f"expected the tensors of EfficientNet-Lite0 or MobileNetV2 in the names of {signs}; "
        f"got {', '.join(sorted(tensors)[:4]) or 'none'}, ...: rename them"
    )


def expected_tensors(config: InvertedResidualConfig, naming: Naming) -> dict[str, tuple[int, ...]]:
    """Every tensor a checkpoint of this naming must hold, with its shape (PyTorch's layouts), BatchNorm unfolded."""
    expected: dict[str, tuple[int, ...]] = {}
    for conv, norm, shape in convolutions(config, naming).values():
        expected[f"{conv}.weight"] = shape
        expected |= {f"{norm}.{leaf}": shape[:1] for leaf in ("weight", "bias", "running_mean", "running_var")}
    linear = classifier_name(naming)
    return expected | {
        f"{linear}.weight": (config.num_classes, network_shape(config)[2]),
        f"{linear}.bias": (config.num_classes,),
    }


def classifier_name(naming: Naming) -> str:
    """What the final linear layer is called."""
    return _ENDS[naming][-1]


def stem_name(naming: Naming) -> str:
    """What the first convolution is called."""
    return _ENDS[naming][0]


def convolutions(config: InvertedResidualConfig, naming: Naming) -> dict[Place, tuple[str, str, tuple[int, ...]]]:
    """Of every convolution, by its place in our network: its name, its BatchNorm's name, the shape of its weight."""
    stem, blocks, head = network_shape(config)
    ends = [name.format(last=len(blocks) + 1) for name in _ENDS[naming]]
    table: dict[Place, tuple[str, str, tuple[int, ...]]] = {
        ("stem",): (ends[0], ends[1], (stem, config.num_channels, 3, 3))
    }
    for i, b in enumerate(blocks):
        shapes = {
            "expand": (b.hidden, b.fan_in, 1, 1),
            "depthwise": (b.hidden, 1, b.kernel, b.kernel),
            "project": (b.fan_out, b.hidden, 1, 1),
        }
        if b.hidden == b.fan_in:
            del shapes["expand"]
        for place, (part, shape) in enumerate(shapes.items()):
            conv, norm = _block_names(naming, i, b, part, place, len(shapes))
            table["blocks", i, part] = (conv, norm, shape)
    table["head",] = (ends[2], ends[3], (head, blocks[-1].fan_out, 1, 1))
    return table


def _block_names(naming: Naming, i: int, block: BlockShape, part: str, place: int, count: int) -> tuple[str, str]:
    """The names of a block's convolution, the `place`-th of `count`, and of its BatchNorm."""
    if naming == "efficientnet_pytorch":
        return f"_blocks.{i}._{part}_conv", f"_blocks.{i}._bn{('expand', 'depthwise', 'project').index(part)}"
    if naming == "timm":
        name = {"expand": "conv_pw", "depthwise": "conv_dw", "project": "conv_pwl" if count == 3 else "conv_pw"}[part]
        root = f"blocks.{block.stage}.{block.place}"
        return f"{root}.{name}", f"{root}.bn{place + 1}"
    if naming == "torchvision":  # the last convolution, without activation, is not wrapped like those before it
        root = f"features.{i + 1}.conv"
        if part == "project":
            return f"{root}.{place}", f"{root}.{place + 1}"
        return f"{root}.{place}.0", f"{root}.{place}.1"
    root = "mobilenet_v2.conv_stem" if i == 0 else f"mobilenet_v2.layer.{i - 1}"
    name = {"expand": "expand_1x1", "depthwise": "conv_3x3", "project": "reduce_1x1"}[part]
    return f"{root}.{name}.convolution", f"{root}.{name}.normalization"
