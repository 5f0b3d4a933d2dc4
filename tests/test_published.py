"""`benchmarks/_published`: the rivals' searches on games whose best order is known, with every forward pass counted."""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmoxi as jm
from support.search import any_game, small_model

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

from _published.asking import Answers, Meter, masks_with
from _published.lima import DELETION, INSERTION, Weights, lima
from _published.mda import mda
from _published.phasewin import Settings, phasewin

NUM_PLAYERS = 9
EVERY = {
    "lima": lambda answers, budget: lima(answers, budget=budget, weights=Weights(effectiveness=0.0), pending=3),
    "lima, one direction": lambda answers, budget: lima(answers, budget=budget, weights=INSERTION, pending=3),
    "phasewin": lambda answers, budget: phasewin(answers, budget=budget),
    "phasewin, one direction": lambda answers, budget: phasewin(answers, budget=budget, settings=Settings(deletion=0)),
    "mda": lambda answers, budget: mda(answers, budget=budget, first=np.arange(NUM_PLAYERS)),
    "mda, deletion": lambda answers, budget: mda(answers, budget=budget, first=np.arange(NUM_PLAYERS), cutoff=0),
}


def additive(seed):
    """(a game that adds up, between 0 and 1; its best order)."""
    weights = np.random.default_rng(seed).permutation(np.arange(1, NUM_PLAYERS + 1)).astype(np.float32)
    weights /= weights.sum()
    return (lambda masks: masks @ weights), np.argsort(-weights).tolist()


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("budget", [1, 12, 40, 10_000])
def test_an_order_is_a_permutation_and_its_price_is_what_was_evaluated(name, budget):
    answers = Answers(any_game(NUM_PLAYERS, 5)[0], NUM_PLAYERS)
    order, forwards = EVERY[name](answers, budget)
    assert sorted(order.tolist()) == list(range(NUM_PLAYERS))
    assert forwards == answers.evaluated <= budget


@pytest.mark.parametrize("name", EVERY)
def test_where_players_add_up_the_best_order_is_found(name):
    for seed in range(3):
        v, best = additive(seed)
        answers = Answers(v, NUM_PLAYERS)
        if name.startswith("mda"):  # its shortlist is of 6: a first attribution that is not far off
            first = -np.argsort(best).astype(float)
            first[best[:2]] = first[best[1::-1]]
            order, _ = mda(answers, budget=10_000, first=first, cutoff=0 if "deletion" in name else 0.9)
        else:
            order, _ = EVERY[name](answers, 10_000)
        assert order.tolist() == best


def test_a_search_that_is_cut_off_orders_the_rest_by_what_it_knows():
    v, best = additive(0)
    for find in (EVERY["lima, one direction"], EVERY["phasewin, one direction"]):
        order, forwards = find(Answers(v, NUM_PLAYERS), NUM_PLAYERS)
        assert (order.tolist(), forwards) == (best, NUM_PLAYERS)


def test_lima_ranks_by_collaboration_where_deletion_counts():
    v, best = additive(1)
    answers = Answers(v, NUM_PLAYERS)
    order, forwards = lima(answers, budget=NUM_PLAYERS, weights=DELETION._replace(effectiveness=0.0))
    assert (order.tolist(), forwards) == (best, NUM_PLAYERS)
    assert answers.read(~np.eye(NUM_PLAYERS, dtype=bool)).probability.shape == (NUM_PLAYERS,)
    assert answers.evaluated == NUM_PLAYERS  # these are what it asked about


def test_lima_scores_what_its_paper_names():
    """With one term at a time, the first of the order is the player that this term puts first."""
    model, image = small_model()
    v = jm.token_value_fn(model, image, 0)
    num_players = v.num_players
    answers = Answers(v, num_players)
    alone = answers.read(np.eye(num_players, dtype=bool))
    without = answers.read(~np.eye(num_players, dtype=bool))
    logits = v.logits(jnp.eye(num_players, dtype=bool))
    np.testing.assert_allclose(alone.probability, jax.nn.softmax(logits)[:, 0], rtol=1e-4)
    shares = np.asarray(jax.nn.softmax(logits))
    entropy = -(shares * np.log(shares)).sum(1) / np.log(shares.shape[1])
    np.testing.assert_allclose(alone.confidence, 1 - entropy, atol=1e-4)
    for weights, scores in (
        (Weights(1, 0, 0, 0), alone.probability),
        (Weights(0, 1, 0, 0), 1 - without.probability),
        (Weights(0, 0, 1, 0), alone.confidence),
    ):
        order, _ = lima(answers, budget=10_000, weights=weights)
        assert order[0] == np.argmax(scores)
    order, _ = lima(answers, budget=10_000, weights=Weights(0, 0, 0, 1))
    distances = np.arccos(np.clip(alone.features @ alone.features.T, -1, 1))
    # Of a set of one the effectiveness is 1 for everybody, so the first of all is taken, and then who is farthest.
    assert order[:2].tolist() == [0, int(np.argmax(distances[0]))]


def test_phasewin_asks_less_than_greedy_does():
    v, best = additive(2)
    answers = Answers(v, NUM_PLAYERS)
    order, forwards = EVERY["phasewin, one direction"](answers, 10_000)
    assert order.tolist() == best
    assert forwards <= NUM_PLAYERS * (NUM_PLAYERS + 1) // 2


def test_mda_takes_the_insertion_order_until_the_cutoff_and_the_deletion_order_after():
    """Two players are worth all when both are there; one of the others hurts."""

    def v(masks):
        return 0.9 * (masks[:, 3] & masks[:, 5]) + 0.05 * masks[:, 3] + 0.05 * masks[:, 5] - 0.04 * masks[:, 7]

    answers = Answers(v, NUM_PLAYERS)
    order, _ = mda(answers, budget=10_000, first=np.zeros(NUM_PLAYERS))
    assert set(order[:2].tolist()) == {3, 5}
    assert order[-1] == 7


def test_a_gradient_is_paid_for_as_three_forward_passes():
    model, image = small_model()
    v = jm.token_value_fn(model, image, 0)
    order, forwards = mda(Answers(v, v.num_players), budget=3)
    slope = np.asarray(jm.search.gate_gradient(v, np.ones(v.num_players, bool)))
    assert order.tolist() == np.argsort(-slope, kind="stable").tolist()
    assert forwards == 3
    assert mda(Answers(v, v.num_players), budget=2)[1] == 0


def test_a_meter_counts_a_coalition_once_and_answers_nothing_past_its_budget():
    answers = Answers(additive(0)[0], NUM_PLAYERS)
    meter = Meter(answers, 4)
    masks = masks_with([0], [1, 2, 3], NUM_PLAYERS)
    assert masks.sum(1).tolist() == [2, 2, 2]
    assert np.isfinite(meter.probabilities(masks)).all()
    assert np.isfinite(meter.probabilities(masks)).all()
    assert meter.count == 3
    told = meter.probabilities(masks_with([4], [1, 2], NUM_PLAYERS))
    assert np.isfinite(told).tolist() == [True, False]
    assert meter.spent
    other = Meter(answers, 3)  # another method pays again, though nothing is evaluated again
    assert np.isfinite(other.probabilities(masks)).all()
    assert (other.count, answers.evaluated) == (3, 4)
