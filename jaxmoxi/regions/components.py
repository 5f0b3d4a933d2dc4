"""Connected regions on the device: the components of a label map, the joining of small ones, and their numbering.

Each function takes one image. Shapes are fixed and sums are of whole numbers, so the answer is the same on every device
and in every batch. A region is known by its *root*, the index (row * width + column) of one of its pixels. `roots`
int32[H, W] holds the root of each pixel's region. Pixels are neighbours along rows and columns, not diagonally.

Sources: components by hooking and pointer jumping, Shiloach, Vishkin, "An O(log n) parallel connectivity algorithm",
1982; joining in rounds, each small region to a neighbour larger than itself, as in Borůvka's algorithm.
"""

from __future__ import annotations

import math
from functools import reduce
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxmoxi.regions.colours import FEW


def connected_components(labels: Int[Array, "H W"]) -> Int[Array, "H W"]:
    """The root of each pixel's component: the first pixel, in raster order, of the connected pixels of one label."""
    height, width = labels.shape
    index = _index(labels.shape)
    same = [labels == other for other in _neighbours(labels, -1)]

    def lowest(roots: Array) -> Array:
        """The least root among a pixel and its neighbours of the same label."""
        pairs = zip(same, _neighbours(roots, height * width), strict=True)
        return reduce(jnp.minimum, [jnp.where(s, other, roots) for s, other in pairs])

    def unfinished(state: tuple[Array, Array]) -> Array:
        return jnp.any(state[1] < state[0])

    def hook(state: tuple[Array, Array]) -> tuple[Array, Array]:
        roots, low = (x.ravel() for x in state)
        roots = _jump(roots.at[roots].min(low, mode="promise_in_bounds"), 2).reshape(labels.shape)
        return roots, lowest(roots)

    # Every pixel points up, or else left, within its component. Three jumps make one tree of most of a component.
    above, left = same[0], same[2]
    start = jnp.where(above, index - width, jnp.where(left, index - 1, index))
    roots = _jump(start.ravel(), 3).reshape(labels.shape)
    return jax.lax.while_loop(unfinished, hook, (roots, lowest(roots)))[0]


