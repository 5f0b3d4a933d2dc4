"""Insertion and deletion curves: how the payoff and the prediction change along an order of players.

Source: Petsiuk, Das and Saenko, "RISE", BMVC 2018, as MoXI uses them: patch by patch, by the classifier's masking.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Shaped

from jaxmoxi.errors import InputError
from jaxmoxi.games.base import ValueFn, as_game
from jaxmoxi.games.evaluation import read_generated
from jaxmoxi.pytrees import is_concrete
from jaxmoxi.types import AnyArray, Curve, Readout


def insertion_curve(v: ValueFn, order: Int[AnyArray, "P"], *, batch_size: int | None = None) -> Curve:
    """The readout while the players of `order` become visible one after the other; higher area is better.

    Endpoints: size 0 is the empty coalition (everything hidden), size P the whole image. P + 1 values. The area is
    the trapezoid sum over the share of players k / P in [0, 1].

    v:     a value function. order: int[P], a permutation of 0 .. P-1, most important first.
    Raises ValueError for an order that is not a permutation, such as that of a search which stopped early.
    """
    return _curve(v, order, True, batch_size)


def deletion_curve(v: ValueFn, order: Int[AnyArray, "P"], *, batch_size: int | None = None) -> Curve:
    """The readout while the players of `order` are hidden one after the other; lower area is better.

    Endpoints: size 0 is the whole image, size P the empty coalition. Otherwise as `insertion_curve`.
    """
    return _curve(v, order, False, batch_size)


def curve_readouts(
    v: ValueFn,
    orders: Int[AnyArray, "M P"],
    *,
    insertion: bool = True,
    sizes: Sequence[int] | None = None,
    batch_size: int | None = None,
) -> Readout:
    """The readouts along many orders of one game at once, each array [M, S]: what a comparison of methods needs.

    orders:    int[M, P], permutations of 0 .. P-1, most important first.
    insertion: True: the first players of an order are visible; False: all but them.
    sizes:     how many are inserted (deleted), S ascending numbers in 0 .. P; None means all of 0 .. P.

    A value function that gains from `max_visible` runs in four sizes, each coalition in the smallest that holds it.
    Raises ValueError for orders that are no permutations, and for sizes out of range or order.
    """
    orders = jnp.asarray(orders)
    if orders.ndim != 2:
        raise InputError(f"expected orders int[M, P]; got shape {orders.shape}: order[None] makes one of one")
    for row in orders if is_concrete(orders) else ():
        check_order(row)
    count, num_players = orders.shape
    at = np.arange(num_players + 1) if sizes is None else np.asarray(sizes)
    if at.ndim != 1 or not len(at) or at.dtype.kind not in "iu" or at[0] < 0 or at[-1] > num_players or (
        np.diff(at) <= 0
    ).any():  # fmt: skip
        raise InputError(f"expected ascending sizes in 0 .. {num_players}; got {sizes}")
    game = as_game(v)
    ranks = jnp.argsort(orders, axis=1).astype(jnp.int32)
    visible = at if insertion else num_players - at
    limits = sorted({-(-num_players * k // 4) for k in (1, 2, 3, 4)}) if game.sized else [num_players]
    parts, places, low = [], [], -1
    for limit in limits:
        chosen = np.flatnonzero((visible > low) & (visible <= limit))
        low = limit
        if len(chosen):
            parts.append(
                read_generated(
                    game,
                    _row_first if insertion else _row_without_first,
                    (ranks, jnp.asarray(at[chosen], jnp.int32)),
                    count=count * len(chosen),
                    num_players=num_players,
                    batch_size=batch_size,
                    max_visible=limit,
                )
            )
            places.append(chosen)
    back = np.argsort(np.concatenate(places))
    rows = [jax.tree.map(lambda x: x.reshape(count, -1), part) for part in parts]
    return jax.tree.map(lambda *xs: jnp.concatenate(xs, axis=1)[:, back], *rows)


def _row_first(operands: tuple[Int[Array, "M P"], Int[Array, "S"]], index: Int[Array, ""]) -> Bool[Array, "P"]:
    ranks, sizes = operands
    return ranks[index // len(sizes)] < sizes[index % len(sizes)]


def _row_without_first(operands: tuple[Int[Array, "M P"], Int[Array, "S"]], index: Int[Array, ""]) -> Bool[Array, "P"]:
    return ~_row_first(operands, index)


def check_order(order: Int[AnyArray, "P"]) -> Int[Array, "P"]:
    """The order as int32[P].

    Raises ValueError for another shape or dtype, and for an order that is no permutation of the players 0 .. P-1. The
    values of a traced order are not known, so only its shape and dtype are checked.
    """
    order = jnp.asarray(order)
    if order.ndim != 1 or order.shape[0] < 1 or not jnp.issubdtype(order.dtype, jnp.integer):
        raise InputError(f"expected an order int[P]; got {order.dtype} of shape {list(order.shape)}")
    num_players = order.shape[0]
    if is_concrete(order) and not np.array_equal(np.sort(order), np.arange(num_players)):
        missing = num_players - len(np.intersect1d(order, np.arange(num_players)))
        raise InputError(
            f"expected a permutation of the players 0 .. {num_players - 1}; {missing} of them are missing: a search "
            "that stopped early has no complete order, run it with stop=None"
        )
    return order.astype(jnp.int32)


def _curve(v: ValueFn, order: Int[AnyArray, "P"], insertion: bool, batch_size: int | None) -> Curve:
    rows = curve_readouts(v, check_order(order)[None], insertion=insertion, batch_size=batch_size)
    out = jax.tree.map(lambda row: row[0], rows)
    return Curve(
        values=out.values,
        area=trapezoid_area(out.values),
        leads=out.leads,
        accuracy_area=None if out.leads is None else trapezoid_area(out.leads),
        probabilities=out.probabilities,
    )


def trapezoid_area(values: Shaped[AnyArray, "P1"]) -> Float[Array, ""]:
    """The area under P + 1 equally spaced values over [0, 1], by the trapezoid rule; float32[]."""
    values = jnp.asarray(values, jnp.float32)
    return (jnp.sum(values) - (values[0] + values[-1]) / 2) / (values.shape[0] - 1)
