"""The coalitions of several searches at once: whose they are, what size serves them, and chunks that all of them share.

Each search asks about as many coalitions as it likes. Those that are new stand in a row, the searches with the most
visible players first, and are read chunk by chunk: as many chunks as there are rows for, each at the smallest compiled
size that serves its rows. So a search that has ended costs nothing, and eight small questions fill one chunk.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxmoxi.games.base import Game
from jaxmoxi.games.evaluation import choose_batch_size
from jaxmoxi.games.hardware import platform
from jaxmoxi.moxi.stages import CHUNK_TOKENS
from jaxmoxi.search.asking import Reader, Told
from jaxmoxi.search.oracle import CPU_CHUNK, visible_size
from jaxmoxi.types import Readout, Stop

# What the images of one chunk may take beside the weights: a chunk holds a copy of its image's arrays for each row.
# Beyond it, and where a chunk is cut among devices, the rows of a chunk are of one image.
_OWN_BYTES = 2**28


class Answer(NamedTuple):
    """What a search is told about each group.

    score:  float32, the higher the better the group does.
    enough: bool, it meets the goal; False without one.
    own:    float32, the payoff of the coalition that it leaves visible.
    finer:  float32, what greedy compares; None where that is `own`.
    leads, probabilities: as in `Readout`.
    """

    score: Float[Array, "*K"]
    enough: Bool[Array, "*K"]
    own: Float[Array, "*K"]
    finer: Float[Array, "*K"] | None
    leads: Bool[Array, "*K"] | None
    probabilities: Float[Array, "*K"] | None


class Size(NamedTuple):
    """A compiled size: `rows` coalitions that show up to `max_visible` players; None promises nothing."""

    max_visible: int | None
    rows: int


@dataclasses.dataclass(frozen=True)
class Games:
    """B games and their goals: arrays that all share, and arrays that lead with [B].

    leaves: in the order of the tree. is_own: which of them lead with [B].
    """

    leaves: Sequence[Any]
    is_own: tuple[bool, ...]
    treedef: Any
    count: int

    def of(self, index: Any) -> tuple[Game, Stop | None]:
        """The game and the goal of one search."""
        return self.treedef.unflatten(
            [leaf[index] if own else leaf for leaf, own in zip(self.leaves, self.is_own, strict=True)]
        )

    def row_by_row(self, ask: Any, rows: Any, owners: Int[Array, "C"]) -> Any:
        """`ask(game, goal, rows[1, ...])` of rows whose games are those of their owners."""
        own = [leaf[owners] for leaf, is_own in zip(self.leaves, self.is_own, strict=True) if is_own]
        shared = [leaf for leaf, is_own in zip(self.leaves, self.is_own, strict=True) if not is_own]

        def one(own: Any, row: Any) -> Any:
            mine, everybodys = iter(own), iter(shared)
            game, goal = self.treedef.unflatten([next(mine if is_own else everybodys) for is_own in self.is_own])
            return jax.tree.map(lambda x: x[0], ask(game, goal, row[None]))

        return jax.vmap(one)(own, rows)

    @property
    def own_bytes(self) -> int:
        """What each game holds alone."""
        own = [leaf for leaf, is_own in zip(self.leaves, self.is_own, strict=True) if is_own]
        return sum(math.prod(leaf.shape[1:]) * leaf.dtype.itemsize for leaf in own)


def sizes_of(game: Game, num_players: int, count: int, batch_size: int | None) -> list[Size]:
    """The compiled sizes of `count` searches together, ascending.

    On a CPU those of the searches on the host. An accelerator compiles slowly: there each is twice the one before. A
    chunk there is of the rows that cost least, if questions are of any size up to P: half a chunk is wasted on average,
    and each chunk has a price of its own.
    """
    cpu = platform() == "cpu"
    limits: list[int | None] = [None]
    if game.sized:
        every = range(1, num_players + 1)
        limits = sorted({visible_size(n, num_players) if cpu else _power(n, num_players) for n in every})  # type: ignore
    most = num_players * count

    def rows(limit: int | None) -> int:
        if batch_size is not None:
            return min(batch_size, most)
        cheapest = CPU_CHUNK
        if not cpu:
            cheapest = max(32, most // 4)
            if limit is not None:
                cheapest = math.ceil(math.sqrt(most * CHUNK_TOKENS["default"] / (limit + 1)))
            cheapest = -(-cheapest // 8) * 8  # as `moxi.stages.choose_chunk`
        fits = choose_batch_size(game, num_players, max_visible=limit)
        return max(1, min(fits, most, cheapest))

    return [Size(limit, rows(limit)) for limit in limits]


def _power(shown: int, num_players: int) -> int:
    return min(num_players, 2 ** max(4, math.ceil(math.log2(shown))))


def answer(
    reader: Reader, game: Game, goal: Stop | None, masks: Any, max_visible: int | None, insertion: bool
) -> Answer:
    """What one chunk of coalitions tells a search."""
    told: Told = reader(game, masks, max_visible)
    readout = Readout(told.values, told.leads, told.probabilities)
    met = jnp.zeros(len(masks), bool) if goal is None else goal.met(readout, jnp.int32(0), insertion)
    finer = told.finer if reader.finer else None
    return Answer(told.values if insertion else -told.values, met, told.own, finer, told.leads, told.probabilities)


def evaluate(
    games: Games,
    reader: Reader,
    sizes: list[Size],
    insertion: bool,
    bases: Bool[Array, "B P"],
    toggled: Int[Array, "B K T"],
    new: Bool[Array, "B K"],
    rows: Int[Array, "B K"],
    answers: Answer,
) -> Answer:
    """The answers [B, N] with those of new groups written in their rows.

    All groups that one search asks about show the same number of players.
    """
    searches, num_questions = new.shape
    num_players = bases.shape[1]
    most = max(size.rows for size in sizes)
    shared = searches > 1 and _of(games).num_shards == 1 and games.own_bytes * most <= _OWN_BYTES
    change = jnp.where(jnp.take_along_axis(bases, jnp.maximum(toggled[:, :, 0], 0), axis=1), -1, 1)
    changes = (toggled[:, :, 0] >= 0) * change
    for t in range(1, toggled.shape[2]):
        change = jnp.where(jnp.take_along_axis(bases, jnp.maximum(toggled[:, :, t], 0), axis=1), -1, 1)
        changes = changes + (toggled[:, :, t] >= 0) * change
    members = jnp.sum(bases, axis=1, dtype=jnp.int32) + jnp.max(jnp.where(new, changes, -num_players), axis=1)
    visible = members if insertion else num_players - members
    limits = np.array([num_players if size.max_visible is None else size.max_visible for size in sizes])
    which = jnp.clip(jnp.searchsorted(jnp.asarray(limits), visible), 0, len(sizes) - 1)
    # The rows in the order of their searches, those that show most first.
    turn = jnp.argsort(-jnp.where(jnp.any(new, axis=1), which, -1), stable=True)
    waiting = new[turn].reshape(-1)
    number = jnp.cumsum(waiting, dtype=jnp.int32)
    total = number[-1]
    places = jnp.arange(searches * num_questions, dtype=jnp.int32)
    order = jnp.zeros_like(places).at[jnp.where(waiting, number - 1, len(places))].set(places, mode="drop")
    chunk_rows = jnp.asarray([size.rows for size in sizes], jnp.int32)

    def branch(size: Size) -> Any:
        def run(owners: Int[Array, "C"], masks: Bool[Array, "C P"]) -> Answer:
            owners, masks = owners[: size.rows], masks[: size.rows]

            def ask(game: Game, goal: Stop | None, rows: Any) -> Answer:
                return answer(reader, game, goal, rows, size.max_visible, insertion)

            out = games.row_by_row(ask, masks, owners) if shared else ask(*games.of(owners[0]), masks)
            return jax.tree.map(lambda x: jnp.pad(x, (0, most - size.rows)), out)

        return run

    branches = [branch(size) for size in sizes]

    def read_chunk(state: tuple[Array, Answer]) -> tuple[Array, Answer]:
        start, answers = state
        place = order[jnp.minimum(start + jnp.arange(most), total - 1)]
        owners, question = turn[place // num_questions], place % num_questions
        first = which[owners[0]]
        live = (jnp.arange(most) < chunk_rows[first]) & (start + jnp.arange(most) < total)
        if not shared:
            live = live & (owners == owners[0])
        toggles = toggled[owners, question]
        flips = jnp.any(toggles[:, :, None] == jnp.arange(num_players), axis=1)
        groups = bases[owners] ^ flips
        if not shared:  # the rows of other searches are read as the first, which is of a size that fits
            groups = jnp.where(live[:, None], groups, groups[0])
        out = jax.lax.switch(first, branches, owners, groups if insertion else ~groups)
        where = jnp.where(live, rows[owners, question], answers.score.shape[1])
        answers = jax.tree.map(lambda all_rows, x: all_rows.at[owners, where].set(x, mode="drop"), answers, out)
        return start + jnp.sum(live, dtype=jnp.int32), answers

    return jax.lax.while_loop(lambda state: state[0] < total, read_chunk, (jnp.int32(0), answers))[1]


def _of(games: Games) -> Game:
    return games.of(0)[0]
