"""Players in pixel space: label maps, and the way from coalitions of players to visible pixels and tokens.

A label map is int32[H, W] with labels 0 .. P-1; pixel (y, x) belongs to the player `regions[y, x]`.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from jaxmoxi.types import AnyArray, is_concrete


def grid_regions(height: int, width: int, *, rows: int, cols: int) -> Int[Array, "H W"]:
    """A `rows` x `cols` grid of rectangles over an image, numbered row by row.

    Sides that do not divide evenly give rectangles that differ by at most one pixel.

    Returns int32[height, width], labels 0 .. rows * cols - 1.
    Raises ValueError unless 1 <= rows <= height and 1 <= cols <= width.
    """
    if not (1 <= rows <= height and 1 <= cols <= width):
        raise ValueError(
            f"a grid needs 1 <= rows <= height and 1 <= cols <= width; got {rows} x {cols} rectangles "
            f"on {height} x {width} pixels"
        )
    row = np.arange(height) * rows // height
    col = np.arange(width) * cols // width
    return jnp.asarray(row[:, None] * cols + col[None, :], jnp.int32)


def slic_regions(photo: Any, *, num_segments: int = 100, compactness: float = 20.0) -> Int[Array, "H W"]:
    """SLIC superpixels (Achanta et al. 2012), by scikit-image, in CIELAB, connectivity enforced.

    photo:        uint8[H, W, 3], or float[H, W, 3] in [0, 1], or a PIL image.
    num_segments: how many to ask for, >= 1; SLIC returns about as many, `count_regions` says how many.
    compactness:  > 0; higher gives squarer regions, lower follows colour more closely.

    Returns int32[H, W], labels 0 .. P-1 in raster order of each region's first pixel. Runs on the host.
    Raises ValueError for anything else.
    """
    from skimage.segmentation import slic  # half a second to import, and only superpixels need it

    photo = np.asarray(photo)
    if photo.ndim != 3 or photo.shape[-1] != 3:
        raise ValueError(f"superpixels need a colour photo [H, W, 3]; got shape {photo.shape}")
    if num_segments < 1:
        raise ValueError(f"num_segments must be at least 1; got {num_segments}")
    if not compactness > 0:
        raise ValueError(f"compactness must be positive; got {compactness}")
    if photo.dtype != np.uint8 and not (photo.min() >= 0 and photo.max() <= 1):
        raise ValueError(
            "a photo of floats must lie in [0, 1] for its colours to mean anything; got "
            f"[{photo.min():.3g}, {photo.max():.3g}]: pass the photo before normalisation"
        )
    labels = slic(photo, n_segments=num_segments, compactness=compactness, start_label=0)
    return relabel(labels)


def relabel(labels: Any) -> Int[Array, "H W"]:
    """Any integer label map as int32[H, W] with labels 0 .. P-1, numbered in raster order of first appearance."""
    labels = np.asarray(labels)
    if labels.ndim != 2 or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"a label map is integers [H, W]; got {labels.dtype} of shape {labels.shape}")
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int32)
    rank[np.argsort(first)] = np.arange(len(first))
    return jnp.asarray(rank[inverse.reshape(labels.shape)])


def count_regions(regions: Int[AnyArray, "H W"]) -> int:
    """How many players a label map has: its labels must be 0 .. P-1, each with at least one pixel.

    Raises ValueError if one is missing or negative; `relabel` makes any map fit.
    """
    present = np.unique(np.asarray(regions))
    if present[0] != 0 or present[-1] != len(present) - 1:
        raise ValueError(
            f"the label map's labels must be 0 .. P-1 without a gap; got {len(present)} labels from {present[0]} "
            f"to {present[-1]}: pass it through jaxmoxi.relabel first"
        )
    return len(present)


def region_sizes(regions: Int[AnyArray, "H W"], num_players: int) -> Int[Array, "P"]:
    """Pixels of each player, int32[P]."""
    return jnp.zeros(num_players, jnp.int32).at[jnp.ravel(regions)].add(1)


def visible_pixels(masks: Bool[AnyArray, "*C P"], regions: Int[AnyArray, "H W"]) -> Bool[Array, "*C H W"]:
    """Which pixels a coalition shows: bool[..., H, W] from masks bool[..., P]."""
    return jnp.take(masks, regions, axis=-1)


def token_players(regions: Int[AnyArray, "H W"], *, rows: int, cols: int, num_players: int) -> Int[Array, "T"]:
    """The player each token of a `rows` x `cols` token grid belongs to: the one that covers most of its pixels.

    A draw goes to the lowest label. A region that is nowhere in the majority owns no token: it is a player that
    changes nothing.

    regions: int32[H, W] with H divisible by rows and W by cols.
    Returns int32[T], T = rows * cols, tokens numbered row by row.
    Raises ValueError if the sides do not divide.
    """
    height, width = regions.shape
    if height % rows or width % cols:
        raise ValueError(
            f"regions of {height} x {width} pixels do not divide into {rows} x {cols} tokens; "
            "make them at the size of the image that the model sees"
        )
    patches = jnp.reshape(regions, (rows, height // rows, cols, width // cols)).swapaxes(1, 2)
    patches = jnp.reshape(patches, (rows * cols, -1))
    counts = jax.vmap(lambda labels: jnp.zeros(num_players, jnp.int32).at[labels].add(1))(patches)
    return jnp.argmax(counts, axis=1).astype(jnp.int32)


def check_regions(regions: Any, height: int, width: int) -> tuple[Int[Array, "H W"], int | None]:
    """`regions` as int32[H, W] and its number of players (None while traced: it cannot be counted then).

    Raises ValueError if it is not an integer map of this size with labels 0 .. P-1.
    """
    regions = jnp.asarray(regions)
    if regions.shape != (height, width) or not jnp.issubdtype(regions.dtype, jnp.integer):
        raise ValueError(
            f"expected regions of integers [{height}, {width}], the size of the image; "
            f"got {regions.dtype} of shape {regions.shape}"
        )
    return regions.astype(jnp.int32), count_regions(regions) if is_concrete(regions) else None
