"""The loop of `discriminate`: a phase of greedy choices between two classes, over some of the players.

It is `greedy`'s search with three things more: it records both classes along the way, some players may be out of it,
and what it compares is the difference of the classes or the target alone.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from jaxmoxi.errors import nan_error
from jaxmoxi.games.evaluation import memory_advice
from jaxmoxi.games.rivals import Both, DifferenceGame
from jaxmoxi.moxi.greedy import score_candidates, stages_of
from jaxmoxi.moxi.overlap import ahead
from jaxmoxi.moxi.stages import Stage, choose_chunk
from jaxmoxi.pytrees import is_concrete, output_shapes
from jaxmoxi.types import GreedyInfo, Readout, Stop, TwoClasses


class Phase(NamedTuple):
    """Where a phase stands. `step` is -1 before its start is read, then the number of players chosen.

    shown: bool[P], what is visible; free: bool[P], who may still be chosen. along: `Both`, rows [P+1].
    """

    shown: Array
    free: Array
    step: Array
    order: Array
    along: Both
    num_evaluations: Array
    nan_player: Array


class Kind(NamedTuple):
    """What a phase does. insertion: it shows players; rising: its stop is met from below; both: it compares t - p."""

    insertion: bool
    rising: bool
    both: bool


FIRST, DELETION, INSERTION = Kind(False, True, True), Kind(False, False, False), Kind(True, True, False)


def run_phase(
    game: DifferenceGame,
    phase: Phase,
    stop: Stop,
    kind: Kind,
    last: int,
    most: int | Array,
    *,
    batch_size: int | None,
    callback: Callable[[GreedyInfo], None] | None,
    before: int | Array = 0,
) -> Phase:
    """A phase, stage after stage, of at most `last` choices and of at most `most`, which may be traced.

    before: choices of the phase before, for the callback.
    """
    num_players, eager = phase.order.shape[0], is_concrete((game, phase, most))
    limits, most = stop.as_arrays(), jnp.int32(most)
    stages = stages_of(game, num_players, kind.insertion, last, coarse=None if eager else True)

    def prepare(stage: Stage) -> None:
        _run_stage(game, phase, limits, jnp.int32(-1), batch_size, stage, kind)

    with ahead(stages if eager else stages[:1], prepare) as reach:
        for i, stage in enumerate(stages):
            with memory_advice(game, num_players, stage.max_visible, batch_size):
                reach(i)
                goals = [min(stage.steps, last)]
                if callback is not None:
                    goals = list(range(max(int(phase.step), 0), goals[0] + 1))
                for goal in goals:
                    reached = phase.step
                    end = jnp.minimum(jnp.int32(goal), most)
                    phase, done = _run_stage(game, phase, limits, end, batch_size, stage, kind)
                    if not eager:
                        continue
                    _raise_nan(phase, kind)
                    if callback is not None and int(phase.step) > max(int(reached), 0):
                        last_player, told = phase.order[phase.step - 1], now(phase)
                        callback(GreedyInfo(before + phase.step, last_player, *told))
                    if done or int(phase.step) >= int(most):
                        return phase
    return phase


@partial(jax.jit, static_argnums=(4, 5, 6))
def _run_stage(
    game: DifferenceGame,
    phase: Phase,
    stop: Stop,
    goal: Int[Array, ""],
    batch_size: int | None,
    stage: Stage,
    kind: Kind,
) -> tuple[Phase, Bool[Array, ""]]:
    """Choices until there are `goal` or the stop is met: `(phase, met)`. One compiled loop a stage."""

    def met(p: Phase) -> Bool[Array, ""]:
        at = jnp.maximum(p.step, 0)
        broken = jnp.isnan(p.along.target.values[at]) | jnp.isnan(p.along.predicted.values[at])
        return (p.nan_player >= 0) | ((p.step >= 0) & (stop.met(now(p), p.step, kind.rising) | broken))

    phase = jax.lax.while_loop(
        lambda p: (p.step < goal) & ~met(p), lambda p: _advance(game, p, batch_size, stage, kind), phase
    )
    return phase, met(phase)


def _advance(game: DifferenceGame, phase: Phase, batch_size: int | None, stage: Stage, kind: Kind) -> Phase:
    """Reads the start, or makes one choice."""
    num_players = phase.order.shape[0]
    most = min(stage.max_candidates, num_players)
    fewest = max(1, num_players - stage.steps + 1) if kind.both else 1
    size = choose_chunk(game, num_players, range(fewest, most + 1), batch_size, stage.max_visible)
    padded = -(-most // size) * size
    starting = phase.step < 0
    count = jnp.where(starting, 1, jnp.sum(phase.free))
    candidates, told = score_candidates(
        lambda masks: game.both(masks, stage.max_visible),
        phase.shown,
        phase.free,
        count,
        starting,
        jax.tree.map(lambda x: jnp.zeros((padded, *x.shape[1:]), x.dtype), tells_both(game, num_players)),
        size=size,
    )
    valid = jnp.arange(padded) < count
    broken = valid & (jnp.isnan(told.target.values) | jnp.isnan(told.predicted.values))
    failed = jnp.any(broken)
    best = _best(told, valid, kind)
    player = jnp.where(starting | failed, -1, candidates[best]).astype(jnp.int32)
    chosen = jax.tree.map(lambda x: x[best], told._replace(finer=None))
    stays = failed & ~starting
    step = phase.step + jnp.where(stays, 0, 1)
    row = jnp.arange(num_players + 1) == jnp.where(stays, -1, step)
    picked = jnp.arange(num_players) == player
    return Phase(
        shown=phase.shown ^ picked,
        free=phase.free & ~picked,
        step=step,
        order=jnp.where(jnp.arange(num_players) == jnp.where(player < 0, -1, phase.step), player, phase.order),
        along=jax.tree.map(lambda new, old: jnp.where(row, new, old), chosen, phase.along),
        num_evaluations=phase.num_evaluations + jnp.where(starting, 0, count),
        nan_player=jnp.where(stays, candidates[jnp.argmax(broken)].astype(jnp.int32), phase.nan_player),
    )


def _best(told: Both, valid: Bool[Array, "C"], kind: Kind) -> Int[Array, ""]:
    """The index of the best candidate, the first of equals; finer parts decide between values that round alike."""
    sign = 1 if kind.both or kind.insertion else -1
    merit = jnp.where(valid, sign * (told.ahead if kind.both else told.target.values), -jnp.inf)
    highest = valid & (merit == jnp.max(merit))
    if told.finer is None:
        return jnp.argmax(highest)
    return jnp.argmax(jnp.where(highest, sign * told.finer[0 if kind.both else 1], -jnp.inf))


def start_phase(game: DifferenceGame, shown: Bool[Array, "P"], free: Bool[Array, "P"]) -> Phase:
    """A phase before anything is evaluated."""
    count = shown.shape[0]

    def blank(x: jax.ShapeDtypeStruct) -> Array:
        return jnp.zeros(count + 1, bool) if x.dtype == bool else jnp.full(count + 1, jnp.nan, x.dtype)

    phase = Phase(
        shown=shown,
        free=free,
        step=jnp.int32(-1),
        order=jnp.full(count, -1, jnp.int32),
        along=jax.tree.map(blank, tells_both(game, count)._replace(finer=None)),
        num_evaluations=jnp.int32(0),
        nan_player=jnp.int32(-1),
    )
    return game.replicate(phase) if is_concrete((game, phase)) else phase


def tells_both(game: DifferenceGame, num_players: int) -> Both:
    """What the game says of one coalition, as shapes."""
    return output_shapes(_read_one, game, num_players)


def _read_one(game: DifferenceGame, num_players: int) -> Both:
    return game.both(jnp.ones((1, num_players), bool))


def now(phase: Phase) -> Readout:
    """What is said of the target now, its lead as this search counts it."""
    both = jax.tree.map(lambda rows: rows[jnp.maximum(phase.step, 0)], phase.along)
    return both.target._replace(leads=both.leads)


def two_classes(phase: Phase) -> TwoClasses:
    along = phase.along
    return TwoClasses(
        target_values=along.target.values,
        predicted_values=along.predicted.values,
        target_probabilities=along.target.probabilities,
        predicted_probabilities=along.predicted.probabilities,
        leads=along.leads,
    )


def _raise_nan(phase: Phase, kind: Kind) -> None:
    """Raises NaNValueError if a NaN ended the phase."""
    step, player = int(phase.step), int(phase.nan_player)
    told = [float(part.values[max(step, 0)]) for part in (phase.along.target, phase.along.predicted)]
    if player < 0 and not (step == 0 and np.isnan(told).any()):
        return
    name = "phase one" if kind.both else "phase two"
    chosen = [int(p) for p in phase.order[: max(step, 0)]]
    verb = "inserted" if kind.insertion else "removed"
    where = f"at step {step + 1}, for player {player} (already {verb}: {chosen})" if player >= 0 else "of its start"
    raise nan_error(f"in {name} {where}", whose="the value function of the target or of the predicted class")
