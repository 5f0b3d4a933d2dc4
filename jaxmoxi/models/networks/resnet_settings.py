"""What a `config.json` says of a ResNet: Hugging Face's, which describes it, or timm's and others', which name it.

Every setting that changes the network is honoured or refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxmoxi.errors import InputError
from jaxmoxi.models.checkpoints.settings import (
    FIXED,
    TIMM_CFG,
    check_keys,
    flag,
    input_size,
    pair,
    text,
    timm_arguments,
    whole,
)
from jaxmoxi.models.checkpoints.torch_pickle import brief
from jaxmoxi.models.networks.base import ImageSize
from jaxmoxi.models.networks.hidden_act import activation_name
from jaxmoxi.models.networks.published import published_photos, published_size
from jaxmoxi.models.networks.registry import network_kind
from jaxmoxi.models.networks.resnet_config import Naming, ResNetConfig, classifier_name, detect_naming, stem_name
from jaxmoxi.models.preprocess import Preprocessing

_READ = {
    "depths", "downsample_in_bottleneck", "downsample_in_first_stage", "embedding_size", "hidden_act", "hidden_sizes",
    "image_size", "layer_type", "num_channels", "out_features", "out_indices", "stage_names",
}  # fmt: skip
# Arguments of timm's ResNet that change the network, and the one value of each that is implemented.
_TIMM_FIXED = {
    "aa_layer": None,
    "avg_down": False,
    "block_args": None,
    "block_reduce_first": 1,
    "cardinality": 1,
    "down_kernel_size": 1,
    "global_pool": "avg",
    "output_stride": 32,
    "replace_stem_pool": False,
    "stem_type": None,
}
_TIMM_READ = {
    "act_layer", "base_width", "block", "channels", "in_chans", "layers", "norm_layer", "num_classes", "num_features",
}  # fmt: skip
_TIMM_HARMLESS = {"drop_block_rate", "drop_path_rate", "drop_rate", "stem_width", "zero_init_last"}  # of a plain stem
_SPEAKS_OF = {"architecture", "label_descriptions", "label_names", "model_args", "pretrained_cfg"}

# Plain ResNets in timm's and torchvision's names: blocks of each stage, and whether they are bottlenecks.
_NAMED = {
    "resnet18": ((2, 2, 2, 2), False),
    "resnet34": ((3, 4, 6, 3), False),
    "resnet26": ((2, 2, 2, 2), True),
    "resnet50": ((3, 4, 6, 3), True),
    "resnet101": ((3, 4, 23, 3), True),
    "resnet152": ((3, 8, 36, 3), True),
    "wide_resnet50_2": ((3, 4, 6, 3), True),
    "wide_resnet101_2": ((3, 4, 23, 3), True),
}
# timm's older names, and the tags of the same weights today.
_OLDER = (
    (r"tv_(\w+)", r"\1.tv_in1k"),
    (r"gluon_(\w+)_v1b", r"\1.gluon_in1k"),
    (r"ssl_(\w+)", r"\1.fb_ssl_yfcc100m_ft_in1k"),
    (r"swsl_(\w+)", r"\1.fb_swsl_ig1b_ft_in1k"),
)
ARCHITECTURES = (
    *_NAMED, *(f"{name}.*" for name in _NAMED), "tv_resnet*", "gluon_resnet*_v1b", "ssl_resnet*", "swsl_resnet*",
)  # fmt: skip


def _full_name(name: str) -> str:
    """An architecture and, where the name tells, its tag: "resnet50.tv_in1k" for "tv_resnet50"."""
    for pattern, today in _OLDER:
        if re.fullmatch(pattern, name):
            return re.sub(pattern, today, name)
    return name


def config_from_settings(settings: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> ResNetConfig:
    """The shape of the network that a `config.json` describes, Hugging Face's or timm's, and of torchvision's weights.

    tensors: the checkpoint's, by name: they decide on all channels, on the number of classes and, of networks that are
             only named, on the blocks of each stage.

    Raises ValueError for variants that are not implemented, and where file and tensors contradict each other. Warns of
    settings that are not known.
    """
    naming, kind = detect_naming(tensors), network_kind(settings)
    if (kind == "resnet") != (naming == "huggingface"):
        raise InputError(f"the config says {brief(kind)!r}, the tensors are named as in {naming}; correct one of them")
    return (_huggingface if naming == "huggingface" else _timm)(settings, tensors)


def _huggingface(settings: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> ResNetConfig:
    check_keys(settings, fixed=FIXED, read=_READ)
    layer = text(settings, "layer_type", "bottleneck")
    if layer not in ("basic", "bottleneck"):
        raise InputError(f'expected layer_type "basic" or "bottleneck"; got {brief(layer)!r}: not implemented')
    depths = _numbers(settings, "depths", (3, 4, 6, 3))
    widths = _numbers(settings, "hidden_sizes", (256, 512, 1024, 2048))
    config = ResNetConfig(
        depths=depths,
        widths=widths,
        inner=tuple(max(1, width // 4) for width in widths) if layer == "bottleneck" else (),
        stem=whole(settings, "embedding_size", 64),
        first_stride=2 if flag(settings, "downsample_in_first_stage", False) else 1,
        stride_in_1x1=flag(settings, "downsample_in_bottleneck", False),
        activation=activation_name(settings, "hidden_act", "relu"),
        num_classes=_classes(tensors, "huggingface"),
        image_size=pair(settings, "image_size", 224),
        num_channels=_stem(tensors, "huggingface")[1],
    )
    said = whole(settings, "num_channels", config.num_channels)
    _agree({"num_channels": (said, config.num_channels)})
    found = _count(tensors, r"resnet\.encoder\.stages\.(\d+)\.layers\.(\d+)\.")
    _agree({"depths": (depths, found)})
    return config


def _timm(settings: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> ResNetConfig:
    kind, args = _full_name(network_kind(settings)), _arguments(settings)
    if kind.partition(".")[0] not in _NAMED:
        raise InputError(f"expected an architecture of {', '.join(_NAMED)}; got {brief(repr(kind))}")
    named, bottleneck = _NAMED[kind.partition(".")[0]]
    said: dict[str, tuple[Any, Any]] = {}
    depths = _count(tensors, r"layer(\d+)\.(\d+)\.")
    said["layers"] = (_numbers(args, "layers", named), depths)
    _agree(said)
    stem, channels = _stem(tensors, "timm")
    stages, last = range(1, len(depths) + 1), 3 if bottleneck else 2
    config = ResNetConfig(
        depths=depths,
        widths=tuple(_fan_out(tensors, f"layer{s}.0.conv{last}.weight") for s in stages),
        inner=tuple(_fan_out(tensors, f"layer{s}.0.conv1.weight") for s in stages if bottleneck),
        stem=stem,
        activation=activation_name(args, "act_layer", "relu"),
        within=activation_name(args, "act_layer", "relu"),
        num_classes=_classes(tensors, "timm"),
        image_size=_image_size(settings, kind),
        num_channels=channels,
    )
    planes = tuple(width // 4 if bottleneck else width for width in config.widths)
    said["channels"] = (_numbers(args, "channels", planes), planes)
    for name, found in (("in_chans", channels), ("num_classes", config.num_classes)):
        said[name] = (whole(args, name, found), found)
    said["num_features"] = (whole(args, "num_features", config.widths[-1]), config.widths[-1])
    if "base_width" in args and bottleneck:
        inner = tuple(n * whole(args, "base_width", 64) // 64 for n in planes)
        said["base_width"] = (args["base_width"], args["base_width"] if inner == config.inner else "another")
    _agree(said)
    return config


def _arguments(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments in `model_args`, and those that stand beside it."""
    args = timm_arguments(settings, fixed=_TIMM_FIXED, read=_TIMM_READ, harmless=_TIMM_HARMLESS)
    read = _TIMM_FIXED.keys() | _TIMM_READ | _TIMM_HARMLESS
    check_keys(settings, fixed={}, read=read | _SPEAKS_OF | TIMM_CFG | {"image_size"})
    norm = re.sub("_", "", text(args, "norm_layer", "batchnorm2d")).lower()
    if norm not in ("batchnorm", "batchnorm2d", "frozenbatchnorm2d"):
        raise InputError(f"expected norm_layer batchnorm2d; got {brief(repr(args['norm_layer']))}: not implemented")
    return args


