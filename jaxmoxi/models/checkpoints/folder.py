"""From a checkpoint folder to a `Classifier`: its files, its preprocessing, its class names, its network's family."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxmoxi.errors import InputError
from jaxmoxi.models.checkpoints.chosen import Asked, Asking, choose_preprocessing
from jaxmoxi.models.checkpoints.json_file import read_json
from jaxmoxi.models.checkpoints.labels import read_class_names, read_link
from jaxmoxi.models.checkpoints.reading import read_network, read_settings
from jaxmoxi.models.checkpoints.source import find_source
from jaxmoxi.models.checkpoints.torch_pickle import brief
from jaxmoxi.models.classifier import Classifier
from jaxmoxi.models.networks import families
from jaxmoxi.models.networks.base import checked_size, sides
from jaxmoxi.models.networks.registry import Family, family_of, find_family, network_kind


def load(
    folder: str | os.PathLike[str],
    *,
    preprocessing: Asked | None = None,
    image_size: int | tuple[int, int] | None = None,
    entry: str | None = None,
    revision: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
) -> Classifier:
    """A classifier from a checkpoint folder, or by its name on the Hugging Face hub.

    folder:        holds `config.json`, the weights (`model.safetensors`, possibly in shards with an index, or
                   `pytorch_model.bin` / `.pth` / `.ckpt`, read without PyTorch and without running what they pickle;
                   or one file of another name), and `preprocessor_config.json`. Wrapped weights are unwrapped, see
                   `checkpoints.unwrap`. It may also be the path of a weights file in such a folder, a model's folder in
                   the cache of the hub, or a name or address of the hub: "google/vit-base-patch16-224",
                   "hf-hub:timm/vit_tiny_patch16_224.augreg_in21k". What is on disk comes before a name. The files that
                   are missing in the hub's cache are downloaded, where `pip install 'jaxmoxi[hub]'` was run; without it
                   a model in the cache is read as it is there. HF_HOME, HF_HUB_CACHE, HF_ENDPOINT, HF_TOKEN and
                   HF_HUB_OFFLINE mean what they mean to huggingface_hub. A `.npz` of Google's JAX code needs no other
                   file.
    preprocessing: how a photo becomes the network's input, where the folder does not say so, or instead of what it
                   says: a `Preprocessing`; "imagenet", "half" or "clip"; the path of a `preprocessor_config.json`; or
                   its content. Left out: the folder's own, else (with a warning) that of the published weights of the
                   same name.
    image_size:    (height, width), or a side, of the images in pixels, for the network at another size than its
                   weights' own. Position embeddings are interpolated as Hugging Face does for weights in its names, and
                   as timm does for those in timm's; a crop of the preprocessing keeps its share of the photo.
    entry:         which state dict of a training checkpoint to take, such as "state_dict_ema", or which of several
                   networks in one, such as "state_dict.model"; see `read_torch`.
    revision:      the branch, tag or commit of a model of the hub; left out, its branch main.
    cache_dir:     the folder of the hub's cache; left out, what the environment says, else ~/.cache/huggingface/hub.
    local_files_only: takes a model of the hub from the cache alone, without asking whether there is a newer commit.

    The network is of a family that `models/networks` registers, such as Hugging Face's and timm's ViT and DeiT (with or
    without teacher), DINOv2 with a classifier (with or without registers), BEiT and data2vec-vision; and, in their
    names or torchvision's, Swin, ResNet, ConvNeXt, EfficientNet, MobileNetV2 and MobileNetV3. A folder of torchvision's
    weights needs a `config.json` such as {"architecture": "convnext_tiny"}.

    Raises FileNotFoundError for a missing folder or file, and for a model that the hub does not have, keeps from this
    user or cannot be asked for, each in one line that says what to do; where the cache holds the model, it is taken
    with a warning instead. Raises ValueError for an unknown network (the error lists those that are known), for a
    config that describes none or one that is not implemented, for a size that the network cannot take, for weights
    whose preprocessing nobody knows, and for tensors that are missing, extra or misshapen, all of them listed. Warns of
    what it assumes.
    """
    found = find_source(
        folder,
        revision=revision,
        cache_dir=cache_dir,
        local_files_only=local_files_only,
        check=lambda config: _family(read_json(config), config),  # before the weights are downloaded
    )
    path, settings = read_settings(found)
    family = _family(settings, path)
    tensors = read_network(found, settings, entry=entry)
    try:
        config = family.config_from_settings(settings, tensors)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    family = family_of(config)  # not the one of its name, where a name stands for variants of several
    link = read_link(settings, config.num_classes, path)
    names = read_class_names(settings, config.num_classes, path)
    size = None if image_size is None else sides(checked_size(image_size))
    chosen = choose_preprocessing(preprocessing, Asking(settings, tensors, family, config, found.folder), size)
    config, tensors = family.at_size(config, tensors, chosen.size)
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
