"""`screened_greedy` as a machine: the same questions, in the same order."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxmoxi.search.device.engine import Question
from jaxmoxi.search.device.groups import count_of, ranked
from jaxmoxi.search.device.orders import ENDED, NOBODY, STEP, Steps, best_of, neighbours, told_of
from jaxmoxi.search.device.reading import Answer
from jaxmoxi.search.device.trace import Record, is_over, new_record, noted, seen
from jaxmoxi.types import Stop

# What is owed of the next audit is counted in parts of 2^29, so that it sums up as exactly as float64 does on the host.
_ONE = 2**29
_DUE = round((1 - 1e-6) * _ONE)


class Screen(NamedTuple):
    """gains, score: as measured; rank: of the open question, who looks best; everybody, auditing: whether all are
    asked, and whether in order to compare. candidates: m. The others are counts of `ScreenedResult`."""

    phase: Int[Array, ""]
    group: Bool[Array, "P"]
    order: Int[Array, "P"]
    size: Int[Array, ""]
    gains: Float[Array, "P"]
    score: Float[Array, ""]
    rank: Int[Array, "P"]
    auditing: Bool[Array, ""]
    candidates: Int[Array, ""]
    owed: Int[Array, ""]
    last_audit: Int[Array, ""]
    audits: Int[Array, ""]
    missed: Int[Array, ""]
    lost: Float[Array, ""]
    gradients: Int[Array, ""]
    tried: Int[Array, "P"]
    evaluations: Int[Array, ""]
    record: Record
    stop: Stop
    fixed: Float[Array, "P"]


@dataclasses.dataclass(frozen=True)
class ScreenMachine(Steps):
    """scorer: "stale", "gradient", "mixed" or "fixed". candidates, audit: as the search's own; None adapts."""

    num_players: int
    insertion: bool
    leads: bool
    probabilities: bool
    scorer: str
    candidates: int | None
    audit: float | None

    @property
    def slopes(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Whether gradients are asked for."""
        return self.scorer in ("gradient", "mixed")

    def start(self, given: tuple[Stop, Any]) -> Screen:
        """Before anything is asked; given the stop and fixed scores."""
        stop, fixed = given
        zero, players = jnp.int32(0), self.num_players
        return Screen(
            phase=jnp.int32(NOBODY), group=jnp.zeros(players, bool), order=jnp.full(players, -1, jnp.int32),
            size=zero, gains=jnp.full(players, jnp.inf, jnp.float32), score=jnp.float32(0),
            rank=jnp.zeros(players, jnp.int32), auditing=jnp.asarray(False),
            candidates=jnp.int32(self.candidates or max(1, players // 16)), owed=zero, last_audit=zero, audits=zero,
            missed=zero, lost=jnp.float32(0), gradients=zero, tried=jnp.zeros(players, jnp.int32), evaluations=zero,
            record=new_record(players, told_of(self.leads, self.probabilities)), stop=stop, fixed=fixed,
        )  # fmt: skip

    def sloped(self, s: Screen) -> tuple[Bool[Array, ""], Bool[Array, "P"]]:
        """A gradient at the group, but where everybody is asked without one."""
        return (s.phase == STEP) & ~self._full(s) & self.slopes, s.group

    def propose(self, s: Screen, slope: Float[Array, "P"]) -> tuple[Screen, Question]:
        """Those who look best; everybody, at the first step and in an audit."""
        left = ~s.group
        owed = jnp.minimum(s.owed + self._pace(s), 3 * _ONE)
        full = self._full(s)
        auditing = ~full & (owed >= _DUE) & (count_of(left) > s.candidates)
        rank = self._rank(s, left, slope, full)
        asked = left & (full | auditing | (rank < s.candidates))
        stepping = s.phase == STEP
        question = neighbours(s.group, asked, stepping)
        s = s._replace(
            owed=jnp.where(stepping, owed, s.owed),
            rank=rank,
            auditing=stepping & auditing,
            gradients=s.gradients + self.sloped(s)[0],
        )
        return s, question._replace(asked=question.asked & (s.phase != ENDED))

    def digest(self, s: Screen, question: Question, answer: Answer, spent: Any, count: Any) -> Screen:
        """The state after an answer."""
        stepping, players = s.phase == STEP, jnp.arange(self.num_players)
        row = best_of(answer, question.asked)
        winner = jnp.where(stepping, row, -1)
        size = s.size + jnp.where(stepping, 1, 0)
        record = noted(s.record, size, seen(answer, row))
        place = s.rank[row]
        listed = question.asked & (s.rank < s.candidates)
        regret = answer.score[row] - jnp.max(jnp.where(listed, answer.score, -jnp.inf))
        audited = s.auditing
        after = s._replace(
            phase=jnp.where(is_over(s.stop, record, size, self.insertion), ENDED, STEP).astype(jnp.int32),
            group=s.group | (players == winner),
            order=jnp.where(players == size - 1, winner, s.order).astype(jnp.int32),
            size=size,
            gains=jnp.where(question.asked & stepping, answer.score - s.score, s.gains),
            score=answer.score[row],
            candidates=jnp.where(audited, self._adapted(s.candidates, place), s.candidates).astype(jnp.int32),
            owed=s.owed - jnp.where(audited, _ONE, 0),
            last_audit=jnp.where(audited, s.size, s.last_audit),
            audits=s.audits + audited,
            missed=s.missed + (audited & (place >= s.candidates)),
            lost=s.lost + jnp.where(audited, regret, 0),
            tried=jnp.where(stepping & (players == s.size), count - s.evaluations, s.tried),
            evaluations=count,
            record=record,
        )
        return jax.tree.map(lambda old, new: jnp.where(s.phase == ENDED, old, new), s, after)

    def outcome(self, s: Screen) -> Any:
        """((order, how many are chosen, record), (gradients, candidates, audits, missed, regret))."""
        regret = s.lost / jnp.maximum(s.audits, 1)
        return (s.order, s.size, s.record), (s.gradients, s.tried, s.audits, s.missed, regret)

    def _full(self, s: Screen) -> Bool[Array, ""]:
        return (s.size == 0) & (self.scorer in ("stale", "mixed"))

    def _pace(self, s: Screen) -> Int[Array, ""]:
        """What this step adds to what is owed of an audit."""
        if self.audit is not None:
            return jnp.int32(round(self.audit * _ONE))
        stale = self.scorer == "stale"
        paces = [max(3, last // 4) if stale else max(2, last) for last in range(self.num_players + 1)]
        return jnp.asarray(np.array([round(_ONE / pace) for pace in paces], np.int32))[s.last_audit]

    def _rank(self, s: Screen, left: Bool[Array, "P"], slope: Float[Array, "P"], full: Any) -> Int[Array, "P"]:
        """Where each player stands by the guess; of two guesses in turn the best by either."""
        players = jnp.arange(self.num_players, dtype=jnp.int32)

        def standing(merits: Float[Array, "P"]) -> Int[Array, "P"]:
            return jnp.zeros_like(players).at[ranked(merits, left)].set(players)

        guesses = {"stale": [s.gains], "gradient": [slope], "mixed": [s.gains, slope], "fixed": [s.fixed]}[self.scorer]
        first, *second = [standing(guess) for guess in guesses]
        if not second:
            return first
        turn = jnp.where(left, jnp.minimum(2 * first, 2 * second[0] + 1), 2 * self.num_players)
        return jnp.where(full, first, jnp.zeros_like(players).at[jnp.argsort(turn, stable=True)].set(players))

    def _adapted(self, candidates: Int[Array, ""], place: Int[Array, ""]) -> Int[Array, ""]:
        if self.candidates is not None:
            return candidates
        least, most = max(1, self.num_players // 32), max(1, self.num_players // 12)
        more = jnp.minimum(most, candidates + jnp.maximum(1, candidates // 2))
        candidates = jnp.where(place >= candidates, more, candidates)
        fewer = jnp.maximum(least, candidates - jnp.maximum(1, candidates // 8))
        return jnp.where(place < candidates // 4, fewer, candidates)
