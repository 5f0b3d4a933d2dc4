"""Orders found with fewer or other questions than MoXI's: from both ends, and several players a step.

A forward search chooses well while few players are chosen, and wanders later; a backward one, which starts where the
model is at home, tells well who can come last, and takes many at a time for it. `complete_order` puts the two together.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from jaxmoxi.greedy import check_stop, greedy_init
from jaxmoxi.search.oracle import Oracle, neighbours
from jaxmoxi.search.trace import Trace
from jaxmoxi.types import GreedyResult, Stop


def bidirectional_greedy(
    v: Callable[..., object], num_players: int, *, insertion: bool = True, batch_size: int | None = None
) -> GreedyResult:
    """An order made from both ends: in turn the best next player, and the one that can best come last.

    The front grows as in MoXI: the player with which the group does best. The back grows from everybody: the player
    whose absence does least harm. Each step asks only about players that neither end has, and the order is the front
    followed by the back. P(P+1)/2 - 1 evaluations at most, P of them with few players visible for each with many.

    Arguments, returns and errors are those of `screened_greedy`; there is no early stop, the middle comes last.
    """
    oracle = Oracle(v, num_players, goal=None, insertion=insertion, batch_size=batch_size)
    front, front_group = [], np.zeros(num_players, bool)
    back, rest_group = [], np.ones(num_players, bool)
    oracle.ask(front_group[None])
    while len(front) + len(back) < num_players:
        left = np.flatnonzero(rest_group & ~front_group)
        if len(front) <= len(back):
            scores, _ = oracle.ask(neighbours(front_group, left))
            front.append(int(left[np.argmax(scores)]))
            front_group[front[-1]] = True
        else:
            scores, _ = oracle.ask(neighbours(rest_group, left))
            back.append(int(left[np.argmax(scores)]))
            rest_group[back[-1]] = False
    trace, group = Trace(oracle), np.zeros(num_players, bool)
    trace.look(group)
    for player in front + back[::-1]:  # all of these groups but one were asked about on the way
        group[player] = True
        trace.look(group, player)
    return trace.result()


class CompletedOrder(NamedTuple):
    """Made by `complete_order`.

    order:           int32[P], all players.
    num_evaluations: int32[], forward passes, those of the search that stopped early not among them.
    """

    order: Int[Array, "P"]
    num_evaluations: Int[Array, ""]


def complete_order(
    v: Callable[..., object], result: GreedyResult, *, share: float = 1 / 12, batch_size: int | None = None
) -> CompletedOrder:
    """The order of a search that stopped early, completed from the other end.

    From everybody, the players that the search has not chosen are taken away, `share` of those left at a time, whoever
    does least harm first; the first to go is the last of the order. So an insertion's later half is found where the
    model sees nearly the whole image, at about P / share evaluations instead of P^2 / 2.

    result: of `greedy_insertion`, `greedy_deletion`, `screened_greedy(...).greedy` or `blockwise_greedy`.
    share:  in (0, 1]; at least one player goes at a time.

    Raises ValueError for another share, and inside `jit`; NaNValueError that names the group.
    """
    if not 0 < share <= 1:
        raise ValueError(f"share must lie in (0, 1]; got {share}")
    num_players = result.order.shape[0]
    oracle = Oracle(v, num_players, goal=None, insertion=result.insertion, batch_size=batch_size)
    front = np.asarray(result.order)[: int(result.num_steps)]
    left = np.ones(num_players, bool)
    left[front] = False
    gone: list[int] = []
    group = np.ones(num_players, bool)
    while left.any():
        players = np.flatnonzero(left)
        count = max(1, int(share * len(players)))
        if len(players) > 1:
            scores, _ = oracle.ask(neighbours(group, players))
            players = players[np.argsort(-scores, kind="stable")][:count]
        gone += players.tolist()
        group[players] = left[players] = False
    order = np.concatenate([front, np.array(gone[::-1], np.int32)])
    return CompletedOrder(jnp.asarray(order, jnp.int32), jnp.int32(oracle.count))


def blockwise_greedy(
    v: Callable[..., object],
    num_players: int,
    *,
    players_per_step: int = 2,
    choose: Literal["top", "together"] = "together",
    insertion: bool = True,
    stop: Stop | None = None,
    batch_size: int | None = None,
) -> GreedyResult:
    """Greedy search that scores all candidates once for several choices.

    players_per_step: r, at least 1; 1 is MoXI.
    choose:           "top" takes the r players that do best one by one. "together" takes the best and then, one by one,
                      whoever of the next 4r does best with those already taken, so that interactions count.
    stop:             looked at after every player.

    About P(P+1)/(2r) evaluations, and for "together" up to 4P more. Otherwise as `screened_greedy`.
    """
    if players_per_step < 1:
        raise ValueError(f"players_per_step must be at least 1; got {players_per_step}")
    if choose not in ("top", "together"):
        raise ValueError(f"expected choose of 'top' or 'together'; got {choose!r}")
    oracle = Oracle(v, num_players, goal=None, insertion=insertion, batch_size=batch_size)
    stop = stop or Stop()
    check_stop(stop, greedy_init(v, num_players, insertion=insertion))
    trace, group = Trace(oracle), np.zeros(num_players, bool)
    trace.look(group)
    while not trace.ended(stop):
        left = np.flatnonzero(~group)
        scores, _ = oracle.ask(neighbours(group, left))
        ranked = left[np.argsort(-scores, kind="stable")]
        listed = list(ranked[: players_per_step * (1 if choose == "top" else 5)])
        for i in range(min(players_per_step, len(left))):
            if i and choose == "together":
                scores, _ = oracle.ask(neighbours(group, np.array(listed)))
                player = listed.pop(int(np.argmax(scores)))
            else:
                player = listed.pop(0)
            group[player] = True
            trace.look(group, int(player))
            if trace.ended(stop):
                break
    return trace.result()
