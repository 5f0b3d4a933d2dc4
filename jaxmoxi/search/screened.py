"""Greedy search that tries only the candidates that look best.

A step of MoXI scores every player that is left. Here a cheap guess ranks them (`scorers`), the best m are evaluated
exactly, and the best of those is chosen. Some steps, the audits, evaluate everybody, as MoXI does. An audit tells
whether the shortlist missed the exact winner and by how much, and m follows: up when the winner was missed, down when
the winner stood far inside. An audit also measures what every player is worth now. Stale gains go out of date, faster
with few players; a search on them alone needs frequent audits.
"""

from __future__ import annotations

from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxmoxi.errors import InputError
from jaxmoxi.games.base import ValueFn, as_game
from jaxmoxi.games.evaluation import check_batch_size, tells
from jaxmoxi.games.probe import check_players
from jaxmoxi.guards import deliberate
from jaxmoxi.pytrees import record
from jaxmoxi.search.asking import Reader
from jaxmoxi.search.device.doors import either_form, run_machine
from jaxmoxi.search.device.shortlist import ScreenMachine
from jaxmoxi.search.device.trace import greedy_result
from jaxmoxi.search.oracle import Oracle
from jaxmoxi.search.scorers import check_gates, gate_gradient
from jaxmoxi.search.shared import Trace, neighbours
from jaxmoxi.types import AnyArray, GreedyResult, Stop

Scorer = Literal["mixed", "stale", "gradient"] | Float[AnyArray, "P"]


@record
class ScreenedResult:
    """The outcome of `screened_greedy`.

    greedy:         as of the exact search; its `num_evaluations` are forward passes, start not counted.
    num_gradients:  int32[], forward-and-backward passes of the scorer, not among those evaluations.
    num_candidates: int32[P], how many were evaluated at each step; 0 from `num_steps` on.
    num_audits:     int32[], steps at which all candidates were evaluated, the first (which has no guess) not counted.
    num_missed:     int32[], audits at which the exact winner was not on the shortlist. (At an audit it is chosen all
                    the same.)
    regret:         float32[], the payoff that the shortlists of all audits would have lost, on average.
    """

    greedy: GreedyResult
    num_gradients: Int[Array, "*batch"]
    num_candidates: Int[Array, "*batch P"]
    num_audits: Int[Array, "*batch"]
    num_missed: Int[Array, "*batch"]
    regret: Float[Array, "*batch"]


@deliberate
def screened_greedy(
    v: ValueFn,
    num_players: int,
    *,
    insertion: bool = True,
    scorer: Scorer | None = None,
    num_candidates: int | None = None,
    audit: float | None = None,
    stop: Stop | None = None,
    batch_size: int | None = None,
) -> ScreenedResult:
    """MoXI insertion or deletion with a shortlist at every step.

    v, num_players, stop, batch_size: as for `greedy_insertion`.
    scorer:         "stale" (gains measured at earlier steps; any value function), "gradient" (`gate_gradient`; value
                    functions of images), "mixed" (in turn the best by either, which errs least), or fixed scores
                    float[P], higher is tried first (such as `class_attention`). None: mixed where the value function
                    has gates, else stale.
    num_candidates: m, at least 1; None adapts it between P/32 and P/12.
    audit:          the share of the steps, in [0, 1], at which everybody is evaluated; 1 is the exact search. None: as
                    soon as twice as many players are chosen as last time; "stale", which lives on audits, at every
                    third step at first and then whenever a quarter more are chosen.

    Under `jit` and `vmap` it is traced along. Raises ValueError for arguments that do not fit; NaNValueError that names
    the group (inside `jit`, the result ends before it).
    """
    game, stop = as_game(v), stop or Stop()
    check_batch_size(batch_size)
    check_players(game, num_players)
    stop.check(tells(game, num_players))
    if scorer is None:
        scorer = "mixed" if game.gated else "stale"
    fixed = _check(scorer, num_candidates, audit, num_players)
    if fixed is None and scorer != "stale":
        check_gates(game)
    kind = str(scorer) if fixed is None else "fixed"

    def on_host() -> ScreenedResult:
        oracle = Oracle(game, num_players, goal=None, insertion=insertion, batch_size=batch_size)
        scores = None if fixed is None else np.asarray(fixed)
        return _screened(oracle, kind, scores, num_candidates, audit, stop)

    def in_loop() -> ScreenedResult:
        told = tells(game, num_players)
        tellings = told.leads is not None, told.probabilities is not None
        machine = ScreenMachine(int(num_players), insertion, *tellings, kind, num_candidates, audit)
        given = stop.as_arrays(), jnp.zeros(num_players) if fixed is None else jnp.asarray(fixed)
        ended = run_machine(machine, Reader(), game, None, 0, batch_size, given)
        trace, (gradients, tried, audits, missed, regret) = ended.outcome
        greedy = greedy_result(ended._replace(outcome=trace), insertion)
        return ScreenedResult(greedy, gradients, tried, audits, missed, regret)

    return either_form((game, fixed), on_host, in_loop)


