"""The record of an order in the making, in fixed arrays: what `search.shared.Trace` is on the host."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from jaxmoxi.search.device.engine import Ended
from jaxmoxi.search.device.reading import Answer
from jaxmoxi.types import GreedyResult, Readout, Stop


class Record(NamedTuple):
    """What was seen of each group along an order.

    readouts: [P], of the groups of 1 .. P players. start: of nobody.
    """

    readouts: Readout
    start: Readout


def new_record(num_players: int, told: Readout) -> Record:
    """Nothing seen yet. told: what the game can tell, as shapes; None where it cannot."""

    def blank(shape: tuple[int, ...]) -> Readout:
        return Readout(
            values=jnp.full(shape, jnp.nan, jnp.float32),
            leads=None if told.leads is None else jnp.zeros(shape, bool),
            probabilities=None if told.probabilities is None else jnp.full(shape, jnp.nan, jnp.float32),
        )

    return Record(blank((num_players,)), blank(()))


def seen(answer: Answer, row: Any) -> Readout:
    """What was told of one group, in the game's own payoff."""
    return jax.tree.map(lambda x: x[row], Readout(answer.own, answer.leads, answer.probabilities))


def noted(record: Record, size: Int[Array, ""], now: Readout) -> Record:
    """The record with the readout of a group of so many players; of 0, the start."""
    here = jnp.arange(record.readouts.values.shape[0]) == size - 1
    return Record(
        readouts=jax.tree.map(lambda rows, x: jnp.where(here, x, rows), record.readouts, now),
        start=jax.tree.map(lambda old, x: jnp.where(size == 0, x, old), record.start, now),
    )


def is_over(stop: Stop, record: Record, size: Int[Array, ""], insertion: bool) -> Bool[Array, ""]:
    """Whether everybody is chosen, or the readout of the last choice meets the stop."""
    now = jax.tree.map(lambda s, rows: jnp.where(size > 0, rows[size - 1], s), record.start, record.readouts)
    return (size >= record.readouts.values.shape[0]) | stop.met(now, size, insertion)


def greedy_result(ended: Ended, insertion: bool) -> GreedyResult:
    """The record of an order; the start is not counted among the evaluations. A NaN ended it where it stands."""
    order, size, record = ended.outcome
    return GreedyResult(
        order=order,
        values=record.readouts.values,
        num_steps=size,
        start_value=record.start.values,
        num_evaluations=ended.evaluations - 1,
        leads=record.readouts.leads,
        probabilities=record.readouts.probabilities,
        start_leads=record.start.leads,
        start_probability=record.start.probabilities,
        nan_player=jnp.where(ended.broken, _culprit(ended, order), -1).astype(jnp.int32),
        insertion=insertion,
    )


def _culprit(ended: Ended, order: Int[Array, "P"]) -> Int[Array, ""]:
    """A player of the group whose value was NaN that is not among those chosen; the first player where all are."""
    players = jnp.arange(order.shape[0])
    chosen = jnp.any(order[:, None] == players, axis=0)
    return jnp.argmax(ended.culprit & ~chosen)
