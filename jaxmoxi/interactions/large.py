"""The Gaussian process of `gaussian` for more players than a table can hold.

Up to 8,192 coalitions the kernel between all of them is a matrix, which is factorised. Beyond, the kernel is cut at
sets of two players (three where triples are asked for): the rest acts as noise, as two coalitions of many players are
far apart. A product with what is left takes products of matrices, P^2 (or P^3) numbers, whatever the budget.

Any index of the posterior mean is a sum over coalitions of their weight times the index of the kernel around them,
which depends on how large a coalition is and on how many members of the set it holds: `moments.set_sums`.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from fractions import Fraction
from math import comb
from typing import NamedTuple

import jax
import jax.numpy as jnp
import jax.scipy.linalg as linalg
import numpy as np
from jaxtyping import Array, Bool, Float, UInt8

from jaxmoxi.interactions.indices import INDICES, derivative_weights
from jaxmoxi.interactions.lattice import sets_up_to
from jaxmoxi.interactions.methods import Fit, Request
from jaxmoxi.interactions.moments import chunked, mapped, set_sums
from jaxmoxi.interactions.prior import (
    CONSTANT,
    WIDER,
    Prior,
    choose_prior,
    conjugate_gradients,
    noise_of,
    noise_of_small_sets,
    rhos,
)

MOST_DENSE = 8192  # coalitions whose kernel is a matrix, of 256 MiB
_HIGHEST = 40  # the largest sets of the prior that an index is read from
_ASKED = 3  # sets of each size whose standard error is computed
_CHUNK = 1024
_TOLERANCE, _ROUGH = 1e-4, 3e-2


def fit_large(masks: Bool[Array, "m P"], values: Float[Array, "m"], key: Array, request: Request) -> Fit:
    """The fit for more than 20 players."""
    packed = jnp.packbits(masks, axis=1)
    prior, weights, left, variances = _solve(packed, values, key, request)
    n, order = request.num_players, request.order
    tables = [jnp.asarray(t, values.dtype)[prior.choice] for t in _tables(request, _degree(len(values), order))]
    shares = [jnp.asarray(t, values.dtype) for t in borders(request)]

    def weigh(indices: Array, rows: Array) -> list[Array]:
        sizes = rows.sum(1)
        kernel = [weights[indices][:, None] * tables[s][sizes] for s in range(order + 1)]
        seen = [left[indices][:, None] * shares[s][sizes] for s in range(order + 1)]
        return [x + y for x, y in zip(kernel, seen, strict=True)]

    sums = set_sums(lambda i: _unpack(packed[i], n), weigh, count=len(values), num_players=n, order=order)
    found = [x * prior.scale for x in sums]
    baseline = found[0][0] + prior.shift if INDICES[request.index].intercept else values[0]
    values = jnp.concatenate(found[1:])
    if not request.errors:
        return Fit(baseline, values, None)
    known = jnp.asarray([is_known(request, s) for s in range(1, order + 1)])
    errors = jnp.sqrt(jnp.maximum(jnp.stack(variances), 0) * prior.variance) * prior.scale * WIDER
    sizes = (sets_up_to(n, order) >= 0).sum(1)
    return Fit(baseline, values, jnp.where(known, 0, errors)[sizes - 1])


def _unpack(packed: UInt8[Array, "C bytes"], num_players: int) -> Bool[Array, "C P"]:
    return jnp.unpackbits(packed, axis=1, count=num_players).astype(bool)


def _degree(count: int, order: int) -> int | None:
    """The largest sets that the kernel is cut at; None: none, it is a matrix."""
    return None if count <= MOST_DENSE else max(2, order)


def _solve(
    packed: UInt8[Array, "m bytes"], values: Float[Array, "m"], key: Array, request: Request
) -> tuple[Prior, Float[Array, "m"], Float[Array, "m"], list[Float[Array, ""]]]:
    """The prior, the coalitions' weights, what the fit leaves of their values, and the variance of sets by size."""
    n, count = request.num_players, len(values)

    prior, _ = choose_prior(values, lambda some: _unpack(packed[some], n), n)
    degree = _degree(count, request.order)
    solve, explained_by = _dense(packed, prior, n) if degree is None else _structured(packed, prior, n, degree)
    y = (values - prior.shift) / prior.scale
    weights = solve(y, _TOLERANCE)
    tables = [jnp.asarray(t, values.dtype)[prior.choice] for t in _tables(request, degree)]
    members = _unpack(packed, n)
    sizes = members.sum(1)
    variances = []
    for s in range(1, request.order + 1 if request.errors else 1):
        asked = jax.vmap(lambda k, s=s: jax.random.choice(k, n, (s,), replace=False))(
            jax.random.split(jax.random.fold_in(key, s), _ASKED)
        )

        def explained(chosen: Array, s: int = s) -> Array:
            at = tables[s][sizes, members[:, chosen].sum(1)]
            return jnp.sum(at * solve(at, _ROUGH))

        before = jnp.asarray(_prior_variances(request, s), values.dtype)[prior.choice]
        variances.append(before - jnp.mean(jax.lax.map(explained, asked)))
    return prior, weights, y - explained_by(weights), variances


