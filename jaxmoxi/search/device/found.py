"""The groups that machines found, as results."""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp

from jaxmoxi.errors import InputError
from jaxmoxi.games.base import Game, ValueFn
from jaxmoxi.pytrees import is_concrete
from jaxmoxi.search.asking import Reader, reader_of
from jaxmoxi.search.device.doors import run_machine
from jaxmoxi.search.device.engine import Ended
from jaxmoxi.search.device.groups import GroupMachine
from jaxmoxi.search.holding import stability
from jaxmoxi.search.oracle import GroupResult
from jaxmoxi.types import Stop


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
        num_evaluations=ended.count,
    )


def unreachable(insertion: bool, *, eliminate: bool = False) -> InputError:
    """The error of a goal that no group reaches."""
    if eliminate:
        return InputError("everybody together misses the goal, so there is nothing to take away; try `minimal_group`")
    return InputError(
        "no group reaches the goal, not even everybody: is this the class that the model predicts?"
        if insertion
        else "hiding everybody does not change what the goal asks about; there is no necessary group"
    )