def _screened(
    oracle: Oracle,
    scorer: str,
    fixed: np.ndarray | None,
    num_candidates: int | None,
    audit: float | None,
    stop: Stop,
) -> ScreenedResult:
    game, num_players, insertion = oracle.game, oracle.num_players, oracle.insertion
    least, most = max(1, num_players // 32), max(1, num_players // 12)
    count = num_candidates or max(1, num_players // 16)
    trace = Trace(oracle)

    group = np.zeros(num_players, bool)
    gains = np.full(num_players, np.inf, np.float32)
    tried = np.zeros(num_players, np.int32)
    audits, missed, lost, gradients, owed, last_audit = 0, 0, [], 0, 0.0, 0
    score = trace.look(group)
    while not trace.ended(stop):
        step = len(trace.order)
        left = np.flatnonzero(~group)
        pace = max(3, last_audit // 4) if fixed is None and scorer == "stale" else max(2, last_audit)
        owed += 1 / pace if audit is None else audit
        full = step == 0 and fixed is None and scorer != "gradient"
        auditing = not full and owed >= 1 - 1e-6 and len(left) > count
        guesses = [gains if fixed is None else fixed]
        if fixed is None and scorer != "stale" and not full:
            # A gradient is of showing more, and in a deletion the most promising is what its loss costs most.
            slope = np.asarray(gate_gradient(game, jnp.asarray(group == insertion)))
            guesses = [gains, slope] if scorer == "mixed" else [slope]
            gradients += 1
        ranked = _ranked(left, guesses)
        chosen = np.sort(ranked if full or auditing else ranked[:count])
        before = oracle.count
        scores, _ = oracle.ask(neighbours(group, chosen))
        tried[step] = oracle.count - before
        gains[chosen] = np.float32(scores) - np.float32(score)
        winner = int(chosen[np.argmax(scores)])
        if auditing:
            owed, last_audit = owed - 1, step
            place = int(np.flatnonzero(ranked == winner)[0])
            listed = np.isin(chosen, ranked[:count])
            audits, missed = audits + 1, missed + (place >= count)
            lost.append(scores.max() - scores[listed].max())
            if num_candidates is None:
                count = min(most, count + max(1, count // 2)) if place >= count else count
                count = max(least, count - max(1, count // 8)) if place < count // 4 else count
        group[winner] = True
        score = trace.look(group, winner)
    return ScreenedResult(
        greedy=trace.result(),
        num_gradients=jnp.int32(gradients),
        num_candidates=jnp.asarray(tried),
        num_audits=jnp.int32(audits),
        num_missed=jnp.int32(missed),
        regret=jnp.float32(np.mean(lost) if lost else 0.0),
    )


def _ranked(players: np.ndarray, guesses: list[np.ndarray]) -> np.ndarray:
    """Players by one guess, or in turn the best by each of several."""
    ranks = np.stack([players[np.argsort(-guess[players], kind="stable")] for guess in guesses], 1).ravel()
    return ranks[np.sort(np.unique(ranks, return_index=True)[1])]


def _check(scorer: Any, num_candidates: int | None, audit: float | None, num_players: int) -> AnyArray | None:
    if num_candidates is not None and num_candidates < 1:
        raise InputError(f"num_candidates must be at least 1, or None to have it adapted; got {num_candidates}")
    if audit is not None and not 0 <= audit <= 1:
        raise InputError(f"audit is a share of the steps, in [0, 1], or None; got {audit}")
    if isinstance(scorer, str):
        if scorer not in ("mixed", "stale", "gradient"):
            raise InputError(f"expected a scorer of 'mixed', 'stale', 'gradient' or scores float[P]; got {scorer!r}")
        return None
    scores = jnp.asarray(scorer, jnp.float32)
    if scores.shape != (num_players,):
        raise InputError(f"expected fixed scores of shape [{num_players}]; got {list(scores.shape)}")
    return scores
