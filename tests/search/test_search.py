import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxmoxi as jm
from jaxmoxi import search
from jaxmoxi.models.networks import vit
from jaxmoxi.pytrees import record
from jaxmoxi.search.oracle import visible_size
from jaxmoxi.search.screened import _ranked as screened_ranked
from jaxmoxi.types import Readout
from support.games import SizedGame, ThresholdGame, lookup, table_game, vit_classifier


@record
class TableGame:
    """Any game at all: a value for every coalition, and the class leads where it is positive."""

    table: jax.Array

    def __call__(self, masks):
        return lookup(self.table, masks)

    def readout(self, masks):
        values = self(masks)
        return Readout(values, values > 0, jax.nn.sigmoid(values))


def any_game(num_players, seed, bias=-0.5):
    """Noise, worth more the more is visible; everybody is enough, nobody is not."""
    table = np.random.default_rng(seed).normal(size=2**num_players).astype(np.float32)
    size = np.array([bin(i).count("1") for i in range(2**num_players)])
    table = table + np.float32(bias) + (size / num_players).astype(np.float32)
    table[0], table[-1] = -1, 2
    return TableGame(jnp.asarray(table)), table


@record
class GatedLinear:
    """Players that add up, with gates."""

    weights: jax.Array

    def __call__(self, masks):
        return self.relaxed(masks.astype(jnp.float32))

    def relaxed(self, gates):
        return gates @ self.weights


def number(group):
    return int(np.asarray(group) @ 2 ** np.arange(len(group)))


def everybody(num_players):
    return np.array(list(itertools.product([False, True], repeat=num_players)))


def smallest(table, num_players, insertion=True):
    """The size of the smallest group that is enough, by trying all."""
    groups = everybody(num_players)
    shown = groups if insertion else ~groups
    positive = table[shown @ 2 ** np.arange(num_players)] > 0
    return groups[positive == insertion].sum(1).min()


def enough(table, group, insertion=True):
    group = np.asarray(group)
    return (table[number(group if insertion else ~group)] > 0) == insertion


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


@pytest.mark.parametrize("insertion", [True, False])
def test_screened_greedy_with_every_candidate_is_greedy(insertion):
    v, _ = any_game(7, 2)
    exact = (jm.greedy_insertion if insertion else jm.greedy_deletion)(v, 7)
    for options in (dict(num_candidates=7), dict(num_candidates=1, audit=1.0)):
        found = search.screened_greedy(v, 7, insertion=insertion, scorer="stale", **options)
        np.testing.assert_array_equal(found.greedy.order, exact.order)
        np.testing.assert_array_equal(found.greedy.values, exact.values)
        np.testing.assert_array_equal(found.greedy.leads, exact.leads)
        np.testing.assert_allclose(found.greedy.probabilities, exact.probabilities, rtol=1e-6)
        assert int(found.greedy.num_evaluations) <= 28


@pytest.mark.parametrize("insertion", [True, False])
def test_stale_gains_are_exact_in_a_linear_game(insertion):
    weights = jnp.asarray(np.random.default_rng(0).normal(size=30), jnp.float32)
    found = search.screened_greedy(
        SizedGame(weights), 30, insertion=insertion, scorer="stale", num_candidates=2, audit=0.2
    )
    np.testing.assert_array_equal(found.greedy.order, np.argsort(-weights, kind="stable"))
    assert int(found.num_missed) == 0
    assert float(found.regret) == 0
    assert 3 <= int(found.num_audits) <= 6
    assert int(found.greedy.num_evaluations) == int(found.num_candidates.sum())
    assert int(found.greedy.num_evaluations) < 250  # 465 for all


def test_audits_count_what_wrong_scores_miss():
    weights = jnp.arange(20, dtype=jnp.float32)
    found = search.screened_greedy(
        SizedGame(weights), 20, scorer=-np.arange(20, dtype=np.float32), num_candidates=2, audit=0.25
    )
    assert int(found.num_audits) == int(found.num_missed) == 4
    assert float(found.regret) > 5


