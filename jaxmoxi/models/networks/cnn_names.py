"""What four frameworks call each tensor of a chain of inverted residual blocks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from jaxmoxi.errors import InputError
from jaxmoxi.models.checkpoints.tensors import Place
from jaxmoxi.models.networks.cnn_config import BlockShape, InvertedResidualConfig, network_shape

Naming = Literal["efficientnet_pytorch", "timm", "torchvision", "huggingface"]
Shape = tuple[int, ...]

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
_ENDS_EFFICIENTNET = (
    "efficientnet.embeddings.convolution",
    "efficientnet.embeddings.batchnorm",
    "efficientnet.encoder.top_conv",
    "efficientnet.encoder.top_bn",
    "classifier",
)
# MobileNetV3 pools before its last convolution, which is a layer behind the head's here.
_LAST_OF_V3 = {"timm": ("conv_head", "classifier"), "torchvision": ("classifier.0", "classifier.3")}

_PARTS = ("expand", "depthwise", "project")


def detect_naming(tensors: Mapping[str, object]) -> Naming:
    """Which framework's names a checkpoint uses, told by its stem. Raises ValueError if the names are unknown."""
    for naming, (stem, *_) in _ENDS.items():
        if f"{stem}.weight" in tensors:
            return naming  # type: ignore[return-value]
    if f"{_ENDS_EFFICIENTNET[0]}.weight" in tensors:
        return "huggingface"
    signs = ", ".join(f"{naming} ({stem}.weight, ...)" for naming, (stem, *_) in _ENDS.items())
    raise InputError(
        f"expected the tensors of EfficientNet or MobileNet in the names of {signs}; "
        f"got {', '.join(sorted(tensors)[:4]) or 'none'}, ...: rename them"
    )


def stem_name(tensors: Mapping[str, object]) -> str:
    """What the first convolution is called."""
    stems = [stem for stem, *_ in (*_ENDS.values(), _ENDS_EFFICIENTNET)]
    return next(stem for stem in stems if f"{stem}.weight" in tensors)


def classifier_name(arch: str, naming: Naming) -> str:
    """What the final linear layer is called."""
    if arch.startswith("mobilenet_v3") and naming in _LAST_OF_V3:
        return _LAST_OF_V3[naming][1]
    return _ENDS[naming][-1]


def expected_tensors(config: InvertedResidualConfig, naming: Naming) -> dict[str, Shape]:
    """Every tensor a checkpoint of this naming must hold, with its shape (PyTorch's layouts), BatchNorm unfolded."""
    expected: dict[str, Shape] = {}
    for conv, norm, shape in convolutions(config, naming).values():
        expected[f"{conv}.weight"] = shape
        expected |= {f"{norm}.{leaf}": shape[:1] for leaf in ("weight", "bias", "running_mean", "running_var")}
    for name, shape in linears(config, naming).values():
        expected |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    return expected


def convolutions(config: InvertedResidualConfig, naming: Naming) -> dict[Place, tuple[str, str, Shape]]:
    """Of every convolution, by its place in our network: its name, its BatchNorm's name, the shape of its weight."""
    shape = network_shape(config)
    ends = _ends(config, naming)
    table: dict[Place, tuple[str, str, Shape]] = {
        ("stem",): (ends[0], ends[1], (shape.stem, config.num_channels, 3, 3))
    }
    for i, b in enumerate(shape.blocks):
        shapes = {
            "expand": (b.hidden, b.fan_in, 1, 1),
            "depthwise": (b.hidden, 1, b.kernel, b.kernel),
            "project": (b.fan_out, b.hidden, 1, 1),
        }
        if b.hidden == b.fan_in:
            del shapes["expand"]
        for place, (part, weight) in enumerate(shapes.items()):
            conv, norm = _conv_names(config, naming, i, b, part, place, len(shapes))
            table["blocks", i, part] = (conv, norm, weight)
    table["head",] = (ends[2], ends[3], (shape.head, shape.blocks[-1].fan_out, 1, 1))
    return table


