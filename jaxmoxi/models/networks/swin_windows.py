"""A Swin transformer's windows: cutting maps into them, shifted or not, and attention with relative position biases.

A table holds, for each head, one number for every (row, column) difference of two positions in a window.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxmoxi.models.networks.relative import spread_differences
from jaxmoxi.models.networks.swin_config import Pair, Stage

# What a score loses where the shift brought two positions together that are far apart: as in all three frameworks.
_APART = -100.0


def split_windows(
    x: Float[Array, "B H W D"], stage: Stage, shifted: bool, *, pad_first: bool
) -> Float[Array, "B M N D"]:
    """The M windows of N positions of each map, row by row, after a cyclic shift. Padding is zeros, behind the map."""
    padding = [(0, 0), *((0, -size % w) for size, w in zip(stage.map, stage.window, strict=True)), (0, 0)]
    shift = tuple(-s for s in stage.shift)
    x = jnp.pad(x, padding) if pad_first else x
    x = jnp.roll(x, shift, (1, 2)) if shifted else x
    x = x if pad_first else jnp.pad(x, padding)
    (batch, height, width, depth), (rows, columns) = x.shape, stage.window
    x = x.reshape(batch, height // rows, rows, width // columns, columns, depth).swapaxes(2, 3)
    return x.reshape(batch, -1, rows * columns, depth)


def join_windows(
    x: Float[Array, "B M N D"], stage: Stage, shifted: bool, *, pad_first: bool
) -> Float[Array, "B H W D"]:
    """The maps of which `split_windows` made windows."""
    (batch, _, _, depth), (rows, columns) = x.shape, stage.window
    height, width = (-(-size // w) * w for size, w in zip(stage.map, stage.window, strict=True))
    x = x.reshape(batch, height // rows, width // columns, rows, columns, depth).swapaxes(2, 3)
    x = x.reshape(batch, height, width, depth)
    x = x if pad_first else x[:, : stage.map[0], : stage.map[1]]
    x = jnp.roll(x, stage.shift, (1, 2)) if shifted else x
    return x[:, : stage.map[0], : stage.map[1]]


@functools.cache
def shift_mask(stage: Stage) -> Float[np.ndarray, "M N N"]:
    """What a shift adds to the scores of each window: 0 where two positions belong together, -100 where they do not."""
    axes = []
    for size, window, shift in zip(stage.map, stage.window, stage.shift, strict=True):
        place = np.arange(-(-size // window) * window)
        axes.append((place >= len(place) - window).astype(int) + (shift > 0) * (place >= len(place) - shift))
    (rows, columns), (high, wide) = axes, stage.window
    regions = (3 * rows[:, None] + columns).reshape(len(rows) // high, high, len(columns) // wide, wide)
    regions = regions.swapaxes(1, 2).reshape(-1, high * wide)
    return np.where(regions[:, :, None] == regions[:, None, :], 0, _APART).astype(np.float32)


@functools.cache
def _differences(window: Pair) -> np.ndarray:
    """Where a table has the number for each pair of positions in a window."""
    rows, columns = window
    row, column = np.divmod(np.arange(rows * columns), columns)
    down, right = row[:, None] - row + rows - 1, column[:, None] - column + columns - 1
    return down * (2 * columns - 1) + right


def gather_bias(table: Float[np.ndarray, "R heads"], window: Pair) -> Float[np.ndarray, "heads N N"]:
    """The numbers of a table for each pair of positions."""
    return np.ascontiguousarray(np.asarray(table, np.float32)[_differences(window)].transpose(2, 0, 1))


def resize_table(table: Float[np.ndarray, "R heads"], window: Pair, new: Pair) -> Float[np.ndarray, "R2 heads"]:
    """A table for windows of another size, as timm's `resize_rel_pos_bias_table` makes it.

    See `relative.resize_timm`; here there is no class token.
    """
    if window == new:
        return np.asarray(table, np.float32)
    inner = np.asarray(table, np.float32).reshape(2 * window[0] - 1, 2 * window[1] - 1, -1)
    rows, columns = (spread_differences(2 * old - 1, 2 * wanted - 1) for old, wanted in zip(window, new, strict=True))
    return np.einsum("Rr,rch,Cc->RCh", rows, inner, columns).reshape(-1, table.shape[1]).astype(np.float32)


def attend(
    qkv: Float[Array, "B M N D3"], bias: Float[Array, "heads N N"], mask: Float[np.ndarray, "M N N"] | None
) -> Float[Array, "B M N D"]:
    """Multi-head attention in each window, with a bias for each head and a mask for each window.

    Heads, images and windows are one axis of the products: XLA's CPU backend is slower where there are several, and
    takes three times as long to compile a loop over the heads.
    """
    (batch, count, size, width), heads = qkv.shape, len(bias)
    parts = qkv.reshape(batch * count, size, 3, heads, width // (3 * heads)).transpose(2, 3, 0, 1, 4)
    query, key, value = parts.reshape(3, -1, size, parts.shape[-1])
    scores = jnp.einsum("mqd,mkd->mqk", query * jnp.asarray(query.shape[-1] ** -0.5, query.dtype), key)
    scores = scores.astype(jnp.float32).reshape(heads, batch, count, size, size) + bias[:, None, None]
    scores = scores if mask is None else scores + mask
    weights = jax.nn.softmax(scores, axis=-1).astype(value.dtype).reshape(-1, size, size)
    attended = jnp.einsum("mqk,mkd->mqd", weights, value).reshape(heads, batch * count, size, -1)
    return attended.transpose(1, 2, 0, 3).reshape(batch, count, size, -1)