def test_screened_greedy_stops():
    v = ThresholdGame(jnp.ones(9), jnp.float32(-2.5))
    found = search.screened_greedy(v, 9, scorer="stale", stop=jm.Stop(flip=True))
    assert int(found.greedy.num_steps) == 3
    assert found.greedy.order[3:].tolist() == [-1] * 6
    assert int(search.screened_greedy(v, 9, scorer="stale", stop=jm.Stop(size=2)).greedy.num_steps) == 2
    by_value = search.screened_greedy(v, 9, scorer="stale", insertion=False, stop=jm.Stop(value=1.5))
    assert int(by_value.greedy.num_steps) == 5


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


@pytest.mark.parametrize("insertion", [True, False])
def test_gradients_are_exact_in_a_linear_game(insertion):
    v = GatedLinear(jnp.asarray(np.random.default_rng(0).normal(size=60), jnp.float32))
    best = np.argsort(-v.weights, kind="stable")
    found = search.backward_forward_order(v, 60, insertion=insertion)
    np.testing.assert_array_equal(found.order, best)
    assert int(found.num_gradients) == 29  # two go at a time while there are 48 or more
    assert int(found.num_evaluations) <= 24 * 25 / 2 + 3 * 36
    for scorer, gradients in ((None, 59), ("gradient", 60)):  # mixed knows all gains from the first step
        screened = search.screened_greedy(v, 60, insertion=insertion, scorer=scorer)
        np.testing.assert_array_equal(screened.greedy.order, best)
        assert (int(screened.num_missed), int(screened.num_gradients)) == (0, gradients)
        assert int(screened.num_audits) == 6  # after 1, 3, 6, 12, 24 and 48 players
    front = (
        jm.greedy_insertion(v, 60, stop=jm.Stop(size=4)) if insertion else jm.greedy_deletion(v, 60, stop=jm.Stop(4))
    )
    np.testing.assert_array_equal(search.complete_order(v, front).order, best)


def test_mixed_takes_the_best_of_either_in_turn():
    players, a, b = np.array([1, 3, 5, 6]), np.arange(7.0), -np.arange(7.0)
    assert screened_ranked(players, [a]).tolist() == [6, 5, 3, 1]
    assert screened_ranked(players, [a, b]).tolist() == [6, 1, 5, 3]


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


@pytest.mark.parametrize("seed", range(4))
def test_necessary_and_sufficient_is_both_and_minimal(seed):
    v, table = any_game(7, seed)
    both = lambda g: enough(table, g) and enough(table, g, False)  # noqa: E731
    found = search.necessary_and_sufficient(v, 7, budget=500)
    assert both(found.group)
    assert int(found.size) == min(g.sum() for g in everybody(7) if both(g))
    assert float(found.value) == table[number(found.group)]


def test_necessary_and_sufficient_at_a_level():
    """Far from 0: the group alone is to be above it and the others below, and the search is drawn to neither side."""
    table = any_game(7, 1)[1]
    shifted = TableGame(jnp.asarray(table + np.float32(50)))
    found = search.necessary_and_sufficient(shifted, 7, value=50.0, budget=500)
    both = lambda g: table[number(g)] >= 0 >= table[number(~g)]  # noqa: E731
    assert both(np.asarray(found.group))
    assert int(found.size) == min(g.sum() for g in everybody(7) if both(g))


def test_nobody_is_enough_is_one_group():
    """There is no second one to look for: it would be nobody again."""
    v = ThresholdGame(jnp.ones(4), jnp.float32(0.5))
    found = search.beam_search(v, 4, num_groups=3)
    assert found.minimal.tolist() == [[False] * 4]
    assert found.groups.shape == (1, 4)


def test_stability_says_where_a_group_holds():
    games = [ThresholdGame(jnp.ones(3), jnp.float32(b)) for b in (-1.5, -0.5, -2.5)]
    held = search.stability(games, np.array([True, True, False]))
    assert held.leads.tolist() == [True, True, False]
    np.testing.assert_allclose(held.values, [0.5, 1.5, -0.5])
    assert float(held.share) == pytest.approx(2 / 3)
    hidden = search.stability(games, np.array([True, True, False]), insertion=False)
    np.testing.assert_allclose(hidden.values, [-0.5, 0.5, -1.5])
    assert search.stability([table_game(3)[0]], np.ones(3, bool)).leads is None
    both = search.stability(games, np.array([[True, True, False], [True, True, True]]))
    assert both.leads.tolist() == [[True, True, False], [True, True, True]]
    np.testing.assert_allclose(both.values[0], held.values)
    np.testing.assert_allclose(both.share, [2 / 3, 1])


