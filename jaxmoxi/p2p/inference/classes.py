"""What a P2P model does with each class: where it looks, how much it needs, and how often it is right."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Bool, Float, Int, UInt8

from jaxmoxi.errors import InputError
from jaxmoxi.p2p.inference.predict import Prediction


@dataclasses.dataclass(frozen=True)
class ClassSummary:
    """The photos of one class: those that show it, or, where that is not known, those that are predicted as it.

    label:     the class, 0 .. K-1.
    is_true:   True: the photos' true class; False: the predicted class of photos whose true class is not known.
    shares:    float32[N], the share of its pixels that each photo needed, in [0, 1].
    predicted: int32[N], the class that each photo was predicted as.
    kept_map:  float32[S, S], the share of the photos that kept each pixel, in [0, 1].
    photos:    uint8[M, S, S, 3], the first few photos; masks: bool[M, S, S], the pixels that were kept of them.
    """

    label: int
    is_true: bool
    shares: Float[np.ndarray, "N"]
    predicted: Int[np.ndarray, "N"]
    kept_map: Float[np.ndarray, "S S"]
    photos: UInt8[np.ndarray, "M S S 3"]
    masks: Bool[np.ndarray, "M S S"]

    @property
    def count(self) -> int:
        """The number of photos, N."""
        return len(self.shares)

    @property
    def accuracy(self) -> float | None:
        """The share of the photos that are predicted as this class, in [0, 1]; None where the truth is not known."""
        return float(np.mean(self.predicted == self.label)) if self.is_true else None

    @property
    def quartiles(self) -> tuple[float, float, float]:
        """The lower quartile, the median and the upper quartile of `shares`."""
        low, median, high = np.percentile(self.shares, (25, 50, 75))
        return float(low), float(median), float(high)


def by_class(
    images: ArrayLike,
    result: Prediction,
    *,
    labels: ArrayLike | Sequence[int] | None = None,
    num_examples: int = 4,
    before: Sequence[ClassSummary] = (),
) -> tuple[ClassSummary, ...]:
    """What a model did with each class, for any number of photos.

    images: uint8[B, S, S, 3], as predicted. result: of `predict` on them at one certainty.
    labels: int[B], the true classes, -1 where one is not known; None where none is. A photo counts to its true class
            where that is known, and else, apart from those, to the class that it is predicted as.
    num_examples: photos of each class that are kept as examples, the first ones.
    before: the summaries of earlier photos of the same model, to which these are added: a long list of photos is
            summed up batch by batch.

    Returns a summary for each class that has a photo, those of true classes first, by the number of the class.
    Raises ValueError for arrays that do not fit together, and labels below -1 or of K and above.
    """
    photos, masks = np.asarray(images), np.asarray(result.pixel_mask)
    if photos.ndim != 4 or photos.dtype != np.uint8 or masks.shape != photos.shape[:3]:
        raise InputError(
            "expected images uint8[B, S, S, 3] and their prediction at one certainty; got "
            f"{photos.dtype}{list(photos.shape)} and pixel_mask {list(masks.shape)}"
        )
    predicted, count = np.asarray(result.classes).astype(np.int32), result.logits.shape[-1]
    known = np.full(len(photos), -1) if labels is None else np.asarray(labels)
    if known.shape != predicted.shape or known.dtype.kind not in "iu":
        raise InputError(f"expected labels int[{len(photos)}]; got {known.dtype} of shape {list(known.shape)}")
    if known.min(initial=0) < -1 or known.max(initial=0) >= count:
        raise InputError(f"expected labels 0 .. {count - 1}, or -1; got {known.min()} .. {known.max()}")
    shares = np.asarray(result.hard_share, np.float32)
    found = {(not s.is_true, s.label): s for s in before}
    keys = [(label < 0, int(guess if label < 0 else label)) for label, guess in zip(known, predicted, strict=True)]
    for key in sorted(set(keys)):
        rows = np.array([i for i, other in enumerate(keys) if other == key])
        some = rows[:num_examples]
        new = ClassSummary(
            label=key[1],
            is_true=not key[0],
            shares=shares[rows],
            predicted=predicted[rows],
            kept_map=masks[rows].mean(0, dtype=np.float32),
            photos=photos[some],
            masks=masks[some],
        )
        found[key] = _joined(found[key], new, num_examples) if key in found else new
    return tuple(found[key] for key in sorted(found))


def _joined(old: ClassSummary, new: ClassSummary, num_examples: int) -> ClassSummary:
    """Both summaries of a class as one."""
    total = old.count + new.count
    return dataclasses.replace(
        old,
        shares=np.concatenate([old.shares, new.shares]),
        predicted=np.concatenate([old.predicted, new.predicted]),
        kept_map=(old.kept_map * (old.count / total) + new.kept_map * (new.count / total)).astype(np.float32),
        photos=np.concatenate([old.photos, new.photos])[:num_examples],
        masks=np.concatenate([old.masks, new.masks])[:num_examples],
    )
