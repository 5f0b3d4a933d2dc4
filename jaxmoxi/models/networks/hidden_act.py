"""The activations that a Hugging Face `config.json` may name as `hidden_act`: transformers' `ACT2FN`, but `prelu` and
`xielu`, which have weights of their own."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxmoxi.errors import InputError
from jaxmoxi.kernels.gelu import gelu
from jaxmoxi.models.checkpoints.torch_pickle import brief

Activation = Callable[[Float[Array, "*s"]], Float[Array, "*s"]]


def _laplace(x: Float[Array, "*s"]) -> Float[Array, "*s"]:
    return 0.5 * (1 + jax.lax.erf((x - 0.707107) * (1 / (0.282095 * math.sqrt(2.0)))))


ACTIVATIONS: dict[str, Activation] = {
    "gelu": gelu,
    "gelu_10": lambda x: jnp.clip(gelu(x), -10, 10),
    "gelu_accurate": jax.nn.gelu,
    "gelu_fast": jax.nn.gelu,
    "gelu_new": jax.nn.gelu,
    "gelu_python": gelu,
    "gelu_python_tanh": jax.nn.gelu,
    "gelu_pytorch_tanh": jax.nn.gelu,
    "hardswish": lambda x: x * (jax.nn.relu6(x + 3) * (1 / 6)),
    "laplace": _laplace,
    "leaky_relu": lambda x: jax.nn.leaky_relu(x, 0.01),
    "linear": lambda x: x,
    "mish": jax.nn.mish,
    "quick_gelu": lambda x: x * jax.nn.sigmoid(1.702 * x),
    "relu": jax.nn.relu,
    "relu2": lambda x: jnp.square(jax.nn.relu(x)),
    "relu6": jax.nn.relu6,
    "sigmoid": jax.nn.sigmoid,
    "silu": jax.nn.silu,
    "sqrtsoftplus": lambda x: jnp.sqrt(jax.nn.softplus(x)),
    "swish": jax.nn.silu,
    "tanh": jnp.tanh,
}

# What timm calls some of them.
TIMM_ACTIVATIONS = {
    "gelu": "gelu", "gelu_tanh": "gelu_pytorch_tanh", "hard_swish": "hardswish", "leaky_relu": "leaky_relu",
    "mish": "mish", "quick_gelu": "quick_gelu", "relu": "relu", "relu6": "relu6", "sigmoid": "sigmoid", "silu": "silu",
    "swish": "silu", "tanh": "tanh",
}  # fmt: skip


def activation_name(settings: Mapping[str, Any], key: str, default: str) -> str:
    """Which of `ACTIVATIONS` a setting names, in Hugging Face's or timm's words; absent or null: `default`.

    Raises ValueError for an activation that is not implemented.
    """
    value = settings.get(key)
    if value is None:
        return default
    name = TIMM_ACTIVATIONS.get(value, value) if isinstance(value, str) else ""
    if name not in ACTIVATIONS:
        known = ", ".join(sorted({*ACTIVATIONS, *TIMM_ACTIVATIONS}))
        raise InputError(f"expected {key} to be one of {known}; got {brief(repr(value))}: not implemented")
    return name
