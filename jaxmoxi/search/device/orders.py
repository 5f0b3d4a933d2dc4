"""The orders of `search.orders` as machines: the same questions, in the same order."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from jaxmoxi.search.device.engine import Question
from jaxmoxi.search.device.groups import count_of, ranked
from jaxmoxi.search.device.reading import Answer
from jaxmoxi.search.device.trace import Record, is_over, new_record, noted, seen
from jaxmoxi.types import Readout, Stop


def neighbours(base: Bool[Array, "P"], asked: Bool[Array, "P"], some: Bool[Array, ""]) -> Question:
    """A group with each of the players asked about toggled; without `some`, the group alone."""
    players = jnp.arange(base.shape[0], dtype=jnp.int32)
    toggled = jnp.stack([jnp.where(some, players, -1), jnp.full_like(players, -1)], axis=1)
    return Question(base, toggled, jnp.where(some, asked, players == 0), jnp.asarray(False))


def best_of(answer: Answer, asked: Bool[Array, "P"]) -> Int[Array, ""]:
    """The player who does best; the first of equals."""
    return jnp.argmax(jnp.where(asked, answer.score, -jnp.inf))


class Steps:
    """A machine whose questions are about up to P groups, and which asks for no gradient."""

    num_players: int
    slopes = False

    @property
    def rows(self) -> int:
        """One group a player."""
        return self.num_players

    def sloped(self, s: Any) -> tuple[Bool[Array, ""], Bool[Array, "P"]]:
        """No gradient is asked for."""
        return jnp.asarray(False), jnp.zeros(self.num_players, bool)

    def ended(self, s: Any) -> Bool[Array, ""]:
        """Whether there is nothing left to ask."""
        return s.phase == ENDED


NOBODY, STEP, EVERYBODY, ENDED = range(4)


class Ends(NamedTuple):
    """front, rest: the players that the front has, and those that the back has not; place: of each in the order."""

    phase: Int[Array, ""]
    front: Bool[Array, "P"]
    rest: Bool[Array, "P"]
    place: Int[Array, "P"]
    record: Record


@dataclasses.dataclass(frozen=True)
class EndsMachine(Steps):
    """`bidirectional_greedy`. leads, probabilities: what the game tells."""

    num_players: int
    insertion: bool
    leads: bool
    probabilities: bool

    def start(self, given: Any) -> Ends:
        """Before anything is asked."""
        nobody = jnp.zeros(self.num_players, bool)
        record = new_record(self.num_players, told_of(self.leads, self.probabilities))
        return Ends(jnp.int32(NOBODY), nobody, ~nobody, jnp.zeros(self.num_players, jnp.int32), record)

    def propose(self, s: Ends, _: Any) -> tuple[Ends, Question]:
        """Each player that neither end has, at the end whose turn it is."""
        base = jnp.where(self._fronts(s), s.front, s.rest)
        base = jnp.where(s.phase == EVERYBODY, True, jnp.where(s.phase == NOBODY, False, base))
        question = neighbours(base, s.rest & ~s.front, s.phase == STEP)
        return s, question._replace(asked=question.asked & (s.phase != ENDED))

    def digest(self, s: Ends, question: Question, answer: Answer, spent: Any, count: Any) -> Ends:
        """The state after an answer."""
        stepping, fronts, last = s.phase == STEP, self._fronts(s), self.num_players - 1
        best = best_of(answer, question.asked)
        mine = stepping & (jnp.arange(self.num_players) == best)
        taken, dropped = count_of(s.front), self.num_players - count_of(s.rest)
        front, rest = s.front | (mine & fronts), s.rest & ~(mine & ~fronts)
        size = jnp.where(fronts, taken + 1, last - dropped)
        size = jnp.where(stepping, size, jnp.where(s.phase == NOBODY, 0, self.num_players))
        record = noted(s.record, size, seen(answer, jnp.where(stepping, best, 0)))
        # The back's last player leaves nobody, who are the start, and were seen.
        done = count_of(rest & ~front) == 0
        later = jnp.where(s.phase == EVERYBODY, ENDED, jnp.where(done, EVERYBODY, STEP))
        after = Ends(
            phase=later.astype(jnp.int32),
            front=front,
            rest=rest,
            place=jnp.where(mine, jnp.where(fronts, taken, last - dropped), s.place),
            record=record,
        )
        return jax.tree.map(lambda old, new: jnp.where(s.phase == ENDED, old, new), s, after)

    def outcome(self, s: Ends) -> Any:
        """(order, how many are chosen, record); nothing, where a NaN ended the search before its middle."""
        whole = s.phase == ENDED
        blank = new_record(self.num_players, told_of(self.leads, self.probabilities)).readouts
        readouts = jax.tree.map(lambda x, nothing: jnp.where(whole, x, nothing), s.record.readouts, blank)
        order = jnp.where(whole, jnp.argsort(s.place), -1).astype(jnp.int32)
        return order, jnp.where(whole, self.num_players, 0).astype(jnp.int32), s.record._replace(readouts=readouts)

    def _fronts(self, s: Ends) -> Bool[Array, ""]:
        return count_of(s.front) <= self.num_players - count_of(s.rest)


def told_of(leads: bool, probabilities: bool) -> Readout:
    """What a game can tell, with something where it can."""
    return Readout(jnp.float32(0), jnp.asarray(True) if leads else None, jnp.float32(0) if probabilities else None)


RANK, AMONG, LOOK = STEP, 4, 5


class Blocks(NamedTuple):
    """listed: int32[L], those ranked best when all were asked about, -1 where they are taken; step: of a block."""

    phase: Int[Array, ""]
    group: Bool[Array, "P"]
    size: Int[Array, ""]
    order: Int[Array, "P"]
    listed: Int[Array, "L"]
    step: Int[Array, ""]
    record: Record
    stop: Stop


@dataclasses.dataclass(frozen=True)
class BlockMachine(Steps):
    """`blockwise_greedy`: so many players a step, `together` or not."""

    num_players: int
    insertion: bool
    leads: bool
    probabilities: bool
    players_per_step: int
    together: bool

    @property
    def length(self) -> int:
        """How many players are listed."""
        return min(self.num_players, self.players_per_step * (5 if self.together else 1))

    def start(self, given: Stop) -> Blocks:
        """Before anything is asked; given the stop."""
        return Blocks(
            phase=jnp.int32(NOBODY),
            group=jnp.zeros(self.num_players, bool),
            size=jnp.int32(0),
            order=jnp.full(self.num_players, -1, jnp.int32),
            listed=jnp.full(self.length, -1, jnp.int32),
            step=jnp.int32(0),
            record=new_record(self.num_players, told_of(self.leads, self.probabilities)),
            stop=given,
        )

    def propose(self, s: Blocks, _: Any) -> tuple[Blocks, Question]:
        """Everybody left, those listed, or the group with the next of them."""
        question = neighbours(s.group, ~s.group, s.phase == RANK)
        listed = jnp.pad(s.listed, (0, self.num_players - self.length), constant_values=-1)
        first = listed[jnp.argmax(listed >= 0)]
        rows = jnp.arange(self.num_players)
        looked = jnp.where(s.phase == LOOK, first, -1)
        player = jnp.where(s.phase == AMONG, listed, jnp.where(rows == 0, looked, -1))
        named = (s.phase == AMONG) | (s.phase == LOOK)
        return s, question._replace(
            toggled=question.toggled.at[:, 0].set(jnp.where(named, player, question.toggled[:, 0])),
            asked=jnp.where(named, player >= 0, question.asked) & (s.phase != ENDED),
        )

    def digest(self, s: Blocks, question: Question, answer: Answer, spent: Any, count: Any) -> Blocks:
        """The state after an answer."""
        starting, ranking = s.phase == NOBODY, s.phase == RANK
        row = best_of(answer, question.asked)
        order = ranked(answer.score, question.asked)[: self.length]
        fresh = jnp.where(question.asked[order], order, -1).astype(jnp.int32)
        player = jnp.where(starting, -1, question.toggled[row, 0])
        chosen = jnp.arange(self.num_players) == player
        size = s.size + jnp.where(starting, 0, 1)
        record = noted(s.record, size, seen(answer, row))
        listed = jnp.where(ranking, fresh, s.listed)
        step = jnp.where(ranking, 1, s.step + 1)
        # A block ends early where nobody is left; `is_over` then says so.
        another = jnp.where(step < self.players_per_step, AMONG if self.together else LOOK, RANK)
        over = is_over(s.stop, record, size, self.insertion)
        after = Blocks(
            phase=jnp.where(over, ENDED, jnp.where(starting, RANK, another)).astype(jnp.int32),
            group=s.group | chosen,
            size=size,
            order=jnp.where(jnp.arange(self.num_players) == size - 1, player, s.order),
            listed=jnp.where(listed == player, -1, listed),
            step=step.astype(jnp.int32),
            record=record,
            stop=s.stop,
        )
        return jax.tree.map(lambda old, new: jnp.where(s.phase == ENDED, old, new), s, after)

    def outcome(self, s: Blocks) -> Any:
        """(order, how many are chosen, record)."""
        return s.order, s.size, s.record
