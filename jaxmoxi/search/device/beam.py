"""`beam_search` as a machine: a frontier of so many groups at every size, in fixed arrays.

It makes the moves of `search.beam` in their order. Groups come in question by question, and a pool keeps the best of
all that came, each once: because no two groups rank alike, it ends with those that the host keeps, which ranks all of
them at once.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxmoxi.search.climb import SHORTLIST, TRIED
from jaxmoxi.search.device import groups
from jaxmoxi.search.device.engine import Question
from jaxmoxi.search.device.groups import GroupMachine, count_of, either, ranked
from jaxmoxi.search.device.reading import Answer

# What is being asked: nobody; a group of the frontier with each player more; the same for the shortlist, for exchanges;
# the exchanges; a part of an elimination; the smallest group; everybody outside the groups that are enough.
NOBODY, GROW, ADD, SWAP, ELIMINATE, SMALLEST, REST, ENDED = range(8)


class Ranked(NamedTuple):
    """The best groups so far, the best first.

    groups: bool[W, P]. there: bool[W], which of them there are. score, own, enough: [W], of each.
    """

    groups: Bool[Array, "W P"]
    there: Bool[Array, "W"]
    score: Float[Array, "W"]
    own: Float[Array, "W"]
    enough: Bool[Array, "W"]


class BeamState(NamedTuple):
    """Where a search stands.

    beam, pool:    the frontier, and what becomes the next one.
    member, round: whose group is asked about, and in which round of exchanges.
    size, last:    of the groups of the frontier, and of the largest to be looked at.
    best, values, enough: [P+1, P] and [P+1], the best group of every size.
    smallest:      the smallest group that is enough, where `sufficient`.
    minimal, found: bool[G, P], groups that are enough, and how many.
    inner:         an elimination's state.
    """

    phase: Int[Array, ""]
    beam: Ranked
    pool: Ranked
    member: Int[Array, ""]
    round: Int[Array, ""]
    size: Int[Array, ""]
    last: Int[Array, ""]
    gains: Float[Array, "P"]
    tried: Int[Array, "T"]
    best: Bool[Array, "S P"]
    values: Float[Array, "S"]
    enough: Bool[Array, "S"]
    smallest: Bool[Array, "P"]
    sufficient: Bool[Array, ""]
    minimal: Bool[Array, "G P"]
    found: Int[Array, ""]
    inner: groups.State


class BeamFound(NamedTuple):
    """What the search found. sizes: how many rows of the first three there are; found: how many of `minimal`."""

    best: Bool[Array, "*B S P"]
    values: Float[Array, "*B S"]
    enough: Bool[Array, "*B S"]
    minimal: Bool[Array, "*B G P"]
    sizes: Int[Array, "*B"]
    found: Int[Array, "*B"]


@dataclasses.dataclass(frozen=True)
class BeamMachine:
    """`beam_search`, of `width` groups at a time and so many rounds of exchanges at every size."""

    num_players: int
    insertion: bool
    width: int
    rounds: int
    num_groups: int
    slopes = False

    @property
    def tries(self) -> int:
        """How many candidates an exchange tries with every removal."""
        return min(TRIED, self.num_players)

    @property
    def rows(self) -> int:
        """The most groups that a question has."""
        return self.num_players * (self.tries if self.rounds else 1)

    @property
    def _eliminator(self) -> GroupMachine:
        return GroupMachine(self.num_players, self.insertion, eliminate=True)

    def _nothing(self) -> Ranked:
        zeros = jnp.zeros(self.width, jnp.float32)
        no = jnp.zeros(self.width, bool)
        return Ranked(jnp.zeros((self.width, self.num_players), bool), no, zeros, zeros, no)

    def start(self, given: tuple[Any, Any, Any]) -> BeamState:
        """Given (the largest size, the smallest group that is enough, whether there is one)."""
        last, smallest, sufficient = given
        players, zero = self.num_players, jnp.int32(0)
        return BeamState(
            phase=jnp.int32(NOBODY), beam=self._nothing(), pool=self._nothing(), member=zero, round=zero, size=zero,
            last=last, gains=jnp.full(players, jnp.inf, jnp.float32), tried=jnp.full(self.tries, -1, jnp.int32),
            best=jnp.zeros((players + 1, players), bool), values=jnp.full(players + 1, jnp.nan, jnp.float32),
            enough=jnp.zeros(players + 1, bool), smallest=smallest, sufficient=sufficient,
            minimal=jnp.zeros((self.num_groups, players), bool), found=zero, inner=self._eliminator.start(None),
        )  # fmt: skip

    def ended(self, s: BeamState) -> Bool[Array, ""]:
        """Whether there is nothing left to ask."""
        return s.phase == ENDED

    def outcome(self, s: BeamState) -> BeamFound:
        """The groups; past the last size nobody, with the value NaN."""
        there = jnp.arange(self.num_players + 1) <= s.size
        values = jnp.where(there, s.values, jnp.nan)
        return BeamFound(s.best & there[:, None], values, s.enough & there, s.minimal, s.size + 1, s.found)

    def sloped(self, s: BeamState) -> tuple[Bool[Array, ""], Bool[Array, "P"]]:
        """No gradient is asked for."""
        return jnp.asarray(False), s.smallest

    def propose(self, s: BeamState, _: Any) -> tuple[BeamState, Question]:
        """The open question."""
        row = jnp.arange(self.rows, dtype=jnp.int32)
        player, candidate = row % self.num_players, row // self.num_players
        _, part = self._eliminator.propose(s.inner, None)
        blank = self.rows - self.num_players
        toggled = jnp.pad(part.toggled, ((0, blank), (0, 0)), constant_values=-1)
        asked = jnp.pad(part.asked, (0, blank))
        member = s.beam.groups[s.member]
        shortlist = ~member
        if self.num_players > SHORTLIST:
            shortlist &= jnp.zeros(self.num_players, bool).at[ranked(s.gains, ~member)[:SHORTLIST]].set(True)
        partner = jnp.where(s.phase == SWAP, s.tried[candidate], -1)
        first = candidate == 0
        several = (s.phase == GROW) | (s.phase == ADD) | (s.phase == SWAP)
        mine = jnp.stack([jnp.where(several, player, -1), partner], axis=1)
        listed = jnp.select(
            [s.phase == GROW, s.phase == ADD, s.phase == SWAP],
            [~member[player] & first, shortlist[player] & first, member[player] & (partner >= 0)],
            row == 0,
        )
        rest = ~jnp.any(s.minimal, axis=0)
        alone = jnp.select([s.phase == SMALLEST, s.phase == REST], [s.smallest, rest], jnp.zeros_like(rest))
        eliminating = s.phase == ELIMINATE
        base = jnp.where(eliminating, part.base, jnp.where(several, member, alone))
        asked = jnp.where(eliminating, asked, listed) & (s.phase != ENDED)
        return s, Question(base, jnp.where(eliminating, toggled, mine), asked, jnp.asarray(False))

    def digest(self, s: BeamState, question: Question, answer: Answer, spent: Any, count: Any) -> BeamState:
        """The state after an answer."""
        steps = [
            self._nobody, self._grown, self._added, self._swapped, self._eliminated, self._smallest, self._rest,
            lambda s, question, answer: s,
        ]  # fmt: skip
        return jax.lax.switch(s.phase, steps, s, question, answer)

    def _nobody(self, s: BeamState, question: Question, answer: Answer) -> BeamState:
        beam = self._nothing()
        first = jnp.arange(self.width) == 0
        beam = beam._replace(there=first, score=jnp.where(first, answer.score[0], 0))
        s = s._replace(
            beam=beam,
            best=s.best.at[0].set(False),
            values=s.values.at[0].set(answer.own[0]),
            enough=s.enough.at[0].set(answer.enough[0]),
        )
        return self._next_size(s)

    def _gains(self, s: BeamState, question: Question, answer: Answer) -> BeamState:
        """What each player brought that was tried."""
        tried, score = question.asked[: self.num_players], answer.score[: self.num_players]
        return s._replace(gains=jnp.where(tried, score - s.beam.score[s.member], s.gains))

    def _grown(self, s: BeamState, question: Question, answer: Answer) -> BeamState:
        s = self._gains(s, question, answer)
        s = s._replace(pool=self._merged(s.pool, question, answer, self.num_players))
        over = s._replace(beam=s.pool, size=s.size + 1, round=jnp.int32(0))
        over = self._exchange(over) if self.rounds else self._sized(over)
        return self._next_member(s, GROW, over)

    def _exchange(self, s: BeamState) -> BeamState:
        """A round of exchanges begins with the frontier as it is."""
        return s._replace(phase=jnp.int32(ADD), member=jnp.int32(0), pool=s.beam)

    def _added(self, s: BeamState, question: Question, answer: Answer) -> BeamState:
        s, valid = self._gains(s, question, answer), question.asked[: self.num_players]
        best = ranked(answer.score[: self.num_players], valid)[: self.tries]
        return s._replace(phase=jnp.int32(SWAP), tried=jnp.where(valid[best], best, -1).astype(jnp.int32))

    def _swapped(self, s: BeamState, question: Question, answer: Answer) -> BeamState:
        s = s._replace(pool=self._merged(s.pool, question, answer, self.rows))
        stays = jnp.all(s.pool.groups[0] == s.beam.groups[0])
        over = s._replace(beam=s.pool, round=s.round + 1)
        over = either(stays | (over.round >= self.rounds), self._sized(over), self._exchange(over))
        return self._next_member(s, ADD, over)

    def _next_member(self, s: BeamState, phase: int, over: BeamState) -> BeamState:
        """The next group of the frontier; after the last of them what comes then. Those there are stand first."""
        member = s.member + 1
        more = s._replace(phase=jnp.int32(phase), member=member)
        return either(member < count_of(s.beam.there), more, over)

    def _sized(self, s: BeamState) -> BeamState:
        """The best group of a size is known: those that are enough stand first."""
        beam, inner = s.beam, self._eliminator.start(None)
        s = s._replace(
            best=s.best.at[s.size].set(beam.groups[0]),
            values=s.values.at[s.size].set(beam.own[0]),
            enough=s.enough.at[s.size].set(beam.enough[0]),
        )
        inner = inner._replace(phase=jnp.int32(groups.TAKE), group=beam.groups[0])
        return either(beam.enough[0], s._replace(phase=jnp.int32(ELIMINATE), inner=inner), self._next_size(s))

    def _next_size(self, s: BeamState) -> BeamState:
        """The frontier grows, or, after the last size, the group that is known already stands next."""
        grow = s._replace(phase=jnp.int32(GROW), member=jnp.int32(0), pool=self._nothing())
        known = s._replace(phase=jnp.int32(SMALLEST))
        nobody = s._replace(phase=jnp.int32(ENDED), found=jnp.where(s.sufficient, 1, 0).astype(jnp.int32))
        over = either(s.sufficient & jnp.any(s.smallest), known, nobody)
        return either(s.size < s.last, grow, over)

    def _eliminated(self, s: BeamState, question: Question, answer: Answer) -> BeamState:
        """A step of an elimination; at its end a group that is enough."""
        machine = self._eliminator
        steps = [machine.take, machine.block]
        inner = jax.lax.switch(s.inner.phase - groups.TAKE, steps, s.inner, question, answer)
        over = inner.event == groups.ELIMINATED
        first = s._replace(phase=jnp.int32(SMALLEST), smallest=inner.kept, sufficient=jnp.asarray(True))
        done = either(s.found == 0, first, self._noted(s, inner.kept))
        return either(over, done._replace(inner=inner), s._replace(inner=inner))

    def _smallest(self, s: BeamState, question: Question, answer: Answer) -> BeamState:
        """The smallest group is the best of its size, which is the last."""
        size = count_of(s.smallest)
        s = s._replace(
            size=size,
            best=s.best.at[size].set(s.smallest),
            values=s.values.at[size].set(answer.own[0]),
            enough=s.enough.at[size].set(answer.enough[0]),
        )
        return self._noted(s, s.smallest)

    def _noted(self, s: BeamState, group: Bool[Array, "P"]) -> BeamState:
        """One more group that is enough; others are looked for among those outside."""
        here = jnp.arange(self.num_groups) == s.found
        found = s.found + 1
        return s._replace(
            phase=jnp.where(found < self.num_groups, REST, ENDED).astype(jnp.int32),
            minimal=jnp.where(here[:, None], group, s.minimal),
            found=found,
        )

    def _rest(self, s: BeamState, question: Question, answer: Answer) -> BeamState:
        inner = self._eliminator.start(None)._replace(phase=jnp.int32(groups.TAKE), group=question.base)
        enough = answer.enough[0] & jnp.any(question.base)
        return either(enough, s._replace(phase=jnp.int32(ELIMINATE), inner=inner), s._replace(phase=jnp.int32(ENDED)))

    def _merged(self, pool: Ranked, question: Question, answer: Answer, rows: int) -> Ranked:
        """The best of the pool and of the groups asked about, each once; of equals the one with the earlier players."""
        toggled = question.toggled[:rows]
        flips = jnp.any(toggled[:, :, None] == jnp.arange(self.num_players), axis=1)
        members, there = question.base ^ flips, question.asked[:rows]
        words = jnp.concatenate([_words(pool.groups), _words(members)])
        known = jnp.all(words[self.width :, None] == words[None, : self.width], axis=2) & pool.there
        there &= ~jnp.any(known, axis=1)
        new = Ranked(members, there, answer.score[:rows], answer.own[:rows], answer.enough[:rows])
        every = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), pool, new)
        keys = [~words[:, i] for i in reversed(range(words.shape[1]))]
        order = jnp.lexsort((*keys, -every.score, ~every.enough, ~every.there))[: self.width]
        return jax.tree.map(lambda x: x[order], every)


def _words(members: Bool[Array, "N P"]) -> Array:
    """The bits of groups in words of 32, the first player the highest, so that words compare as the groups do."""
    count = -(-members.shape[1] // 32)
    bits = jnp.pad(members, ((0, 0), (0, 32 * count - members.shape[1]))).reshape(-1, count, 32)
    return jnp.sum(bits * (jnp.uint32(1) << jnp.arange(31, -1, -1, dtype=jnp.uint32)), axis=2, dtype=jnp.uint32)
