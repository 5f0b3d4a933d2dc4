"""Several games that are asked together: what they do not know yet of some groups is one batch for the model.

A search in several removals asks often about a single group in each of many games. Read game by game, every question
would be a chunk of its own, padded to a compiled size. Games of one structure (all that hide pixels by a fill are) are
stacked, and a chunk is made of pairs of a game and a group.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxmoxi.games.evaluation import memory_advice
from jaxmoxi.games.robust import Stack, alike
from jaxmoxi.search.asking import Reader, Told
from jaxmoxi.search.oracle import Groups, Oracle, Scores


class Panel:
    """Oracles of games of the same players, each with its own memory and count."""

    def __init__(self, oracles: Sequence[Oracle]):
        self.oracles = list(oracles)
        # Games on several devices, or of a user's own code, are asked one by one.
        able = [i for i, oracle in enumerate(self.oracles) if oracle.game.num_shards == 1 and not oracle.game.foreign]
        together = [[able[k] for k in numbers] for numbers in alike([self.oracles[i].game for i in able])]
        stacks = [(numbers, Stack.of([self.oracles[i].game for i in numbers])) for numbers in together]
        self._stacks = [(numbers, stack) for numbers, stack in stacks if stack.own]

    @property
    def count(self) -> int:
        """Evaluations so far, of one group in one game each."""
        return sum(oracle.count for oracle in self.oracles)

    def ask(self, numbers: Iterable[int], groups: Groups) -> tuple[Float[np.ndarray, "G C"], Bool[np.ndarray, "G C"]]:
        """(scores, whether they are enough) of groups in the games of these numbers."""
        asked = list(numbers)
        self._learn({i: self.oracles[i].new(groups) for i in asked})
        told = [self.oracles[i].ask(groups) for i in asked]
        return np.stack([scores for scores, _ in told]), np.stack([met for _, met in told])

    def scores(self, numbers: Int[np.ndarray, "C"], groups: Groups) -> Scores:
        """The score of each group in a game of its own."""
        own = {int(i): np.flatnonzero(numbers == i) for i in np.unique(numbers)}
        self._learn({i: self.oracles[i].new(groups[rows]) for i, rows in own.items()})
        found = np.zeros(len(groups))
        for i, rows in own.items():
            found[rows] = self.oracles[i].ask(groups[rows])[0]
        return found

    def met(self, group: Bool[np.ndarray, "P"]) -> Bool[np.ndarray, "N"]:
        """In which of all games a group is enough."""
        return self.ask(range(len(self.oracles)), group[None])[1][:, 0]

    def _learn(self, unknown: Mapping[int, Groups]) -> None:
        """Lets the oracles of some games learn about groups that they do not know, stack by stack."""
        for members, stack in self._stacks:
            some = {i: rows for i, rows in unknown.items() if i in members and len(rows)}
            if len(some) < 2:
                continue  # a single game is asked as it is
            rows = np.concatenate(list(some.values()))
            ends = np.cumsum([0, *(len(own) for own in some.values())])
            numbers = np.repeat([members.index(i) for i in some], np.diff(ends))
            one = self.oracles[members[0]]
            masks = rows if one.insertion else ~rows
            read = partial(self._read, stack, one, numbers, masks)
            outs = one.by_size(masks, read)
            for (i, own), start, end in zip(some.items(), ends, ends[1:], strict=False):
                self.oracles[i].learn(own, jax.tree.map(lambda x, a=start, b=end: x[a:b], outs))

    def _read(
        self, stack: Stack, one: Oracle, numbers: Any, masks: Any, part: Int[np.ndarray, "C"], most: int | None
    ) -> Told:
        """What games say of groups, pair by pair, in chunks of one compiled shape."""
        size = one.chunk(most)
        padded = part[np.minimum(np.arange(-(-len(part) // size) * size), len(part) - 1)].reshape(-1, size)
        with memory_advice(one.game, one.num_players, most, size):
            outs = [_read_pairs(stack, numbers[places], masks[places], most, one.reader) for places in padded]
            outs = jax.device_get(outs)
        return jax.tree.map(lambda *chunks: np.concatenate(chunks)[: len(part)], *outs)


@partial(jax.jit, static_argnums=(3, 4))
def _read_pairs(
    stack: Stack, numbers: Int[Array, "C"], masks: Bool[Array, "C P"], max_visible: int | None, reader: Reader
) -> Told:
    def one(own: Any, mask: Bool[Array, "P"]) -> Told:
        told = reader(stack.merge(stack.shared, own), mask[None], max_visible)
        return jax.tree.map(lambda x: x[0], told)

    return jax.vmap(one)([x[numbers] for x in stack.own], masks)
