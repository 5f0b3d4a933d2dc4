"""Insertion and deletion curves: how the payoff and the prediction change along an order of players.

Source: Petsiuk, Das and Saenko, "RISE", BMVC 2018, as MoXI uses them: patch by patch, by the classifier's masking.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from jaxmoxi.evaluate import read_generated
from jaxmoxi.types import AnyArray, Curve, is_concrete


def insertion_curve(v: Callable[..., Any], order: Int[AnyArray, "P"], *, batch_size: int | None = None) -> Curve:
    """The readout while the players of `order` become visible one after the other; higher area is better.

    Endpoints: size 0 is the empty coalition (everything hidden), size P the whole image. P + 1 values. The area is
    the trapezoid sum over the share of players k / P in [0, 1].

    v:     a value function. order: int[P], a permutation of 0 .. P-1, most important first.
    Raises ValueError for an order that is not a permutation, such as that of a search which stopped early.
    """
    return _curve(v, order, True, batch_size)


def deletion_curve(v: Callable[..., Any], order: Int[AnyArray, "P"], *, batch_size: int | None = None) -> Curve:
    """The readout while the players of `order` are hidden one after the other; lower area is better.

    Endpoints: size 0 is the whole image, size P the empty coalition. Otherwise as `insertion_curve`.
    """
    return _curve(v, order, False, batch_size)


def _curve(v: Callable[..., Any], order: Any, insertion: bool, batch_size: int | None) -> Curve:
    order = jnp.asarray(order)
    if order.ndim != 1 or not jnp.issubdtype(order.dtype, jnp.integer):
        raise ValueError(f"expected an order int[P]; got {order.dtype} of shape {order.shape}")
    num_players = order.shape[0]
    if is_concrete(order) and not np.array_equal(np.sort(order), np.arange(num_players)):
        missing = num_players - len(np.intersect1d(order, np.arange(num_players)))
        raise ValueError(
            f"expected a permutation of the players 0 .. {num_players - 1}; {missing} of them are missing: a search "
            "that stopped early has no complete order, run it with stop=None"
        )
    ranks = jnp.argsort(order)
    out = read_generated(
        v,
        _first if insertion else _without_first,
        ranks,
        count=num_players + 1,
        num_players=num_players,
        batch_size=batch_size,
    )
    return Curve(
        values=out.values,
        area=trapezoid_area(out.values),
        leads=out.leads,
        accuracy_area=None if out.leads is None else trapezoid_area(out.leads),
        probabilities=out.probabilities,
    )


def trapezoid_area(values: Any) -> Any:
    """The area under P + 1 equally spaced values over [0, 1], by the trapezoid rule; float32[]."""
    values = jnp.asarray(values, jnp.float32)
    return (jnp.sum(values) - (values[0] + values[-1]) / 2) / (values.shape[0] - 1)


def _first(ranks: Int[Array, "P"], size: Any) -> Bool[Array, "P"]:
    return ranks < size


def _without_first(ranks: Int[Array, "P"], size: Any) -> Bool[Array, "P"]:
    return ranks >= size
