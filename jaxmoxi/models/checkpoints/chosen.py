"""How a model sees a photo: what the user says, else what its folder says, else what is published about its name."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxmoxi.errors import InputError, warn
from jaxmoxi.models.checkpoints.json_file import MissingFileError, read_json
from jaxmoxi.models.checkpoints.torch_pickle import brief
from jaxmoxi.models.networks.registry import Family
from jaxmoxi.models.preprocess import Preprocessing
from jaxmoxi.models.processors import CLIP_MEAN, CLIP_STD, HALF, IMAGENET_MEAN, IMAGENET_STD, PROCESSOR_KEYS

# What a user may say instead of a folder's missing file.
Asked = Preprocessing | Mapping[str, Any] | str | os.PathLike[str]

_FILE = "preprocessor_config.json"
_WAY_OUT = (
    'say preprocessing="imagenet" (mean 0.485, 0.456, 0.406), "half" (mean and std 0.5), "clip", or the '
    f"{_FILE} the weights were trained with; at the command --preprocessing imagenet|half|clip|FILE"
)


def named_preprocessing(name: str, size: int) -> Preprocessing | None:
    """The preprocessing that goes by a short name, for images of `size` pixels; None for another name.

    "imagenet":          torchvision's: the short side resized to size * 8 / 7, bilinear, a centre crop, ImageNet's mean
                         and standard deviation.
    "half", "inception": google/vit-*'s: both sides resized, bilinear, mean and standard deviation 0.5.
    "clip":              OpenAI's: the short side resized, bicubic, a centre crop, CLIP's mean and standard deviation.
    """
    if name == "imagenet":
        return Preprocessing(size * 8 // 7, (size, size), mean=IMAGENET_MEAN, std=IMAGENET_STD, crop_rounding="even")
    if name in ("half", "inception"):
        return Preprocessing((size, size), mean=HALF, std=HALF)
    if name == "clip":
        return Preprocessing(size, (size, size), resample=3, mean=CLIP_MEAN, std=CLIP_STD)
    return None


def choose_preprocessing(
    asked: Asked | None, settings: Mapping[str, Any], family: Family, tensors: Mapping[str, np.ndarray], size: int,
    folder: Path,
) -> Preprocessing:  # fmt: skip
    """How photos become images of `size` pixels for this model.

    Warns of what it takes from neither the user nor the folder. Raises ValueError where nothing tells, with the way
    out, and where the result would not have the network's size.
    """
    if asked is not None:
        found, where = _of_asked(asked, settings, size), "preprocessing"
    elif (folder / _FILE).exists():
        found, where = _of_content(read_json(folder / _FILE), settings, size, folder / _FILE), _FILE
    elif (cfg := _timm_cfg(settings, folder)) is not None:
        found, where = _of_timm(cfg, settings, family, tensors, size, folder), "config.json (pretrained_cfg)"
    else:
        found, where = _published(settings, family, tensors, size, folder), "the published preprocessing"
        if found is None:
            raise InputError(f"{folder} does not say how a photo becomes the network's input: {_WAY_OUT}")
        _tell(folder, found, f"{folder} has no {_FILE}")
    if found.size != (size, size):
        raise InputError(
            f"{folder}: the preprocessing makes images of {found.size} pixels, the network takes "
            f"{size} x {size}; correct size and crop_size in {where}"
        )
    return found


def _of_asked(asked: Asked, settings: Mapping[str, Any], size: int) -> Preprocessing:
    if isinstance(asked, Preprocessing):
        return asked
    if isinstance(asked, Mapping):
        speaks = {"image_mean", "image_std"} <= asked.keys() or asked.get("do_normalize") is False
        named = {"image_processor_type", "feature_extractor_type", "mean", "std", "pretrained_cfg"} & asked.keys()
        if not speaks and not named:  # a file would leave it to the processor of its network
            raise InputError(
                f"expected preprocessing with image_mean and image_std; got {brief(dict(asked))}: add them"
            )
        return _of_content(asked, settings, size, "preprocessing")
    if not isinstance(asked, str | os.PathLike):
        raise InputError(f"expected preprocessing as a Preprocessing, a name, a file or a dict; got {brief(asked)!r}")
    named = named_preprocessing(str(asked), size)
    if named is not None:
        return named
    path = Path(asked).expanduser()
    path = path / _FILE if path.is_dir() else path
    if not path.exists():
        raise MissingFileError(f"expected preprocessing imagenet, half, clip or a {_FILE}; there is no file {path}")
    return _of_content(read_json(path), settings, size, path)


def _of_content(content: Mapping[str, Any], settings: Mapping[str, Any], size: int, where: object) -> Preprocessing:
    """What a file of Hugging Face's or timm's says."""
    try:
        if isinstance(content.get("pretrained_cfg"), Mapping):
            content = content["pretrained_cfg"]
        if {"mean", "std", "input_size", "crop_pct", "interpolation"} & content.keys() and not any(
            str(key).startswith(("image_", "do_", "feature_")) for key in content
        ):
            silent = [name for name in ("mean", "std") if content.get(name) is None]
            if silent:
                raise InputError(f"expected mean and std; {' and '.join(silent)} is absent: add it")
            return Preprocessing.from_timm({"input_size": (3, size, size), **content})
        unknown = sorted(brief(key) for key in content if key not in PROCESSOR_KEYS)
        if unknown:
            warn(f"{where}: keys that are not known are ignored: {', '.join(unknown[:8])}", UserWarning)
        kind = {"model_type": settings.get("model_type")}  # names the processor where the file does not
        return Preprocessing.from_huggingface({**kind, **content}, size)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


def _timm_cfg(settings: Mapping[str, Any], folder: Path) -> Mapping[str, Any] | None:
    """timm's `pretrained_cfg`; its older files have its keys beside `architecture`."""
    cfg = settings.get("pretrained_cfg")
    if cfg is None:
        return settings if {"mean", "std"} & settings.keys() and "architecture" in settings else None
    if not isinstance(cfg, Mapping):
        raise InputError(f"{folder / 'config.json'}: pretrained_cfg must be an object; got {brief(repr(cfg))}")
    return cfg


