"""Where a greedy search changes its compiled size, and how many coalitions go in a chunk.

A search runs in *stages*. Each is a compiled loop over steps, with room for so many visible players and so many
candidates; a step evaluates its c candidates at the size m of its stage, whatever they really show: c (m + 1) tokens.
Small stages waste little of that, but each is one more compilation.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from jaxmoxi.games.base import Game
from jaxmoxi.games.evaluation import choose_batch_size
from jaxmoxi.games.hardware import platform


class Stage(NamedTuple):
    """A compiled loop: run until `steps` players are chosen, with room for so many visible players and candidates."""

    steps: int
    max_visible: int | None
    max_candidates: int


# What a stage costs besides its steps, for `plan_stages`: this share of all the work, and this many token evaluations.
# A stage of DeiT-Tiny compiles in 1.7 s, where a full order takes 100 s on two CPU cores: with this share compiling
# takes about as long as the padding that it saves, and nothing in a process that explains a second image or finds its
# programs in the cache. A larger model's work grows, its compile time hardly.
#
# Coarse plans are for programs that hold all their stages, and so wait for all of them to compile, and for
# accelerators, which compile as slowly and compute 40 times as fast.
_STAGE_SHARE, _COARSE_SHARE, _STAGE_TOKENS = 0.005, 0.04, 2000


def plan_stages(num_players: int, *, insertion: bool, sized: bool = True, coarse: bool | None = None) -> list[Stage]:
    """Where a search changes its compiled size. A value function that is not `sized` has one stage.

    coarse: fewer stages; None decides by the backend.

    A step evaluates its c candidates at the size m of its stage, whatever they really show: c (m + 1) tokens. Small
    stages waste little of that; but each is one more compilation. The sizes are those of the least total of both, found
    by dynamic programming: of multiples of 8 from 16 on, on accelerators of 15, 31, 47, ... On a CPU 196 players take
    15 stages (insertion; 37 % of the work at full length, where 34 % would be without any padding) or ten (deletion;
    70 %, and 67 %).
    """
    if not sized:
        return [Stage(num_players, None, num_players)]
    # candidates[n]: how many there are in the one step that shows n players.
    shown = np.arange(1, num_players + 1) if insertion else np.arange(num_players)
    candidates = np.zeros(num_players + 1, int)
    candidates[shown] = num_players - np.arange(num_players) if insertion else np.arange(num_players) + 1
    on_cpu = platform() == "cpu"
    if coarse is None:
        coarse = not on_cpu
    overhead = (_COARSE_SHARE if coarse else _STAGE_SHARE) * np.sum(
        candidates * (np.arange(num_players + 1) + 1)
    ) + _STAGE_TOKENS
    # With the class token, sizes on accelerators are multiples of 16 tokens, which are moved least (`encoder`).
    sizes = [-1, *(range(16, num_players, 8) if on_cpu else range(15, num_players, 16)), num_players]
    below = np.concatenate([[0], np.cumsum(candidates)])  # candidates of all steps that show fewer than n
    best: list[tuple[float, list[int]]] = [(0.0, [])]
    for j, size in enumerate(sizes[1:], 1):
        work = [(below[size + 1] - below[sizes[i] + 1]) * (size + 1) for i in range(j)]
        best.append(min((best[i][0] + work[i] + overhead, [*best[i][1], size]) for i in range(j)))
    chosen = best[-1][1]
    if insertion:
        ends = chosen
    else:
        # After k deletions the candidates show P - k - 1 players: a stage ends when the next smaller one can hold them.
        ends = [*reversed([num_players - size - 1 for size in chosen[:-1]]), num_players]
        chosen = chosen[::-1]
    starts = [0, *ends[:-1]]
    return [Stage(e, m, num_players - s) for s, e, m in zip(starts, ends, chosen, strict=True)]


# What a chunk costs besides its coalitions, in tokens: a DeiT-Tiny on two CPU cores spends 3 to 5 ms on it, in which a
# core could run 30 to 60 tokens more; an accelerator is 40 times as fast and takes about as long to start its kernels.
CHUNK_TOKENS = {"cpu": 45, "default": 3000}


def choose_chunk(game: Game, num_players: int, counts: range, batch_size: int | None, max_visible: int | None) -> int:
    """Rows a chunk, for steps that have `counts` candidates each: what was asked for, or the cheapest that fits.

    The last chunk of a step is padded, which a small chunk keeps short; but every chunk has a price of its own.
    """
    most = counts[-1]
    if batch_size is not None:
        return min(batch_size, most)
    fits = choose_batch_size(game, num_players, max_visible=max_visible)
    # An accelerator computes 8 rows at a time, and its attention kernel would have to copy rows to make up eights.
    least = game.num_shards * (1 if platform() == "cpu" else 8)
    if fits < least:
        least = game.num_shards
    if max_visible is None:
        # The candidates fall from P to 1 under one compiled chunk, of unknown cost: a quarter of P wastes an eighth of
        # P rows a step on average, where the whole of P would waste half.
        wanted = min(most, max(32, -(-most // 4)))
        return min(fits, wanted if platform() == "cpu" else -(-wanted // least) * least)
    price = CHUNK_TOKENS.get(platform(), CHUNK_TOKENS["default"])
    shards = game.num_shards  # devices that share a chunk equally
    steps = np.arange(counts[0], most + 1)
    sizes = np.arange(least, min(fits, -(-most // least) * least) + 1, least)
    cost = [np.sum(-(-steps // size)) * (size // shards * (max_visible + 1) + price) for size in sizes]
    return int(sizes[np.argmin(cost)])
