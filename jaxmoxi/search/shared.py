"""What several searches share: neighbouring groups, budgets, removal in rounds, and the record of an order."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from jaxmoxi.errors import InputError
from jaxmoxi.search.oracle import BudgetSpent, Groups, Oracle
from jaxmoxi.types import AnyArray, GreedyResult, Readout, Stop

Answer = TypeVar("Answer")


def neighbours(group: Bool[np.ndarray, "P"], players: Int[np.ndarray, "C"]) -> Groups:
    """A group with each of `players` toggled in turn."""
    rows = np.repeat(group[None], len(players), 0)
    rows[np.arange(len(players)), players] ^= True
    return rows


def scramble(x: Any) -> Any:
    """The finaliser of MurmurHash3 (Appleby), uint32 arrays of NumPy or JAX."""
    x = (x ^ (x >> 16)) * np.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * np.uint32(0xC2B2AE35)
    return x ^ (x >> 16)


def lots(draw: Any, players: Any) -> Any:
    """A number for each of `players` in the draw of this number, all uint32 arrays; the lowest are drawn.

    Not JAX's generators: the host and the device draw alike, whatever JAX is configured to use.
    """
    return scramble(scramble(players + np.uint32(1)) + draw * np.uint32(0x9E3779B9))


def check_insertion(insertion: bool) -> None:
    """Raises InputError for what does not say whether a group is sufficient or necessary."""
    if not isinstance(insertion, bool | np.bool_):
        raise InputError(f"expected insertion of True (sufficient) or False (necessary); got {insertion!r}")


def check_budget(budget: int | None, num_players: int) -> int:
    """The number of evaluations that a budget stands for. Raises InputError unless it is None or at least 1.

    Infinity is no limit, as far as an int32 counts; another number is whole.
    """
    if budget is not None:
        if isinstance(budget, float) and budget == math.inf:
            return 2**31 - 1
        whole = isinstance(budget, int | np.integer) and not isinstance(budget, bool)
        if not whole or budget < 1:
            raise InputError(f"the budget is a number of evaluations, at least 1; got {budget!r}")
    return num_players * (num_players + 1) // 2 if budget is None else budget


def within(oracle: Oracle, limit: int, run: Callable[[], Answer]) -> Answer | None:
    """What `run` returns, or None where its next question would cost more than `limit` evaluations in all."""
    oracle.budget = limit
    try:
        return run()
    except BudgetSpent:
        return None
    finally:
        oracle.budget = None


def remove_in_rounds(
    ask: Callable[..., Float[AnyArray, "C"]],
    group: Bool[AnyArray, "P"],
    left: Bool[AnyArray, "P"],
    rounds: Iterable[tuple[int, int]],
) -> tuple[Int[AnyArray, "R"], Bool[AnyArray, ""] | bool | np.bool_]:
    """Players removed from a group, several a round: `(players in their turn, whether a score was NaN)`.

    With JAX's arrays it is traceable. With NumPy's it runs on the host, where JAX would compile anew for each number of
    players that are left.

    ask:    (group bool[P], candidates int[C]) -> the score of the group without each candidate; the highest go first.
            It may answer -inf for a candidate that is not worth asking about.
    left:   bool[P], the players of the group that may go.
    rounds: (players left, players to remove) of each round; static numbers.
    """
    on_host = isinstance(group, np.ndarray)
    xp: Any = np if on_host else jnp
    gone, broken, everybody = [xp.zeros(0, np.int32)], False, xp.arange(group.shape[0])
    for count, taken in rounds:
        players = np.flatnonzero(left) if on_host else jnp.nonzero(left, size=count)[0]
        scores = xp.asarray(ask(group, players))
        best = players[xp.argsort(-scores, stable=True)[:taken]].astype(np.int32)
        gone.append(best)
        stays = ~xp.isin(everybody, best)
        group, left = group & stays, left & stays
        broken |= xp.isnan(scores).any()
    return xp.concatenate(gone), broken


class Trace:
    """A `GreedyResult` in the making: the players chosen so far, and the readout of the start and after each choice."""

    def __init__(self, oracle: Oracle):
        self.oracle, self.num_players, self.insertion = oracle, oracle.num_players, oracle.insertion
        self.order: list[int] = []
        self.readouts: list[Readout] = []

    def look(self, group: Bool[np.ndarray, "P"], *players: int) -> float:
        """Records the group reached by choosing `players`, the last of them at least; returns its score."""
        self.order.extend(players)
        self.readouts.append(self.oracle.readout(group))
        return float(self.oracle.ask(group[None])[0][0])

    def ended(self, stop: Stop) -> bool:
        """Whether everybody is chosen, or the last readout meets the stop."""
        chosen = len(self.order)
        return chosen >= self.num_players or bool(stop.met(self.readouts[-1], chosen, self.insertion))

    def result(self) -> GreedyResult:
        """The record; one readout for every choice. The start is not counted among the evaluations."""
        start, rows = self.readouts[0], self.readouts[1:]
        rest = self.num_players - len(self.order)

        def column(name: str, blank: Any, dtype: Any) -> Any:
            if getattr(start, name) is None:
                return None
            return jnp.asarray([getattr(r, name) for r in rows] + [blank] * rest, dtype)

        def first(x: Any) -> Any:
            return None if x is None else jnp.asarray(x)

        return GreedyResult(
            order=jnp.asarray(self.order + [-1] * rest, jnp.int32),
            values=column("values", np.nan, jnp.float32),
            num_steps=jnp.int32(len(self.order)),
            start_value=jnp.float32(start.values),
            num_evaluations=jnp.int32(self.oracle.count - 1),
            leads=column("leads", False, bool),
            probabilities=column("probabilities", np.nan, jnp.float32),
            start_leads=first(start.leads),
            start_probability=first(start.probabilities),
            nan_player=jnp.int32(-1),
            insertion=self.insertion,
        )