def _of_timm(
    cfg: Mapping[str, Any], settings: Mapping[str, Any], family: Family, tensors: Mapping[str, np.ndarray], size: int,
    folder: Path,
) -> Preprocessing:  # fmt: skip
    """What `pretrained_cfg` says; mean and std, where it is silent about them, as published."""
    sized = {"input_size": (3, size, size), **cfg}
    try:
        found = Preprocessing.from_timm(sized)
    except InputError as error:
        raise InputError(f"{folder / 'config.json'}: {error}") from None
    silent = [name for name in ("mean", "std") if cfg.get(name) is None]
    if not silent:
        return found
    published = _published(settings, family, tensors, size, folder)
    if published is None:
        raise InputError(f"{folder / 'config.json'}: pretrained_cfg lacks {' and '.join(silent)}: {_WAY_OUT}")
    found = Preprocessing.from_timm(sized | {name: getattr(published, name) for name in silent})
    _tell(folder, found, f"{folder}: pretrained_cfg lacks {' and '.join(silent)}")
    return found


def _published(
    settings: Mapping[str, Any], family: Family, tensors: Mapping[str, np.ndarray], size: int, folder: Path
) -> Preprocessing | None:
    if family.published is not None:
        return family.published(settings, tensors, size)
    return None if family.preprocessing is None else family.preprocessing(size)


def _tell(folder: Path, found: Preprocessing, what: str) -> None:
    mean, std = (", ".join(f"{x:g}" for x in values) for values in (found.mean, found.std))
    warn(
        f"{what}; assuming the preprocessing of the published weights of this name: mean {mean}, std {std}, resize "
        f"{found.resize}, crop {found.crop}. If these weights were trained otherwise, {_WAY_OUT}",
        UserWarning,
    )
