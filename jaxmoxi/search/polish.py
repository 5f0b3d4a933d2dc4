"""Changes of a whole order that enlarge the area under its curve: one player goes to another place.

A player that goes from place j to place k changes only the groups of k + 1 .. j players. Where players added up, the
change of the area would follow from what each brought along the order, so the moves are tried in the order of that
prediction for each evaluation. Moves of parts of the order that do not overlap change different groups: they are asked
about together, and each is made or not by itself.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from jaxmoxi.search.oracle import Groups, Oracle

# How many groups a round of moves asks about: enough to fill a chunk of every compiled size, few enough that a round
# learns from the one before.
TOGETHER = 32
# A move counts as better when the sum of the probabilities grows by more than rounding.
RISE = 1e-6


class Moves(NamedTuple):
    """Moves of an order, each array [M]: the player at `source` goes to `target`, and the area is said to grow."""

    source: Int[np.ndarray, "M"]
    target: Int[np.ndarray, "M"]
    predicted: Float[np.ndarray, "M"]

    @property
    def first(self) -> Int[np.ndarray, "M"]:
        """The first place that changes."""
        return np.minimum(self.source, self.target)

    @property
    def last(self) -> Int[np.ndarray, "M"]:
        """The last place that changes."""
        return np.maximum(self.source, self.target)


def prefixes(order: Int[np.ndarray, "P"], start: int = 0, stop: int | None = None) -> Groups:
    """The groups of the first `start`, ..., `stop` - 1 players of an order; of all P + 1 sizes."""
    size = len(order)
    places = np.empty(size, int)
    places[order] = np.arange(size)
    return places < np.arange(start, size + 1 if stop is None else stop)[:, None]


def promising(curve: Float[np.ndarray, "P1"]) -> Moves:
    """All moves that would help if every player brought what it brings now, the best per evaluation first."""
    gains = np.diff(curve)
    sums = np.concatenate([[0.0], np.cumsum(gains)])
    low, high = np.triu_indices(len(gains), 1)
    length = high - low
    earlier = length * gains[high] - (sums[high] - sums[low])
    later = sums[high + 1] - sums[low + 1] - length * gains[low]
    predicted = np.concatenate([earlier, later])
    source, target = np.concatenate([high, low]), np.concatenate([low, high])
    worth = predicted / np.sqrt(np.abs(source - target))
    ranked = np.argsort(-worth, kind="stable")
    ranked = ranked[predicted[ranked] > RISE]
    return Moves(source[ranked], target[ranked], predicted[ranked])


def moved(order: Int[np.ndarray, "P"], source: int, target: int) -> Int[np.ndarray, "P"]:
    """The order with the player at `source` at place `target`."""
    return np.insert(np.delete(order, source), target, order[source])


def polish(oracle: Oracle, order: Int[np.ndarray, "P"], limit: int) -> Int[np.ndarray, "P"]:
    """The order after the moves that `limit` evaluations in all find to help; as it is if its curve costs more."""
    order = np.array(order)
    if oracle.count + oracle.unknown(prefixes(order)) > limit:
        return order
    curve = oracle.chances(prefixes(order))
    tried: set[bytes] = set()
    while True:
        chosen = _together(order, curve, tried, limit - oracle.count, oracle)
        if not chosen:
            return order
        answers = oracle.chances(np.concatenate([groups for _, _, groups in chosen]))
        at = 0
        for first, piece, groups in chosen:
            found = answers[at : at + len(groups)]
            at += len(groups)
            places = slice(first + 1, first + 1 + len(groups))
            if found.sum() > curve[places].sum() + RISE:
                order[first : first + len(piece)] = piece
                curve[places] = found


def _together(
    order: Int[np.ndarray, "P"], curve: Float[np.ndarray, "P1"], tried: set[bytes], left: int, oracle: Oracle
) -> list[tuple[int, Int[np.ndarray, "L"], Groups]]:
    """Moves that do not overlap: (first place that changes, the players from there on, the groups to ask about)."""
    found = promising(curve)
    taken: Bool[np.ndarray, "P"] = np.zeros(len(order), bool)
    chosen, price = [], 0
    for source, target, first, last in zip(found.source, found.target, found.first, found.last, strict=True):
        if taken[first : last + 1].any():
            continue
        new = moved(order, int(source), int(target))
        groups = prefixes(new, int(first) + 1, int(last) + 1)
        key = np.packbits(groups).tobytes() + bytes([len(groups) % 256])
        cost = oracle.unknown(groups)
        if key in tried or price + cost > left:
            continue
        tried.add(key)
        taken[first : last + 1] = True
        chosen.append((int(first), new[first : last + 1], groups))
        price += cost
        if price >= TOGETHER:
            break
    return chosen
