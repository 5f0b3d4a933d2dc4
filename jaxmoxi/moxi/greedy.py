"""MoXI: the group of players that together moves the prediction most, found greedily.

Source: Sumiyasu, Kawamoto, Kera, "Identifying Important Group of Pixels using Interactions", CVPR 2024. `v` is the
payoff, N all players, S the group found so far, held together as one player.

*Insertion* uses self-context values and interactions, those of a game in which nobody else is there:

    phi(b)  = v(b) - v({})                              Shapley value, self-context
    I(S, b) = v(S + b) - v(S) - v(b) + v({})            interaction, self-context
    next    = argmax_b  phi(b) + I(S, b)
            = argmax_b  v(S + b) - v(S)  =  argmax_b v(S + b)

*Deletion* uses full-context ones, those of a game in which everybody else is there:

    phi(b)  = v(N) - v(N - b)                           Shapley value, full-context
    I(S, b) = v(N) - v(N - S) - v(N - b) + v(N - S - b) interaction, full-context
    next    = argmax_b  phi(b) - I(S, b)
            = argmax_b  v(N - S) - v(N - S - b)  =  argmin_b v(N - S - b)

(what S and b lose together, phi(S + b) - phi(S); with redundant players, I < 0, they lose more together than alone).
So one search does both: at every step evaluate each remaining player's coalition and take the best; step k costs
P - k values, a full order P(P+1)/2. MoXI(-), the ranking without interactions, is `single_player_order`.

Shape of the code: `greedy_init` and `greedy_step` are the pure pieces; a *stage* (`stages`) is a compiled loop over
steps, with room for so many visible players; `greedy_insertion` and `greedy_deletion` run stage after stage and stop
early.

Deviations from the authors' code: none in what is chosen. The payoff is computed from logits without forming the
probability, all candidates that are left are scored (not the chosen ones too), and a NaN is an error, where there
it would win or lose the argmax silently. Probabilities near 1 are compared before they are rounded to float32, where
a game can tell its remainders (`Game.remainders`), so that no player is chosen for its index among equal roundings.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from jaxmoxi.errors import InputError, nan_error
from jaxmoxi.games.base import Game, ValueFn, as_game
from jaxmoxi.games.differences import as_probabilities, greedy_best
from jaxmoxi.games.evaluation import check_batch_size, memory_advice, read, tells
from jaxmoxi.games.probe import check_players
from jaxmoxi.guards import deliberate, without_gradient
from jaxmoxi.moxi.contexts import full_context_shapley, self_context_shapley
from jaxmoxi.moxi.curves import warn_of_ties
from jaxmoxi.moxi.overlap import ahead
from jaxmoxi.moxi.stages import Stage, choose_chunk, plan_stages
from jaxmoxi.pytrees import is_concrete, record, static
from jaxmoxi.types import GreedyInfo, GreedyResult, Readout, Stop

Rows = TypeVar("Rows")


@record
class GreedyState:
    """Where a greedy search stands. `step` is -1 before the start is scored, then the number of players chosen.

    The arrays are those of `GreedyResult`, filled up to `step`; `coalition` bool[P] is what is visible now.
    """

    coalition: Bool[Array, "*batch P"]
    step: Int[Array, "*batch"]
    order: Int[Array, "*batch P"]
    readouts: Readout
    start: Readout
    num_evaluations: Int[Array, "*batch"]
    nan_player: Int[Array, "*batch"]
    insertion: bool = static(default=True)


@deliberate
def greedy_init(v: ValueFn, num_players: int, *, insertion: bool = True) -> GreedyState:
    """The state before anything is evaluated: nobody visible (insertion) or everybody (deletion)."""
    game = as_game(v)
    check_players(game, num_players)
    told = tells(game, num_players)

    def blank(shape: Any) -> Readout:
        return Readout(
            values=jnp.full(shape, jnp.nan, jnp.float32),
            leads=None if told.leads is None else jnp.zeros(shape, bool),
            probabilities=None if told.probabilities is None else jnp.full(shape, jnp.nan, jnp.float32),
        )

    state = GreedyState(
        coalition=jnp.full(num_players, not insertion),
        step=jnp.int32(-1),
        order=jnp.full(num_players, -1, jnp.int32),
        readouts=blank((num_players,)),
        start=blank(()),
        num_evaluations=jnp.int32(0),
        nan_player=jnp.int32(-1),
        insertion=insertion,
    )
    return game.replicate(state) if is_concrete((game, state)) else state


@deliberate
def greedy_step(
    v: ValueFn,
    state: GreedyState,
    *,
    batch_size: int | None = None,
    max_visible: int | None = None,
    max_candidates: int | None = None,
    min_candidates: int = 1,
) -> tuple[GreedyState, GreedyInfo]:
    """One greedy choice: `(state, info)`. Pure and traceable.

    From the state of `greedy_init` it scores the start and chooses nobody (`info.step` 0, `info.player` -1): the
    start is one more coalition through the same compiled chunk. Then each step adds (removes) the player whose
    coalition has the highest (lowest) value; equal values go to the lowest index. If any candidate's value is NaN
    nobody is chosen, and `state.nan_player` names it. Do not step when all P players are chosen.

    batch_size, max_visible: as for `evaluate`.
    max_candidates, min_candidates: a static promise that so many players are left to choose from (or all, or none);
                             None means P. The chunk is chosen for these numbers.
    """
    sizes = (batch_size, max_visible, max_candidates, min_candidates)
    game = as_game(v)
    # One call traces the model; a search's own loop is traced whole, and needs no program of its own for a step.
    return (_compiled_step if is_concrete((game, state)) else step)(game, state, *sizes)


def step(
    game: Game,
    state: GreedyState,
    batch_size: int | None,
    max_visible: int | None,
    max_candidates: int | None,
    min_candidates: int,
) -> tuple[GreedyState, GreedyInfo]:
    """`greedy_step` of a game, to be traced."""
    num_players = state.order.shape[0]
    most = min(max_candidates or num_players, num_players)
    size = choose_chunk(game, num_players, range(min_candidates, most + 1), batch_size, max_visible)
    starting = state.step < 0
    count = jnp.where(starting, 1, num_players - state.step)
    padded = -(-most // size) * size
    # Of probabilities the remainders are compared, which tell apart what float32 rounds to one number near 1.
    finer = game.remainders()
    scored = game if finer is None else finer

    blank = jax.tree.map(lambda x: jnp.zeros((padded, *x.shape[1:]), x.dtype), state.readouts)
    free = state.coalition != state.insertion
    candidates, scores = score_candidates(
        lambda masks: read(scored, masks, max_visible), state.coalition, free, count, starting, blank, size=size
    )

    valid = jnp.arange(padded) < count
    broken = valid & jnp.isnan(scores.values)
    # Candidates ascend: the first of equals is the lowest.
    best = greedy_best(scores.values, valid, state.insertion, finer is not None, jnp)
    if finer is not None:
        scores = as_probabilities(scores)
    failed = jnp.any(broken)
    player = jnp.where(starting | failed, -1, candidates[best]).astype(jnp.int32)
    chosen = jax.tree.map(lambda x: x[best], scores)
    chosen = chosen._replace(values=jnp.where(failed, jnp.nan, chosen.values))

    place = jnp.arange(num_players) == jnp.where(player < 0, -1, state.step)
    count_now = state.step + jnp.where(failed & ~starting, 0, 1)
    new_state = GreedyState(
        coalition=jnp.where(jnp.arange(num_players) == player, state.insertion, state.coalition),
        step=count_now,
        order=jnp.where(place, player, state.order),
        readouts=jax.tree.map(lambda new, old: jnp.where(place, new, old), chosen, state.readouts),
        start=jax.tree.map(lambda new, old: jnp.where(starting, new, old), chosen, state.start),
        num_evaluations=state.num_evaluations + jnp.where(starting, 0, count),
        nan_player=jnp.where(failed & ~starting, candidates[jnp.argmax(broken)].astype(jnp.int32), state.nan_player),
        insertion=state.insertion,
    )
    return new_state, GreedyInfo(count_now, player, chosen.values, chosen.leads, chosen.probabilities)


def score_candidates(
    ask: Callable[[Bool[Array, "C P"]], Rows],
    coalition: Bool[Array, "P"],
    free: Bool[Array, "P"],
    count: Int[Array, ""],
    starting: Bool[Array, ""],
    blank: Rows,
    *,
    size: int,
) -> tuple[Int[Array, "C"], Rows]:
    """(the candidates int[C] in ascending order, what `ask` says of the coalition with each of them toggled in it).

    free:     the candidates.
    count:    how many they are; the rows from there on mean nothing.
    starting: nobody is toggled: the coalition itself is the only row.
    blank:    zeros [C, ...] of the shapes and dtypes of the answers; C is a multiple of `size`, the rows of a chunk.
    """
    everybody = jnp.arange(coalition.shape[0])
    candidates = jnp.nonzero(free, size=len(jax.tree.leaves(blank)[0]), fill_value=0)[0]

    def score_chunk(i: Any, scores: Rows) -> Rows:
        players = jax.lax.dynamic_slice_in_dim(candidates, i * size, size)
        toggled = players[:, None] == everybody
        masks = coalition ^ (toggled & free & ~starting)
        return jax.tree.map(
            lambda all_rows, rows: jax.lax.dynamic_update_slice_in_dim(
                all_rows, rows.astype(all_rows.dtype), i * size, 0
            ),
            scores,
            ask(masks),
        )

    return candidates, jax.lax.fori_loop(0, -(-count // size), score_chunk, blank)


_compiled_step = jax.jit(step, static_argnums=(2, 3, 4, 5))


@deliberate
def greedy_insertion(
    v: ValueFn,
    num_players: int,
    *,
    stop: Stop | None = None,
    batch_size: int | None = None,
    callback: Callable[[GreedyInfo], None] | None = None,
) -> GreedyResult:
    """MoXI insertion: from nothing, the players that together raise the payoff fastest (see the module's head).

    v:           a value function, masks bool[C, P] -> float32[C]; with `sized = True` it is called with
                 `max_visible`, small at first.
    num_players: P, at least 1.
    stop:        when to end early (`Stop`); None inserts all. What comes after the end is not computed, and stages
                 it does not reach are not compiled. Other levels of the same `Stop` compile nothing.
    batch_size:  coalitions per chunk; None chooses.
    callback:    called on the host after each choice; the search then returns to Python at every step. Raises
                 ValueError inside `jit`, where there is no host to call.

    Returns a `GreedyResult`; a full order costs exactly P(P+1)/2 values. Under `jit` and `vmap` it is traced along.
    Raises NaNValueError (outside `jit`) that names the step and the player and carries the result so far;
    OutOfMemoryError with the batch size to try; ValueError for arguments that do not fit, for a model in training mode,
    and where `jax.grad` asks for the gradient of a result.
    """
    return _search(v, num_players, True, stop, batch_size, callback)


@deliberate
def greedy_deletion(
    v: ValueFn,
    num_players: int,
    *,
    stop: Stop | None = None,
    batch_size: int | None = None,
    callback: Callable[[GreedyInfo], None] | None = None,
) -> GreedyResult:
    """MoXI deletion: from the whole image, the players without which the payoff falls fastest.

    Arguments, returns and errors are those of `greedy_insertion`.
    """
    return _search(v, num_players, False, stop, batch_size, callback)


@deliberate
def single_player_order(
    v: ValueFn, num_players: int, *, insertion: bool = True, batch_size: int | None = None
) -> Int[Array, "P"]:
    """MoXI(-): players ranked by their own values alone, without interactions; int32[P], most important first.

    Insertion ranks by the self-context Shapley value, deletion by the full-context one (the paper's ablation). P + 1
    values. Equal values keep the lowest index first; outside `jit` a warning tells that there are some. NaN values
    raise as in `self_context_shapley`.
    """
    shapley = self_context_shapley if insertion else full_context_shapley
    values = shapley(v, num_players, batch_size=batch_size)
    if is_concrete(values):
        warn_of_ties(np.asarray(values), "a payoff that does not saturate, such as log_odds, tells players apart")
    return jnp.argsort(-values, stable=True).astype(jnp.int32)


def _search(
    v: ValueFn,
    num_players: int,
    insertion: bool,
    stop: Stop | None,
    batch_size: int | None,
    callback: Callable[[GreedyInfo], None] | None,
) -> GreedyResult:
    game, stop = as_game(v), stop or Stop()
    state = greedy_init(game, num_players, insertion=insertion)
    stop.check(state.start)
    check_batch_size(batch_size)
    if callback is not None and not is_concrete((game, state)):
        raise InputError("callback needs a search outside jit and vmap: there is no host to call inside")
    limits, last = stop.as_arrays(), last_size(stop, num_players)
    eager = is_concrete((game, state))
    stages = stages_of(game, num_players, insertion, last, coarse=None if eager else True)
    prepare = partial(compile_stage, game, state, limits, batch_size)
    with ahead(stages if eager else stages[:1], prepare) as reach:
        for i, stage in enumerate(stages):
            with memory_advice(game, num_players, stage.max_visible, batch_size):
                reach(i)
                end = min(stage.steps, last)
                goals = [jnp.int32(end)]
                if callback is not None:
                    goals = [jnp.int32(k) for k in range(max(int(state.step), 0), end + 1)]
                for goal in goals:
                    before = state.step
                    state, done = run_stage(game, state, limits, goal, batch_size, stage)
                    if not is_concrete(state):
                        continue
                    raise_nan(state)
                    if callback is not None and int(state.step) > max(int(before), 0):
                        callback(_last_info(state))
                    if done:
                        return finish(state)
    return finish(state)


def stages_of(game: Game, num_players: int, insertion: bool, last: int, *, coarse: bool | None = None) -> list[Stage]:
    """The stages that a search may reach which chooses at most `last` players."""
    stages = plan_stages(num_players, insertion=insertion, sized=game.sized, coarse=coarse)
    return stages[: 1 + next(i for i, stage in enumerate(stages) if stage.steps >= last)]


def compile_stage(game: Game, state: GreedyState, limits: Stop, batch_size: int | None, stage: Stage) -> None:
    """Compiles a stage, and runs none of its steps."""
    run_stage(game, state, limits, jnp.int32(-1), batch_size, stage)


def last_size(stop: Stop, num_players: int) -> int:
    """The most players that a search with this stop chooses."""
    return num_players if stop.size is None else min(int(stop.size), num_players)


@partial(jax.jit, static_argnums=(4, 5))
def run_stage(
    game: Game, state: GreedyState, stop: Stop, goal: Int[Array, ""], batch_size: int | None, stage: Stage
) -> tuple[GreedyState, Bool[Array, ""]]:
    """Steps until `goal` players are chosen or the stop is met: `(state, met)`. One compiled loop a stage."""
    fewest = max(1, state.order.shape[0] - stage.steps + 1)

    def met(s: GreedyState) -> Bool[Array, ""]:
        now = jax.tree.map(
            lambda start, rows: jnp.where(s.step > 0, rows[jnp.maximum(s.step - 1, 0)], start), s.start, s.readouts
        )
        ended = stop.met(now, s.step, s.insertion) | jnp.isnan(now.values)
        return (s.nan_player >= 0) | ((s.step >= 0) & ended)

    def unfinished(s: GreedyState) -> Bool[Array, ""]:
        return (s.step < goal) & ~met(s)

    def advance(s: GreedyState) -> GreedyState:
        return step(game, s, batch_size, stage.max_visible, stage.max_candidates, fewest)[0]

    state = jax.lax.while_loop(unfinished, advance, state)
    return state, met(state)


def raise_nan(state: GreedyState, *, whose: str = "the value function") -> None:
    """Raises NaNValueError if a NaN ended the search of this state."""
    step, player = int(state.step), int(state.nan_player)
    if player < 0 and not (step == 0 and np.isnan(state.start.values)):
        return
    chosen = [int(p) for p in state.order[:step]]
    verb = "inserted" if state.insertion else "deleted"
    where = (
        f"at step {step + 1}, for player {player} (already {verb}: {chosen})"
        if player >= 0
        else f"of the start, with {'no' if state.insertion else 'every'} player visible"
    )
    raise nan_error(where, result=finish(state), whose=whose)


def _last_info(state: GreedyState) -> GreedyInfo:
    index = state.step - 1
    now = jax.tree.map(lambda rows: rows[index], state.readouts)
    return GreedyInfo(state.step, state.order[index], now.values, now.leads, now.probabilities)


def finish(state: GreedyState) -> GreedyResult:
    """The result that a state stands for."""
    state = without_gradient(state)
    return GreedyResult(
        order=state.order,
        values=state.readouts.values,
        num_steps=jnp.maximum(state.step, 0),
        start_value=state.start.values,
        num_evaluations=state.num_evaluations,
        leads=state.readouts.leads,
        probabilities=state.readouts.probabilities,
        start_leads=state.start.leads,
        start_probability=state.start.probabilities,
        nan_player=state.nan_player,
        insertion=state.insertion,
    )
