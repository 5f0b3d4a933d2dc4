"""Do the important players lie on the object? Against its boxes or its mask, in the image that the model sees.

Sources: the pointing game, Zhang et al., "Top-down Neural Attention by Excitation Backprop", ECCV 2016; the energy
inside, Wang et al., "Score-CAM", CVPR Workshops 2020; intersection over union, Jaccard 1901.

Deviations: the pointing game has no tolerance around the object. Where several pixels share the maximum, as those of a
region do, it gives the chance that one of them picked at random lies on the object.

Only these measures use an annotation, so a model that rightly looks elsewhere (at the water, for a boat) scores low. A
measure is NaN where it is not defined, because there is no object or no positive score; means over images leave NaN
out. For one selection's precision and recall see `jaxmoxi.p2p.metrics.localisation`.
"""

from __future__ import annotations

from collections.abc import Iterator

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Num

from jaxmoxi.errors import InputError
from jaxmoxi.metrics._order import doubled_pixels
from jaxmoxi.metrics.registry import Column, Explained, Metric, Number, register
from jaxmoxi.models.preprocess import Preprocessing, crop_geometry
from jaxmoxi.pytrees import is_concrete
from jaxmoxi.regions.label_maps import check_regions, pool_regions, region_sizes
from jaxmoxi.types import AnyArray


def pointing_game(
    scores: Num[AnyArray, "P"], regions: Int[AnyArray, "H W"], object_mask: Bool[AnyArray, "H W"]
) -> Float[Array, ""]:
    """Whether the most important place lies on the object, float32[] in [0, 1]; higher is better.

    It is the share of the highest scoring region's pixels (of all regions that share the highest score) that lie on the
    object: 1 where all do, 0 where none does. Chance is the object's share of the image.

    scores:      [P], higher = more important.
    regions:     int[H, W], labels 0 .. P-1; for a map of pixels, each pixel its own region.
    object_mask: bool[H, W], True on the object (`box_mask` makes one of boxes).

    Goes under `jit` and `vmap`. NaN for an empty mask. Raises ValueError for shapes or labels that do not fit, and NaN
    scores.
    """
    scores, sizes, inside = _areas(scores, regions, object_mask)
    top = scores == jnp.max(scores)
    return _ratio(jnp.sum(top * inside), jnp.sum(top * sizes), jnp.sum(inside) > 0)


def energy_inside(
    scores: Num[AnyArray, "P"], regions: Int[AnyArray, "H W"], object_mask: Bool[AnyArray, "H W"]
) -> Float[Array, ""]:
    """The share of the positive scores that lies on the object, float32[] in [0, 1]; higher is better.

    Every pixel weighs as much as its region's score, and nothing where the score is negative: 1 where all positive
    scores lie on the object, 0 where none does. Equal scores everywhere give the object's share of the image. Divide
    scores that are a region's total (Shapley values of regions of unequal size) by `region_sizes` first.

    Arguments, NaN and errors are those of `pointing_game`; NaN too where no score is positive.
    """
    scores, sizes, inside = _areas(scores, regions, object_mask)
    mass = jnp.maximum(scores, 0)
    mass /= jnp.where(jnp.max(mass) > 0, jnp.max(mass), 1)  # keeps the sums from overflowing
    return _ratio(jnp.sum(mass * inside), jnp.sum(mass * sizes), jnp.sum(inside) > 0)


def iou(
    scores: Num[AnyArray, "P"],
    regions: Int[AnyArray, "H W"],
    object_mask: Bool[AnyArray, "H W"],
    *,
    share: float | None = None,
) -> Float[Array, ""]:
    """Intersection over union of the highest scoring regions and the object, float32[] in [0, 1]; higher is better.

    share: of the image's pixels that the regions cover, in (0, 1], to the nearest region; None takes as many pixels as
           the object has, so that 1 can be reached.

    1 where the regions are the object, 0 where they miss it. Where only some of several regions with equal scores
    would be selected, the same fraction of each of them is: what breaking the tie at random selects on average. A share
    smaller than half a region selects nothing and gives 0. Other arguments, NaN and errors are as in `pointing_game`.
    """
    scores, sizes, inside = _areas(scores, regions, object_mask)
    if share is not None and not 0 < share <= 1:
        raise InputError(f"share must lie in (0, 1], of the image's pixels; got {share}")
    found = jnp.sum(inside)
    doubled = 2 * found if share is None else doubled_pixels(share, jnp.size(object_mask))
    top = _selected(scores, sizes, doubled)
    hits, selected = jnp.sum(top * inside), jnp.sum(top * sizes)
    return _ratio(hits, selected + found - hits, found > 0)


def box_mask(height: int, width: int, boxes: Num[AnyArray, "N 4"]) -> Bool[Array, "H W"]:
    """The pixels that lie in any of the boxes, bool[height, width].

    boxes: [N, 4] of x0, y0, x1, y1 in pixels, the image spanning 0 .. width and 0 .. height. A pixel lies in a box if
           its centre does; of the borders, those on the left and above count. No box, no pixel.

    Goes under `jit` and `vmap`. Raises ValueError for other shapes, and for boxes that end before they begin.
    """
    x0, y0, x1, y1 = jnp.asarray(_check_boxes(boxes), jnp.float32)[:, :, None].swapaxes(0, 1)
    xs, ys = jnp.arange(width) + 0.5, jnp.arange(height) + 0.5
    across, down = (xs >= x0) & (xs < x1), (ys >= y0) & (ys < y1)
    return jnp.any(down[:, :, None] & across[:, None, :], axis=0)


