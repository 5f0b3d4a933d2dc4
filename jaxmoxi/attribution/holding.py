"""Attribution from a group that holds in many removals: `search.robust_group`, made an order.

A group is enough in N removals of the same players (`games.removals`), drawn by a key. Its members come first, all
other players after them. Within the group players leave one after the other, an eighth of the group at a time, whoever
is missed least on average over the N removals: the last to leave is the first of the order. The other players leave the
whole image in the same way. For an order of deletion the group is a necessary one, and so are the questions.

Sources are those of `search.robust`; the order within the group and outside of it is this package's own.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxmoxi.attribution.game import Problem, Seed, need_key
from jaxmoxi.attribution.methods import Effort, Method, register
from jaxmoxi.errors import InputError
from jaxmoxi.games.base import Game
from jaxmoxi.games.evaluation import readouts
from jaxmoxi.games.removals import removals
from jaxmoxi.games.robust import robust_value_fn
from jaxmoxi.pytrees import Packed, is_concrete
from jaxmoxi.search.oracle import Oracle
from jaxmoxi.search.robust import robust_group
from jaxmoxi.search.shared import neighbours, remove_in_rounds
from jaxmoxi.types import Stop

_ROUNDS = 8
_REMOVALS = 8
_GOAL = Stop(flip=True)


def robust(
    key: Seed,
    problem: Problem,
    *,
    insertion: bool = True,
    num_removals: int = _REMOVALS,
    budget: int | None = None,
    batch_size: int | None = None,
) -> Float[Array, "P"]:
    """P for the first player of the order in the module's head, 1 for the last, float32[P].

    key:          draws the removals.
    insertion:    True: the group is sufficient, and comes first where players are inserted. False: it is necessary.
    num_removals: N, at least 1; of all kinds that the model can, in turn. The game of the problem is not asked.
    budget:       of `robust_group`; None is what it takes by itself.

    The group is asked to hold in every removal in which all players together are enough (necessary); where there is
    none, there is no group, and the order is that of the removals' mean alone. Decides on the host: raises ValueError
    inside `jit` and `vmap`, without a key, and as `removals` and `robust_group`.
    """
    given = need_key(key, "drawing removals")
    if not is_concrete((given, problem)):
        raise InputError("the robust group decides on the host what it asks next: call it outside jit, vmap and grad")
    games = _removals(given, problem, num_removals)
    spread = [problem.v.spread(game) for game in games]
    num_players = problem.num_players
    group = _group(spread, num_players, insertion, budget, batch_size)
    mean = problem.v.spread(robust_value_fn(games, reduce="mean"))
    oracle = Oracle(mean, num_players, goal=None, insertion=insertion, batch_size=batch_size)
    everybody = np.ones(num_players, bool)
    order = np.concatenate([_leaving(oracle, group, group)[::-1], _leaving(oracle, everybody, ~group)[::-1]])
    return jnp.zeros(num_players).at[order].set(num_players - jnp.arange(num_players, dtype=jnp.float32))


def _removals(key: Any, problem: Problem, count: int) -> list[Game]:
    # Weights that are on all devices already are not copied there with every game.
    model = problem.v.replicate(problem.model)
    network = model.unpack() if isinstance(model, Packed) else model
    target, regions = int(problem.target), np.asarray(problem.regions)
    payoff, link = problem.payoff(), problem.link
    return removals(key, network, problem.image, target, regions, count=count, payoff=payoff, link=link)


def _group(
    games: list[Game], num_players: int, insertion: bool, budget: int | None, batch_size: int | None
) -> Bool[np.ndarray, "P"]:
    """The group, nobody where there is none."""
    everybody = np.full((1, num_players), insertion)
    able = np.array([bool(_GOAL.met(jax.tree.map(lambda x: x[0], readouts(game, everybody)), 0, insertion))
                     for game in games])  # fmt: skip
    if not able.any():
        return np.zeros(num_players, bool)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="in the games of the numbers")  # those in which it need not hold
        found = robust_group(
            games, num_players, insertion=insertion, hold=float(able.mean()), stop=_GOAL, budget=budget,
            batch_size=batch_size,
        )  # fmt: skip
    return np.asarray(found.group)


def _leaving(oracle: Oracle, group: Bool[np.ndarray, "P"], left: Bool[np.ndarray, "P"]) -> Any:
    """Those of a group who are `left`, in the order in which they leave it."""

    def ask(now: Bool[np.ndarray, "P"], players: Int[np.ndarray, "C"]) -> Float[np.ndarray, "C"]:
        return oracle.ask(neighbours(now, players))[0]

    return remove_in_rounds(ask, group, left, _eighths(left))[0]


def _eighths(left: Bool[np.ndarray, "P"]) -> Iterator[tuple[int, int]]:
    """(players left, players that leave) of each round."""
    count = int(left.sum())
    ends = [count - count * k // _ROUNDS for k in range(_ROUNDS + 1)]
    return ((a, a - b) for a, b in pairwise(ends) if a > b)


def _budget(effort: Effort) -> int:
    """Three times what MoXI's own order takes at this effort."""
    steps = effort.num_players if effort.steps is None else min(effort.steps, effort.num_players)
    rest = effort.num_players - steps
    return 3 * (effort.num_players * (effort.num_players + 1) - rest * (rest + 1) + 9 * rest) // 2


def _options(effort: Effort) -> dict[str, Any]:
    return {"budget": _budget(effort), "batch_size": effort.batch_size}


def _cost(effort: Effort) -> int:
    # The eight rounds ask about 9P/2 players in every removal. The budget ends the search's exchanges; before them a
    # backward elimination ranks about 6P groups, in as many removals as refute what it finds: all of them at the most.
    rounds = _REMOVALS * 9 * effort.num_players // 2
    return rounds + max(_budget(effort), _REMOVALS * 6 * effort.num_players)


register(
    Method(
        "robust",
        robust,
        "Ignatiev, Narodytska and Marques-Silva, AAAI 2019 (counterexamples); Wäldchen et al., JAIR 2021 (shares)",
        draws=True,
        directed=True,
        traceable=False,
        by_default=False,
        help="a small group that is enough in eight removals at once, then by what each region adds; the dearest",
        options=_options,
        cost=_cost,
        place=920,
        colour="#d0021b",
        line="-.",
        bold=True,
    )
)
