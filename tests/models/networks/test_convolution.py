"""The CPU's forms of a convolution against XLA's own, gradients included."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmoxi.models.networks import convolution
from jaxmoxi.models.networks.depthwise import in_pairs

RNG = np.random.default_rng(0)


def array(*shape):
    return jnp.asarray(RNG.normal(size=shape), jnp.float32)


@pytest.mark.parametrize(
    ("shape", "kernel", "stride", "margins"),
    [
        ((2, 12, 11, 3), (3, 3, 3, 4), 1, ((1, 1), (1, 1))),  # Winograd, an odd side
        ((1, 10, 10, 2), (3, 3, 2, 5), 1, ((0, 2), (1, 0))),
        ((2, 13, 10, 3), (3, 3, 3, 4), 2, ((1, 1), (1, 1))),
        ((2, 5, 6, 3), (3, 3, 3, 4), 1, ((1, 1), (1, 1))),  # too small for Winograd
        ((2, 20, 17, 3), (7, 7, 3, 4), 2, ((3, 3), (3, 3))),
        ((2, 9, 8, 3), (1, 1, 3, 6), 1, ((0, 0), (0, 0))),
        ((2, 9, 8, 3), (1, 1, 3, 6), 2, ((0, 0), (0, 0))),
        ((1, 8, 9, 2), (5, 3, 2, 3), 1, ((2, 2), (1, 1))),
    ],
)
def test_the_cpus_form_is_the_convolution(shape, kernel, stride, margins):
    x, k = array(*shape), array(*kernel)
    plain = convolution.convolve(x, k, stride, margins)
    fast = jax.jit(convolution.convolve_cpu, static_argnums=(2, 3))(x, k, stride, margins)
    np.testing.assert_allclose(fast, plain, rtol=1e-5, atol=1e-5 * float(jnp.abs(plain).max()))
    weight = array(*plain.shape)

    def loss(form, x, k):
        return (form(x, k, stride, margins) * weight).sum()

    expected = jax.grad(loss, (1, 2))(convolution.convolve, x, k)
    found = jax.jit(jax.grad(loss, (1, 2)), static_argnums=0)(convolution.convolve_cpu, x, k)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)
    rows = jax.vmap(lambda x: convolution.convolve_cpu(x[None], k, stride, margins)[0])(x)
    np.testing.assert_allclose(rows, plain, rtol=1e-5, atol=1e-5 * float(jnp.abs(plain).max()))


@pytest.mark.parametrize(("shape", "size", "stride", "margin"), [((2, 9, 8, 3), 3, 2, 1), ((1, 7, 7, 2), 2, 1, 0)])
def test_the_pool_is_the_window(shape, size, stride, margin):
    x = array(*shape)
    margins = ((0, 0), (margin, margin), (margin, margin), (0, 0))
    expected = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, size, size, 1), (1, stride, stride, 1), margins)
    np.testing.assert_array_equal(convolution.max_pool(x, size, stride, margin), expected)


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_pairs_are_the_batch(count):
    x = array(count, 4, 4, 2)
    np.testing.assert_allclose(in_pairs(lambda x: x[:, ::2] * 2, x), x[:, ::2] * 2, rtol=1e-6)
