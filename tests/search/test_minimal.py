"""A small group that is enough, against brute force."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxmoxi as jm
from jaxmoxi import search
from jaxmoxi.search.oracle import visible_size
from support.games import SizedGame, ThresholdGame, table_game
from support.search import TableGame, any_game, enough, games, number, smallest, tiny_model


@pytest.fixture(scope="module")
def tiny():
    return tiny_model()


@pytest.mark.parametrize("insertion", [True, False])
@pytest.mark.parametrize("seed", range(6))
def test_minimal_group_is_the_true_minimum_of_small_games(seed, insertion):
    v, table = any_game(8, seed)
    found = search.minimal_group(v, 8, insertion=insertion, budget=200)
    assert bool(found.enough)
    assert enough(table, found.group, insertion)
    assert int(found.size) == np.asarray(found.group).sum() == smallest(table, 8, insertion)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10**6), st.booleans(), st.sampled_from([-1.5, -0.5, 0.5]), st.sampled_from([1, 20, None]))
def test_minimal_group_is_minimal_and_never_larger_than_greedys(seed, insertion, bias, budget):
    v, table = any_game(7, seed, bias)
    found = search.minimal_group(v, 7, insertion=insertion, budget=budget)
    group = np.asarray(found.group)
    assert enough(table, group, insertion)
    for player in np.flatnonzero(group):
        less = group.copy()
        less[player] = False
        assert not enough(table, less, insertion)
    greedy = (jm.greedy_insertion if insertion else jm.greedy_deletion)(v, 7, stop=jm.Stop(flip=True))
    assert int(found.size) <= int(greedy.num_steps)
    assert float(found.value) == table[number(group if insertion else ~group)]
    assert int(found.num_evaluations) <= 2 * 28 + 2


def test_minimal_group_of_levels():
    weights = jnp.asarray([1.0, 5.0, 2.0, 4.0, 3.0, 0.5])
    v = ThresholdGame(weights, jnp.float32(-10.0))
    assert np.flatnonzero(search.minimal_group(v, 6, value=-1.0).group).tolist() == [1, 3]
    assert int(search.minimal_group(v, 6, probability=0.85).size) == 3  # log odds above 1.735
    hidden = search.minimal_group(v, 6, insertion=False, value=-1.0)
    assert np.flatnonzero(hidden.group).tolist() in ([1, 2], [1, 3], [1, 4], [3, 4])
    assert float(hidden.value) <= -1


def test_minimal_group_starts_from_greedy_when_everybody_is_not_enough():
    table = np.full(16, -1, np.float32)
    table[[1, 3]] = [-0.5, 1]
    found = search.minimal_group(TableGame(jnp.asarray(table)), 4)
    assert np.flatnonzero(found.group).tolist() == [0, 1]


def test_nobody_can_be_enough():
    v = ThresholdGame(jnp.ones(5), jnp.float32(1.0))
    assert int(search.minimal_group(v, 5).size) == 0


def test_searches_are_deterministic():
    v, _ = any_game(9, 3)
    for run in (
        lambda: search.minimal_group(v, 9),
        lambda: search.beam_search(v, 9, width=3),
        lambda: search.screened_greedy(v, 9, scorer="stale", num_candidates=3),
    ):
        jax.tree.map(np.testing.assert_array_equal, run(), run())


@pytest.mark.parametrize("insertion", [True, False])
def test_backward_elimination_ends_where_nobody_can_be_taken_away(insertion):
    for seed in range(5):
        v, table = any_game(7, seed)
        found = search.backward_elimination(v, 7, insertion=insertion)
        group = np.asarray(found.group)
        assert enough(table, group, insertion)
        for player in np.flatnonzero(group):
            assert not enough(table, group & (np.arange(7) != player), insertion)
        assert smallest(table, 7, insertion) <= int(found.size)
        assert int(found.num_evaluations) <= 2 + 28
    with pytest.raises(ValueError, match="everybody together misses the goal"):
        search.backward_elimination(v, 7, value=99.0)


def test_nobody_is_enough_is_one_group():
    """There is no second one to look for: it would be nobody again."""
    v = ThresholdGame(jnp.ones(4), jnp.float32(0.5))
    found = search.beam_search(v, 4, num_groups=3)
    assert found.minimal.tolist() == [[False] * 4]
    assert found.groups.shape == (1, 4)


def test_forward_passes_are_counted():
    """Every coalition that the model meets, those of the greedy search inside included.

    The three batches, of seven rows in all, by which a user's own function is tried stand before the search.
    """
    v, asked = ThresholdGame(jnp.array([3.0, 2.0, 1.0, 0.5]), jnp.float32(-5.2)), []

    def counted(masks):
        jax.debug.callback(lambda rows: asked.append(len(rows)), masks)
        return v(masks)

    found = search.minimal_group(counted, 4, value=0.0, batch_size=1)
    jax.effects_barrier()
    assert int(found.num_evaluations) == sum(asked) - (2 * 3 + 1) > 0


def test_the_promise_of_max_visible_is_kept():
    weights = jnp.asarray(np.random.default_rng(2).normal(size=40), jnp.float32)
    found = search.minimal_group(SizedGame(weights), 40, value=4.0, budget=300)
    order = np.sort(np.asarray(weights))[::-1]
    assert int(found.size) == int(np.argmax(np.cumsum(order) >= 4) + 1)
    assert [visible_size(n, 196) for n in (0, 16, 17, 25, 33, 49, 65, 97, 130, 193, 196)] == [
        *(16, 16, 24, 32, 48, 64, 96, 128, 192, 196, 196)
    ]


@pytest.mark.slow
def test_searches_on_a_model(tiny):
    v = next(games(tiny))[0]
    full = int(jnp.argmax(v.logits(jnp.ones((1, 16), bool))[0]))
    v = jm.token_value_fn(*tiny, full)
    found = search.minimal_group(v, 16)
    assert bool(v.leads(found.group[None])[0])
    np.testing.assert_allclose(found.value, v(found.group[None])[0], rtol=1e-4, atol=1e-5)
    exact = jm.greedy_insertion(v, 16)
    for scorer in ("gradient", np.asarray(search.class_attention(*tiny))):
        screened = search.screened_greedy(v, 16, scorer=scorer, num_candidates=16)
        np.testing.assert_array_equal(screened.greedy.order, exact.order)
    assert int(search.screened_greedy(v, 16, scorer="gradient").num_gradients) == 16


def test_what_cannot_tell_who_leads_needs_a_level():
    v, _ = table_game(4)
    with pytest.raises(ValueError, match="whether the explained class leads, and this value function cannot tell"):
        search.minimal_group(v, 4)
    with pytest.raises(ValueError, match="stop at a payoff: value="):
        search.minimal_group(v, 4, probability=0.5)


def test_nan_names_the_group():
    v, _ = any_game(3, 0)
    v = TableGame(v.table.at[5].set(jnp.nan))
    with pytest.raises(jm.NaNValueError, match=r"group \[0, 2\] \(alone\)"):
        search.minimal_group(v, 3, value=1.0)
