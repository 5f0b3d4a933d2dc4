"""SHAP-IQ: the mean over drawn coalitions of their weighted values.

Every index is a sum over all coalitions of v(T) gamma_s(|T|, |T and S|), with gamma_s(t, k) = (-1)^(s-k) p_s(t-k). The
border, nobody, everybody, all single players and all others of one, is enumerated; of the other sizes coalitions are
drawn, each serving all sets at once.

What is estimated is what a linear game leaves over: c + sum over i in T of b_i, where c is v of nobody and b_i the mean
of what player i adds to nobody and to all others. The border gives it, and its index is known; the estimate stays
unbiased, at half the mean squared error on image games. (The paper and shapiq subtract c alone.)

A coalition comes with its complement where single players are explained: then the mean squared error is a fifth. Of
pairs of players a complement says much the same as the coalition, and coalitions are drawn one by one: half the error.
"""

from __future__ import annotations

import functools
from fractions import Fraction
from math import comb
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxmoxi.interactions.draws import (
    Design,
    Draws,
    binomial_sizes,
    border_masks,
    draw,
    group_of,
    indices_by,
    mask_of,
    missed,
    schedule,
    stands_for,
    uniform_sizes,
)
from jaxmoxi.interactions.indices import INDICES, derivative_weights
from jaxmoxi.interactions.lattice import sets_up_to
from jaxmoxi.interactions.methods import Fit, Method, Request, register
from jaxmoxi.interactions.moments import set_sums


@functools.cache
def standard_weights(request: Request, size: int) -> tuple[tuple[Fraction, ...], ...]:
    """gamma_s(t, k) for t = 0 .. n and k = 0 .. s, exact. A generalised value has weights for k = 0 and k = s alone."""
    n, index = request.num_players, INDICES[request.index]
    if size == 0 and not index.intercept:
        return tuple((Fraction(t == 0),) for t in range(n + 1))
    p = derivative_weights(request.index, n, size, request.order, request.p)

    def at(t: int, k: int) -> Fraction:
        if not 0 <= t - k <= n - size or (index.generalised and 0 < k < size):
            return Fraction(0)
        sign = -1 if index.generalised and k < size else (-1) ** (size - k)
        return sign * p[t - k]

    return tuple(tuple(at(t, k) for k in range(size + 1)) for t in range(n + 1))


@functools.cache
def size_weights(request: Request, size: int) -> Float[np.ndarray, "sizes parts"]:
    """gamma_s(t, k) C(n, t): what the mean over coalitions of t players weighs."""
    n = request.num_players
    return np.array([[float(w * comb(n, t)) for w in row] for t, row in enumerate(standard_weights(request, size))])


class Linear(NamedTuple):
    """The game c + sum over i in T of b_i."""

    constant: Float[Array, ""]
    slopes: Float[Array, "P"]

    def left(self, values: Float[Array, "C"], masks: Array) -> Float[Array, "C"]:
        """What the game leaves over of the values of these coalitions."""
        return values - self.constant - jnp.matmul(masks.astype(jnp.float32), self.slopes, precision="highest")

    def index_of(self, request: Request) -> Float[Array, "sets"]:
        """Its index: of nobody, and of the sets of `sets_up_to`."""
        n, order, index = request.num_players, request.order, INDICES[request.index]
        single = index.weight(0, 1, order, request.p) if index.intercept else 0
        sets = sets_up_to(n, order)
        counted = (sets >= 0) & ((sets >= 0).sum(1, keepdims=True) <= (order if index.generalised else 1))
        values = jnp.where(counted, self.slopes[np.maximum(sets, 0)], 0).sum(1)
        return jnp.concatenate([(self.constant + float(single) * self.slopes.sum())[None], values])


def linear_game(values: Float[Array, "m"], design: Design) -> Linear:
    """From the first coalitions of a design, its border."""
    n = design.num_players
    masks = border_masks(design)
    masks = np.stack([masks, ~masks], 1).reshape(-1, n) if design.paired else masks
    sizes = masks.sum(1)
    rows = {size: np.flatnonzero(sizes == size) for size in (0, 1, n - 1, n)}
    alone = rows[1][np.argsort(masks[rows[1]].argmax(1))]
    others = rows[n - 1][np.argsort(masks[rows[n - 1]].argmin(1))]
    nobody, everybody = values[rows[0][0]], values[rows[n][0]]
    return Linear(nobody, (values[alone] - nobody + everybody - values[others]) / 2)


