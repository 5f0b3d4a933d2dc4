"""The shape of a ConvNeXt, and what four frameworks call each of its tensors.

The network is in `convnext`; what a `config.json` says of it is read in `convnext_settings`.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Literal, NamedTuple

import numpy as np

from jaxmoxi.errors import InputError
from jaxmoxi.models.networks.base import ImageSize, checked_size
from jaxmoxi.models.networks.hidden_act import ACTIVATIONS


@dataclasses.dataclass(frozen=True)
class ConvNextConfig:
    """The shape of a ConvNeXt. The defaults are ConvNeXt-T's.

    depths, dims: blocks and channels of each stage.
    kernels:      side of the depthwise kernels of each stage, odd.
    image_size:   a side, or (height, width), in pixels, of the images it is meant for; the weights do not depend on it.
    patch_size:   side of the patches that the stem makes pixels of; 4 for a stem of 3x3 convolutions.
    stem_width:   channels between the two 3x3 convolutions, each of stride 2, of timm's overlapping stems; 0: patches.
    activation:   of the blocks.
    norm_eps:     what each norm adds to the variance, and `head_eps`, what the last one does.
    norm_first:   the last norm stands before the mean over positions, as in timm's `head_norm_first`.
    hidden:       width of a layer with GELU before the classifier; 0: none.
    grn:          the blocks have global response normalisation (ConvNeXt V2).
    layer_scale:  the checkpoint scales each block's output. `from_tensors` folds the scales into the weights.
    """

    depths: tuple[int, ...] = (3, 3, 9, 3)
    dims: tuple[int, ...] = (96, 192, 384, 768)
    kernels: tuple[int, ...] = (7, 7, 7, 7)
    num_classes: int = 1000
    image_size: ImageSize = 224
    num_channels: int = 3
    patch_size: int = 4
    stem_width: int = 0
    activation: str = "gelu"
    norm_eps: float = 1e-6
    head_eps: float = 1e-6
    norm_first: bool = False
    hidden: int = 0
    grn: bool = False
    layer_scale: bool = True

    def __post_init__(self):
        object.__setattr__(self, "image_size", checked_size(self.image_size))
        if not self.depths or not len(self.depths) == len(self.dims) == len(self.kernels):
            raise InputError(
                "expected depths, dims and kernels of the same number of stages; got "
                f"{self.depths}, {self.dims} and {self.kernels}"
            )
        for name in ("num_classes", "num_channels", "patch_size"):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < 1:
                raise InputError(f"{name} must be a whole number of at least 1; got {getattr(self, name)!r}")
        if min(*self.depths, *self.dims) < 1 or any(k % 2 == 0 for k in self.kernels):
            raise InputError(
                f"depths and dims must be positive, and kernels odd; got {self.depths}, {self.dims} and {self.kernels}"
            )
        if self.activation not in ACTIVATIONS:
            raise InputError(f"expected an activation of {', '.join(ACTIVATIONS)}; got {self.activation!r}")
        if self.norm_first and self.hidden:
            raise InputError("norm_first=True goes with no hidden layer before the classifier")
        if self.stem_width and self.patch_size != 4:
            raise InputError(f"a stem of two 3x3 convolutions makes patches of 4 pixels; got {self.patch_size}")

    @property
    def smallest_side(self) -> int:
        """The side in pixels of the smallest image that leaves one position to the last stage."""
        return self.patch_size * 2 ** (len(self.dims) - 1)


class _Names(NamedTuple):
    """What a framework calls the parts. {s} is a stage; {a} and {b} are 2s and 2s + 1, as torchvision counts."""

    stem: str
    stem_norm: str
    down_norm: str
    down: str
    block: str
    depthwise: str
    norm: str
    fc1: str
    fc2: str
    scale: str
    grn: str
    last_norm: str
    head: str


_HUGGINGFACE = _Names(
    "convnext.embeddings.patch_embeddings", "convnext.embeddings.layernorm",
    "convnext.encoder.stages.{s}.downsampling_layer.0", "convnext.encoder.stages.{s}.downsampling_layer.1",
    "convnext.encoder.stages.{s}.layers.{i}", "dwconv", "layernorm", "pwconv1", "pwconv2", "layer_scale_parameter",
    "grn", "convnext.layernorm", "classifier",
)  # fmt: skip
_NAMES = {
    "huggingface": _HUGGINGFACE,
    "huggingface_v2": _Names(*(name.replace("convnext.", "convnextv2.") for name in _HUGGINGFACE)),
    "torchvision": _Names(
        "features.0.0", "features.0.1", "features.{a}.0", "features.{a}.1", "features.{b}.{i}", "block.0", "block.2",
        "block.3", "block.5", "layer_scale", "grn", "classifier.0", "classifier.2",
    ),
    "timm": _Names(
        "stem.0", "stem.1", "stages.{s}.downsample.0", "stages.{s}.downsample.1", "stages.{s}.blocks.{i}", "conv_dw",
        "norm", "mlp.fc1", "mlp.fc2", "gamma", "mlp.grn", "head.norm", "head.fc",
    ),
    "facebook": _Names(
        "downsample_layers.0.0", "downsample_layers.0.1", "downsample_layers.{s}.0", "downsample_layers.{s}.1",
        "stages.{s}.{i}", "dwconv", "norm", "pwconv1", "pwconv2", "gamma", "grn", "norm", "head",
    ),
}  # fmt: skip
Naming = Literal["huggingface", "huggingface_v2", "torchvision", "timm", "facebook"]
HIDDEN, NORM_FIRST = "head.pre_logits.fc", "norm_pre"  # timm's alone


def detect_naming(tensors: Mapping[str, object]) -> Naming:
    """Which framework's names a checkpoint uses, told by its stem. Raises ValueError if the names are unknown."""
    for naming, names in _NAMES.items():
        if f"{names.stem}.weight" in tensors:
            return naming  # type: ignore[return-value]
    signs = ", ".join(f"{naming} ({names.stem}.weight, ...)" for naming, names in _NAMES.items())
    raise InputError(
        f"expected the tensors of ConvNeXt in the names of {signs}; got {', '.join(sorted(tensors)[:4]) or 'none'}, "
        "...: rename them"
    )


