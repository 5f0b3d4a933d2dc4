import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmoxi as jm
from jaxmoxi.pytrees import record
from jaxmoxi.types import Readout
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


SIZES = np.array([1, 2, 9, 20, 3, 5])  # pixels of each player: they differ, as superpixels' do
STRIPES = np.repeat(np.arange(6), SIZES)[None]


@record
class AreaGame:
    """A class whose belief depends on how much of the image is visible alone: no order is better than another."""

    pixels: jax.Array

    def __call__(self, masks):
        return self.readout(masks).values

    def readout(self, masks):
        share = masks @ self.pixels / self.pixels.sum()
        return Readout(share, share > 0.8, share**5)


def test_areas_over_pixels_do_not_reward_large_players():
    v, order = AreaGame(jnp.asarray(SIZES, jnp.float32)), np.argsort(SIZES)
    over_players = [float(jm.insertion_curve(v, o).probability_area) for o in (order[::-1], order)]
    assert over_players[0] - over_players[1] > 0.2  # large players first, small players first
    found = [jm.insertion_curve(v, o, share="pixels", regions=STRIPES) for o in (order[::-1], order)]
    np.testing.assert_allclose([float(c.area) for c in found], [0.5, 0.5], rtol=1e-6)  # the payoff is the share itself
    np.testing.assert_allclose(found[0].shares, np.cumsum([0, 20, 9, 5, 3, 2, 1]) / 40, rtol=1e-6)
    assert found[0].share == "pixels"
    assert jm.insertion_curve(v, order).share == "players"
    for curve in found:
        np.testing.assert_allclose(curve.probability_area, np.trapezoid(curve.probabilities, curve.shares), rtol=1e-6)
        np.testing.assert_allclose(jm.metrics.probability_area(curve), curve.probability_area, rtol=1e-6)
        # Both read the same share of the image: half of it, to the nearest player.
        assert abs(float(jm.metrics.curve_at(curve, 0.5, quantity="values")) - 0.5) <= 0.25


def test_pixels_are_those_of_the_value_functions_players():
    image = jnp.asarray(np.random.default_rng(0).normal(size=(1, 40, 3)), jnp.float32)
    v = jm.pixel_value_fn(lambda x: x.mean((1, 2)), image, 0, STRIPES)
    order = jnp.asarray([3, 0, 1, 5, 4, 2])
    for game in (v, jm.shard_coalitions(v, jax.make_mesh((2,), ("devices",)))):
        for follow in (jm.insertion_curve, jm.deletion_curve):
            told, given = follow(game, order, share="pixels"), follow(game, order, share="pixels", regions=STRIPES)
            np.testing.assert_array_equal(told.shares, given.shares)
            np.testing.assert_allclose(told.shares, np.cumsum([0, 20, 1, 2, 5, 3, 9]) / 40, rtol=1e-6)
    jitted = jax.jit(lambda v, o, r: jm.insertion_curve(v, o, share="pixels", regions=r))(v, order, STRIPES)
    np.testing.assert_allclose(jitted.area, jm.insertion_curve(v, order, share="pixels").area, rtol=1e-6)


def test_players_of_one_size_have_one_area():
    v, _ = table_game(4, 3)
    quarters = jm.grid_regions(4, 4, rows=2, cols=2)
    players, pixels = (jm.deletion_curve(v, jnp.arange(4), **k) for k in ({}, {"share": "pixels", "regions": quarters}))
    np.testing.assert_array_equal(players.shares, pixels.shares)
    np.testing.assert_array_equal(players.area, pixels.area)


def test_errors_of_pixels():
    v, _ = table_game(4)
    with pytest.raises(ValueError, match="this value function cannot tell: give regions=, the label map"):
        jm.insertion_curve(v, jnp.arange(4), share="pixels")
    with pytest.raises(ValueError, match="expected regions of the 4 players of the order; got 6 regions"):
        jm.insertion_curve(v, jnp.arange(4), share="pixels", regions=STRIPES)
    with pytest.raises(ValueError, match='does not use: add share="pixels"'):
        jm.insertion_curve(v, jnp.arange(4), regions=STRIPES)


@pytest.mark.usefixtures("unchecked")
def test_errors_of_shares():
    with pytest.raises(ValueError, match="share must be 'players' or 'pixels'; got 'area'"):
        jm.insertion_curve(table_game(4)[0], jnp.arange(4), share="area")
