"""How much two orders of the same players agree.

Sources: Kendall, "A New Measure of Rank Correlation", Biometrika 1938; Spearman, "The Proof and Measurement of
Association between Two Things", American Journal of Psychology 1904. An order has no ties, so both take their simple
forms; they are symmetric in the two orders.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxmoxi.errors import InputError
from jaxmoxi.metrics._order import ranks_of
from jaxmoxi.metrics.registry import Column, Explained, Metric, Number, register
from jaxmoxi.moxi.curves import check_order
from jaxmoxi.types import AnyArray


class OrderAgreement(NamedTuple):
    """Two rank correlations, float32[] in [-1, 1]: 1 for the same order, -1 for its reverse, near 0 for unrelated.

    kendall_tau:  the share of pairs of players in the same succession less the share in the opposite one.
    spearman_rho: Pearson's correlation of the ranks, which weighs a player by how far it moved, squared.
    """

    kendall_tau: Float[Array, "*batch"]
    spearman_rho: Float[Array, "*batch"]


def order_agreement(order_a: Int[AnyArray, "P"], order_b: Int[AnyArray, "P"]) -> OrderAgreement:
    """Kendall's tau and Spearman's rho of the players' ranks in two orders; higher is more alike.

    order_a, order_b: int[P], permutations of 0 .. P-1. One player has no correlation: NaN. Takes O(P^2) memory.

    Goes under `jit` and `vmap`. Raises ValueError for orders of different lengths or that are no permutations.
    """
    a, b = _ranks(order_a, order_b)
    count = a.shape[0]
    same = jnp.sign(a[:, None] - a) * jnp.sign(b[:, None] - b)  # counts each pair of players twice
    moved = (a - b) / count  # as shares of the ranks, because the sum of whole squares would overflow
    distance = jnp.sum(jnp.square(moved)) / count  # in [0, 1/3)
    pairs = jnp.float32(count * (count - 1))
    squares = jnp.float32(count**2 - 1) / count**2
    return OrderAgreement(
        kendall_tau=jnp.sum(same) / pairs,
        spearman_rho=jnp.where(count > 1, 1 - 6 * distance / squares, jnp.nan),
    )


def top_k_overlap(
    order_a: Int[AnyArray, "P"],
    order_b: Int[AnyArray, "P"],
    k: int,
    *,
    how: Literal["jaccard", "share"] = "jaccard",
) -> Float[Array, ""]:
    """How much the first k players of two orders are the same ones, float32[] in [0, 1]; higher is more alike.

    order_a, order_b: int[P], permutations of 0 .. P-1.
    k:   1 .. P. At k = P the overlap is 1 whatever the orders.
    how: "jaccard", those in both over those in either; or "share", those in both over k, whose expectation for
         unrelated orders is k / P.

    Goes under `jit` and `vmap`. Raises ValueError for another k or `how`, and as `order_agreement`.
    """
    a, b = _ranks(order_a, order_b)
    count = a.shape[0]
    if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= count:
        raise InputError(f"k must be a whole number from 1 to the {count} players; got {k!r}")
    if how not in ("jaccard", "share"):
        raise InputError(f"how must be 'jaccard' or 'share'; got {how!r}")
    both = jnp.sum((a < k) & (b < k)).astype(jnp.float32)
    return both / (2 * k - both if how == "jaccard" else k)


def _ranks(order_a: Int[AnyArray, "P"], order_b: Int[AnyArray, "Q"]) -> tuple[Int[Array, "P"], Int[Array, "P"]]:
    a, b = check_order(order_a), check_order(order_b)
    if a.shape != b.shape:
        raise InputError(f"expected two orders of the same players; got {a.shape[0]} and {b.shape[0]} of them")
    return ranks_of(a), ranks_of(b)


_OURS = "moxi"


@jax.jit
def _taus(orders_a: Int[AnyArray, "N P"], orders_b: Int[AnyArray, "N P"]) -> Float[Array, "N"]:
    """Kendall's tau of each order of a stack with its counterpart."""
    return jax.vmap(lambda a, b: order_agreement(a, b).kendall_tau)(orders_a, orders_b)


def _measure(explained: Explained) -> Iterator[Number]:
    """Kendall's tau of each method's orders with MoXI's, the mean of insertion and deletion."""
    if _OURS not in explained.methods:  # MoXI does not apply to the model
        return
    ours = explained.orders[explained.methods.index(_OURS)]
    for method, orders in zip(explained.methods, explained.orders, strict=True):
        if method != _OURS:
            yield Number("agreement with moxi", method, "", float(np.mean(_taus(orders, ours))))


register(
    Metric(
        "agreement",
        _measure,
        columns=(Column("agreement with moxi", higher=True),),
        help="how much each order agrees with MoXI's",
        methods=(_OURS,),
        place=20,
    )
)
