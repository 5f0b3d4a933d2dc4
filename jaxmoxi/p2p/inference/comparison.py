"""The models that P2P is compared with, judged by the same numbers: those whose masks are over pixels, and black boxes.

A model that chooses groups is judged by `evaluation.evaluate`, which calls this for the others. Here each pixel is a
group of its own, and the pixels are ranked by how much the mask shows of them. Insertion at a share shows the first
pixels of that order alone (as much of them as the mask does), deletion all others; of an evenly spaced mask, insertion
shows an evenly spaced mask of that share, and deletion what is left of the mask without it.
"""

from __future__ import annotations

from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float

from jaxmoxi.p2p.data.example import Batch
from jaxmoxi.p2p.inference import metrics
from jaxmoxi.p2p.inference.batches import check_finite, check_images, check_masks, place_batches
from jaxmoxi.p2p.masking import classify_shown, evenly_spaced, pixel_mask
from jaxmoxi.p2p.model import P2P
from jaxmoxi.p2p.placement import Placement
from jaxmoxi.p2p.ranges import check_labels

Rows = dict[str, np.ndarray]  # of each image, [1, N, ...]: the one row of a table


def judge_pixels(
    model: P2P,
    batches: Iterable[Batch],
    shares: np.ndarray,
    *,
    size: int,
    inverse: bool = False,
    whole: bool = False,
    mesh: Mesh | None = None,
) -> tuple[list[Rows], list[np.ndarray]]:
    """Each batch's rows of numbers, by the names of `Evaluation`, and its labels.

    shares:  float32[T], of the pixels, for the fidelity curves.
    size:    images that go through a network together.
    inverse: True ranks the pixels the other way round: those of the lowest mask first.
    whole:   True judges a black box on whole images; nothing is ranked then.
    mesh:    shares every batch among its devices.
    """
    rows: list[Rows] = []
    labels: list[np.ndarray] = []
    most, size = size, 1
    for batch in batches:
        images, regions = check_images(batch.images, batch.regions, model)
        labels.append(check_labels(batch.labels, len(images), model.config.num_classes))
        masks = None if batch.masks is None else check_masks(batch.masks, regions.shape)
        size, place = place_batches(max(size, min(most, len(images))), mesh)
        everywhere = place.everywhere(model)
        for start in range(0, len(images), size):
            part = slice(start, start + size)
            own = None if masks is None else masks[part]
            row = _judge(everywhere, np.asarray(images[part]), own, shares, size, place, inverse, whole)
            rows.append(row)
    return rows, labels


def _judge(
    model: P2P,
    images: np.ndarray,
    masks: np.ndarray | None,
    shares: np.ndarray,
    size: int,
    place: Placement,
    inverse: bool,
    whole: bool,
) -> Rows:
    count, side = len(images), model.config.image_size
    full = place.split(np.concatenate([images, np.repeat(images[-1:], max(size - count, 0), 0)]))
    mask = np.ones((len(full), side, side), np.float32) if whole else np.asarray(_mask(model, full))

    def classify(mask: np.ndarray) -> np.ndarray:
        return np.asarray(_classify(model, full, place.split(mask)))[:count]

    logits = classify(mask)
    check_finite(mask[:count], "selector")
    check_finite(logits, "classifier")
    share = mask[:count].mean((1, 2), dtype=np.float64)
    row = {
        "probabilities": np.asarray(jax.nn.softmax(logits, axis=-1))[None],
        "hard_share": share[None],
        "soft_share": share[None],
        "threshold": np.full((1, count), 1.0 if whole else model.config.threshold),
        "num_evaluations": np.ones((1, count)),
    }
    if whole:
        return row
    score = 1 - mask if inverse else mask
    if masks is not None:
        flat = score[:count].reshape(count, -1)
        pixels = np.broadcast_to(np.arange(side * side).reshape(side, side), (count, side, side))
        row |= metrics.localisation(flat[None], (flat > 0.5)[None], pixels, masks)._asdict()
    if len(shares):
        rank = np.argsort(np.argsort(-score.reshape(len(score), -1), axis=1, kind="stable"), axis=1).reshape(mask.shape)
        even = model.config.masking == "even"
        first = [
            evenly_spaced(side, float(s)) if even and s > 0 else rank < round(float(s) * side * side) for s in shares
        ]
        answer = logits.argmax(1)
        curves = {"insertion": [mask * f for f in first], "deletion": [mask * ~f for f in first]}
        if even:  # a grid of few pixels is no part of a grid of many
            curves["insertion"] = [np.broadcast_to(f, mask.shape).astype(np.float32) for f in first]
        row |= {n: np.stack([classify(m).argmax(1) == answer for m in each])[None] for n, each in curves.items()}
        row |= {name: row[name].swapaxes(1, 2) for name in curves}
    return row


@jax.jit
def _mask(model: P2P, images: Array) -> Float[Array, "B S S"]:
    return pixel_mask(model, model.normalize(images))


@jax.jit
def _classify(model: P2P, images: Array, mask: Array) -> Float[Array, "B K"]:
    return classify_shown(model, model.normalize(images), jnp.asarray(mask, jnp.float32))
