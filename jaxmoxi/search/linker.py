"""The moves of a search for groups of few connected pieces (see `connected`)."""

from __future__ import annotations

import itertools
import math
from functools import partial

import numpy as np
from jaxtyping import Bool, Int

from jaxmoxi.regions.pieces import Lists, count_pieces, piece_roots
from jaxmoxi.search.climb import PATIENCE, SHARE, SHORTLIST, from_smaller
from jaxmoxi.search.oracle import Enough, Groups, Oracle, Scores
from jaxmoxi.search.shared import lots, neighbours, within

Group = Bool[np.ndarray, "P"]

_MOST = 2**13  # groups that are all tried, at the most
_PAIRS = 12  # pairs of pieces that may be joined in one step, the closest ones
_TRIED = 48  # exchanges that are tried in one step, twice as many before the search gives up


class Linker:
    """Groups of at most `most` connected pieces, judged by an oracle. Deterministic."""

    def __init__(self, oracle: Oracle, lists: Lists, most: int):
        self.oracle, self.lists, self.most = oracle, lists, most
        self.gains = np.full(oracle.num_players, np.inf, np.float32)  # what each brought when it was last tried
        self.draws = 0

    def pieces(self, group: Group) -> int:
        """How many pieces a group has."""
        return int(count_pieces(group[None], self.lists)[0])

    def fits(self, groups: Groups) -> Bool[np.ndarray, "C"]:
        """Which groups have no piece too many."""
        return count_pieces(groups, self.lists) <= self.most

    # Starts: groups that are enough and fit, or None.

    def joined(self, group: Group) -> Group | None:
        """The pieces of a group joined by the fewest players, the closest pair first; grown until it is enough."""
        while self.pieces(group) > self.most:
            bridges = self._bridges(group)
            if bridges is None:
                return None
            fewest = bridges.sum(1) == bridges.sum(1).min()
            scores, enough = self.oracle.ask(bridges[fewest])
            group = bridges[fewest][np.argmax(np.where(enough, scores, -np.inf) if enough.any() else scores)]
        return self.grown(group)

    def kept(self, group: Group) -> Group | None:
        """The pieces of a group that matter most, as many as may be; grown until they are enough."""
        while self.pieces(group) > self.most:
            roots = piece_roots(group[None], self.lists)[0]
            less = np.stack([group & (roots != root) for root in np.unique(roots[group])])
            group = less[np.argmax(self.oracle.ask(less)[0])]
        return self.grown(group)

    def grown(self, group: Group) -> Group | None:
        """A group with the best additions that leave it few pieces, one after the other, until it is enough."""
        enough = self.oracle.ask(group[None])[1][0]
        while not enough:
            rows = neighbours(group, np.flatnonzero(~group))
            rows = rows[self.fits(rows)]
            if not len(rows):
                return None
            scores, reached = self.oracle.ask(rows)
            best = int(np.argmax(np.where(reached, scores, -np.inf) if reached.any() else scores))
            group, enough = rows[best], reached[best]
        return group

    def everybody(self) -> Group | None:
        """All players, where they are enough and fit."""
        everybody = np.ones(self.oracle.num_players, bool)
        fits = bool(self.fits(everybody[None])[0])
        return everybody if fits and self.oracle.ask(everybody[None])[1][0] else None

    # Moves.

    def prune(self, group: Group) -> Group:
        """A part of a group that is enough, from which no player can be taken away: not enough, or a piece too many."""
        while group.any():
            rows = neighbours(group, np.flatnonzero(group))
            rows = rows[self.fits(rows)]
            if not len(rows):
                break
            scores, enough = self.oracle.ask(rows)
            if not enough.any():
                break
            smaller = rows[np.argmax(np.where(enough, scores, -np.inf))]
            wanted = max(1, int(group.sum()) // SHARE)
            blocks = self._blocks(group, rows[np.argsort(-scores, kind="stable")], wanted)
            while len(blocks) > 1:
                if self.oracle.ask(blocks[-1:])[1][0]:
                    smaller = blocks[-1]
                    break
                blocks = blocks[: len(blocks) // 2]
            group = smaller
        return group

    def shrink(self, group: Group, limit: int, *, goal: int) -> Group:
        """A group of at most `goal` players, or as small as evaluations up to `limit` find, from one that is enough."""
        group = self.prune(group)
        while group.sum() > max(goal, 1):
            found = within(self.oracle, limit, partial(self._one_less, group))
            if found is None:
                break
            group = self.prune(found)
        return group

    def smallest(self, group: Group, limit: int) -> Group:
        """The best of the smallest groups that are enough and fit, where evaluations up to `limit` pay for all smaller
        ones; else the group itself."""
        size, players = int(group.sum()), len(group)
        if sum(math.comb(players, count) for count in range(1, size)) > _MOST:
            return group
        for count in range(1, size):
            members = np.array(list(itertools.combinations(range(players), count)))
            rows = np.zeros((len(members), players), bool)
            np.put_along_axis(rows, members, True, axis=1)
            rows = rows[self.fits(rows)]
            told = within(self.oracle, limit, partial(self.oracle.ask, rows)) if len(rows) else None
            if told is None and len(rows):
                return group
            if told is not None and told[1].any():
                return rows[np.argmax(np.where(told[1], told[0], -np.inf))]
        return group

    def _one_less(self, group: Group) -> Group | None:
        """A group that is enough, fits and is one smaller, if exchanges find it."""
        rows = neighbours(group, np.flatnonzero(group))
        rows = rows[self.fits(rows)]
        if not len(rows):
            return None
        return from_smaller(self, rows, PATIENCE)

    def climb(self, group: Group, score: float) -> tuple[Group, float, bool]:
        """(group, score, enough) where the exchanges that fit end, as of a `Climber`."""
        full = bool(np.isinf(self.gains[~group]).sum() > SHORTLIST)
        while group.any():
            groups, scores, enough = self._exchanges(group, score, full=full)
            if len(groups):
                best = int(np.argmax(np.where(enough, scores, -np.inf) if enough.any() else scores))
                if enough[best]:
                    return groups[best], float(scores[best]), True
                if scores[best] > score:
                    group, score, full = groups[best], float(scores[best]), False
                    continue
            if full:
                break
            full = True
        return group, score, False

    def _exchanges(self, group: Group, score: float, *, full: bool) -> tuple[Groups, Scores, Enough]:
        """(groups, scores, enough) of the same size that fit: the most promising pairs of an addition and a removal.

        A pair promises what its addition and its removal bring, each alone.
        """
        near = self._near(group)
        inside = np.flatnonzero(group)
        lost = self.oracle.ask(neighbours(group, inside))[0]
        added, gains = [], []
        for players, shortlist in ((np.flatnonzero(near), SHORTLIST), (np.flatnonzero(~group & ~near), SHORTLIST // 2)):
            if not full:
                players = np.sort(players[np.argsort(-self.gains[players], kind="stable")[:shortlist]])
            added.append(players)
            gains.append(self._add(group, score, players)[0])
        promise = (np.concatenate(gains)[:, None] + lost).ravel()
        best = np.argsort(-np.nan_to_num(promise), kind="stable")[: 8 * _TRIED]
        groups = neighbours(group, np.concatenate(added)[best // len(inside)])
        groups[np.arange(len(groups)), inside[best % len(inside)]] = False
        groups = groups[self.fits(groups)][: _TRIED * (1 + full)]
        return groups, *self.oracle.ask(groups)

    def disturb(self, group: Group) -> tuple[Group, float, bool]:
        """The group with some of its players exchanged for the best others, one after the other."""
        count = min(int(group.sum()), max(2, min(4, int(group.sum()) // 4)), int((~group).sum()))
        chances = lots(np.array([self.draws], np.uint32), np.arange(len(group), dtype=np.uint32))
        inside = np.flatnonzero(group)
        rows = neighbours(group, inside[np.argsort(chances[inside], kind="stable")])
        self.draws += 1
        start, banned = group, np.zeros_like(group)
        for row in rows:
            less = start & row
            if banned.sum() < count and self.fits(less[None])[0]:
                banned |= start & ~less
                start = less
        score, enough = (x[0] for x in self.oracle.ask(start[None]))
        for _ in range(int(banned.sum())):
            players = np.flatnonzero(~start & ~banned)
            players = players[self.fits(neighbours(start, players))]
            if not len(players):
                return group, -np.inf, False
            players = np.sort(players[np.argsort(-self.gains[players], kind="stable")[:SHORTLIST]])
            scores, reached = self._add(start, float(score), players)
            best = int(np.argmax(scores))
            start, score, enough = neighbours(start, players[best : best + 1])[0], scores[best], reached[best]
        return start, float(score), bool(enough)

    def _add(self, group: Group, score: float, players: Int[np.ndarray, "C"]) -> tuple[Scores, Enough]:
        scores, enough = self.oracle.ask(neighbours(group, players))
        self.gains[players] = np.float32(scores) - np.float32(score)
        return scores, enough

    def _near(self, group: Group) -> Group:
        """The neighbours of a group, outside it."""
        padded = np.append(group, False)
        return padded[self.lists].any(1) & ~group

    def _blocks(self, group: Group, rows: Groups, count: int) -> Bool[np.ndarray, "K P"]:
        """The group after 1, 2, .. `count` players are taken away, in the order of `rows`, where what is left fits."""
        blocks, start = [], group
        for row in rows:
            less = start & row
            if self.fits(less[None])[0]:
                blocks.append(less)
                start = less
                if len(blocks) == count:
                    break
        return np.array(blocks)

    def _bridges(self, group: Group) -> Bool[np.ndarray, "K P"] | None:
        """The group with each of its closest pairs of pieces joined by a shortest path; None if no path does."""
        roots = piece_roots(group[None], self.lists)[0]
        found: dict[tuple[int, int], list[int]] = {}
        for root in np.unique(roots[group]):
            for other, path in self._paths(roots, int(root)).items():
                found[min(root, other), max(root, other)] = path
        if not found:
            return None
        paths = sorted(found.values(), key=len)[:_PAIRS]
        bridges = np.repeat(group[None], len(paths), 0)
        for bridge, path in zip(bridges, paths, strict=True):
            bridge[path] = True
        return bridges

    def _paths(self, roots: Int[np.ndarray, "P"], root: int) -> dict[int, list[int]]:
        """The outside players on a shortest path from a piece to each other piece that it reaches without a third."""
        nobody = len(roots)
        came = dict.fromkeys(np.flatnonzero(roots == root).tolist(), -1)
        front, paths = list(came), {}
        while front:
            following = []
            for player in front:
                for other in self.lists[player].tolist():
                    if other == nobody or other in came:
                        continue
                    if roots[other] == nobody:
                        came[other] = player
                        following.append(other)
                    elif int(roots[other]) not in paths:
                        path, step = [], player
                        while came[step] != -1:
                            path.append(step)
                            step = came[step]
                        paths[int(roots[other])] = path
            front = following
        return paths
