import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmoxi.kernels.select import first_true


@pytest.mark.parametrize("count", [1, 5, 12])
def test_places_are_those_of_a_stable_sort(count):
    shown = np.random.default_rng(0).random((40, 12)) < np.linspace(0, 1, 40)[:, None]
    places, there = jax.jit(first_true, static_argnums=1)(jnp.asarray(shown), count)
    sorted_places = np.argsort(~shown, axis=1, kind="stable")[:, :count]
    np.testing.assert_array_equal(there, np.take_along_axis(shown, sorted_places, 1))
    np.testing.assert_array_equal(np.where(there, places, -1), np.where(there, sorted_places, -1))
    assert int(jnp.min(places)) >= 0
    assert int(jnp.max(places)) < 12


def test_rows_of_nobody_and_of_everybody():
    places, there = first_true(jnp.asarray([[False] * 4, [True] * 4]), 3)
    np.testing.assert_array_equal(there, [[False] * 3, [True] * 3])
    np.testing.assert_array_equal(places[1], [0, 1, 2])
