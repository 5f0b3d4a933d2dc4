"""Prediction: which groups an image needs to be classified with the certainty asked for, and as what.

Source: Vandenhirtz, Vogt, "From Pixels to Perception", ICML 2025, section 3.4: the smallest threshold tau on the grid
0.05, 0.1, ... at which the classifier's largest probability reaches the certainty; the last one (1) if none does.

The threshold enters the selector before its linear head, so tau adds tau * shift to every pixel's numbers, and `shift`
is the same everywhere. The selector therefore runs once per image, and at tau the groups with mu + tau * shift > 0 are
kept. (A group without pixels has no mean to shift, and is never kept.) In models with options beyond the paper, the
model says what a threshold does to the groups (`P2P.group_logits`, `P2P.keep`); the search is the same.

Deviations from the authors' code, none of which changes an answer. We skip repeated runs of the selector, masks that do
not change from one threshold to the next, and images that are finished. Free slots of a batch take new images, and when
there are none, later thresholds of the open ones. The answer at the threshold found is kept from the search, not
computed again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int

from jaxmoxi.errors import InputError
from jaxmoxi.p2p.config import Config
from jaxmoxi.p2p.distribution import over_pixels
from jaxmoxi.p2p.inference.batches import (
    Images,
    Regions,
    check_batch_size,
    check_finite,
    check_images,
    classify_kept,
    place_batches,
    run_batch,
)
from jaxmoxi.p2p.model import P2P
from jaxmoxi.p2p.placement import Placement
from jaxmoxi.pytrees import record


@record
class Prediction:
    """What `predict` answers for B images. With several certainties, all but the last two fields lead with [L].

    logits:       float32[B, K], log(p + 1e-6) at the threshold found.
    threshold:    float32[B], the threshold found, in (0, 1].
    group_probs:  float32[B, G], the probability that each group is kept, at that threshold.
    group_mask:   bool[B, G], the groups kept.
    pixel_mask:   bool[B, H, W], the pixels kept.
    num_evaluations: int32[B], the number of different masks that the classifier saw until it was certain.
    areas:        float32[B, G], the share of the image's pixels that each group has.
    embeddings:   float32[B, G, D-1], each group's embedding at threshold 0. A threshold moves the embeddings of all
                  groups alike, so the distances between them do not depend on it.
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
    def classes(self) -> Int[Array, "*L B"]:
        """The class predicted, int32[B]."""
        return jnp.argmax(self.logits, axis=-1)

    @property
    def probabilities(self) -> Float[Array, "*L B K"]:
        """The probability of each class, float32[B, K]."""
        return jax.nn.softmax(self.logits, axis=-1)

    @property
    def hard_share(self) -> Float[Array, "*L B"]:
        """The share of the pixels that is kept, float32[B] in [0, 1]."""
        return jnp.sum(self.group_mask * self.areas, axis=-1)

    @property
    def soft_share(self) -> Float[Array, "*L B"]:
        """The share of the pixels that is kept in expectation, float32[B] in [0, 1]."""
        return jnp.sum(self.group_probs * self.areas, axis=-1)


def predict(
    model: P2P,
    images: ArrayLike,
    regions: ArrayLike,
    *,
    certainty: float | Sequence[float] = 0.99,
    batch_size: int = 32,
    mesh: Mesh | None = None,
) -> Prediction:
    """Classifies images, each from the smallest share of its pixels that gives the certainty asked for.

    images:     uint8[B, H, W, 3], or float in [0, 1]; not normalised, as the model does that itself.
    regions:    int[B, H, W], superpixels 0 .. G-1 (labels of G and above are never kept).
    certainty:  the largest probability that the classifier must reach, in (0, 1]; several levels are answered in one
                pass. Ignored by a model of a fixed threshold.
    batch_size: images that go through a network together. Answers do not depend on it.
    mesh:       shares every batch among its devices, and copies the model to each of them. `batch_size` is rounded up
                to a multiple of their number. Answers agree with one device's to rounding. On a CPU the mesh of
                `local_mesh` is the fastest.

    Raises ValueError for impossible shapes, labels or certainties, and for images outside [0, 1] or not finite;
    FloatingPointError if selector or classifier answer NaN, as they do with weights that are not finite.
    """
    if model.config.masking != "groups":
        raise InputError(
            f'the model masks pixels (masking="{model.config.masking}"), it chooses no groups; expected a model of the '
            "method p2p, blackbox or real-x. p2p.evaluate judges it"
        )
    images, regions = check_images(images, regions, model)
    size = check_batch_size(batch_size, len(images))
    levels = check_certainty(certainty)
    result = predict_levels(model, images, regions, levels, size=size, mesh=mesh)
    return result if np.ndim(certainty) else first_level(result)


