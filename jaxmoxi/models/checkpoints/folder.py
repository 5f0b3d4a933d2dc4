"""From a checkpoint folder to a `Classifier`: its files, its preprocessing, its class names, its network's family."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxmoxi.errors import InputError
from jaxmoxi.models.checkpoints.chosen import Asked, choose_preprocessing
from jaxmoxi.models.checkpoints.labels import read_class_names, read_link
from jaxmoxi.models.checkpoints.reading import read_network, read_settings
from jaxmoxi.models.checkpoints.source import find_source
from jaxmoxi.models.checkpoints.torch_pickle import brief
from jaxmoxi.models.classifier import Classifier
from jaxmoxi.models.networks import families
from jaxmoxi.models.networks.registry import Family, find_family, network_kind


def load(folder: str | os.PathLike[str], *, preprocessing: Asked | None = None, entry: str | None = None) -> Classifier:
    """A classifier from a checkpoint folder.

    folder:        holds `config.json`, the weights (`model.safetensors`, possibly in shards with an index, or
                   `pytorch_model.bin` / `.pth` / `.ckpt`, read without PyTorch and without running what they pickle;
                   or one file of another name), and `preprocessor_config.json`. Wrapped weights are unwrapped, see
                   `checkpoints.unwrap`. It may also be the path of a weights file in such a folder, a model's folder in
                   the cache of the Hugging Face hub, or the hub's name of a model that lies in this cache. A `.npz` of
                   Google's JAX code needs no other file. Nothing is downloaded.
    preprocessing: how a photo becomes the network's input, where the folder does not say so, or instead of what it
                   says: a `Preprocessing`; "imagenet", "half" or "clip"; the path of a `preprocessor_config.json`; or
                   its content. Left out: the folder's own, else (with a warning) that of the published weights of the
                   same name.
    entry:         which state dict of a training checkpoint to take, such as "state_dict_ema", or which of several
                   networks in one, such as "state_dict.model"; see `read_torch`.

    The network is of a family that `models/networks` registers, such as Hugging Face's and timm's ViT and DeiT (with or
    without teacher), MobileNetV2 in their names or torchvision's, and EfficientNet-Lite0.

    Raises FileNotFoundError for a missing folder or file; ValueError for an unknown network (the error lists those that
    are known), for a config that describes none or one that is not implemented, for weights whose preprocessing nobody
    knows, and for tensors that are missing, extra or misshapen, all of them listed. Warns of what it assumes.
    """
    found = find_source(folder)
    path, settings = read_settings(found)
    family = _family(settings, path)
    tensors = read_network(found, settings, entry=entry)
    try:
        config = family.config_from_settings(settings, tensors)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    link = read_link(settings, config.num_classes, path)
    names = read_class_names(settings, config.num_classes, path)
    chosen = choose_preprocessing(preprocessing, settings, family, tensors, config.image_size, found.folder)
    return Classifier(
        params=family.from_tensors(config, tensors, source=str(found.folder)),
        config=config,
        preprocessing=chosen,
        class_names=names,
        name=found.name,
        link=link,
    )


def _family(settings: Mapping[str, Any], path: Path) -> Family:
    """The family of networks that the `config.json` at `path` names."""
    kind, known = network_kind(settings), families()
    family = find_family(kind, known)
    if family is None:
        model_types = ", ".join(name for f in known for name in f.model_types)
        architectures = ", ".join(name for f in known for name in f.architectures)
        raise InputError(
            f"{path}: expected a model_type of {model_types}, or an architecture (timm's key) of {architectures}; "
            f"got {brief(kind or 'neither key')!r}"
        )
    return family