def join_small(
    roots: Int[Array, "H W"], colours: Float[Array, "channels H W"], *, min_size: int, max_regions: int
) -> Int[Array, "H W"]:
    """Joins regions until each has `min_size` pixels and there are at most `max_regions`. Returns the roots.

    In each round, every region that is too small joins one neighbour: the closest in colour of those that are larger
    (by size, then by the lower root). Each region joins a larger one, so there are no cycles, and the smallest region
    always finds a neighbour. The colour of a root is the mean colour of its first region. While too many regions are
    large enough, those that are not among the `max_regions` largest count as too small. Regions of equal size all stay,
    or all join.

    colours: finite, each channel in [-128, 128].
    """
    shape, count, channels = roots.shape, roots.size, len(colours)
    index = _index(shape)
    scale = 2.0 ** math.floor(math.log2(2**31 / (128 * count)))  # sums of whole numbers that fit 32 bits
    whole = jnp.round(colours * scale).astype(jnp.int32).reshape(channels, count)
    ones = jnp.ones((1, count), jnp.int32)
    sums = (
        jnp.zeros((count, channels + 1), jnp.int32)
        .at[roots.ravel()]
        .add(jnp.concatenate([whole, ones]).T, mode="promise_in_bounds")
    )
    size_of = sums[:, -1]
    means = sums[:, :-1].T.astype(jnp.float32) / jnp.maximum(size_of, 1)
    # A plane a channel is fastest for few of them; many are one array, or compiling would take long.
    planes = [means] if channels > FEW else list(means)

    # At most `max_regions` regions can have this size. The least size that so few regions have lies at or below it.
    enough = max(count // (max_regions + 1) + 1, min_size)

    def threshold(sizes: Array) -> Array:
        def few(size: Any) -> Array:
            return jnp.sum(sizes >= size) <= max_regions

        def halve(bounds: tuple[Array, Array]) -> tuple[Array, Array]:
            low, high = bounds
            middle = (low + high) // 2
            fits = few(middle)
            return jnp.where(fits, low, middle + 1), jnp.where(fits, middle, high)

        fits = few(min_size)  # usually true
        bounds = jnp.where(fits, min_size, min_size + 1), jnp.where(fits, min_size, enough)
        return jax.lax.while_loop(lambda bounds: bounds[0] < bounds[1], halve, bounds)[1]

    # The loop carries the size and the colour of each pixel's region: gathered once a round, read by four neighbours.
    def describe(roots: Array, sizes: Array) -> tuple[Array, ...]:
        flat = roots.ravel()
        spread = [_take(values, flat).reshape(*values.shape[:-1], *shape) for values in (sizes, *planes)]
        return (roots, sizes, threshold(sizes), *spread)

    def unfinished(state: tuple[Array, ...]) -> Array:
        _, sizes, least, *_ = state
        return jnp.any((sizes > 0) & (sizes < least))

    def join(state: tuple[Array, ...]) -> tuple[Array, ...]:
        roots, sizes, least, *own = state
        flat = roots.ravel()
        others = [_neighbours(x, fill) for x, fill in zip((roots, *own), (count, 0, *[0.0] * len(planes)), strict=True)]
        distances = []
        for root, size, *colour in zip(*others, strict=True):
            larger = (size > own[0]) | ((size == own[0]) & (root < roots))
            squares = [(a - b) ** 2 for a, b in zip(own[1:], colour, strict=True)]
            distance = jnp.sum(squares[0], axis=0) if channels > FEW else sum(squares)
            distances.append(jnp.where(larger, distance, jnp.inf))
        # First the least distance of each region, then the lowest root among the neighbours at that distance.
        best = jnp.full(count, jnp.inf).at[flat].min(reduce(jnp.minimum, distances).ravel(), mode="promise_in_bounds")
        mine = _take(best, flat).reshape(shape)
        closest = [
            jnp.where((distance == mine) & (distance < jnp.inf), root, count)
            for distance, root in zip(distances, others[0], strict=True)
        ]
        target = jnp.full(count, count).at[flat].min(reduce(jnp.minimum, closest).ravel(), mode="promise_in_bounds")
        parent = jnp.where((sizes < least) & (target < count), target, index.ravel())
        parent = jax.lax.while_loop(lambda p: jnp.any(_take(p, p) != p), lambda p: _take(p, p), parent)
        roots = _take(parent, flat).reshape(shape)
        return describe(roots, jnp.zeros(count, jnp.int32).at[parent].add(sizes, mode="promise_in_bounds"))

    return jax.lax.while_loop(unfinished, join, describe(roots, size_of))[0]


def number_regions(roots: Int[Array, "H W"]) -> Int[Array, "H W"]:
    """Labels 0 .. P-1 in raster order of each region's first pixel, from any numbers in 0 .. H * W - 1."""
    flat, index = roots.ravel(), _index(roots.shape)
    first = jnp.full(roots.size, roots.size, jnp.int32).at[flat].min(index.ravel(), mode="promise_in_bounds")
    first = _take(first, flat)
    is_first = (first.reshape(roots.shape) == index).astype(jnp.int32)
    rows = jnp.sum(is_first, axis=1, keepdims=True)
    rank = jnp.cumsum(rows, axis=0) - rows + jnp.cumsum(is_first, axis=1) - 1
    return _take(rank.ravel(), first).reshape(roots.shape)


def _index(shape: tuple[int, ...]) -> Array:
    return jnp.arange(math.prod(shape), dtype=jnp.int32).reshape(shape)


def _neighbours(x: Array, fill: float | int) -> tuple[Array, Array, Array, Array]:
    """What stands above, below, left and right of each pixel."""
    padded = jnp.pad(x, [(0, 0)] * (x.ndim - 2) + [(1, 1)] * 2, constant_values=fill)
    return padded[..., :-2, 1:-1], padded[..., 2:, 1:-1], padded[..., 1:-1, :-2], padded[..., 1:-1, 2:]


def _take(values: Array, at: Array) -> Array:
    return values.at[..., at].get(mode="promise_in_bounds")


def _jump(parents: Array, times: int) -> Array:
    """Replaces each parent by the parent's parent, `times` times. Without the loop, XLA nests the gathers."""
    return jax.lax.fori_loop(0, times, lambda _, p: _take(p, p), parents)
