"""The registry of estimators: what a method of `estimate` is, and all that the door asks of it.

A method draws coalitions and makes values of what they are worth. It is one `Method`, in a file of this folder, which
`estimate` imports. The door evaluates the coalitions; a method never sees the game.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Hashable
from fractions import Fraction
from typing import Any, NamedTuple

from jaxtyping import Array, Float

from jaxmoxi.errors import InputError


@dataclasses.dataclass(frozen=True)
class Request:
    """What is asked of a method: static, and checked by the door.

    num_players: P.
    index:       a name of `INDICES`.
    order:       the largest set that is explained.
    p:           the probability of a player to be there, for Banzhaf's indices.
    errors:      whether standard errors are asked for; a method may give them anyway.
    """

    num_players: int
    index: str
    order: int
    p: Fraction
    errors: bool = True


class Fit(NamedTuple):
    """What a method makes of the values of its coalitions.

    baseline:        float32[], the index of the empty set.
    values:          float32[M], the index of the sets of `lattice.sets_up_to(P, order)`, in their order.
    standard_errors: float32[M], or None where the method has none.
    """

    baseline: Float[Array, ""]
    values: Float[Array, "M"]
    standard_errors: Float[Array, "M"] | None


@dataclasses.dataclass(frozen=True)
class Method:
    """One estimator.

    name:    what users call it.
    source:  the paper.
    help:    what it does, in a sentence.
    indices: the indices that it estimates; None: all of them.
    least:   `Request -> int`, the fewest coalitions that it can work with.
    refuse:  `Request -> str | None`, why it cannot serve a request ("takes at most 60 players"), or None.
    plan:    `(key, Request, budget) -> operands`, a pytree of arrays from which `mask` makes the coalitions. It may be
             traced. The first coalitions are the same for every budget.
    mask:    `(operands, index) -> bool[P]`, the coalition of an index from 0 to budget - 1; a module-level function
             that can be traced.
    fit:     `(operands, values float32[m], Request) -> Fit`, from the first m coalitions' values; it can be traced.
    draws_for: `Request -> Hashable`, what of a request the coalitions depend on, beside the number of players. An
             estimate can go on with another request if this is the same.
    """

    name: str
    source: str
    help: str
    least: Callable[[Request], int]
    plan: Callable[[Array, Request, int], Any]
    mask: Callable[[Any, Any], Array]
    fit: Callable[[Any, Array, Request], Fit]
    indices: frozenset[str] | None = None
    refuse: Callable[[Request], str | None] = lambda request: None
    draws_for: Callable[[Request], Hashable] = lambda request: None


METHODS: dict[str, Method] = {}


def register(method: Method) -> Method:
    """Adds a method under its name."""
    METHODS[method.name] = method
    return method


def find_method(name: str) -> Method:
    """The method of this name. Raises ValueError, which lists all of them, for another."""
    if name not in METHODS:
        raise InputError(f"expected a method of auto, {', '.join(METHODS)}; got {name!r}")
    return METHODS[name]
