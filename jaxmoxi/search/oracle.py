"""What every search of this package asks: which of these groups do best, and which are enough?

A *group* is a set of players. In an insertion it is what is visible, in a deletion what is hidden; a group's *score* is
the higher the better it does either, and a group is *enough* when it reaches the goal. So one algorithm finds
sufficient groups (alone, they keep the class on top) and necessary ones (without them, it is lost).

The searches here decide on the host what to ask next: their questions are few and large. An `Oracle` answers a question
in chunks of few compiled shapes, asks nothing twice, and counts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxmoxi.errors import InputError, NaNValueError
from jaxmoxi.games.evaluation import (
    check_batch_size,
    check_num_players,
    choose_batch_size,
    is_sized,
    readouts,
    tells,
)
from jaxmoxi.pytrees import Packed, is_concrete, pack, record
from jaxmoxi.search.holding import Stability, stability
from jaxmoxi.types import Readout

# Questions are often small, and padded to a chunk: on a CPU 32 short coalitions are as fast as more.
_CPU_CHUNK = 32


class BudgetSpent(Exception):
    """The next question would cost more evaluations than are left. Caught inside the searches."""


class Goal:
    """When a group is enough: the class on top (the default), a probability or a payoff past a level.

    Ranking: by the payoff; for the class on top by how far its logit is ahead of the next, where the value function
    can tell (`with_payoff`), because that is the number which has to change its sign.
    """

    def __init__(self, v: Packed, num_players: int, *, probability: float | None, value: float | None):
        check_num_players(v, num_players)
        told = tells(v, num_players)
        if probability is not None and value is not None:
            raise InputError("expected one level, probability or value; got both")
        if probability is not None and not 0 < probability < 1:
            raise InputError(f"probability must lie between 0 and 1; got {probability}")
        if value is not None and not math.isfinite(value):
            raise InputError(f"value must be a finite payoff; got {value}")
        if probability is not None and told.probabilities is None:
            raise InputError(
                "a probability as the level needs a value function whose `readout` tells it (pixel_value_fn and "
                "token_value_fn do); give a payoff instead: value=..."
            )
        if probability is None and value is None and told.leads is None:
            raise InputError(
                "this value function cannot tell whether the class leads (pixel_value_fn and token_value_fn can); give "
                "a payoff as the level: value=..."
            )
        self.probability, self.value = probability, value

    @property
    def flips(self) -> bool:
        """Whether the goal is the class on top."""
        return self.probability is None and self.value is None

    def ahead(self, out: Readout) -> float:
        """How far one coalition is above the level; of the class on top its payoff, which is about 0 at the flip."""
        if self.probability is not None:
            return float(out.probabilities) - self.probability  # type: ignore[arg-type]
        return float(out.values) - (self.value or 0.0)

    def met(self, out: Readout, insertion: bool) -> bool:
        """Whether one coalition is enough: at or above the level (insertion), at or below it (deletion)."""
        if self.flips:
            return bool(out.leads) == insertion
        now, level = (out.values, self.value) if self.probability is None else (out.probabilities, self.probability)
        sign = np.float32(1 if insertion else -1)
        return bool(sign * np.float32(now) >= sign * np.float32(level))  # type: ignore[arg-type]


@record
class GroupResult:
    """A group of players found by a search.

    group:           bool[P], True for its players.
    size:            int32[], how many they are.
    enough:          bool[], it reaches the goal.
    value:           float32[], the payoff of the coalition it leaves visible (of the group, or of all others).
    num_evaluations: int32[], forward passes, of one coalition each, that the search made.
    stability:       how the group holds in other games, where the search was given some.
    """

    group: Bool[Array, "P"]
    size: Int[Array, ""]
    enough: Bool[Array, ""]
    value: Float[Array, ""]
    num_evaluations: Int[Array, ""]
    stability: Stability | None = None


OUTSIDE = "this search decides on the host what to evaluate next: call it outside jit and vmap"


class Oracle:
    """Scores of groups, and whether they are enough. Remembers what it was asked; counts what it evaluates.

    budget: the most evaluations, None for any; a question past it raises BudgetSpent, and evaluates nothing.
    goal:   None ranks by the payoff, and nothing is ever enough.
    """

    price = 1  # evaluations a group costs

    def __init__(
        self,
        v: Callable[..., Any],
        num_players: int,
        *,
        goal: Goal | None,
        insertion: bool = True,
        batch_size: int | None = None,
    ):
        check_batch_size(batch_size)
        own = v.unpack() if isinstance(v, Packed) else v
        if not is_concrete(pack(own)):
            raise InputError(OUTSIDE)
        self._own = None
        if goal is not None and goal.flips and hasattr(own, "with_payoff"):
            self._own = pack(own)
            own = own.with_payoff("margin")
        self.v, self.num_players, self.goal, self.insertion = pack(own), num_players, goal, insertion
        check_num_players(self.v, num_players)
        self.budget: int | None = None
        self.batch_size = batch_size
        self.count = 0
        self._sized = is_sized(self.v)
        self._known: dict[bytes, tuple[float, bool, Readout]] = {}
        self._chunks: dict[int | None, int] = {}

    def ask(self, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(scores float64[C], enough bool[C]) of groups bool[C, P]. Raises NaNValueError naming the group."""
        keys = [row.tobytes() for row in np.packbits(groups, axis=1)]
        new = {k: i for i, k in enumerate(keys) if k not in self._known}
        if self.budget is not None and self.count + self.price * len(new) > self.budget:
            raise BudgetSpent
        if new:
            rows = groups[list(new.values())]
            scores, enough, outs = self._evaluate(rows)
            if np.isnan(scores).any():
                shown = np.flatnonzero(rows[np.argmax(np.isnan(scores))]).tolist()
                raise NaNValueError(
                    f"the value function returned NaN for the group {shown} "
                    f"({'alone' if self.insertion else 'hidden'}); check the model's logits there, and the fill"
                )
            self.count += self.price * len(rows)
            self._known.update(zip(new, zip(scores.tolist(), enough.tolist(), outs, strict=True), strict=True))
        found = [self._known[k] for k in keys]
        return np.array([f[0] for f in found]), np.array([f[1] for f in found], bool)

    def readout(self, group: np.ndarray) -> Readout:
        """What the value function said of a group, scalars."""
        self.ask(group[None])
        return self._known[np.packbits(group).tobytes()][2]

    def _evaluate(self, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray, list[Readout]]:
        """(scores, enough, readouts) of groups that are not known yet."""
        masks = groups if self.insertion else ~groups
        outs = self._read(masks)
        scores = np.array([o.values for o in outs], float) * (1 if self.insertion else -1)
        enough = np.array([self.goal is not None and self.goal.met(o, self.insertion) for o in outs], bool)
        return scores, enough, outs

    def _read(self, masks: np.ndarray) -> list[Readout]:
        shown = masks.sum(1)
        order = np.argsort(shown, kind="stable")  # rows of like size share a chunk
        found: list[Any] = [None] * len(masks)
        start = 0
        while start < len(masks):
            most = visible_size(int(shown[order[start]]), self.num_players) if self._sized else None
            same = order[start:] if most is None else order[start : np.searchsorted(shown[order], most, side="right")]
            size = self._chunk(most)
            for begin in range(0, len(same), size):
                rows = same[begin : begin + size]
                padded = masks[rows[np.minimum(np.arange(size), len(rows) - 1)]]
                read = readouts(self.v, padded, batch_size=size, max_visible=most)
                if not is_concrete(read):  # of a closure over traced arrays
                    raise InputError(OUTSIDE)
                out = jax.device_get(read)
                for i, row in enumerate(rows):
                    found[row] = jax.tree.map(lambda x, i=i: x[i], out)
            start += len(same)
        return found

    def _chunk(self, max_visible: int | None) -> int:
        if max_visible not in self._chunks:
            size = self.batch_size or choose_batch_size(self.v, self.num_players, max_visible=max_visible)
            most = _CPU_CHUNK if jax.default_backend() == "cpu" else size
            self._chunks[max_visible] = max(1, min(size, most, self.num_players))
        return self._chunks[max_visible]

    def result(self, group: np.ndarray, alternatives: Sequence[Callable[..., Any]] = ()) -> GroupResult:
        """The record of a group; its payoff is the caller's own (one more evaluation where that is not what ranks)."""
        _, enough = self.ask(group[None])
        value = self.readout(group).values
        if self._own is not None:
            shown = group if self.insertion else ~group
            most = visible_size(int(shown.sum()), self.num_players) if self._sized else None
            value = readouts(self._own, shown[None], max_visible=most).values[0]
            self.count += 1
        return GroupResult(
            group=jnp.asarray(group),
            size=jnp.int32(group.sum()),
            enough=jnp.asarray(enough[0]),
            value=jnp.float32(value),
            num_evaluations=jnp.int32(self.count),
            stability=stability(alternatives, group, insertion=self.insertion) if alternatives else None,
        )


def visible_size(shown: int, num_players: int) -> int:
    """The compiled size that serves `shown` visible players: 16, 24, 32, 48, 64, 96, ... or all."""
    size = 16
    while size < shown:
        size += size // 2 if size & (size - 1) == 0 else size // 3
    return min(size, num_players)


def neighbours(group: np.ndarray, players: np.ndarray) -> np.ndarray:
    """A group with each of `players` toggled in turn, bool[C, P]."""
    rows = np.repeat(group[None], len(players), 0)
    rows[np.arange(len(players)), players] ^= True
    return rows
