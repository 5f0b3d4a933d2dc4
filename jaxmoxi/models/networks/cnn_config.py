"""The shape of a chain of inverted residual blocks: MobileNetV2, MobileNetV3 and EfficientNet, as their papers have it.

The network is in `cnn`; `cnn_names` has what each framework calls the tensors, and what a `config.json` says of it is
read in `cnn_settings`.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Literal, NamedTuple

from jaxmoxi.errors import InputError
from jaxmoxi.models.networks.base import ImageSize, checked_size
from jaxmoxi.models.networks.hidden_act import ACTIVATIONS


class Row(NamedTuple):
    """Equal blocks of a stage, at width 1.

    expansion:  channels inside a block, for each channel that enters it.
    channels:   that leave it.
    count:      blocks.
    stride:     of the first block; 1 of the others.
    kernel:     side of the depthwise kernel.
    squeeze:    whether squeeze-and-excitation follows the depthwise convolution.
    activation: of the block; "" is the network's.
    """

    expansion: float
    channels: int
    count: int  # pyright: ignore[reportIncompatibleMethodOverride]  a tuple's own is not needed
    stride: int
    kernel: int
    squeeze: bool = False
    activation: str = ""


Stages = tuple[tuple[Row, ...], ...]


class _Arch(NamedTuple):
    """An architecture at width and depth 1: its stages, the channels of stem and head, its activation."""

    stages: Stages
    stem: int
    head: int
    activation: str
    hidden: int = 0


_LARGE: Stages = (
    (Row(1, 16, 1, 1, 3, False, "relu"),),
    (Row(4, 24, 1, 2, 3, False, "relu"), Row(3, 24, 1, 1, 3, False, "relu")),
    (Row(3, 40, 3, 2, 5, True, "relu"),),
    (Row(6, 80, 1, 2, 3), Row(2.5, 80, 1, 1, 3), Row(2.3, 80, 2, 1, 3)),
    (Row(6, 112, 2, 1, 3, True),),
    (Row(6, 160, 3, 2, 5, True),),
)
_SMALL: Stages = (
    (Row(1, 16, 1, 2, 3, True, "relu"),),
    (Row(4.5, 24, 1, 2, 3, False, "relu"), Row(3.67, 24, 1, 1, 3, False, "relu")),
    (Row(4, 40, 1, 2, 5, True), Row(6, 40, 2, 1, 5, True)),
    (Row(3, 48, 2, 1, 5, True),),
    (Row(6, 96, 3, 2, 5, True),),
)


def _minimal(stages: Stages) -> Stages:
    """MobileNetV3 for hardware that is slow at all else: 3x3 kernels, ReLU, no squeeze-and-excitation."""
    return tuple(tuple(row._replace(kernel=3, squeeze=False, activation="") for row in stage) for stage in stages)


def _stages(rows: tuple[tuple[int, int, int, int, int], ...], squeeze: bool = False) -> Stages:
    return tuple((Row(*row, squeeze),) for row in rows)


_EFFICIENTNET = (
    (1, 16, 1, 1, 3), (6, 24, 2, 2, 3), (6, 40, 2, 2, 5), (6, 80, 3, 2, 3), (6, 112, 3, 1, 5), (6, 192, 4, 2, 5),
    (6, 320, 1, 1, 3),
)  # fmt: skip
_MOBILENET_V2 = (
    (1, 16, 1, 1, 3), (6, 24, 2, 2, 3), (6, 32, 3, 2, 3), (6, 64, 4, 2, 3), (6, 96, 3, 1, 3), (6, 160, 3, 2, 3),
    (6, 320, 1, 1, 3),
)  # fmt: skip

_ARCHS = {
    "efficientnet": _Arch(_stages(_EFFICIENTNET, squeeze=True), 32, 1280, "silu"),
    "efficientnet_lite0": _Arch(_stages(_EFFICIENTNET), 32, 1280, "relu6"),
    "mobilenet_v2": _Arch(_stages(_MOBILENET_V2), 32, 1280, "relu6"),
    "mobilenet_v3_large": _Arch(_LARGE, 16, 960, "hardswish", hidden=1280),
    "mobilenet_v3_large_minimal": _Arch(_minimal(_LARGE), 16, 960, "relu", hidden=1280),
    "mobilenet_v3_small": _Arch(_SMALL, 16, 576, "hardswish", hidden=1024),
    "mobilenet_v3_small_minimal": _Arch(_minimal(_SMALL), 16, 576, "relu", hidden=1024),
}
Arch = Literal[
    "efficientnet", "efficientnet_lite0", "mobilenet_v2", "mobilenet_v3_large", "mobilenet_v3_large_minimal",
    "mobilenet_v3_small", "mobilenet_v3_small_minimal",
]  # fmt: skip
Padding = Literal["tf_same", "symmetric", "keras"]


@dataclasses.dataclass(frozen=True)
class InvertedResidualConfig:
    """The shape of a chain of inverted residual blocks.

    image_size:       a side, or (height, width), in pixels, of the images it is meant for; the weights do not depend
                      on it.
    width, depth:     multipliers of all channels, and of the blocks of each stage; EfficientNet-Lite0 has 1.
    padding:          "tf_same" (as TensorFlow: the odd pixel of a stride below and to the right), "symmetric" (as
                      PyTorch), or "keras" (as Hugging Face's EfficientNet: the same margins for every size, the larger
                      one below and to the right of a stride).
    symmetric_blocks: of padding "keras", the blocks whose strides have equal margins, counted from 0.
    norm_eps:         what BatchNorm adds to the variance. `from_tensors` reads it once, when it folds the weights.
    activation:       "" is the architecture's own.
    stages:           in place of the architecture's; () are its own.
    squeeze_ratio:    channels of EfficientNet's squeeze, for each channel that enters a block.
    divisor:          channels are rounded to multiples of it.
    scaled:           MobileNetV3's channels inside its blocks at other widths: "inputs", the block's rounded input
                      times its expansion (TensorFlow, timm), or "all", the rounded product of everything (torchvision).

    The defaults are TensorFlow's conventions; `config_from_settings` finds those of a checkpoint.
    """

    arch: Arch
    num_classes: int = 1000
    image_size: ImageSize = 224
    width: float = 1.0
    padding: Padding = "tf_same"
    norm_eps: float = 1e-3
    num_channels: int = 3
    depth: float = 1.0
    symmetric_blocks: tuple[int, ...] = ()
    activation: str = ""
    stages: Stages = ()
    squeeze_ratio: float = 0.25
    divisor: int = 8
    scaled: Literal["inputs", "all"] = "inputs"

    def __post_init__(self):
        if self.arch not in _ARCHS:
            raise InputError(f"expected arch to be one of {', '.join(_ARCHS)}; got {self.arch!r}")
        if self.padding not in ("tf_same", "symmetric", "keras"):
            raise InputError(f'expected padding "tf_same", "symmetric" or "keras"; got {self.padding!r}')
        object.__setattr__(self, "image_size", checked_size(self.image_size))
        for name in ("num_classes", "num_channels", "divisor"):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < 1:
                raise InputError(f"{name} must be a whole number of at least 1; got {getattr(self, name)!r}")
        lite = self.arch == "efficientnet_lite0"
        for name in ("width", "depth"):
            value = getattr(self, name)
            if not 0 < value < 1e3 or (lite and value != 1):
                raise InputError(f"{name} must be positive, and 1 for EfficientNet-Lite0; got {value}")
        if not self.norm_eps >= 0:
            raise InputError(f"norm_eps must not be negative; got {self.norm_eps}")
        if self.activation and self.activation not in ACTIVATIONS:
            raise InputError(f"expected an activation of {', '.join(ACTIVATIONS)}; got {self.activation!r}")
        if self.scaled not in ("inputs", "all"):
            raise InputError(f'expected scaled "inputs" or "all"; got {self.scaled!r}')


@dataclasses.dataclass(frozen=True)
class BlockShape:
    """Channels, kernel size and stride of one inverted residual block, and its place in its stage.

    squeeze:  channels of its squeeze-and-excitation; 0 where there is none.
    residual: whether its input is added to its output.
    """

    stage: int  # timm numbers blocks within stages
    place: int
    fan_in: int
    hidden: int
    fan_out: int
    kernel: int
    stride: int
    squeeze: int
    activation: str
    padding: Padding
    residual: bool


class NetworkShape(NamedTuple):
    """Channels of the stem, every block, channels of the head's convolution and of the layer behind it (0: none)."""

    stem: int
    blocks: tuple[BlockShape, ...]
    head: int
    hidden: int
    activation: str


