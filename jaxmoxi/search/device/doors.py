"""Where the searches of a compiled loop are called: what is checked before and told after."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxmoxi.errors import nan_error
from jaxmoxi.games.base import Game
from jaxmoxi.games.evaluation import TracedError, check_batch_size, memory_advice
from jaxmoxi.games.hardware import platform
from jaxmoxi.guards import held
from jaxmoxi.pytrees import is_concrete
from jaxmoxi.search.asking import Reader
from jaxmoxi.search.device.closures import open_closure
from jaxmoxi.search.device.engine import Ended, Given, Plan, search_one
from jaxmoxi.types import Stop

Out = TypeVar("Out")


def in_one_loop(inputs: Any) -> bool:
    """Whether a search runs as one compiled loop: inside `jit` and `vmap`, where it must, and on accelerators.

    On a CPU the host asks as fast, and compiles only those sizes that a search meets.
    """
    return not is_concrete(inputs) or platform() != "cpu"


def either_form(inputs: Any, on_host: Callable[[], Out], in_loop: Callable[[], Out], *, host: bool = False) -> Out:
    """What a search of these inputs finds, on the host or as one compiled loop.

    host: prefer the host wherever it can look at the inputs.
    """
    if in_one_loop(inputs) and not (host and is_concrete(inputs)):
        return in_loop()
    try:
        return on_host()
    except TracedError:  # a function that closes over what is being traced: no array of the game tells
        return in_loop()


def capacity(budget: int, num_players: int) -> int:
    """How many groups a search with this budget is to remember: a power of two, at most 2^18.

    What a search does whatever its budget asks about no more than twice P(P+1)/2 groups.
    """
    most = budget + num_players * (num_players + 1)
    return 2 ** int(np.ceil(np.log2(min(most, 2 ** min(num_players, 18)))))


def run_machine(
    machine: Any, reader: Reader, game: Game, goal: Stop | None, budget: int, batch_size: int | None, more: Any = None
) -> Ended:
    """The end of one search, looked at where it can be.

    Raises NaNValueError that names the group, outside `jit`; OutOfMemoryError with the batch size to try.
    """
    check_batch_size(batch_size)
    # Room is made for a whole question, known or not: with that much more nothing is forgotten before it must be.
    rows = capacity(budget, machine.num_players) + machine.rows
    plan = Plan(machine, reader, batch_size, rows)
    levels = None if goal is None else goal.as_arrays()
    given = Given(jnp.int32(min(budget, 2**31 - 1)), more)
    with memory_advice(game, machine.num_players, None, batch_size):
        ended = _search(plan, (game, levels), given)
        if is_concrete(ended):
            raise_nan(jax.block_until_ready(ended), machine.insertion)
    return ended


def raise_nan(ended: Ended, insertion: bool, *, whose: str = "the value function", result: Any = None) -> None:
    """Raises NaNValueError if a NaN ended the search."""
    if bool(ended.broken):
        players = np.flatnonzero(ended.culprit).tolist()
        where = f"for the group {players} ({'alone' if insertion else 'hidden'})"
        raise nan_error(where, whose=whose, result=result)


@partial(jax.jit, static_argnums=0)
def _search(plan: Plan, asked: tuple[Game, Stop | None], given: Given) -> Ended:
    game = open_closure(asked[0], plan.machine.num_players)
    ended = search_one(plan, jax.tree.map(jax.lax.stop_gradient, (game, asked[1])), given)
    return ended._replace(outcome=held(ended.outcome, game))
