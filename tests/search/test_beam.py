"""The best group of each size."""

import jax.numpy as jnp
import numpy as np
import pytest

import jaxmoxi as jm
from jaxmoxi import search
from support.games import ThresholdGame, table_game
from support.search import any_game, enough, everybody


@pytest.mark.parametrize("insertion", [True, False])
def test_a_wide_beam_is_brute_force(insertion):
    v, table = any_game(6, 1)
    found = search.beam_search(v, 6, width=64, rounds=0, insertion=insertion, max_size=6)
    groups = everybody(6)
    values = table[(groups if insertion else ~groups) @ 2 ** np.arange(6)]
    for size in range(7):
        of_size = values[groups.sum(1) == size]
        assert float(found.values[size]) == (of_size.max() if insertion else of_size.min())
        assert int(found.groups[size].sum()) == size
    assert found.minimal.shape == (0, 6)
    assert int(found.num_evaluations) <= 64


def test_a_beam_of_one_without_exchanges_is_greedy():
    v, _ = table_game(7, 5)
    found = search.beam_search(v, 7, width=1, rounds=0, max_size=7)
    greedy = jm.greedy_insertion(v, 7)
    np.testing.assert_array_equal(found.values[1:], greedy.values)
    for size, player in enumerate(np.asarray(greedy.order)):
        assert bool(found.groups[size + 1, player])


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("insertion", [True, False])
def test_beam_finds_no_larger_group_than_minimal_group(seed, insertion):
    v, table = any_game(8, seed, -1.0)
    found = search.beam_search(v, 8, width=4, insertion=insertion)
    one = found.minimal[0]
    assert enough(table, one, insertion)
    assert int(one.sum()) <= int(search.minimal_group(v, 8, insertion=insertion).size)
    assert bool(found.enough[-1])
    assert not found.enough[:-1].any()


def test_beam_gives_disjoint_groups():
    v = ThresholdGame(jnp.ones(7), jnp.float32(-1.5))
    found = search.beam_search(v, 7, num_groups=5)
    assert found.minimal.shape == (3, 7)  # two players each; one is left over
    assert np.asarray(found.minimal).sum(0).max() == 1
    assert np.asarray(found.minimal).sum(1).tolist() == [2, 2, 2]
