"""Orders found with fewer or other questions than MoXI's: from both ends, and several players a step.

Forward search ranks the first players well, then drifts. Backward elimination starts from the full image, where the
model is in distribution, so it ranks the last players well and can remove several at a step. `complete_order` puts the
two together.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from jaxmoxi.errors import InputError
from jaxmoxi.games.base import Game, ValueFn, as_game
from jaxmoxi.games.evaluation import check_batch_size, tells
from jaxmoxi.games.probe import check_players
from jaxmoxi.guards import deliberate
from jaxmoxi.search.device.backward import BackwardMachine
from jaxmoxi.search.device.doors import either_form
from jaxmoxi.search.device.found import (
    CompletedOrder,
    backward_on_device,
    blocks_on_device,
    ends_on_device,
    front_of,
)
from jaxmoxi.search.oracle import Oracle
from jaxmoxi.search.scorers import check_gates, gate_gradient
from jaxmoxi.search.shared import Trace, neighbours, remove_in_rounds
from jaxmoxi.types import AnyArray, GreedyResult, Stop


@deliberate
def bidirectional_greedy(
    v: ValueFn, num_players: int, *, insertion: bool = True, batch_size: int | None = None
) -> GreedyResult:
    """An order made from both ends: in turn the best next player, and the one that can best come last.

    The front grows as in MoXI: the player with which the group does best. The back grows from everybody: the player
    whose absence does least harm. Each step asks only about players that neither end has, and the order is the front
    followed by the back. P(P+1)/2 evaluations, half of them with few players visible for each with many.

    v, num_players, batch_size: as for `greedy_insertion`, and so are the result and the errors; there is no early stop,
    the middle comes last. Under `jit` and `vmap` it is traced along; a NaN then leaves an order of -1.
    """
    game = as_game(v)
    check_batch_size(batch_size)
    check_players(game, num_players)
    return either_form(
        game,
        lambda: _from_both_ends(Oracle(game, num_players, goal=None, insertion=insertion, batch_size=batch_size)),
        lambda: ends_on_device(game, int(num_players), insertion, batch_size),
    )


def _from_both_ends(oracle: Oracle) -> GreedyResult:
    num_players = oracle.num_players
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


@deliberate
def complete_order(
    v: ValueFn,
    result: GreedyResult,
    *,
    scorer: Literal["gradient", "all"] | None = None,
    share: float | None = None,
    batch_size: int | None = None,
) -> CompletedOrder:
    """The order of a search that stopped early, completed from the other end.

    From everybody, the players that the search has not chosen are taken away, `share` of those left at a time, whoever
    does least harm first; the first to go is the last of the order. So an insertion's later half is found where the
    model sees nearly the whole image.

    result: of `greedy_insertion`, `greedy_deletion`, `screened_greedy(...).greedy` or `blockwise_greedy`.
    scorer: "gradient" asks a gradient (`gate_gradient`) who does least harm and evaluates three candidates for each
            player that goes: about 3P evaluations and at most ln(P) / share gradients, no more than P. "all" evaluates
            everybody that is left: about P / share evaluations. None: gradient where the value function has gates.
    share:  in (0, 1]; at least one player goes at a time. None: 1/24 with gradients, else 1/12.

    Under `jit` and `vmap` it is traced along. Raises ValueError for another scorer or share, and for a gradient of a
    value function that has none; NaNValueError that names the group (inside `jit` the order is then -1).
    """
    num_players = result.order.shape[0]
    game, guided, share = _checked(v, num_players, scorer, share, batch_size)

    def on_host() -> CompletedOrder:
        backward = _Backward(game, num_players, result.insertion, guided, share, batch_size)
        front = np.asarray(result.order)[: int(result.num_steps)]
        return backward.completed(front.tolist(), backward.run(front, keep=0))

    def in_loop() -> CompletedOrder:
        machine = BackwardMachine(num_players, result.insertion, guided, share, forward=False)
        early, place = front_of(result)
        return backward_on_device(game, machine, batch_size, early, 0, place)

    return either_form((game, result), on_host, in_loop)


@deliberate
def backward_forward_order(
    v: ValueFn,
    num_players: int,
    *,
    insertion: bool = True,
    first: Bool[AnyArray, "P"] | None = None,
    keep: int | None = None,
    scorer: Literal["gradient", "all"] | None = None,
    share: float | None = None,
    batch_size: int | None = None,
) -> CompletedOrder:
    """MoXI's greedy search among the players that survive a backward elimination; the others follow, last gone first.

    first: bool[P], players exempt from elimination and placed first, ordered greedily among themselves. Pass a known
           good group, such as that of `backward_elimination`. None: nobody.
    keep:  how many survive, 0 .. P, those that come first among them; None is two fifths of all. The whole takes
           keep^2 / 2 evaluations for the search, less where some come first, and those of `complete_order` for the
           elimination: with gradients less than a fifth of the exact search's P(P+1)/2 from 100 players on, a quarter
           at 49.

    v, num_players, insertion, batch_size: as for `greedy_insertion`. scorer, share: as for `complete_order`.
    Under `jit` and `vmap` it is traced along. Raises ValueError for another `first` or `keep`, and as `complete_order`.
    """
    keep = round(0.4 * num_players) if keep is None else keep
    if not 0 <= keep <= num_players or keep != int(keep):
        raise InputError(f"keep must be a number of players from 0 to {num_players}; got {keep}")
    early: AnyArray = np.zeros(num_players, bool)
    if first is not None:
        early = jnp.asarray(first)
        if early.shape != (num_players,) or early.dtype != bool:
            raise InputError(f"first must be bool[{num_players}]; got {early.dtype} {list(early.shape)}")
    game, guided, share = _checked(v, num_players, scorer, share, batch_size)

    def on_host() -> CompletedOrder:
        backward = _Backward(game, num_players, insertion, guided, share, batch_size)
        return _backward_forward(backward, np.asarray(early), int(keep))

    def in_loop() -> CompletedOrder:
        machine = BackwardMachine(int(num_players), insertion, guided, share, forward=True)
        return backward_on_device(game, machine, batch_size, jnp.asarray(early), int(keep))

    return either_form((game, early), on_host, in_loop)


def _backward_forward(backward: _Backward, early: Bool[np.ndarray, "P"], keep: int) -> CompletedOrder:
    gone = backward.run(np.flatnonzero(early), max(0, keep - int(early.sum())))
    late = ~early
    late[gone] = False
    order: list[int] = []
    group = np.zeros(len(early), bool)
    for left in (early.copy(), late):
        while left.any():
            players = np.flatnonzero(left)
            if len(players) > 1:
                players = players[[np.argmax(backward.oracle.ask(neighbours(group, players))[0])]]
            order += players.tolist()
            group[players], left[players] = True, False
    return backward.completed(order, gone)


def _checked(
    v: ValueFn, num_players: int, scorer: Any, share: float | None, batch_size: int | None
) -> tuple[Game, bool, float]:
    """(the game, whether gradients guide, the share that goes at once). Raises InputError for what cannot be."""
    if scorer not in (None, "gradient", "all"):
        raise InputError(f"expected a scorer of 'gradient' or 'all'; got {scorer!r}")
    if share is not None and not 0 < share <= 1:
        raise InputError(f"share must lie in (0, 1]; got {share}")
    game = as_game(v)
    if scorer == "gradient":
        check_gates(game)
    check_batch_size(batch_size)
    check_players(game, num_players)
    guided = game.gated if scorer is None else scorer == "gradient"
    return game, guided, share or (1 / 24 if guided else 1 / 12)


class _Backward:
    """Removes players from everybody, several at a time."""

    def __init__(
        self, game: Game, num_players: int, insertion: bool, guided: bool, share: float, batch_size: int | None
    ):
        self.game, self.insertion, self.guided, self.share = game, insertion, guided, share
        self.oracle = Oracle(game, num_players, goal=None, insertion=insertion, batch_size=batch_size)
        self.gradients, self.keep = 0, 0

    def run(self, front: Int[np.ndarray, "F"], keep: int) -> list[int]:
        """The players that go, in their turn, until `keep` are left beside those of the front, which stay."""
        self.keep = keep
        left = np.ones(self.oracle.num_players, bool)
        left[front] = False
        rounds = self._rounds(int(left.sum()))
        gone, _ = remove_in_rounds(self._ask, np.ones(self.oracle.num_players, bool), left, rounds)
        return gone.tolist()

    def _rounds(self, left: int) -> Iterator[tuple[int, int]]:
        """(players left, players that go) of each round."""
        while left > self.keep:
            yield left, self._taken(left)
            left -= self._taken(left)

    def _taken(self, left: int) -> int:
        """How many of the players left go in one round."""
        return min(max(1, int(self.share * left)), left - self.keep)

    def _ask(self, group: Bool[np.ndarray, "P"], players: Int[np.ndarray, "C"]) -> Float[np.ndarray, "C"]:
        """Scores of the group without each player; -inf for those that the gradient puts off the shortlist."""
        scores = np.full(len(players), -np.inf)
        if len(players) == 1:  # nothing to choose: no evaluation
            return np.zeros(1)
        asked = np.arange(len(players))
        if self.guided:
            self.gradients += 1
            guess = np.asarray(gate_gradient(self.game, jnp.asarray(group == self.insertion)))
            # Of an insertion's visible players it says what hiding costs; of a deletion's hidden ones, which go by
            # being shown again, what showing brings.
            asked = np.sort(np.argsort(guess[players], kind="stable")[: 3 * self._taken(len(players))])
        scores[asked], _ = self.oracle.ask(neighbours(group, players[asked]))
        return scores

    def completed(self, order: list[int], gone: list[int]) -> CompletedOrder:
        """The whole order: those that the search chose, then those that went, the last to go first."""
        return CompletedOrder(
            jnp.asarray(order + gone[::-1], jnp.int32), jnp.int32(self.oracle.count), jnp.int32(self.gradients)
        )


@deliberate
def blockwise_greedy(
    v: ValueFn,
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

    About P(P+1)/(2r) evaluations, and for "together" up to 4P more. v, num_players, batch_size, and what is returned
    and raised: as for `greedy_insertion`. Under `jit` and `vmap` it is traced along.
    """
    if players_per_step < 1:
        raise InputError(f"players_per_step must be at least 1; got {players_per_step}")
    if choose not in ("top", "together"):
        raise InputError(f"expected choose of 'top' or 'together'; got {choose!r}")
    game, stop = as_game(v), stop or Stop()
    check_batch_size(batch_size)
    check_players(game, num_players)
    stop.check(tells(game, num_players))

    def on_host() -> GreedyResult:
        oracle = Oracle(game, num_players, goal=None, insertion=insertion, batch_size=batch_size)
        return _by_blocks(oracle, stop, players_per_step, choose == "together")

    def in_loop() -> GreedyResult:
        together = choose == "together"
        return blocks_on_device(game, int(num_players), insertion, batch_size, players_per_step, together, stop)

    return either_form(game, on_host, in_loop)


def _by_blocks(oracle: Oracle, stop: Stop, players_per_step: int, together: bool) -> GreedyResult:
    trace, group = Trace(oracle), np.zeros(oracle.num_players, bool)
    trace.look(group)
    while not trace.ended(stop):
        left = np.flatnonzero(~group)
        scores, _ = oracle.ask(neighbours(group, left))
        ranked = left[np.argsort(-scores, kind="stable")]
        listed = list(ranked[: players_per_step * (5 if together else 1)])
        for i in range(min(players_per_step, len(left))):
            if i and together:
                scores, _ = oracle.ask(neighbours(group, np.array(listed)))
                player = listed.pop(int(np.argmax(scores)))
            else:
                player = listed.pop(0)
            group[player] = True
            trace.look(group, int(player))
            if trace.ended(stop):
                break
    return trace.result()
