"""Interactions by a sparse polynomial: few sets of players matter, and which ones follows from the values.

The game is a sum of Fourier coefficients, v(T) = sum over A of c_A prod(z_i for i in A), where z_i = 1 for a player in
T, else -1. All single players are kept, the pairs whose products agree most with what single players leave, and the
sets of three that grow from the strongest pairs and agree with what pairs leave: large sets matter where their parts
do. Every coefficient has a prior variance of its own, which the values choose (automatic relevance determination):
coefficients that explain nothing go to zero.

Sources: Kang et al., "SPEX: Scaling Feature Interaction Explanations for LLMs", ICML 2025, and Butler et al.,
"ProxySPEX", NeurIPS 2025, for the sparse spectrum and its hierarchy; MacKay, "Bayesian Interpolation", 1992, and
Tipping, "Sparse Bayesian Learning and the Relevance Vector Machine", JMLR 2001, for the fit. Other than these: no
decoding by codes and no trees, but a screening by correlations and one regression.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from math import comb
from typing import NamedTuple

import jax
import jax.numpy as jnp
import jax.scipy.linalg as linalg
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxmoxi.interactions.design import coalition
from jaxmoxi.interactions.gaussian import Operands, mask, plan, too_many
from jaxmoxi.interactions.indices import INDICES
from jaxmoxi.interactions.large import borders, fourier_weight, is_known
from jaxmoxi.interactions.lattice import sets_up_to
from jaxmoxi.interactions.methods import Fit, Method, Request, register
from jaxmoxi.interactions.moments import chunked, mapped, set_sums
from jaxmoxi.interactions.prior import WIDER

_MOST_PAIRS, _MOST_TRIPLES = 400, 100
_GROWN = 24  # pairs from which sets of three grow
_ROUNDS = 12
_LEAST_NOISE = 1e-4  # of the values' variance


Masks = Callable[[Int[Array, "C"]], Bool[Array, "C P"]]


class Polynomial(NamedTuple):
    """A sparse polynomial in z.

    sets:      int32[F, 3], the players of each coefficient, ascending; -1 stands for no player.
    values:    float32[F], the coefficients.
    variances: float32[F], their posterior variances.
    noise:     float32[], the variance of what it does not explain.
    """

    sets: Int[Array, "F three"]
    values: Float[Array, "F"]
    variances: Float[Array, "F"]
    noise: Float[Array, ""]


@functools.partial(jax.jit, static_argnums=2)
def _fit(operands: Operands, values: Array, request: Request) -> Fit:
    n, order, count = request.num_players, request.order, len(values)
    shift, spread = jnp.mean(values), jnp.std(values)
    scale = jnp.where(spread > 0, spread, 1.0)
    y = (values - shift) / scale

    def masks(indices: Array) -> Bool[Array, "C P"]:
        return jax.vmap(functools.partial(coalition, operands.design))(indices)

    found = fit_polynomial(masks, y, n)
    left = y - _said(masks, found, count)
    first = min(count, 2 * n + 2)  # the coalitions that the design always has: they enter as they are
    shares = [jnp.asarray(t, values.dtype) for t in borders(request)]
    put_back = set_sums(
        masks,
        lambda indices, rows: [left[indices][:, None] * shares[s][rows.sum(1)] for s in range(order + 1)],
        count=first,
        num_players=n,
        order=order,
    )
    index, variance = _read(found, request, count)
    index = index + jnp.concatenate(put_back)
    known = jnp.asarray([False] + [is_known(request, s) for s in range(1, order + 1)])
    sizes = np.concatenate([[0], (sets_up_to(n, order) >= 0).sum(1)])
    errors = jnp.where(known[sizes], 0, jnp.sqrt(variance)) * scale * WIDER
    baseline = index[0] * scale + shift if INDICES[request.index].intercept else values[0]
    return Fit(baseline, index[1:] * scale, errors[1:])


def fit_polynomial(masks: Masks, y: Float[Array, "m"], num_players: int) -> Polynomial:
    """The polynomial of these values, float32[m] of mean 0 and variance 1; `masks` makes their coalitions."""
    n, count = num_players, len(y)
    singles = np.full((1 + n, 3), -1, np.int32)
    singles[1:, 0] = np.arange(n)
    sets = jnp.asarray(singles)
    found = _regress(masks, y, sets)
    most = min(comb(n, 2), _MOST_PAIRS, max(16, count // 6))
    first, second = np.triu_indices(n, 1)
    agreement = _pair_moments(masks, y - _said(masks, found, count))
    _, best = jax.lax.top_k(jnp.abs(agreement[first, second]), most)
    pairs = jnp.stack([jnp.asarray(first)[best], jnp.asarray(second)[best], jnp.full(most, -1)], 1).astype(jnp.int32)
    sets = jnp.concatenate([sets, pairs])
    found = _regress(masks, y, sets)
    grown = _triples(masks, y - _said(masks, found, count), found, n)
    return found if grown is None else _regress(masks, y, jnp.concatenate([sets, grown]))


def _products(rows: Bool[Array, "C P"], sets: Int[Array, "F three"]) -> Float[Array, "C F"]:
    z = jnp.pad(2.0 * rows.astype(jnp.float32) - 1, ((0, 0), (0, 1)), constant_values=1.0)  # no player is the last one
    return z[:, sets[:, 0]] * z[:, sets[:, 1]] * z[:, sets[:, 2]]


def _said(masks: Masks, found: Polynomial, count: int) -> Float[Array, "m"]:
    """What the polynomial says of the first coalitions."""

    def at(indices: Array) -> Array:
        return jnp.matmul(_products(masks(indices), found.sets), found.values, precision="highest")

    return mapped(at, count)


def _pair_moments(masks: Masks, left: Float[Array, "m"]) -> Float[Array, "P P"]:
    def step(indices: Array, there: Array) -> list[Array]:
        z = 2.0 * masks(indices).astype(jnp.float32) - 1
        return [jnp.matmul((z * jnp.where(there, left[indices], 0)[:, None]).T, z, precision="highest")]

    return chunked(step, len(left))[0]


def _triples(
    masks: Masks, left: Float[Array, "m"], found: Polynomial, num_players: int
) -> Int[Array, "T three"] | None:
    """The sets of three that hold a strong pair and agree most with what is left; None where there are none."""
    n, count = num_players, len(left)
    pairs, strength = found.sets[1 + n :], jnp.abs(found.values[1 + n :])
    grown = min(_GROWN, len(pairs))
    most = min(_MOST_TRIPLES, grown * max(n - 2, 0), max(4, count // 20))
    if n < 3 or grown == 0:
        return None
    strongest = pairs[jax.lax.top_k(strength, grown)[1]]

    def step(indices: Array, there: Array) -> list[Array]:
        z = 2.0 * masks(indices).astype(jnp.float32) - 1
        products = z[:, strongest[:, 0]] * z[:, strongest[:, 1]] * jnp.where(there, left[indices], 0)[:, None]
        return [jnp.matmul(products.T, z, precision="highest")]

    (agreement,) = chunked(step, count)
    members = jnp.arange(n)
    triples = jnp.sort(
        jnp.stack([*jnp.broadcast_arrays(strongest[:, :1], strongest[:, 1:2], members[None, :])], -1), axis=-1
    ).reshape(-1, 3)
    flat = jnp.abs(agreement).reshape(-1)
    distinct = (triples[:, 0] < triples[:, 1]) & (triples[:, 1] < triples[:, 2])
    code = (triples[:, 0] * n + triples[:, 1]) * n + triples[:, 2]
    order = jnp.argsort(code, stable=True)
    repeated = jnp.zeros(len(code), bool).at[order[1:]].set(code[order[1:]] == code[order[:-1]])
    _, best = jax.lax.top_k(jnp.where(distinct & ~repeated, flat, -1.0), most)
    return triples[best].astype(jnp.int32)


def _regress(masks: Masks, y: Float[Array, "m"], sets: Int[Array, "F three"]) -> Polynomial:
    """The coefficients of these sets, each with a prior variance of its own, by the likelihood (MacKay's steps)."""
    count = len(y)

    def step(indices: Array, there: Array) -> list[Array]:
        x = _products(masks(indices), sets) * there[:, None]
        return [jnp.matmul(x.T, x, precision="highest"), jnp.matmul(x.T, y[indices] * there, precision="highest")]

    gram, target = chunked(step, count)
    energy, identity = jnp.sum(y**2), jnp.eye(len(sets), dtype=y.dtype)

    def solve(variances: Array, noise: Array) -> tuple[Array, Array]:
        root = jnp.sqrt(variances)
        factor = jnp.linalg.cholesky(gram * root[:, None] * root[None, :] / noise + identity)
        inverse = linalg.cho_solve((factor, True), identity)
        return root * (inverse @ (root * target)) / noise, variances * jnp.diagonal(inverse)

    def update(_: Array, state: tuple[Array, Array]) -> tuple[Array, Array]:
        variances, noise = state
        found, uncertain = solve(variances, noise)
        determined = jnp.clip(1 - uncertain / variances, 1e-3, 1.0)
        error = energy - 2 * found @ target + found @ (gram @ found)
        noise = jnp.maximum(error / jnp.maximum(count - jnp.sum(determined), 0.1 * count), _LEAST_NOISE)
        return jnp.clip(found**2 / determined, 1e-7, 1e2), noise

    start = (jnp.full(len(sets), 1.0 / len(sets), y.dtype), jnp.asarray(0.3, y.dtype))
    variances, noise = jax.lax.fori_loop(0, _ROUNDS, update, start)
    found, uncertain = solve(variances, noise)
    return Polynomial(sets, found, uncertain, noise)


def _read(found: Polynomial, request: Request, count: int) -> tuple[Float[Array, "M1"], Float[Array, "M1"]]:
    """The index of the polynomial for all sets, the empty one first, and the variances of its values.

    A coefficient that was left out may be as large as the noise hides among so many values: that is added to all.
    """
    n, order = request.num_players, request.order
    starts = np.cumsum([0] + [comb(n, s) for s in range(order + 1)])
    index = jnp.zeros(int(starts[-1]), found.values.dtype)
    unseen = [jnp.full(comb(n, s), float(fourier_weight(request, s, s)) ** 2) for s in range(order + 1)]
    variance = jnp.concatenate(unseen) * found.noise / count
    sizes = jnp.sum(found.sets >= 0, axis=1)
    for a in range(4):
        for s in range(min(a, order) + 1):
            weight = float(fourier_weight(request, s, a))
            for chosen in itertools.combinations(range(a), s):
                rows = int(starts[s]) + _rank(found.sets[:, list(chosen)], n)
                here = jnp.where(sizes == a, 1.0, 0.0)
                index = index.at[rows].add(here * weight * found.values)
                variance = variance.at[rows].add(here * weight**2 * found.variances)
    return index, variance


def _rank(members: Int[Array, "F s"], n: int) -> Int[Array, "F"]:
    """The place of sets of s ascending players among all of their size, in the order of `lattice.sets_up_to`."""
    size = members.shape[1]
    if size == 0:
        return jnp.zeros(len(members), jnp.int32)
    # Counted from the end: the sets after this one have a larger first player, or the same and a larger rest.
    after = sum(_choose(n - 1 - members[:, i], size - i) for i in range(size))
    return jnp.clip(comb(n, size) - 1 - after, 0, comb(n, size) - 1).astype(jnp.int32)


def _choose(x: Int[Array, "F"], k: int) -> Int[Array, "F"]:
    result = jnp.ones_like(x)
    for i in range(k):
        result = result * (x - i) // (i + 1)
    return jnp.maximum(result, 0)


def _refuse(request: Request) -> str | None:
    if INDICES[request.index].generalised:
        return f"has no {request.index}: sets have interactions, groups have worth"
    if request.order > 3:
        return f"takes orders up to 3; got {request.order}"
    return too_many(request)


register(
    Method(
        "sparse",
        "after Kang et al., 'SPEX', ICML 2025, and Butler et al., 'ProxySPEX', NeurIPS 2025",
        "a polynomial of few sets of up to three players, each as large as the values make likely",
        least=lambda request: 2 * request.num_players + 2,
        plan=plan,
        mask=mask,
        fit=_fit,
        refuse=_refuse,
    )
)
