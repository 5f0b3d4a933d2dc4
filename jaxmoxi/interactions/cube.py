"""The Gaussian process of `gaussian` on a whole table, for up to 20 players.

The kernel on the table is diagonal in Fourier coefficients, so that a product with it takes two Walsh-Hadamard
transforms. Conjugate gradients then need no matrix, and the memory is a few tables, whatever the budget.
"""

from __future__ import annotations

import functools
from math import comb

import jax
import jax.numpy as jnp
import jax.scipy.linalg as linalg
import numpy as np
from jaxtyping import Array, Float, Int

from jaxmoxi.interactions.exact import from_table
from jaxmoxi.interactions.lattice import members, sets_up_to
from jaxmoxi.interactions.methods import Fit, Request
from jaxmoxi.interactions.prior import (
    CONSTANT,
    WIDER,
    choose_prior,
    choose_relevances,
    conjugate_gradients,
    noise_of,
    noise_of_small_sets,
)

_MOST_EXACT = 500  # Fourier coefficients that the preconditioner solves for exactly
_TOLERANCE, _ROUGH = 1e-6, 1e-3
_DRAWS = 8  # of the posterior, for the standard errors


def fit_cube(rows: Int[Array, "m"], values: Float[Array, "m"], key: Array, request: Request) -> Fit:
    """The fit for up to 20 players, whose whole table has a posterior mean."""

    def read(table: Array) -> Array:
        x = from_table(table, index=request.index, order=request.order, p=float(request.p))
        return jnp.concatenate([x.baseline[None], x.values])

    table, draws = _posterior(rows, values, key, request.num_players, _DRAWS if request.errors else 0)
    found = read(table)
    if not request.errors:
        return Fit(found[0], found[1:], None)
    errors = jnp.stack([read(draw)[1:] for draw in draws])
    return Fit(found[0], found[1:], pooled(errors, request))


@functools.partial(jax.jit, static_argnums=(3, 4))
def _posterior(
    rows: Int[Array, "m"], values: Float[Array, "m"], key: Array, num_players: int, num_draws: int
) -> tuple[Float[Array, "R"], Float[Array, "draws R"]]:
    """The posterior mean of a game's table, and draws of its error; compiled once for all indices."""
    n = num_players
    prior, sample = choose_prior(values, lambda some: members(n, rows[some]), n)
    rho, variance = choose_relevances(sample, prior, len(values))
    cube = _Cube(rows, rho, n)
    y = (values - prior.shift) / prior.scale
    target = jnp.zeros(1 << n, values.dtype).at[rows].set(y)
    table = cube.spread(cube.solve(target, _TOLERANCE)).at[rows].set(y) * prior.scale + prior.shift

    def draw(key: Array) -> Array:
        game, noise = cube.draw(key)
        posterior = cube.spread(cube.solve((game + noise) * cube.seen, _ROUGH))
        return (game - posterior).at[rows].set(0.0)

    draws = jax.lax.map(draw, jax.random.split(key, num_draws))
    return table, draws * prior.scale * jnp.sqrt(variance) * WIDER


def pooled(errors: Float[Array, "draws M"], request: Request) -> Float[Array, "M"]:
    """The root mean square error of each set; few draws are steadied by those of all sets of its size."""
    sizes = (sets_up_to(request.num_players, request.order) >= 0).sum(1)
    own = jnp.mean(errors**2, axis=0)
    alike = jnp.stack([jnp.mean(own[sizes == s]) for s in range(1, request.order + 1)])
    return jnp.sqrt((2 * own + alike[sizes - 1]) / 3)


class _Cube:
    """The prior on a whole table, and its posterior given the values at some rows."""

    def __init__(self, rows: Int[Array, "m"], rho: Float[Array, "P"], num_players: int):
        self.n = num_players
        sizes = np.bitwise_count(np.arange(1 << num_players))
        dtype = rho.dtype
        spectrum = 1 / jnp.prod(1 + rho)[None]  # a value's prior variance is 1
        for one in rho:
            spectrum = jnp.concatenate([spectrum, spectrum * one])
        self.spectrum = spectrum.at[0].add(CONSTANT).astype(dtype)
        self.seen = jnp.zeros(1 << num_players, dtype).at[rows].set(1.0)
        degree = _exact_degree(num_players)
        self.low = np.flatnonzero(sizes <= degree)
        self.noise = noise_of(rho, len(rows))
        rest = jnp.sum(jnp.where(sizes > degree, self.spectrum, 0)) + self.noise
        self.rest = noise_of_small_sets(rest, len(rows))
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
            return self.spread(w) * self.seen + self.noise * w

        return conjugate_gradients(product, self.precondition, target, tolerance)

    def draw(self, key: Array) -> tuple[Float[Array, "R"], Float[Array, "R"]]:
        """A game from the prior, and noise."""
        keys = jax.random.split(key)
        shape, dtype = self.spectrum.shape, self.spectrum.dtype
        game = transform(jnp.sqrt(self.spectrum) * jax.random.normal(keys[0], shape, dtype), self.n)
        return game, jnp.sqrt(self.noise) * jax.random.normal(keys[1], shape, dtype)


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
