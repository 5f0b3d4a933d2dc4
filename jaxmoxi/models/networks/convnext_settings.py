"""What a `config.json` says of a ConvNeXt: Hugging Face's, timm's, or one that only names torchvision's weights.

The weights decide on every size. A setting that changes the network is honoured, or refused by name, and one that
contradicts the weights is refused.
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
    input_size,
    number,
    pair,
    side,
    timm_arguments,
    whole,
)
from jaxmoxi.models.checkpoints.torch_pickle import brief
from jaxmoxi.models.networks.base import ImageSize
from jaxmoxi.models.networks.convnext_config import (
    HIDDEN,
    NORM_FIRST,
    ConvNextConfig,
    Naming,
    block_names,
    detect_naming,
    flat_tensors,
    outer_names,
)
from jaxmoxi.models.networks.hidden_act import activation_name
from jaxmoxi.models.networks.published import published_photos, published_size, torchvision_photos
from jaxmoxi.models.networks.registry import network_kind
from jaxmoxi.models.preprocess import Preprocessing
from jaxmoxi.models.processors import IMAGENET_MEAN, IMAGENET_STD

_HUGGINGFACE_READ = {
    "depths", "hidden_act", "hidden_sizes", "image_size", "layer_norm_eps", "layer_scale_init_value", "num_channels",
    "num_stages", "patch_size",
}  # fmt: skip
# Of the backbone that the network can also be, and of training.
_HUGGINGFACE_HARMLESS = {"drop_path_rate", "num_hidden_layers", "out_features", "out_indices", "stage_names"}

# Arguments of timm's ConvNeXt that change the network, and the one value of each that is implemented; and those of
# torchvision's, for folders made by hand.
_FIXED = {
    "block": None,
    "conv_bias": True,
    "device": None,
    "global_pool": "avg",
    "norm_layer": None,
    "output_stride": 32,
}
_READ = {
    "act_layer", "depths", "dims", "head_hidden_size", "head_norm_first", "in_chans", "kernel_sizes", "norm_eps",
    "num_classes", "patch_size", "stem_type", "use_grn",
}  # fmt: skip
_HARMLESS = {
    "block_setting", "conv_mlp", "drop_path_rate", "drop_rate", "dtype", "head_init_scale", "layer_scale",
    "ls_init_value", "stochastic_depth_prob",
}  # fmt: skip
_SPEAKS_OF = {
    "architecture", "image_size", "label_descriptions", "label_names", "model_args", "num_channels", "num_features",
    "pretrained_cfg",
}  # fmt: skip


def config_from_settings(settings: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> ConvNextConfig:
    """The shape of the network that a `config.json` describes.

    settings: the file's content: Hugging Face's, or timm's with its `model_args`, or `{"architecture":
              "convnext_tiny"}` for weights in torchvision's names or the authors'.
    tensors:  the checkpoint's, by name. They decide on all sizes, on the form of stem and head, and on the version.

    Raises ValueError for variants that are not implemented, and for settings that contradict the tensors. Warns of
    settings that are not known.
    """
    kind, naming, tensors = network_kind(settings), detect_naming(tensors), flat_tensors(tensors)
    huggingface = naming.startswith("huggingface")
    if huggingface != (kind in ("convnext", "convnextv2")):
        raise InputError(f"the config says {brief(kind)!r}, the tensors are named as in {naming}; correct one of them")
    if "_rms" in kind:
        raise InputError(f"{brief(kind)}: its norms, which subtract no mean, are not implemented")
    if huggingface:
        args: Mapping[str, Any] = settings
        check_keys(settings, fixed=FIXED, read=_HUGGINGFACE_READ | _HUGGINGFACE_HARMLESS)
        norm_eps, head_eps = 1e-6, number(settings, "layer_norm_eps", 1e-12, least=0.0, most=1.0)
    else:
        args = _arguments(settings)
        known = 1e-5 if kind.startswith("convnext_xxlarge") and naming == "timm" else 1e-6
        norm_eps = head_eps = number(args, "norm_eps", known, least=0.0, most=1.0)
    config = _measured(
        naming,
        tensors,
        activation=activation_name(args, "hidden_act" if huggingface else "act_layer", "gelu"),
        image_size=_image_size(settings, kind, naming),
        norm_eps=norm_eps,
        head_eps=head_eps,
    )
    _compare(args, config, huggingface)
    return config


def _arguments(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments in `model_args`, and those that stand beside it."""
    args = timm_arguments(settings, fixed=_FIXED, read=_READ, harmless=_HARMLESS)
    check_keys(settings, fixed={}, read={*_FIXED, *_READ, *_HARMLESS, *_SPEAKS_OF, *TIMM_CFG})
    stem = args.get("stem_type")
    if stem not in (None, "patch", "overlap", "overlap_tiered"):
        raise InputError(
            f"expected stem_type patch, overlap or overlap_tiered; got {brief(repr(stem))}: not implemented"
        )
    return args


def _measured(naming: Naming, tensors: Mapping[str, np.ndarray], **known: Any) -> ConvNextConfig:
    """The shape of the network that these tensors belong to. What it needs and lacks is left to `from_tensors`."""

    def shape(name: str, rank: int) -> tuple[int, ...]:
        found = tuple(tensors[name].shape) if name in tensors else ()
        if len(found) != rank or not all(found):
            held = f"is of shape {list(found)}" if name in tensors else "is missing"
            raise InputError(f"expected a tensor {name} of {rank} axes, which tells the network's sizes; it {held}")
        return found

    depths: list[int] = []
    dims: list[int] = []
    kernels: list[int] = []
    while f"{block_names(naming, len(depths), 0)['depthwise']}.weight" in tensors:
        stage, depth = len(depths), 0
        while f"{block_names(naming, stage, depth)['depthwise']}.weight" in tensors:
            depth += 1
        dim, _, kernel, _ = shape(f"{block_names(naming, stage, 0)['depthwise']}.weight", 4)
        depths, dims, kernels = [*depths, depth], [*dims, dim], [*kernels, kernel]
    if not depths:
        raise InputError(f"expected the tensors of ConvNeXt's blocks ({block_names(naming, 0, 0)['depthwise']}.weight)")
    first = block_names(naming, 0, 0)
    plain = outer_names(naming, ConvNextConfig())
    width, channels, patch, _ = shape(f"{plain['stem']}.weight", 4)
    second = naming == "timm" and len(getattr(tensors.get("stem.1.weight"), "shape", ())) == 4
    hidden = naming == "timm" and f"{HIDDEN}.weight" in tensors
    return ConvNextConfig(
        depths=tuple(depths),
        dims=tuple(dims),
        kernels=tuple(kernels),
        num_classes=shape(f"{plain['head']}.weight", 2)[0],
        num_channels=channels,
        patch_size=4 if second else patch,
        stem_width=width if second else 0,
        norm_first=naming == "timm" and f"{NORM_FIRST}.weight" in tensors,
        hidden=shape(f"{HIDDEN}.weight", 2)[0] if hidden else 0,
        grn=f"{first['grn']}.weight" in tensors,
        layer_scale=first["scale"] in tensors,
        **known,
    )


def _compare(args: Mapping[str, Any], config: ConvNextConfig, huggingface: bool) -> None:
    """Raises ValueError where the settings speak of other weights."""
    stages = len(config.dims)

    def listed(name: str, default: tuple[int, ...] | None = None) -> Any:
        value = args.get(name, default)
        value = [value] * stages if isinstance(value, int) else value
        return list(value) if isinstance(value, list | tuple) else value

    if huggingface:
        scaled = number(args, "layer_scale_init_value", 1e-6, least=-1e6, most=1e6) > 0
        said = {
            "depths": (listed("depths", (3, 3, 9, 3)), list(config.depths)),
            "hidden_sizes": (listed("hidden_sizes", (96, 192, 384, 768)), list(config.dims)),
            "num_channels": (whole(args, "num_channels", 3), config.num_channels),
            "num_stages": (whole(args, "num_stages", stages), stages),
            "patch_size": (side(args, "patch_size", 4), config.patch_size),
            "kernel_sizes": (None, None) if set(config.kernels) == {7} else ("7", list(config.kernels)),
        }
        if not config.grn:
            said["layer_scale_init_value > 0"] = (scaled, config.layer_scale)
    else:
        stem = args.get("stem_type") or ("overlap" if config.stem_width else "patch")
        said = {
            "depths": (listed("depths"), list(config.depths)),
            "dims": (listed("dims"), list(config.dims)),
            "kernel_sizes": (listed("kernel_sizes"), list(config.kernels)),
            "num_classes": (args.get("num_classes"), config.num_classes),
            "in_chans": (args.get("in_chans"), config.num_channels),
            "patch_size": (args.get("patch_size"), config.patch_size),
            "head_hidden_size": (args.get("head_hidden_size") or None, config.hidden),
            "head_norm_first": (args.get("head_norm_first"), config.norm_first),
            "use_grn": (args.get("use_grn"), config.grn),
            "stem_type of patches": (stem == "patch", not config.stem_width),
        }
    differ = {k: (a, b) for k, (a, b) in said.items() if a is not None and a != b}
    wrong = [f"{k} is {brief(a)} in the config and {b} in the weights" for k, (a, b) in differ.items()]
    if wrong:
        raise InputError(f"the config describes other weights: {'; '.join(wrong)}; correct one of them")


def _image_size(settings: Mapping[str, Any], kind: str, naming: Naming) -> ImageSize:
    if "image_size" in settings:
        return pair(settings, "image_size", 224)
    said = input_size(settings)
    return said or published_size(kind, torchvision=naming == "torchvision")


def published_preprocessing(
    settings: Mapping[str, Any], tensors: Mapping[str, np.ndarray], size: int
) -> Preprocessing | None:
    """How the published weights of these names see a photo, for images of `size` pixels; None where nobody knows."""
    naming, kind = detect_naming(tensors), network_kind(settings)
    if naming == "timm":
        return published_photos(kind, size)
    if naming == "torchvision":
        return torchvision_photos(kind, size)
    # All of facebook/convnext-* and convnextv2-*, and the authors' own: from 384 pixels on, nothing is cropped.
    if size >= 384:
        return Preprocessing((size, size), resample=3, mean=IMAGENET_MEAN, std=IMAGENET_STD)
    if not re.match(r"convnext(v2)?(_|$)", kind):
        return None
    return Preprocessing(
        int(size / 0.875), (size, size), resample=3, mean=IMAGENET_MEAN, std=IMAGENET_STD, crop_rounding="down"
    )
