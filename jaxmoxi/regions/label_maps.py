"""Players in pixel space: label maps, and the way from coalitions of players to visible pixels and tokens.

A label map is int32[H, W] with labels 0 .. P-1; pixel (y, x) belongs to the player `regions[y, x]`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, Num

from jaxmoxi.errors import InputError
from jaxmoxi.pytrees import is_concrete
from jaxmoxi.regions.slic import choose_grid, slic
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


def slic_regions(
    images: Any,
    *,
    num_segments: int = 100,
    compactness: Any = 20.0,
    num_iterations: int = 10,
    enforce_connectivity: bool = True,
    backend: Literal["jax", "skimage"] = "jax",
) -> Int[Array, "*B H W"]:
    """SLIC superpixels (Achanta et al. 2012) in CIELAB, of one image or a batch; on the device, by itself in one jit.

    images:       uint8 [H, W, 3] or [B, H, W, 3], or float in [0, 1], or a PIL image. Each is stretched to its own
                  darkest and brightest value, and does not depend on what else is in the batch. A batch spread over
                  several devices of a CPU is best segmented inside `jax.shard_map`.
    num_segments: static, >= 1. "jax": never more than that, and on photos most of that.
    compactness:  > 0; higher gives squarer regions, lower follows colour more closely.
    num_iterations: >= 1, rounds of k-means; the first is the grid itself.
    enforce_connectivity: makes every region connected (along rows and columns): components that are small, or more than
                  `num_segments`, join the neighbour of the closest colour.
    backend:      "jax" is fixed in shape, deterministic, and goes under `jit` and `vmap`. "skimage" is scikit-image's
                  `slic`, on the host, about as many segments as asked for, sometimes more.

    Returns int32[H, W] or int32[B, H, W], labels 0 .. P-1 in raster order of each region's first pixel; `num_regions`
    says what P is. Raises ValueError for anything else; what the values are is not checked while they are traced.
    """
    images = _check_images(images)
    if num_segments < 1:
        raise InputError(f"num_segments must be at least 1; got {num_segments}")
    if num_iterations < 1:
        raise InputError(f"num_iterations must be at least 1; got {num_iterations}")
    if is_concrete(compactness) and not compactness > 0:
        raise InputError(f"compactness must be positive; got {compactness}")
    if backend == "jax":
        batch = images if images.ndim == 4 else images[None]
        labels = slic(
            jnp.asarray(batch),
            jnp.asarray(compactness, jnp.float32),
            num_segments=num_segments,
            num_iterations=num_iterations,
            enforce_connectivity=enforce_connectivity,
        )
        return labels if images.ndim == 4 else labels[0]
    if backend == "skimage":
        from skimage.segmentation import slic as on_host  # half a second to import, and only some superpixels need it

        def segment(photo: np.ndarray) -> Any:
            return on_host(
                photo,
                n_segments=num_segments,
                compactness=float(compactness),
                max_num_iter=num_iterations,
                enforce_connectivity=enforce_connectivity,
                start_label=0,
            )

        return _each_on_host(segment, images)
    raise InputError(f"backend must be 'jax' or 'skimage'; got {backend!r}")


def watershed_regions(images: Any, *, num_segments: int = 100, compactness: float = 0.002) -> Int[Array, "*B H W"]:
    """Watershed regions, by scikit-image on the host: basins of the colour gradient, flooded from a grid of markers.

    images:       as `slic_regions` takes them.
    num_segments: >= 1; the grid has at most that many markers, and each gives a region.
    compactness:  >= 0; higher gives squarer regions.

    Returns int32[H, W] or int32[B, H, W], labels 0 .. P-1 in raster order of each region's first pixel.
    Raises ValueError for anything else.
    """
    from skimage.color import rgb2lab
    from skimage.filters import sobel
    from skimage.segmentation import watershed

    images = _check_images(images)
    if num_segments < 1:
        raise InputError(f"num_segments must be at least 1; got {num_segments}")
    if not compactness >= 0:
        raise InputError(f"compactness must be at least 0; got {compactness}")

    def segment(photo: np.ndarray) -> Any:
        height, width = photo.shape[:2]
        rows, cols = choose_grid(height, width, num_segments)
        markers = np.zeros((height, width), np.int32)
        ys, xs = ((2 * np.arange(n) + 1) * side // (2 * n) for n, side in ((rows, height), (cols, width)))
        markers[np.ix_(ys, xs)] = np.arange(1, rows * cols + 1).reshape(rows, cols)
        lab = rgb2lab(photo) / 100
        slope = np.sqrt(sum(sobel(lab[..., i]) ** 2 for i in range(3)))
        return watershed(slope, markers, compactness=compactness)  # pyright: ignore[reportArgumentType]

    return _each_on_host(segment, images)


def _check_images(images: Any) -> Any:
    """Images as an array [H, W, 3] or [B, H, W, 3], or a ValueError."""
    if not isinstance(images, jax.Array):
        images = np.asarray(images)
    if images.ndim not in (3, 4) or images.shape[-1] != 3 or 0 in images.shape:
        raise InputError(
            f"superpixels need a colour photo [H, W, 3], or a batch [B, H, W, 3]; got shape {images.shape}"
        )
    floats = jnp.issubdtype(images.dtype, jnp.floating)
    if not floats and images.dtype != np.uint8:
        raise InputError(f"superpixels need a photo of uint8, or of floats in [0, 1]; got {images.dtype}")
    if floats and is_concrete(images) and not (images.min() >= 0 and images.max() <= 1):
        raise InputError(
            "a photo of floats must lie in [0, 1] for its colours to mean anything; got "
            f"[{images.min():.3g}, {images.max():.3g}]: pass the photo before normalisation"
        )
    return images


def _each_on_host(segment: Callable[[np.ndarray], Any], images: Any) -> Array:
    """What a function of scikit-image makes of each image, relabelled."""
    if not is_concrete(images):
        raise InputError("scikit-image's superpixels are made on the host, outside of jit and vmap; got a traced image")
    photos = np.asarray(images)
    if photos.ndim == 3:
        return relabel(segment(photos))
    return jnp.stack([relabel(segment(photo)) for photo in photos])


def relabel(labels: Any) -> Int[Array, "H W"]:
    """Any integer label map as int32[H, W] with labels 0 .. P-1, numbered in raster order of first appearance."""
    labels = np.asarray(labels)
    if labels.ndim != 2 or not np.issubdtype(labels.dtype, np.integer):
        raise InputError(f"a label map is integers [H, W]; got {labels.dtype} of shape {labels.shape}")
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
        raise InputError(
            f"the label map's labels must be 0 .. P-1 without a gap; got {len(present)} labels from {present[0]} "
            f"to {present[-1]}: pass it through jaxmoxi.relabel first"
        )
    return len(present)


def num_regions(regions: Int[AnyArray, "*B H W"]) -> Int[Array, "*B"]:
    """How many players each label map has, one more than its last label: int32[...]. Unchecked; goes under jit."""
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
    """What each player's pixels have together: [P, ...] from values [H, W, ...], differentiable in them.

    The mean is of float32 where the values are integers. A player without pixels gets 0.
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
    """How long a border each two players share, int32[P, P]: pairs of pixels side by side or one above the other.

    Symmetric, 0 on the diagonal; `> 0` says who are neighbours.
    """
    regions = jnp.asarray(regions)
    one = jnp.concatenate([regions[1:].ravel(), regions[:, 1:].ravel()])
    other = jnp.concatenate([regions[:-1].ravel(), regions[:, :-1].ravel()])
    lengths = jnp.zeros((num_players, num_players), jnp.int32).at[one, other].add((one != other).astype(jnp.int32))
    return lengths + lengths.T


def region_borders(regions: Int[AnyArray, "*B H W"]) -> Bool[Array, "*B H W"]:
    """Where to draw the borders, one pixel wide: pixels whose neighbour to the right or below is another player's."""
    regions = jnp.asarray(regions)
    below = jnp.concatenate([regions[..., 1:, :], regions[..., -1:, :]], axis=-2)
    right = jnp.concatenate([regions[..., 1:], regions[..., -1:]], axis=-1)
    return (regions != below) | (regions != right)


def pad_regions(
    regions: Sequence[Int[AnyArray, "H W"]] | Int[AnyArray, "B H W"], *, num_players: int | None = None
) -> tuple[Int[Array, "B H W"], Bool[Array, "B P"]]:
    """Label maps of one size, made to be of one number of players: `(maps, players)`, which players each map has.

    A player that a map does not have is nowhere: showing or hiding it changes nothing.

    num_players: P; None takes the most that a map has, which cannot be known while they are traced.
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
        raise InputError(
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
        raise InputError(
            f"expected regions of integers [{height}, {width}], the size of the image; "
            f"got {regions.dtype} of shape {regions.shape}"
        )
    return regions.astype(jnp.int32), count_regions(regions) if is_concrete(regions) else None
