"""What every search of this package asks: which of these groups do best, and which are enough?

A *group* is a set of players. In an insertion it is what is visible, in a deletion what is hidden. A group's *score* is
the higher the better the group does either, and a group is *enough* when it meets the goal, a `Stop` without a size. So
one algorithm finds sufficient groups (alone, they keep the class on top) and necessary ones (without them, it is lost).

An `Oracle` serves the searches that decide on the host what to ask next: it answers a question in chunks of few
compiled shapes, asks nothing twice, and counts. `device` has the same for searches in one compiled loop.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxmoxi.errors import InputError, nan_error
from jaxmoxi.games.base import Game, ValueFn, as_game
from jaxmoxi.games.differences import greedy_best
from jaxmoxi.games.evaluation import OUTSIDE, TracedError, check_batch_size, choose_batch_size, read_rows, tells
from jaxmoxi.games.probe import check_players
from jaxmoxi.pytrees import is_concrete, record
from jaxmoxi.search.asking import Reader, Told, bounded, reader_of
from jaxmoxi.search.holding import Stability, stability
from jaxmoxi.types import Readout, Stop

# Questions are often small, and padded to a chunk: on a CPU 32 short coalitions are as fast as more.
CPU_CHUNK = 32

Groups = Bool[np.ndarray, "C P"]
Scores = Float[np.ndarray, "C"]
Enough = Bool[np.ndarray, "C"]


class BudgetSpent(Exception):
    """The next question would cost more evaluations than are left. Caught inside the searches."""


@record
class GroupResult:
    """A group of players found by a search; of `minimal_groups` B of them, every array leads with [B].

    group:           bool[P], True for its players.
    size:            int32[], how many they are.
    enough:          bool[], it reaches the goal. Inside `jit`, where nothing can be raised, False says that no group
                     along the way does (the group is then everybody), or that a value was NaN (nobody, and the value is
                     NaN).
    value:           float32[], the payoff of the coalition it leaves visible (of the group, or of all others).
    num_evaluations: int32[], forward passes, of one coalition each, that the search made.
    stability:       how the group holds in other games, where the search was given some.
    pieces:          int32[], how many connected pieces it has, where the search was asked for few (`connected`).
    """

    group: Bool[Array, "*batch P"]
    size: Int[Array, "*batch"]
    enough: Bool[Array, "*batch"]
    value: Float[Array, "*batch"]
    num_evaluations: Int[Array, "*batch"]
    stability: Stability | None = None
    pieces: Int[Array, ""] | None = None


def goal_of(
    v: ValueFn, num_players: int, stop: Stop | None, *, probability: float | None, value: float | None
) -> tuple[Game, Stop]:
    """The game, and the goal that a group must meet: a `Stop` with one condition, which is no size.

    stop: None means the short form: `probability` or `value`, and the class on top where neither is given.

    Raises InputError for levels that cannot be or that the game cannot answer, and for several of them.
    """
    game = as_game(v)
    check_players(game, num_players)
    if not (stop is None or isinstance(stop, Stop)):
        raise InputError(f"expected the goal as stop=Stop(...); got {stop!r}: Stop(flip=True) is the class on top")
    for name, level in (("probability", probability), ("value", value)):
        if isinstance(level, str):
            raise InputError(f"expected {name} as a number; got {level!r}")
    if stop is not None and (probability is not None or value is not None):
        raise InputError("expected the goal once: as stop=Stop(...), or as probability=... or value=...; got both")
    if probability is not None and value is not None:
        raise InputError("expected one level, probability or value; got both")
    if stop is None:
        stop = Stop(flip=probability is None and value is None, probability=probability, value=value)
    if stop.size is not None:
        raise InputError(f"a goal is a level, and the search looks for the size; got stop.size = {stop.size}")
    if bool(stop.flip) + (stop.probability is not None) + (stop.value is not None) != 1:
        raise InputError("expected a goal of one condition, flip, probability or value: Stop(probability=0.9)")
    if stop.value is not None and not math.isfinite(stop.value):
        raise InputError(f"value must be a finite payoff; got {stop.value}")
    stop.check(tells(game, num_players))
    return game, stop


def how_far(goal: Stop | None, outs: Told) -> Scores:
    """How far coalitions are above the level of a goal, float64; of the class on top their payoff, about 0 at the flip.

    Without a goal, the payoff.
    """
    if goal is not None and goal.probability is not None:
        return np.asarray(outs.probabilities, float) - float(goal.probability)
    return np.asarray(outs.values, float) - float(0.0 if goal is None or goal.value is None else goal.value)


class Oracle:
    """Scores of groups, and whether they are enough. Remembers what it was asked; counts what it evaluates.

    goal:   None ranks by the payoff, and nothing is ever enough. For the class on top, groups are ranked by how far its
            logit is ahead of the next, where the game can tell (`with_payoff`): this is the number that changes its
            sign.
    budget: the most evaluations, None for any; a question past it raises BudgetSpent, and evaluates nothing.
    callback: called with the number of evaluations so far, after each question that cost some.
    reader: how coalitions are read; None follows from the goal.
    """

    price = 1  # evaluations a group costs
    whose = "the value function"  # for the error of a NaN

    def __init__(
        self,
        game: Game,
        num_players: int,
        *,
        goal: Stop | None,
        insertion: bool = True,
        batch_size: int | None = None,
        callback: Callable[[int], None] | None = None,
        reader: Reader | None = None,
    ):
        check_batch_size(batch_size)
        check_players(game, num_players)
        if not is_concrete(game):
            raise TracedError(OUTSIDE)
        self.game, self.reader = game, reader or reader_of(game, goal)
        self.num_players, self.goal, self.insertion = num_players, goal, insertion
        self.budget: int | None = None
        self.batch_size = batch_size
        self.count = 0
        self.callback = callback
        self._rows: dict[bytes, int] = {}  # where each group stands in what is known
        self._scores, self._enough = np.zeros(0), np.zeros(0, bool)
        self._outs: Told | None = None
        self._chunks: dict[int | None, int] = {}

    def ask(self, groups: Groups) -> tuple[Scores, Enough]:
        """(scores, enough) of groups. Raises NaNValueError that names the group."""
        places = self._look_up(groups)
        return self._scores[places], self._enough[places]

    def chances(self, groups: Groups) -> Scores:
        """The explained class's probability for groups, of a deletion less it; the payoff where none is told."""
        told = self._told(groups)
        chances = bounded(told.own, np) if told.probabilities is None else told.probabilities
        return np.asarray(chances, float) * (1 if self.insertion else -1)

    def unknown(self, groups: Groups) -> int:
        """How many evaluations a question about these groups would cost."""
        return self.price * len(set(_keys(groups)) - self._rows.keys())

    def readout(self, group: Bool[np.ndarray, "P"]) -> Readout:
        """What the game said of a group, scalars, in its own payoff."""
        told = self._told(group[None])
        return Readout(*jax.tree.map(lambda x: x[0], (told.own, told.leads, told.probabilities)))

    def greedy_best(self, groups: Groups) -> int:
        """Which of some groups MoXI's greedy step chooses: by the game's own payoff, the first of equals."""
        finer = self._told(groups).finer
        return int(greedy_best(finer, np.ones(len(finer), bool), self.insertion, self.reader.finer, np))

    def _told(self, groups: Groups) -> Told:
        places = self._look_up(groups)
        return jax.tree.map(lambda x: x[places], self._outs)

    def _look_up(self, groups: Groups) -> Int[np.ndarray, "C"]:
        """Where groups stand in what is known, after what is not known yet was evaluated."""
        rows = self.new(groups)
        if self.budget is not None and self.count + self.price * len(rows) > self.budget:
            raise BudgetSpent
        if len(rows):
            self._remember(rows, *self._evaluate(rows))
        return np.array([self._rows[key] for key in _keys(groups)], int)

    def new(self, groups: Groups) -> Bool[np.ndarray, "N P"]:
        """Those of some groups that are not known yet, each once."""
        new = {key: i for i, key in enumerate(_keys(groups)) if key not in self._rows}
        return groups[list(new.values())]

    def learn(self, groups: Groups, outs: Told) -> None:
        """Takes in what the game says of groups that were not known yet, and that somebody else has read."""
        self._remember(groups, *self._judged(outs))

    def _remember(self, groups: Groups, scores: Scores, enough: Enough, outs: Told) -> None:
        if np.isnan(scores).any():
            shown = np.flatnonzero(groups[np.argmax(np.isnan(scores))]).tolist()
            where = f"for the group {shown} ({'alone' if self.insertion else 'hidden'})"
            raise nan_error(where, whose=self.whose)
        self.count += self.price * len(groups)
        if self.callback is not None:
            self.callback(self.count)
        start = len(self._scores)
        self._rows.update(zip(_keys(groups), range(start, start + len(groups)), strict=True))
        self._scores, self._enough = np.append(self._scores, scores), np.append(self._enough, enough)
        self._outs = outs if self._outs is None else jax.tree.map(np.append, self._outs, outs)

    def _evaluate(self, groups: Groups) -> tuple[Scores, Enough, Told]:
        """(scores, enough, readouts) of groups that are not known yet."""
        return self._judged(self._read(groups if self.insertion else ~groups))

    def _judged(self, outs: Told) -> tuple[Scores, Enough, Told]:
        scores = np.asarray(outs.values, float) * (1 if self.insertion else -1)
        return scores, self._met(outs, self.insertion), outs

    def _met(self, outs: Told, insertion: bool) -> Enough:
        if self.goal is None:
            return np.zeros(len(outs.values), bool)
        return np.asarray(self.goal.met(Readout(outs.values, outs.leads, outs.probabilities), 0, insertion))

    def _read(self, masks: Groups) -> Told:
        """What the game tells of coalitions."""

        def read(part: Int[np.ndarray, "C"], most: int | None) -> Told:
            return read_rows(self.game, masks[part], size=self.chunk(most), max_visible=most, reader=self.reader)

        return self.by_size(masks, read)

    def by_size(self, masks: Groups, read: Callable[[Int[np.ndarray, "C"], int | None], Told]) -> Told:
        """What is read of coalitions, those of like size together: `read` is given their numbers and max_visible."""
        shown = masks.sum(1)
        limits = np.array([visible_size(int(n), self.num_players) for n in shown]) if self.game.sized else 0 * shown
        order = np.argsort(limits, kind="stable")
        parts = [read(order[limits[order] == x], int(x) if self.game.sized else None) for x in np.unique(limits)]
        back = np.argsort(order)
        return jax.tree.map(lambda *columns: np.concatenate(columns)[back], *parts)

    def chunk(self, max_visible: int | None) -> int:
        """How many coalitions are evaluated at once."""
        if max_visible not in self._chunks:
            size = self.batch_size or choose_batch_size(self.game, self.num_players, max_visible=max_visible)
            most = CPU_CHUNK if jax.default_backend() == "cpu" else size
            self._chunks[max_visible] = max(1, min(size, most, self.num_players))
        return self._chunks[max_visible]

    def result(
        self, group: Bool[np.ndarray, "P"], alternatives: Sequence[ValueFn] = (), *, pieces: int | None = None
    ) -> GroupResult:
        """The record of a group; its payoff is the game's own."""
        return GroupResult(
            group=jnp.asarray(group),
            size=jnp.int32(group.sum()),
            enough=jnp.asarray(self.ask(group[None])[1][0]),
            value=jnp.float32(self.readout(group).values),
            num_evaluations=jnp.int32(self.count),
            stability=stability(alternatives, group, insertion=self.insertion) if alternatives else None,
            pieces=None if pieces is None else jnp.int32(pieces),
        )


def _keys(groups: Groups) -> list[bytes]:
    return [row.tobytes() for row in np.packbits(groups, axis=1)]


def visible_size(shown: int, num_players: int) -> int:
    """The compiled size that serves `shown` visible players: 16, 24, 32, 48, 64, 96, ... or all."""
    size = 16
    while size < shown:
        size += size // 2 if size & (size - 1) == 0 else size // 3
    return min(size, num_players)
