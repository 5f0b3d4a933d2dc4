"""Differences of values that are nearly equal, where float32 would round them away.

An interaction is a difference of values. Of probabilities near 1, such as 0.9999999, float32 keeps no digit that
differs, while the complement 1 - p has them all. So the differences here are taken of a value's two parts: the nearer
of 0 and 1, whose differences are exact, and the remainder (`payoff.probability_remainders`). A game whose values are
anything but probabilities, or that cannot tell remainders, has its values as the only part; where these are too near to
one another for their differences to mean anything, `warn_of_rounding` says so.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxmoxi.errors import RoundingWarning, warn
from jaxmoxi.games.base import Game
from jaxmoxi.games.evaluation import read_generated
from jaxmoxi.games.payoff import split_remainders
from jaxmoxi.pytrees import is_concrete
from jaxmoxi.types import Readout

_NEAR = 1024  # roundings: values that lie so near to one another have at most three digits that differ


class Parts(NamedTuple):
    """Values as a sum of two parts.

    rest:  float32[C], the remainders; the values themselves where there is nothing to split.
    whole: float32[C], 0 or 1 each; None where there is nothing to split.
    """

    rest: Float[Array, "C"]
    whole: Float[Array, "C"] | None = None

    def combine(self, weigh: Callable[[Array], Array]) -> Array:
        """`weigh` of the values, for a function of them that is linear."""
        return weigh(self.rest) if self.whole is None else weigh(self.whole) + weigh(self.rest)


def read_parts(game: Game, make_mask: Callable[..., Any], operands: Any, **sizes: Any) -> Parts:
    """The values of coalitions, in parts; the arguments are those of `read_generated`."""
    finer = game.remainders()
    if finer is None:
        return Parts(read_generated(game, make_mask, operands, **sizes).values)
    whole, rest = split_remainders(read_generated(finer, make_mask, operands, **sizes).values)
    return Parts(rest, whole)


def as_probabilities(readout: Readout) -> Readout:
    """The readout of a game's remainders with the game's own values, the probabilities."""
    if readout.probabilities is not None:
        return readout._replace(values=readout.probabilities)
    whole, rest = split_remainders(jnp.asarray(readout.values))
    return readout._replace(values=whole + rest)


def greedy_best(finer: Any, valid: Any, insertion: bool, remainders: bool, xp: Any) -> Any:
    """The index of the candidate that MoXI's greedy step chooses; the first of equals. NumPy's arrays or JAX's.

    Of remainders, those above a half (insertion; below, in a deletion) come before all others.
    """
    merit, eligible = finer if insertion else -finer, valid
    if remainders:
        nearer_end = xp.signbit(finer) == insertion
        eligible = valid & (nearer_end | ~xp.any(valid & nearer_end))
    return xp.argmax(xp.where(eligible, merit, -xp.inf))


def warn_of_rounding(parts: Parts, differences: Float[Array, "D"], what: str, *, terms: int) -> None:
    """Warns that differences mean nothing, where they can be looked at.

    That is where most of them are no larger than their own rounding (half a spacing of float32 for each of `terms`
    values, at the size of the largest) and all values lie within 1,024 roundings of one another. Differences that are
    small beside values which do differ are an answer, not an accident: players that do nothing, or that only add up.
    Values that are all the same number are an answer too, but for 1 and -1, where probabilities and tanh saturate.
    """
    if not is_concrete((parts, differences)) or differences.size == 0:
        return
    split = parts.whole is not None and np.ptp(np.asarray(parts.whole)) != 0
    values = np.asarray(parts.combine(lambda x: x) if split else parts.rest, np.float64)
    low, high = values.min(), values.max()
    rounding = max(abs(low), abs(high)) * np.finfo(np.float32).eps / 2
    lost = np.abs(np.asarray(differences, np.float64)) <= terms * rounding
    if low == high and abs(low) != 1:
        return
    if rounding > 0 and high - low <= _NEAR * rounding and 2 * lost.sum() > lost.size:
        between = f"are all {low:.9g}" if low == high else f"lie between {low:.9g} and {high:.9g}"
        warn(
            f"{lost.sum()} of {lost.size} {what} are no larger than the rounding of the values that they are "
            f"differences of, which {between}: float32 tells such numbers apart by {2 * rounding:.1g}. If they are "
            "probabilities, take log-odds, or make the game of logits (pixel_value_fn, token_value_fn), from which "
            "1 - p is computed; if they are meant to be so near to one another, ignore this",
            RoundingWarning,
        )
