"""Groups that are enough, and without which the rest is not."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from jaxmoxi.errors import InputError
from jaxmoxi.games.base import ValueFn
from jaxmoxi.guards import deliberate
from jaxmoxi.search.asking import Told
from jaxmoxi.search.climb import Climber, search_down
from jaxmoxi.search.connected import Connected, check_connected, connect, halves
from jaxmoxi.search.holding import check_alternatives
from jaxmoxi.search.oracle import Enough, GroupResult, Groups, Oracle, Scores, goal_of, how_far
from jaxmoxi.search.shared import check_budget
from jaxmoxi.types import Stop


class BothOracle(Oracle):
    """Asks about a group alone and about all others: the score is the worse of how well each does."""

    price = 2

    def _evaluate(self, groups: Groups) -> tuple[Scores, Enough, Told]:
        alone, rest = self._read(groups), self._read(~groups)
        scores = np.minimum(how_far(self.goal, alone), -how_far(self.goal, rest))
        broken = np.isnan(alone.values) | np.isnan(rest.values)
        enough = self._met(alone, True) & self._met(rest, False)
        return np.where(broken, np.nan, scores), enough, alone


@deliberate
def necessary_and_sufficient(
    v: ValueFn,
    num_players: int,
    *,
    stop: Stop | None = None,
    probability: float | None = None,
    value: float | None = None,
    budget: int | None = None,
    batch_size: int | None = None,
    alternatives: Sequence[ValueFn] = (),
    connected: Connected | bool = False,
) -> GroupResult:
    """A small group that keeps the class on top when alone *and* loses it when removed; nobody can be taken from it.

    Arguments are those of `minimal_group`; with a level, the group alone is at or above it, the others at or below.
    A group costs two evaluations, one alone and one of the others. `value` is the payoff of the group alone,
    and `stability` is that of the group alone too.

    Raises InputError where not even everybody is such a group: the goal is missed with everybody, or met with nobody.
    """
    game, goal = goal_of(v, num_players, stop, probability=probability, value=value)
    check_alternatives(alternatives, num_players)
    limit = check_budget(budget, num_players)
    wish = check_connected(connected, [game], num_players)
    oracle = BothOracle(game, num_players, goal=goal, batch_size=batch_size)
    half, whole = (limit, limit) if wish is None else halves(limit, budget)
    group = search_down(Climber(oracle), half)
    if group is None:
        raise InputError(
            "not even everybody is necessary and sufficient: the goal must be met with all players and missed with none"
        )
    pieces = None
    if wish is not None:
        group, pieces = connect(oracle, group, wish, whole)
    return oracle.result(group, alternatives, pieces=pieces)
