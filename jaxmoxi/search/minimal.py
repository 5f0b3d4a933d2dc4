"""A smallest group that is enough: from both ends, then exchanges for as long as the budget lasts.

A forward search judges players while few others are visible, where the model is far from what it was trained on, and
drifts. A backward search starts from the full image, in distribution. So there are four parts:

1. *Backward*: players are removed from everybody, several at a time, until none can be (`climb.eliminate`).
2. *Exchange*: remove one player too many, swap players until the group suffices, prune again, and repeat until no swap
   helps.
3. *Forward*: MoXI's greedy insertion (deletion), which need not go further than one player less than the group found.
   If greedy reaches the goal, or swaps bring its group there, the search goes on from this smaller group.
4. *Again*: swaps from a disturbed group, until one works, and so on until the budget is spent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from jaxmoxi.errors import InputError
from jaxmoxi.games.base import ValueFn
from jaxmoxi.games.evaluation import check_batch_size
from jaxmoxi.guards import deliberate
from jaxmoxi.search.asking import reader_of
from jaxmoxi.search.climb import Climber, Group, refine, search_down
from jaxmoxi.search.connected import CONNECTED_OUTSIDE, Connected, check_connected, connect, halves
from jaxmoxi.search.device.doors import either_form
from jaxmoxi.search.device.found import group_on_device, unreachable
from jaxmoxi.search.holding import check_alternatives
from jaxmoxi.search.oracle import GroupResult, Oracle, goal_of
from jaxmoxi.search.shared import check_budget, check_insertion, neighbours, within
from jaxmoxi.types import Stop


@deliberate
def minimal_group(
    v: ValueFn,
    num_players: int,
    *,
    insertion: bool = True,
    stop: Stop | None = None,
    probability: float | None = None,
    value: float | None = None,
    budget: int | None = None,
    batch_size: int | None = None,
    alternatives: Sequence[ValueFn] = (),
    callback: Callable[[int], None] | None = None,
    connected: Connected | bool = False,
) -> GroupResult:
    """A small group that is enough, from which no single player can be taken away.

    v:           a value function, masks bool[C, P] -> float32[C].
    num_players: P, at least 1.
    insertion:   True: *sufficient*, the group alone reaches the goal. False: *necessary*, the goal is missed without.
    stop:        the goal, a `Stop` of one condition and no size; None: `Stop(flip=True)`, the class on top.
    probability, value: a short form of `stop`: the class's probability, or the payoff, at or above this.
    budget:      evaluations; None is P(P+1)/2, what a full greedy order costs. It ends the exchanges. What makes the
                 group a minimal one and compares it with greedy's is done whatever the budget: far less than
                 P(P+1)/2 for a game of an image, at the worst a little over twice that.
    batch_size:  coalitions per chunk; None chooses.
    alternatives: other games of the same players in which the group found is tried, for the result's `stability`;
                 `search.alternatives` makes some. They do not count as evaluations.
    callback:    called on the host with the number of evaluations so far, after each question, for a progress bar. The
                 search then decides on the host. Raises ValueError inside `jit`, where there is no host to call.
    connected:   True prefers a group that lies together: in at most three connected pieces, and in fewer where that
                 takes no more than a quarter more players. `Connected` says other numbers, and who is whose neighbour
                 in a game that is not of an image. The search for it decides on the host, outside `jit`, and costs as
                 much again: the default budget is then P(P+1), half of which is for the group without this wish.
                 No player can be taken from the result such that the rest is enough in no more pieces; it may be
                 larger than greedy's group. `pieces` of the result says how many it has.

    Under `jit` and `vmap` it is traced along, as one compiled loop. There a goal that no group reaches, and a NaN, are
    told by `enough` (`GroupResult`).

    Never larger than the group at which `greedy_insertion` (`greedy_deletion`) under the same goal stops: that one is a
    start too. Not always the smallest there is. Deterministic. A very small group may owe its effect to a blind spot of
    the model: give `alternatives` and read the `stability`.

    Raises ValueError for levels that cannot be or that the value function cannot answer, and for a goal that no group
    along either way reaches; NaNValueError that names the group.
    """
    game, goal = goal_of(v, num_players, stop, probability=probability, value=value)
    check_alternatives(alternatives, num_players)
    check_batch_size(batch_size)
    limit = check_budget(budget, num_players)
    check_insertion(insertion)
    wish = check_connected(connected, [game], num_players)

    def on_host() -> GroupResult:
        reader = reader_of(game, goal, greedy=True)
        oracle = Oracle(
            game, num_players, goal=goal, insertion=insertion, batch_size=batch_size, callback=callback, reader=reader
        )
        if wish is None:
            return oracle.result(_search_on_host(oracle, limit), alternatives)
        half, whole = halves(limit, budget)
        group, pieces = connect(oracle, _search_on_host(oracle, half), wish, whole)
        return oracle.result(group, alternatives, pieces=pieces)

    def in_loop() -> GroupResult:
        if wish is not None:
            raise InputError(CONNECTED_OUTSIDE)
        if callback is not None:
            raise InputError("callback needs a search outside jit and vmap: there is no host to call inside")
        return group_on_device(game, goal, num_players, insertion, limit, batch_size, alternatives)

    return either_form(game, on_host, in_loop, host=callback is not None or wish is not None)


@deliberate
def backward_elimination(
    v: ValueFn,
    num_players: int,
    *,
    insertion: bool = True,
    stop: Stop | None = None,
    probability: float | None = None,
    value: float | None = None,
    batch_size: int | None = None,
    alternatives: Sequence[ValueFn] = (),
) -> GroupResult:
    """A group that is enough, from which no single player can be taken away: the first part of `minimal_group` alone.

    From everybody, players are taken away, a sixth at a time for as long as the rest is enough, whoever does least harm
    first. About 6P evaluations. The group may be larger than greedy's.

    Arguments are those of `minimal_group`, and the errors, but for a game in which everybody together misses the goal:
    there is then nothing to take away, though `minimal_group`, which also searches forward, may find a group.
    """
    game, goal = goal_of(v, num_players, stop, probability=probability, value=value)
    check_alternatives(alternatives, num_players)
    check_batch_size(batch_size)

    def on_host() -> GroupResult:
        oracle = Oracle(game, num_players, goal=goal, insertion=insertion, batch_size=batch_size)
        group = search_down(Climber(oracle), 0)
        if group is None:
            raise unreachable(insertion, eliminate=True)
        return oracle.result(group, alternatives)

    def in_loop() -> GroupResult:
        return group_on_device(game, goal, num_players, insertion, None, batch_size, alternatives)

    return either_form(game, on_host, in_loop)


def _search_on_host(oracle: Oracle, limit: int) -> Group:
    climber = Climber(oracle)
    group = search_down(climber, limit, restarts=0)
    size = oracle.num_players if group is None else int(group.sum()) - 1
    if size > 0:
        rival = _greedy(oracle, size)
        score, enough = (x[0] for x in oracle.ask(rival[None]))
        if not enough and group is not None:
            rival, _, enough = within(oracle, limit, lambda: climber.climb(rival, float(score))) or (rival, 0, False)
        group = rival if enough else group
    if group is None:
        raise unreachable(oracle.insertion)
    return refine(climber, group, limit)


def _greedy(oracle: Oracle, size: int) -> Group:
    """The group of greedy, where it reaches the goal or has `size` players."""
    group, enough = np.zeros(oracle.num_players, bool), False
    while not enough and group.sum() < size:
        groups = neighbours(group, np.flatnonzero(~group))
        best = oracle.greedy_best(groups)
        group, enough = groups[best], oracle.ask(groups)[1][best]
    return group
