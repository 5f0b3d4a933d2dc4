"""What several searches were told so far: a hash table in fixed arrays, one for each search.

A group is remembered by its bits, packed in words of 32, and found by linear probing (Knuth, The Art of Computer
Programming 3, 6.4): from the slot that its hash names, row by row, to the first empty one. Nothing is ever taken out
but all together: a search whose memory is full forgets everything, and may then ask a thing twice.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, UInt32

from jaxmoxi.search.shared import scramble


class Memory(NamedTuple):
    """What B searches remember, up to N groups each, in words of W.

    slots:   int32[B, S], which row stands at each place of the hash table; -1 is an empty one. S is a power of two.
    keys:    uint32[B, N, W], the groups.
    answers: a tree of arrays [B, N].
    size:    int32[B], how many rows there are.
    """

    slots: Int[Array, "B S"]
    keys: UInt32[Array, "B N W"]
    answers: Any
    size: Int[Array, "B"]


class Places(NamedTuple):
    """Where groups stand in a memory.

    rows:  int32[B, K], the row of each group; -1 where it is not known.
    slots: int32[B, K], where probing ended.
    """

    rows: Int[Array, "B K"]
    slots: Int[Array, "B K"]


def new_memory(searches: int, rows: int, num_players: int, blank: Any) -> Memory:
    """A memory of nothing. blank: a tree of shapes, scalars, of an answer."""
    slots = 2 ** int(np.ceil(np.log2(2 * rows)))
    return Memory(
        slots=jnp.full((searches, slots), -1, jnp.int32),
        keys=jnp.zeros((searches, rows, -(-num_players // 32)), jnp.uint32),
        answers=jax.tree.map(lambda x: jnp.zeros((searches, rows), x.dtype), blank),
        size=jnp.zeros(searches, jnp.int32),
    )


def pack_groups(bases: Bool[Array, "B P"], toggled: Int[Array, "B K T"]) -> UInt32[Array, "B K W"]:
    """The words of groups, each a base with some players toggled; -1 toggles nobody."""
    words = -(-bases.shape[1] // 32)
    bits = jnp.pad(bases, ((0, 0), (0, 32 * words - bases.shape[1]))).reshape(-1, words, 32)
    weights = jnp.uint32(1) << jnp.arange(32, dtype=jnp.uint32)
    keys = jnp.sum(bits * weights, axis=2, dtype=jnp.uint32)[:, None]
    for t in range(toggled.shape[2]):
        player = toggled[:, :, t, None]
        here = (player >= 0) & (player // 32 == jnp.arange(words))
        keys = keys ^ jnp.where(here, jnp.uint32(1) << (player % 32).astype(jnp.uint32), jnp.uint32(0))
    return keys


def look_up(memory: Memory, keys: UInt32[Array, "B K W"], asked: Bool[Array, "B K"]) -> Places:
    """Where the groups asked about stand."""
    salt = jnp.arange(1, keys.shape[2] + 1, dtype=jnp.uint32) * jnp.uint32(0x9E3779B9)
    start = scramble(jnp.sum(scramble(keys + salt), axis=2, dtype=jnp.uint32)).astype(jnp.int32)
    last = memory.slots.shape[1] - 1
    search = jnp.arange(keys.shape[0])[:, None]

    def probe(state: tuple[Places, Array]) -> tuple[Places, Array]:
        places, looking = state
        rows = memory.slots[search, places.slots]
        same = looking & (rows >= 0) & jnp.all(memory.keys[search, rows] == keys, axis=2)
        looking = looking & (rows >= 0) & ~same
        found = Places(jnp.where(same, rows, places.rows), jnp.where(looking, (places.slots + 1) & last, places.slots))
        return found, looking

    blank = Places(jnp.full(asked.shape, -1, jnp.int32), start & last)
    return jax.lax.while_loop(lambda state: jnp.any(state[1]), probe, (blank, asked))[0]


def remember(
    memory: Memory, keys: UInt32[Array, "B K W"], new: Bool[Array, "B K"], places: Places
) -> tuple[Memory, Places]:
    """(the memory with new groups, whose answers are not there yet; where all of them stand).

    new: groups that were not found, each once, for which there is room.
    """
    count = memory.keys.shape[1]
    search = jnp.arange(keys.shape[0])[:, None]
    rows = memory.size[:, None] + jnp.cumsum(new, axis=1, dtype=jnp.int32) - 1
    last = memory.slots.shape[1] - 1

    def claim(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        # Of several groups that claim one empty slot the last has it; the others go on to the next.
        table, slots, waiting = state
        free = waiting & (table[search, slots] < 0)
        table = table.at[search, jnp.where(free, slots, last + 1)].max(rows, mode="drop")
        waiting = waiting & (table[search, slots] != rows)
        return table, jnp.where(waiting, (slots + 1) & last, slots), waiting

    table, _, _ = jax.lax.while_loop(lambda state: jnp.any(state[2]), claim, (memory.slots, places.slots, new))
    memory = memory._replace(
        slots=table,
        keys=memory.keys.at[search, jnp.where(new, rows, count)].set(keys, mode="drop"),
        size=memory.size + jnp.sum(new, axis=1, dtype=jnp.int32),
    )
    return memory, places._replace(rows=jnp.where(new, rows, places.rows))


def make_room(memory: Memory, coming: Int[Array, "B"]) -> Memory:
    """The memory, empty where `coming` more rows would not fit."""
    full = memory.size + coming > memory.keys.shape[1]

    def forget(memory: Memory) -> Memory:
        return memory._replace(slots=jnp.where(full[:, None], -1, memory.slots), size=jnp.where(full, 0, memory.size))

    return jax.lax.cond(jnp.any(full), forget, lambda memory: memory, memory)
