"""SLIC superpixels on the device: k-means in colour and place, where every pixel compares nine centres.

Source: Achanta et al., "SLIC Superpixels Compared to State-of-the-Art Superpixel Methods", TPAMI 2012. A pixel and a
centre are |colour difference|² / compactness² + |difference in place|² / (area of a cell) apart. Colours are those of
`jaxmoxi.regions.colours`: CIELAB of the image stretched to [0, 1], or the image's own channels. scikit-image's `slic`
uses the same distance, so `compactness` means the same there for CIELAB.

Deviations, which give fixed shapes and a cost that does not depend on the number of segments:
- The centres start on a grid of rows x cols <= num_segments cells. A pixel compares the centres of its own cell and of
  the eight cells around it (Ren, Prisacariu, Reid, "gSLICr", 2015), instead of all centres within a window.
- Every round but the last moves the centres by every second pixel of every second row. The last assigns all pixels.
- Colours are rounded to 1/16384, and more coarsely where a cell has more than 1024 samples. Sums are then exact and the
  same in any order.
- A small component joins the neighbour of the closest colour, instead of the one numbered last. The `num_segments`
  largest components stay if they have an eighth of a cell, instead of all that have half of one. None is ever cut.
"""

from __future__ import annotations

import math
from functools import partial, reduce
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Num

from jaxmoxi.regions.colours import Space, colours_of, squared_distance
from jaxmoxi.regions.components import connected_components, join_small, number_regions

# The own centre of a cell comes first, so it wins a draw with another centre.
_AROUND = [(0, 0), (-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1)]