def sampling_weights(request: Request, *, paired: bool) -> tuple[float, ...]:
    """How often each size is drawn.

    For Banzhaf's indices as often as it comes where players are there with chance p. Else all alike for single players,
    and by Shapley's kernel, 1 / (t (n - t)), for sets: what small and large coalitions say of a pair weighs more.
    """
    n = request.num_players
    if request.index in ("BV", "BII", "FBII", "BGV"):
        return binomial_sizes(n, float(request.p), paired=paired)
    even = uniform_sizes(n, paired=paired)
    return even if request.order == 1 else tuple(w / max(1, t * (n - t)) for t, w in enumerate(even))


def _design(request: Request) -> Design:
    paired = request.order == 1
    return Design(request.num_players, sampling_weights(request, paired=paired), paired=paired, shifted=True)


def _least(request: Request) -> int:
    design = _design(request)
    return design.per_unit * (design.border_units() + 2 * (len(design.inner()) if design.listed else 1))


def _plan(key: Array, request: Request, budget: int) -> Draws:
    return draw(key, _design(request), budget)


@functools.partial(jax.jit, static_argnums=2)
def _fit(draws: Draws, values: Array, request: Request) -> Fit:
    design, n, order = _design(request), request.num_players, request.order
    units = len(values) // design.per_unit
    linear = linear_game(values, design)
    tables = [jnp.asarray(size_weights(request, s), jnp.float32) for s in range(order + 1)]

    def masks(unit: Array) -> Array:
        return jax.vmap(functools.partial(mask_of, draws))(design.per_unit * jnp.maximum(unit, 0))

    def terms(unit: Array, rows: Array) -> list[Array]:
        """What a unit says of sets that hold 0, 1, ... of the players of its (first) coalition."""
        size = rows.sum(1)
        one = linear.left(values[design.per_unit * unit], rows)[:, None]
        if not design.paired:
            return [t[size] * one for t in tables]
        other = linear.left(values[2 * unit + 1], ~rows)[:, None]
        half = jnp.where(2 * size == n, 0.5, 1.0)[:, None]
        return [half * (t[size] * one + t[n - size][:, ::-1] * other) for t in tables]

    def sums(indices: Array, power: int, scales: Array | None = None) -> Array:
        """Sums over the units of these indices, of which -1 is none, of their scaled terms' power."""

        def weigh(at: Array, rows: Array) -> list[Array]:
            unit = indices[at]
            scale = jnp.where(unit >= 0, 1.0, 0.0)
            scale = scale if scales is None else scale * scales[group_of(design, rows)]
            return [(scale[:, None] * t) ** power for t in terms(jnp.maximum(unit, 0), rows)]

        found = set_sums(lambda at: masks(indices[at]), weigh, count=len(indices), num_players=n, order=order)
        return jnp.concatenate(found)

    first, weight = design.border_units(), stands_for(design, units)
    total = linear.index_of(request) + sums(jnp.arange(first), 1, jnp.asarray(weight, jnp.float32))
    if not design.listed:
        drawn = units - first
        indices, scales = first + jnp.arange(drawn), jnp.asarray(weight * drawn, jnp.float32)
        mean, square = sums(indices, 1, scales) / drawn, sums(indices, 2, scales) / drawn
        variance = jnp.maximum(square - mean**2, 0) / (drawn - 1)
        return Fit((total + mean)[0], (total + mean)[1:], jnp.sqrt(variance)[1:])

    def of_group(operands: tuple[Array, Array, Array]) -> tuple[Array, Array]:
        indices, m, rest = operands
        mean, square = sums(indices, 1) / m, sums(indices, 2) / m
        return mean, rest * jnp.maximum(square - mean**2, 0) / jnp.maximum(m - 1, 1)

    inner = design.inner()
    indices = indices_by(schedule(design, units - first), inner)
    counts = jnp.asarray((indices >= 0).sum(1), jnp.float32)
    rest = jnp.asarray(missed(design, units)[inner], jnp.float32)
    indices = jnp.asarray(np.where(indices >= 0, indices + first, -1))
    means, variances = jax.lax.map(of_group, (indices, counts, rest))
    total = total + means.sum(0)
    return Fit(total[0], total[1:], jnp.sqrt(variances.sum(0))[1:])


register(
    Method(
        name="shap-iq",
        source="Fumagalli, Muschalik, Kolpaczki, Huellermeier and Hammer, 'SHAP-IQ: Unified Approximation of any-order "
        "Shapley Interactions', NeurIPS 2023",
        help="the mean over drawn coalitions of their weighted values; unbiased, for every index",
        least=_least,
        plan=_plan,
        mask=mask_of,
        fit=_fit,
        draws_for=_design,
    )
)