def test_forward_passes_are_counted():
    """Every coalition that the model meets, those of the greedy search inside included."""
    v, asked = ThresholdGame(jnp.array([3.0, 2.0, 1.0, 0.5]), jnp.float32(-5.2)), []

    def counted(masks):
        jax.debug.callback(lambda rows: asked.append(len(rows)), masks)
        return v(masks)

    found = search.minimal_group(counted, 4, value=0.0, batch_size=1)
    jax.effects_barrier()
    assert int(found.num_evaluations) == sum(asked) > 0


def test_results_carry_how_stable_they_are():
    v, *others = [ThresholdGame(jnp.array([3.0, 2.0, 1.0]), jnp.float32(b)) for b in (-2.5, -0.5, -4.5)]
    found = search.minimal_group(v, 3, alternatives=others)
    assert found.group.tolist() == [True, False, False]
    assert found.stability.leads.tolist() == [True, False]
    np.testing.assert_allclose(found.stability.values, [2.5, -1.5])
    assert search.minimal_group(v, 3).stability is None
    assert search.backward_elimination(v, 3, alternatives=others).stability.leads.tolist() == [True, False]
    lost = search.minimal_group(v, 3, insertion=False, alternatives=others)
    np.testing.assert_array_equal(lost.stability.values, [o(~lost.group[None])[0] for o in others])
    beam = search.beam_search(v, 3, num_groups=2, alternatives=others)
    assert beam.minimal.tolist() == [[True, False, False], [False, True, True]]
    assert beam.stability.leads.tolist() == [[True, False], [True, False]]
    both = search.necessary_and_sufficient(v, 3, alternatives=others)
    np.testing.assert_array_equal(both.stability.values, [o(both.group[None])[0] for o in others])

    def hopeless(masks):
        return 0.0 * masks.sum(1)

    with pytest.raises(TypeError, match="shape"):  # before the search, not after it
        search.minimal_group(hopeless, 3, value=1.0, alternatives=[lambda masks: masks @ jnp.ones(4)])
    with pytest.raises(ValueError, match="reach"):
        search.minimal_group(hopeless, 3, value=1.0)


class Convolutional(NamedTuple):
    logits: Any
    token_grid: None = None


@pytest.mark.parametrize("tokens", [True, False])
def test_alternatives_are_other_fills_and_shifts(tokens, tiny):
    classifier, image = tiny
    model, regions = classifier if tokens else Convolutional(classifier.logits), jm.grid_regions(32, 32, rows=4, cols=4)
    games = search.alternatives(model, image, 1, regions, fills=("mean",), shift=2)
    mask = jnp.asarray(np.random.default_rng(0).random((1, 16)) < 0.5)
    want = [jm.pixel_value_fn(model.logits, image, 1, regions, fill="mean")]
    for axis in (0, 1):
        for step in (-2, 2):
            moved = jnp.roll(image, step, axis)
            pixels = jm.pixel_value_fn(model.logits, moved, 1, regions, fill="mean")
            want.append(jm.token_value_fn(model, moved, 1, regions) if tokens else pixels)
    np.testing.assert_allclose([float(g(mask)[0]) for g in games], [float(w(mask)[0]) for w in want], rtol=1e-5)
    assert len(search.alternatives(model, image, 1, regions, shift=0)) == 2
    raised = search.alternatives(model, image, 1, regions, fills=("mean",), shift=0, payoff="prob")
    want = jm.pixel_value_fn(model.logits, image, 1, regions, fill="mean", payoff="prob")
    np.testing.assert_allclose(raised[0](mask), want(mask), rtol=1e-5)
    with pytest.raises(ValueError, match="expected a shift from 0 to less than 16 pixels; got 16"):
        search.alternatives(model, image, 1, regions, shift=16)


