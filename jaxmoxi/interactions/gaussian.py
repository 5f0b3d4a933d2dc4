"""Interactions by a Gaussian process over coalitions: the posterior mean of the game, of which any index is read.

Model. A game is a sum of its Fourier coefficients, v(T) = sum over A of c_A prod(z_i for i in A) with z_i = 1 for a
player in T, else -1. A priori c_A is normal with variance s^2 rho^|A|: large sets matter less. That is a Gaussian
process over coalitions with the kernel s^2 prod(1 + rho z_i z'_i), which depends on the distance of two coalitions
alone. From the values of some coalitions follow the posterior mean of all others, and how uncertain it is.

rho and s come from the values themselves, by the likelihood of up to 512 of them. A little noise stands for what no
smooth game explains. As every index is a linear function of the game, its posterior mean is the index of the mean, and
its standard error the posterior's standard deviation. The estimate is biased towards games without interactions, as far
as the budget leaves open what they are, and the standard error includes that.

Sources: Rasmussen and Williams, "Gaussian Processes for Machine Learning", 2006 (chapters 2 and 5); the kernel is the
discrete diffusion kernel of Kondor and Lafferty, ICML 2002; that Fourier coefficients of large sets are small is what
SPEX builds on (Kang et al., "SPEX: Scaling Feature Interaction Explanations for LLMs", ICML 2025).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from math import comb
from typing import NamedTuple

import jax
import jax.numpy as jnp
import jax.scipy.linalg as linalg
import numpy as np
from jaxtyping import Array, Float, Int

from jaxmoxi.interactions.design import Design, by_coalition, by_size, coalition, draw, row_sizes
from jaxmoxi.interactions.exact import from_table
from jaxmoxi.interactions.lattice import sets_up_to
from jaxmoxi.interactions.methods import Fit, Method, Request, register

RHOS = np.array([0.01, 0.02, 0.03, 0.05, 0.08, 0.12, 0.17, 0.23, 0.3, 0.4, 0.55])
NOISE = 5e-3  # of the prior variance of a value
_CONSTANT = 10.0  # the prior variance of the mean, in those of a value
_MOST_FITTED = 512  # values whose likelihood chooses rho
_MOST_EXACT = 500  # Fourier coefficients that the preconditioner solves for exactly
_MOST_STEPS, _TOLERANCE = 200, 1e-6
_DRAWS = 8  # of the posterior, for the standard errors


class Prior(NamedTuple):
    """The prior that the values chose, in units of their spread.

    rho:   float32[], the ratio of variances from one size to the next.
    shift: float32[], subtracted from the values.
    scale: float32[], then divided by.
    """

    rho: Float[Array, ""]
    shift: Float[Array, ""]
    scale: Float[Array, ""]


class Operands(NamedTuple):
    """The coalitions, and the key of the draws that the standard errors are made from."""

    design: Design
    key: Array


def _plan(key: Array, request: Request, budget: int) -> Operands:
    # Half by size, half by coalition: measured best for Shapley's indices and Banzhaf's together.
    n = request.num_players
    keys = jax.random.split(key)
    return Operands(draw(keys[0], n, budget, (by_size(n) + by_coalition(n)) / 2), keys[1])


def _mask(operands: Operands, index: Array) -> Array:
    return coalition(operands.design, index)


def _fit(operands: Operands, values: Array, request: Request) -> Fit:
    rows = operands.design.rows
    assert rows is not None
    return fit_cube(rows[: len(values)], values, operands.key, request)


register(
    Method(
        "gaussian-process",
        "Rasmussen and Williams, 'Gaussian Processes for Machine Learning', 2006",
        "the posterior mean of the whole game, where large sets matter less; any index is read of it",
        least=lambda request: 2 * request.num_players + 2,
        plan=_plan,
        mask=_mask,
        fit=_fit,
    )
)


def choose_prior(
    values: Float[Array, "m"], distances: Callable[[Int[Array, "k"]], Int[Array, "k k"]], num_players: int
) -> Prior:
    """The prior whose likelihood is largest, given up to 512 of the values, evenly spread.

    distances: `indices -> int32[k, k]`, in how many players two coalitions differ.
    """
    count = len(values)
    some = jnp.asarray(np.unique(np.linspace(0, count - 1, min(count, _MOST_FITTED)).astype(np.int32)))
    shift = jnp.mean(values)
    spread = jnp.std(values)
    scale = jnp.where(spread > 0, spread, 1.0)
    y = ((values - shift) / scale)[some]
    apart = distances(some)

    def likelihood(by_distance: Array) -> Array:
        covariance = by_distance[apart] + _CONSTANT + NOISE * jnp.eye(len(some))
        factor = jnp.linalg.cholesky(covariance)
        white = linalg.solve_triangular(factor, y, lower=True)
        fit = jnp.maximum(jnp.mean(white**2), 1e-20)
        value = -0.5 * len(some) * jnp.log(fit) - jnp.sum(jnp.log(jnp.diagonal(factor)))
        return jnp.where(jnp.isnan(value), -jnp.inf, value)

    tables = jnp.asarray(np.stack([_by_distance(rho, num_players) for rho in RHOS]), values.dtype)
    best = jnp.argmax(jax.lax.map(likelihood, tables))
    return Prior(jnp.asarray(RHOS, values.dtype)[best], shift, scale)


def _by_distance(rho: float, num_players: int) -> Float[np.ndarray, "P1"]:
    """The kernel by distance, 1 at 0."""
    return ((1 - rho) / (1 + rho)) ** np.arange(num_players + 1)


def fit_cube(rows: Int[Array, "m"], values: Float[Array, "m"], key: Array, request: Request) -> Fit:
    """The fit for up to 20 players, whose whole table has a posterior mean.

    The kernel on the whole table is diagonal in Fourier coefficients, so that a product with it takes two Walsh-Hadamard
    transforms; conjugate gradients need no matrix.
    """
    n = request.num_players

    def distances(some: Array) -> Array:
        chosen = rows[some]
        return jax.lax.population_count(chosen[:, None] ^ chosen[None, :])

    prior = choose_prior(values, distances, n)
    cube = _Cube(rows, prior.rho, n)
    y = (values - prior.shift) / prior.scale
    at = jnp.zeros(1 << n, values.dtype)
    weights = cube.solve(at.at[rows].set(y), _TOLERANCE)
    table = cube.spread(weights).at[rows].set(y) * prior.scale + prior.shift

    def draw(key: Array) -> Array:
        game, noise = cube.draw(key)
        posterior = cube.spread(cube.solve((game + noise) * cube.seen, 1e-3))
        return read((game - posterior).at[rows].set(0.0))

    def read(table: Array) -> Array:
        x = from_table(table, index=request.index, order=request.order, p=float(request.p))
        return jnp.concatenate([x.baseline[None], x.values])

    found = read(table)
    errors = jax.lax.map(draw, jax.random.split(key, _DRAWS)) * prior.scale
    variance = jnp.sum(weights[rows] * y) / len(y)  # s^2, by its likelihood
    return Fit(found[0], found[1:], _pooled(errors[:, 1:], request) * jnp.sqrt(variance))


def _pooled(errors: Float[Array, "draws M"], request: Request) -> Float[Array, "M"]:
    """The root mean square error of the sets of a size, together: a priori they are alike, and so is the design."""
    sizes = (sets_up_to(request.num_players, request.order) >= 0).sum(1)
    pooled = jnp.stack([jnp.sqrt(jnp.mean(errors[:, sizes == s] ** 2)) for s in range(1, request.order + 1)])
    return pooled[sizes - 1]


class _Cube:
    """The prior on a whole table, and its posterior given the values at some rows."""

    def __init__(self, rows: Int[Array, "m"], rho: Float[Array, ""], num_players: int):
        self.n = num_players
        sizes = row_sizes(num_players)
        dtype = rho.dtype
        shares = rho ** np.arange(num_players + 1) / (1 + rho) ** num_players  # a value's prior variance is 1
        self.spectrum = shares[sizes].at[0].add(_CONSTANT).astype(dtype)
        self.seen = jnp.zeros(1 << num_players, dtype).at[rows].set(1.0)
        degree = _exact_degree(num_players)
        self.low = np.flatnonzero(sizes <= degree)
        counts = np.array([comb(num_players, d) if d > degree else 0 for d in range(num_players + 1)])
        self.rest = jnp.sum(shares * counts) + NOISE
        self.root = jnp.sqrt(self.spectrum[self.low])
        gram = transform(self.seen, num_players)[self.low[:, None] ^ self.low[None, :]]
        system = gram * self.root[:, None] * self.root[None, :] / self.rest + jnp.eye(len(self.low), dtype=dtype)
        self.factor = jnp.linalg.cholesky(system)

    def spread(self, weights: Float[Array, "R"]) -> Float[Array, "R"]:
        """The kernel times weights."""
        return transform(transform(weights, self.n) * self.spectrum, self.n)

    def precondition(self, residual: Array) -> Array:
        """The solution where what large sets add were noise: exact for small sets (Woodbury's identity)."""
        low = self.root * transform(residual, self.n)[self.low] / self.rest
        solved = self.root * linalg.cho_solve((self.factor, True), low)
        explained = transform(jnp.zeros_like(residual).at[self.low].set(solved), self.n)
        return (residual - explained * self.seen) / self.rest

    def solve(self, target: Float[Array, "R"], tolerance: float) -> Float[Array, "R"]:
        """The weights w, 0 where nothing was seen, with (kernel + noise) w = target where something was."""

        def product(w: Array) -> Array:
            return self.spread(w) * self.seen + NOISE * w

        return conjugate_gradients(product, self.precondition, target, tolerance)

    def draw(self, key: Array) -> tuple[Float[Array, "R"], Float[Array, "R"]]:
        """A game from the prior, and noise."""
        keys = jax.random.split(key)
        shape, dtype = self.spectrum.shape, self.spectrum.dtype
        game = transform(jnp.sqrt(self.spectrum) * jax.random.normal(keys[0], shape, dtype), self.n)
        return game, jnp.sqrt(jnp.asarray(NOISE, dtype)) * jax.random.normal(keys[1], shape, dtype)


def conjugate_gradients(
    product: Callable[[Array], Array], precondition: Callable[[Array], Array], target: Array, tolerance: float
) -> Array:
    """The solution of product(x) = target, to a residual of `tolerance` times the target's size, or 200 steps."""
    enough = tolerance**2 * jnp.sum(target**2)

    class State(NamedTuple):
        x: Array
        residual: Array
        direction: Array
        decrease: Array
        step: Array

    def going(s: State) -> Array:
        return (s.step < _MOST_STEPS) & (jnp.sum(s.residual**2) > enough)

    def step(s: State) -> State:
        image = product(s.direction)
        length = _ratio(s.decrease, jnp.sum(s.direction * image))
        x, residual = s.x + length * s.direction, s.residual - length * image
        steepest = precondition(residual)
        decrease = jnp.sum(residual * steepest)
        direction = steepest + _ratio(decrease, s.decrease) * s.direction
        return State(x, residual, direction, decrease, s.step + 1)

    first = precondition(target)
    start = State(jnp.zeros_like(target), target, first, jnp.sum(target * first), jnp.int32(0))
    return jax.lax.while_loop(going, step, start).x


def _ratio(a: Array, b: Array) -> Array:
    return jnp.where(b == 0, 0.0, a / jnp.where(b == 0, 1.0, b))


def transform(x: Float[Array, "R"], n: int) -> Float[Array, "R"]:
    """The sum over T of (-1)^|A and T| v(T), of every A, by products with small Hadamard matrices.

    That is the Walsh-Hadamard transform, not divided by 2^n; products of matrices are what devices are fast at.
    """
    parts = [n // 3 + (i < n % 3) for i in range(3)] if n > 16 else [n - n // 2, n // 2]
    x = x.reshape([1 << part for part in parts])
    for axis, part in enumerate(parts):
        matrix = jnp.asarray(_hadamard(part), x.dtype)
        x = jnp.moveaxis(jnp.tensordot(matrix, x, axes=(1, axis), precision="highest"), 0, axis)
    return x.reshape(-1)


@functools.cache
def _hadamard(n: int) -> Float[np.ndarray, "R R"]:
    matrix = np.ones((1, 1))
    for _ in range(n):
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    return matrix


@functools.cache
def _exact_degree(num_players: int) -> int:
    degree, features = 1, 1 + num_players
    while degree < num_players and features + comb(num_players, degree + 1) <= _MOST_EXACT:
        degree += 1
        features += comb(num_players, degree)
    return degree
