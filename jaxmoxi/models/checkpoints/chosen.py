"""How a model sees a photo: what the user says, else what its folder says, else what is published about its name."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxmoxi.errors import InputError, warn
from jaxmoxi.models.checkpoints.json_file import MissingFileError, read_json
from jaxmoxi.models.checkpoints.torch_pickle import brief
from jaxmoxi.models.networks.base import NetworkConfig, sides
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


class Asking(NamedTuple):
    """What the answer depends on.

    settings, tensors: of the checkpoint.
    family, config:    of its network.
    folder:            where it lies.
    """

    settings: Mapping[str, Any]
    tensors: Mapping[str, np.ndarray]
    family: Family
    config: NetworkConfig
    folder: Path

    @property
    def side(self) -> int:
        """The side of square images for the network, for what says how to treat squares alone."""
        return sides(self.config.image_size)[0]

    @property
    def channels(self) -> int:
        """The channels of the network's images."""
        return self.config.num_channels


def choose_preprocessing(
    asked: Asked | None, model: Asking, image_size: tuple[int, int] | None = None
) -> Preprocessing:
    """How photos become images for this model.

    image_size: (height, width) of these images, where the user says so. None: the network's own, or, for a network that
                takes images of any size, what the preprocessing makes.

    Warns of what it takes from neither the user nor the folder. Raises ValueError where nothing tells, with the way
    out, and where the result would not have the network's size or channels.
    """
    settings, folder, own = model.settings, model.folder, sides(model.config.image_size)
    if asked is not None:
        found, where = _of_asked(asked, model), "preprocessing"
    elif (folder / _FILE).exists():
        found, where = _of_content(read_json(folder / _FILE), model, folder / _FILE), _FILE
    elif (cfg := _timm_cfg(settings, folder)) is not None:
        found, where = _of_timm(cfg, model), "config.json (pretrained_cfg)"
    else:
        published, where = _published(model), "the published preprocessing"
        if published is None:
            raise InputError(f"{folder} does not say how a photo becomes the network's input: {_WAY_OUT}")
        found = published.to_size(own)
        _tell(folder, found, f"{folder} has no {_FILE}")
    if found.num_channels != model.channels:
        raise InputError(
            f"{folder}: the preprocessing makes images of {found.num_channels} channels, the network takes "
            f"{model.channels}; give preprocessing= with a mean and a std for each channel"
        )
    if image_size is not None:
        if isinstance(asked, Preprocessing) and asked.size != image_size:
            raise InputError(
                f"expected preprocessing to make images of image_size {image_size}; it makes {asked.size}: correct one "
                "of them"
            )
        return found.to_size(image_size)
    if found.size != own and not model.family.any_size:
        raise InputError(
            f"{folder}: the preprocessing makes images of {found.size} pixels, the network takes "
            f"{own[0]} x {own[1]}; correct size and crop_size in {where}, or say image_size={found.size} for the "
            "network at that size"
        )
    return found


def _of_asked(asked: Asked, model: Asking) -> Preprocessing:
    if isinstance(asked, Preprocessing):
        return asked
    if isinstance(asked, Mapping):
        speaks = {"image_mean", "image_std"} <= asked.keys() or asked.get("do_normalize") is False
        named = {"image_processor_type", "feature_extractor_type", "mean", "std", "pretrained_cfg"} & asked.keys()
        if not speaks and not named:  # a file would leave it to the processor of its network
            raise InputError(
                f"expected preprocessing with image_mean and image_std; got {brief(dict(asked))}: add them"
            )
        return _of_content(asked, model, "preprocessing")
    if not isinstance(asked, str | os.PathLike):
        raise InputError(f"expected preprocessing as a Preprocessing, a name, a file or a dict; got {brief(asked)!r}")
    named = named_preprocessing(str(asked), model.side)
    if named is not None:
        if model.channels not in (1, 3) or (model.channels == 1 and len({*named.mean, *named.std}) > 2):
            raise InputError(
                f"preprocessing={str(asked)!r} is for images of three channels, and the network takes "
                f'{model.channels}; say preprocessing={{"image_mean": [...], "image_std": [...]}}'
            )
        named = dataclasses.replace(named, mean=named.mean[: model.channels], std=named.std[: model.channels])
        return named.to_size(sides(model.config.image_size))
    path = Path(asked).expanduser()
    path = path / _FILE if path.is_dir() else path
    if not path.exists():
        raise MissingFileError(f"expected preprocessing imagenet, half, clip or a {_FILE}; there is no file {path}")
    return _of_content(read_json(path), model, path)


def _of_content(content: Mapping[str, Any], model: Asking, where: object) -> Preprocessing:
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
            return Preprocessing.from_timm({"input_size": (model.channels, *sides(model.config.image_size)), **content})
        unknown = sorted(brief(key) for key in content if key not in PROCESSOR_KEYS)
        if unknown:
            warn(f"{where}: keys that are not known are ignored: {', '.join(unknown[:8])}", UserWarning)
        kind = {"model_type": model.settings.get("model_type")}  # names the processor where the file does not
        found = Preprocessing.from_huggingface({**kind, **content}, model.side, model.channels)
        return found if {"size", "crop_size"} & content.keys() else found.to_size(sides(model.config.image_size))
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


def _of_timm(cfg: Mapping[str, Any], model: Asking) -> Preprocessing:
    """What `pretrained_cfg` says; mean and std, where it is silent about them, as published."""
    folder = model.folder
    sized = {"input_size": (model.channels, *sides(model.config.image_size)), **cfg}
    if model.channels == 1 and isinstance(cfg.get("input_size"), list | tuple) and len(cfg["input_size"]) == 3:
        sized["input_size"] = (1, *cfg["input_size"][1:])  # timm writes its published weights' three
    try:
        found = Preprocessing.from_timm(sized)
    except InputError as error:
        raise InputError(f"{folder / 'config.json'}: {error}") from None
    silent = [name for name in ("mean", "std") if cfg.get(name) is None]
    if not silent:
        return found
    published = _published(model)
    if published is None:
        raise InputError(f"{folder / 'config.json'}: pretrained_cfg lacks {' and '.join(silent)}: {_WAY_OUT}")
    found = Preprocessing.from_timm(sized | {name: getattr(published, name) for name in silent})
    _tell(folder, found, f"{folder}: pretrained_cfg lacks {' and '.join(silent)}")
    return found


def _published(model: Asking) -> Preprocessing | None:
    """What is published about the network's name, for squares."""
    if model.family.published is not None:
        return model.family.published(model.settings, model.tensors, model.side)
    return None if model.family.preprocessing is None else model.family.preprocessing(model.side)


def _tell(folder: Path, found: Preprocessing, what: str) -> None:
    mean, std = (", ".join(f"{x:g}" for x in values) for values in (found.mean, found.std))
    warn(
        f"{what}; assuming the preprocessing of the published weights of this name: mean {mean}, std {std}, resize "
        f"{found.resize}, crop {found.crop}. If these weights were trained otherwise, {_WAY_OUT}",
        UserWarning,
    )
