"""The interaction indices, one row each: how much of every part of a game an index gives to a set of players.

Notation. N are the n players, v the game, and S, T sets of players with s and t members.

    m(T)   = sum over R in T of (-1)^(t - r) v(R)       the Moebius transform: v(T) is the sum of m(R) over R in T
    D_S(T) = sum over R in S of (-1)^(s - r) v(T + R)   the discrete derivative of v by S where T is there already

Every index here but the generalised values is a sum over what contains S, by sizes alone:

    I(S) = sum over T that contain S of weight(s, t) m(T)
         = sum over T outside S of p_s(t) D_S(T)

`weight` is what a row states. `derivative_weights` turns it into p_s, in exact rational numbers: the second form adds
numbers of the game's own size, where the first adds Moebius coefficients, which are larger by up to 2^n and cancel.

`order` is the largest size of S that an index explains; it matters to those that share out what is larger.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable
from fractions import Fraction
from math import comb, lcm
from typing import Literal

from jaxmoxi.errors import InputError

Weight = Callable[[int, int, int, Fraction], Fraction]  # (s, t, order, p) -> weight


@dataclasses.dataclass(frozen=True)
class Index:
    """One interaction index.

    name:        what users call it.
    weight:      `(s, t, order, p) -> weight` of m(T) in I(S), for s <= t; see the module's head.
    meaning:     what it averages over, in a sentence.
    source:      where it is defined.
    efficient:   whether the values of all sets up to `order`, the empty one among them, sum to v(N).
    intercept:   whether the empty set has a value of its own; else its value is v of nobody.
    generalised: whether it sums v(T + S) - v(T) in place of the derivative: the worth of the group as a whole.
    largest:     the largest set that it is defined for; None: any.
    reduces_to:  the value of single players that an order of 1 gives.
    """

    name: str
    weight: Weight
    meaning: str
    source: str
    efficient: bool = False
    intercept: bool = False
    generalised: bool = False
    largest: int | None = None
    reduces_to: str = ""


def _shapley(s: int, t: int, order: int, p: Fraction) -> Fraction:
    return Fraction(1, t - s + 1)


def _banzhaf(s: int, t: int, order: int, p: Fraction) -> Fraction:
    return p ** (t - s)


def _chaining(s: int, t: int, order: int, p: Fraction) -> Fraction:
    return Fraction(s, t) if t else Fraction(1)


def _moebius(s: int, t: int, order: int, p: Fraction) -> Fraction:
    return Fraction(s == t)


def _co_moebius(s: int, t: int, order: int, p: Fraction) -> Fraction:
    return Fraction(1)


def _or(s: int, t: int, order: int, p: Fraction) -> Fraction:
    return Fraction((-1) ** (s + 1)) if s else Fraction(t == 0)


def _taylor(s: int, t: int, order: int, p: Fraction) -> Fraction:
    return Fraction(s == t) if s < order else Fraction(1, comb(t, order))


def _n_shapley(s: int, t: int, order: int, p: Fraction) -> Fraction:
    return sum((bernoulli(j) * comb(t - s, j) * Fraction(1, t - s - j + 1) for j in range(min(order, t) - s + 1)),
               Fraction(0))  # fmt: skip


def _faith_shapley(s: int, t: int, order: int, p: Fraction) -> Fraction:
    if t <= order or s == 0:
        return Fraction(s == t)
    sign = (-1) ** (order - s)
    return Fraction(sign * s * comb(order, s) * comb(t - 1, order), (order + s) * comb(t + order - 1, order + s))


def _faith_banzhaf(s: int, t: int, order: int, p: Fraction) -> Fraction:
    if t <= order:
        return Fraction(s == t)
    return (-1) ** (order - s) * p ** (t - s) * comb(t - s - 1, order - s)


@functools.cache
def bernoulli(n: int) -> Fraction:
    """Bernoulli's numbers, with B_1 = -1/2."""
    if n == 0:
        return Fraction(1)
    return -sum((comb(n + 1, k) * bernoulli(k) for k in range(n)), Fraction(0)) / (n + 1)


_GRABISCH = "Grabisch and Roubens, 'An axiomatic approach to the concept of interaction among players', 1999"
_MARICHAL = "Marichal, Kojadinovic and Fujimoto, 'Axiomatic characterizations of generalized values', 2007"
_FAITH = "Tsai, Yeh and Ravikumar, 'Faith-Shap: The Faithful Shapley Interaction Index', JMLR 2023"

