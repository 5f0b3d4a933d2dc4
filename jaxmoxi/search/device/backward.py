"""Backward elimination for orders as a machine: `complete_order` and `backward_forward_order`."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxmoxi.search.device.engine import Question
from jaxmoxi.search.device.groups import count_of, ranked
from jaxmoxi.search.device.orders import ENDED, Steps, neighbours
from jaxmoxi.search.device.reading import Answer

BACK, FORWARD = 0, 1


class Backward(NamedTuple):
    """group: who is there; left: who may go or come; early: who comes first; place: of each player in the order."""

    phase: Int[Array, ""]
    group: Bool[Array, "P"]
    left: Bool[Array, "P"]
    early: Bool[Array, "P"]
    place: Int[Array, "P"]
    gone: Int[Array, ""]
    gradients: Int[Array, ""]
    keep: Int[Array, ""]


@dataclasses.dataclass(frozen=True)
class BackwardMachine(Steps):
    """`complete_order`, and with `forward` `backward_forward_order`.

    guided: a gradient makes the shortlist. share: of those left, who go at once.
    """

    num_players: int
    insertion: bool
    guided: bool
    share: float
    forward: bool

    @property
    def slopes(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Whether gradients are asked for."""
        return self.guided

    def start(self, given: tuple[Any, Any, Any]) -> Backward:
        """Given (who comes first, the places of those whose places are known, how many others survive)."""
        early, place, keep = given
        everybody = jnp.ones(self.num_players, bool)
        zero = jnp.int32(0)
        return self._next(Backward(jnp.int32(BACK), everybody, ~early, early, place, zero, zero, keep))

    def sloped(self, s: Backward) -> tuple[Bool[Array, ""], Bool[Array, "P"]]:
        """A gradient at the group, for every round in which there is a choice."""
        return (s.phase == BACK) & (count_of(s.left) > 1) & self.guided, s.group

    def propose(self, s: Backward, slope: Float[Array, "P"]) -> tuple[Backward, Question]:
        """Each player that may go or come; nobody, where there is but one."""
        asked = s.left & (count_of(s.left) > 1)
        if self.guided:
            order = ranked(-slope, s.left)
            rank = jnp.zeros(self.num_players, jnp.int32).at[order].set(jnp.arange(self.num_players, dtype=jnp.int32))
            asked = asked & ((s.phase == FORWARD) | (rank < 3 * self._taken(s)))
            s = s._replace(gradients=s.gradients + self.sloped(s)[0])
        return s, neighbours(s.group, asked & (s.phase != ENDED), jnp.asarray(True))

    def digest(self, s: Backward, question: Question, answer: Answer, spent: Any, count: Any) -> Backward:
        """The state after an answer."""
        back = s.phase == BACK
        some = jnp.where(jnp.any(question.asked), question.asked, s.left)
        order = ranked(jnp.where(jnp.any(question.asked), answer.score, 0), some)
        rank = jnp.zeros(self.num_players, jnp.int32).at[order].set(jnp.arange(self.num_players, dtype=jnp.int32))
        chosen = some & (rank < jnp.where(back, self._taken(s), 1))
        place = jnp.where(back, self.num_players - 1 - s.gone - rank, count_of(s.group))
        after = s._replace(
            group=s.group ^ chosen,
            left=s.left & ~chosen,
            place=jnp.where(chosen, place, s.place).astype(jnp.int32),
            gone=s.gone + jnp.where(back, count_of(chosen), 0),
        )
        return jax.tree.map(lambda old, new: jnp.where(s.phase == ENDED, old, new), s, self._next(after))

    def outcome(self, s: Backward) -> Any:
        """(order, gradients); -1 throughout, where a NaN ended the search."""
        return jnp.where(s.phase == ENDED, jnp.argsort(s.place), -1).astype(jnp.int32), s.gradients

    def _taken(self, s: Backward) -> Int[Array, ""]:
        shares = [max(1, int(self.share * n)) for n in range(self.num_players + 1)]
        left = count_of(s.left)
        return jnp.minimum(jnp.asarray(np.array(shares, np.int32))[left], left - s.keep)

    def _next(self, s: Backward) -> Backward:
        """Where a part is over, the beginning of the next that has anything to do."""
        over = (s.phase == BACK) & (count_of(s.left) <= s.keep)
        if not self.forward:
            return s._replace(phase=jnp.where(over, ENDED, s.phase).astype(jnp.int32))
        # The survivors wait until those who come first are placed.
        some = jnp.any(s.early)
        begun = s._replace(
            phase=jnp.int32(FORWARD),
            group=jnp.zeros(self.num_players, bool),
            left=jnp.where(some, s.early, s.left),
            early=jnp.where(some, s.left, False),
        )
        s = jax.tree.map(lambda x, y: jnp.where(over, x, y), begun, s)
        early_done = (s.phase == FORWARD) & ~jnp.any(s.left)
        s = s._replace(left=jnp.where(early_done, s.early, s.left), early=jnp.where(early_done, False, s.early))
        done = (s.phase == FORWARD) & ~jnp.any(s.left)
        return s._replace(phase=jnp.where(done, ENDED, s.phase).astype(jnp.int32))
