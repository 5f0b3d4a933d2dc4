"""How well interaction values do: do they make the game again, and do they find the sets that matter?

*R^2*, or faithfulness: how much of the game's variance over coalitions the reconstruction `x.reconstruct` explains.
*Precision at k* and the *mean squared error* compare an estimate with the truth, set by set.

Sources: Tsai, Yeh and Ravikumar, "Faith-Shap", JMLR 2023 (faithfulness, and its weights of coalitions); Muschalik,
Baniecki, Fumagalli, Kolpaczki, Hammer and Hüllermeier, "shapiq: Shapley Interactions for Machine Learning", NeurIPS
2024 (precision at k, mean squared error); Baniecki et al., "Explaining Similarity in Vision-Language Encoders with
Weighted Banzhaf Interactions", NeurIPS 2025 (R^2 of a reconstruction of order two).
"""

from __future__ import annotations

from math import lgamma
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxmoxi.errors import InputError, nan_error
from jaxmoxi.games.base import ValueFn
from jaxmoxi.games.evaluation import evaluate
from jaxmoxi.games.imputation import RandomKey
from jaxmoxi.guards import deliberate
from jaxmoxi.interactions.lattice import members, num_players_of
from jaxmoxi.interactions.result import Interactions
from jaxmoxi.metrics.second_order import check_result
from jaxmoxi.pytrees import is_concrete
from jaxmoxi.types import AnyArray

Weights = Literal["uniform", "shapley"]

_ROUNDINGS = 84  # of the largest value: nearer to their mean, values vary by their rounding
_NUMBERS = 1 << 22  # of sets times coalitions that a chunk of the reconstruction looks at


@deliberate
def faithfulness_r2(
    key: RandomKey | None,
    v: ValueFn | Float[AnyArray, "R"],
    x: Interactions,
    *,
    masks: Bool[AnyArray, "C P"] | None = None,
    num_samples: int = 1000,
    weights: Weights = "uniform",
    batch_size: int | None = None,
) -> Float[Array, ""]:
    """R^2 of the additive reconstruction: 1 - (sum of w (v - v_x)^2) / (sum of w (v - mean)^2), at most 1, float32[].

    1: the sets of `x` and their values say all of the game on these coalitions; 0: no more than its mean says; below:
    less. Higher is better. v_x is `x.reconstruct`: the baseline and all sets within a coalition.

    key:         a JAX random key, by which coalitions are drawn; None where they are given.
    v:           the game, or its table of all values float[2^P] (`jm.interactions.values_table`).
    x:           interaction values of any index and order. Those of "FBII" have the best R^2 with "uniform" over all
                 coalitions, those of "FSII" with "shapley" among all that are right for nobody and everybody.
    masks:       bool[C, P], the coalitions; with None and no key all 2^P of a table. An estimate is judged on
                 coalitions that it was not fitted to.
    num_samples: coalitions drawn, at least 2, with repetition.
    weights:     "uniform": every coalition alike. "shapley": by (P - 1) / (C(P, t) t (P - t)) for t players, the
                 Shapley kernel: all sizes matter, small and large ones most, and nobody and everybody do not. Drawn
                 coalitions are drawn by these weights; given ones are weighted by them.
    batch_size:  coalitions per chunk of evaluations.

    NaN where the values differ by little more than their rounding (in float32, by less than 1e-5 of their size, as
    probabilities near 1 may): their variance would be that of the rounding. Costs as many evaluations as there are
    coalitions, none of a table. Goes under `jit`. Raises ValueError for arguments that do not fit together, and
    NaNValueError for a NaN value.
    """
    check_result(x)
    table = jnp.asarray(v) if isinstance(v, AnyArray) else None
    rows = _coalitions(key, table, x.num_players, masks, num_samples, weights)
    given = key is None
    if table is None:
        values = evaluate(v, rows, batch_size=batch_size)  # type: ignore[arg-type]
    else:
        values = table[rows.astype(jnp.int32) @ (1 << jnp.arange(x.num_players))]
    if is_concrete((values, rows)) and bool(np.isnan(values).any()):
        players = np.flatnonzero(np.asarray(rows)[int(np.argmax(np.isnan(values)))]).tolist()
        raise nan_error(f"for the coalition of players {players}")
    weight = jnp.asarray(_kernel(x.num_players), values.dtype)[rows.sum(1)] if given and weights == "shapley" else None
    return _r2(values, rebuilt(x, rows), weight)


