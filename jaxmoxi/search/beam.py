"""Several groups at a time: the best group of every size, and several different ones that are enough.

Beam search over groups (Lowerre 1976, as for feature subsets), widened by exchanges: at every size the beam first grows
by one player, then its groups exchange players with the outside until the best group stays the same. A group that is
reached in several ways is kept once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxmoxi.errors import InputError
from jaxmoxi.games.base import ValueFn, as_game
from jaxmoxi.games.evaluation import OUTSIDE
from jaxmoxi.guards import deliberate
from jaxmoxi.pytrees import is_concrete, record
from jaxmoxi.search.climb import Climber, refine
from jaxmoxi.search.holding import Stability, check_alternatives, stability
from jaxmoxi.search.minimal import minimal_group
from jaxmoxi.search.oracle import Groups, Oracle, goal_of
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
    first, with its default budget. Deterministic.
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
    oracle = Oracle(game, num_players, goal=goal, insertion=insertion, batch_size=batch_size)
    last, smallest, spent = max_size or 0, None, 0
    if goal is not None:
        found = minimal_group(
            game, num_players, insertion=insertion, stop=goal, batch_size=batch_size, callback=callback
        )
        if not is_concrete(found):  # the game closes over what is being traced
            raise InputError(OUTSIDE)
        smallest, spent = np.asarray(found.group), int(found.num_evaluations)
        last = int(found.size) - 1
        if callback is not None:
            oracle.callback = lambda count: callback(spent + count)

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
