"""What a `config.json` says of EfficientNet-Lite0 and MobileNetV2: Hugging Face's, timm's, and for other weights.

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
    mapping,
    number,
    pair,
    text,
    whole,
)
from jaxmoxi.models.checkpoints.torch_pickle import brief
from jaxmoxi.models.networks.base import ImageSize
from jaxmoxi.models.networks.cnn_config import (
    InvertedResidualConfig,
    Naming,
    classifier_name,
    detect_naming,
    network_shape,
    stem_name,
)
from jaxmoxi.models.networks.registry import network_kind
from jaxmoxi.models.networks.timm_names import published_cfg
from jaxmoxi.models.preprocess import Preprocessing

# Settings of Hugging Face's MobileNetV2 that change the network, and the one value of each that is implemented; and
# torchvision's arguments, for folders made by hand.
_FIXED = FIXED | {
    "block": None,
    "depth_divisible_by": 8,
    "expand_ratio": 6,
    "finegrained_output": True,
    "first_layer_is_expansion": True,
    "hidden_act": "relu6",
    "inverted_residual_setting": None,
    "min_depth": 8,
    "norm_layer": None,
    "output_stride": 32,
    "round_nearest": 8,
}
_READ = {
    "architecture", "depth_multiplier", "image_size", "label_descriptions", "label_names", "layer_norm_eps",
    "model_args", "num_channels", "num_features", "pretrained_cfg", "tf_padding", "width_mult",
}  # fmt: skip

# Arguments of timm's EfficientNet that change the network, and the one value of each that is implemented.
_TIMM_FIXED = {
    "aa_layer": None,
    "act_layer": "relu6",
    "block_args": None,
    "bn_tf": False,
    "channel_multiplier": None,
    "depth_multiplier": None,
    "fix_stem": None,
    "fix_stem_head": False,
    "global_pool": "avg",
    "group_size": None,
    "norm_layer": None,
    "output_stride": 32,
    "round_chs_fn": None,
    "se_layer": None,
    "stem_kernel_size": 3,
    "stem_size": 32,
}
_TIMM_READ = {"bn_eps", "in_chans", "num_classes", "num_features", "pad_type"}
_TIMM_HARMLESS = {"bn_momentum", "drop_block_rate", "drop_path_rate", "drop_rate"}


def config_from_settings(settings: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> InvertedResidualConfig:
    """The shape of the network a `config.json` describes, Hugging Face's or timm's, and of torchvision's weights.

    settings: the file's content. Read are `model_type` or `architecture`, `image_size`, and Hugging Face's
              `depth_multiplier`, `tf_padding` and `layer_norm_eps`; for torchvision's names also `width_mult`; for
              timm's `model_args`.
    tensors:  the checkpoint's, by name: the naming decides on padding and BatchNorm's epsilon where the file is
              silent, the classifier's weight on the number of classes.

    Raises ValueError for variants that are not implemented. Warns of settings that are not known.
    """
    naming = detect_naming(tensors)
    kind = network_kind(settings)
    lite = "efficientnet_lite0" in kind
    if lite != (naming == "efficientnet_pytorch") and naming != "timm":
        raise InputError(f"the config says {brief(kind)!r}, the tensors are named as in {naming}; correct one of them")
    tensorflow = kind.startswith("tf_") if naming == "timm" else naming != "torchvision"
    args: dict[str, Any] = _timm_args(settings) if naming == "timm" else {}
    timm = naming == "timm"
    check_keys(settings, fixed={} if timm else _FIXED, read=_READ | args.keys() | (TIMM_CFG if timm else set()))
    width = number(settings, "width_mult" if "depth_multiplier" not in settings else "depth_multiplier", 1.0,
                   least=0.05, most=8.0)  # fmt: skip
    if naming == "timm" and not lite:
        found = re.match(r"mobilenetv2_(\d{3})(\.|$)", kind)  # mobilenetv2_110d and 120d are also deeper
        if found is None:
            raise InputError(f"expected an architecture mobilenetv2_035 to _140; got {brief(kind)!r}: not implemented")
        width = int(found[1]) / 100
    padding = text(args, "pad_type", "same" if tensorflow else "")
    if padding not in ("", "same"):
        raise InputError(f'expected pad_type "" or "same"; got {brief(padding)!r}: not implemented')
    classifier = tensors.get(f"{classifier_name(naming)}.weight")
    config = InvertedResidualConfig(
        arch="efficientnet_lite0" if lite else "mobilenet_v2",
        num_classes=classifier.shape[0] if classifier is not None and classifier.shape else 1000,  # else it is missing
        image_size=_image_size(settings),
        width=width,
        padding="tf_same" if flag(settings, "tf_padding", padding == "same") else "symmetric",
        norm_eps=number(
            {**args, **settings}, "bn_eps" if naming == "timm" else "layer_norm_eps", 1e-3 if tensorflow else 1e-5,
            least=0.0, most=1.0,
        ),
        num_channels=_stem_channels(settings, args, tensors, naming),
    )  # fmt: skip
    said = {
        "num_classes": config.num_classes,
        "in_chans": config.num_channels,
        "num_features": network_shape(config)[2],
    }
    wrong = [f"{k} is {args[k]} in the config and {v} in the weights" for k, v in said.items() if args.get(k, v) != v]
    if wrong:
        raise InputError(f"the config describes other weights: {'; '.join(wrong)}; correct one of them")
    return config


def _stem_channels(
    settings: Mapping[str, Any], args: Mapping[str, Any], tensors: Mapping[str, np.ndarray], naming: Naming
) -> int:
    """The channels of the images: as the stem's weights say; Hugging Face's file must not say otherwise."""
    stem = tensors[f"{stem_name(naming)}.weight"]
    found = stem.shape[1] if len(stem.shape) == 4 and stem.shape[1] else 3
    said = whole(settings, "num_channels", found)
    if said != found:
        raise InputError(f"num_channels is {said} in the config and {found} in the weights; correct one of them")
    return found


def _timm_args(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments in `model_args`, and those that stand beside it."""
    beside = {k: v for k, v in settings.items() if k in _TIMM_FIXED.keys() | _TIMM_READ}
    args = {**beside, **mapping(settings, "model_args")}
    unheard = sorted(args.keys() - _TIMM_FIXED.keys() - _TIMM_READ - _TIMM_HARMLESS)
    if unheard:
        raise InputError(f"model_args {', '.join(map(brief, unheard))} may change the network and are not known")
    check_keys(args, fixed=_TIMM_FIXED, read=_TIMM_READ | _TIMM_HARMLESS)
    return args


