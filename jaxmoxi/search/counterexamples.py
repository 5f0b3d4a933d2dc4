"""The search for a group that is enough in so many of several games, guided by counterexamples.

Backward elimination ranks players in one game, and confirms in the others each group that it goes to; a game in which
such a group fails, a counterexample, joins the games searched, whose least margin ranks players from then on. Of many
players, `likely` ranks them once and for all. Exchanges then look for smaller groups. `robust.robust_group` is the
door, and names the source.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

from jaxmoxi.errors import NoGroupError, warn
from jaxmoxi.games.robust import borders_of
from jaxmoxi.search.asking import Told
from jaxmoxi.search.climb import SHARE, Climber, Group, eliminate, refine
from jaxmoxi.search.likely import first_that_hold, likely_order, without_the_least
from jaxmoxi.search.oracle import Enough, Groups, Oracle, Scores
from jaxmoxi.search.panel import Panel
from jaxmoxi.search.shared import neighbours

MANY = 24  # so many players are first looked at together, in `likely`


class NoSharedGroupError(NoGroupError):
    """No group along the search's way reaches the goal in `needed` of `count` games.

    unable: the numbers, from 0, of the games in which all players together do not reach it either.
    """

    def __init__(self, needed: int, count: int, unable: Sequence[int], insertion: bool):
        self.needed, self.count, self.unable, self.insertion = needed, count, unable, insertion
        super().__init__(self.said())

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.needed, self.count, self.unable, self.insertion)

    def said(self, first: int = 0, advice: str = "a lower hold, or leave these games out") -> str:
        """The message. first: the number of the first game. advice: what to give besides another goal."""
        return (
            f"no group along the way reaches the goal in {self.needed} of the {self.count} games"
            f"{'' if self.insertion else ', when it is hidden'}, and all players together reach it in "
            f"{self.count - len(self.unable)}: not in those of the numbers {[first + n for n in self.unable]}. Give "
            f"another goal, {advice}"
        )


class ShareOracle(Oracle):
    """What several games say of groups: enough is what is enough in `needed` of them.

    panel:   the games.
    first:   the numbers of the games that are asked first; the others are asked only about groups that may still be
             enough. A game that refutes such groups joins them.

    A group's score is the score in the worst of the games but for the N - needed that may fail.
    """

    def __init__(self, panel: Panel, needed: int, first: Sequence[int]):
        one = panel.oracles[0]
        super().__init__(
            one.game,
            one.num_players,
            goal=one.goal,
            insertion=one.insertion,
            batch_size=one.batch_size,
            reader=one.reader,
        )
        self.panel, self.needed, self.first = panel, needed, list(first)
        self.price = len(panel.oracles)  # at the most
        self._refuted = False  # the games that are asked first have changed, and with them the scores

    def _look_up(self, groups: Groups) -> Int[np.ndarray, "C"]:
        if self._refuted:
            self._rows, self._outs, self._refuted = {}, None, False
            self._scores, self._enough = np.zeros(0), np.zeros(0, bool)
        self.count = self.panel.count
        return super()._look_up(groups)

    def _evaluate(self, groups: Groups) -> tuple[Scores, Enough, Told]:
        spare = self.price - self.needed
        others = [i for i in range(self.price) if i not in self.first]
        if len(self.first) <= spare:  # what they say alone rules nothing out
            scores, met = self.panel.ask(self.first + others, groups)
            enough, ranked = met.sum(0) >= self.needed, np.sort(scores, 0)[spare]
        else:
            scores, met = self.panel.ask(self.first, groups)
            ranked, enough = np.sort(scores, 0)[spare], (~met).sum(0) <= spare
            if others and enough.any():
                rows = np.flatnonzero(enough)
                more, also = self.panel.ask(others, groups[rows])
                ranked[rows] = np.sort(np.concatenate([scores[:, rows], more]), 0)[spare]
                enough[rows] = met[:, rows].sum(0) + also.sum(0) >= self.needed
                failures = (~also[:, ~enough[rows]]).sum(1)
                if failures.any():
                    self.first.append(others[int(np.argmax(failures))])
                    self._refuted = True
        return ranked, enough, Told(ranked, None, None, ranked, ranked)


def search_together(panel: Panel, needed: int, limit: int) -> tuple[Group, list[int]]:
    """A group that is enough in `needed` of the games, and the games that ranked groups."""
    one, count = panel.oracles[0], len(panel.oracles)
    nobody, everybody = np.zeros(one.num_players, bool), np.ones(one.num_players, bool)
    able = np.flatnonzero(panel.met(everybody))
    if panel.met(nobody).sum() >= needed:
        return nobody, []
    unable = sorted(set(range(count)) - set(able.tolist()))
    if len(able) >= needed:
        if one.num_players >= MANY:
            borders = borders_of([oracle.game for oracle in panel.oracles], one.num_players)
            order = likely_order(panel, needed, None if borders is None else np.asarray(borders))
            start = first_that_hold(panel, needed, order)
            group, searched = without_the_least(panel, needed, order, start, int(able[0]))
        else:
            group, searched = _counterexamples(panel, needed, int(able[0]))
    else:
        searched = list(range(count))
        group = _forward(ShareOracle(panel, needed, searched))
    if group is None:
        raise NoSharedGroupError(needed, count, unable, one.insertion)
    if unable:
        warn_of(unable, "vs", one.insertion)
    full = ShareOracle(panel, needed, searched)
    group = eliminate(full, group)
    if not _all_smaller_fit(full, group, limit):
        group = refine(Climber(full), group, limit)
    if _all_smaller_fit(full, group, limit):
        group = _smallest(full, group)
    return group, full.first


def _all_smaller_fit(oracle: ShareOracle, group: Group, limit: int) -> bool:
    """Whether what is left of the budget pays for every smaller group, nobody aside, in every game."""
    if oracle.price << min(oracle.num_players, 60) <= limit:  # all groups in all games: none is asked about twice
        return True
    smaller = sum(math.comb(oracle.num_players, size) for size in range(1, int(group.sum())))
    return oracle.price * smaller <= limit - oracle.panel.count


def _smallest(oracle: ShareOracle, group: Group) -> Group:
    """The best of the smallest groups that are enough, by trying all that are smaller than `group`."""
    for size in range(1, int(group.sum())):
        members = np.array(list(itertools.combinations(range(oracle.num_players), size)))
        groups = np.zeros((len(members), oracle.num_players), bool)
        np.put_along_axis(groups, members, True, axis=1)
        scores, enough = oracle.ask(groups)
        if enough.any():
            return groups[np.argmax(np.where(enough, scores, -np.inf))]
    return group


def _counterexamples(panel: Panel, needed: int, first: int) -> tuple[Group, list[int]]:
    """A group that is enough, of everybody who is, and the games that ranked it, of which `first` is one.

    Every group on the way is enough in `needed` of all games. Players are ranked in the games searched alone. What is
    to be taken away is confirmed in the others, group by group; a game that refutes it is searched from then on.
    """
    spare, searched = len(panel.oracles) - needed, [first]
    group, done = np.ones(panel.oracles[0].num_players, bool), False
    while group.any() and not done:
        done = True
        players = np.flatnonzero(group)
        smaller = neighbours(group, players)
        scores, met = panel.ask(searched, smaller)
        order = np.argsort(-np.sort(scores, 0)[min(spare, len(searched) - 1)], kind="stable")
        singles = smaller[order[(~met).sum(0)[order] <= spare]]
        for trial in itertools.chain(_blocks(group, players[order], len(players) // SHARE), singles):
            if (~panel.ask(searched, trial[None])[1]).sum() > spare:
                continue
            scores, met = panel.ask(range(len(panel.oracles)), trial[None])
            missing = int((~met).sum()) - spare
            if missing <= 0:
                group = trial
            else:
                failing = [i for i in np.flatnonzero(~met[:, 0]).tolist() if i not in searched]
                # Where all games must hold, the worst of them says most; else those that are the least to ask for.
                failing.sort(key=lambda i: scores[i, 0] if spare == 0 else -scores[i, 0])
                searched = searched + failing[: min(missing, len(searched))]
            done = False
            break
    return group, searched


def _blocks(group: Group, players: Int[np.ndarray, "C"], count: int) -> Iterator[Group]:
    """The group without `count` of its players at once, those that are ranked first: then fewer and fewer of them."""
    while count > 1:
        block = group.copy()
        block[players[:count]] = False
        yield block
        count //= 2


def _forward(oracle: ShareOracle) -> Group | None:
    """The group of a greedy search by score, once it is enough; None if nobody and no larger group is."""
    group = np.zeros(oracle.num_players, bool)
    while not group.all():
        groups = neighbours(group, np.flatnonzero(~group))
        scores, enough = oracle.ask(groups)
        group = groups[np.argmax(np.where(enough, scores, -np.inf) if enough.any() else scores)]
        if enough.any():
            return group
    return None


def warn_of(numbers: Sequence[int], where: str, insertion: bool) -> None:
    warn(
        f"in the games of the numbers {list(numbers)} of {where} the goal is missed even with all players "
        f"{'visible' if insertion else 'hidden'}: a group that fails there tells of the game, not of the group"
    )
