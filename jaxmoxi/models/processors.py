"""What the files of Hugging Face and timm say about photos, as the fields of a `Preprocessing`."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from jaxmoxi.errors import InputError

RESAMPLING = {"nearest": 0, "lanczos": 1, "bilinear": 2, "bicubic": 3, "box": 4, "hamming": 5}
_SPELLED = {"nearest-exact": 0, "antialias": 1}

Triple = tuple[float, float, float]
IMAGENET_MEAN: Triple = (0.485, 0.456, 0.406)
IMAGENET_STD: Triple = (0.229, 0.224, 0.225)
HALF: Triple = (0.5, 0.5, 0.5)
CLIP_MEAN: Triple = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD: Triple = (0.26862954, 0.26130258, 0.27577711)


class _Processor(NamedTuple):
    """What an image processor of Hugging Face does where its file is silent.

    crops:  whether a centre crop follows.
    square: whether a bare number as `size` means both sides, not the short side.
    margin: whether the resized photo is larger than the crop by a seventh, where the file is silent about `size`.
    twice:  whether it divides by the standard deviation a second time where `include_top` is true or absent.
    """

    resample: int
    mean: Triple
    std: Triple
    crops: bool
    square: bool
    margin: bool = True
    twice: bool = False


# Checked against transformers 5: `image_processing_*.py` of each. ConvNeXT's filter is the one of its first release.
_PROCESSORS = {
    "Beit": _Processor(3, HALF, HALF, crops=False, square=True),
    "Bit": _Processor(3, CLIP_MEAN, CLIP_STD, crops=True, square=False, margin=False),
    "CLIP": _Processor(3, CLIP_MEAN, CLIP_STD, crops=True, square=False, margin=False),
    "ConvNeXT": _Processor(2, HALF, HALF, crops=False, square=False),
    "ConvNext": _Processor(2, HALF, HALF, crops=False, square=False),
    "DeiT": _Processor(3, HALF, HALF, crops=True, square=True),
    "EfficientNet": _Processor(3, HALF, HALF, crops=False, square=True, twice=True),
    "MobileNetV1": _Processor(2, HALF, HALF, crops=True, square=False),
    "MobileNetV2": _Processor(2, HALF, HALF, crops=True, square=False),
    "Pvt": _Processor(3, IMAGENET_MEAN, IMAGENET_STD, crops=False, square=True),
    "Siglip": _Processor(3, HALF, HALF, crops=False, square=False),
    "ViT": _Processor(2, HALF, HALF, crops=False, square=True),
}
_CROP_PCT = ("ConvNext", "ConvNeXT")
_OF_MODEL = {
    "convnext": "ConvNext",
    "convnextv2": "ConvNext",
    "deit": "DeiT",
    "efficientnet": "EfficientNet",
    "mobilenet_v2": "MobileNetV2",
}  # the processor of a network whose file names none

# What other processors do to a photo and none of these does.
_UNDONE = ("do_pad", "do_flip_channel_order", "do_thumbnail", "do_align_long_axis", "do_align_axis", "do_random_crop")


# What a `preprocessor_config.json` may hold: what is read here, and what changes no photo.
PROCESSOR_KEYS = {
    "_processor_class", "architecture", "crop_pct", "crop_size", "data_format", "default_to_square", "device",
    "disable_grouping", "do_center_crop", "do_convert_rgb", "do_normalize", "do_reduce_labels", "do_rescale",
    "do_resize", "feature_extractor_type", "image_mean", "image_processor_type", "image_seq_length", "image_std",
    "include_top", "input_data_format", "model_type", "pad_size", "pretrained_cfg", "processor_class", "resample",
    "rescale_factor", "rescale_offset", "return_tensors", "size", "size_divisor", *_UNDONE,
}  # fmt: skip


def huggingface_fields(config: Mapping[str, Any], image_size: int, channels: int = 3) -> dict[str, Any]:
    """The fields of a `Preprocessing` that a `preprocessor_config.json` describes; see `from_huggingface`."""
    if isinstance(config.get("pretrained_cfg"), Mapping):  # TimmWrapperImageProcessor
        return timm_fields({"input_size": (channels, image_size, image_size), **config["pretrained_cfg"]})
    name = config.get("image_processor_type") or config.get("feature_extractor_type")
    kind = re.sub("(ImageProcessor(Fast|Pil)?|FeatureExtractor)$", "", str(name))
    if name is None:
        kind = _OF_MODEL.get(str(config.get("model_type")), "ViT")
    if kind not in _PROCESSORS:
        known = ", ".join(_PROCESSORS)
        raise InputError(
            f"expected the image processor of {known}; got {str(name)[:80]!r}: give preprocessing= as a Preprocessing"
        )
    undone = [key for key in _UNDONE if config.get(key)]
    if undone:
        raise InputError(f"{', '.join(undone)}: not implemented; give preprocessing= as a Preprocessing")
    processor = _PROCESSORS[kind]
    if config.get("include_top") and not processor.twice:
        raise InputError(f"include_top (a second normalisation) is not for {kind}; build the Preprocessing by hand")
    crops = _flag(config, "do_center_crop", processor.crops)
    crop = _square(config.get("crop_size"), image_size) if crops else None
    crop_pct = config.get("crop_pct", 224 / 256 if kind in _CROP_PCT else None)
    if crops and crop_pct is not None:
        raise InputError(f"do_center_crop and crop_pct={str(crop_pct)[:80]} both ask for a crop; leave one of them out")
    resize = None
    if _flag(config, "do_resize", True):
        resize = _resize(config.get("size"), crops, processor, image_size)
    if resize is not None and crop_pct is not None:
        side = resize if isinstance(resize, int) else min(resize)
        crop = (side, side) if side < 384 else None
        resize = int(side / _fraction(crop_pct)) if side < 384 else (side, side)
    rescales = _flag(config, "do_rescale", True)
    normalizes = _flag(config, "do_normalize", True)
    deviations = _by_channel(config.get("image_std", processor.std), "image_std", channels)
    times = int(normalizes) + int(processor.twice and _flag(config, "include_top", True))
    return {
        "resize": resize,
        "crop": crop,
        "resample": _resample(config.get("resample", processor.resample)),
        "rescale_factor": _number(config.get("rescale_factor", 1 / 255), "rescale_factor") if rescales else 1.0,
        "offset": -1.0 if rescales and _flag(config, "rescale_offset", False) else 0.0,
        "mean": _by_channel(config.get("image_mean", processor.mean) if normalizes else 0.0, "image_mean", channels),
        "std": tuple(std**times for std in deviations),
    }


def timm_fields(pretrained_cfg: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a `Preprocessing` that timm's `pretrained_cfg` describes; see `from_timm`."""
    size = pretrained_cfg.get("input_size", (3, 224, 224))
    if not isinstance(size, list | tuple) or len(size) != 3 or not all(map(is_count, size)):
        raise InputError(f"expected input_size [channels, height, width]; got {str(size)[:80]}")
    channels, height, width = size
    mode = pretrained_cfg.get("crop_mode") or "center"
    if mode not in ("center", "squash"):
        raise InputError(
            f"expected crop_mode 'center' or 'squash'; got {str(mode)[:80]!r}: give preprocessing= as a Preprocessing"
        )
    share = _fraction(pretrained_cfg.get("crop_pct") or 0.875)
    resized = math.floor(height / share), math.floor(width / share)
    return {
        "resize": resized[0] if mode == "center" and height == width else resized,
        "crop": (height, width),
        "fit": "squash" if mode == "squash" or height == width else "cover",
        "resample": _resample(pretrained_cfg.get("interpolation") or "bicubic"),
        "mean": _by_channel(pretrained_cfg.get("mean", IMAGENET_MEAN), "mean", channels),
        "std": _by_channel(pretrained_cfg.get("std", IMAGENET_STD), "std", channels),
        "crop_rounding": "even",
    }


