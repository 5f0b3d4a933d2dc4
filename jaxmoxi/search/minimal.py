"""A smallest group that is enough: from both ends, then exchanges for as long as the budget lasts.

A forward search has to judge players while few others are there, where a model is far from what it was trained on, and
wanders; a backward one starts where the model is at home. So:

1. *Backward*: from everybody, players are taken away, several at a time, until nobody can be (`climb.eliminate`).
2. *Exchange*: one player more is taken, which is one too many, and others are exchanged until the group is enough
   again; then nobody can be taken from it once more, and so on down, until no exchange helps.
3. *Forward*: MoXI's greedy insertion (deletion), which need not go further than one player less than the group found.
   If that reaches the goal, or exchanges bring it there, the search goes on from this smaller group.
4. *Again*: exchanges from a disturbed group, until one works, and so on until the budget is spent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from jaxmoxi.errors import InputError
from jaxmoxi.moxi.greedy import greedy_deletion, greedy_insertion
from jaxmoxi.pytrees import pack
from jaxmoxi.search.climb import Climber, eliminate
from jaxmoxi.search.holding import check_alternatives
from jaxmoxi.search.oracle import BudgetSpent, Goal, GroupResult, Oracle, neighbours
from jaxmoxi.types import Stop

# Stuck for good: so many disturbed starts in a row that led to nothing. Without it small games, whose every group is
# soon known, would never spend their budget.
_PATIENCE = 50


def minimal_group(
    v: Callable[..., Any],
    num_players: int,
    *,
    insertion: bool = True,
    probability: float | None = None,
    value: float | None = None,
    budget: int | None = None,
    batch_size: int | None = None,
    alternatives: Sequence[Callable[..., Any]] = (),
) -> GroupResult:
    """A small group that is enough, from which no single player can be taken away.

    v:           a value function, masks bool[C, P] -> float32[C].
    num_players: P, at least 1.
    insertion:   True: *sufficient*, the group alone reaches the goal. False: *necessary*, the goal is missed without.
    probability, value: the goal: the class's probability, or the payoff, at or above this. None: the class on top.
    budget:      evaluations; None is P(P+1)/2, what a full greedy order costs. It ends the exchanges. What makes the
                 group a minimal one and compares it with greedy's is done whatever the budget: far less than
                 P(P+1)/2 for a game of an image, at the worst a little over twice that.
    batch_size:  coalitions per chunk; None chooses.
    alternatives: other games of the same players in which the group found is tried, for the result's `stability`;
                 `search.alternatives` makes some. They do not count as evaluations.

    Never larger than the group at which `greedy_insertion` (`greedy_deletion`) under the same goal stops: that one is a
    start too. Not always the smallest there is. Deterministic. A very small group may owe its effect to a blind spot of
    the model: give `alternatives` and read the `stability`.

    Raises ValueError for levels that cannot be or that the value function cannot answer, for a goal that no group along
    either way reaches, and inside `jit`; NaNValueError that names the group.
    """
    goal = Goal(pack(v), num_players, probability=probability, value=value)
    check_alternatives(alternatives, num_players)
    oracle = Oracle(v, num_players, goal=goal, insertion=insertion, batch_size=batch_size)
    limit = check_budget(budget, num_players)
    climber = Climber(oracle)
    group = search_down(climber, limit, restarts=0)
    size = num_players if group is None else int(group.sum()) - 1
    if size > 0:
        rival, spent = _greedy(v, num_players, goal, insertion, size, batch_size)
        oracle.count += spent
        score, enough = (x[0] for x in oracle.ask(rival[None]))
        if not enough and group is not None:
            rival, _, enough = within(oracle, limit, lambda: climber.climb(rival, float(score))) or (rival, 0, False)
        group = rival if enough else group
    if group is None:
        raise _unreachable(insertion)
    return oracle.result(refine(climber, group, limit), alternatives)


def backward_elimination(
    v: Callable[..., Any],
    num_players: int,
    *,
    insertion: bool = True,
    probability: float | None = None,
    value: float | None = None,
    batch_size: int | None = None,
    alternatives: Sequence[Callable[..., Any]] = (),
) -> GroupResult:
    """A group that is enough, from which no single player can be taken away: the first part of `minimal_group` alone.

    From everybody, players are taken away, a sixth at a time for as long as the rest is enough, whoever does least harm
    first. About 6P evaluations. The group may be larger than greedy's.

    Arguments are those of `minimal_group`, and the errors, but for a game in which everybody together misses the goal:
    there is then nothing to take away, though `minimal_group`, which also searches forward, may find a group.
    """
    goal = Goal(pack(v), num_players, probability=probability, value=value)
    check_alternatives(alternatives, num_players)
    oracle = Oracle(v, num_players, goal=goal, insertion=insertion, batch_size=batch_size)
    group = search_down(Climber(oracle), 0)
    if group is None:
        raise InputError("everybody together misses the goal, so there is nothing to take away; try `minimal_group`")
    return oracle.result(group, alternatives)


def _unreachable(insertion: bool) -> InputError:
    return InputError(
        "no group reaches the goal, not even everybody: is this the class that the model predicts?"
        if insertion
        else "hiding everybody does not change what the goal asks about; there is no necessary group"
    )


def check_budget(budget: int | None, num_players: int) -> int:
    """The number of evaluations that a budget stands for. Raises ValueError unless it is None or at least 1."""
    if budget is not None and budget < 1:
        raise InputError(f"the budget is a number of evaluations, at least 1; got {budget}")
    return num_players * (num_players + 1) // 2 if budget is None else budget


def search_down(climber: Climber, limit: int, *, restarts: int = _PATIENCE) -> np.ndarray | None:
    """The backward search and its exchanges; nobody if that is enough; None if everybody is not."""
    players = climber.oracle.num_players
    ends = np.stack([np.zeros(players, bool), np.ones(players, bool)])
    enough = climber.oracle.ask(ends)[1]
    if enough[0]:
        return ends[0]
    return refine(climber, ends[1], limit, restarts=restarts) if enough[1] else None


def refine(climber: Climber, group: np.ndarray, limit: int, *, restarts: int = _PATIENCE) -> np.ndarray:
    """A group from which nobody can be taken away, from one that is enough: smaller or equal."""
    oracle = climber.oracle
    group = eliminate(oracle, group)
    while group.sum() > 1:
        found = within(oracle, limit, partial(_shrink, climber, group, restarts))
        if found is None:
            break
        group = eliminate(oracle, found)
    return group


def within(oracle: Oracle, limit: int, run: Callable[[], Any]) -> Any:
    """What `run` returns, or None where its next question would cost more than `limit` evaluations in all."""
    oracle.budget = limit
    try:
        return run()
    except BudgetSpent:
        return None
    finally:
        oracle.budget = None


def _shrink(climber: Climber, group: np.ndarray, restarts: int) -> np.ndarray | None:
    """A group that is enough and one smaller, if exchanges find it."""
    smaller = neighbours(group, np.flatnonzero(group))
    scores, _ = climber.oracle.ask(smaller)
    group, score = smaller[np.argmax(scores)], float(np.max(scores))
    best, best_score, enough = climber.climb(group, score)
    failures = 0
    while not enough and failures < restarts:
        group, score, enough = climber.disturb(best)
        if not enough:
            group, score, enough = climber.climb(group, score)
        failures += 1
        if enough or score > best_score:
            best, best_score, failures = group, score, 0
    return best if enough else None


def _greedy(
    v: Callable[..., Any], num_players: int, goal: Goal, insertion: bool, size: int, batch_size: int | None
) -> tuple[np.ndarray, int]:
    """(the group of greedy, where it reaches the goal or has `size` players; its evaluations)."""
    stop = Stop(size=size, flip=goal.flips, probability=goal.probability, value=goal.value)
    result = (greedy_insertion if insertion else greedy_deletion)(v, num_players, stop=stop, batch_size=batch_size)
    group = np.zeros(num_players, bool)
    group[np.asarray(result.order)[: int(result.num_steps)]] = True
    return group, int(result.num_evaluations) + 1  # where it starts
