"""Transforms over all sets of players, and sums of discrete derivatives by size.

A table holds one number for each of the 2^n sets of n players; bit i of a row's number says whether player i is in the
set. Each transform takes n passes over the table, O(n 2^n). All of them can be traced, differentiated and vmapped.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxmoxi.errors import InputError
from jaxmoxi.types import AnyArray

Step = Callable[[Array, Array], tuple[Array, Array]]


def num_players_of(table: AnyArray) -> int:
    """n of a table of 2^n numbers. Raises ValueError for another length."""
    n = (table.shape[-1] if table.ndim else 0).bit_length() - 1
    if table.ndim < 1 or n < 1 or table.shape[-1] != 1 << n:
        raise InputError(f"expected a table of 2^P values, a row for each set of players; got {list(table.shape)}")
    return n


def moebius(table: Float[AnyArray, "R"]) -> Float[Array, "R"]:
    """m(T) = sum over R in T of (-1)^(|T| - |R|) v(R), of every T: what each set adds to the sets within it.

    In float32 a coefficient of t players carries rounding of about 2^(t / 2) times 1e-7 of the values' size.
    """
    return _transform(table, lambda low, high: (low, high - low))


def inverse_moebius(coefficients: Float[AnyArray, "R"]) -> Float[Array, "R"]:
    """v(T) = sum over R in T of m(R), of every T."""
    return _transform(coefficients, lambda low, high: (low, low + high))


def co_moebius(table: Float[AnyArray, "R"]) -> Float[Array, "R"]:
    """The sum over T that contain S of m(T), of every S: the derivative by S where all others are there."""
    return _transform(moebius(table), lambda low, high: (low + high, high))


def walsh_hadamard(table: Float[AnyArray, "R"]) -> Float[Array, "R"]:
    """The mean over T of (-1)^|S and T| v(T), of every S: the game's Fourier coefficients over all sets alike.

    Its own inverse but for the division by 2^n.
    """
    return _transform(table, lambda low, high: ((low + high) / 2, (low - high) / 2))


def _transform(table: AnyArray, step: Step) -> Array:
    """`step` on the halves without and with a player, player by player."""
    n, x = num_players_of(table), jnp.asarray(table)
    for i in range(n):
        pairs = x.reshape(1 << (n - 1 - i), 2, 1 << i)
        x = jnp.stack(step(pairs[:, 0], pairs[:, 1]), axis=1)
    return x.reshape(1 << n)


@functools.cache
def sets_up_to(num_players: int, order: int) -> Int[np.ndarray, "M order"]:
    """All sets of 1 to `order` players, int32[M, order]: by size, then in order of the players; -1 fills up."""
    rows = [
        (*members, *(-1,) * (order - size))
        for size in range(1, order + 1)
        for members in itertools.combinations(range(num_players), size)
    ]
    return np.array(rows, np.int32).reshape(-1, order)


def derivative_sums(table: Float[AnyArray, "R"], order: int, *, generalised: bool = False) -> Float[Array, "M levels"]:
    """For every set S of `order` players or fewer: by size t, the sum over T outside S of D_S(T).

    Row 0 is of the empty set, whose derivative is v itself; the others follow as in `sets_up_to`. float[M, n + 1]:
    sizes that no T outside S has are 0. With `generalised` the sum is of v(T + S) - v(T), and of v(T) for the empty
    set.

    The players are taken one after the other. A row that has met some of them stands for those of S, and counts how
    many of the others are in T. It still has a number for every set of the players to come, of which the next player
    halves: in T or not, it moves the row's numbers by one size; in S, it makes a new row of their differences. The
    halving outweighs the new rows: all takes O(2^n) for a small order, and memory for a few tables.
    """
    n, x = num_players_of(table), jnp.asarray(table)
    if generalised:
        return _joint_sums(x, n, order)
    return _ordered(_sweep(x, n, order, lambda low, high: high - low), n, order)


def _joint_sums(x: Array, n: int, order: int) -> Array:
    there = _sweep(x, n, order, lambda low, high: high)
    absent = _sweep(x, n, order, lambda low, high: low)
    sums = _ordered(there, n, order) - _ordered(absent, n, order)
    return sums.at[0].set(_ordered(there, n, order)[0])


def _sweep(x: Array, n: int, order: int, joined: Callable[[Array, Array], Array]) -> Array:
    """[rows, n + 1]: `joined` is what becomes of the halves without and with a player of S."""
    rows = x.reshape(1, 1, 1 << n)  # sets S so far, sizes of T so far, sets of the players to come
    for met in range(n):
        half = rows.shape[2] // 2
        low, high = rows[..., :half], rows[..., half:]  # the last player to come is the highest bit
        free = jnp.pad(low, ((0, 0), (0, 1), (0, 0))) + jnp.pad(high, ((0, 0), (1, 0), (0, 0)))
        room = jnp.asarray(np.flatnonzero(_sizes(met, order) < order), jnp.int32)
        chosen = joined(low[room], high[room])
        rows = jnp.concatenate([free, jnp.pad(chosen, ((0, 0), (0, 1), (0, 0)))])
    return rows[..., 0]


@functools.cache
def _masks(met: int, order: int, n: int) -> tuple[int, ...]:
    """The sets that the rows of `_sweep` stand for once it has met so many players, the last of n first."""
    masks: tuple[int, ...] = (0,)
    for i in range(met):
        masks += tuple(m | 1 << (n - 1 - i) for m in masks if m.bit_count() < order)
    return masks


@functools.cache
def _sizes(met: int, order: int) -> Int[np.ndarray, "rows"]:
    return np.array([m.bit_count() for m in _masks(met, order, met)])


def _ordered(rows: Array, n: int, order: int) -> Array:
    """Rows of `_sweep` with the empty set first, and then as in `sets_up_to`."""
    return rows[jnp.asarray(_places(n, order))]


@functools.cache
def _places(n: int, order: int) -> Int[np.ndarray, "M"]:
    where = {mask: i for i, mask in enumerate(_masks(n, order, n))}
    wanted = [sum(1 << int(i) for i in row if i >= 0) for row in sets_up_to(n, order)]
    return np.array([where[mask] for mask in [0, *wanted]], np.int32)


def members(num_players: int, rows: Int[Array, "C"]) -> Array:
    """bool[C, P]: the sets of these rows of a table."""
    return (rows[:, None] >> jnp.arange(num_players)) & 1 == 1


__all__ = [
    "co_moebius",
    "derivative_sums",
    "inverse_moebius",
    "members",
    "moebius",
    "num_players_of",
    "sets_up_to",
    "walsh_hadamard",
]