@partial(jax.jit, static_argnames=("num_segments", "num_iterations", "enforce_connectivity", "space"))
def slic(
    images: Num[Array, "B H W channels"],
    compactness: Float[Array, ""],
    *,
    num_segments: int,
    num_iterations: int,
    enforce_connectivity: bool,
    space: Space = "lab",
) -> Int[Array, "B H W"]:
    """`jaxmoxi.slic_regions` of a batch. The caller has checked the arguments."""
    height, width = images.shape[1:3]
    rows, cols = choose_grid(height, width, num_segments)
    least = max(height * width // (8 * rows * cols), 1)

    def assign(image: Array) -> tuple[Array, Array]:
        colours = colours_of(image, space)
        return colours, cluster(colours, compactness, rows=rows, cols=cols, num_iterations=num_iterations)

    def connect(colours: Array, labels: Array) -> Array:
        if enforce_connectivity:
            labels = join_small(connected_components(labels), colours, min_size=least, max_regions=num_segments)
        return number_regions(labels)

    def one_by_one(*batch: Array) -> Array:
        return jax.lax.map(lambda x: connect(*x), batch)

    # On a CPU the arrays of one image stay in the cache. An accelerator is faster with all images at once.
    return jax.lax.platform_dependent(*jax.vmap(assign)(images), cpu=one_by_one, default=jax.vmap(connect))


def choose_grid(height: int, width: int, num_cells: int) -> tuple[int, int]:
    """Rows and columns of about square cells, at most `num_cells` and close to that many."""

    def cost(rows: int) -> float:
        cols = min(num_cells // rows, width)
        return abs(math.log(height / rows * cols / width)) + 4 * math.log(num_cells / (rows * cols))

    rows = min(range(1, min(num_cells, height) + 1), key=cost)
    return rows, min(num_cells // rows, width)


def cluster(
    colours: Float[Array, "channels H W"], compactness: Float[Array, ""], *, rows: int, cols: int, num_iterations: int
) -> Int[Array, "H W"]:
    """The closest centre of each pixel, numbered as the cells of the grid. Pixels of one number need not be connected.

    Pixels are held as [height of a cell, width of a cell, cells]. All pixels then compare the same row of centres, and
    the sums of a cell run over the leading axes.

    colours: finite, each channel in [-128, 128].
    """
    channels, height, width = colours.shape
    top, y_at, y_inside = _cells(height, rows)
    left, x_at, x_inside = _cells(width, cols)
    cells, tall, wide = rows * cols, y_at.shape[1], x_at.shape[1]
    # A constant of NumPy, because XLA computes what is made of small arrays again for every row of pixels below.
    inside = (y_inside.T[:, None, :, None] & x_inside.T[None, :, None, :]).reshape(tall, wide, cells)
    top, left = np.repeat(top, cols).astype(np.float32), np.tile(left, rows).astype(np.float32)
    ys = np.arange(tall, dtype=np.int32)[:, None, None]
    xs = np.arange(wide, dtype=np.int32)[None, :, None]

    # Cells that are large enough are sampled. The sums over the samples of a cell must fit 32 bits.
    step = 1 if min(tall, wide) < 8 else max(2, math.isqrt(tall * wide * max(tall, wide) >> 31) + 1)
    some = np.s_[step // 2 :: step]
    samples = inside[some, some].shape[0] * inside[some, some].shape[1]
    scale = 2.0 ** min(math.floor(math.log2(2**31 / (128 * samples))), 14)

    pixels = jnp.round(colours * scale)[:, y_at.ravel()][:, :, x_at.ravel()]
    pixels = pixels.reshape(channels, rows, tall, cols, wide).transpose(0, 2, 4, 1, 3)
    pixels = pixels.reshape(channels, tall, wide, cells)
    colour_weight = 1 / (compactness * scale) ** 2
    place_weight = np.float32(cells / (height * width))

    def closest(pixels: Array, ys: np.ndarray, xs: np.ndarray, centres: Array) -> Array:
        """Which of the centres around is the closest to each pixel, int8 in 0 .. 8."""
        grid = jnp.pad(centres.reshape(-1, rows, cols), ((0, 0), (1, 1), (1, 1)), constant_values=jnp.inf)

        def distance(dy: int, dx: int) -> Array:
            around = grid[:, 1 + dy : 1 + dy + rows, 1 + dx : 1 + dx + cols]
            around = around.reshape(-1, cells)
            colour = squared_distance(pixels, around[:-2, None, None])
            y, x = around[-2:]
            place = place_weight * (ys - (y - top)) ** 2 + place_weight * (xs - (x - left)) ** 2
            return colour_weight * colour + place

        best = distance(*_AROUND[0])
        which = jnp.zeros(best.shape, jnp.int8)
        for i, around in enumerate(_AROUND[1:], 1):
            other = distance(*around)
            closer = other < best
            best, which = jnp.where(closer, other, best), jnp.where(closer, jnp.int8(i), which)
        return which

    def move(which: Array, centres: Array) -> Array:
        """Moves each centre to the mean of the samples closest to it. A centre without samples stays where it is."""
        which = jnp.where(inside[some, some], which, jnp.int8(len(_AROUND)))
        relations = jnp.arange(len(_AROUND), dtype=jnp.int8)[:, None, None, None]
        whole = sampled.astype(jnp.int32)
        row_ys, row_xs = jnp.asarray(ys[some].ravel()), xs[:, some].ravel()

        def add_row(i: Any, sums: Array) -> Array:
            mine = which[i]
            y = jnp.full_like(mine, row_ys[i], jnp.int32)
            features = jnp.concatenate([whole[:, i], jnp.stack([y, jnp.ones_like(y)])])
            return sums + jnp.where(mine == relations, features, 0)

        none = jnp.zeros((len(_AROUND), channels + 2, 1, 1), jnp.int32) + 0 * whole[0, 0]  # sharded as pixels are
        sums = jax.lax.fori_loop(0, len(row_ys), add_row, none)
        x = jnp.sum(sums[:, -1] * row_xs[:, None], axis=1).astype(jnp.float32)
        sums = jnp.sum(sums, axis=2).astype(jnp.float32)
        colour, y, size = sums[:, :-2], sums[:, -2], sums[:, -1]
        place = jnp.stack([y + size * top, x + size * left, size], axis=1)
        totals = jnp.concatenate([colour, place], axis=1)
        totals = totals.reshape(len(_AROUND), -1, rows, cols)
        given = [jnp.pad(totals[i], ((0, 0), (1 + dy, 1 - dy), (1 + dx, 1 - dx))) for i, (dy, dx) in enumerate(_AROUND)]
        totals = reduce(jnp.add, given)[:, 1:-1, 1:-1].reshape(-1, cells)
        return jnp.where(totals[-1] > 0, totals[:-1] / jnp.maximum(totals[-1], 1), centres)

    def advance(_: Any, centres: Array) -> Array:
        return move(closest(sampled, ys[some], xs[:, some], centres), centres)

    sampled = pixels[:, some, some]
    own = jnp.zeros((tall, wide, cells), jnp.int8)
    if num_iterations > 1:  # the first round is the grid itself
        centres = move(own[some, some], jnp.zeros((channels + 2, cells)))
        own = closest(pixels, ys, xs, jax.lax.fori_loop(0, num_iterations - 2, advance, centres))
    shifts = jnp.asarray([dy * cols + dx for dy, dx in _AROUND], jnp.int32)
    labels = jnp.arange(cells, dtype=jnp.int32) + shifts[own.astype(jnp.int32)]
    labels = labels.reshape(tall, wide, rows, cols).transpose(2, 0, 3, 1).reshape(rows * tall, cols * wide)
    return labels[np.flatnonzero(y_inside)][:, np.flatnonzero(x_inside)]


def _cells(length: int, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cuts a side into `count` cells: the start of each, its places [count, longest], and which places are its own."""
    edges = -(-np.arange(count + 1) * length // count)
    places = edges[:-1, None] + np.arange(np.diff(edges).max())
    return edges[:-1], np.minimum(places, length - 1), places < edges[1:, None]