def predict_levels(
    model: P2P, images: Images, regions: Regions, levels: np.ndarray, *, size: int, mesh: Mesh | None = None
) -> Prediction:
    """`predict` for checked inputs and levels float32[L].

    size: images in every batch, rounded up to a multiple of the mesh's devices; so any B takes one compilation.
    """
    count = len(images)
    taus = threshold_grid(model.config)
    size, place = place_batches(size, mesh)
    model = place.everywhere(model)
    logits_at, masks, areas, embeddings = _select_all(model, size, place, images, regions, taus)  # first two: [B, T, G]

    check_finite(logits_at, "selector")

    # Only the thresholds at which an image's mask changes need the classifier; they come first in `stops`, ascending.
    is_stop = np.ones((count, len(taus)), bool)
    is_stop[:, 1:] = (masks[:, 1:] != masks[:, :-1]).any(-1)
    stops, num_stops = np.argsort(~is_stop, axis=1, kind="stable"), is_stop.sum(1)

    found = np.full((len(levels), count), len(taus) - 1)  # where no threshold is certain enough, the last
    answers = np.zeros((len(levels), count, model.config.num_classes), np.float32)
    evaluations = np.zeros((len(levels), count), np.int32)
    unmet = np.ones((len(levels), count), bool)
    tried = np.zeros(count, int)
    tops = np.zeros(count, np.float32)  # each image's largest probability when it was last classified
    depths = np.arange(len(taus))[:, None]
    while len(now := np.flatnonzero(unmet.any(0))[:size]):
        # The batch takes the next stop of every open image and then, while it has room, the stops after that. The least
        # certain images go first, as they are the likeliest to need those.
        now = now[np.argsort(tops[now], kind="stable")]
        ahead, which = (x[:size] for x in np.nonzero(tried[now] + depths < num_stops[now]))
        rows = now[which]
        tries = tried[rows] + ahead
        at = stops[rows, tries]
        out = run_batch(classify_kept, model, size, place, (images, rows), (masks, (rows, at)), (regions, rows))
        if np.isnan(out).any():
            raise FloatingPointError(
                f"the classifier answers NaN for image {rows[np.isnan(out).any(1)][0]}; are the model's weights finite?"
            )
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


def check_certainty(certainty: float | Sequence[float]) -> Float[np.ndarray, "L"]:
    """Certainties as float32[L]. Raises ValueError for what lies outside (0, 1], and for none at all."""
    levels = np.atleast_1d(np.asarray(certainty, np.float32))
    if levels.ndim != 1 or not len(levels) or not ((levels > 0) & (levels <= 1)).all():
        raise InputError(f"certainty must lie in (0, 1]; got {certainty}")
    return levels


def _select_all(
    model: P2P, size: int, place: Placement, images: Images, regions: Regions, taus: np.ndarray
) -> tuple[np.ndarray, ...]:
    """What `_select` answers for every image, in batches of `size`."""
    run = partial(_select, taus=taus)
    starts = range(0, len(images), size)
    rows = [np.arange(start, min(start + size, len(images))) for start in starts]
    parts = [run_batch(run, model, size, place, (images, r), (regions, r)) for r in rows]
    return jax.tree.map(lambda *x: np.concatenate(x), *parts)


def first_level(result: Prediction) -> Prediction:
    """The answers at the first level, without the axis of levels."""
    fields = {name: getattr(result, name) for name in result.__dataclass_fields__}
    shared = ("areas", "embeddings")
    return Prediction(**{name: x if name in shared else x[0] for name, x in fields.items()})


def threshold_grid(config: Config) -> Float[np.ndarray, "T"]:
    """The thresholds to try, float32[T], ascending."""
    if not config.dynamic_threshold:
        return np.array([config.threshold], np.float32)
    step, last = config.min_threshold, config.max_threshold
    below = math.ceil(last / step - 1e-6)  # 0.15 is three steps of 0.05, however the division rounds
    return np.append(np.arange(1, below) * step, last).astype(np.float32)


@jax.jit
def _select(model: P2P, images: Array, regions: Array, taus: Array) -> tuple[Array, ...]:
    """Logits and masks of the groups at every threshold [B, T, G], areas [B, G], embeddings [B, G, E]."""
    logits, areas, embeddings = model.group_logits(model.normalize(images), regions, taus)
    masks = model.keep(logits, areas, taus)
    return logits.swapaxes(0, 1), masks.swapaxes(0, 1), areas, embeddings


_paint = jax.jit(over_pixels)
