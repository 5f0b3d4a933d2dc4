"""What a `config.json` says of EfficientNet and MobileNet: Hugging Face's, timm's, and for other weights.

Every setting that changes the network is honoured or refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from jaxmoxi.errors import InputError
from jaxmoxi.models.checkpoints.settings import (
    FIXED,
    TIMM_CFG,
    check_keys,
    flag,
    input_size,
    number,
    pair,
    text,
    timm_arguments,
    whole,
)
from jaxmoxi.models.checkpoints.torch_pickle import brief
from jaxmoxi.models.networks.base import ImageSize
from jaxmoxi.models.networks.cnn_config import InvertedResidualConfig, network_shape
from jaxmoxi.models.networks.cnn_names import Naming, classifier_name, detect_naming, stem_name
from jaxmoxi.models.networks.cnn_stages import blocks_of_settings, stages_of_settings
from jaxmoxi.models.networks.hidden_act import activation_name
from jaxmoxi.models.networks.published import published_photos, published_size, torchvision_photos
from jaxmoxi.models.networks.registry import network_kind
from jaxmoxi.models.networks.timm_names import published_cfg
from jaxmoxi.models.preprocess import Preprocessing

# Settings of Hugging Face's MobileNetV2 that change the network, and the one value of each that is implemented; and
# torchvision's arguments, for folders made by hand.
_FIXED = FIXED | {
    "block": None,
    "depth_divisible_by": 8,
    "dilated": False,
    "expand_ratio": 6,
    "finegrained_output": True,
    "first_layer_is_expansion": True,
    "hidden_act": "relu6",
    "inverted_residual_setting": None,
    "min_depth": 8,
    "norm_layer": None,
    "output_stride": 32,
    "reduced_tail": False,
    "round_nearest": 8,
}
_SPEAKS_OF = {
    "architecture", "image_size", "label_descriptions", "label_names", "model_args", "num_channels", "num_features",
    "pretrained_cfg",
}  # fmt: skip
_READ = {"depth_multiplier", "layer_norm_eps", "tf_padding", "width_mult"}

# Of Hugging Face's EfficientNet. `stages_of_settings` reads the lists.
_EFFICIENTNET_FIXED = FIXED | {"pooling_type": "mean"}
_EFFICIENTNET_READ = {
    "batch_norm_eps", "depth_coefficient", "depth_divisor", "depthwise_padding", "expand_ratios", "hidden_act",
    "hidden_dim", "image_size", "in_channels", "kernel_sizes", "num_block_repeats", "num_channels", "out_channels",
    "squeeze_expansion_ratio", "strides", "width_coefficient",
}  # fmt: skip
_EFFICIENTNET_HARMLESS = {"batch_norm_momentum", "drop_connect_rate", "dropout_rate", "num_hidden_layers"}

# Arguments of timm's networks that change them, and the one value of each that is implemented.
_TIMM_FIXED = {
    "aa_layer": None,
    "block_args": None,
    "bn_tf": False,
    "channel_multiplier": None,
    "depth_multiplier": None,
    "fix_stem": None,
    "fix_stem_head": False,
    "global_pool": "avg",
    "group_size": None,
    "head_bias": True,
    "head_norm": False,
    "norm_layer": None,
    "output_stride": 32,
    "round_chs_fn": None,
    "se_from_exp": None,
    "se_layer": None,
    "stem_kernel_size": 3,
}
_TIMM_READ = {"act_layer", "bn_eps", "in_chans", "num_classes", "num_features", "pad_type"}
_TIMM_HARMLESS = {"bn_momentum", "drop_block_rate", "drop_path_rate", "drop_rate"}

# Width and depth of EfficientNet-B0 to B8.
_COEFFICIENTS = (
    (1.0, 1.0), (1.0, 1.1), (1.1, 1.2), (1.2, 1.4), (1.4, 1.8), (1.6, 2.2), (1.8, 2.6), (2.0, 3.1), (2.2, 3.6),
)  # fmt: skip


class _Named(NamedTuple):
    """What a name says of a network."""

    arch: str
    width: float | None = None
    depth: float = 1.0
    norm_eps: float = 1e-5


def config_from_settings(settings: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> InvertedResidualConfig:
    """The shape of the network a `config.json` describes, Hugging Face's or timm's, and of torchvision's weights.

    settings: the file's content. Of Hugging Face's every setting is read, of timm's the architecture's name and
              `model_args`, for torchvision's names also `width_mult`.
    tensors:  the checkpoint's, by name: the naming decides on padding and BatchNorm's epsilon where the file is
              silent, the weights of stem and classifier on the numbers of channels and classes.

    Raises ValueError for variants that are not implemented. Warns of settings that are not known.
    """
    naming, kind = detect_naming(tensors), network_kind(settings)
    if naming == "huggingface":
        ours = "efficientnet" if "efficientnet" in stem_name(tensors) else "mobilenet_v2"
        if kind != ours:
            raise InputError(f"the config says {brief(kind)!r}, the tensors are those of {ours}; correct one of them")
        if kind == "efficientnet":
            return _huggingface_efficientnet(settings, tensors)
    named = _Named("mobilenet_v2") if naming == "huggingface" else _of_name(kind, naming)
    tensorflow = kind.startswith("tf_") if naming == "timm" else naming != "torchvision"
    args: dict[str, Any] = _timm_args(settings, named.arch) if naming == "timm" else {}
    if naming == "timm":
        check_keys(settings, fixed={}, read=_SPEAKS_OF | args.keys() | _TIMM_FIXED.keys() | TIMM_CFG)
    else:
        check_keys(settings, fixed=_FIXED, read=_SPEAKS_OF | _READ)
    key = "width_mult" if "depth_multiplier" not in settings else "depth_multiplier"
    width = number(settings, key, 1.0, least=0.05, most=8.0) if named.width is None else named.width
    padding = text(args, "pad_type", "same" if tensorflow else "")
    if padding not in ("", "same"):
        raise InputError(f'expected pad_type "" or "same"; got {brief(padding)!r}: not implemented')
    config = InvertedResidualConfig(
        arch=named.arch,  # type: ignore[arg-type]  one of its names
        num_classes=_num_classes(tensors, classifier_name(named.arch, naming)),
        image_size=_image_size(settings, kind, naming),
        width=width,
        depth=named.depth,
        padding="tf_same" if flag(settings, "tf_padding", padding == "same") else "symmetric",
        norm_eps=number(
            {**args, **settings}, "bn_eps" if naming == "timm" else "layer_norm_eps",
            1e-3 if tensorflow else named.norm_eps, least=0.0, most=1.0,
        ),
        num_channels=_stem_channels(settings, tensors),
        activation=activation_name(args, "act_layer", "relu6") if args.get("act_layer") else "",
        scaled="all" if naming == "torchvision" and "v3" in named.arch else "inputs",
    )  # fmt: skip
    shape = network_shape(config)
    _compare(
        args, num_classes=config.num_classes, in_chans=config.num_channels, num_features=shape.hidden or shape.head
    )
    return config


def _of_name(kind: str, naming: Naming) -> _Named:
    """What timm's, torchvision's or efficientnet_pytorch's name of a network says of it."""
    torchvision = naming == "torchvision"
    if "efficientnet_lite0" in kind and naming in ("timm", "efficientnet_pytorch"):
        return _Named("efficientnet_lite0", 1.0)
    if found := re.match(r"(?:tf_)?efficientnet[_-]b([0-8])(_ns|_ap)?(\.|$)", kind):
        width, depth = _COEFFICIENTS[int(found[1])]
        return _Named("efficientnet", width, depth, 1e-3 if torchvision and int(found[1]) >= 5 else 1e-5)
    if torchvision and kind.startswith("mobilenet_v2"):
        return _Named("mobilenet_v2")
    if torchvision and kind in ("mobilenet_v3_large", "mobilenet_v3_small"):
        return _Named(kind, norm_eps=1e-3)
    if naming == "timm" and (found := re.match(r"mobilenetv2_(\d{3})(\.|$)", kind)):
        return _Named("mobilenet_v2", int(found[1]) / 100)  # 110d and 120d are also deeper
    if naming == "timm" and (found := re.match(r"(?:tf_)?mobilenetv3_(large|small)(_minimal)?_(\d{3})(\.|$)", kind)):
        return _Named(f"mobilenet_v3_{found[1]}{found[2] or ''}", int(found[3]) / 100)
    if re.match(r"(tf_)?(efficientnet|mobilenet)", kind) is None:
        raise InputError(f"the config says {brief(kind)!r}, the tensors are named as in {naming}; correct one of them")
    known = {
        "timm": "[tf_]efficientnet_b0 to _b8, efficientnet_lite0, mobilenetv2_035 to _140, [tf_]mobilenetv3_large_100, "
        "_small_050 and the like",
        "torchvision": "efficientnet_b0 to _b7, mobilenet_v2, mobilenet_v3_large or mobilenet_v3_small",
        "efficientnet_pytorch": "efficientnet-b0 to -b8, or efficientnet_lite0",
    }[naming]
    raise InputError(
        f"the tensors are named as in {naming}; expected an architecture {known}; got {brief(kind)!r}: not implemented"
    )


