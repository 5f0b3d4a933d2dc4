"""Beam search as one compiled loop: the answers of its form on the host, inside jit, vmap and closures."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmoxi as jm
from jaxmoxi import search
from support.games import ThresholdGame
from support.search import any_game

P = 7


def assert_same(found, expected):
    """The rows that the host found, and past them nobody."""
    rows, count = len(expected.groups), len(expected.minimal)
    np.testing.assert_array_equal(found.groups[:rows], expected.groups)
    np.testing.assert_allclose(found.values[:rows], expected.values, rtol=1e-6)
    np.testing.assert_array_equal(found.enough[:rows], expected.enough)
    np.testing.assert_array_equal(found.minimal[:count], expected.minimal)
    assert int(found.num_evaluations) == int(expected.num_evaluations)
    assert not np.any(found.groups[rows:])
    assert not np.any(found.minimal[count:])
    assert np.isnan(found.values[rows:]).all()


def compare(games, find):
    together = jax.jit(jax.vmap(find))(jax.tree.map(lambda *x: jnp.stack(x), *games))
    for i, game in enumerate(games):
        assert_same(jax.tree.map(lambda x, i=i: x[i], together), find(game))
    return together


@pytest.mark.parametrize(
    "settings",
    [
        {"width": 3, "num_groups": 3},
        {"width": 2, "insertion": False, "rounds": 1},
        {"width": 4, "max_size": 5},
        {"width": 1, "rounds": 0, "max_size": P},
    ],
    ids=str,
)
def test_beams_are_those_of_the_host(settings):
    games = [any_game(P, seed, -1.0)[0] for seed in range(5)]
    compare(games, partial(search.beam_search, num_players=P, **settings))


def test_a_shortlist_and_ties():
    """With 36 players an exchange looks at a shortlist, and of equal weights groups tie."""
    weights = jnp.asarray(np.random.default_rng(5).integers(0, 4, 36), jnp.float32)
    games = [ThresholdGame(weights, jnp.float32(b)) for b in (-5.5, -8.5)]
    compare(games, partial(search.beam_search, num_players=36, width=2, value=0.0, num_groups=2, rounds=1))


def test_it_closes_over_what_is_traced_and_says_what_cannot_be_raised():
    weights = jnp.arange(1.0, 5.0)

    def find(bias):
        return search.beam_search(lambda masks: masks @ weights + bias, 4, value=2.0, width=2)

    found = jax.jit(find)(jnp.float32(-3.0))
    assert_same(found, find(-3.0))
    hopeless = jax.jit(find)(jnp.float32(-99.0))
    assert not hopeless.enough.any()
    assert not hopeless.minimal.any()
    broken = jax.jit(find)(jnp.float32(jnp.nan))
    assert np.isnan(broken.values).all()
    assert not broken.enough.any()


def test_on_an_accelerator_the_result_has_the_shapes_of_the_host(monkeypatch):
    game = any_game(P, 1, -1.0)[0]
    expected = search.beam_search(game, P, width=3, num_groups=3)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")  # what decides between the two forms
    found = search.beam_search(game, P, width=3, num_groups=3)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)
    with pytest.raises(jm.InputError, match="no group along the way reaches the goal"):
        search.beam_search(ThresholdGame(jnp.ones(4), jnp.float32(-99)), 4)
