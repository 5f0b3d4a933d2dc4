"""KernelSHAP-IQ: SII by one weighted least squares fit after the other.

The Shapley values are the linear game nearest to v under mu_1; SII of pairs is what fits best, under mu_2, what that
leaves over; and so on (Fumagalli, Muschalik, Kolpaczki, Huellermeier and Hammer, "KernelSHAP-IQ: Weighted Least Square
Optimization for Shapley Interactions", ICML 2024). In the fit of sets of s players a coalition counts a set by
lambda(s, |S and T|), a sum of Bernoulli's numbers, and weighs mu_s(t) = 1 / ((n - 2 s + 1) C(n - 2 s, t - s)) for sizes
from s to n - s.

The weight of the other sizes is infinite in the paper, and a large number in shapiq. Here they are constraints: met
first and as well as they can be, and the rest is fitted where they leave it free. They are enumerated. From sets of
three players on, what those sizes add to the index is summed exactly and the fit has a target of 0 there, as in shapiq;
that this gives SII is a conjecture of the paper, and tested for up to 8 players.

k-SII is a sum of SII of larger sets (Bordt and von Luxburg, AISTATS 2023).
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from math import comb

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxmoxi.interactions.draws import (
    Design,
    Draws,
    border_masks,
    draw,
    group_of,
    mask_of,
    missed,
    stands_for,
    uniform_sizes,
)
from jaxmoxi.interactions.indices import bernoulli
from jaxmoxi.interactions.least_squares import Rows, Solution, row_space, scores, solve
from jaxmoxi.interactions.methods import Fit, Method, Request, register
from jaxmoxi.interactions.moments import chunked, mapped
from jaxmoxi.interactions.orders import aggregated
from jaxmoxi.interactions.regression import refuse_features

_CONSISTENT = 2  # up to this size the outer sizes' residuals are met; above, they are summed


def _design(request: Request) -> Design:
    n, order = request.num_players, request.order
    paired = order == 1
    weights = [w / max(1, t * (n - t)) for t, w in enumerate(uniform_sizes(n, paired=paired))]
    return Design(n, tuple(weights), border=order, paired=paired, first=0, shifted=True)


def _least(request: Request) -> int:
    n, order, design = request.num_players, request.order, _design(request)
    free = comb(n, order) - (comb(n, order - 1) if 2 * order <= n else 0)
    return design.per_unit * (design.border_units() + free + 2)


def _plan(key: Array, request: Request, budget: int) -> Draws:
    return draw(key, _design(request), budget)


@functools.cache
def _counts(size: int) -> Float[np.ndarray, "parts"]:
    """lambda(s, k)."""
    return np.array([
        float(sum(comb(k, i) * bernoulli(size - i) for i in range(1, k + 1))) for k in range(size + 1)
    ])  # fmt: skip


@functools.cache
def _sets(n: int, size: int) -> np.ndarray:
    return np.array(list(itertools.combinations(range(n), size)), np.int32).reshape(-1, size)


@functools.cache
def _masses(n: int, size: int) -> Float[np.ndarray, "sizes"]:
    """mu_s(t) C(n, t): what all coalitions of a size weigh together; 0 for the outer sizes."""
    found = np.zeros(n + 1)
    for t in range(size, n - size + 1):
        found[t] = comb(n, t) / ((n - 2 * size + 1) * comb(n - 2 * size, t - size))
    return found / max(found.max(), 1e-300)


class _Outer:
    """The outer sizes of one fit.

    rows:  which coalitions they are.
    basis: what they hold of the unknowns.
    start: [M, rows], from their residuals to where the fit begins.
    added: [M, rows], from their residuals to what they add to the index after it.
    """

    def __init__(self, design: Design, size: int):
        n = design.num_players
        masks = border_masks(design)
        masks = np.stack([masks, ~masks], 1).reshape(-1, n) if design.paired else masks
        sizes = masks.sum(1)
        self.rows = np.flatnonzero((sizes < size) | (sizes > n - size))
        there = masks[self.rows][:, _sets(n, size)].sum(2)
        features = _counts(size)[there]
        # A coalition and its complement say the same of the unknowns, but for a sign: one of the two holds them.
        self.basis = row_space(features[sizes[self.rows] > n - size] if 2 * size <= n else features)
        self.start, self.added = np.zeros(features.T.shape), np.zeros(features.T.shape)
        if size <= _CONSISTENT:
            self.start = np.linalg.pinv(features)
        else:
            outside = sizes[self.rows][:, None] - there
            fits = (outside >= 0) & (outside <= n - size)
            share = np.array([1 / ((n - size + 1) * comb(n - size, t)) for t in range(n - size + 1)])
            self.added = np.where(fits, (-1.0) ** (size - there) * share[np.clip(outside, 0, n - size)], 0).T


@functools.cache
def _outer(design: Design, size: int) -> _Outer:
    return _Outer(design, size)


@functools.partial(jax.jit, static_argnums=2)
def _fit(draws: Draws, values: Array, request: Request) -> Fit:
    design, n, order = _design(request), request.num_players, request.order
    units, each = len(values) // design.per_unit, design.per_unit
    scale = jnp.asarray(stands_for(design, units), jnp.float32)
    left = values[: units * each] - values[0]

    def masks(index: Array) -> Array:
        return jax.vmap(functools.partial(mask_of, draws))(index)

    def rows_of(size: int) -> Rows:
        masses, counts = jnp.asarray(_masses(n, size), jnp.float32), jnp.asarray(_counts(size), jnp.float32)
        sets = _sets(n, size)

        def rows(index: Array) -> tuple[Array, Array]:
            there = masks(index)
            size_of = there.sum(1)
            half = jnp.where((2 * size_of == n) & design.paired, 0.5, 1.0)
            together = sum(there[:, sets[:, i]].astype(jnp.int32) for i in range(sets.shape[1]))
            return counts[together], masses[size_of] * scale[group_of(design, there)] * half

        return rows

    found, fits = [], []
    for size in range(1, order + 1):
        rows, outer = rows_of(size), _outer(design, size)
        met = left[outer.rows]
        solution = solve(rows, left, _dot(outer.start, met), outer.basis)
        found.append(solution.x + _dot(outer.added, met))
        fits.append((solution, rows, left))
        left = left - mapped(functools.partial(_said, rows, found[-1]), len(left))
    sii = jnp.concatenate(found)
    errors = _errors(fits, request, design, masks, units)
    if request.index == "k-SII":
        sii = aggregated(sii, n, order)
    return Fit(values[0], sii, errors)


def _said(rows: Rows, x: Array, index: Array) -> Float[Array, "C"]:
    """What the unknowns say of these coalitions."""
    return jnp.matmul(rows(index)[0], x, precision="highest")


def _errors(
    fits: list[tuple[Solution, Rows, Array]],
    request: Request,
    design: Design,
    masks: Callable[[Array], Array],
    units: int,
) -> Float[Array, "M"]:
    """From how much each unit moves every fit. An earlier fit's error moves the later ones by less than its order."""
    rest = jnp.asarray(missed(design, units), jnp.float32)
    each = design.per_unit

    def squares(unit: Array, there: Array) -> list[Array]:
        parts = [scores(solution, rows, left, unit, each) for solution, rows, left in fits]
        moved = jnp.concatenate(parts, axis=1).T
        if request.index == "k-SII":
            moved = aggregated(moved, request.num_players, request.order)
        missing = rest[group_of(design, masks(each * unit))]
        return [(moved**2 * jnp.where(there, missing, 0)).sum(1)]

    (variance,) = chunked(squares, units)
    return jnp.sqrt(variance)


def _dot(a: np.ndarray, b: Array) -> Array:
    return jnp.matmul(jnp.asarray(a, jnp.float32), b, precision="highest")


def _unknowns(request: Request) -> int:
    return comb(request.num_players, request.order)


def _refuse(request: Request) -> str | None:
    if 2 * request.order > request.num_players:
        return f"needs two players for each of a set: 2 * {request.order} are more than {request.num_players}"
    return refuse_features(request, _unknowns(request))


register(
    Method(
        name="kernel-shap-iq",
        source="Fumagalli, Muschalik, Kolpaczki, Huellermeier and Hammer, 'KernelSHAP-IQ: Weighted Least Square "
        "Optimization for Shapley Interactions', ICML 2024",
        help="SII by weighted least squares, each size fitted to what the smaller ones leave over",
        indices=frozenset({"SII", "k-SII", "SV"}),
        least=_least,
        plan=_plan,
        mask=mask_of,
        fit=_fit,
        draws_for=_design,
        refuse=_refuse,
    )
)
