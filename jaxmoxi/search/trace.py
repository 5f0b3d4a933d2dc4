"""A `GreedyResult` in the making, for searches that decide on the host."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxmoxi.search.oracle import Oracle
from jaxmoxi.types import GreedyResult, Readout, Stop


class Trace:
    """The players chosen so far, and the readout of the start and after each choice; `oracle` ranks by the payoff."""

    def __init__(self, oracle: Oracle):
        self.oracle, self.num_players, self.insertion = oracle, oracle.num_players, oracle.insertion
        self.order: list[int] = []
        self.readouts: list[Readout] = []

    def look(self, group: np.ndarray, *players: int) -> float:
        """Records the group reached by choosing `players`, the last of them at least; returns its score."""
        self.order.extend(players)
        self.readouts.append(self.oracle.readout(group))
        return float(self.oracle.ask(group[None])[0][0])

    def ended(self, stop: Stop) -> bool:
        """Whether everybody is chosen, or the last readout meets the stop."""
        now, sign = self.readouts[-1], 1 if self.insertion else -1
        if len(self.order) >= min(stop.size or self.num_players, self.num_players):
            return True
        if stop.flip and bool(now.leads) == self.insertion:
            return True
        levels = ((now.values, stop.value), (now.probabilities, stop.probability))
        return any(level is not None and sign * np.float32(x) >= sign * np.float32(level) for x, level in levels)  # type: ignore[arg-type]

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
