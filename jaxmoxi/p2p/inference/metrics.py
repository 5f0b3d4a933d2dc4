"""How good predictions are, and how well a selection of pixels matches the object. Pure NumPy.

Sources: AUROC as the share of pairs in order, Hanley and McNeil, Radiology 1982; average precision as the sum of
precisions weighted by the gain in recall; calibration error, Naeini et al., AAAI 2015; Brier score, Monthly Weather
Review 1950 (its form for several classes, in [0, 2]).

Shapes: N images, K classes, G groups of pixels. A measure that is undefined, such as the precision of an empty
selection, is NaN, and the means over images and classes leave it out.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Num, Shaped


def accuracy(probabilities: Float[np.ndarray, "N K"], labels: Int[np.ndarray, "N"]) -> float:
    """The share of images whose most probable class is their label."""
    return float(np.mean(probabilities.argmax(1) == labels))


def auroc(scores: Float[np.ndarray, "N"], positive: Bool[np.ndarray, "N"]) -> float:
    """The probability that a positive outscores a negative, where a tie counts half; NaN if either kind is missing."""
    ones, all_ = _by_score(scores, positive, np.ones(len(scores)))
    zeros = all_ - ones
    below = np.cumsum(zeros[::-1])[::-1] - zeros  # negatives of a lower score
    pairs = ones.sum() * zeros.sum()
    return float((ones * (below + zeros / 2)).sum() / pairs) if pairs else float("nan")


def average_precision(
    scores: Float[np.ndarray, "N"], positive: Shaped[np.ndarray, "N"], *, count: Num[np.ndarray, "N"] | None = None
) -> float:
    """The sum over the distinct scores, descending, of (gain in recall) * (precision so far); NaN without a positive.

    count:    number of items (pixels) that each score stands for; None for one each.
    positive: bool[N]; or, with `count`, how many of each score's items are positive.
    """
    ones, all_ = _by_score(scores, positive, np.ones(len(scores)) if count is None else count)
    found = ones > 0  # other scores add no recall
    precision = np.cumsum(ones)[found] / np.cumsum(all_)[found]
    return float((ones[found] * precision).sum() / ones.sum()) if found.any() else float("nan")


def macro_auroc(probabilities: Float[np.ndarray, "N K"], labels: Int[np.ndarray, "N"]) -> float:
    """AUROC of one class against the rest, mean over the classes that some but not all labels name."""
    return _mean([auroc(p, labels == k) for k, p in enumerate(probabilities.T)])


def macro_average_precision(probabilities: Float[np.ndarray, "N K"], labels: Int[np.ndarray, "N"]) -> float:
    """Average precision of one class against the rest, mean over the classes that occur."""
    return _mean([average_precision(p, labels == k) for k, p in enumerate(probabilities.T)])


def calibration_error(
    probabilities: Float[np.ndarray, "N K"], labels: Int[np.ndarray, "N"], *, num_bins: int = 15
) -> float:
    """Expected calibration error: |accuracy - confidence|, averaged over confidence bins of equal width."""
    confidence, right = probabilities.max(1).astype(np.float64), probabilities.argmax(1) == labels
    bins = np.clip(np.ceil(confidence * num_bins).astype(int) - 1, 0, num_bins - 1)  # (low, high]
    return float(np.abs(np.bincount(bins, right - confidence, num_bins)).sum() / len(labels))


def brier_score(probabilities: Float[np.ndarray, "N K"], labels: Int[np.ndarray, "N"]) -> float:
    """The mean over the images of the squared distance to the label's one-hot vector, in [0, 2]."""
    return float(np.mean(np.sum((probabilities - np.eye(probabilities.shape[1])[labels]) ** 2, axis=1)))


def negative_log_likelihood(probabilities: Float[np.ndarray, "N K"], labels: Int[np.ndarray, "N"]) -> float:
    """The mean over the images of -log of the label's probability, in nats."""
    return float(-np.mean(np.log(probabilities[np.arange(len(labels)), labels])))


class Localisation(NamedTuple):
    """How a selection of pixels matches the object: float64[*L, N] each, in [0, 1].

    precision: the share of the selected pixels that lie on the object; NaN where nothing is selected.
    recall:    the share of the object's pixels that is selected; NaN where there is no object.
    iou:       intersection over union; NaN where both are empty.
    pixel_ap:  average precision of the groups' probabilities as scores of their pixels; NaN where there is no object.
    """

    precision: np.ndarray
    recall: np.ndarray
    iou: np.ndarray
    pixel_ap: np.ndarray


def localisation(
    group_probs: Float[np.ndarray, "*L N G"],
    group_mask: Bool[np.ndarray, "*L N G"],
    regions: Int[np.ndarray, "N H W"],
    objects: Bool[np.ndarray, "N H W"],
) -> Localisation:
    """Compares groups with the object's pixels. Pixels labelled G and above belong to no group: they are not selected
    and have the score 0."""
    images, groups = regions.shape[0], group_probs.shape[-1]
    labels = (np.arange(images)[:, None, None] * (groups + 1) + np.minimum(regions, groups)).ravel()
    size = np.bincount(labels, minlength=images * (groups + 1)).reshape(images, -1)
    inside = np.bincount(labels, objects.ravel(), images * (groups + 1)).reshape(images, -1)
    pad = [(0, 0)] * (group_probs.ndim - 1) + [(0, 1)]
    probs, kept = np.pad(group_probs, pad), np.pad(group_mask, pad)
    hits, selected, object_ = (kept * inside).sum(-1), (kept * size).sum(-1), inside.sum(-1)
    scores = [
        average_precision(p, inside[i % images], count=size[i % images])
        for i, p in enumerate(probs.reshape(-1, groups + 1))
    ]
    with np.errstate(invalid="ignore"):
        return Localisation(
            hits / selected,
            hits / object_,
            hits / (selected + object_ - hits),
            np.reshape(scores, hits.shape),
        )


def _by_score(scores: np.ndarray, positive: np.ndarray, count: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(positives, all) at each distinct score, descending."""
    _, place = np.unique(-scores, return_inverse=True)
    return np.bincount(place, positive), np.bincount(place, count)


def _mean(values: list[float]) -> float:
    """The mean of the values that are not NaN; NaN if all are."""
    defined = [v for v in values if not np.isnan(v)]
    return float(np.mean(defined)) if defined else float("nan")
