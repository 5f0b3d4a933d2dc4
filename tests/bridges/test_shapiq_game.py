"""A value function as a game of shapiq."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh

import jaxmoxi as jm
from jaxmoxi.bridges import as_shapiq_game, shapiq_game
from support.games import every_coalition

IMAGE = jax.random.uniform(jax.random.key(0), (8, 8, 3))
IMAGES = jax.random.uniform(jax.random.key(1), (4, 8, 8, 3))
REGIONS = jm.grid_regions(8, 8, rows=2, cols=3)
P, K = 6, 5


# shapiq


def quadratic(seed=0, num_players=P):
    """A game of known indices: own worth a, worth b of each pair, and c for nobody."""
    rng = np.random.default_rng(seed)
    a = rng.normal(size=num_players).astype(np.float32)
    b = np.triu(rng.normal(size=(num_players, num_players)), 1).astype(np.float32)

    def worth(a, b, masks):
        x = masks.astype(jnp.float32)
        return x @ a + jnp.einsum("ci,ij,cj->c", x, b, x) + 0.75

    return jax.tree_util.Partial(worth, jnp.asarray(a), jnp.asarray(b)), a, b


def test_shapiq_finds_the_indices_of_a_known_game():
    shapiq = pytest.importorskip("shapiq")
    v, a, b = quadratic()
    game = as_shapiq_game(v, P)
    assert isinstance(game, shapiq.Game)
    exact = shapiq.ExactComputer(game)
    shapley = exact("SV", order=1).get_n_order_values(1)
    np.testing.assert_allclose(shapley, a + (b + b.T).sum(1) / 2, atol=1e-5)
    np.testing.assert_allclose(exact("SII", order=2).get_n_order_values(2), b + b.T, atol=1e-5)
    np.testing.assert_allclose(shapley.sum(), game(game.grand_coalition[None])[0], atol=1e-5)
    np.testing.assert_allclose(jm.pairwise_interactions(v, P), b + b.T, atol=1e-5)  # order two: the same in any context


def test_shapiq_approximates_and_draws_it():
    shapiq = pytest.importorskip("shapiq")
    pyplot = pytest.importorskip("matplotlib.pyplot")
    v, a, b = quadratic(1)
    game = as_shapiq_game(v, P, batch_size=16)
    estimate = shapiq.KernelSHAPIQ(P, max_order=2, index="k-SII", random_state=0).approximate(2**P, game)
    np.testing.assert_allclose(estimate.get_n_order_values(2), b + b.T, atol=1e-3)
    np.testing.assert_allclose(estimate.get_n_order_values(1), a, atol=1e-3)  # k-SII leaves to a player its own part
    figure, axes = shapiq.network_plot(estimate, show=False)
    assert len(axes.patches) + len(axes.lines) + len(axes.collections) > P
    pyplot.close(figure)


def test_its_values_are_those_of_evaluate():
    pytest.importorskip("shapiq")
    v = jm.pixel_value_fn(lambda images: jnp.tanh(images.mean((1, 2))) @ jnp.ones((3, K)).cumsum(1), IMAGE, 2, REGIONS)
    masks = every_coalition()
    values = np.asarray(jm.evaluate(v, masks), np.float64)
    raw, centred = as_shapiq_game(v, P, normalize=False), as_shapiq_game(v, P, batch_size=7)
    assert raw(masks).dtype == np.float64
    np.testing.assert_allclose(raw(masks), values, rtol=1e-6)
    np.testing.assert_allclose(centred(masks), values - values[0], rtol=1e-5, atol=1e-6)
    assert centred(masks[:1])[0] == 0
    np.testing.assert_allclose(raw([(), (0, 5)]), values[[0, 0b100001]], rtol=1e-6)
    np.testing.assert_allclose(raw(masks.astype(int)), values, rtol=1e-6)
    sharded = jm.shard_coalitions(v, Mesh(np.array(jax.devices()[:4]), ("d",)))
    np.testing.assert_allclose(as_shapiq_game(sharded, P, normalize=False)(masks), values, rtol=1e-6)


def test_requests_are_padded_to_the_next_power_of_two():
    pytest.importorskip("shapiq")
    traced = []

    def v(masks):
        traced.append(masks.shape)
        return masks.sum(1).astype(jnp.float32)

    game = as_shapiq_game(v, P, batch_size=16)
    traced.clear()
    for count in (1, 5, 16, 17, 64, 6, 1):
        masks = every_coalition()[-count:]
        np.testing.assert_array_equal(game(masks), masks.sum(1))
    assert set(traced) <= {(1, P), (8, P), (16, P)}  # and what is compiled already is not traced again
    assert (16, P) in traced


def test_a_game_that_cannot_be():
    pytest.importorskip("shapiq")
    v, _, _ = quadratic()
    with pytest.raises(ValueError, match="num_players must be an integer of at least 1; got 0"):
        as_shapiq_game(v, 0)
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        as_shapiq_game(v, P, batch_size=0)
    pixels = jm.pixel_value_fn(lambda images: images.mean((1, 2)), IMAGE, 0, REGIONS)
    with pytest.raises(ValueError, match="has 6 players; got num_players"):
        as_shapiq_game(pixels, 5)
    game = as_shapiq_game(lambda masks: jnp.where(masks[:, 1] & masks[:, 3], jnp.nan, 1.0), P)
    with pytest.raises(jm.NaNValueError, match=r"NaN for the coalition of players \[1, 3\]"):
        game(np.array([[0, 1, 0, 0, 0, 1], [0, 1, 0, 1, 0, 0]], bool))


def test_without_shapiq(monkeypatch):
    shapiq_game._game_class.cache_clear()
    monkeypatch.setitem(sys.modules, "shapiq", None)
    with pytest.raises(ImportError, match=r"pip install 'jaxmoxi\[shapiq\]'"):
        as_shapiq_game(quadratic()[0], P)


# Models, each with dropout and batch normalisation where its library has them