def _round_channels(wanted: float | int, divisor: int = 8) -> int:
    """A multiple of the divisor near the number wanted, at least the divisor and never below 90 % of it."""
    rounded = max(divisor, int(wanted + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * wanted else rounded


def _counts(stage: tuple[Row, ...], depth: float | int) -> list[int]:
    """The blocks of each row at a depth: as many as the stage needs, the last rows first (as timm shares them out)."""
    left, wanted, counts = sum(row.count for row in stage), math.ceil(sum(row.count for row in stage) * depth), []
    for row in reversed(stage):
        counts.append(max(1, round(row.count / left * wanted)))
        left, wanted = left - row.count, wanted - counts[-1]
    return counts[::-1]


@functools.cache
def network_shape(config: InvertedResidualConfig) -> NetworkShape:
    """Every channel and block of a network of this config."""
    arch = _ARCHS[config.arch]
    activation = config.activation or arch.activation
    third = config.arch.startswith("mobilenet_v3")

    def scale(channels: int) -> int:
        return _round_channels(channels * config.width, config.divisor)

    # timm's MobileNetV3 keeps its stem where it is narrower than three quarters.
    stem = arch.stem if third and config.width < 0.75 and config.scaled == "inputs" else scale(arch.stem)
    channels, before, blocks = stem, arch.stem, []
    for stage, rows in enumerate(config.stages or arch.stages):
        place = 0
        for row, count in zip(rows, _counts(rows, config.depth), strict=True):
            for i in range(count):
                hidden = _hidden(config, row, channels, before)
                squeeze = _round_channels(hidden * 0.25) if third else max(1, int(channels * config.squeeze_ratio))
                out, stride = scale(row.channels), row.stride if i == 0 else 1
                # Hugging Face's EfficientNet has no residual in the first block of a stage.
                residual = stride == 1 and channels == out and not (config.padding == "keras" and place == 0)
                padding = "symmetric" if len(blocks) in config.symmetric_blocks else config.padding
                squeeze, act = squeeze if row.squeeze else 0, row.activation or activation
                blocks.append(
                    BlockShape(stage, place, channels, hidden, out, row.kernel, stride, squeeze, act, padding, residual)
                )
                channels, before, place = out, row.channels, place + 1
    if third and config.scaled == "all":
        return NetworkShape(stem, tuple(blocks), 6 * channels, scale(arch.hidden), activation)
    head = max(arch.head, scale(arch.head)) if config.arch == "mobilenet_v2" else scale(arch.head)
    return NetworkShape(stem, tuple(blocks), head, arch.hidden, activation)


def _hidden(config: InvertedResidualConfig, row: Row, channels: int, before: int) -> int:
    """The channels inside a block which `channels` enter, `before` of them at width 1."""
    if not config.arch.startswith("mobilenet_v3"):
        return int(channels * row.expansion)
    if config.scaled == "all":
        return _round_channels(_round_channels(before * row.expansion) * config.width)
    return channels if row.expansion == 1 else _round_channels(channels * row.expansion)
