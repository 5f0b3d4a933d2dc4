"""Bridges: this package's games in shapiq, and classifiers of other libraries in this package's games.

`as_shapiq_game` hands a value function to shapiq; `to_shapiq` and `from_shapiq` exchange interaction values with it.
The adapters `from_linen`, `from_nnx`, `from_equinox`, `from_torch` and `from_callable` turn a model into the
`logits_fn` that `pixel_value_fn` takes, float32[B, H, W, C] -> float32[B, K].

shapiq, Equinox and torchax are optional and imported on use, Flax with them.
"""

from jaxmoxi.bridges.host import CallableLogits, from_callable
from jaxmoxi.bridges.models import EquinoxLogits, LinenLogits, NnxLogits, from_equinox, from_linen, from_nnx
from jaxmoxi.bridges.shapiq_game import as_shapiq_game
from jaxmoxi.bridges.shapiq_values import from_shapiq, to_shapiq
from jaxmoxi.bridges.torch_logits import TorchLogits, from_torch

__all__ = [
    "CallableLogits",
    "EquinoxLogits",
    "LinenLogits",
    "NnxLogits",
    "TorchLogits",
    "as_shapiq_game",
    "from_callable",
    "from_equinox",
    "from_linen",
    "from_nnx",
    "from_shapiq",
    "from_torch",
    "to_shapiq",
]
