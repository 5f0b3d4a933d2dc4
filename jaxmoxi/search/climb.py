"""The moves of a search for small groups.

`eliminate` removes players while the group stays enough. A `Climber` exchanges players while the group does better, and
starts again from a disturbed group. `refine` alternates the two. `device.groups` makes the same moves in a compiled
loop.

Source: floating and oscillating search for feature subsets (Pudil, Novovičová, Kittler, Pattern Recognition Letters
1994; Somol, Pudil, ICPR 2000); lazy evaluation by gains measured earlier (Minoux 1978); iterated local search. Ours:
backward steps take several players while the group allows it, and an exchange scans a shortlist first and everybody
only before it gives up.
"""

from __future__ import annotations

from functools import partial
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Int

from jaxmoxi.search.oracle import Enough, Groups, Oracle, Scores
from jaxmoxi.search.shared import lots, neighbours, within

Group = Bool[np.ndarray, "P"]

# A backward step takes this share of the players at once, as long as the group stays enough.
SHARE = 6
# An exchange scans so many additions, and tries the removals for so many of the best of them. On DeiT-Tiny the winner
# of a scan is nearly always among the 32 of 196 that gained most when they were last looked at.
SHORTLIST, TRIED = 32, 8
# Stuck for good: so many disturbed starts in a row that led to nothing. Without it small games, whose every group is
# soon known, would never spend their budget.
PATIENCE = 50


def eliminate(oracle: Oracle, group: Group) -> Group:
    """A part of a group that is enough, from which no player can be taken away; the group itself if it has none."""
    while group.any():
        players = np.flatnonzero(group)
        scores, enough = oracle.ask(neighbours(group, players))
        if not enough.any():
            break
        order = np.argsort(-scores, kind="stable")
        count = max(1, len(players) // SHARE)
        smaller = group.copy()
        smaller[players[np.argmax(np.where(enough, scores, -np.inf))]] = False
        while count > 1:
            block = group.copy()
            block[players[order[:count]]] = False
            if oracle.ask(block[None])[1][0]:
                smaller = block
                break
            count //= 2
        group = smaller
    return group


@runtime_checkable
class Walker(Protocol):
    """What `from_smaller` walks with: an oracle, exchanges that keep the size, and a disturbance."""

    oracle: Oracle

    def climb(self, group: Group, score: float) -> tuple[Group, float, bool]:
        """(group, score, enough) where the exchanges end."""
        ...

    def disturb(self, group: Group) -> tuple[Group, float, bool]:
        """(group, score, enough) of the group with some of its players exchanged."""
        ...


class Climber:
    """Exchanges of one player of a group for one outside, which keep its size. Deterministic."""

    def __init__(self, oracle: Oracle):
        self.oracle = oracle
        # What each player brought when it was last tried; float32, as on the device.
        self.gains = np.full(oracle.num_players, np.inf, np.float32)
        self.draws = 0

    def additions(
        self, group: Group, score: float, *, full: bool, banned: Group | None = None
    ) -> tuple[Int[np.ndarray, "C"], Scores, Enough]:
        """(players, scores, enough) of the group with one more player; `full`: all of them, else the shortlist."""
        outside = ~group if banned is None else ~group & ~banned
        players = np.flatnonzero(outside)
        if not full:
            players = np.sort(players[np.argsort(-self.gains[players], kind="stable")[:SHORTLIST]])
        scores, enough = self.oracle.ask(neighbours(group, players))
        self.gains[players] = np.float32(scores) - np.float32(score)
        return players, scores, enough

    def exchanges(self, group: Group, score: float, *, full: bool) -> tuple[Groups, Scores, Enough]:
        """(groups, scores, enough) of the same size: the best additions, each with every removal."""
        players, scores, _ = self.additions(group, score, full=full)
        best = players[np.argsort(-scores, kind="stable")[:TRIED]]
        inside = np.flatnonzero(group)
        rows = [neighbours(row, inside) for row in neighbours(group, best)]
        groups = np.concatenate(rows) if rows else group[None]
        return groups, *self.oracle.ask(groups)

    def climb(self, group: Group, score: float) -> tuple[Group, float, bool]:
        """(group, score, enough) where the exchanges end: at one that is enough, or where none does better."""
        full = int(np.isinf(self.gains[~group]).sum()) > SHORTLIST  # next to nothing is known yet
        while group.any():
            groups, scores, enough = self.exchanges(group, score, full=full)
            best = int(np.argmax(np.where(enough, scores, -np.inf) if enough.any() else scores))
            if enough[best]:
                return groups[best], float(scores[best]), True
            if scores[best] > score:
                group, score, full = groups[best], float(scores[best]), False
            elif full:  # the shortlist alone gives up too early: larger groups for the same budget
                break
            else:
                full = True
        return group, score, False

    def disturb(self, group: Group) -> tuple[Group, float, bool]:
        """The group with some of its players exchanged for the best others, one after the other."""
        inside = np.flatnonzero(group)
        count = min(len(inside), max(2, min(4, len(inside) // 4)), int((~group).sum()))
        banned = np.zeros(len(group), bool)
        chances = lots(np.array([self.draws], np.uint32), np.arange(len(group), dtype=np.uint32))
        banned[inside[np.argsort(chances[inside], kind="stable")[:count]]] = True
        self.draws += 1
        group = group & ~banned
        score, enough = (float(x[0]) for x in self.oracle.ask(group[None]))
        for _ in range(count):
            players, scores, reached = self.additions(group, score, full=False, banned=banned)
            best = int(np.argmax(scores))
            group = neighbours(group, players[best : best + 1])[0]
            score, enough = float(scores[best]), bool(reached[best])
        return group, score, bool(enough)


def search_down(climber: Climber, limit: int, *, restarts: int = PATIENCE) -> Group | None:
    """The backward search and its exchanges; nobody if that is enough; None if everybody is not."""
    players = climber.oracle.num_players
    ends = np.stack([np.zeros(players, bool), np.ones(players, bool)])
    enough = climber.oracle.ask(ends)[1]
    if enough[0]:
        return ends[0]
    return refine(climber, ends[1], limit, restarts=restarts) if enough[1] else None


def refine(climber: Climber, group: Group, limit: int, *, restarts: int = PATIENCE) -> Group:
    """A group from which nobody can be taken away, from one that is enough: smaller or equal."""
    oracle = climber.oracle
    group = eliminate(oracle, group)
    while group.sum() > 1:
        found = within(oracle, limit, partial(_shrink, climber, group, restarts))
        if found is None:
            break
        group = eliminate(oracle, found)
    return group


def _shrink(climber: Climber, group: Group, restarts: int) -> Group | None:
    """A group that is enough and one smaller, if exchanges find it."""
    return from_smaller(climber, neighbours(group, np.flatnonzero(group)), restarts)


def from_smaller(climber: Walker, smaller: Groups, restarts: int) -> Group | None:
    """A group that is enough of the size of these, if exchanges and disturbances of the best of them find it."""
    scores, _ = climber.oracle.ask(smaller)
    group, score = smaller[np.argmax(scores)], float(np.max(scores))
    best, best_score, enough = climber.climb(group, score)
    failures = 0
    while not enough and failures < restarts:
        group, score, enough = climber.disturb(best)
        if not enough:
            group, score, enough = climber.climb(group, score)
        failures += 1
        if enough or score > best_score:
            best, best_score, failures = group, score, 0
    return best if enough else None