def block_names(naming: Naming, stage: int, place: int) -> dict[str, str]:
    """What the parts of a block are called, by our names of them."""
    names = _NAMES[naming]
    root = names.block.format(s=stage, b=2 * stage + 1, i=place)
    parts = ("depthwise", "norm", "fc1", "fc2", "scale", "grn")
    return {part: f"{root}.{getattr(names, part)}" for part in parts}


def outer_names(naming: Naming, config: ConvNextConfig) -> dict[str, str]:
    """What the parts outside of blocks are called: "stem", "stem_norm", ("down_norm.1", "down.1"), ... "head"."""
    names = _NAMES[naming]
    found = {"stem": names.stem, "stem_norm": names.stem_norm}
    if config.stem_width:
        found |= {"stem_second": "stem.1", "stem_norm": "stem.2"}
    for s in range(1, len(config.dims)):
        found |= {f"{part}.{s}": getattr(names, part).format(s=s, a=2 * s) for part in ("down_norm", "down")}
    found["norm"] = NORM_FIRST if config.norm_first else names.last_norm
    if config.hidden:
        found["hidden"] = HIDDEN
    return found | {"head": names.head}


def flat_tensors(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The tensors with matrices and vectors for convolutions of one pixel, and for scales that have empty axes.

    timm's smaller networks hold their linear layers as convolutions, torchvision its scales as [C, 1, 1].
    """
    flat = {}
    for name, tensor in tensors.items():
        shape = tuple(tensor.shape)
        if re.search(r"(fc[12]|fc)\.weight$", name) and len(shape) == 4 and shape[2:] == (1, 1):
            tensor = tensor.reshape(shape[:2])
        elif re.search(r"(layer_scale|grn\.weight|grn\.bias)$", name) and max(shape, default=0) == np.prod(shape):
            tensor = tensor.reshape(-1)
        flat[name] = tensor
    return flat


def expected_tensors(config: ConvNextConfig, naming: Naming) -> dict[str, tuple[int, ...]]:
    """Every tensor that a checkpoint of this naming must hold, with its shape, as `flat_tensors` leaves it."""
    dims, outer = config.dims, outer_names(naming, config)
    shapes: dict[str, tuple[int, ...]] = {
        "stem": (dims[0], config.num_channels, config.patch_size, config.patch_size),
        "stem_norm": (dims[0],),
        "norm": (dims[-1],),
        "hidden": (config.hidden, dims[-1]),
        "head": (config.num_classes, config.hidden or dims[-1]),
    }
    if config.stem_width:
        shapes |= {"stem": (config.stem_width, config.num_channels, 3, 3)}
        shapes |= {"stem_second": (dims[0], config.stem_width, 3, 3)}
    for s in range(1, len(dims)):
        shapes |= {f"down_norm.{s}": (dims[s - 1],), f"down.{s}": (dims[s], dims[s - 1], 2, 2)}
    layers = [(name, shapes[part]) for part, name in outer.items()]
    expected: dict[str, tuple[int, ...]] = {}
    for s, (depth, dim, kernel) in enumerate(zip(config.depths, dims, config.kernels, strict=True)):
        parts = {"depthwise": (dim, 1, kernel, kernel), "norm": (dim,), "fc1": (4 * dim, dim), "fc2": (dim, 4 * dim)}
        if config.grn:
            parts["grn"] = (4 * dim,)
        for i in range(depth):
            names = block_names(naming, s, i)
            layers += [(names[part], shape) for part, shape in parts.items()]
            if config.layer_scale:
                expected[names["scale"]] = (dim,)
    for name, shape in layers:
        expected |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    return expected
