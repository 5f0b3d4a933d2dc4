"""Groups that are enough and without which the rest is not."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from jaxmoxi.errors import InputError
from jaxmoxi.pytrees import pack
from jaxmoxi.search.climb import Climber
from jaxmoxi.search.holding import check_alternatives
from jaxmoxi.search.minimal import check_budget, search_down
from jaxmoxi.search.oracle import Goal, GroupResult, Oracle
from jaxmoxi.types import Readout


class BothOracle(Oracle):
    """Asks of a group alone and of all others: the score is the worse of how well each does."""

    price = 2

    def _evaluate(self, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray, list[Readout]]:
        assert self.goal is not None
        alone, rest = self._read(groups), self._read(~groups)
        ahead = self.goal.ahead
        scores = np.array([min(ahead(a), -ahead(r)) for a, r in zip(alone, rest, strict=True)], float)
        enough = [self.goal.met(a, True) and self.goal.met(r, False) for a, r in zip(alone, rest, strict=True)]
        nan = [np.isnan(a.values) or np.isnan(r.values) for a, r in zip(alone, rest, strict=True)]
        return np.where(nan, np.nan, scores), np.array(enough, bool), alone


def necessary_and_sufficient(
    v: Callable[..., object],
    num_players: int,
    *,
    probability: float | None = None,
    value: float | None = None,
    budget: int | None = None,
    batch_size: int | None = None,
    alternatives: Sequence[Callable[..., object]] = (),
) -> GroupResult:
    """A small group that keeps the class on top when alone *and* loses it when removed; nobody can be taken from it.

    Arguments are those of `minimal_group`; with a level, the group alone is at or above it, the others at or below.
    A group costs two evaluations, one alone and one of the others. `value` is the payoff of the group alone,
    and `stability` is that of the group alone too.

    Raises ValueError where not even everybody is such a group: the goal is missed with everybody, or met with nobody.
    """
    goal = Goal(pack(v), num_players, probability=probability, value=value)
    check_alternatives(alternatives, num_players)
    oracle = BothOracle(v, num_players, goal=goal, batch_size=batch_size)
    group = search_down(Climber(oracle), check_budget(budget, num_players))
    if group is None:
        raise InputError(
            "not even everybody is necessary and sufficient: the goal must be met with all players and missed with none"
        )
    return oracle.result(group, alternatives)