def linears(config: InvertedResidualConfig, naming: Naming) -> dict[Place, tuple[str, Shape]]:
    """Of every layer without BatchNorm, by its place in our network: its name and the shape of its weight."""
    shape = network_shape(config)
    table: dict[Place, tuple[str, Shape]] = {}
    for i, b in enumerate(shape.blocks):
        if b.squeeze:
            reduce, expand = _squeeze_names(config, naming, i, b)
            table["blocks", i, "squeeze", "reduce"] = (reduce, (b.squeeze, b.hidden, 1, 1))
            table["blocks", i, "squeeze", "expand"] = (expand, (b.hidden, b.squeeze, 1, 1))
    if shape.hidden:
        pixel = (1, 1) if naming == "timm" else ()
        table["hidden",] = (_LAST_OF_V3[naming][0], (shape.hidden, shape.head, *pixel))
    linear = (config.num_classes, shape.hidden or shape.head)
    return table | {("classifier",): (classifier_name(config.arch, naming), linear)}


def _ends(config: InvertedResidualConfig, naming: Naming) -> tuple[str, ...]:
    shape, arch = network_shape(config), config.arch
    if naming == "huggingface" and arch == "efficientnet":
        return _ENDS_EFFICIENTNET
    stem, norm, head, head_norm, linear = _ENDS[naming]
    stages = shape.blocks[-1].stage + 1
    if naming == "timm" and shape.hidden:
        head, head_norm = f"blocks.{stages}.0.conv", f"blocks.{stages}.0.bn1"
    last = stages + 1 if arch == "efficientnet" else len(shape.blocks) + 1
    return stem, norm, head.format(last=last), head_norm.format(last=last), linear


def _conv_names(
    config: InvertedResidualConfig, naming: Naming, i: int, block: BlockShape, part: str, place: int, count: int
) -> tuple[str, str]:
    """The names of a block's convolution, the `place`-th of `count`, and of its BatchNorm."""
    if naming == "efficientnet_pytorch":
        return f"_blocks.{i}._{part}_conv", f"_blocks.{i}._bn{_PARTS.index(part)}"
    if naming == "timm":
        name = {"expand": "conv_pw", "depthwise": "conv_dw", "project": "conv_pwl" if count == 3 else "conv_pw"}[part]
        root = f"blocks.{block.stage}.{block.place}"
        return f"{root}.{name}", f"{root}.bn{place + 1}"
    if naming == "torchvision":
        root = _torchvision_block(config, i, block)
        if config.arch == "mobilenet_v2" and part == "project":  # without activation it is not wrapped like the others
            return f"{root}.{place}", f"{root}.{place + 1}"
        number = place + 1 if part == "project" and block.squeeze else place
        return f"{root}.{number}.0", f"{root}.{number}.1"
    if config.arch == "efficientnet":
        root = f"efficientnet.encoder.blocks.{i}"
        return {
            "expand": (f"{root}.expansion.expand_conv", f"{root}.expansion.expand_bn"),
            "depthwise": (f"{root}.depthwise_conv.depthwise_conv", f"{root}.depthwise_conv.depthwise_norm"),
            "project": (f"{root}.projection.project_conv", f"{root}.projection.project_bn"),
        }[part]
    root = "mobilenet_v2.conv_stem" if i == 0 else f"mobilenet_v2.layer.{i - 1}"
    name = {"expand": "expand_1x1", "depthwise": "conv_3x3", "project": "reduce_1x1"}[part]
    return f"{root}.{name}.convolution", f"{root}.{name}.normalization"


def _squeeze_names(config: InvertedResidualConfig, naming: Naming, i: int, block: BlockShape) -> tuple[str, str]:
    """The names of the two layers of a block's squeeze-and-excitation."""
    if naming == "efficientnet_pytorch":
        return f"_blocks.{i}._se_reduce", f"_blocks.{i}._se_expand"
    if naming == "timm":
        root = f"blocks.{block.stage}.{block.place}.se"
        return f"{root}.conv_reduce", f"{root}.conv_expand"
    if naming == "torchvision":
        number = 1 if block.hidden == block.fan_in else 2
        root = f"{_torchvision_block(config, i, block)}.{number}"
        return f"{root}.fc1", f"{root}.fc2"
    root = f"efficientnet.encoder.blocks.{i}.squeeze_excite"
    return f"{root}.reduce", f"{root}.expand"


def _torchvision_block(config: InvertedResidualConfig, i: int, block: BlockShape) -> str:
    if config.arch == "efficientnet":
        return f"features.{block.stage + 1}.{block.place}.block"
    return f"features.{i + 1}.{'conv' if config.arch == 'mobilenet_v2' else 'block'}"
