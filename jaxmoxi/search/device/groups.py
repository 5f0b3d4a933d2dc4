"""The search for a small group as a machine: the moves of `climb` and `minimal`, in the same order.

What is called there by one function from another is here a *phase*, the kind of question that is open, and an *errand*,
on whose behalf players are being exchanged. Both forms find the same groups, and ask about as many.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxmoxi.games.differences import greedy_best
from jaxmoxi.search.climb import PATIENCE, SHARE, SHORTLIST, TRIED
from jaxmoxi.search.device.engine import Question
from jaxmoxi.search.device.reading import Answer
from jaxmoxi.search.shared import lots

# What is being asked: nobody and everybody; the group less each of its players, or less several; the group with each
# candidate, or with one exchanged; the group less those that a disturbance takes, and with each who may follow;
# greedy's candidates; the group found.
NOBODY, EVERYBODY, TAKE, BLOCK, ADD, SWAP, DISTURB, REFILL, GREEDY, FOUND, ENDED = range(11)
# On whose behalf players are exchanged: a group of one player less; the same, disturbed; greedy's.
FIRST, AGAIN, RIVAL = range(3)
# What has come about, and what is to be done next: an elimination or exchanges are over, a group is as small as it gets
# from here; exchanges begin, or a disturbance; the last part, or the end.
NOTHING, ELIMINATED, CLIMBED, REFINED, CLIMB, RUIN, FINALLY, END = range(8)


class State(NamedTuple):
    """Where a search stands.

    group, score:      what the open question is about; its score where exchanges need it.
    rank, take, less:  of an elimination: who does least harm first, how many go at once, the group less one.
    kept, sufficient:  the best group that is enough, and whether there is one.
    gains:             what each player brought when it was last tried.
    full, tried:       of an exchange: whether everybody is tried, and the candidates that did best, -1 for none.
    best, best_score:  from where a disturbance starts; failures: so many led to nothing. draws: so many there were.
    banned, missing:   of a disturbance: who was taken, and how many are to follow.
    errand, last:      see above; whether exchanges may be disturbed, which they are after greedy's group is known.
    room:              players that greedy may choose.
    own, enough:       of the group found; `enough` also of the one that was looked at last.
    """

    phase: Int[Array, ""]
    event: Int[Array, ""]
    group: Bool[Array, "P"]
    score: Float[Array, ""]
    rank: Int[Array, "P"]
    take: Int[Array, ""]
    less: Bool[Array, "P"]
    kept: Bool[Array, "P"]
    sufficient: Bool[Array, ""]
    gains: Float[Array, "P"]
    full: Bool[Array, ""]
    tried: Int[Array, "T"]
    best: Bool[Array, "P"]
    best_score: Float[Array, ""]
    failures: Int[Array, ""]
    draws: Int[Array, ""]
    banned: Bool[Array, "P"]
    missing: Int[Array, ""]
    errand: Int[Array, ""]
    last: Bool[Array, ""]
    room: Int[Array, ""]
    own: Float[Array, ""]
    enough: Bool[Array, ""]


class Found(NamedTuple):
    """What the search found: the group, its payoff, and whether it is enough."""

    group: Bool[Array, "*B P"]
    value: Float[Array, "*B"]
    enough: Bool[Array, "*B"]


def either(condition: Bool[Array, ""], a: Any, b: Any) -> Any:
    """One of two states; what both have in common is no operation of the program."""
    return jax.tree.map(lambda x, y: x if x is y else jnp.where(condition, x, y), a, b)


def ranked(merits: Float[Array, "K"], valid: Bool[Array, "K"]) -> Int[Array, "K"]:
    """The indices of the best first; of equals the first, and the invalid ones last."""
    return jnp.argsort(jnp.where(valid, -merits, jnp.inf), stable=True)


def count_of(mask: Bool[Array, "K"]) -> Int[Array, ""]:
    """How many are True."""
    return jnp.sum(mask, dtype=jnp.int32)


@dataclasses.dataclass(frozen=True)
class GroupMachine:
    """`minimal_group`; with `eliminate` its first part alone, `backward_elimination`."""

    num_players: int
    insertion: bool
    eliminate: bool = False
    remainders: bool = False
    slopes = False

    @property
    def tries(self) -> int:
        """How many candidates an exchange tries with every removal."""
        return min(TRIED, self.num_players)

    @property
    def rows(self) -> int:
        """The most groups that a question has."""
        return self.num_players if self.eliminate else self.tries * self.num_players

    def start(self, given: Any) -> State:
        """Before anything is asked."""
        players, no = self.num_players, jnp.asarray(False)
        nobody, zero, nought = jnp.zeros(players, bool), jnp.int32(0), jnp.float32(0)
        return State(
            phase=jnp.int32(NOBODY), event=zero, group=nobody, score=nought,
            rank=jnp.zeros(players, jnp.int32), take=zero, less=nobody, kept=nobody, sufficient=no,
            gains=jnp.full(players, jnp.inf, jnp.float32), full=no, tried=jnp.full(self.tries, -1, jnp.int32),
            best=nobody, best_score=nought, failures=zero, draws=zero, banned=nobody, missing=zero,
            errand=zero, last=no, room=zero, own=jnp.float32(jnp.nan), enough=no,
        )  # fmt: skip

    def ended(self, s: State) -> Bool[Array, ""]:
        """Whether there is nothing left to ask."""
        return s.phase == ENDED

    def outcome(self, s: State) -> Found:
        """The group found; everybody, who are not enough, where none is."""
        return Found(s.group, s.own, s.enough)

    def propose(self, s: State, _: Any) -> tuple[State, Question]:
        """The open question."""
        players = jnp.arange(self.num_players, dtype=jnp.int32)
        row = jnp.arange(self.rows, dtype=jnp.int32)
        player, candidate = row % self.num_players, row // self.num_players
        swapping = s.phase == SWAP
        first = candidate == 0
        outside = ~s.group & ~(s.banned & (s.phase == REFILL))
        adding = (s.phase == ADD) | (s.phase == REFILL)
        listed = outside
        if self.num_players > SHORTLIST:
            shortlist = jnp.zeros(self.num_players, bool).at[ranked(s.gains, outside)[:SHORTLIST]].set(True)
            everybody = (s.phase == GREEDY) | ((s.phase == ADD) & s.full)
            listed = jnp.where(everybody, outside, shortlist & outside)
        asked = jnp.select(
            [s.phase == TAKE, adding | (s.phase == GREEDY)], [s.group[player] & first, listed[player] & first], row == 0
        )
        partner = jnp.full(self.rows, -1, jnp.int32)
        single = (s.phase == TAKE) | adding | (s.phase == GREEDY)
        if not self.eliminate:
            partner = jnp.where(swapping, s.tried[candidate], -1)
            asked = jnp.where(swapping, s.group[player] & (partner >= 0), asked)
        toggled = jnp.stack([jnp.where(single | swapping, player, -1), partner], axis=1)
        base = jnp.where(s.phase == BLOCK, s.group & ~(s.group & (s.rank < s.take)), s.group)
        base = jnp.where(s.phase == EVERYBODY, players >= 0, base)
        bounded = adding | swapping | (s.phase == DISTURB)
        return s, Question(base, toggled, asked & (s.phase != ENDED), bounded)

    def sloped(self, s: State) -> tuple[Bool[Array, ""], Bool[Array, "P"]]:
        """No gradient is asked for."""
        return jnp.asarray(False), s.group

    def digest(self, s: State, question: Question, answer: Answer, spent: Any, count: Any) -> State:
        """The state after an answer."""
        steps = [
            self._nobody, self._everybody, self.take, self.block, self._add, self._swap, self._disturbed,
            self._refilled, self._greedy, self._found, lambda s, question, answer: s,
        ]  # fmt: skip
        if self.eliminate:
            steps[ADD : GREEDY + 1] = [steps[ENDED]] * (GREEDY + 1 - ADD)
        told = jax.lax.switch(s.phase, steps, s, question, answer)
        if not self.eliminate:
            over = jnp.where(s.errand == RIVAL, FINALLY, REFINED).astype(jnp.int32)
            told = either(spent, s._replace(event=over), told)
        events = [
            (ELIMINATED, self._eliminated), (CLIMBED, self._climbed), (REFINED, self._refined),
            (CLIMB, self._climb), (RUIN, self._disturb), (FINALLY, self._finally), (END, self._end),
        ]  # fmt: skip
        for event, follow in events:  # each leads to later ones alone
            told = either(told.event == event, follow(told._replace(event=jnp.int32(NOTHING))), told)
        return told

    def _nobody(self, s: State, question: Question, answer: Answer) -> State:
        return s._replace(phase=jnp.int32(EVERYBODY), enough=answer.enough[0])

    def _everybody(self, s: State, question: Question, answer: Answer) -> State:
        everybody, sufficient = jnp.ones(self.num_players, bool), answer.enough[0]
        down = s._replace(phase=jnp.int32(TAKE), group=everybody)
        forward = s._replace(phase=jnp.int32(GREEDY), room=jnp.int32(self.num_players))
        if self.eliminate:
            forward = s._replace(event=jnp.int32(END), kept=everybody)
        nobody = s._replace(event=jnp.int32(END), sufficient=jnp.asarray(True))  # of the empty group
        return either(s.enough, nobody, either(sufficient, down, forward))

    def take(self, s: State, question: Question, answer: Answer) -> State:
        """After the scores of the group less each of its players."""
        scores, valid = answer.score[: self.num_players], question.asked[: self.num_players]
        enough = answer.enough[: self.num_players] & valid
        order = ranked(scores, valid)
        players = jnp.arange(self.num_players, dtype=jnp.int32)
        less = s.group & (players != jnp.argmax(jnp.where(enough, scores, -jnp.inf)))
        take = jnp.maximum(1, count_of(s.group) // SHARE)
        several = take > 1
        going = s._replace(
            phase=jnp.where(several, BLOCK, TAKE).astype(jnp.int32),
            group=jnp.where(several, s.group, less),
            rank=jnp.zeros_like(players).at[order].set(players),
            take=take,
            less=less,
        )
        # An exchange would start from the best group of one player less.
        over = s._replace(
            event=jnp.int32(ELIMINATED),
            kept=s.group,
            sufficient=jnp.asarray(True),
            group=s.group & (players != order[0]),
            score=scores[order[0]],
        )
        return either(jnp.any(enough), going, over)

    def block(self, s: State, question: Question, answer: Answer) -> State:
        """After the score of the group less several: fewer are taken where it is not enough."""
        take = s.take // 2
        done = answer.enough[0] | (take <= 1)
        return s._replace(
            phase=jnp.where(done, TAKE, BLOCK).astype(jnp.int32),
            group=jnp.where(answer.enough[0], question.base, jnp.where(done, s.less, s.group)),
            take=take,
        )

    def _gains(self, s: State, question: Question, answer: Answer) -> State:
        tried = question.asked[: self.num_players]
        return s._replace(gains=jnp.where(tried, answer.score[: self.num_players] - s.score, s.gains))

    def _add(self, s: State, question: Question, answer: Answer) -> State:
        s, valid = self._gains(s, question, answer), question.asked[: self.num_players]
        best = ranked(answer.score[: self.num_players], valid)[: self.tries]
        some = jnp.any(valid)
        return s._replace(
            phase=jnp.int32(SWAP),
            tried=jnp.where(valid[best], best, -1).astype(jnp.int32),
            event=jnp.where(some, NOTHING, CLIMBED).astype(jnp.int32),
            enough=jnp.asarray(False),
        )

    def _swap(self, s: State, question: Question, answer: Answer) -> State:
        valid, enough = question.asked, answer.enough & question.asked
        reached = jnp.any(enough)
        best = jnp.argmax(jnp.where(jnp.where(reached, enough, valid), answer.score, -jnp.inf))
        flips = jnp.any(question.toggled[best][:, None] == jnp.arange(self.num_players), axis=0)
        better = answer.score[best] > s.score
        moves = reached | better
        over = reached | (~better & s.full)  # the shortlist alone gives up too early
        return s._replace(
            phase=jnp.int32(ADD),
            group=jnp.where(moves, s.group ^ flips, s.group),
            score=jnp.where(moves, answer.score[best], s.score),
            full=~better,
            event=jnp.where(over, CLIMBED, NOTHING).astype(jnp.int32),
            enough=reached,
        )

    def _disturbed(self, s: State, question: Question, answer: Answer) -> State:
        s = s._replace(score=answer.score[0], enough=answer.enough[0])
        return either(s.missing > 0, s._replace(phase=jnp.int32(REFILL)), self._again(s))

    def _refilled(self, s: State, question: Question, answer: Answer) -> State:
        s, valid = self._gains(s, question, answer), question.asked[: self.num_players]
        player = jnp.argmax(jnp.where(valid, answer.score[: self.num_players], -jnp.inf))
        s = s._replace(
            group=s.group | (jnp.arange(self.num_players) == player),
            score=answer.score[player],
            enough=answer.enough[player],
            missing=s.missing - 1,
        )
        return either(s.missing > 0, s, self._again(s))

    def _again(self, s: State) -> State:
        """A disturbed group, to be exchanged from unless it is enough as it is."""
        return s._replace(errand=jnp.int32(AGAIN), event=jnp.where(s.enough, CLIMBED, CLIMB).astype(jnp.int32))

    def _greedy(self, s: State, question: Question, answer: Answer) -> State:
        compared = answer.own if answer.finer is None else answer.finer
        valid = question.asked[: self.num_players]
        best = greedy_best(compared[: self.num_players], valid, self.insertion, self.remainders, jnp)
        group, enough = s.group | (jnp.arange(self.num_players) == best), answer.enough[best]
        over = enough | (count_of(group) >= s.room)
        missed = jnp.where(s.sufficient, CLIMB, END)
        hopeless = jnp.ones(self.num_players, bool)
        return s._replace(
            group=group,
            score=answer.score[best],
            errand=jnp.int32(RIVAL),
            event=jnp.where(over, jnp.where(enough, FINALLY, missed), NOTHING).astype(jnp.int32),
            kept=jnp.where(enough, group, jnp.where(over & ~s.sufficient, hopeless, s.kept)),
            sufficient=s.sufficient | enough,
        )

    def _found(self, s: State, question: Question, answer: Answer) -> State:
        return s._replace(phase=jnp.int32(ENDED), own=answer.own[0], enough=answer.enough[0])

    # What follows from an event.

    def _eliminated(self, s: State) -> State:
        """Nobody can be taken from `kept`: exchanges look for a group of a player less."""
        if self.eliminate:
            return s._replace(event=jnp.int32(END))
        more = count_of(s.kept) > 1
        return s._replace(errand=jnp.int32(FIRST), event=jnp.where(more, CLIMB, REFINED).astype(jnp.int32))

    def _climbed(self, s: State) -> State:
        """The exchanges are over, with a group that is `enough` or not."""
        first, rival = s.errand == FIRST, s.errand == RIVAL
        better = first | s.enough | (s.score > s.best_score)
        failures = jnp.where(better, 0, s.failures + 1).astype(jnp.int32)
        stuck = jnp.where(failures < jnp.where(s.last, PATIENCE, 0), RUIN, REFINED)
        event = jnp.where(rival, FINALLY, jnp.where(s.enough, NOTHING, stuck))
        return s._replace(
            phase=jnp.int32(TAKE),  # from the group, if it is enough
            best=jnp.where(better, s.group, s.best),
            best_score=jnp.where(better, s.score, s.best_score),
            failures=failures,
            kept=jnp.where(rival & s.enough, s.group, s.kept),
            event=event.astype(jnp.int32),
        )

    def _refined(self, s: State) -> State:
        """No smaller group was found: greedy's is the next to be tried, and after it the search ends."""
        room = count_of(s.kept) - 1
        greedy = jnp.where(room > 0, NOTHING, FINALLY)
        return s._replace(
            phase=jnp.int32(GREEDY),
            group=jnp.zeros(self.num_players, bool),
            room=room,
            event=jnp.where(s.last, END, greedy).astype(jnp.int32),
        )

    def _climb(self, s: State) -> State:
        """Exchanges begin."""
        unknown = count_of(jnp.isinf(s.gains) & ~s.group)
        return s._replace(phase=jnp.int32(ADD), full=unknown > SHORTLIST)

    def _disturb(self, s: State) -> State:
        """Takes some players from the best group, for others to follow."""
        inside = count_of(s.best)
        number = jnp.minimum(jnp.minimum(inside, jnp.clip(inside // 4, 2, 4)), self.num_players - inside)
        chances = lots(s.draws.astype(jnp.uint32), jnp.arange(self.num_players, dtype=jnp.uint32))
        order = jnp.lexsort((chances, ~s.best))
        banned = jnp.zeros(self.num_players, bool).at[order].set(jnp.arange(self.num_players) < number)
        return s._replace(
            phase=jnp.int32(DISTURB), group=s.best & ~banned, banned=banned, missing=number, draws=s.draws + 1
        )

    def _finally(self, s: State) -> State:
        """The last part: from the best group found, with disturbances."""
        return s._replace(phase=jnp.int32(TAKE), group=s.kept, last=jnp.asarray(True))

    def _end(self, s: State) -> State:
        """The payoff of the group that was found is asked about, and known."""
        return s._replace(phase=jnp.int32(FOUND), group=s.kept)
