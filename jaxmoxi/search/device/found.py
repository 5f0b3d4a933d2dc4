"""What machines found, as results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from jaxmoxi.errors import NoGroupError
from jaxmoxi.games.base import Game, ValueFn
from jaxmoxi.games.evaluation import tells
from jaxmoxi.pytrees import is_concrete
from jaxmoxi.search.asking import Reader, reader_of
from jaxmoxi.search.device.backward import BackwardMachine
from jaxmoxi.search.device.doors import run_machine
from jaxmoxi.search.device.engine import Ended
from jaxmoxi.search.device.groups import GroupMachine
from jaxmoxi.search.device.orders import BlockMachine, EndsMachine
from jaxmoxi.search.device.trace import greedy_result
from jaxmoxi.search.holding import stability
from jaxmoxi.search.oracle import GroupResult
from jaxmoxi.types import GreedyResult, Stop


class CompletedOrder(NamedTuple):
    """Made by `complete_order` and `backward_forward_order`.

    order:           int32[P], all players.
    num_evaluations: int32[], forward passes, those of a search that stopped early not among them.
    num_gradients:   int32[], forward-and-backward passes, not among those evaluations.
    """

    order: Int[Array, "*batch P"]
    num_evaluations: Int[Array, "*batch"]
    num_gradients: Int[Array, "*batch"]


def group_machine(
    game: Game, goal: Stop, num_players: int, insertion: bool, *, eliminate: bool
) -> tuple[GroupMachine, Reader]:
    """The machine of a group search, and how it reads the game."""
    reader = reader_of(game, goal, greedy=not eliminate)
    return GroupMachine(int(num_players), insertion, eliminate=eliminate, remainders=reader.finer), reader


def group_on_device(
    game: Game,
    goal: Stop,
    num_players: int,
    insertion: bool,
    limit: int | None,
    batch_size: int | None,
    alternatives: Sequence[ValueFn],
) -> GroupResult:
    """`minimal_group` as one compiled loop; `backward_elimination` where `limit` is None."""
    eliminate = limit is None
    machine, reader = group_machine(game, goal, num_players, insertion, eliminate=eliminate)
    ended = run_machine(machine, reader, game, goal, limit or 0, batch_size)
    result = group_result(ended)
    if is_concrete(result) and not bool(result.enough):
        raise unreachable(insertion, eliminate=eliminate)
    if alternatives:
        held = stability(alternatives, result.group, insertion=insertion)
        result = GroupResult(**{**vars(result), "stability": held})
    return result


def group_result(ended: Ended) -> GroupResult:
    """The record of a group; after a NaN nobody, who are not enough, with the value NaN."""
    found, broken = ended.outcome, ended.broken
    group = found.group & ~broken[..., None]
    return GroupResult(
        group=group,
        size=jnp.sum(group, axis=-1, dtype=jnp.int32),
        enough=found.enough & ~broken,
        value=jnp.where(broken, jnp.nan, found.value),
        num_evaluations=ended.evaluations,
    )


def unreachable(insertion: bool, *, eliminate: bool = False) -> NoGroupError:
    """The error of a goal that no group reached."""
    if eliminate:
        return NoGroupError("everybody together misses the goal, so there is nothing to take away; try `minimal_group`")
    return NoGroupError(
        "no group along the way reaches the goal, and everybody together misses it: is this the class that the "
        "model predicts?"
        if insertion
        else "hiding everybody does not change what the goal asks about, and no group along the way does"
    )


def ends_on_device(game: Game, num_players: int, insertion: bool, batch_size: int | None) -> GreedyResult:
    """`bidirectional_greedy` as one compiled loop."""
    machine = EndsMachine(num_players, insertion, *_tells(game, num_players))
    return greedy_result(run_machine(machine, Reader(), game, None, 0, batch_size), insertion)


def blocks_on_device(
    game: Game,
    num_players: int,
    insertion: bool,
    batch_size: int | None,
    players_per_step: int,
    together: bool,
    stop: Stop,
) -> GreedyResult:
    """`blockwise_greedy` as one compiled loop."""
    machine = BlockMachine(num_players, insertion, *_tells(game, num_players), players_per_step, together)
    ended = run_machine(machine, Reader(), game, None, 0, batch_size, stop.as_arrays())
    return greedy_result(ended, insertion)


def backward_on_device(
    game: Game,
    machine: BackwardMachine,
    batch_size: int | None,
    early: Bool[Array, "P"],
    keep: int,
    place: Int[Array, "P"] | None = None,
) -> CompletedOrder:
    """`backward_forward_order` as one compiled loop, or, given the places of those who come first, `complete_order`."""
    places = jnp.zeros(machine.num_players, jnp.int32) if place is None else place
    others = jnp.maximum(0, keep - jnp.sum(early, dtype=jnp.int32))
    ended = run_machine(machine, Reader(), game, None, 0, batch_size, (early, places, others))
    return CompletedOrder(ended.outcome[0], ended.evaluations, ended.outcome[1])


def front_of(result: GreedyResult) -> tuple[Bool[Array, "P"], Int[Array, "P"]]:
    """(who was chosen, the place of each of them) of a search that stopped early."""
    num_players = result.order.shape[0]
    places = jnp.arange(num_players, dtype=jnp.int32)
    chosen = jnp.where(places < result.num_steps, result.order, num_players)
    early = jnp.zeros(num_players, bool).at[chosen].set(True, mode="drop")
    return early, jnp.zeros_like(places).at[chosen].set(places, mode="drop")


def _tells(game: Game, num_players: int) -> tuple[bool, bool]:
    told = tells(game, num_players)
    return told.leads is not None, told.probabilities is not None