def rebuilt(x: Interactions, masks: Bool[Array, "C P"]) -> Float[Array, "C"]:
    """`x.reconstruct`, in chunks, so that memory does not grow with the coalitions."""
    size = max(1, min(len(masks), _NUMBERS // max(1, x.sets.size)))
    return jax.lax.map(lambda mask: x.reconstruct(mask[None])[0], masks, batch_size=size)


@jax.jit
def _r2(values: Float[Array, "C"], said: Float[Array, "C"], weight: Float[Array, "C"] | None) -> Float[Array, ""]:
    weight = jnp.ones_like(values) if weight is None else weight
    total = jnp.sum(weight)
    share = weight / jnp.where(total > 0, total, 1)
    rest = values - jnp.sum(share * values)
    counted = weight > 0
    largest, furthest = (jnp.max(jnp.where(counted, jnp.abs(numbers), 0)) for numbers in (values, rest))
    level = furthest <= _ROUNDINGS * jnp.finfo(values.dtype).eps * largest
    spread = jnp.sum(share * rest**2)
    missed = jnp.sum(share * (values - said) ** 2)
    return jnp.where(level | (spread <= 0), jnp.nan, 1 - missed / jnp.where(spread > 0, spread, 1))


def _coalitions(
    key: RandomKey | None,
    table: Float[Array, "R"] | None,
    num_players: int,
    masks: Bool[AnyArray, "C P"] | None,
    num_samples: int,
    weights: str,
) -> Bool[Array, "C P"]:
    """The coalitions on which a reconstruction is judged. Raises InputError for arguments that do not fit together."""
    if weights not in ("uniform", "shapley"):
        raise InputError(f"weights must be 'uniform' or 'shapley'; got {weights!r}")
    if weights == "shapley" and num_players < 2:
        raise InputError("the Shapley kernel weighs coalitions of some players, not all: it needs two players or more")
    if table is not None and (table.ndim != 1 or num_players_of(table) != num_players):
        raise InputError(f"expected a table of the {2**num_players} values of {num_players} players; got {table.shape}")
    if masks is not None:
        rows = jnp.asarray(masks)
        if key is not None:
            raise InputError("expected coalitions once: a key that draws them, or masks; give key=None with masks")
        if rows.ndim != 2 or rows.shape[1] != num_players or rows.dtype != bool or len(rows) < 2:
            raise InputError(
                f"expected masks bool[C, {num_players}] of two coalitions or more; got {rows.dtype}{list(rows.shape)}"
            )
        return rows
    if key is None:
        if table is None:
            raise InputError("expected a key that draws coalitions, or masks; a table alone is judged on all of them")
        return members(num_players, jnp.arange(len(table)))
    if num_samples < 2:
        raise InputError(f"expected num_samples of at least 2, for a variance; got {num_samples}")
    if weights == "uniform":
        return jax.random.bernoulli(key, 0.5, (num_samples, num_players))
    sizes_key, ranks_key = jax.random.split(key)
    sizes = np.arange(1, num_players)
    share = 1 / (sizes * (num_players - sizes))
    size = jax.random.choice(sizes_key, jnp.asarray(sizes), (num_samples, 1), p=jnp.asarray(share / share.sum()))
    noise = jax.random.uniform(ranks_key, (num_samples, num_players))
    return jnp.argsort(jnp.argsort(noise, axis=1), axis=1) < size


def _kernel(num_players: int) -> Float[np.ndarray, "P1"]:
    """The weight of a coalition by its size, float64[P + 1], the largest 1: the Shapley kernel, 0 at both ends."""
    n, t = num_players, np.arange(1, num_players)
    ways = np.array([lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1) for k in t])
    logs = -ways - np.log(t * (n - t))
    return np.concatenate([[0.0], np.exp(logs - logs.max()), [0.0]])


@deliberate
def precision_at_k(estimate: Interactions, truth: Interactions, k: int, *, size: int | None = None) -> Float[Array, ""]:
    """The share of the k strongest sets of the truth that are among the k strongest of the estimate, in [0, 1].

    estimate, truth: values of one index for the same players, strength in absolute terms. Sets are matched by their
          players: the rows may stand in any order, and either may lack sets; what the estimate lacks it has not found.
    k:    from 1 to the sets of the truth. size: only sets of so many players count; None: all of them.

    Where sets are tied at the k-th strength, each counts by its chance to be among the k if ties are broken at random,
    for each result apart: sets that are all 0 are found as chance finds them, not because both list them alike. Higher
    is better. Goes under `jit` and `vmap`. Raises ValueError for results of different indices or players, another k or
    size, and outside `jit` for NaN.
    """
    _check_two(estimate, truth, size)
    count = truth.sets.shape[0]
    if size is not None and is_concrete(truth):
        count = int(np.sum(_of_size(truth, size)))
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or not 1 <= k <= count:
        raise InputError(f"k must be a whole number from 1 to the {count} sets of the truth; got {k!r}")
    return _precision(estimate, truth, jnp.int32(k), jnp.int32(size or 0))


@deliberate
def interaction_mse(estimate: Interactions, truth: Interactions, *, size: int | None = None) -> Float[Array, ""]:
    """The mean squared error of an estimate, over all sets that either has, float32[], at least 0; lower is better.

    estimate, truth: as `precision_at_k` takes them. A set that one of them lacks counts as 0 there, as in a sparse
          estimate; the baselines do not count. size: only sets of so many players count; None: all of them.

    In the payoff's units, squared. NaN where there is no such set. Goes under `jit` and `vmap`. Raises ValueError as
    `precision_at_k`.
    """
    _check_two(estimate, truth, size)
    return _mse(estimate, truth, jnp.int32(size or 0))


@jax.jit
def _precision(
    estimate: Interactions, truth: Interactions, k: Int[Array, ""], size: Int[Array, ""]
) -> Float[Array, ""]:
    ours, theirs, count = _places(estimate, truth)
    found = jnp.zeros(count).at[ours].add(_chance_of_top(estimate, k, size))
    wanted = jnp.zeros(count).at[theirs].add(_chance_of_top(truth, k, size))
    broken = jnp.isnan(estimate.values).any() | jnp.isnan(truth.values).any()
    return jnp.where(broken, jnp.nan, jnp.sum(found * wanted) / k)


@jax.jit
def _mse(estimate: Interactions, truth: Interactions, size: Int[Array, ""]) -> Float[Array, ""]:
    ours, theirs, count = _places(estimate, truth)
    one, other = _of_size(estimate, size), _of_size(truth, size)
    gap = jnp.zeros(count, jnp.result_type(estimate.values, truth.values))
    gap = gap.at[ours].add(jnp.where(one, estimate.values, 0)).at[theirs].add(-jnp.where(other, truth.values, 0))
    there = jnp.zeros(count, bool).at[ours].max(one).at[theirs].max(other)
    return jnp.sum(gap**2) / jnp.sum(there)


def _chance_of_top(x: Interactions, k: Int[Array, ""], size: Int[Array, ""]) -> Float[Array, "M"]:
    """The chance of each set to be among the k strongest, ties broken at random; 0 for those of other sizes."""
    counts = _of_size(x, size)
    strength = jnp.where(counts, jnp.abs(x.values), -1)
    edge = jnp.sort(strength)[jnp.maximum(0, strength.shape[0] - k)]
    above, tied = strength > edge, strength == edge
    left = jnp.minimum(k - jnp.sum(above), jnp.sum(tied))
    return jnp.where(counts, jnp.where(above, 1.0, jnp.where(tied, left / jnp.sum(tied), 0.0)), 0.0)


def _of_size(x: Interactions, size: int | Int[Array, ""]) -> Bool[Array, "M"]:
    """Which sets have so many players; a size of 0 means all of them."""
    return (size == 0) | (jnp.sum(x.sets >= 0, axis=1) == size)


def _places(a: Interactions, b: Interactions) -> tuple[Int[Array, "Ma"], Int[Array, "Mb"], int]:
    """One place for each set of players that a or b has: those of a's rows, those of b's, and how many at most."""
    width = max(a.sets.shape[1], b.sets.shape[1])
    rows = [jnp.pad(x.sets, ((0, 0), (0, width - x.sets.shape[1])), constant_values=-1) for x in (a, b)]
    sets = jnp.sort(jnp.concatenate(rows), axis=1)
    order = jnp.lexsort(sets.T)
    new = jnp.any(jnp.diff(sets[order], axis=0) != 0, axis=1)
    place = jnp.zeros(len(sets), jnp.int32).at[order].set(jnp.append(jnp.zeros(1, jnp.int32), jnp.cumsum(new)))
    return place[: len(a.sets)], place[len(a.sets) :], len(sets)


def _check_two(estimate: Interactions, truth: Interactions, size: int | None) -> None:
    check_result(estimate, "the estimate")
    check_result(truth, "the truth")
    if estimate.num_players != truth.num_players:
        raise InputError(f"expected the same players; got {estimate.num_players} and {truth.num_players} of them")
    if estimate.index and truth.index and estimate.index != truth.index:
        raise InputError(
            f"expected values of one index; the estimate has {estimate.index}, the truth {truth.index}. To compare "
            'them all the same, take the name away: estimate.replace(index="")'
        )
    most = max(estimate.order, truth.order)
    if size is not None and (isinstance(size, bool) or not isinstance(size, int) or not 1 <= size <= most):
        raise InputError(f"size must be a whole number from 1 to the order, {most}, or None; got {size!r}")
