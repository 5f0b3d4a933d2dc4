"""Explain a model that is not in JAX: a PyTorch one where PyTorch is installed, else one in NumPy.

    python examples/numpy_or_torch_model.py

The search stays compiled and calls the model back with whole chunks of masked images.
"""

from importlib.util import find_spec

import jax
import numpy as np

import jaxmoxi as jm

has_torch = find_spec("torch") is not None
if has_torch:
    import torch

    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 16, 5), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()
    )
    net = torch.nn.Sequential(net, torch.nn.Dropout(0.5), torch.nn.Linear(16, 10)).eval()

    def model(images):
        with torch.no_grad():
            return net(torch.from_numpy(images))

    logits_fn = jm.from_callable(model, 10, channels_first=True)
else:
    weights = np.random.default_rng(0).normal(size=(32 * 32 * 3, 10)).astype(np.float32)

    def model(images):
        return np.tanh(images.reshape(len(images), -1) - 0.5) @ weights

    logits_fn = jm.from_callable(model, 10)

image = jax.random.uniform(jax.random.key(0), (32, 32, 3))
v = jm.pixel_value_fn(logits_fn, image, 3, jm.grid_regions(32, 32, rows=4, cols=4), fill="mean")
found = jm.greedy_insertion(v, 16)
print(f"{'torch' if has_torch else 'numpy'}: {found.order.tolist()}")
