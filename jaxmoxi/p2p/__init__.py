"""P2P: a classifier that predicts from the superpixels its own selector keeps (Vandenhirtz and Vogt, ICML 2025)."""

from jaxmoxi.p2p import data, plot, presets
from jaxmoxi.p2p.checkpoint import load, load_class_names, save
from jaxmoxi.p2p.config import CNNConfig, Config, ResNetConfig, ViTConfig
from jaxmoxi.p2p.evaluation import Evaluation, evaluate
from jaxmoxi.p2p.fidelity import Fidelity, fidelity
from jaxmoxi.p2p.leakage import MaskLeakage, heldout_accuracy, mask_leakage
from jaxmoxi.p2p.model import P2P, from_torch, init
from jaxmoxi.p2p.pretrained import pretrained_classifier
from jaxmoxi.p2p.threshold import Prediction, predict
from jaxmoxi.p2p.trainer import FitResult, fit

__all__ = [
    "P2P",
    "CNNConfig",
    "Config",
    "Evaluation",
    "Fidelity",
    "FitResult",
    "MaskLeakage",
    "Prediction",
    "ResNetConfig",
    "ViTConfig",
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
    "plot",
    "predict",
    "presets",
    "pretrained_classifier",
    "save",
]