def _agree(said: Mapping[str, tuple[Any, Any]]) -> None:
    wrong = [f"{k} is {file} in the config and {found} in the weights" for k, (file, found) in said.items()
             if file != found]  # fmt: skip
    if wrong:
        raise InputError(f"the config describes other weights: {'; '.join(wrong)}; correct one of them")


def _numbers(settings: Mapping[str, Any], name: str, default: tuple[int, ...]) -> tuple[int, ...]:
    value = settings.get(name, default)
    if not isinstance(value, list | tuple) or not 1 <= len(value) <= 16:
        raise InputError(f"{name} must be a list of whole numbers, one for each stage; got {brief(repr(value))}")
    return tuple(whole({name: n}, name, 1, most=1 << 16) for n in value)


def _count(tensors: Mapping[str, object], pattern: str) -> tuple[int, ...]:
    """Blocks of each stage, as the tensors' names say."""
    found = {(int(m[1]), int(m[2])) for name in tensors if (m := re.match(pattern, name))}
    return tuple(sum(stage == s for stage, _ in found) for s in sorted({stage for stage, _ in found}))


def _fan_out(tensors: Mapping[str, np.ndarray], name: str) -> int:
    return max(1, tensors[name].shape[0]) if name in tensors and tensors[name].shape else 1


def _stem(tensors: Mapping[str, np.ndarray], naming: Naming) -> tuple[int, int]:
    shape = tensors[f"{stem_name(naming)}.weight"].shape
    if len(shape) != 4 or shape[2:] != (7, 7) or not min(shape):
        raise InputError(f"expected a stem of one 7x7 convolution; got weights {list(shape)}: not implemented")
    return shape[0], shape[1]


def _classes(tensors: Mapping[str, np.ndarray], naming: Naming) -> int:
    weight = tensors.get(f"{classifier_name(naming)}.weight")
    return weight.shape[0] if weight is not None and weight.shape and weight.shape[0] else 1000  # else it is missing


def _image_size(settings: Mapping[str, Any], kind: str) -> ImageSize:
    if "image_size" in settings:
        return pair(settings, "image_size", 224)
    return input_size(settings) or published_size(kind, torchvision=False)


def published_preprocessing(
    settings: Mapping[str, Any], tensors: Mapping[str, np.ndarray], size: int
) -> Preprocessing | None:
    """How the published weights of this name see a photo, for images of `size` pixels; None where nobody knows.

    "resnet50" without a tag may be any of torchvision's or timm's, which differ.
    """
    return published_photos(_full_name(network_kind(settings)), size) if detect_naming(tensors) == "timm" else None
