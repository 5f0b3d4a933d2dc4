"""Orders within a number of forward passes, and the moves that polish them."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmoxi as jm
from jaxmoxi import search
from jaxmoxi.games.base import as_game
from jaxmoxi.search.oracle import Oracle
from jaxmoxi.search.polish import moved, polish, prefixes, promising
from support.search import GatedLinear, any_game, small_model


def area(v, order, insertion):
    curve = (jm.insertion_curve if insertion else jm.deletion_curve)(v, jnp.asarray(order))
    return float(curve.probability_area if curve.probabilities is not None else curve.area)


def spent(found):
    return int(found.num_evaluations) + 3 * int(found.num_gradients)


@pytest.mark.parametrize("insertion", [True, False])
@pytest.mark.parametrize("budget", [1, 2, 7, 20, 60, 500])
def test_an_order_is_a_permutation_within_its_budget(insertion, budget):
    v, _ = any_game(8, 3)
    found = search.order_within(v, 8, budget=budget, insertion=insertion)
    assert sorted(found.order.tolist()) == list(range(8))
    assert spent(found) <= budget
    assert found.order.dtype == jnp.int32


@pytest.mark.usefixtures("unchecked")
def test_an_infinite_budget_is_no_limit():
    v, _ = any_game(6, 3)
    whole, endless = (search.order_within(v, 6, budget=budget) for budget in (10_000, np.inf))
    assert whole.order.tolist() == endless.order.tolist()
    groups = [search.minimal_group(v, 6, budget=budget).group.tolist() for budget in (10_000, np.inf)]
    assert groups[0] == groups[1] == jax.jit(lambda v: search.minimal_group(v, 6, budget=np.inf).group)(v).tolist()


def test_from_both_ends_a_player_whose_absence_alone_tells_goes_first():
    """Alone no player says anything until two of them are there; without the first of them the class is lost."""

    def v(masks):
        return 4.0 * (masks[:, 2] & masks[:, 5]) - 2.0 + 0.01 * masks.sum(1)

    found = search.order_within(v, 8, budget=12 * 8)
    assert sorted(found.order[:2].tolist()) == [2, 5]
    assert int(found.num_evaluations) <= 96
    assert sorted(search.order_within(v, 8, budget=96, insertion=False).order.tolist()) == list(range(8))


@pytest.mark.parametrize("insertion", [True, False])
def test_gradients_count_as_three_and_players_that_add_up_are_ranked_by_one(insertion):
    weights = np.random.default_rng(2).normal(size=12).astype(np.float32)
    found = search.order_within(GatedLinear(jnp.asarray(weights)), 12, budget=3, insertion=insertion)
    assert found.order.tolist() == np.argsort(-weights, kind="stable").tolist()
    assert (int(found.num_evaluations), int(found.num_gradients)) == (0, 1)


@pytest.mark.parametrize("insertion", [True, False])
def test_with_no_end_of_passes_no_move_of_one_player_is_better(insertion):
    v, _ = any_game(6, 7)
    found = search.order_within(v, 6, budget=10_000, insertion=insertion)
    best, sign = area(v, found.order, insertion), 1 if insertion else -1
    order = np.asarray(found.order)
    predicted = promising(sign * np.asarray(v.readout(jnp.asarray(prefixes(order) ^ (not insertion))).probabilities))
    for source, target in zip(predicted.source, predicted.target, strict=True):
        assert sign * area(v, moved(order, int(source), int(target)), insertion) <= sign * best + 1e-6


def test_polishing_never_makes_the_area_smaller_and_asks_no_more_than_its_limit():
    for seed, limit in itertools.product(range(4), (5, 9, 15, 40)):
        v, _ = any_game(7, seed)
        oracle = Oracle(as_game(v), 7, goal=None)
        before = np.random.default_rng(seed).permutation(7)
        after = polish(oracle, before, limit)
        assert sorted(after.tolist()) == list(range(7))
        assert oracle.count <= limit
        assert area(v, after, True) >= area(v, before, True) - 1e-6
        if limit < 8:  # not even the curve is to be had
            assert after.tolist() == before.tolist()


def test_where_players_add_up_predictions_are_exact():
    weights = np.random.default_rng(5).normal(size=6)
    order = np.random.default_rng(6).permutation(6)
    found = promising((prefixes(order) * weights).sum(1))
    assert len(found.source)
    for source, target, predicted in zip(found.source, found.target, found.predicted, strict=True):
        change = (prefixes(moved(order, int(source), int(target))) * weights).sum() - (prefixes(order) * weights).sum()
        assert change == pytest.approx(predicted)


def test_prefixes_are_the_groups_along_an_order():
    order = np.array([2, 0, 1])
    assert prefixes(order).tolist() == [[0, 0, 0], [0, 0, 1], [1, 0, 1], [1, 1, 1]]
    assert prefixes(order, 1, 3).tolist() == [[0, 0, 1], [1, 0, 1]]


@pytest.mark.parametrize("insertion", [True, False])
def test_a_model_is_searched_within_its_budget_and_more_passes_do_no_harm(insertion):
    model, image = small_model()
    v = jm.token_value_fn(model, image, 1)
    areas = [
        area(v, search.order_within(v, 4, budget=budget, insertion=insertion).order, insertion) for budget in (3, 24)
    ]
    assert (areas[1] - areas[0]) * (1 if insertion else -1) >= -1e-6
    assert spent(search.order_within(v, 4, insertion=insertion)) <= 10


def test_errors():
    v, _ = any_game(5, 0)
    for budget in (0, -3):
        with pytest.raises(ValueError, match="budget is a number of evaluations, at least 1"):
            search.order_within(v, 5, budget=budget)
    with pytest.raises(ValueError, match="jit"):
        jax.jit(lambda v: search.order_within(v, 5, budget=9).order)(v)