def _huggingface_efficientnet(settings: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> InvertedResidualConfig:
    check_keys(settings, fixed=_EFFICIENTNET_FIXED, read=_EFFICIENTNET_READ | _EFFICIENTNET_HARMLESS)
    config = InvertedResidualConfig(
        arch="efficientnet",
        num_classes=_num_classes(tensors, "classifier"),
        image_size=pair(settings, "image_size", 600),
        width=number(settings, "width_coefficient", 2.0, least=0.01, most=100.0),
        depth=number(settings, "depth_coefficient", 3.1, least=0.01, most=100.0),
        padding="keras",
        symmetric_blocks=blocks_of_settings(settings),
        norm_eps=number(settings, "batch_norm_eps", 1e-3, least=0.0, most=1.0),
        num_channels=_stem_channels(settings, tensors),
        activation=activation_name(settings, "hidden_act", "silu"),
        stages=stages_of_settings(settings),
        squeeze_ratio=number(settings, "squeeze_expansion_ratio", 0.25, least=0.0, most=100.0),
        divisor=whole(settings, "depth_divisor", 8),
    )
    _compare(settings, hidden_dim=network_shape(config).head)
    return config


def _compare(settings: Mapping[str, Any], **found: int) -> None:
    """Raises ValueError where the settings speak of other weights."""
    wrong = [f"{k} is {brief(settings[k])} in the config and {v} in the weights" for k, v in found.items()
             if settings.get(k, v) != v]  # fmt: skip
    if wrong:
        raise InputError(f"the config describes other weights: {'; '.join(wrong)}; correct one of them")


def _num_classes(tensors: Mapping[str, np.ndarray], classifier: str) -> int:
    weight = tensors.get(f"{classifier}.weight")
    return weight.shape[0] if weight is not None and weight.shape and weight.shape[0] else 1000  # else it is missing


def _stem_channels(settings: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> int:
    """The channels of the images: as the stem's weights say; Hugging Face's file must not say otherwise."""
    stem = tensors[f"{stem_name(tensors)}.weight"]
    found = stem.shape[1] if len(stem.shape) == 4 and stem.shape[1] else 3
    said = whole(settings, "num_channels", found)
    if said != found:
        raise InputError(f"num_channels is {said} in the config and {found} in the weights; correct one of them")
    return found


def _timm_args(settings: Mapping[str, Any], arch: str) -> dict[str, Any]:
    """The arguments in `model_args`, and those that stand beside it."""
    fixed = _TIMM_FIXED | {"stem_size": 16 if arch.startswith("mobilenet_v3") else 32}
    return timm_arguments(settings, fixed=fixed, read=_TIMM_READ, harmless=_TIMM_HARMLESS)


def _image_size(settings: Mapping[str, Any], kind: str, naming: Naming) -> ImageSize:
    if "image_size" in settings:
        return pair(settings, "image_size", 224)
    named = kind.replace("efficientnet-b", "tf_efficientnet_b")
    return input_size(settings) or published_size(named, torchvision=naming == "torchvision")


def published_preprocessing(
    settings: Mapping[str, Any], tensors: Mapping[str, np.ndarray], size: int
) -> Preprocessing | None:
    """How the published weights of these names see a photo, for images of `size` pixels; None where nobody knows."""
    naming, kind = detect_naming(tensors), network_kind(settings)
    if naming == "timm":
        cfg = published_cfg(kind)
        if cfg is None:
            return published_photos(kind, size)
        return Preprocessing.from_timm({**cfg, "input_size": (3, size, size)})
    if naming == "huggingface":  # all of google/mobilenet_v2_* and google/efficientnet-b*
        if kind == "efficientnet":
            return efficientnet_preprocessing(size)
        return Preprocessing.from_huggingface({"image_processor_type": "MobileNetV2ImageProcessor"}, size)
    if naming == "efficientnet_pytorch":
        return lite_preprocessing(size) if "lite" in kind else published_photos("tf_" + kind.replace("-", "_"), size)
    if kind.startswith("mobilenet_v2"):
        return Preprocessing.from_timm({"input_size": (3, size, size), "interpolation": "bilinear"})
    return torchvision_photos(kind, size)


def lite_preprocessing(size: int) -> Preprocessing:
    """How EfficientNet-Lite0's original weights see a photo: neither with ImageNet's usual numbers nor with 127.5."""
    return Preprocessing(
        resize=size * 8 // 7,
        crop=(size, size),
        resample=3,
        rescale_factor=1.0,
        mean=(127.0, 127.0, 127.0),
        std=(128.0, 128.0, 128.0),
    )


def efficientnet_preprocessing(size: int) -> Preprocessing:
    """How google/efficientnet-b* see a photo: both sides resized to the nearest pixels, divided twice by roots."""
    roots = [0.47853944, 0.4732864, 0.47434163]
    content = {"image_mean": [0.485, 0.456, 0.406], "image_std": roots, "resample": 0, "include_top": True}
    content |= {"image_processor_type": "EfficientNetImageProcessor", "size": {"height": size, "width": size}}
    return Preprocessing.from_huggingface(content, size)
