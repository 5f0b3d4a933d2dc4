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

Shape of the code: `greedy_init` and `greedy_step` are the pure pieces; a *stage* is a compiled loop over steps, with
room for so many visible players; `greedy_insertion` and `greedy_deletion` run stage after stage and stop early.

Deviations from the authors' code: none in what is chosen. The payoff is computed from logits without forming the
probability, all candidates that are left are scored (not the chosen ones too), and a NaN is an error, where there
it would win or lose the argmax silently.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from jaxmoxi.errors import InputError, NaNValueError
from jaxmoxi.games.evaluation import (
    check_batch_size,
    check_num_players,
    choose_batch_size,
    is_sized,
    memory_advice,
    read,
    tells,
)
from jaxmoxi.moxi.contexts import full_context_shapley, self_context_shapley
from jaxmoxi.pytrees import Packed, is_concrete, pack, record, static
from jaxmoxi.types import GreedyInfo, GreedyResult, Readout, Stop


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


class Limits(NamedTuple):
    """`Stop` as arrays, so that another level is not another compilation. NaN: no limit, no comparison holds."""

    size: Any
    value: Any
    flip: Any
    probability: Any


def greedy_init(v: Callable[..., Any], num_players: int, *, insertion: bool = True) -> GreedyState:
    """The state before anything is evaluated: nobody visible (insertion) or everybody (deletion)."""
    v = pack(v)
    check_num_players(v, num_players)
    told = tells(v, num_players)

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
    fn = v.unpack()
    return fn.replicate(state) if hasattr(fn, "replicate") and is_concrete((v, state)) else state


