"""Classifiers: checkpoint folders in, pure functions out."""

import warnings
from typing import Any

from jaxmoxi.models.checkpoints.demo import demo
from jaxmoxi.models.checkpoints.folder import load
from jaxmoxi.models.checkpoints.torch_file import read_torch
from jaxmoxi.models.checkpoints.weights import read_tensors
from jaxmoxi.models.classifier import Classifier, Restriction, imagenet_classes
from jaxmoxi.models.networks.cnn import InvertedResidualConfig
from jaxmoxi.models.networks.vit import VisionTransformerConfig
from jaxmoxi.models.preprocess import Preprocessing
from jaxmoxi.models.restriction import restrict

__all__ = [
    "Classifier",
    "InvertedResidualConfig",
    "Preprocessing",
    "Restriction",
    "VisionTransformerConfig",
    "demo",
    "imagenet_classes",
    "load",
    "read_tensors",
    "read_torch",
    "restrict",
]

# `p2p` has configs of these names, which are other classes.
_RENAMED = {"CNNConfig": InvertedResidualConfig, "ViTConfig": VisionTransformerConfig}


def __getattr__(name: str) -> Any:
    if name in _RENAMED:
        new = _RENAMED[name]
        warnings.warn(f"jaxmoxi.models.{name} is now {new.__name__}", DeprecationWarning, stacklevel=2)
        return new
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
