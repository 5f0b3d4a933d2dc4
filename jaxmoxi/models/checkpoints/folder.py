"""From a checkpoint folder to a `Classifier`: its files, its preprocessing, its class names, its network's family."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxmoxi.errors import InputError
from jaxmoxi.models.checkpoints.labels import read_class_names, read_link
from jaxmoxi.models.checkpoints.torch_file import read_torch
from jaxmoxi.models.classifier import Classifier
from jaxmoxi.models.networks import families
from jaxmoxi.models.networks.registry import Family, find_family, network_kind
from jaxmoxi.models.preprocess import Preprocessing

_WEIGHTS = ("model.safetensors", "pytorch_model.bin", "pytorch_model.pth", "model.pth")


def load(folder: str | os.PathLike[str]) -> Classifier:
    """A classifier from a checkpoint folder.

    The folder holds `config.json`, the weights (`model.safetensors`, possibly in shards with an index, or
    `pytorch_model.bin` / `.pth`, read without PyTorch and without running what they pickle), and optionally
    `preprocessor_config.json`. The network is of a family that `models/networks` registers, such as Hugging Face's and
    timm's ViT and DeiT (with or without teacher), MobileNetV2 in their names or torchvision's, and EfficientNet-Lite0.

    Raises FileNotFoundError for a missing folder or file; ValueError for an unknown network (the error lists those that
    are known), for a config that describes none, and for tensors that are missing, extra or misshapen, all of them
    listed.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(
            f"no model folder {folder}; expected a folder with config.json and one of {', '.join(_WEIGHTS)}"
        )
    settings = _read_json(folder / "config.json")
    tensors = read_tensors(folder)
    processor = folder / "preprocessor_config.json"
    family = _family(settings, folder / "config.json")
    config = family.config_from_settings(settings, tensors)
    link = read_link(settings, config.num_classes, folder / "config.json")
    params = family.from_tensors(config, tensors, source=str(folder))
    if processor.exists():
        preprocessing = Preprocessing.from_huggingface(_read_json(processor), config.image_size)
    elif "pretrained_cfg" in settings:
        preprocessing = Preprocessing.from_timm(settings["pretrained_cfg"])
    else:
        preprocessing = family.preprocessing(config.image_size)
    if preprocessing.size != (config.image_size, config.image_size):
        raise InputError(
            f"{folder}: the preprocessing makes images of {preprocessing.size} pixels, the network takes "
            f"{config.image_size} x {config.image_size}; correct size and crop_size in {processor.name}"
        )
    return Classifier(
        params=params,
        config=config,
        preprocessing=preprocessing,
        class_names=read_class_names(settings, config.num_classes, folder / "config.json"),
        name=folder.resolve().name,
        link=link,
    )


def read_tensors(folder: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """All tensors of a checkpoint folder by name, as NumPy arrays. Raises FileNotFoundError, ValueError."""
    folder = Path(folder)
    index = folder / "model.safetensors.index.json"
    if index.exists():
        files = sorted(set(_read_json(index)["weight_map"].values()))
        return {name: tensor for file in files for name, tensor in _read_safetensors(folder / Path(file).name).items()}
    for name in _WEIGHTS:
        path = folder / name
        if path.exists():
            return _read_safetensors(path) if path.suffix == ".safetensors" else read_torch(path)
    raise FileNotFoundError(f"{folder} holds no weights; expected one of {', '.join(_WEIGHTS)}")


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    import ml_dtypes  # noqa: F401  gives NumPy the name "bfloat16", which safetensors looks up
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise InputError(f"{path} is not a readable safetensors file ({error}); download or save it again") from None


def _family(settings: Mapping[str, Any], path: Path) -> Family:
    """The family of networks that the `config.json` at `path` names."""
    kind, known = network_kind(settings), families()
    family = find_family(kind, known)
    if family is None:
        model_types = ", ".join(name for f in known for name in f.model_types)
        architectures = ", ".join(name for f in known for name in f.architectures)
        raise InputError(
            f"{path}: expected a model_type of {model_types}, or an architecture (timm's key) of {architectures}; "
            f"got {kind or 'neither key'!r}"
        )
    return family


def _read_json(path: Path) -> dict[str, Any]:
    if not path.exists():
        raise FileNotFoundError(f"{path.parent} has no {path.name}; expected a checkpoint folder that holds one")
    try:
        content = json.loads(path.read_text("utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not readable JSON: {error}") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected a JSON object; got a {type(content).__name__}")
    return content
