"""Greedy search with a shortlist."""

import jax.numpy as jnp
import numpy as np
import pytest

import jaxmoxi as jm
from jaxmoxi import search
from jaxmoxi.search.screened import _ranked as screened_ranked
from support.games import SizedGame, ThresholdGame
from support.search import any_game


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


def test_mixed_takes_the_best_of_either_in_turn():
    players, a, b = np.array([1, 3, 5, 6]), np.arange(7.0), -np.arange(7.0)
    assert screened_ranked(players, [a]).tolist() == [6, 5, 3, 1]
    assert screened_ranked(players, [a, b]).tolist() == [6, 1, 5, 3]
