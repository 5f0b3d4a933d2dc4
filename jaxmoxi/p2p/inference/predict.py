"""Prediction: which groups an image needs to be classified with the certainty asked for, and as what.

Source: Vandenhirtz, Vogt, "From Pixels to Perception", ICML 2025, section 3.4: the smallest threshold tau on the grid
0.05, 0.1, ... at which the classifier's largest probability reaches the certainty; the last (1) if none does.

The threshold enters the selector before its linear head, so tau adds tau * shift to every pixel's numbers, with `shift`
the same everywhere. The selector runs once per image, and at tau the groups with mu + tau * shift > 0 are kept. (A
group without pixels has no mean to shift, and is never kept.) Models with options beyond the paper say themselves what
a threshold does to the groups, `P2P.group_logits` and `P2P.keep`; the search is the same.

Deviations from the authors' code, none of which changes an answer: the selector is not run again for each tau; a mask
that did not change from one tau to the next is not classified again; an image whose tau is found is not either, and its
place in the batch goes to the next image or, when there is none, to the later thresholds of the images still open; the
answer at the tau found is kept, not computed once more.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int

from jaxmoxi.errors import InputError
from jaxmoxi.p2p.distribution import over_pixels
from jaxmoxi.p2p.model import P2P, normalize
from jaxmoxi.p2p.placement import Placement, placement
from jaxmoxi.pytrees import record


@record
class Prediction:
    """What `predict` answers for B images; with several certainties all but the last two lead with [L].

    logits:       float32[B, K], log(p + 1e-6) at the threshold found.
    threshold:    float32[B], the threshold found, in (0, 1].
    group_probs:  float32[B, G], the probability that each group is kept, at that threshold.
    group_mask:   bool[B, G], the groups kept.
    pixel_mask:   bool[B, H, W], the pixels kept.
    num_evaluations: int32[B], how many different masks the classifier had to see until it was certain.
    areas:        float32[B, G], the share of the image's pixels that each group has.
    embeddings:   float32[B, G, D-1], of each group at threshold 0. A threshold moves those of all groups alike: the
                  distances between them do not depend on it.
    """

    logits: Float[Array, "*L B K"]
    threshold: Float[Array, "*L B"]
    group_probs: Float[Array, "*L B G"]
    group_mask: Bool[Array, "*L B G"]
    pixel_mask: Bool[Array, "*L B H W"]
    num_evaluations: Int[Array, "*L B"]
    areas: Float[Array, "B G"]
    embeddings: Float[Array, "B G E"]

    @property
    def classes(self) -> Any:
        """The class predicted, int32[B]."""
        return jnp.argmax(self.logits, axis=-1)

    @property
    def probabilities(self) -> Any:
        """Of each class, float32[B, K]."""
        return jax.nn.softmax(self.logits, axis=-1)

    @property
    def hard_share(self) -> Any:
        """The share of the pixels that is kept, float32[B] in [0, 1]."""
        return jnp.sum(self.group_mask * self.areas, axis=-1)

    @property
    def soft_share(self) -> Any:
        """The share of the pixels that is kept in expectation, float32[B] in [0, 1]."""
        return jnp.sum(self.group_probs * self.areas, axis=-1)


def predict(
    model: P2P,
    images: Any,
    regions: Any,
    *,
    certainty: float | Sequence[float] = 0.99,
    batch_size: int = 32,
    mesh: Mesh | None = None,
) -> Prediction:
    """The classes of images, each seen through as little of it as the certainty needs.

    images:     uint8[B, H, W, 3], or float in [0, 1].
    regions:    int[B, H, W], superpixels 0 .. G-1 (labels of G and above are never kept).
    certainty:  the largest probability that the classifier must reach, in (0, 1]; several levels are answered in one
                pass. Ignored by a model of a fixed threshold.
    batch_size: images that go through a network together. Answers do not depend on it.
    mesh:       shares every batch among its devices, each of which has the model (it is copied to those that have it
                not); `batch_size` is rounded up to a multiple of them. Answers agree with one device's to rounding. On
                a CPU the mesh of `local_mesh` is the fastest.

    Raises ValueError for shapes, labels or certainties that cannot be.
    """
    images, regions = check_images(images, regions, model)
    if batch_size < 1:
        raise InputError(f"batch_size must be at least 1; got {batch_size}")
    levels = check_certainty(certainty)
    result = predict_levels(model, images, regions, levels, size=min(batch_size, len(images)), mesh=mesh)
    return result if np.ndim(certainty) else _first_level(result)


def predict_levels(
    model: P2P, images: Any, regions: Any, levels: np.ndarray, *, size: int, mesh: Mesh | None = None
) -> Prediction:
    """`predict` for checked inputs and levels float32[L], in batches of exactly `size` (rounded up to a multiple of the
    mesh's devices): one compilation for any B."""
    count = len(images)
    taus = _grid(model.config)
    size, place = full_size(size, mesh)
    model = place.everywhere(model)
    logits_at, masks, areas, embeddings = _select_all(model, size, place, images, regions, taus)  # [B, T, G], twice

    # The thresholds at which an image shows something new come first, in order: `num_stops` of them.
    is_stop = np.ones((count, len(taus)), bool)
    is_stop[:, 1:] = (masks[:, 1:] != masks[:, :-1]).any(-1)
    stops, num_stops = np.argsort(~is_stop, axis=1, kind="stable"), is_stop.sum(1)

    found = np.full((len(levels), count), len(taus) - 1)  # where no threshold is certain enough, the last
    answers = np.zeros((len(levels), count, model.config.num_classes), np.float32)
    evaluations = np.zeros((len(levels), count), np.int32)
    unmet = np.ones((len(levels), count), bool)
    tried = np.zeros(count, int)
    tops = np.zeros(count, np.float32)  # the largest probability of each image when it was last classified
    depths = np.arange(len(taus))[:, None]
    while len(now := np.flatnonzero(unmet.any(0))[:size]):
        # The next stop of every image, then, while there is room, their second next, and so on. The least certain go
        # first: they will need it.
        now = now[np.argsort(tops[now], kind="stable")]
        ahead, which = (x[:size] for x in np.nonzero(tried[now] + depths < num_stops[now]))
        rows = now[which]
        tries = tried[rows] + ahead
        at = stops[rows, tries]
        out = _full_batch(_classify, model, size, place, (images, rows), (masks, (rows, at)), (regions, rows))
        top = np.exp(out - np.logaddexp.reduce(out, axis=1, keepdims=True)).max(1)
        for depth in range(ahead[-1] + 1):  # rarely more than one
            here = ahead == depth
            i, last = rows[here], tries[here] + 1 == num_stops[rows[here]]
            certain = top[here] >= levels[:, None]
            level, nth = np.nonzero(unmet[:, i] & (certain | last))
            found[level, i[nth]] = np.where(certain, at[here], len(taus) - 1)[level, nth]
            answers[level, i[nth]] = out[here][nth]
            evaluations[level, i[nth]] = tries[here][nth] + 1
            unmet[level, i[nth]] = False
        tried[now] += np.bincount(which, minlength=len(now))
        tops[rows] = top
    every = np.arange(count)
    kept = jnp.asarray(masks[every, found])
    return Prediction(
        logits=jnp.asarray(answers),
        threshold=jnp.asarray(taus[found]),
        group_probs=jax.nn.sigmoid(jnp.asarray(logits_at[every, found])),
        group_mask=kept,
        pixel_mask=_paint(kept, regions),
        num_evaluations=jnp.asarray(evaluations),
        areas=jnp.asarray(areas),
        embeddings=jnp.asarray(embeddings),
    )


def full_size(size: int, mesh: Mesh | None) -> tuple[int, Placement]:
    """The size of a batch that the devices of a mesh can share, and where its arrays go."""
    size = size if mesh is None else -(-size // mesh.size) * mesh.size
    return size, placement(mesh, size)


def check_images(images: Any, regions: Any, model: P2P) -> tuple[Any, Any]:
    """Images and regions as arrays, or a ValueError that says what does not fit the model."""
    images, regions = (x if isinstance(x, jax.Array) else np.asarray(x) for x in (images, regions))
    shape = jax.eval_shape(lambda x: normalize(x, model.config), images).shape[:3]
    if regions.shape != shape or not jnp.issubdtype(regions.dtype, jnp.integer):
        raise InputError(f"expected regions int{list(shape)}; got {regions.dtype} of shape {list(regions.shape)}")
    if not len(images):
        raise InputError("expected at least one image; got none")
    if regions.min() < 0:
        raise InputError(f"expected regions labelled from 0 on; got the label {regions.min()}")
    return images, regions.astype(np.int32)


def check_certainty(certainty: Any) -> np.ndarray:
    """Certainties as float32[L], or a ValueError."""
    levels = np.atleast_1d(np.asarray(certainty, np.float32))
    if levels.ndim != 1 or not len(levels) or not ((levels > 0) & (levels <= 1)).all():
        raise InputError(f"certainty must lie in (0, 1]; got {certainty}")
    return levels


def _select_all(
    model: P2P, size: int, place: Placement, images: Any, regions: Any, taus: np.ndarray
) -> tuple[np.ndarray, ...]:
    """`_select` of every image, in batches of exactly `size`."""
    run = partial(_select, taus=taus)
    starts = range(0, len(images), size)
    rows = [np.arange(start, min(start + size, len(images))) for start in starts]
    parts = [_full_batch(run, model, size, place, (images, r), (regions, r)) for r in rows]
    return jax.tree.map(lambda *x: np.concatenate(x), *parts)


def _full_batch(run: Any, model: P2P, size: int, place: Placement, *pairs: tuple[Any, Any]) -> Any:
    """`run` on the given rows of each array, the last one repeated until they are `size`: one compilation for all."""

    def fill(rows: np.ndarray) -> np.ndarray:
        return np.concatenate([rows, np.repeat(rows[-1:], size - len(rows))])

    count = len(pairs[0][1])
    inputs = place.split([a[tuple(map(fill, rows)) if isinstance(rows, tuple) else fill(rows)] for a, rows in pairs])
    return jax.tree.map(lambda x: np.asarray(x)[:count], run(model, *inputs))


def _first_level(result: Prediction) -> Prediction:
    """The only level's answers, without the axis of levels."""
    fields = {name: getattr(result, name) for name in result.__dataclass_fields__}
    shared = ("areas", "embeddings")
    return Prediction(**{name: x if name in shared else x[0] for name, x in fields.items()})


def _grid(config: Any) -> np.ndarray:
    """The thresholds to try, ascending."""
    if not config.dynamic_threshold:
        return np.array([config.threshold], np.float32)
    step, last = config.min_threshold, config.max_threshold
    below = math.ceil(last / step - 1e-6)  # 0.15 is three steps of 0.05, whatever the division rounds to
    return np.append(np.arange(1, below) * step, last).astype(np.float32)


@jax.jit
def _select(model: P2P, images: Array, regions: Array, taus: Array) -> tuple[Array, ...]:
    """Logits and masks of the groups at every threshold [B, T, G], areas [B, G], embeddings [B, G, E]."""
    logits, areas, embeddings = model.group_logits(model.normalize(images), regions, taus)
    masks = model.keep(logits, areas, taus)
    return logits.swapaxes(0, 1), masks.swapaxes(0, 1), areas, embeddings


@jax.jit
def _classify(model: P2P, images: Array, groups: Array, regions: Array) -> Array:
    return model.classify(model.normalize(images), groups, regions)


_paint = jax.jit(over_pixels)