def is_count(value: Any) -> bool:
    """Whether it is a whole number of at least 1."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _flag(config: Mapping[str, Any], name: str, default: bool) -> bool:
    value = config.get(name)
    if value is not None and not isinstance(value, bool):
        raise InputError(f"{name} must be true or false; got {str(value)[:80]!r}")
    return default if value is None else value


def _number(value: Any, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e30:
        raise InputError(f"{name} must be a number; got {str(value)[:80]!r}")
    return float(value)


def _fraction(value: Any) -> float:
    if not 0.01 <= _number(value, "crop_pct") <= 1:
        raise InputError(f"crop_pct must lie in (0, 1], and not below 0.01; got {value}")
    return float(value)


def _by_channel(value: Any, name: str, channels: int) -> tuple[float, ...]:
    """A number for each channel; one number alone stands for all."""
    values = tuple(value) if isinstance(value, list | tuple) else (value,)
    values = values * channels if len(values) == 1 else values
    if len(values) != channels:
        expected = "three numbers, red, green, blue" if channels == 3 else f"{channels} numbers, one for each channel"
        raise InputError(f"{name} must be {expected}; got {str(value)[:80]}: give preprocessing= for this network")
    return tuple(_number(x, name) for x in values)


def _resample(value: Any) -> int:
    found = (RESAMPLING | _SPELLED).get(value) if isinstance(value, str) else value
    if not isinstance(found, int) or isinstance(found, bool):
        raise InputError(f"expected a resampling filter of {', '.join(RESAMPLING)}, or 0 to 5; got {str(value)[:80]!r}")
    return found


def _square(value: Any, default: int) -> tuple[int, int]:
    """A crop's size: a number, or {"height", "width"}."""
    if value is None:
        return default, default
    return (value, value) if is_count(value) else _sides(value, "crop_size")


def _resize(size: Any, crops: bool, processor: _Processor, image_size: int) -> int | tuple[int, int]:
    """A short side, or both sides."""
    if size is None:  # such as 256 for a network of 224
        side = image_size * 8 // 7 if crops and processor.margin else image_size
        return side if crops and not processor.square else (side, side)
    if is_count(size):
        return (size, size) if processor.square else size
    if isinstance(size, Mapping) and set(size) == {"shortest_edge"} and is_count(size["shortest_edge"]):
        return size["shortest_edge"]
    return _sides(size, "size")


def _sides(value: Any, name: str) -> tuple[int, int]:
    if not isinstance(value, Mapping) or set(value) != {"height", "width"} or not all(map(is_count, value.values())):
        short = ', {"shortest_edge": pixels}' if name == "size" else ""
        raise InputError(
            f'expected {name} to be pixels, {{"height": pixels, "width": pixels}}{short}; got {str(value)[:80]}: '
            "correct it"
        )
    return value["height"], value["width"]
