"""Searches as one compiled loop: the answers of their form on the host, inside jit, vmap and closures."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmoxi as jm
from jaxmoxi import search
from jaxmoxi.search.device import doors
from jaxmoxi.search.device.found import group_on_device
from jaxmoxi.search.device.memory import look_up, make_room, new_memory, pack_groups, remember
from jaxmoxi.search.oracle import goal_of
from support.games import SizedGame, ThresholdGame
from support.search import GatedLinear, any_game, enough

P = 7


def tables(count=4, num_players=P, bias=-0.5):
    return [any_game(num_players, seed, bias)[0] for seed in range(count)]


def together(find, games):
    """What `find` finds of each game under one `vmap`, image by image."""
    found = jax.vmap(find)(jax.tree.map(lambda *x: jnp.stack(x), *games))
    return [jax.tree.map(lambda x, i=i: x[i], found) for i in range(len(games))]


def assert_same(found, expected, **tolerance):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, **tolerance)


def test_minimal_group_finds_and_asks_the_same_as_on_the_host():
    games = tables(6, bias=-1.0)
    find = partial(search.minimal_group, num_players=P)
    for game, found in zip(games, together(find, games), strict=True):
        assert_same(found, find(game))
        assert enough(game.table, found.group)


@pytest.mark.parametrize("level", [{"probability": 0.3}, {"value": -4.0}])
def test_levels_and_budgets_are_kept_and_groups_may_be_necessary(level):
    """With 38 players there is a shortlist, blocks of several, and a budget that ends the exchanges."""
    weights = jnp.asarray(np.random.default_rng(5).normal(size=38), jnp.float32)
    games = [ThresholdGame(weights * s, jnp.float32(8)) for s in (1.0, 1.5)]
    find = partial(search.minimal_group, num_players=38, insertion=False, budget=300, **level)
    for game, found in zip(games, together(find, games), strict=True):
        assert_same(found, find(game), rtol=1e-5)


def test_the_promise_of_max_visible_is_kept_by_rows_of_many_sizes():
    """A broken promise is a NaN. The images are at different sizes in one chunk."""
    rng = np.random.default_rng(2)
    games = [SizedGame(jnp.asarray(rng.normal(size=40) * s, jnp.float32)) for s in (0.4, 1, 4)]
    find = partial(search.minimal_group, num_players=40, value=4.0, budget=200)
    for game, found in zip(games, together(find, games), strict=True):
        assert_same(found, find(game), rtol=1e-6)
        order = np.sort(np.asarray(game.weights))[::-1]
        assert int(found.size) == int(np.argmax(np.cumsum(order) >= 4) + 1)


def test_backward_elimination_goes_into_a_vmap_of_a_vmap():
    games = tables(4)
    find = partial(search.backward_elimination, num_players=P)
    tree = jax.tree.map(lambda *x: jnp.stack(x).reshape(2, 2, *x[0].shape), *games)
    found = jax.jit(jax.vmap(jax.vmap(find)))(tree)
    for i, game in enumerate(games):
        assert_same(jax.tree.map(lambda x, i=i: x[i // 2, i % 2], found), find(game))


def test_functions_that_close_over_what_is_traced():
    weights = jnp.arange(1.0, 7.0)

    def find(bias):
        return search.backward_elimination(lambda masks: masks @ weights + bias, 6, value=2.0)

    for found, bias in zip(np.asarray(jax.vmap(find)(jnp.array([-3.0, -18.0])).group), (-3.0, -18.0), strict=True):
        np.testing.assert_array_equal(found, find(bias).group)
    with pytest.raises(jm.InputError, match="the result of a search has no gradient"):
        jax.grad(lambda bias: find(bias).value)(-3.0)


def test_inside_jit_a_result_says_what_cannot_be_raised():
    weights = jnp.arange(1.0, 7.0)
    find = jax.jit(lambda v: search.backward_elimination(v, 6))
    hopeless = find(ThresholdGame(weights, jnp.float32(-99)))
    assert (bool(hopeless.enough), int(hopeless.size), float(hopeless.value)) == (False, 6, 21 - 99)
    broken = find(ThresholdGame(weights.at[2].set(jnp.nan), jnp.float32(-2.5)))
    assert (bool(broken.enough), int(broken.size)) == (False, 0)
    assert np.isnan(broken.value)


def test_the_loop_outside_jit_raises_as_the_host_does(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")  # what decides between the two forms
    weights = jnp.arange(1.0, 7.0)

    def bad(masks):
        return jnp.where(masks[:, 2] & (masks.sum(1) == 5), jnp.nan, masks @ weights)

    with pytest.raises(jm.errors.NaNValueError, match=r"for the group \[1, 2, 3, 4, 5\] \(alone\)"):
        search.backward_elimination(bad, 6, value=9.0)
    with pytest.raises(jm.InputError, match="everybody together misses the goal"):
        search.backward_elimination(lambda masks: masks @ weights, 6, value=99.0)
    calls = []
    v = ThresholdGame(weights, jnp.float32(-2.5))
    search.minimal_group(v, 6, callback=calls.append)  # a callback needs the host, and has it
    assert calls


@pytest.mark.slow
def test_a_search_that_forgets_finds_the_same(monkeypatch):
    (game,) = tables(1, num_players=9, bias=-1.0)
    v, goal = goal_of(game, 9, None, probability=None, value=None)
    remembered = group_on_device(v, goal, 9, True, 400, None, ())
    monkeypatch.setattr(doors, "capacity", lambda budget, num_players: 1)  # one question
    found = group_on_device(v, goal, 9, True, 400, None, ())
    np.testing.assert_array_equal(found.group, remembered.group)
    assert int(found.num_evaluations) > int(remembered.num_evaluations)


def completed(v):
    """Three of a deletion's players, the others from the other end."""
    return search.complete_order(v, jm.greedy_deletion(v, P, stop=jm.Stop(size=3)), share=0.4)


