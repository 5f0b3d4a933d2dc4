"""The families of networks that checkpoint folders are read for. A family's file registers it once."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from typing import Any

import numpy as np

from jaxmoxi.errors import InputError
from jaxmoxi.models.checkpoints.tensors import State
from jaxmoxi.models.networks.base import ClassifierNetwork, NetworkConfig, checked_size, sides
from jaxmoxi.models.preprocess import Preprocessing


@dataclasses.dataclass(frozen=True)
class Family:
    """What the rest of the package knows of a family of networks.

    network:              its module.
    config:               the class of its configs, which no other family shares.
    model_types:          its names in `model_type`, the key of Hugging Face's `config.json`.
    architectures:        its names in `architecture`, timm's key; `*` stands for any characters.
    config_from_settings: `(settings, tensors) -> config`, from the content of `config.json` and the checkpoint's
                          tensors by name; raises ValueError for a variant that is not implemented.
    from_tensors:         `(config, tensors, *, source) -> state`, the parameters of the module as float32; raises
                          ValueError that lists missing, extra and misshapen tensors and names the checkpoint `source`.
    preprocessing:        `side -> Preprocessing` to images of `side` pixels, where a folder says nothing about it and
                          all weights of the family were trained alike; or None.
    published:            `(settings, tensors, side) -> Preprocessing`, where the names in the folder decide how; it
                          returns None for weights that nobody knows, and the folder is refused then.
    any_size:             whether the network takes images of any size, so that the photos' preprocessing decides on it
                          where the user does not.
    resize:               `(config, tensors, (height, width)) -> (config, tensors)`: the same network for images of
                          another size, where its tensors depend on the size (position embeddings); None where they do
                          not. Raises ValueError for a size that the network cannot take.
    """

    network: type[ClassifierNetwork]
    config: type
    model_types: tuple[str, ...]
    architectures: tuple[str, ...]
    config_from_settings: Callable[[Mapping[str, Any], Mapping[str, np.ndarray]], Any]
    from_tensors: Callable[..., State]
    preprocessing: Callable[[int], Preprocessing] | None = None
    published: Callable[[Mapping[str, Any], Mapping[str, np.ndarray], int], Preprocessing | None] | None = None
    any_size: bool = False
    resize: Callable[[Any, Mapping[str, np.ndarray], tuple[int, int]], tuple[Any, Mapping[str, np.ndarray]]] | None = (
        None
    )

    def at_size(
        self, config: Any, tensors: Mapping[str, np.ndarray], size: tuple[int, int]
    ) -> tuple[Any, Mapping[str, np.ndarray]]:
        """The config and the tensors of the same network for images of another size, (height, width)."""
        if sides(config.image_size) == size:
            return config, tensors
        if self.resize is not None:
            return self.resize(config, tensors, size)
        return dataclasses.replace(config, image_size=checked_size(size)), tensors

    def names(self) -> tuple[str, ...]:
        """All names that the family goes by in a `config.json`."""
        return self.model_types + self.architectures


def network_kind(settings: Mapping[str, Any]) -> str:
    """The name that a `config.json` gives the network: `model_type`, else `architecture`, else "".

    Of timm's networks in Hugging Face's wrapper it is `architecture`.
    """
    model_type = settings.get("model_type")
    wrapped = model_type == "timm_wrapper"
    return str((None if wrapped else model_type) or settings.get("architecture") or "")


_FAMILIES: dict[type, Family] = {}


def register(family: Family) -> None:
    """Makes a family known. Raises ValueError for a name that another family has."""
    place = (family.config.__module__, family.config.__qualname__)
    for other in _FAMILIES.values():
        both = sorted({*family.names()} & {*other.names()})
        if both and place != (other.config.__module__, other.config.__qualname__):  # a reloaded file is not another
            raise ValueError(f"{family.network.__name__} and {other.network.__name__} both go by {', '.join(both)}")
    _FAMILIES[family.config] = family


def registered() -> tuple[Family, ...]:
    """The families whose files are imported, in the order of their names; `networks.families` imports all files."""
    return tuple(sorted(_FAMILIES.values(), key=Family.names))


def family_of(config: NetworkConfig) -> Family:
    """The family that a config belongs to. Raises ValueError for what is no registered family's config."""
    if type(config) not in _FAMILIES:
        known = ", ".join(sorted(c.__name__ for c in _FAMILIES))
        raise InputError(f"expected the config of a registered network ({known}); got {type(config).__name__}")
    return _FAMILIES[type(config)]


def find_family(kind: str, families: tuple[Family, ...]) -> Family | None:
    """The family that goes by the name `kind`; of several whose names fit, the one whose name is longest."""
    fits = [
        (name == kind, len(name), i) for i, f in enumerate(families) for name in f.names() if fnmatchcase(kind, name)
    ]
    return families[max(fits)[2]] if fits else None
