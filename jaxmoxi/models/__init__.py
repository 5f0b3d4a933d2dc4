"""Classifiers: checkpoint folders in, pure functions out."""

from jaxmoxi.models.classifier import Classifier, imagenet_classes
from jaxmoxi.models.cnn import CNNConfig
from jaxmoxi.models.folder import demo, load, read_tensors
from jaxmoxi.models.preprocess import Preprocessing
from jaxmoxi.models.torch_file import read_torch
from jaxmoxi.models.vit import ViTConfig

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
