"""Interaction indices of any order, exactly, from the values of all 2^P sets of players."""

from __future__ import annotations

import functools
from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxmoxi.errors import InputError, nan_error
from jaxmoxi.games.base import ValueFn, as_game
from jaxmoxi.games.differences import Parts, read_parts, warn_of_rounding
from jaxmoxi.games.evaluation import read_generated
from jaxmoxi.guards import deliberate
from jaxmoxi.interactions.indices import INDICES, IndexName, check_request, derivative_weights
from jaxmoxi.interactions.lattice import derivative_sums, num_players_of, sets_up_to
from jaxmoxi.interactions.result import Interactions
from jaxmoxi.pytrees import is_concrete
from jaxmoxi.types import AnyArray

MOST_PLAYERS = 20


@deliberate
def values_table(v: ValueFn, num_players: int, *, batch_size: int | None = None) -> Float[Array, "R"]:
    """The values of all sets of players, float32[2^P]: bit i of a row's number says whether player i is visible.

    v:           a value function, masks bool[C, P] -> float32[C].
    num_players: P, from 1 to 20.
    batch_size:  coalitions per chunk; None chooses one that fits the memory.

    Raises ValueError for other numbers of players (`interactions.estimate` takes those), and NaNValueError that names a
    coalition whose value is NaN.
    """
    check_table_size(num_players)
    out = read_generated(as_game(v), _members, _rows(num_players), **_sizes(num_players, batch_size))
    return _without_nan(out.values, num_players)


def _rows(num_players: int) -> tuple[Array, Array]:
    return jnp.arange(1 << num_players), jnp.arange(num_players)


def _sizes(num_players: int, batch_size: int | None) -> dict[str, Any]:
    return {"count": 1 << num_players, "num_players": num_players, "batch_size": batch_size}


def _without_nan(values: Float[Array, "R"], num_players: int) -> Float[Array, "R"]:
    """The values of all sets. Raises NaNValueError that names the set of the first NaN, where they can be looked at."""
    if is_concrete(values) and bool(jnp.isnan(values).any()):
        row = int(jnp.argmax(jnp.isnan(values)))
        raise nan_error(f"for the coalition of players {[i for i in range(num_players) if row >> i & 1]}")
    return values


def _members(operands: Any, index: Any) -> Any:
    rows, bits = operands
    return (rows[index] >> bits) & 1 == 1


def check_table_size(num_players: int) -> None:
    """Raises ValueError unless all sets of so many players can be evaluated."""
    if isinstance(num_players, bool) or not isinstance(num_players, int | np.integer) or num_players < 1:
        raise InputError(f"num_players must be a whole number of at least 1; got {num_players!r}")
    if num_players > MOST_PLAYERS:
        raise InputError(
            f"exact indices need all 2^P values, and take at most {MOST_PLAYERS} players; got {num_players}: "
            "interactions.estimate takes more, or group the players into fewer regions"
        )


@deliberate
def exact(
    v: ValueFn,
    num_players: int,
    *,
    index: IndexName | str = "k-SII",
    order: int = 2,
    p: float = 0.5,
    batch_size: int | None = None,
) -> Interactions:
    """An interaction index of all sets of up to `order` players, from the values of all 2^P coalitions.

    v:           a value function, masks bool[C, P] -> float32[C].
    num_players: P, from 1 to 20.
    index:       which index; `jaxmoxi.interactions.INDICES` says what each averages over, and where it comes from.
    order:       the largest set that is explained, from 1 to P.
    p:           for Banzhaf's indices (BV, BII, FBII, BGV): the probability of every other player to be there.
    batch_size:  coalitions per chunk; None chooses one that fits the memory.

    Works inside `jit` and `vmap`. In float32 the values are within 1e-5 of the exact ones for games of size 1 (of
    alternating indices, Moebius among them, within 2^order times 1e-7); where `jax_enable_x64` is on and the values are
    float64, within 1e-12. Under the payoff "prob" of `pixel_value_fn` and `token_value_fn` near-certain probabilities
    keep their digits: the index is that of p - 1 where p is near 1, and its error is relative to the nearer of p and
    1 - p. Where float32 keeps too little of another game's values, a `RoundingWarning` says so (outside `jit`).
    Raises ValueError for an unknown index and an order or number of players out of range, all before anything is
    evaluated, and NaNValueError for a coalition whose value is NaN.
    """
    check_table_size(num_players)
    check_request(index, num_players, order, p)
    parts = read_parts(as_game(v), _members, _rows(num_players), **_sizes(num_players, batch_size))
    _without_nan(parts.rest, num_players)
    found = from_table(parts.rest, index=index, order=order, p=p)
    if parts.whole is not None:  # every index is linear in the game
        whole = from_table(parts.whole, index=index, order=order, p=p)
        found = found.replace(values=whole.values + found.values, baseline=whole.baseline + found.baseline)
    _warn_of_rounding(parts, found, order)
    return found


def _warn_of_rounding(parts: Parts, found: Interactions, order: int) -> None:
    """Warns where the values of the sets that are differences of differences (of players, at order 1) are rounding."""
    size = 1 if order == 1 else 2
    kept = np.flatnonzero((sets_up_to(found.num_players, order) >= 0).sum(1) >= size)
    what = f"values of {found.index} ({'single players' if size == 1 else 'sets of two and more'})"
    warn_of_rounding(parts, found.values[jnp.asarray(kept)], what, terms=2 * size)


@deliberate
def from_table(table: AnyArray, *, index: IndexName | str = "k-SII", order: int = 2, p: float = 0.5) -> Interactions:
    """As `exact`, from the values of all coalitions, float[2^P], as `values_table` gives them.

    Raises ValueError for a table of another length, and as `exact` does.
    """
    table = jnp.asarray(table)
    n = num_players_of(table)
    check_table_size(n)
    check_request(index, n, order, p)
    if not jnp.issubdtype(table.dtype, jnp.floating):
        raise InputError(f"expected a table of floating-point values; got {table.dtype}")
    sums = _derivative_sums(table, order, INDICES[index].generalised)
    weights = _weights(index, n, order, Fraction(p).limit_denominator(10**6))
    sizes = np.concatenate([[0], (sets_up_to(n, order) >= 0).sum(1)])
    values = (sums * jnp.asarray(weights[sizes], sums.dtype)).sum(1)
    return Interactions(
        sets=jnp.asarray(sets_up_to(n, order)),
        values=values[1:],
        baseline=values[0],
        num_evaluations=1 << n,
        index=index,
        order=order,
        num_players=n,
    )


@functools.partial(jax.jit, static_argnums=(1, 2))
def _derivative_sums(table: Array, order: int, generalised: bool) -> Array:
    """`lattice.derivative_sums`, compiled once for all indices of an order."""
    return derivative_sums(table, order, generalised=generalised)


@functools.cache
def _weights(index: str, n: int, order: int, p: Fraction) -> np.ndarray:
    """p_s(t) by size s and level t, float64[order + 1, n + 1]; row 0 is of the baseline."""
    weights = np.zeros((order + 1, n + 1))
    weights[0, 0] = 1.0
    for size in range(0 if INDICES[index].intercept else 1, order + 1):
        row = derivative_weights(index, n, size, order, p)
        weights[size] = 0.0
        weights[size, : len(row)] = [float(x) for x in row]
    return weights
