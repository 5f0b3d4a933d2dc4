"""P2P: a classifier that predicts from the superpixels its own selector keeps (Vandenhirtz and Vogt, ICML 2025)."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

from jaxmoxi.p2p import data
from jaxmoxi.p2p.checkpoint import load, load_class_names, save
from jaxmoxi.p2p.config import CNNConfig, Config, ResNetConfig, ViTConfig
from jaxmoxi.p2p.inference import metrics
from jaxmoxi.p2p.inference.classes import ClassSummary, by_class
from jaxmoxi.p2p.inference.evaluation import Evaluation, evaluate
from jaxmoxi.p2p.inference.fidelity import Fidelity, fidelity
from jaxmoxi.p2p.inference.leakage import MaskLeakage, heldout_accuracy, mask_leakage
from jaxmoxi.p2p.inference.parts import part_clusters
from jaxmoxi.p2p.inference.predict import Prediction, predict
from jaxmoxi.p2p.model import P2P, from_torch, init
from jaxmoxi.p2p.training import presets
from jaxmoxi.p2p.training.config import TrainConfig
from jaxmoxi.p2p.training.loop import FitResult, fit
from jaxmoxi.p2p.training.pretrained import pretrained_classifier

plot: ModuleType  # jaxmoxi.plot.sparse, imported on first use

__all__ = [
    "P2P",
    "CNNConfig",
    "ClassSummary",
    "Config",
    "Evaluation",
    "Fidelity",
    "FitResult",
    "MaskLeakage",
    "Prediction",
    "ResNetConfig",
    "TrainConfig",
    "ViTConfig",
    "by_class",
    "data",
    "evaluate",
    "fidelity",
    "fit",
    "from_torch",
    "heldout_accuracy",
    "init",
    "load",
    "load_class_names",
    "mask_leakage",
    "metrics",
    "part_clusters",
    "plot",
    "predict",
    "presets",
    "pretrained_classifier",
    "save",
]


def __getattr__(name: str) -> Any:
    if name == "plot":  # on first use: pictures stand above the algorithms they show
        return importlib.import_module("jaxmoxi.plot.sparse")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
