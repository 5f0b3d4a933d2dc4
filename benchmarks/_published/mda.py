"""MDA: the best insertion order until the class is back, then the best deletion order of the rest.

Walker, Jha, Ewetz, "Metric-Driven Attributions for Vision Transformers", ICLR 2025. The abstract and the authors' code
(github.com/chasewalker26/MDA-Metric-Driven-Attributions-for-ViT) were read; the paper's equations were not at hand.
Nothing is copied. Only the order of patches is made here, not their magnitudes.

Both phases add one patch at a time to an empty image, and scan a shortlist of 2 floor(sqrt(P)) patches, at most 28:
- insertion: those left that a first attribution ranks highest; the patch with the highest probability is taken, until
  the probability, from that of the empty image (0) to that of the whole (1), has reached `cutoff`;
- deletion: those left that the attribution ranks lowest; the patch with the lowest probability is taken, so that the
  worst come first. The order ends with this list turned round.

Assumed: the first attribution, a transformer's relevance map in the paper's experiments, is the gradient at the whole
image, which every model here has, at the price of three forward passes; one image masks both phases, where the paper
blurs for insertion and blackens for deletion. Cut off, the rest is ordered by the attribution.
"""

from __future__ import annotations

import math

import numpy as np

from _published.asking import Answers, Meter, masks_with


def mda(
    answers: Answers, *, budget: int, cutoff: float = 0.9, first: np.ndarray | None = None
) -> tuple[np.ndarray, int]:
    """(order int[P], forward passes).

    cutoff: 0 has no insertion phase, more than 1 has no deletion phase.
    first:  float[P], the attribution that ranks candidates; None takes the gradient.
    """
    meter = Meter(answers, budget)
    num_players = meter.num_players
    ranks = meter.slope(np.ones(num_players, bool)) if first is None else np.asarray(first)
    if ranks is None:
        return np.arange(num_players), meter.count
    left = [int(p) for p in np.argsort(-ranks, kind="stable")]
    count = min(28, 2 * math.isqrt(num_players))
    ends = meter.probabilities(np.stack([np.zeros(num_players, bool), np.ones(num_players, bool)]))
    front: list[int] = []
    reached = -np.inf if cutoff > 0 else np.inf
    while len(left) > 1 and reached < cutoff and not meter.spent:
        chosen, probability = _step(meter, front, left[:count], 1)
        if chosen is None:
            break
        front.append(chosen)
        left.remove(chosen)
        reached = (probability - ends[0]) / abs(ends[1] - ends[0]) if cutoff <= 1 else -np.inf
    back: list[int] = []
    while len(left) > 1 and not meter.spent:
        chosen, _ = _step(meter, back, left[-count:], -1)
        if chosen is None:
            break
        back.append(chosen)
        left.remove(chosen)
    return np.array(front + left + back[::-1]), meter.count


def _step(meter: Meter, group: list[int], candidates: list[int], sign: int) -> tuple[int | None, float]:
    """(the candidate with which the probability is highest, or with sign -1 lowest; that probability)."""
    scores = meter.probabilities(masks_with(group, candidates, meter.num_players))
    if np.isnan(scores).any():  # the budget is spent
        return None, float("nan")
    best = int(np.argmax(sign * scores))
    return candidates[best], float(scores[best])
