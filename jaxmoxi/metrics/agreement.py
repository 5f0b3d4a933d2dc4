"""How much two orders, or the scores of two methods, agree about the same players.

Sources: Kendall, "A New Measure of Rank Correlation", Biometrika 1938, and "The Treatment of Ties in Ranking Problems",
Biometrika 1945 (tau-b and mid-ranks); Spearman, "The Proof and Measurement of Association between Two Things", American
Journal of Psychology 1904. An order has no ties, so its correlations take their simple forms. Scores have ties, many of
them where a method clips at zero. An order made of such scores is arbitrary among equals, and two such orders agree
more, or less, than their scores do; compare the scores themselves.
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
from jaxmoxi.pytrees import is_concrete
from jaxmoxi.types import AnyArray


class OrderAgreement(NamedTuple):
    """Two rank correlations, float32[] in [-1, 1]: 1 for the same order, -1 for its reverse, near 0 for unrelated.

    kendall_tau:  the share of pairs of players in the same succession less the share in the opposite one; of scores
                  with ties, tau-b: among the pairs that are tied in neither (geometric mean of both counts).
    spearman_rho: Pearson's correlation of the ranks, which weighs a player by how far it moved, squared; equal scores
                  share the mean of their ranks.
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


def score_agreement(scores_a: Float[AnyArray, "P"], scores_b: Float[AnyArray, "P"]) -> OrderAgreement:
    """Kendall's tau-b and Spearman's rho, with mid-ranks, of the scores that two methods give to the same players.

    scores_a, scores_b: float[P], higher is more important; any numbers, ties included. Only comparisons count.

    Scores without ties agree as their orders do (`order_agreement`). Scores that are all equal rank nothing: both are
    NaN. Takes O(P^2) memory. Goes under `jit` and `vmap`, where a NaN score makes both NaN.
    Raises ValueError for scores of different players, and outside `jit` for NaN.
    """
    a, b = _scores(scores_a, scores_b)
    above_a, above_b = (jnp.sign(x[:, None] - x) for x in (_dense(a), _dense(b)))
    same = jnp.sum(above_a * above_b)
    untied = jnp.sqrt(jnp.sum(jnp.abs(above_a))) * jnp.sqrt(jnp.sum(jnp.abs(above_b)))
    # A player's rank less the mean rank is half of what it is above, less what it is below.
    middle_a, middle_b = (jnp.mean(above, axis=1) for above in (above_a, above_b))
    spread = jnp.sqrt(jnp.sum(middle_a**2)) * jnp.sqrt(jnp.sum(middle_b**2))
    defined = (untied > 0) & ~jnp.isnan(a).any() & ~jnp.isnan(b).any()
    return OrderAgreement(
        kendall_tau=jnp.where(defined, same / jnp.where(defined, untied, 1), jnp.nan),
        spearman_rho=jnp.where(defined, jnp.sum(middle_a * middle_b) / jnp.where(defined, spread, 1), jnp.nan),
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
    _check_top(k, a.shape[0], how)
    both = jnp.sum((a < k) & (b < k)).astype(jnp.float32)
    return both / (2 * k - both if how == "jaccard" else k)


def top_k_score_overlap(
    scores_a: Float[AnyArray, "P"],
    scores_b: Float[AnyArray, "P"],
    k: int,
    *,
    how: Literal["jaccard", "share"] = "jaccard",
) -> Float[Array, ""]:
    """How much the k highest scoring players of two methods are the same ones, float32[] in [0, 1].

    scores_a, scores_b: float[P], higher is more important.
    k, how: as `top_k_overlap` takes them.

    Where players are tied at the k-th score, each of them counts by its chance to be among the k if ties are broken at
    random, for each method apart; the overlap then follows from the expected number of players in both. Scores that are
    all equal therefore overlap with anything as chance does, in a share of k / P. Without ties this is `top_k_overlap`.

    Goes under `jit` and `vmap`, where a NaN score makes it NaN. Raises ValueError as `top_k_overlap` and
    `score_agreement` do.
    """
    a, b = _scores(scores_a, scores_b)
    _check_top(k, a.shape[0], how)
    both = jnp.sum(_chance_of_top(a, k) * _chance_of_top(b, k))
    both = jnp.where(jnp.isnan(a).any() | jnp.isnan(b).any(), jnp.nan, both)
    return both / (2 * k - both if how == "jaccard" else k)


def _chance_of_top(scores: Float[Array, "P"], k: int) -> Float[Array, "P"]:
    """The chance of each player to be among the k highest scores where ties are broken at random, float32[P]."""
    edge = jnp.sort(scores)[scores.shape[0] - k]
    above, tied = scores > edge, scores == edge
    left = k - jnp.sum(above)
    return jnp.where(above, 1.0, jnp.where(tied, left / jnp.sum(tied), 0.0)).astype(jnp.float32)


def _dense(scores: Float[Array, "P"]) -> Int[Array, "P"]:
    """How many scores lie below each, int32[P]: the differences of infinities and of tiny numbers have no sign."""
    return jnp.sum(scores[:, None] > scores, axis=1, dtype=jnp.int32)


def _check_top(k: int, count: int, how: str) -> None:
    if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= count:
        raise InputError(f"k must be a whole number from 1 to the {count} players; got {k!r}")
    if how not in ("jaccard", "share"):
        raise InputError(f"how must be 'jaccard' or 'share'; got {how!r}")


def _scores(
    scores_a: Float[AnyArray, "P"], scores_b: Float[AnyArray, "Q"]
) -> tuple[Float[Array, "P"], Float[Array, "P"]]:
    a, b = jnp.asarray(scores_a), jnp.asarray(scores_b)
    for x in (a, b):
        if x.ndim != 1 or x.shape[0] < 1 or not jnp.issubdtype(x.dtype, jnp.floating):
            raise InputError(
                f"expected scores float[P], one a player; got {x.dtype} of shape {list(x.shape)}: orders are compared "
                "by order_agreement and top_k_overlap"
            )
        if is_concrete(x) and jnp.isnan(x).any():
            raise InputError(f"the score of player {int(jnp.argmax(jnp.isnan(x)))} is NaN; scores must be numbers")
    if a.shape != b.shape:
        raise InputError(f"expected scores of the same players; got {a.shape[0]} and {b.shape[0]} of them")
    return a.astype(jnp.float32), b.astype(jnp.float32)


def _ranks(order_a: Int[AnyArray, "P"], order_b: Int[AnyArray, "Q"]) -> tuple[Int[Array, "P"], Int[Array, "P"]]:
    a, b = check_order(order_a), check_order(order_b)
    if a.shape != b.shape:
        raise InputError(f"expected two orders of the same players; got {a.shape[0]} and {b.shape[0]} of them")
    return ranks_of(a), ranks_of(b)


_OURS = "moxi"


@jax.jit
def _taus(scores_a: Float[AnyArray, "N P"], scores_b: Float[AnyArray, "N P"]) -> Float[Array, "N"]:
    """Kendall's tau-b of each row of scores with its counterpart."""
    return jax.vmap(lambda a, b: score_agreement(a, b).kendall_tau)(scores_a, scores_b)


def _measure(explained: Explained) -> Iterator[Number]:
    """Kendall's tau-b of each method's scores with MoXI's, the mean of insertion and deletion.

    Scores are compared, not orders: where a method's scores are tied, its order is arbitrary. NaN where all are tied.
    """
    if _OURS not in explained.methods:  # MoXI does not apply to the model
        return
    ours = explained.scores[explained.methods.index(_OURS)]
    for method, scores in zip(explained.methods, explained.scores, strict=True):
        if method != _OURS:
            yield Number("agreement with moxi", method, "", float(np.mean(_taus(scores, ours))))


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
