"""What a search refuses, and what it says."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmoxi as jm
from jaxmoxi import search
from support.games import ThresholdGame
from support.search import games, tiny_model


@pytest.fixture(scope="module")
def tiny():
    return tiny_model()


BAD = {
    "both": (lambda v: search.minimal_group(v, 3, probability=0.5, value=1.0), "one level, probability or value"),
    "probability": (lambda v: search.minimal_group(v, 3, probability=1.5), "between 0 and 1; got 1.5"),
    "value": (lambda v: search.minimal_group(v, 3, value=float("nan")), "finite payoff"),
    "budget": (lambda v: search.minimal_group(v, 3, budget=0), "budget is a number of evaluations"),
    "players": (lambda v: search.minimal_group(v, 0), "num_players must be an integer of at least 1"),
    "unreachable": (lambda v: search.minimal_group(v, 3, value=99.0), "no group along the way reaches the goal"),
    "unhideable": (
        lambda v: search.minimal_group(v, 3, insertion=False, value=-99.0),
        "and no group along the way does",
    ),
    "not both": (lambda v: search.necessary_and_sufficient(v, 3, value=99.0), "not even everybody"),
    "width": (lambda v: search.beam_search(v, 3, width=0), "width must be at least 1"),
    "max_size": (lambda v: search.beam_search(v, 3, max_size=4), "max_size must lie between 1 and the 3"),
    "goal": (lambda v: search.beam_search(v, 3, max_size=2, value=1.0), "leave out stop, probability, value"),
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
    "beam stability": (
        lambda v: search.beam_search(v, 3, max_size=2, alternatives=[v]),
        "leave out .*and alternatives",
    ),
    "closure": (
        lambda v: jax.jit(lambda b: search.necessary_and_sufficient(lambda m: m.sum(1) + b, 3, value=2.0).value)(0.0),
        "outside jit, vmap and grad",
    ),
    "jit": (lambda v: jax.jit(lambda v: search.necessary_and_sufficient(v, 3).size)(v), "outside jit, vmap and grad"),
    "callback": (
        lambda v: jax.jit(lambda v: search.minimal_group(v, 3, callback=print).size)(v),
        "callback needs a search outside jit and vmap",
    ),
    "no image": (lambda v: search.minimal_groups([], 3), "at least one value function"),
    "other image": (
        lambda v: search.minimal_groups([v, ThresholdGame(jnp.ones(4), jnp.float32(0))], 3),
        "number 1 differs from number 0",
    ),
    "batch": (lambda v: search.minimal_groups([v], 3, batch_size=0), "batch_size must be at least 1"),
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
