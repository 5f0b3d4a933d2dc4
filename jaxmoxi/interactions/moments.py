"""Sums over many coalitions of what each says of every set of players, chunk by chunk."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from math import comb

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxmoxi.interactions.lattice import sets_up_to

CHUNK = 256


def chunked(
    step: Callable[[Int[Array, "C"], Bool[Array, "C"]], list[Array]], count: int, *, size: int = CHUNK
) -> list[Array]:
    """The sum over chunks of what `step(indices, there)` gives; `there` is False for the last chunk's padding."""
    size = max(1, min(size, count))
    starts = jnp.arange(-(-count // size)) * size

    def add(sums: list[Array], start: Array) -> tuple[list[Array], None]:
        indices = start + jnp.arange(size)
        parts = step(jnp.minimum(indices, count - 1), indices < count)
        return jax.tree.map(jnp.add, sums, parts), None

    shapes = jax.eval_shape(step, jnp.arange(size), jnp.ones(size, bool))
    blank = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    return jax.lax.scan(add, blank, starts)[0]


def mapped(at: Callable[[Int[Array, "C"]], Array], count: int, *, size: int = CHUNK) -> Array:
    """`at` of the indices 0 to count - 1, a chunk at a time; the last chunk's padding repeats the last index."""
    size = max(1, min(size, count))
    starts = jnp.arange(-(-count // size)) * size
    out = jax.lax.map(lambda start: at(jnp.minimum(start + jnp.arange(size), count - 1)), starts)
    return out.reshape(-1, *out.shape[2:])[:count]


def set_sums(
    masks: Callable[[Int[Array, "C"]], Bool[Array, "C P"]],
    weigh: Callable[[Int[Array, "C"], Bool[Array, "C P"]], Sequence[Float[Array, "C k"]]],
    *,
    count: int,
    num_players: int,
    order: int,
) -> list[Float[Array, "sets"]]:
    """For every set S of up to `order` players: the sum over coalitions T of a weight that knows |T and S|.

    masks: `indices -> bool[C, P]`, the coalitions of these indices.
    weigh: `(indices, masks) -> [float[C, 1], ..., float[C, order + 1]]`: for sets S of 0, 1, ... players, the weight
           of each coalition if it holds 0, 1, ..., |S| of them.

    Returns a list by size, 0 to `order`, of float[sets of this size] in the order of `lattice.sets_up_to`.

    The weight of S is a polynomial in who is there: with d_j the j-th difference of the weights at 0, it is the sum
    over R in S of d_|R| prod(x_i for i in R), as the products over R of j players in S sum to C(|T and S|, j). So all
    sets are served by products of matrices, P^order sums, whatever the number of coalitions.
    """

    def step(indices: Array, there: Array) -> list[Array]:
        rows = masks(indices)
        x = rows.astype(jnp.float32)
        sums = []
        for size, weights in enumerate(weigh(indices, rows)):
            kept = jnp.where(there[:, None], weights, 0)
            sums += [_products(x, kept @ _difference(size, degree), degree) for degree in range(size + 1)]
        return sums

    parts = iter(chunked(step, count))
    return [_gathered([next(parts) for _ in range(size + 1)], num_players, size) for size in range(order + 1)]


def _difference(size: int, degree: int) -> Float[np.ndarray, "k"]:
    signs = [(-1) ** (degree - i) * comb(degree, i) if i <= degree else 0 for i in range(size + 1)]
    return np.array(signs, np.float32)


def _products(x: Float[Array, "C P"], weights: Float[Array, "C"], degree: int) -> Array:
    """float[P, ..., P]: the sum over coalitions of weight times the product of `degree` players."""
    axes = "abdefghijk"[:degree]
    spec = ",".join(["c", *(f"c{axis}" for axis in axes)]) + "->" + axes
    return jnp.einsum(spec, weights, *[x] * degree, precision="highest")


def _gathered(tensors: list[Array], num_players: int, size: int) -> Float[Array, "sets"]:
    if size == 0:
        return tensors[0][None]
    sets = sets_up_to(num_players, size)
    sets = sets[(sets >= 0).sum(1) == size]
    total = jnp.zeros(len(sets), tensors[0].dtype)
    for degree, tensor in enumerate(tensors):
        for chosen in itertools.combinations(range(size), degree):
            total = total + tensor[tuple(sets[:, i] for i in chosen)]
    return total


_PRIOR = 4.0


def moderated_variances(squares: Float[Array, "M"], counts: Float[Array, "M"], spare: Array) -> Float[Array, "M"]:
    """The variances of single draws, of few draws each: taken together with those of all others alike.

    squares: the sums of squared deviations from the means.
    counts:  the numbers of draws.
    spare:   the variance, where nothing was drawn twice.

    The variance of all together counts as four more degrees of freedom (Smyth, "Linear models and empirical Bayes
    methods for assessing differential expression in microarray experiments", 2004).
    """
    free = jnp.maximum(counts - 1, 0)
    pooled = jnp.where(free.sum() > 0, squares.sum() / jnp.maximum(free.sum(), 1), spare)
    return (squares + _PRIOR * pooled) / (free + _PRIOR)
