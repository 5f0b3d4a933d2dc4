"""Fidelity curves: does the prediction rest on the groups that the selector found most probable?

Source: Vandenhirtz, Vogt, "From Pixels to Perception", ICML 2025, section 4, and their code. Starting from the masked
image that was classified, groups are hidden (deletion) or shown (insertion), the most probable first, up to a share of
the image's area, and the prediction is compared with the unmodified one.

Deviation from their code, which changes no answer: each different mask of an image is classified once, however many
shares (and certainties) ask for it, and the mask of the prediction is not classified again.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jax.sharding import Mesh
from jax.typing import ArrayLike
from jaxtyping import Bool, Float

from jaxmoxi.errors import InputError
from jaxmoxi.p2p.inference.batches import (
    Images,
    Regions,
    check_batch_size,
    check_images,
    classify_kept,
    place_batches,
    run_batch,
)
from jaxmoxi.p2p.inference.predict import Prediction
from jaxmoxi.p2p.model import P2P
from jaxmoxi.pytrees import record

SHARES = (
    0.0, 0.01, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.7, 0.8, 0.9, 0.99, 1.0,
)  # fmt: skip


@record
class Fidelity:
    """Agreement with the unmodified prediction at each share of the area. Several certainties lead with [L].

    shares:    float32[T], the published ones by default.
    deletion:  float32[T] in [0, 1], with the most probable groups hidden. Lower is better.
    insertion: float32[T] in [0, 1], with the most probable groups alone shown. Higher is better.
    """

    shares: Float[np.ndarray, "T"]
    deletion: Float[np.ndarray, "*L T"]
    insertion: Float[np.ndarray, "*L T"]


def fidelity(
    model: P2P,
    images: ArrayLike,
    regions: ArrayLike,
    prediction: Prediction,
    *,
    shares: tuple[float, ...] = SHARES,
    batch_size: int = 32,
) -> Fidelity:
    """The fidelity curves of a prediction of `predict`; see the module's head.

    images, regions: those that were predicted.
    shares:          shares of the area, in [0, 1].
    batch_size:      images that go through the classifier together.

    As published, deletion at share t hides the most probable groups until they cover t, the group that reaches t
    included, and insertion shows the groups before it. Nothing hidden and everything shown count as agreement.
    Raises ValueError for a prediction of other images and for impossible shares.
    """
    images, regions = check_images(images, regions, model)
    if prediction.pixel_mask.shape[-3:] != regions.shape:
        raise InputError(
            f"expected the prediction of these images, pixel_mask bool{list(regions.shape)}; got "
            f"{list(prediction.pixel_mask.shape)}"
        )
    size = check_batch_size(batch_size, len(images))
    curves = agreements(model, images, regions, prediction, check_shares(shares), size=size)
    return Fidelity(np.asarray(shares, np.float32), *(c.mean(-1, dtype=np.float32) for c in curves))


def check_shares(shares: Sequence[float]) -> Float[np.ndarray, "T"]:
    """Shares as float32[T]. Raises ValueError for what lies outside [0, 1]."""
    found = np.asarray(shares, np.float32)
    if found.ndim != 1 or not ((found >= 0) & (found <= 1)).all():
        raise InputError(f"expected shares of the area, numbers in [0, 1]; got {shares}")
    return found


def agreements(
    model: P2P,
    images: Images,
    regions: Regions,
    prediction: Prediction,
    shares: np.ndarray,
    *,
    size: int,
    mesh: Mesh | None = None,
) -> tuple[Bool[np.ndarray, "*L T B"], Bool[np.ndarray, "*L T B"]]:
    """(deletion, insertion): whether each image keeps its class at each share. Inputs are checked; see `fidelity`."""
    probs, kept = np.asarray(prediction.group_probs), np.asarray(prediction.group_mask)
    order = np.argsort(-probs, axis=-1, kind="stable")
    areas = np.broadcast_to(prediction.areas, probs.shape)
    covered = np.cumsum(np.take_along_axis(areas, order, -1), axis=-1, dtype=np.float32)
    reached = covered[..., None, :, :] >= shares[:, None, None]  # [*L, T, B, G], in the order of probability
    first = np.cumsum(reached, axis=-1) == 1
    in_order = np.stack([reached & ~first, ~reached])
    rank = np.argsort(order, axis=-1)[..., None, :, :]
    masks = np.take_along_axis(in_order, np.broadcast_to(rank, in_order.shape), -1) & kept[..., None, :, :]

    masks[0, ..., shares == 0, :, :] = kept
    masks[1, ..., shares == 1, :, :] = kept
    agree = np.ones(masks.shape[:-1], bool)
    expected = np.broadcast_to(np.asarray(prediction.classes)[..., None, :], agree.shape)
    changed = (masks != kept[..., None, :, :]).any(-1)
    owners = np.broadcast_to(np.arange(masks.shape[-2]), agree.shape)[changed]
    if len(owners):
        # A mask is identified by its image and its bits: packed, they take an eighth of the flags' memory.
        keys = np.concatenate([owners[:, None].view(np.uint8), np.packbits(masks[changed], axis=-1)], axis=1)
        _, picks, inverse = np.unique(keys, axis=0, return_index=True, return_inverse=True)
        owners, different = owners[picks], masks[changed][picks]
        size, place = place_batches(size, mesh)
        model = place.everywhere(model)
        answers = [
            run_batch(classify_kept, model, size, place, (images, rows), (different, at), (regions, rows)).argmax(1)
            for at in np.array_split(np.arange(len(picks)), range(size, len(picks), size))
            for rows in [owners[at]]
        ]
        agree[changed] = np.concatenate(answers)[inverse] == expected[changed]
    return agree[0], agree[1]
