"""Relative position biases of BEiT: what an attention score gains from where two patches stand to each other.

A table holds, for each head, one number for every (row, column) difference of two patches of a grid, and three more:
from the class token to a patch, from a patch to the class token, and from the class token to itself.

Source: Bao et al., "BEiT: BERT Pre-Training of Image Transformers", ICLR 2022; the indices and the interpolations are
those of Hugging Face's `modeling_beit.py` and of timm's `pos_embed_rel.py` (both Apache 2.0).
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxmoxi.models.networks.positions import resize_grid

Grid = tuple[int, int]


def table_length(grid: Grid) -> int:
    """Rows of a table for a grid of patches."""
    return (2 * grid[0] - 1) * (2 * grid[1] - 1) + 3


def pair_index(places: Int[Array, "B N"], grid: Grid) -> Int[Array, "B M M"]:
    """Where a table has the number for each pair of tokens: the class token, then the patches at `places`; M = N + 1.

    places: numbers of patches, row by row, in any order.
    """
    rows, cols = grid
    last = table_length(grid) - 1
    line = places // cols * (2 * cols - 1) + places % cols
    between = line[:, :, None] - line[:, None, :] + (rows - 1) * (2 * cols - 1) + cols - 1
    index = jnp.pad(between, ((0, 0), (1, 0), (1, 0)), constant_values=last)
    token = jnp.arange(index.shape[1])
    from_class, to_class = token[:, None] == 0, token[None, :] == 0
    index = jnp.where(from_class & ~to_class, last - 2, index)
    return jnp.where(to_class & ~from_class, last - 1, index)


def class_index(count: int, grid: Grid) -> Int[np.ndarray, "M"]:
    """The first row of `pair_index`, for `count` patches: it does not depend on which they are."""
    last = table_length(grid) - 1
    return np.concatenate([[last], np.full(count, last - 2)])


def resize_huggingface(table: Float[np.ndarray, "R H"], grid: Grid, new: Grid) -> Float[np.ndarray, "R2 H"]:
    """A table for another grid of patches, as `BeitRelativePositionBias` computes it for images of any size.

    Of a grid that is not square, Hugging Face takes the table's rows for its columns. It does so at the table's own
    size as well, so weights trained there expect it, and it is done here.
    """
    inner = table[:-3].reshape(2 * grid[1] - 1, 2 * grid[0] - 1, -1)
    return _with_class(table, resize_grid(inner, (2 * new[0] - 1, 2 * new[1] - 1), mode="bilinear"))


def resize_timm(table: Float[np.ndarray, "R H"], grid: Grid, new: Grid) -> Float[np.ndarray, "R2 H"]:
    """A table for another grid of patches, as timm's `resize_rel_pos_bias_table` makes it.

    The old differences are spread so that they lie dense near 0 and reach the largest new difference; between them the
    numbers are interpolated linearly. The place of each in float32, as there.
    """
    if grid == new:
        return np.asarray(table, np.float32)
    inner = np.asarray(table[:-3], np.float32).reshape(2 * grid[0] - 1, 2 * grid[1] - 1, -1)
    rows, cols = (spread_differences(2 * old - 1, 2 * wanted - 1) for old, wanted in zip(grid, new, strict=True))
    return _with_class(table, np.einsum("Rr,rch,Cc->RCh", rows, inner, cols, optimize=True))


def _with_class(table: np.ndarray, inner: np.ndarray) -> np.ndarray:
    """A table of the differences `inner`, with the class token's three numbers of another."""
    return np.concatenate([inner.reshape(-1, table.shape[1]), table[-3:]]).astype(np.float32)


def spread_differences(old: int, new: int) -> Float[np.ndarray, "new old"]:
    """What each new difference takes of each old one, as timm interpolates tables of differences."""
    low, high, ratio = 1.01, 1.5, 1.01
    while high - low > 1e-6:
        ratio = (low + high) / 2
        reach = (1.0 - ratio ** (old // 2)) / (1.0 - ratio)
        low, high = (low, ratio) if reach > new // 2 else (ratio, high)
    distances, distance = [], 1.0
    for i in range(old // 2):
        distances.append(distance)
        distance += ratio ** (i + 1)
    places = np.array([-d for d in reversed(distances)] + [0] + distances, np.float32)
    weights = np.zeros((new, old))
    for i in range(new):
        wanted = np.float32(i - new // 2)
        right = min(int(np.searchsorted(places, wanted)), old - 1)
        left = max(right - 1, 0)
        near, far = max(wanted - places[left], 0), max(places[right] - wanted, 0)
        if near == far == 0:
            near = far = 1
        weights[i, left] += far / (near + far)
        weights[i, right] += near / (near + far)
    return weights
