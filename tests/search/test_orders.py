"""Orders from both ends, and completed from the back."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmoxi as jm
from jaxmoxi import search
from support.games import SizedGame, lookup, table_game
from support.search import any_game, number


@pytest.mark.parametrize("insertion", [True, False])
def test_bidirectional_order_is_exact_in_a_linear_game(insertion):
    weights = jnp.asarray(np.random.default_rng(1).normal(size=12), jnp.float32)
    found = search.bidirectional_greedy(SizedGame(weights), 12, insertion=insertion)
    np.testing.assert_array_equal(found.order, np.argsort(-weights, kind="stable"))
    assert int(found.num_evaluations) <= 78


def test_bidirectional_values_are_those_of_its_order():
    v, table = any_game(7, 4)
    found = search.bidirectional_greedy(v, 7)
    group = np.zeros(7, bool)
    for player, value in zip(np.asarray(found.order), np.asarray(found.values), strict=True):
        group[player] = True
        assert float(value) == table[number(group)]
    assert group.all()


@pytest.mark.parametrize("insertion", [True, False])
@pytest.mark.parametrize(("share", "steps"), [(0.01, 3), (0.5, 1), (1.0, 2)])
def test_a_completed_order_is_greedy_from_the_other_end(insertion, share, steps):
    v, table = table_game(7, 5)
    search = jm.greedy_insertion if insertion else jm.greedy_deletion
    result = search(v, 7, stop=jm.Stop(size=steps))
    front = [int(p) for p in result.order[:steps]]
    left, gone = [p for p in range(7) if p not in front], []
    while left:
        count = max(1, int(share * len(left)))

        def harm(player, gone=gone):
            kept = [p for p in range(7) if p not in gone and p != player]
            shown = kept if insertion else [p for p in range(7) if p not in kept]
            value = table[sum(2**p for p in shown)]
            return -value if insertion else value

        chosen = sorted(left, key=harm)[:count]
        gone += chosen
        left = [p for p in left if p not in chosen]
    found = jm.search.complete_order(v, result, share=share)
    assert found.order.tolist() == front + gone[::-1]
    assert found.order.dtype == jnp.int32


@pytest.mark.parametrize("insertion", [True, False])
def test_backward_forward_order_that_keeps_everybody_is_greedy_and_that_keeps_nobody_is_completed(insertion):
    v, table = any_game(7, 4)
    exact = (jm.greedy_insertion if insertion else jm.greedy_deletion)(v, 7)
    found = search.backward_forward_order(v, 7, insertion=insertion, keep=7)
    np.testing.assert_array_equal(found.order, exact.order)
    assert (int(found.num_evaluations), int(found.num_gradients)) == (27, 0)  # the last player is not asked about
    nothing = jm.types.GreedyResult(**{**vars(exact), "num_steps": jnp.int32(0)})
    found = search.backward_forward_order(v, 7, insertion=insertion, keep=0, share=0.4)
    np.testing.assert_array_equal(found.order, search.complete_order(v, nothing, share=0.4).order)
    early = sorted(found.order[-2:].tolist(), key=lambda p: -table[2**p] if insertion else table[127 - 2**p])
    first = np.isin(np.arange(7), early)
    given = search.backward_forward_order(v, 7, insertion=insertion, keep=4, share=0.4, first=first)
    assert given.order[:2].tolist() == early
    assert sorted(given.order.tolist()) == list(range(7))
    some = search.backward_forward_order(v, 7, insertion=insertion, keep=3, share=0.4)
    assert some.order[3:].tolist() == found.order[3:].tolist()
    assert sorted(some.order.tolist()) == list(range(7))


@pytest.mark.parametrize("choose", ["top", "together"])
def test_blocks_of_one_are_greedy_and_larger_ones_cheaper(choose):
    v, table = any_game(8, 6)
    exact = jm.greedy_insertion(v, 8)
    one = search.blockwise_greedy(v, 8, players_per_step=1, choose=choose)
    np.testing.assert_array_equal(one.order, exact.order)
    assert int(one.num_evaluations) == 36
    three = search.blockwise_greedy(v, 8, players_per_step=3, choose=choose)
    assert sorted(three.order.tolist()) == list(range(8))
    assert int(three.num_evaluations) <= (21 if choose == "top" else 36)
    assert float(three.values[-1]) == table[-1]


def test_together_sees_the_interaction_that_top_misses():
    # 0 is best alone, 1 second; but 2 completes 0.
    value = lambda s: 3 * (0 in s) + 2 * (1 in s) + 1 * (2 in s) + 5 * (0 in s and 2 in s)  # noqa: E731
    table = np.array([value({p for p in range(3) if i >> p & 1}) for i in range(8)], np.float32)
    v = jax.tree_util.Partial(lookup, jnp.asarray(table))
    assert search.blockwise_greedy(v, 3, choose="top").order[:2].tolist() == [0, 1]
    assert search.blockwise_greedy(v, 3, choose="together").order[:2].tolist() == [0, 2]