Solver = Callable[[Float[Array, "m"], float], Float[Array, "m"]]
Product = Callable[[Float[Array, "m"]], Float[Array, "m"]]


def _dense(packed: Array, prior: Prior, n: int) -> tuple[Solver, Product]:
    z = 2.0 * _unpack(packed, n).astype(prior.rho.dtype) - 1
    apart = (n - jnp.matmul(z, z.T, precision="highest")) / 2
    kernel = jnp.exp(apart * (jnp.log1p(-prior.rho) - jnp.log1p(prior.rho))) + CONSTANT
    factor = jnp.linalg.cholesky(kernel + noise_of(jnp.full(n, prior.rho), len(z)) * jnp.eye(len(z), dtype=z.dtype))

    def solve(target: Array, tolerance: float) -> Array:
        return linalg.cho_solve((factor, True), target)

    return solve, lambda weights: jnp.matmul(kernel, weights, precision="highest")


class _Cut(NamedTuple):
    """The kernel's polynomial in s = z . z', and the variance of the sets above it."""

    coefficients: list[Array]
    rest: Array


def _cut(prior: Prior, n: int, degree: int, count: int) -> _Cut:
    share = 1 / (1 + prior.rho) ** n
    by_size = [share * prior.rho**d for d in range(degree + 1)]
    rest = 1 - sum(by_size[d] * comb(n, d) for d in range(degree + 1))
    rest = rest + noise_of(jnp.full(n, prior.rho), count)
    # The elementary symmetric polynomials of z z', whose powers are 1 or z z' (Newton's identities).
    coefficients = [by_size[0] + CONSTANT - by_size[2] * n / 2, by_size[1], by_size[2] / 2]
    if degree == 3:
        coefficients[1] = coefficients[1] - by_size[3] * (3 * n - 2) / 6
        coefficients.append(by_size[3] / 6)
    return _Cut(coefficients, rest)


def _structured(packed: Array, prior: Prior, n: int, degree: int) -> tuple[Solver, Product]:
    count, dtype = len(packed), prior.rho.dtype
    cut = _cut(prior, n, degree, count)
    noise = noise_of_small_sets(cut.rest, count)

    def z_of(indices: Array) -> Array:
        return 2.0 * _unpack(packed[indices], n).astype(dtype) - 1

    def moments(weights: Array) -> list[Array]:
        def step(indices: Array, there: Array) -> list[Array]:
            z, w = z_of(indices), jnp.where(there, weights[indices], 0)
            return [jnp.sum(w)] + [_power_sum(w, z, d) for d in range(1, degree + 1)]

        return chunked(step, count, size=_CHUNK)

    def product(weights: Array) -> Array:
        sums = moments(weights)

        def at(indices: Array) -> Array:
            z = z_of(indices)
            parts = [cut.coefficients[d] * _evaluate(z, sums[d], d) for d in range(1, degree + 1)]
            return cut.coefficients[0] * sums[0] + sum(parts)

        return mapped(at, count, size=_CHUNK)

    root = jnp.sqrt(jnp.stack([cut.coefficients[0]] + [cut.coefficients[1]] * n))

    def gram(indices: Array, there: Array) -> list[Array]:
        f = jnp.concatenate([jnp.ones((len(indices), 1), dtype), z_of(indices)], 1) * root * there[:, None]
        return [jnp.matmul(f.T, f, precision="highest")]

    (low,) = chunked(gram, count, size=_CHUNK)
    factor = jnp.linalg.cholesky(low / noise + jnp.eye(n + 1, dtype=dtype))

    def precondition(residual: Array) -> Array:
        sums = moments_low(residual)
        solved = root * linalg.cho_solve((factor, True), root * sums / noise)
        return (residual - mapped(lambda i: solved[0] + z_of(i) @ solved[1:], count, size=_CHUNK)) / noise

    def moments_low(weights: Array) -> Array:
        def step(indices: Array, there: Array) -> list[Array]:
            w = jnp.where(there, weights[indices], 0)
            return [jnp.concatenate([jnp.sum(w)[None], w @ z_of(indices)])]

        return chunked(step, count, size=_CHUNK)[0]

    def solve(target: Array, tolerance: float) -> Array:
        return conjugate_gradients(lambda w: product(w) + noise * w, precondition, target, tolerance)

    return solve, product


