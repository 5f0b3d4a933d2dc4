"""Classifiers: checkpoint folders in, pure functions out."""

from jaxmoxi.models.checkpoints.folder import demo, load, read_tensors
from jaxmoxi.models.checkpoints.torch_file import read_torch
from jaxmoxi.models.classifier import Classifier, imagenet_classes
from jaxmoxi.models.networks.cnn import CNNConfig
from jaxmoxi.models.networks.vit import ViTConfig
from jaxmoxi.models.preprocess import Preprocessing

__all__ = [
    "CNNConfig",
    "Classifier",
    "Preprocessing",
    "ViTConfig",
    "demo",
    "imagenet_classes",
    "load",
    "read_tensors",
    "read_torch",
]