_ROWS = (
    Index("SV", _shapley, "a player's gain, over all orders in which the players can come", largest=1,
          source="Shapley, 'A value for n-person games', 1953", reduces_to="SV"),
    Index("BV", _banzhaf, "a player's gain, over all coalitions of the others alike", largest=1,
          source="Banzhaf, 'Weighted voting doesn't work', 1965", reduces_to="BV"),
    Index("SII", _shapley, "the derivative by a set, over all sizes of what is there already, and all of a size alike",
          source=_GRABISCH, reduces_to="SV"),
    Index("BII", _banzhaf, "the derivative by a set, over all coalitions of the others alike",
          source=_GRABISCH, reduces_to="BV"),
    Index("CHII", _chaining, "the derivative by a set at the moment when its last member comes",
          source="Marichal and Roubens, 'The chaining interaction index among players', 1999", reduces_to="SV"),
    Index("k-SII", _n_shapley, "SII, each set's share taken out of the sets within it, so that all sum to the game",
          source="Bordt and von Luxburg, 'From Shapley Values to Generalized Additive Models and back', AISTATS 2023",
          efficient=True, reduces_to="SV"),
    Index("STII", _taylor, "a set's own dividend; the sets of the largest size share what is above them",
          source="Sundararajan, Dhamdhere and Agarwal, 'The Shapley Taylor Interaction Index', ICML 2020",
          efficient=True, reduces_to="SV"),
    Index("FSII", _faith_shapley, "the additive game of this order nearest to v, sizes weighted as Shapley does",
          source=_FAITH, efficient=True, reduces_to="SV"),
    Index("FBII", _faith_banzhaf, "the additive game of this order nearest to v, over all coalitions alike",
          source=_FAITH, intercept=True, reduces_to="BV"),
    Index("Moebius", _moebius, "what a set adds to all that its members add in smaller sets (AND interaction)",
          source="Harsanyi, 'A simplified bargaining model for the n-person cooperative game', 1963"),
    Index("Co-Moebius", _co_moebius, "the derivative by a set where all others are there already", source=_GRABISCH),
    Index("OR", _or, "what is there as soon as one member of a set is: the dividends of the dual game",
          source="Li and Zhang, 'Explaining Generalization Power of a DNN Using Interactive Concepts', AAAI 2024"),
    Index("SGV", _shapley, "what a set adds as a whole, over all sizes of what is there, and all of a size alike",
          source=_MARICHAL, generalised=True, reduces_to="SV"),
    Index("BGV", _banzhaf, "what a set adds as a whole, over all coalitions of the others alike",
          source=_MARICHAL, generalised=True, reduces_to="BV"),
)  # fmt: skip

INDICES = {row.name: row for row in _ROWS}

IndexName = Literal[
    "SV", "BV", "SII", "BII", "CHII", "k-SII", "STII", "FSII", "FBII", "Moebius", "Co-Moebius", "OR", "SGV", "BGV"
]


def find_index(name: str) -> Index:
    """The index of this name. Raises ValueError, which lists all of them, for another."""
    if name not in INDICES:
        raise InputError(f"expected an index of {', '.join(INDICES)}; got {name!r}")
    return INDICES[name]


@functools.cache
def derivative_weights(name: str, num_players: int, size: int, order: int, p: Fraction) -> tuple[Fraction, ...]:
    """p_s(t) for t = 0 .. n - s: I(S) is the sum over T outside S of p_s(t) D_S(T).

    As D_S(T) is the sum of m(R) over S in R in S + T, each p_s is the inverse binomial transform of the weights:
    p_s(t) = sum over k from 0 to n - s - t of (-1)^k C(n - s - t, k) weight(s, s + t + k). A generalised value has the
    same p_s, and v(T + S) - v(T) in place of the derivative.

    The sums are the repeated differences of the weights. On a common denominator they are differences of whole numbers:
    a thousand players take a fraction of a second.
    """
    weight, n = INDICES[name].weight, num_players
    weights = [weight(size, t, order, p) for t in range(size, n + 1)]
    whole = lcm(*(w.denominator for w in weights))
    numbers = [w.numerator * (whole // w.denominator) for w in weights]
    found = []  # from the largest T down: the k-th differences end in that of t = n - s - k
    while numbers:
        found.append(Fraction(numbers[-1], whole))
        numbers = [low - high for low, high in itertools.pairwise(numbers)]
    return tuple(reversed(found))


def check_request(name: str, num_players: int, order: int, p: float) -> Index:
    """The index, checked against what is asked of it.

    Raises ValueError for an unknown index, for an order below 1, above the players or above what the index explains,
    and for a probability that is none.
    """
    index = find_index(name)
    if isinstance(order, bool) or not isinstance(order, int) or not 1 <= order <= num_players:
        raise InputError(f"order must be a whole number from 1 to the {num_players} players; got {order!r}")
    if index.largest is not None and order > index.largest:
        raise InputError(f"{name} explains single players: order must be 1; got {order} (SII or BII explain sets)")
    if not 0 < p < 1:
        raise InputError(f"p, the probability that a player is there, must lie between 0 and 1; got {p!r}")
    return index
