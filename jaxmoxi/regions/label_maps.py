"""Players in pixel space: label maps, and the way from coalitions of players to visible pixels and tokens.

A label map is int32[H, W] with labels 0 .. P-1; pixel (y, x) belongs to the player `regions[y, x]`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, Num

from jaxmoxi.errors import InputError
from jaxmoxi.pytrees import is_concrete
from jaxmoxi.types import AnyArray


def grid_regions(height: int, width: int, *, rows: int, cols: int) -> Int[Array, "H W"]:
    """A `rows` x `cols` grid of rectangles over an image, numbered row by row.

    Sides that do not divide evenly give rectangles that differ by at most one pixel.

    Returns int32[height, width], labels 0 .. rows * cols - 1.
    Raises ValueError unless 1 <= rows <= height and 1 <= cols <= width.
    """
    if not (1 <= rows <= height and 1 <= cols <= width):
        raise InputError(
            f"a grid needs 1 <= rows <= height and 1 <= cols <= width; got {rows} x {cols} rectangles "
            f"on {height} x {width} pixels"
        )
    row = np.arange(height) * rows // height
    col = np.arange(width) * cols // width
    return jnp.asarray(row[:, None] * cols + col[None, :], jnp.int32)


def relabel(labels: Any) -> Int[Array, "H W"]:
    """Any integer label map as int32[H, W] with labels 0 .. P-1, numbered in raster order of first appearance."""
    if not is_concrete(labels):
        raise InputError("relabel needs a label map that is known; call it outside jit")
    labels = np.asarray(labels)
    if labels.ndim != 2 or not np.issubdtype(labels.dtype, np.integer):
        raise InputError(f"a label map is integers [H, W]; got {labels.dtype} of shape {labels.shape}")
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int32)
    rank[np.argsort(first)] = np.arange(len(first))
    return jnp.asarray(rank[inverse.reshape(labels.shape)])


def count_regions(regions: Int[AnyArray, "H W"]) -> int:
    """How many players a label map has: its labels must be 0 .. P-1, each with at least one pixel.

    Raises ValueError if one is missing or negative (`relabel` makes any map fit), for no pixels, and inside `jit`.
    """
    if not is_concrete(regions):
        raise InputError("count_regions needs a label map that is known; call it outside jit")
    present = np.unique(np.asarray(regions))
    if not len(present):
        raise InputError(f"expected a label map with pixels; got shape {np.shape(regions)}")
    if present[0] != 0 or present[-1] != len(present) - 1:
        raise InputError(
            f"the label map's labels must be 0 .. P-1 without a gap; got {len(present)} labels from {present[0]} "
            f"to {present[-1]}: pass it through jaxmoxi.relabel first"
        )
    return len(present)


def num_regions(regions: Int[AnyArray, "*B H W"]) -> Int[Array, "*B"]:
    """How many players each label map has, int32[...]: one more than the last label. Unchecked; works under jit."""
    return jnp.max(jnp.asarray(regions), axis=(-2, -1)) + 1


def region_sizes(regions: Int[AnyArray, "H W"], num_players: int) -> Int[Array, "P"]:
    """Pixels of each player, int32[P]."""
    return jnp.zeros(num_players, jnp.int32).at[jnp.ravel(regions)].add(1)


def pool_regions(
    values: Num[AnyArray, "H W *F"],
    regions: Int[AnyArray, "H W"],
    num_players: int,
    *,
    how: Literal["mean", "sum", "max", "min"] = "mean",
) -> Num[Array, "P *F"]:
    """Pools the values of each player's pixels: [P, ...] from [H, W, ...]. Differentiable in the values.

    The mean of integers is float32. A player without pixels gets 0.
    Raises ValueError for another `how`.
    """
    values = jnp.asarray(values)
    flat, labels = values.reshape(-1, *values.shape[2:]), jnp.ravel(regions)
    pools = {"sum": jax.ops.segment_sum, "max": jax.ops.segment_max, "min": jax.ops.segment_min}
    sizes = region_sizes(regions, num_players).reshape(-1, *[1] * (flat.ndim - 1))
    if how == "mean":
        return jax.ops.segment_sum(flat, labels, num_players) / jnp.maximum(sizes, 1).astype(jnp.float32)
    if how not in pools:
        raise InputError(f"how must be 'mean', 'sum', 'max' or 'min'; got {how!r}")
    return jnp.where(sizes > 0, pools[how](flat, labels, num_players), jnp.zeros((), values.dtype))


def region_adjacency(regions: Int[AnyArray, "H W"], num_players: int) -> Int[Array, "P P"]:
    """The length of the border between each two players, int32[P, P], in pairs of adjacent pixels.

    The matrix is symmetric and 0 on the diagonal. Players are neighbours where it is above 0.
    """
    regions = jnp.asarray(regions)
    one = jnp.concatenate([regions[1:].ravel(), regions[:, 1:].ravel()])
    other = jnp.concatenate([regions[:-1].ravel(), regions[:, :-1].ravel()])
    lengths = jnp.zeros((num_players, num_players), jnp.int32).at[one, other].add((one != other).astype(jnp.int32))
    return lengths + lengths.T


def region_borders(regions: Int[AnyArray, "*B H W"]) -> Bool[Array, "*B H W"]:
    """The borders, one pixel wide: True where the pixel to the right or below belongs to another player."""
    regions = jnp.asarray(regions)
    below = jnp.concatenate([regions[..., 1:, :], regions[..., -1:, :]], axis=-2)
    right = jnp.concatenate([regions[..., 1:], regions[..., -1:]], axis=-1)
    return (regions != below) | (regions != right)


def pad_regions(
    regions: Sequence[Int[AnyArray, "H W"]] | Int[AnyArray, "B H W"], *, num_players: int | None = None
) -> tuple[Int[Array, "B H W"], Bool[Array, "B P"]]:
    """Stacks label maps of one size for one number of players. Returns `(maps, players)`: who is in each map.

    A player that a map does not have owns no pixel, so showing or hiding that player changes nothing.

    num_players: P. None takes the largest number of any map, which is not known for traced maps.
    Raises ValueError if the sizes differ, or a map has more players than `num_players`.
    """
    shapes = {jnp.shape(r) for r in regions}
    if len(shapes) != 1 or len(next(iter(shapes))) != 2:
        raise InputError(f"expected label maps [H, W] of one size; got shapes {sorted(shapes)}")
    stacked = jnp.stack([jnp.asarray(r, jnp.int32) for r in regions])
    counts = num_regions(stacked)
    if is_concrete(counts):
        most = int(jnp.max(counts))
        if num_players is not None and most > num_players:
            raise InputError(f"a label map has {most} players, more than num_players = {num_players}")
        num_players = most if num_players is None else num_players
    elif num_players is None:
        raise InputError("the number of players of traced label maps is not known; give num_players")
    return stacked, jnp.arange(num_players) < counts[:, None]


def visible_pixels(masks: Bool[AnyArray, "*C P"], regions: Int[AnyArray, "H W"]) -> Bool[Array, "*C H W"]:
    """The pixels that each coalition shows: bool[..., H, W] from masks bool[..., P]."""
    return jnp.take(masks, regions, axis=-1)


def token_players(regions: Int[AnyArray, "H W"], *, rows: int, cols: int, num_players: int) -> Int[Array, "T"]:
    """The player each token of a `rows` x `cols` token grid belongs to: the one that covers most of its pixels.

    A draw goes to the lowest label. A region that covers most of no token is a player without tokens: showing or hiding
    that player changes nothing.

    regions: int32[H, W] with H divisible by rows and W by cols.
    Returns int32[T], T = rows * cols, tokens numbered row by row.
    Raises ValueError if the sides do not divide.
    """
    height, width = regions.shape
    if height % rows or width % cols:
        raise InputError(
            f"regions of {height} x {width} pixels do not divide into {rows} x {cols} tokens; "
            "make them at the size of the image that the model sees"
        )
    patches = jnp.reshape(regions, (rows, height // rows, cols, width // cols)).swapaxes(1, 2)
    patches = jnp.reshape(patches, (rows * cols, -1))
    counts = jax.vmap(lambda labels: jnp.zeros(num_players, jnp.int32).at[labels].add(1))(patches)
    return jnp.argmax(counts, axis=1).astype(jnp.int32)


def check_regions(regions: Any, height: int, width: int) -> tuple[Int[Array, "H W"], int | None]:
    """`regions` as int32[H, W], and the number of players (None for traced regions, which cannot be counted).

    Raises ValueError if it is not an integer map of this size with labels 0 .. P-1. The labels of a traced map cannot
    be looked at: a map that has a gap or does not begin at 0 is filled with -1, no player, of which games make NaN.
    """
    regions = jnp.asarray(regions)
    if regions.shape != (height, width) or not jnp.issubdtype(regions.dtype, jnp.integer):
        raise InputError(
            f"expected regions of integers [{height}, {width}], the size of the image; "
            f"got {regions.dtype} of shape {regions.shape}"
        )
    regions = regions.astype(jnp.int32)
    if is_concrete(regions):
        return regions, count_regions(regions)
    labels = jnp.sort(jnp.ravel(regions))
    whole = (labels[0] == 0) & jnp.all(jnp.diff(labels) <= 1)
    return jnp.where(whole, regions, -1), None