def _image_size(settings: Mapping[str, Any]) -> ImageSize:
    if "image_size" in settings:
        return pair(settings, "image_size", 224)
    sizes = mapping(settings, "pretrained_cfg").get("input_size", (3, 224, 224))
    if not isinstance(sizes, list | tuple) or len(sizes) != 3:
        raise InputError(f"expected input_size [3, s, s]; got {brief(repr(sizes))}")
    return pair({"input_size": list(sizes[1:])}, "input_size", 224)


def published_preprocessing(
    settings: Mapping[str, Any], tensors: Mapping[str, np.ndarray], size: int
) -> Preprocessing | None:
    """How the published weights of these names see a photo, for images of `size` pixels; None where nobody knows."""
    naming: Naming = detect_naming(tensors)
    if naming == "timm":
        cfg = published_cfg(network_kind(settings))
        return None if cfg is None else Preprocessing.from_timm({**cfg, "input_size": (3, size, size)})
    if naming == "huggingface":  # all of google/mobilenet_v2_*
        return Preprocessing.from_huggingface({"image_processor_type": "MobileNetV2ImageProcessor"}, size)
    if naming == "efficientnet_pytorch":
        return lite_preprocessing(size)
    return Preprocessing.from_timm({"input_size": (3, size, size), "interpolation": "bilinear"})  # torchvision's


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
