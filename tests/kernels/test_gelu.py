import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmoxi.kernels.gelu import gelu


def test_it_is_exact_to_float32_roundings():
    x = np.concatenate([np.linspace(-12, 12, 20001), [0.0, -0.0, 1e-30, -1e-30]]).astype(np.float32)
    exact = np.array([float(v) * 0.5 * math.erfc(-float(v) / math.sqrt(2)) for v in x])
    error = np.abs(np.asarray(jax.jit(gelu)(x), np.float64) - exact)
    assert np.max(error / np.maximum(np.abs(x), 1e-6)) < 2**-22  # two roundings
    plain = np.asarray(jax.nn.gelu(jnp.asarray(x), approximate=False))
    assert np.max(np.abs(np.asarray(gelu(jnp.asarray(x))) - plain) - 2**-22 * np.abs(x)) <= 1e-9


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
def test_it_keeps_the_dtype_and_computes_in_float32(dtype):
    x = jnp.linspace(-4, 4, 101).astype(dtype)
    found = gelu(x)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, gelu(x.astype(jnp.float32)).astype(dtype))