def test_the_promise_of_max_visible_is_kept():
    weights = jnp.asarray(np.random.default_rng(2).normal(size=40), jnp.float32)
    found = search.minimal_group(SizedGame(weights), 40, value=4.0, budget=300)
    order = np.sort(np.asarray(weights))[::-1]
    assert int(found.size) == int(np.argmax(np.cumsum(order) >= 4) + 1)
    assert [visible_size(n, 196) for n in (0, 16, 17, 25, 33, 49, 65, 97, 130, 193, 196)] == [
        *(16, 16, 24, 32, 48, 64, 96, 128, 192, 196, 196)
    ]


@pytest.fixture(scope="module")
def tiny():
    config = vit.VisionTransformerConfig(
        image_size=32, patch_size=8, hidden_size=16, num_layers=3, num_heads=2, mlp_dim=32, num_classes=5
    )
    model = vit_classifier(config)
    return model, jax.random.normal(jax.random.key(0), (32, 32, 3))


def games(tiny):
    model, image = tiny
    regions = jm.grid_regions(32, 32, rows=4, cols=4)
    blocks = jm.grid_regions(32, 32, rows=2, cols=2)
    yield jm.token_value_fn(model, image, 2), 16
    yield jm.token_value_fn(model, image, 2, blocks), 4
    yield jm.pixel_value_fn(model.logits, image, 2, regions, fill="mean"), 16


def test_gates_of_zero_and_one_are_masks(tiny):
    for v, players in games(tiny):
        masks = jax.random.bernoulli(jax.random.key(1), 0.4, (6, players)).at[0].set(False)
        np.testing.assert_allclose(relaxed(v, masks.astype(jnp.float32)), jm.evaluate(v, masks), atol=2e-5)


relaxed = jax.jit(lambda v, gates: v.relaxed(gates))


def one_sided_slope(v, gates, player, sign, step=1e-3):
    """From inside [0, 1], of second order."""
    here, near, far = (float(relaxed(v, gates.at[player].add(sign * h)[None])[0]) for h in (0.0, step, 2 * step))
    return sign * (4 * near - far - 3 * here) / (2 * step)


def test_gate_gradient_is_the_derivative(tiny):
    for v, players in games(tiny):
        mask = jnp.arange(players) % 3 == 0
        gradient = search.gate_gradient(v, mask)
        for player in (0, 1, players - 1):
            slope = one_sided_slope(v, mask.astype(jnp.float32), player, -1.0 if mask[player] else 1.0)
            assert float(gradient[player]) == pytest.approx(slope, rel=0.05, abs=0.05)


def test_class_attention_is_a_share(tiny):
    scores = search.class_attention(*tiny)
    assert scores.shape == (16,)
    assert 0 < float(scores.sum()) < 1
    with pytest.raises(ValueError, match="vision transformer"):
        search.class_attention(object(), tiny[1])


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


def test_margin_says_who_leads(tiny):
    v = next(games(tiny))[0]
    masks = jax.random.bernoulli(jax.random.key(2), 0.5, (20, 16))
    margin = v.with_payoff("margin")
    logits = np.array(v.logits(masks))
    np.testing.assert_array_equal(margin(masks) > 0, v.leads(masks))
    np.testing.assert_allclose(margin(masks), logits[:, 2] - np.delete(logits, 2, 1).max(1), rtol=1e-6)