def greedy_step(
    v: Callable[..., Any],
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
    v = pack(v)
    num_players = state.order.shape[0]
    most = min(max_candidates or num_players, num_players)
    size = _chunk_size(v, num_players, range(min_candidates, most + 1), batch_size, max_visible)
    starting = state.step < 0
    count = jnp.where(starting, 1, num_players - state.step)
    padded = -(-most // size) * size
    candidates = jnp.nonzero(state.coalition != state.insertion, size=padded, fill_value=0)[0]

    def score_chunk(i: Any, scores: Readout) -> Readout:
        players = jax.lax.dynamic_slice_in_dim(candidates, i * size, size)
        toggled = players[:, None] == jnp.arange(num_players)
        masks = state.coalition ^ (toggled & (state.coalition != state.insertion) & ~starting)
        return jax.tree.map(
            lambda all_rows, rows: jax.lax.dynamic_update_slice_in_dim(
                all_rows, rows.astype(all_rows.dtype), i * size, 0
            ),
            scores,
            read(v, masks, max_visible),
        )

    blank = jax.tree.map(lambda x: jnp.zeros((padded, *x.shape[1:]), x.dtype), state.readouts)
    scores = jax.lax.fori_loop(0, -(-count // size), score_chunk, blank)

    valid = jnp.arange(padded) < count
    broken = valid & jnp.isnan(scores.values)
    merit = scores.values if state.insertion else -scores.values
    best = jnp.argmax(jnp.where(valid, merit, -jnp.inf))  # candidates ascend: the first of equals is the lowest
    failed = jnp.any(broken)
    player = jnp.where(starting | failed, -1, candidates[best]).astype(jnp.int32)
    chosen = jax.tree.map(lambda x: x[best], scores)
    chosen = chosen._replace(values=jnp.where(failed, jnp.nan, chosen.values))

    place = jnp.arange(num_players) == jnp.where(player < 0, -1, state.step)
    step = state.step + jnp.where(failed & ~starting, 0, 1)
    new_state = GreedyState(
        coalition=jnp.where(jnp.arange(num_players) == player, state.insertion, state.coalition),
        step=step,
        order=jnp.where(place, player, state.order),
        readouts=jax.tree.map(lambda new, old: jnp.where(place, new, old), chosen, state.readouts),
        start=jax.tree.map(lambda new, old: jnp.where(starting, new, old), chosen, state.start),
        num_evaluations=state.num_evaluations + jnp.where(starting, 0, count),
        nan_player=jnp.where(failed & ~starting, candidates[jnp.argmax(broken)].astype(jnp.int32), state.nan_player),
        insertion=state.insertion,
    )
    return new_state, GreedyInfo(step, player, chosen.values, chosen.leads, chosen.probabilities)


# What a chunk costs besides its coalitions, in tokens: a DeiT-Tiny on two CPU cores spends 3 to 5 ms on it, in which a
# core could run 30 to 60 tokens more; an accelerator is 40 times as fast and takes about as long to start its kernels.
_CHUNK_TOKENS = {"cpu": 45, "default": 3000}


def _chunk_size(v: Packed, num_players: int, counts: range, batch_size: int | None, max_visible: int | None) -> int:
    """Rows a chunk, for steps that have `counts` candidates each: what was asked for, or the cheapest that fits.

    The last chunk of a step is padded, which a small chunk keeps short; but every chunk has a price of its own.
    """
    most = counts[-1]
    if batch_size is not None:
        return min(batch_size, most)
    fits = choose_batch_size(v, num_players, max_visible=max_visible)
    if max_visible is None:
        # The candidates fall from P to 1 under one compiled chunk, of unknown cost: a quarter of P wastes an eighth of
        # P rows a step on average, where the whole of P would waste half.
        return min(fits, most, max(32, -(-most // 4)))
    price = _CHUNK_TOKENS.get(jax.default_backend(), _CHUNK_TOKENS["default"])
    shards = getattr(v.unpack(), "num_shards", 1)  # devices that share a chunk equally
    steps = np.arange(counts[0], most + 1)
    sizes = np.arange(shards, min(fits, -(-most // shards) * shards) + 1, shards)
    cost = [np.sum(-(-steps // size)) * (size // shards * (max_visible + 1) + price) for size in sizes]
    return int(sizes[np.argmin(cost)])


def greedy_insertion(
    v: Callable[..., Any],
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
    OutOfMemoryError with the batch size to try; ValueError for arguments that do not fit.
    """
    return _search(v, num_players, True, stop, batch_size, callback)


def greedy_deletion(
    v: Callable[..., Any],
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


def single_player_order(
    v: Callable[..., Any], num_players: int, *, insertion: bool = True, batch_size: int | None = None
) -> Int[Array, "P"]:
    """MoXI(-): players ranked by their own values alone, without interactions; int32[P], most important first.

    Insertion ranks by the self-context Shapley value, deletion by the full-context one (the paper's ablation). P + 1
    values. Equal values keep the lowest index first. NaN values raise as in `self_context_shapley`.
    """
    shapley = self_context_shapley if insertion else full_context_shapley
    return jnp.argsort(-shapley(v, num_players, batch_size=batch_size), stable=True).astype(jnp.int32)


class Stage(NamedTuple):
    """A compiled loop: run until `steps` players are chosen, with room for so many visible players and candidates."""

    steps: int
    max_visible: int | None
    max_candidates: int


# What a stage costs besides its steps, for `plan_stages`: this share of all the work, and this many token evaluations.
# A stage of DeiT-Tiny compiles in 1.7 s, where a full order takes 100 s on two CPU cores: with this share compiling
# takes about as long as the padding that it saves, and nothing in a process that explains a second image or finds its
# programs in the cache. A larger model's work grows, its compile time hardly.
#
# Coarse plans are for programs that hold all their stages, and so wait for all of them to compile, and for
# accelerators, which compile as slowly and compute 40 times as fast.
_STAGE_SHARE, _COARSE_SHARE, _STAGE_TOKENS = 0.005, 0.04, 2000


def plan_stages(num_players: int, *, insertion: bool, sized: bool = True, coarse: bool | None = None) -> list[Stage]:
    """Where a search changes its compiled size. A value function that is not `sized` has one stage.

    coarse: fewer stages; None decides by the backend.

    A step evaluates its c candidates at the size m of its stage, whatever they really show: c (m + 1) tokens. Small
    stages waste little of that; but each is one more compilation. The sizes, multiples of 8, are those of the least
    total of both, found by dynamic programming, from 16 on. 196 players take 15 stages (insertion; 37 % of the work at
    full length, where 34 % would be without any padding) or ten (deletion; 70 %, and 67 %).
    """
    if not sized:
        return [Stage(num_players, None, num_players)]
    # candidates[n]: how many there are in the one step that shows n players.
    shown = np.arange(1, num_players + 1) if insertion else np.arange(num_players)
    candidates = np.zeros(num_players + 1, int)
    candidates[shown] = num_players - np.arange(num_players) if insertion else np.arange(num_players) + 1
    if coarse is None:
        coarse = jax.default_backend() != "cpu"
    overhead = (_COARSE_SHARE if coarse else _STAGE_SHARE) * np.sum(
        candidates * (np.arange(num_players + 1) + 1)
    ) + _STAGE_TOKENS
    sizes = [-1, *range(16, num_players, 8), num_players]
    below = np.concatenate([[0], np.cumsum(candidates)])  # candidates of all steps that show fewer than n
    best: list[tuple[float, list[int]]] = [(0.0, [])]
    for j, size in enumerate(sizes[1:], 1):
        work = [(below[size + 1] - below[sizes[i] + 1]) * (size + 1) for i in range(j)]
        best.append(min((best[i][0] + work[i] + overhead, [*best[i][1], size]) for i in range(j)))
    chosen = best[-1][1]
    if insertion:
        ends = chosen
    else:
        # After k deletions the candidates show P - k - 1 players: a stage ends when the next smaller one can hold them.
        ends = [*reversed([num_players - size - 1 for size in chosen[:-1]]), num_players]
        chosen = chosen[::-1]
    starts = [0, *ends[:-1]]
    return [Stage(e, m, num_players - s) for s, e, m in zip(starts, ends, chosen, strict=True)]


def _search(
    v: Callable[..., Any],
    num_players: int,
    insertion: bool,
    stop: Stop | None,
    batch_size: int | None,
    callback: Callable[[GreedyInfo], None] | None,
) -> GreedyResult:
    v = pack(v)
    state = greedy_init(v, num_players, insertion=insertion)
    limits = check_stop(stop or Stop(), state)
    check_batch_size(batch_size)
    if callback is not None and not is_concrete((v, state)):
        raise InputError("callback needs a search outside jit and vmap: there is no host to call inside")
    last = num_players if stop is None or stop.size is None else min(stop.size, num_players)
    coarse = None if is_concrete((v, state)) else True
    for stage in plan_stages(num_players, insertion=insertion, sized=is_sized(v), coarse=coarse):
        with memory_advice(v, num_players, stage.max_visible, batch_size):
            end = min(stage.steps, last)
            goals = [jnp.int32(end)]
            if callback is not None:
                goals = [jnp.int32(k) for k in range(max(int(state.step), 0), end + 1)]
            for goal in goals:
                before = state.step
                state, done = run_stage(v, state, limits, goal, batch_size, stage)
                if not is_concrete(state):
                    continue
                raise_nan(state)
                if callback is not None and int(state.step) > max(int(before), 0):
                    callback(_last_info(state))
                if done:
                    return finish(state)
        if stage.steps >= last:
            break
    return finish(state)


@partial(jax.jit, static_argnums=(4, 5))
def run_stage(
    v: Packed, state: GreedyState, limits: Limits, goal: Any, batch_size: int | None, stage: Stage
) -> tuple[GreedyState, Any]:
    """Steps until `goal` players are chosen or a limit is met: `(state, met)`. One compiled loop a stage."""

    def met(s: GreedyState) -> Any:
        now = jax.tree.map(
            lambda start, rows: jnp.where(s.step > 0, rows[jnp.maximum(s.step - 1, 0)], start), s.start, s.readouts
        )
        sign = 1.0 if s.insertion else -1.0
        stopped = (s.step >= limits.size) | (sign * now.values >= sign * limits.value)
        if now.probabilities is not None:
            stopped |= sign * now.probabilities >= sign * limits.probability
        if now.leads is not None:
            stopped |= limits.flip & (now.leads == s.insertion)
        return (s.nan_player >= 0) | ((s.step >= 0) & (stopped | jnp.isnan(now.values)))

    def unfinished(s: GreedyState) -> Any:
        return (s.step < goal) & ~met(s)

    def advance(s: GreedyState) -> GreedyState:
        return greedy_step(
            v,
            s,
            batch_size=batch_size,
            max_visible=stage.max_visible,
            max_candidates=stage.max_candidates,
            min_candidates=max(1, s.order.shape[0] - stage.steps + 1),
        )[0]

    state = jax.lax.while_loop(unfinished, advance, state)
    return state, met(state)


def check_stop(stop: Stop, state: GreedyState) -> Limits:
    """The limits as arrays. Raises ValueError for levels that cannot be, or that this value function cannot answer."""
    if stop.size is not None and stop.size < 1:
        raise InputError(f"stop.size is the number of players to choose, at least 1; got {stop.size}")
    if stop.probability is not None and not 0 < stop.probability < 1:
        raise InputError(f"stop.probability must lie between 0 and 1; got {stop.probability}")
    if stop.value is not None and np.isnan(stop.value):
        raise InputError("stop.value is NaN; give the payoff at which to stop")
    if stop.flip and state.start.leads is None:
        raise InputError(
            "stop.flip needs to know whether the explained class leads; give the value function a method "
            "`leads(masks) -> bool[C]`, or use jaxmoxi.pixel_value_fn or token_value_fn"
        )
    if stop.probability is not None and state.start.probabilities is None:
        raise InputError(
            "stop.probability needs the explained class's probability; give the value function a method `readout` "
            "that returns it, use jaxmoxi.pixel_value_fn or token_value_fn, or stop by stop.value"
        )
    none = float("nan")
    return Limits(
        size=jnp.int32(2**31 - 1 if stop.size is None else stop.size),
        value=jnp.float32(none if stop.value is None else stop.value),
        flip=jnp.asarray(stop.flip),
        probability=jnp.float32(none if stop.probability is None else stop.probability),
    )


def raise_nan(state: GreedyState) -> None:
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
    raise NaNValueError(
        f"the value function returned NaN {where}; check the model's logits for this coalition, and the fill",
        finish(state),
    )


def _last_info(state: GreedyState) -> GreedyInfo:
    index = state.step - 1
    now = jax.tree.map(lambda rows: rows[index], state.readouts)
    return GreedyInfo(state.step, state.order[index], now.values, now.leads, now.probabilities)


def finish(state: GreedyState) -> GreedyResult:
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
