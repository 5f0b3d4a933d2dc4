import math

import jax.numpy as jnp
import numpy as np
import pytest

from jaxmoxi.models.networks.hidden_act import ACTIVATIONS

X = np.array([-20, -4, -2.5, -1, -0.3, 0, 0.3, 1, 2.5, 4, 20], np.float32)


def tanh_gelu(x):
    return 0.5 * x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def normal(x, mean=0.0, deviation=1.0):
    return 0.5 * (1 + math.erf((x - mean) / (deviation * math.sqrt(2))))


def softplus(x):
    return math.log1p(math.exp(-abs(x))) + max(x, 0)


DEFINITIONS = {
    "gelu": lambda x: x * normal(x),
    "gelu_10": lambda x: min(max(x * normal(x), -10), 10),
    "gelu_accurate": tanh_gelu,
    "gelu_fast": tanh_gelu,
    "gelu_new": tanh_gelu,
    "gelu_python": lambda x: x * normal(x),
    "gelu_python_tanh": tanh_gelu,
    "gelu_pytorch_tanh": tanh_gelu,
    "hardswish": lambda x: x * min(max(x + 3, 0), 6) / 6,
    "laplace": lambda x: normal(x, 0.707107, 0.282095),
    "leaky_relu": lambda x: max(x, 0.01 * x),
    "linear": lambda x: x,
    "mish": lambda x: x * math.tanh(softplus(x)),
    "quick_gelu": lambda x: x / (1 + math.exp(-1.702 * x)),
    "relu": lambda x: max(x, 0),
    "relu2": lambda x: max(x, 0) ** 2,
    "relu6": lambda x: min(max(x, 0), 6),
    "sigmoid": lambda x: 1 / (1 + math.exp(-x)),
    "silu": lambda x: x / (1 + math.exp(-x)),
    "sqrtsoftplus": lambda x: math.sqrt(softplus(x)),
    "swish": lambda x: x / (1 + math.exp(-x)),
    "tanh": math.tanh,
}


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_activations_are_their_definitions(name):
    expected = [DEFINITIONS[name](float(x)) for x in X]
    np.testing.assert_allclose(ACTIVATIONS[name](jnp.asarray(X)), expected, rtol=1e-5, atol=3e-6)


def test_gelu_in_half_precision_is_rounded_once():
    x = jnp.asarray(X, jnp.bfloat16)
    found = ACTIVATIONS["gelu"](x)
    assert found.dtype == jnp.bfloat16
    expected = jnp.asarray([float(v) * normal(float(v)) for v in x], jnp.bfloat16)
    np.testing.assert_allclose(found.astype(jnp.float32), expected.astype(jnp.float32), rtol=0.01, atol=1e-5)


def test_every_name_of_transformers_is_known():
    found = pytest.importorskip("transformers.activations", exc_type=ImportError)
    assert found.ACT2FN.keys() - {"prelu", "xielu"} == ACTIVATIONS.keys()  # those two have weights
    torch = pytest.importorskip("torch")
    for name, ours in ACTIVATIONS.items():
        theirs = found.ACT2FN[name](torch.from_numpy(X)).numpy()
        np.testing.assert_allclose(ours(jnp.asarray(X)), theirs, rtol=1e-5, atol=3e-6, err_msg=name)
