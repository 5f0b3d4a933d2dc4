"""SVARM-IQ: means by size and by which of a set's players are there.

I(S) is a sum over sizes t and parts W of S of the mean of v over the coalitions of t players that hold W of S, and no
other of S. Every coalition counts for one such stratum of every set. The sums over a stratum follow from sums over the
coalitions that hold W, W and one more of S, ...: one tensor a size of coalitions.

As in `sampled`, what is estimated is what a linear game leaves over, the border is enumerated, and coalitions are drawn
in pairs where single players are explained.
"""

from __future__ import annotations

import functools
import itertools
from math import comb

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxmoxi.interactions.draws import Design, Draws, border_masks, draw, indices_by, mask_of, schedule
from jaxmoxi.interactions.lattice import sets_up_to
from jaxmoxi.interactions.methods import Fit, Method, Request, register
from jaxmoxi.interactions.moments import chunked
from jaxmoxi.interactions.sampled import linear_game, sampling_weights, standard_weights

_TENSOR_ENTRIES = 2**26  # a number for each size of coalitions and each tuple of players: 256 MiB


@functools.cache
def stratum_weights(request: Request, size: int) -> Float[np.ndarray, "sizes parts"]:
    """gamma_s(t, k) C(n - s, t - k): what the mean over those weighs that hold a given k of the s players."""
    n = request.num_players
    counts = [[comb(n - size, t - k) if t >= k else 0 for k in range(size + 1)] for t in range(n + 1)]
    rows = zip(standard_weights(request, size), counts, strict=True)
    return np.array([[float(w * c) for w, c in zip(*row, strict=True)] for row in rows])


def _design(request: Request) -> Design:
    paired = request.order == 1
    return Design(request.num_players, sampling_weights(request, paired=paired), paired=paired)


def _least(request: Request) -> int:
    design = _design(request)
    return design.per_unit * (design.border_units() + len(design.inner()))


def _refuse(request: Request) -> str | None:
    n, order = request.num_players, request.order
    if (n + 1) * n**order <= _TENSOR_ENTRIES:
        return None
    most = int(_TENSOR_ENTRIES ** (1 / (order + 1)))
    return f"has a mean for every size and every set, and takes at most {most} players for order {order}; got {n}"


def _plan(key: Array, request: Request, budget: int) -> Draws:
    return draw(key, _design(request), budget)


@functools.partial(jax.jit, static_argnums=2)
def _fit(draws: Draws, values: Array, request: Request) -> Fit:
    design, n, order = _design(request), request.num_players, request.order
    units = len(values) // design.per_unit
    linear = linear_game(values, design)
    sizes_of = np.concatenate([border_masks(design).sum(1), schedule(design, units - design.border_units())])
    if design.paired:
        sizes_of = np.stack([sizes_of, n - sizes_of], 1).ravel()
    indices = indices_by(sizes_of, list(range(n + 1)))
    tables = [jnp.asarray(stratum_weights(request, s), jnp.float32) for s in range(order + 1)]
    sizes = _strata_sizes(n, order, design.listed)

    def add(sums: tuple[Array, Array], operands: tuple[Array, Array]) -> tuple[tuple[Array, Array], None]:
        size, where = operands

        def moments(at: Array, there: Array) -> list[Array]:
            index = where[at]
            rows = jax.vmap(functools.partial(mask_of, draws))(jnp.maximum(index, 0))
            x = rows.astype(jnp.float32)
            left = linear.left(values[jnp.maximum(index, 0)], rows)
            kept = jnp.where(there & (index >= 0), 1.0, 0.0)
            powers = jnp.stack([kept, kept * left, kept * left**2])
            return [_products(powers, x, degree) for degree in range(order + 1)]

        tensors = chunked(moments, len(where))
        means, variances = [], []
        for s in range(order + 1):
            mean, variance = _strata(tensors, n, s, tables[s][size], sizes[s][size])
            means.append(mean)
            variances.append(variance)
        return (sums[0] + jnp.concatenate(means), sums[1] + jnp.concatenate(variances)), None

    blank = jnp.zeros(1 + len(sets_up_to(n, order)))
    (total, variance), _ = jax.lax.scan(add, (blank, blank), (jnp.arange(n + 1), jnp.asarray(indices)))
    total = total + linear.index_of(request)
    return Fit(total[0], total[1:], jnp.sqrt(variance)[1:])


@functools.cache
def _strata_sizes(n: int, order: int, listed: bool) -> list[Array]:
    """By size of S: float32[n + 1, s + 1], coalitions of a size that hold given k of S; infinite if not listed."""
    with jax.ensure_compile_time_eval():
        return [
            jnp.asarray(
                [[(float(comb(n - s, t - k)) if listed or min(t, n - t) < 2 else np.inf) if 0 <= t - k <= n - s else 0.0
                  for k in range(s + 1)] for t in range(n + 1)], jnp.float32)
            for s in range(order + 1)
        ]  # fmt: skip


def _products(powers: Float[Array, "3 C"], x: Float[Array, "C P"], degree: int) -> Array:
    """float[3, P, ..., P]: the sums of 1, v and v squared over coalitions that hold `degree` players."""
    axes = "abdefghijk"[:degree]
    spec = ",".join(["zc", *(f"c{axis}" for axis in axes)]) + "->z" + axes
    return jnp.einsum(spec, powers, *[x] * degree, precision="highest")


def _strata(tensors: list[Array], n: int, s: int, weights: Array, sizes: Array) -> tuple[Array, Array]:
    """For coalitions of one size, what they add to the index of the sets of s players, and its variance.

    A stratum is those that hold a given part of the set. One without a sample adds what the linear game says, and its
    mean square stands for the error; one with a single sample is taken to spread as all of this size do.
    """
    sets = sets_up_to(n, max(s, 1))
    sets = sets[(sets >= 0).sum(1) == s] if s else sets[:1]
    every = tensors[0][:, None]  # [3, 1], of all coalitions of this size
    count = jnp.maximum(every[0], 1)
    overall = every[2] / count
    by_part = {
        part: tensors[len(part)][(slice(None), *(sets[:, i] for i in part))] if part else every
        for k in range(s + 1)
        for part in itertools.combinations(range(s), k)
    }
    total, variance = jnp.zeros(len(sets)), jnp.zeros(len(sets))
    for part in by_part:
        above = [more for more in by_part if set(part) <= set(more)]
        signed = [(-1) ** (len(more) - len(part)) * by_part[more] for more in above]
        m, first, second = jnp.stack(jnp.broadcast_arrays(*signed)).sum(0)
        m, k = jnp.round(m), len(part)
        mean = jnp.where(m > 0, first / jnp.maximum(m, 1), 0)
        spread = jnp.maximum(second - m * mean**2, 0) / jnp.maximum(m - 1, 1)
        spread = jnp.where(m > 1, spread, overall)
        missing = jnp.maximum(1 - m / jnp.maximum(sizes[k], 1), 0)
        total = total + weights[k] * mean
        variance = variance + weights[k] ** 2 * spread / jnp.maximum(m, 1) * missing
    return total, variance


register(
    Method(
        name="svarm-iq",
        source="Kolpaczki, Muschalik, Fumagalli, Hammer and Huellermeier, 'SVARM-IQ: Efficient Approximation of "
        "Any-order Shapley Interactions through Stratification', AISTATS 2024",
        help="means by size and by which of a set's players are there; unbiased but for strata without a sample, for "
        "which the linear game stands",
        least=_least,
        plan=_plan,
        mask=mask_of,
        fit=_fit,
        draws_for=_design,
        refuse=_refuse,
    )
)
