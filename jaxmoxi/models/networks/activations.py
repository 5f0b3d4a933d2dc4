"""The activations of convolutional networks, by the names that Hugging Face and timm give them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
from jaxtyping import Array

from jaxmoxi.errors import InputError
from jaxmoxi.models.checkpoints.torch_pickle import brief
from jaxmoxi.models.networks.hidden_act import gelu

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "gelu": gelu,
    "gelu_tanh": jax.nn.gelu,
    "hard_swish": lambda x: x * (jax.nn.relu6(x + 3) * (1 / 6)),
    "quick_gelu": lambda x: x * jax.nn.sigmoid(1.702 * x),
    "relu": jax.nn.relu,
    "relu6": jax.nn.relu6,
    "silu": jax.nn.silu,
}
_OTHER_NAMES = {"gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "hardswish": "hard_swish", "swish": "silu"}


def activation_name(settings: Mapping[str, Any], key: str, default: str) -> str:
    """Which of `ACTIVATIONS` a setting names; `default` where the key is absent or null.

    Raises ValueError for an activation that is not implemented.
    """
    value = settings.get(key)
    name = default if value is None else _OTHER_NAMES.get(value, value) if isinstance(value, str) else ""
    if name not in ACTIVATIONS:
        known = ", ".join(sorted({*ACTIVATIONS, *_OTHER_NAMES}))
        raise InputError(f"expected {key} to be one of {known}; got {brief(repr(value))}: not implemented")
    return name