BAD = {
    "both": (lambda v: search.minimal_group(v, 3, probability=0.5, value=1.0), "one level, probability or value"),
    "probability": (lambda v: search.minimal_group(v, 3, probability=1.5), "between 0 and 1; got 1.5"),
    "value": (lambda v: search.minimal_group(v, 3, value=float("nan")), "finite payoff"),
    "budget": (lambda v: search.minimal_group(v, 3, budget=0), "budget is a number of evaluations"),
    "players": (lambda v: search.minimal_group(v, 0), "num_players must be an integer of at least 1"),
    "unreachable": (lambda v: search.minimal_group(v, 3, value=99.0), "no group reaches the goal"),
    "unhideable": (lambda v: search.minimal_group(v, 3, insertion=False, value=-99.0), "no necessary group"),
    "not both": (lambda v: search.necessary_and_sufficient(v, 3, value=99.0), "not even everybody"),
    "width": (lambda v: search.beam_search(v, 3, width=0), "width must be at least 1"),
    "max_size": (lambda v: search.beam_search(v, 3, max_size=4), "max_size must lie between 1 and the 3"),
    "goal": (lambda v: search.beam_search(v, 3, max_size=2, value=1.0), "leave out probability, value"),
    "candidates": (lambda v: search.screened_greedy(v, 3, num_candidates=0), "num_candidates must be at least 1"),
    "audit": (lambda v: search.screened_greedy(v, 3, audit=1.5), "audit is a share"),
    "scores": (lambda v: search.screened_greedy(v, 3, scorer=np.zeros(4, np.float32)), "fixed scores of shape"),
    "gates": (lambda v: search.screened_greedy(v, 3, scorer="gradient"), "needs a value function with `relaxed"),
    "keep": (
        lambda v: search.backward_forward_order(v, 3, keep=4),
        "keep must be a number of players from 0 to 3; got 4",
    ),
    "first": (
        lambda v: search.backward_forward_order(v, 3, first=np.ones(4, bool)),
        r"first must be bool\[3\]; got bool \[4\]",
    ),
    "no gates": (lambda v: search.backward_forward_order(v, 3, scorer="gradient"), "needs a value function with `rel"),
    "block": (lambda v: search.blockwise_greedy(v, 3, players_per_step=0), "players_per_step must be at least 1"),
    "stability": (lambda v: search.stability([], np.ones(3, bool)), "at least one value function"),
    "early gates": (
        lambda v: search.screened_greedy(v, 3, scorer="mixed", stop=jm.Stop(size=1)),
        "needs a value function",
    ),
    "no way down": (lambda v: search.backward_elimination(v, 3, value=9.0), "everybody together misses the goal"),
    "beam stability": (lambda v: search.beam_search(v, 3, max_size=2, alternatives=[v]), "leave out .*alternatives"),
    "closure": (
        lambda v: jax.jit(lambda b: search.backward_elimination(lambda m: m.sum(1) + b, 3, value=2.0).size)(0.0),
        "outside jit and vmap",
    ),
    "jit": (lambda v: jax.jit(lambda v: search.minimal_group(v, 3).size)(v), "outside jit and vmap"),
}


@pytest.mark.parametrize("name", BAD)
def test_errors_say_what_to_do(name):
    run, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        run(ThresholdGame(jnp.ones(3), jnp.float32(-1.5)))


def test_unknown_names_are_errors(unchecked, tiny):
    v = ThresholdGame(jnp.ones(3), jnp.float32(-1.5))
    with pytest.raises(ValueError, match="expected a scorer of"):
        search.screened_greedy(v, 3, scorer="random")
    with pytest.raises(ValueError, match="expected a scorer of 'gradient' or 'all'; got 'random'"):
        search.backward_forward_order(v, 3, scorer="random")
    with pytest.raises(ValueError, match="keep must be a number of players from 0 to 3; got 0.4"):
        search.backward_forward_order(v, 3, keep=0.4)
    with pytest.raises(ValueError, match="expected choose of"):
        search.blockwise_greedy(v, 3, choose="best")
    with pytest.raises(ValueError, match="expected a payoff of"):
        next(games(tiny))[0].with_payoff("odds")
    with pytest.raises(ValueError, match="expected a group bool"):
        search.stability([v], jnp.ones(3))


def test_what_cannot_tell_who_leads_needs_a_level():
    v, _ = table_game(4)
    with pytest.raises(ValueError, match="cannot tell whether the class leads"):
        search.minimal_group(v, 4)
    with pytest.raises(ValueError, match="give a payoff instead"):
        search.minimal_group(v, 4, probability=0.5)


def test_nan_names_the_group():
    v, _ = any_game(3, 0)
    v = TableGame(v.table.at[5].set(jnp.nan))
    with pytest.raises(jm.NaNValueError, match=r"group \[0, 2\] \(alone\)"):
        search.minimal_group(v, 3, value=1.0)
