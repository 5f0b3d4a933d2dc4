"""`from_torch` where PyTorch is not installed, and functions of NumPy where JAX traces."""

import sys

import jax
import numpy as np
import pytest

import jaxmoxi as jm
from jaxmoxi.bridges import torch_logits


def test_without_pytorch(monkeypatch):
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.setattr(torch_logits, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"from_torch needs PyTorch and torchax: pip install 'jaxmoxi\[torch\]'"):
        jm.from_torch(object())


def test_with_pytorch_installed_what_is_no_module_is_refused(monkeypatch):
    monkeypatch.setattr(torch_logits, "find_spec", lambda name: "found")
    with pytest.raises(ValueError, match=r"from_torch expected a torch.nn.Module, got int; .*from_callable"):
        jm.from_torch(3)


def test_a_function_of_numpy_where_jax_traces():
    image = jax.numpy.ones((4, 4, 3))
    with pytest.raises(ValueError, match=r"asks for the images' numbers, as NumPy.*from_callable\(fn, num_classes\)"):
        jm.pixel_value_fn(lambda x: np.asarray(x).mean((1, 2)), image, 1, jm.grid_regions(4, 4, rows=2, cols=2))
    with pytest.raises(TypeError, match="unsupported operand"):  # any other mistake in it is its own
        jm.pixel_value_fn(lambda x: x + None, image, 1, jm.grid_regions(4, 4, rows=2, cols=2))