def _power_sum(w: Array, z: Array, degree: int) -> Array:
    axes = "abdefghijk"[:degree]
    spec = ",".join(["c", *(f"c{axis}" for axis in axes)]) + "->" + axes
    return jnp.einsum(spec, w, *[z] * degree, precision="highest")


def _evaluate(z: Array, tensor: Array, degree: int) -> Array:
    """float[C]: the tensor times each row of z, `degree` times."""
    x = jnp.matmul(z, tensor.reshape(z.shape[1], -1), precision="highest")
    for _ in range(degree - 1):
        x = jnp.sum(x.reshape(len(z), z.shape[1], -1) * z[:, :, None], axis=1)
    return x.reshape(len(z))


@functools.cache
def _tables(request: Request, degree: int | None) -> list[Float[np.ndarray, "K P1 k"]]:
    """For sets S by size: the index of S of the kernel around T, by the choice of rho, |T| and |T and S|.

    With g(s, a) the index of S of a Fourier function of a players that contain S, it is the sum over b of
    rho^(s + b) g(s, s + b) (-1)^(s - |T and S|) K_b(h), h players outside both S and T, K_b Krawtchouk's polynomials:
    the sum of prod(z_i for i in B) over the sets B of b players outside S.
    """
    n = request.num_players
    tables = []
    for s in range(request.order + 1):
        most = min(n - s, _HIGHEST) if degree is None else min(n, degree) - s
        krawtchouk = _krawtchouk(n - s, most)  # [b, h]
        g = np.array([float(fourier_weight(request, s, s + b)) for b in range(most + 1)])
        sizes, held = np.arange(n + 1)[:, None], np.arange(s + 1)[None, :]
        outside = np.clip(n - s - (sizes - held), 0, n - s)
        sign = (-1.0) ** (s - held)
        by_rho = [(g * rho ** (s + np.arange(most + 1)) / (1 + rho) ** n) @ krawtchouk for rho in rhos(n)]
        table = np.stack([row[outside] * sign for row in by_rho])
        tables.append(table + CONSTANT if s == 0 else table)
    return tables


@functools.cache
def borders(request: Request) -> list[Float[np.ndarray, "P1 k"]]:
    """For sets S by size: the share of v(T) in the index of S, by |T| and |T and S|, for T that the design always has.

    They are nobody, everybody, all players alone and all but one. Single coalitions count there, and what the fit
    leaves of their values is put back: they enter as they are, and an efficient index sums to v(N). Between them no
    coalition counts.
    """
    n = request.num_players
    tables = []
    for s in range(request.order + 1):
        table = np.zeros((n + 1, s + 1))
        shares = derivative_weights(request.index, n, s, request.order, request.p)
        for size, k in itertools.product((0, 1, n - 1, n), range(s + 1)):
            if 0 <= size - k <= n - s:
                table[size, k] = (-1) ** (s - k) * float(shares[size - k])
        tables.append(table)
    return tables


def is_known(request: Request, size: int) -> bool:
    """Whether the index of sets of this size depends on values that the design always has."""
    shares = derivative_weights(request.index, request.num_players, size, request.order, request.p)
    return size == 1 and not any(shares[1:-1])


@functools.cache
def _prior_variances(request: Request, size: int) -> Float[np.ndarray, "K"]:
    """The prior variance of the index of a set of this size, in units of s^2, by the choice of rho."""
    n = request.num_players
    most = min(n - size, _HIGHEST)
    square = np.array(
        [float(fourier_weight(request, size, size + b) ** 2) * comb(n - size, b) for b in range(most + 1)]
    )
    return np.array([square @ rho ** (size + np.arange(most + 1)) / (1 + rho) ** n for rho in rhos(n)])


@functools.cache
def fourier_weight(request: Request, s: int, a: int) -> Fraction:
    """The index of a set of s players of the game prod(z_i for i in A), for A of a players that contain it.

    The Moebius coefficients of that game are 2^r (-1)^(a - r) for R in A.
    """
    weight = INDICES[request.index].weight
    terms = (
        comb(a - s, j) * weight(s, s + j, request.order, request.p) * 2 ** (s + j) * (-1) ** (a - s - j)
        for j in range(a - s + 1)
    )
    return sum(terms, Fraction(0))


def _krawtchouk(n: int, most: int) -> Float[np.ndarray, "b h"]:
    """K_b(h) for b = 0 .. most and h = 0 .. n: the coefficient of x^b in (1 - x)^h (1 + x)^(n - h)."""
    h = np.arange(n + 1.0)
    rows = [np.ones(n + 1), n - 2 * h]
    for b in range(1, most):
        rows.append(((n - 2 * h) * rows[b] - (n - b + 1) * rows[b - 1]) / (b + 1))
    return np.stack(rows[: most + 1])