ORDERS = {
    "from both ends": partial(search.bidirectional_greedy, num_players=P),
    "together": partial(search.blockwise_greedy, num_players=P, players_per_step=3, insertion=False),
    "top": partial(search.blockwise_greedy, num_players=P, choose="top", stop=jm.Stop(flip=True)),
    "completed": completed,
    "screened": partial(search.screened_greedy, num_players=P, num_candidates=2, audit=0.4, insertion=False),
    "backward, forward": partial(
        search.backward_forward_order, num_players=P, insertion=False, keep=4, share=0.4, first=np.arange(P) % 3 == 0
    ),
}


@pytest.mark.parametrize("name", ORDERS)
def test_orders_are_those_of_the_host(name):
    games, find = tables(3), ORDERS[name]
    for game, found in zip(games, together(find, games), strict=True):
        assert_same(found, find(game), rtol=1e-6)


def test_gradients_guide_an_elimination_inside_vmap():
    rng = np.random.default_rng(0)
    games = [GatedLinear(jnp.asarray(rng.normal(size=30), jnp.float32)) for _ in range(2)]
    find = partial(search.backward_forward_order, num_players=30, keep=8)
    for game, found in zip(games, together(find, games), strict=True):
        expected = find(game)
        assert_same(found, expected)
        assert int(found.num_gradients) > 0


def test_a_shortlist_adapts_inside_vmap():
    """Gains and gradients in turn, audits when they are due, and a shortlist of a changing length."""
    rng = np.random.default_rng(0)
    games = [GatedLinear(jnp.asarray(rng.normal(size=40), jnp.float32)) for _ in range(2)]
    find = partial(search.screened_greedy, num_players=40, stop=jm.Stop(size=20))
    for game, found in zip(games, together(find, games), strict=True):
        assert_same(found, find(game), rtol=1e-5, atol=1e-5)
        assert int(found.num_audits) > 2


def test_a_memory_is_a_dictionary():
    """Groups of 70 players in three words, asked about again and again, some of them new."""
    rng = np.random.default_rng(0)
    memory = new_memory(2, 64, 70, jnp.zeros(()))
    known = [{}, {}]

    @jax.jit
    def ask(memory, bases, toggled, asked):
        keys = pack_groups(bases, toggled)
        found = look_up(memory, keys, asked)
        memory, places = remember(memory, keys, asked & (found.rows < 0), found)
        return memory, found.rows, places.rows

    for _ in range(12):
        bases = rng.random((2, 70)) < np.array([[0.05], [0.5]])
        toggled = np.stack([rng.choice(70, (2, 8), replace=False) for _ in range(2)], axis=1).transpose(1, 2, 0) % 4
        asked = np.zeros((2, 8), bool)
        groups = []
        for i in range(2):
            rows = [
                tuple(sorted({int(p) for p in np.flatnonzero(bases[i])} ^ {int(a)} ^ {int(b)})) for a, b in toggled[i]
            ]
            asked[i] = [rows.index(row) == k for k, row in enumerate(rows)]  # each once
            groups.append(rows)
        full = np.asarray(memory.size) + 8 > 64
        memory = make_room(memory, jnp.full(2, 8, jnp.int32))
        for i in range(2):
            if full[i]:
                known[i] = {}
        memory, found, places = ask(memory, jnp.asarray(bases), jnp.asarray(toggled, jnp.int32), jnp.asarray(asked))
        for i in range(2):
            for k in np.flatnonzero(asked[i]):
                row = known[i].setdefault(groups[i][k], int(places[i, k]))
                assert row == int(places[i, k])
            new = [g for g, a, f in zip(groups[i], asked[i], found[i], strict=True) if a and f < 0]
            assert len(known[i]) == int(memory.size[i])
            assert len(new) <= 8