def crop_boxes(
    boxes: Num[AnyArray, "N 4"], photo_size: tuple[int, int], preprocessing: Preprocessing
) -> Float[np.ndarray, "N 4"]:
    """Boxes of a photo in the image that the model sees of it, float32[N, 4]: resized, moved and cut by the crop.

    boxes:         [N, 4] of x0, y0, x1, y1 in the photo's pixels, turned upright as its EXIF data say.
    photo_size:    (height, width) of the upright photo.
    preprocessing: `model.preprocessing`.

    What the crop leaves of a box; a box outside becomes one without area, on the border. On the host, in float64.
    Raises ValueError for shapes or sizes that cannot be, and a photo smaller than a crop that no resize precedes.
    """
    found = np.asarray(_check_boxes(boxes), np.float64)
    height, width = photo_size
    if min(height, width) < 1:
        raise InputError(f"photo_size must be (height, width) in pixels, at least 1; got {photo_size}")
    (new_height, new_width), (top, left), (crop_height, crop_width) = crop_geometry(photo_size, preprocessing)
    scaled = found * np.array([new_width / width, new_height / height] * 2) - np.array([left, top] * 2)
    return np.clip(scaled, 0, np.array([crop_width, crop_height] * 2)).astype(np.float32)


def _selected(scores: Float[Array, "P"], sizes: Int[Array, "P"], doubled: int | Int[AnyArray, ""]) -> Float[Array, "P"]:
    """How much of each player the highest scores select until they cover so many pixels, float32[P] in [0, 1].

    doubled: twice the pixels. A player alone with its score is taken whole or not at all, to the nearest (halves up),
    as in ROAD; of players with equal scores each gives the same fraction of its pixels.
    """
    ascending = jnp.argsort(scores)
    known = scores[ascending]
    below = jnp.concatenate([jnp.zeros(1, jnp.int32), jnp.cumsum(sizes[ascending])])
    first, end = (jnp.searchsorted(known, scores, side=side) for side in ("left", "right"))
    tied = below[end] - below[first]
    left = jnp.asarray(doubled) - 2 * (below[-1] - below[end])  # twice the pixels that higher scores leave
    fraction = jnp.clip(left / (2 * jnp.maximum(tied, 1)), 0, 1)
    return jnp.where(end - first > 1, fraction, left >= tied).astype(jnp.float32)


def _areas(
    scores: Num[AnyArray, "P"], regions: Int[AnyArray, "H W"], object_mask: Bool[AnyArray, "H W"]
) -> tuple[Float[Array, "P"], Int[Array, "P"], Int[Array, "P"]]:
    """(scores, pixels of each region, pixels of each region that lie on the object)."""
    scores, mask = jnp.asarray(scores, jnp.float32), jnp.asarray(object_mask)
    if scores.ndim != 1 or scores.shape[0] < 1:
        raise InputError(f"expected scores [P], one a region; got shape {list(scores.shape)}")
    if mask.ndim != 2 or mask.dtype != bool:
        raise InputError(f"expected object_mask bool[H, W], True on the object; got {mask.dtype} {list(mask.shape)}")
    regions, count = check_regions(regions, *mask.shape)
    num_players = scores.shape[0]
    if count not in (None, num_players):
        raise InputError(f"expected a score for each of the {count} regions; got {num_players} scores")
    if is_concrete(scores) and jnp.isnan(scores).any():
        raise InputError(f"the score of player {int(jnp.argmax(jnp.isnan(scores)))} is NaN; scores must be numbers")
    inside = pool_regions(mask.astype(jnp.int32), regions, num_players, how="sum")
    return scores, region_sizes(regions, num_players), inside.astype(jnp.int32)


def _ratio(part: Num[Array, ""], whole: Num[Array, ""], defined: Bool[Array, ""]) -> Float[Array, ""]:
    """part / whole as float32; NaN where it is not defined."""
    return jnp.where(defined & (whole > 0), part / jnp.where(whole > 0, whole, 1), jnp.nan).astype(jnp.float32)


def _check_boxes(boxes: Num[AnyArray, "N 4"]) -> Num[AnyArray, "N 4"]:
    boxes = boxes if hasattr(boxes, "ndim") else np.asarray(boxes)
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise InputError(f"expected boxes [N, 4] of x0, y0, x1, y1; got shape {list(boxes.shape)}")
    if is_concrete(boxes):
        known = np.asarray(boxes)
        wrong = ~((known[:, 0] <= known[:, 2]) & (known[:, 1] <= known[:, 3]))
        if wrong.any():
            raise InputError(
                f"expected boxes of x0 <= x1 and y0 <= y1; got {known[wrong][0].tolist()}: a box of width and height "
                "is x, y, x + width, y + height"
            )
    return boxes


_MEASURES = {"pointing game": pointing_game, "energy inside": energy_inside, "IoU": iou}


def _measure(explained: Explained) -> Iterator[Number]:
    """Where the scores of insertion lie: those of what is enough for the class."""
    if explained.objects is None:
        return
    for method, scores in zip(explained.methods, explained.scores[:, 0], strict=True):
        for column, measure in _MEASURES.items():
            yield Number(column, method, "", float(measure(scores, explained.regions, explained.objects)))


register(
    Metric(
        "localisation",
        _measure,
        columns=tuple(Column(name, higher=True) for name in _MEASURES),
        help="whether the important regions lie on the photo's objects",
        needs_objects=True,
        place=30,
    )
)
