"""A Swin transformer's windows: cutting maps into them, shifted or not, and attention with relative position biases.

A table holds, for each head, one number for every (row, column) difference of two positions in a window.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

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


def attend(
    qkv: Float[Array, "B M N D3"], bias: Float[Array, "heads N N"], mask: Float[np.ndarray, "M N N"] | None
) -> Float[Array, "B M N D"]:
    """Multi-head attention in each window, with a bias for each head and a mask for each window."""
    return jax.lax.platform_dependent(
        qkv, bias, cpu=functools.partial(attend_by_head, mask=mask), default=functools.partial(attend_at_once, mask=mask)
    )


def attend_at_once(qkv: Array, bias: Array, *, mask: np.ndarray | None) -> Array:
    """`attend` as one product over windows and heads."""
    heads = len(bias)
    query, key, value = jnp.moveaxis(qkv.reshape(*qkv.shape[:3], 3, heads, -1), 3, 0)
    query = query * jnp.asarray(query.shape[-1] ** -0.5, query.dtype)
    scores = jnp.einsum("bmqhd,bmkhd->bmhqk", query, key).astype(jnp.float32) + bias
    scores = scores if mask is None else scores + mask[:, None]
    weights = jax.nn.softmax(scores, axis=-1).astype(value.dtype)
    return jnp.einsum("bmhqk,bmkhd->bmqhd", weights, value).reshape(*qkv.shape[:3], -1)


def attend_by_head(qkv: Array, bias: Array, *, mask: np.ndarray | None) -> Array:
    """`attend` head by head: XLA's CPU backend is faster at products with one batch axis."""
    batch, count, size, width = qkv.shape
    flat, width = qkv.reshape(batch * count, size, width), width // 3
    head = width // len(bias)
    outputs = []
    for i, start in enumerate(range(0, width, head)):
        query, key, value = (flat[..., part + start : part + start + head] for part in (0, width, 2 * width))
        scores = jnp.einsum("mqd,mkd->mqk", query * jnp.asarray(head**-0.5, query.dtype), key)
        scores = scores.astype(jnp.float32).reshape(batch, count, size, size)
        scores = scores + (bias[i] if mask is None else bias[i] + mask)
        weights = jax.nn.softmax(scores, axis=-1).astype(value.dtype).reshape(-1, size, size)
        outputs.append(jnp.einsum("mqk,mkd->mqd", weights, value))
    return jnp.concatenate(outputs, axis=-1).reshape(batch, count, size, width)


def attend_flat(qkv: Array, bias: Array, *, mask: np.ndarray | None) -> Array:
    """flat"""
    (batch, count, size, width), heads = qkv.shape, len(bias)
    parts = qkv.reshape(batch * count, size, 3, heads, -1).transpose(2, 3, 0, 1, 4)
    head = parts.shape[-1]
    query, key, value = parts.reshape(3, -1, size, head)
    scores = jnp.einsum("mqd,mkd->mqk", query * jnp.asarray(head**-0.5, query.dtype), key)
    scores = scores.astype(jnp.float32).reshape(heads, batch, count, size, size) + bias[:, None, None]
    scores = scores if mask is None else scores + mask
    weights = jax.nn.softmax(scores, axis=-1).astype(value.dtype).reshape(-1, size, size)
    out = jnp.einsum("mqk,mkd->mqd", weights, value).reshape(heads, batch * count, size, head)
    return out.transpose(1, 2, 0, 3).reshape(batch, count, size, -1)
