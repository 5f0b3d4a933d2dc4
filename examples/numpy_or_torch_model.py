"""Explain a model that is not in JAX: a PyTorch one where PyTorch is installed, else one in NumPy.

    python examples/numpy_or_torch_model.py

The search stays compiled and calls the model back with whole chunks of masked images.
"""

from importlib import import_module
from importlib.util import find_spec

import jax
import numpy as np

import jaxmoxi as jm


def numpy_model(images: np.ndarray) -> np.ndarray:
    weights = np.random.default_rng(0).normal(size=(images[0].size, 10)).astype(np.float32)
    return np.tanh(images.reshape(len(images), -1) - 0.5) @ weights


def torch_model():
    """A function of NumPy arrays, channels first, to NumPy logits, around a module of PyTorch."""
    torch = import_module("torch")
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 16, 5),
        torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Dropout(0.5),
        torch.nn.Linear(16, 10),
    ).eval()

    def model(images: np.ndarray):
        with torch.no_grad():
            return net(torch.from_numpy(images))

    return model


has_torch = find_spec("torch") is not None
logits_fn = jm.from_callable(torch_model(), 10, channels_first=True) if has_torch else jm.from_callable(numpy_model, 10)

image = jax.random.uniform(jax.random.key(0), (32, 32, 3))
v = jm.pixel_value_fn(logits_fn, image, 3, jm.grid_regions(32, 32, rows=4, cols=4), fill="mean")
found = jm.greedy_insertion(v, 16)
print(f"{'torch' if has_torch else 'numpy'}: {found.order.tolist()}")
