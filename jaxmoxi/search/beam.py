"""Several groups at a time: the best group of every size, and several different ones that are enough.

Beam search over groups (Lowerre 1976, as for feature subsets), widened by exchanges: at every size the beam first grows
by one player, then its groups exchange players with the outside until the best group stays the same. A group that is
reached in several ways is kept once. `device.beam` makes the same moves in a compiled loop.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxmoxi.errors import InputError
from jaxmoxi.games.base import Game, ValueFn, as_game
from jaxmoxi.games.evaluation import OUTSIDE, TracedError, check_batch_size
from jaxmoxi.games.probe import check_players
from jaxmoxi.guards import deliberate
from jaxmoxi.pytrees import is_concrete, record
from jaxmoxi.search.asking import reader_of
from jaxmoxi.search.climb import SHORTLIST, TRIED, Climber, refine
from jaxmoxi.search.device.beam import BeamMachine
from jaxmoxi.search.device.doors import either_form, run_machine
from jaxmoxi.search.holding import Stability, check_alternatives, stability
from jaxmoxi.search.minimal import minimal_group
from jaxmoxi.search.oracle import GroupResult, Groups, Oracle, goal_of
from jaxmoxi.search.shared import neighbours
from jaxmoxi.types import Stop


@record
class BeamResult:
    """The outcome of `beam_search`. S is the largest size looked at, G the number of groups that are enough.

    groups:          bool[S+1, P], row k the best group found of size k.
    values:          float32[S+1], the payoffs (of the groups, or of all others).
    enough:          bool[S+1], whether each reaches the goal; all False without one.
    minimal:         bool[G, P], the smallest group that is enough, then others that have no player in common with it or
                     with one another; nobody can be taken from any of them. No row without a goal.
    num_evaluations: int32[], forward passes, of one coalition each.
    stability:       how each row of `minimal` holds in A other games, [G] and [G, A], where the search was given some.

    Inside `jit` and `vmap`, where shapes are fixed before anything is known, S is `max_size`, or P with a goal, and G
    is `num_groups`. Rows past the last size are nobody with the value NaN, and rows without a group are nobody. Where
    no group reaches the goal, `enough` is False throughout; where a value was NaN, all values are NaN as well.
    """

    groups: Bool[Array, "S P"]
    values: Float[Array, "S"]
    enough: Bool[Array, "S"]
    minimal: Bool[Array, "G P"]
    num_evaluations: Int[Array, ""]
    stability: Stability | None = None


@deliberate
def beam_search(
    v: ValueFn,
    num_players: int,
    *,
    width: int = 8,
    insertion: bool = True,
    max_size: int | None = None,
    stop: Stop | None = None,
    probability: float | None = None,
    value: float | None = None,
    num_groups: int = 1,
    rounds: int = 4,
    batch_size: int | None = None,
    alternatives: Sequence[ValueFn] = (),
    callback: Callable[[int], None] | None = None,
) -> BeamResult:
    """The best group of each size, `width` kept at a time, and the smallest that is enough.

    v, num_players, insertion, stop, probability, value, batch_size, alternatives, callback: as for `minimal_group`.
    width:      groups kept at every size, at least 1.
    max_size:   None stops at the first sufficient group, at latest at `minimal_group`'s size. A number searches every
                size up to it, without a goal, and ranks groups by the payoff.
    num_groups: how many groups that are enough to look for; disjoint ones, so there may be fewer.
    rounds:     exchanges at every size, at most; 0 is the plain beam search.

    A size costs about width * (P + rounds * (32 + 8 * size)) evaluations. Where there is a goal, `minimal_group` runs
    first, with its default budget. Deterministic. Under `jit` and `vmap` it is traced along, as one compiled loop.
    Raises ValueError for arguments that do not fit, and what `minimal_group` raises.
    """
    for name, number, least in (("width", width, 1), ("num_groups", num_groups, 1), ("rounds", rounds, 0)):
        if number < least:
            raise InputError(f"{name} must be at least {least}; got {number}")
    if max_size is not None:
        if not 1 <= max_size <= num_players:
            raise InputError(f"max_size must lie between 1 and the {num_players} players; got {max_size}")
        if (stop, probability, value) != (None, None, None) or num_groups > 1 or alternatives:
            raise InputError(
                "max_size looks at every size, without a goal: leave out stop, probability, value, num_groups and "
                "alternatives"
            )
    game, goal = as_game(v), None
    if max_size is None:
        game, goal = goal_of(v, num_players, stop, probability=probability, value=value)
    check_alternatives(alternatives, num_players)
    check_batch_size(batch_size)
    check_players(game, num_players)

    def smallest_known() -> GroupResult | None:
        if goal is None:
            return None
        return minimal_group(
            game, num_players, insertion=insertion, stop=goal, batch_size=batch_size, callback=callback
        )

    def on_host() -> BeamResult:
        found = smallest_known()
        if not is_concrete(found):  # the game closes over what is being traced
            raise TracedError(OUTSIDE)
        oracle = Oracle(game, num_players, goal=goal, insertion=insertion, batch_size=batch_size)
        spent = 0 if found is None else int(found.num_evaluations)
        follow = callback
        if follow is not None:
            oracle.callback = lambda count: follow(spent + count)
        return _search_on_host(oracle, found, max_size, width, rounds, num_groups, alternatives)

    def in_loop() -> BeamResult:
        if callback is not None:
            raise InputError("callback needs a search outside jit and vmap: there is no host to call inside")
        machine = BeamMachine(int(num_players), insertion, width, rounds, num_groups)
        return _search_in_loop(game, goal, machine, smallest_known(), max_size, batch_size, alternatives)

    return either_form(game, on_host, in_loop, host=callback is not None)


def _search_in_loop(
    game: Game,
    goal: Stop | None,
    machine: BeamMachine,
    found: GroupResult | None,
    max_size: int | None,
    batch_size: int | None,
    alternatives: Sequence[ValueFn],
) -> BeamResult:
    players, insertion, spent = machine.num_players, machine.insertion, jnp.int32(0)
    given = (jnp.int32(max_size or 0), jnp.zeros(players, bool), jnp.asarray(False))
    if found is not None:
        # Where there is no such group, the search ends with nobody.
        given = (jnp.where(found.enough, found.size - 1, -1).astype(jnp.int32), found.group, found.enough)
        spent = found.num_evaluations
    sizes = players if max_size is None else max_size
    most = machine.width * (sizes + 1) * (players + machine.rounds * (SHORTLIST + TRIED * sizes))
    ended = run_machine(machine, reader_of(game, goal), game, goal, most, batch_size, given)
    told, broken = ended.outcome, ended.broken
    if found is not None:
        broken |= jnp.isnan(found.value)
    rows, count = sizes + 1, 0 if goal is None else machine.num_groups
    if is_concrete(ended):
        rows, count = int(told.sizes), int(told.found)
    minimal = told.minimal[:count] & ~broken
    return BeamResult(
        groups=told.best[:rows] & ~broken,
        values=jnp.where(broken, jnp.nan, told.values[:rows]),
        enough=told.enough[:rows] & ~broken,
        minimal=minimal,
        num_evaluations=ended.evaluations + spent,
        stability=stability(alternatives, minimal, insertion=insertion) if alternatives and count else None,
    )


def _search_on_host(
    oracle: Oracle,
    found: GroupResult | None,
    max_size: int | None,
    width: int,
    rounds: int,
    num_groups: int,
    alternatives: Sequence[ValueFn],
) -> BeamResult:
    num_players, insertion = oracle.num_players, oracle.insertion
    last, smallest, spent = max_size or 0, None, 0
    if found is not None:
        smallest, spent = np.asarray(found.group), int(found.num_evaluations)
        last = int(found.size) - 1

    climber = Climber(oracle)
    beam = np.zeros((1, num_players), bool)
    best = [beam[0]]
    for _ in range(last):
        scores, _ = oracle.ask(beam)
        grown = [climber.additions(g, s, full=True)[0] for g, s in zip(beam, scores, strict=True)]
        beam = _keep(oracle, np.concatenate([neighbours(g, c) for g, c in zip(beam, grown, strict=True)]), width)
        for _ in range(rounds):
            scores, _ = oracle.ask(beam)
            swapped = [climber.exchanges(g, s, full=False)[0] for g, s in zip(beam, scores, strict=True)]
            wider = _keep(oracle, np.concatenate([beam, *swapped]), width)
            stays = np.array_equal(wider[0], beam[0])
            beam = wider
            if stays:
                break
        enough = oracle.ask(beam)[1]
        best.append(beam[np.argmax(enough)] if enough.any() else beam[0])
        if enough.any():
            smallest = refine(climber, best[-1], 0)
            best = [*best[: int(smallest.sum())], smallest]
            break
    else:
        if smallest is not None and smallest.any():
            best.append(smallest)
    minimal = [] if smallest is None else [smallest]
    while 0 < len(minimal) < num_groups and minimal[0].any():
        rest = ~np.any(minimal, axis=0)
        if not oracle.ask(rest[None])[1][0]:
            break
        minimal.append(refine(climber, rest, 0))
    results = [oracle.result(group) for group in best]
    rows = jnp.asarray(np.array(minimal, bool).reshape(-1, num_players))
    return BeamResult(
        groups=jnp.asarray(np.array(best)),
        values=jnp.stack([r.value for r in results]),
        enough=jnp.stack([r.enough for r in results]),
        minimal=rows,
        num_evaluations=jnp.int32(oracle.count + spent),
        stability=stability(alternatives, rows, insertion=insertion) if alternatives and minimal else None,
    )


def _keep(oracle: Oracle, groups: Groups, width: int) -> Bool[np.ndarray, "K P"]:
    """The best of some groups, each once; those that are enough first."""
    groups = np.unique(groups, axis=0)[::-1]
    scores, enough = oracle.ask(groups)
    return groups[np.lexsort((-scores, ~enough))[:width]]
