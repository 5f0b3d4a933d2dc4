"""Weighted least squares over coalitions, chunk by chunk, with linear constraints and standard errors.

The unknowns are few, the coalitions are many: what is kept is the matrix of the normal equations. Constraints A x = c
are met by starting from an x0 that meets them, and by staying where x - x0 is orthogonal to the rows of A.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import jax.scipy.linalg as linalg
import numpy as np
from jaxtyping import Array, Float, Int

from jaxmoxi.interactions.moments import chunked

MOST_FEATURES = 4000  # four matrices of as many rows and columns take 256 MiB
_RIDGE, _STEPS = 1e-2, 6
_LEAST_REST = 0.05  # of a residual's share that the fit leaves it: beyond, the error of an error explodes

Rows = Callable[[Int[Array, "C"]], tuple[Float[Array, "C M"], Float[Array, "C"]]]


class Solution(NamedTuple):
    """x, and the inverse of the normal equations where the constraints leave x free."""

    x: Float[Array, "M"]
    inverse: Float[Array, "M M"]


def solve(
    rows: Rows, targets: Float[Array, "C"], start: Float[Array, "M"], basis: Float[np.ndarray, "M K"]
) -> Solution:
    """The x = start + what is orthogonal to `basis` that minimises the sum of weight (target - feature x)^2.

    rows:  `indices -> (features float32[C, M], weights float32[C])`.
    basis: an orthonormal basis of the constraints' rows.

    Solved by iterated ridge regression: six steps, each a Cholesky solution of the normal equations with a small ridge
    for what the steps before left over. What the coalitions determine is exact to rounding, and what they leave open is
    damped.
    """

    def step(indices: Array, there: Array) -> list[Array]:
        features, weights = rows(indices)
        weighted = features * jnp.where(there, weights, 0)[:, None]
        left = targets[indices] - _dot(features, start)
        return [_dot(weighted.T, features), _dot(weighted.T, left)]

    gram, right = chunked(step, len(targets))
    held = jax.lax.optimization_barrier(jnp.asarray(basis, jnp.float32))  # no products of constants while compiling
    size = jnp.trace(gram) / len(gram)
    gram, right = _free(held, _free(held, gram).T), _free(held, right)
    gram = gram + size * _dot(held, held.T)
    factor = linalg.cho_factor(gram + _RIDGE * size * jnp.eye(len(gram)))
    x = linalg.cho_solve(factor, right)
    for _ in range(_STEPS - 1):
        x = x + linalg.cho_solve(factor, right - _dot(gram, x))
    inverse = _free(held, linalg.cho_solve(factor, _free(held, jnp.eye(len(gram)))).T)
    return Solution(start + _free(held, x), inverse)


def _free(basis: Float[Array, "M K"], x: Array) -> Array:
    """What is left of the columns of x, orthogonal to the basis."""
    return x - _dot(basis, _dot(basis.T, x))


def scores(
    solution: Solution, rows: Rows, targets: Float[Array, "C"], units: Int[Array, "U"], per_unit: int
) -> Float[Array, "U M"]:
    """How much each of these units moves x: the sum over its coalitions of weight, residual and feature.

    The residuals are those of fits without the unit, but for what two of its coalitions share (HC3; MacKinnon and
    White, "Some heteroskedasticity-consistent covariance matrix estimators with improved finite sample properties",
    1985). A coalition and its complement are nearly the same row: they leave together.
    """
    parts, held = [], jnp.zeros(len(units))
    for side in range(per_unit):
        index = per_unit * units + side
        features, weights = rows(index)
        moved = _dot(features, solution.inverse)
        residuals = targets[index] - _dot(features, solution.x)
        parts.append((weights * residuals)[:, None] * moved)
        held = held + weights * (moved * features).sum(1)
    return functools.reduce(jnp.add, parts) / jnp.maximum(1 - held, _LEAST_REST)[:, None]


def _dot(a: Array, b: Array) -> Array:
    return jnp.matmul(a, b, precision="highest")


def row_space(matrix: Float[np.ndarray, "K M"]) -> Float[np.ndarray, "M R"]:
    """An orthonormal basis of the rows of a matrix."""
    if not len(matrix):
        return np.zeros((matrix.shape[1], 0))
    left, values, _ = np.linalg.svd(matrix.T, full_matrices=False)
    return left[:, values > 1e-9 * max(values.max(), 1e-300)]
