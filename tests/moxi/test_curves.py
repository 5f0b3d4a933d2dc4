import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmoxi as jm
from support.games import ThresholdGame, index, table_game


@pytest.mark.parametrize("num_players", [1, 4, 7])
def test_values_at_every_size(num_players):
    v, table = table_game(num_players, 11)
    order = np.random.default_rng(0).permutation(num_players)
    shown = [table[index(order[:k])] for k in range(num_players + 1)]
    hidden = [table[index(order[k:])] for k in range(num_players + 1)]
    np.testing.assert_array_equal(jm.insertion_curve(v, order).values, shown)
    np.testing.assert_array_equal(jm.deletion_curve(v, order).values, hidden)
    assert jm.insertion_curve(v, order).leads is None


def test_areas_by_hand():
    v = ThresholdGame(jnp.asarray([2.0, 4.0]), jnp.float32(-3.0))
    curve = jm.insertion_curve(v, jnp.asarray([1, 0]))  # -3, 1, 3
    assert curve.values.tolist() == [-3.0, 1.0, 3.0]
    assert curve.leads.tolist() == [False, True, True]
    np.testing.assert_allclose(curve.area, ((-3 + 1) / 2 + (1 + 3) / 2) / 2)
    np.testing.assert_allclose(curve.accuracy_area, 0.75)
    np.testing.assert_allclose(curve.probabilities, 1 / (1 + np.exp([3.0, -1.0, -3.0])), rtol=1e-6)
    assert jm.deletion_curve(v, jnp.asarray([1, 0])).values.tolist() == [3.0, -1.0, -3.0]


@pytest.mark.parametrize(("search", "curve"), [("insertion", "insertion"), ("deletion", "deletion")])
def test_is_the_searchs_own_path(search, curve):
    v, _ = table_game(6, 12)
    result = getattr(jm, f"greedy_{search}")(v, 6)
    path = getattr(jm, f"{curve}_curve")(v, result.order)
    np.testing.assert_array_equal(path.values, [result.start_value, *result.values])


def test_jit_is_eager():
    v, _ = table_game(5, 13)
    order = jnp.asarray([3, 1, 0, 4, 2])
    eager, jitted = jm.insertion_curve(v, order), jax.jit(jm.insertion_curve)(v, order)
    np.testing.assert_array_equal(eager.values, jitted.values)
    np.testing.assert_allclose(eager.area, jitted.area, rtol=1e-6)


@pytest.mark.usefixtures("unchecked")
def test_errors():
    v, _ = table_game(4)
    with pytest.raises(ValueError, match=r"permutation of the players 0 .. 3; 2 of them are missing: a search that"):
        jm.insertion_curve(v, jnp.asarray([2, 0, -1, -1]))
    with pytest.raises(ValueError, match=r"expected an order int\[P\]; got float32"):
        jm.deletion_curve(v, jnp.ones(4))
