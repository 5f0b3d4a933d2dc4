"""LiMA: a submodular score of regions, and a greedy search from both ends.

Chen, Liang, Li, Liu, Liu, Zhang, Cao, "Less is More: Efficient Black-box Attribution via Minimal Interpretable Subset
Selection", arXiv 2504.00470 (2025), after Chen, Zhang, Liang, Li, Cao, "Less is More: Fewer Interpretable Region via
Submodular Subset Selection", ICLR 2024. Their abstracts and the authors' code (github.com/RuoyuChen10/SMDL-Attribution)
were read; the equations in the papers' text were not at hand. Nothing is copied.

The score of a set S of regions is a weighted sum of four:
- consistency:   the class's probability with S alone visible;
- collaboration: 1 less the class's probability with S alone hidden;
- confidence:    1 less the normalised entropy of the prediction for S;
- effectiveness: the sum over the regions of S of the distance to the nearest other, arccos(cosine) / pi between the
                 features of each region alone (1 for a set of one).

Each round, every region left is scored with the front; the best joins the front. The `pending` regions that scored
lowest are scored with the back, and the lowest joins the back. The last `pending` regions only join the front.

Assumed: the weights are those of the authors' code, for classifiers (consistency 20, collaboration 5, confidence 0.01)
and for CLIP (effectiveness 0.05), `pending` is 8 as there. Features are the logits, since a game tells no others. Cut
off, the order has the front, then the rest by their last known score, then the back.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from _published.asking import Answers, Meter, by_score, masks_with


class Weights(NamedTuple):
    """The weight of each term; a term of weight 0 costs nothing."""

    consistency: float = 20.0
    collaboration: float = 5.0
    confidence: float = 0.01
    effectiveness: float = 0.05


INSERTION = Weights(collaboration=0.0)
DELETION = Weights(consistency=0.0, confidence=0.0)


def lima(answers: Answers, *, budget: int, weights: Weights | None = None, pending: int = 8) -> tuple[np.ndarray, int]:
    """(order int[P], forward passes)."""
    meter, weights = Meter(answers, budget), Weights() if weights is None else weights
    front: list[int] = []
    back: list[int] = []
    latest = np.full(meter.num_players, np.nan)
    left = list(range(meter.num_players))
    distances = _Distances(meter, weights.effectiveness)
    while left:
        scores = _scores(meter, front, left, weights, distances)
        latest[left] = np.where(np.isnan(scores), latest[left], scores)
        if meter.spent:
            break
        best = left[int(np.argmax(scores))]
        worst = [left[i] for i in np.argsort(scores, kind="stable")[:pending] if left[i] != best]
        few = len(left) <= pending
        front.append(best)
        left.remove(best)
        if not few and worst:
            scores = _scores(meter, back, worst, weights, distances)
            if meter.spent:
                break
            back.append(worst[int(np.argmin(scores))])
            left.remove(back[-1])
    return np.array(front + by_score(left, latest) + back[::-1]), meter.count


def _scores(
    meter: Meter, group: list[int], candidates: list[int], weights: Weights, distances: _Distances
) -> np.ndarray:
    """The score of the group with each candidate, NaN where the budget is spent."""
    shown = masks_with(group, candidates, meter.num_players)
    scores = np.zeros(len(candidates))
    if weights.consistency or weights.confidence:
        told, known = meter.answers_for(shown)
        scores[~known] = np.nan
        scores[known] += weights.consistency * told.probability
        if weights.confidence and told.confidence is not None:
            scores[known] += weights.confidence * told.confidence
    if weights.collaboration:
        scores += weights.collaboration * (1 - meter.probabilities(~shown))
    if weights.effectiveness:
        scores += weights.effectiveness * distances.of(group, candidates)
    return scores


class _Distances:
    """How far apart regions are; asked of the game at the first use, where the terms need it."""

    def __init__(self, meter: Meter, weight: float):
        self.meter, self.weight, self.table = meter, weight, None

    def of(self, group: list[int], candidates: list[int]) -> np.ndarray:
        """The effectiveness of the group with each candidate; 0 where the regions' features cannot be had."""
        if self.table is None:
            told, known = self.meter.answers_for(np.eye(self.meter.num_players, dtype=bool))
            if not known.all() or told.features is None:
                return np.zeros(len(candidates))
            self.table = np.arccos(np.clip(told.features @ told.features.T, -1, 1)) / np.pi
            np.fill_diagonal(self.table, 0)  # rounding aside
        result = []
        for candidate in candidates:
            members = [*group, candidate]
            between = self.table[np.ix_(members, members)] + np.eye(len(members))
            result.append(between.min(1).sum())
        return np.array(result)
