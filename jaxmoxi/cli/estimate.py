"""How long a search will take, told before it where that is over a minute."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from jaxmoxi.games.base import ValueFn, as_game
from jaxmoxi.games.evaluation import readouts
from jaxmoxi.types import Stop

_SHORT = 60.0  # seconds of which nothing is told
_CHUNK = 32


def greedy_evaluations(num_players: int, stop: Stop) -> int:
    """The most evaluations of a greedy search: P + (P-1) + ... for as many players as the stop allows."""
    steps = min(int(stop.size or num_players), num_players)
    return sum(num_players - k for k in range(steps))


def group_evaluations(method: str, num_players: int, max_size: int | None, *, width: int, rounds: int) -> int:
    """About the evaluations of `minimal_group` or `beam_search`.

    max_size: of a beam search without a goal. With a goal, groups up to a quarter of the players are counted.
    """
    minimal = num_players * (num_players + 1) // 2
    if method == "minimal":
        return minimal
    sizes = np.arange(1, (max_size or max(1, num_players // 4)) + 1)
    return (0 if max_size else minimal) + int(np.sum(width * (num_players + rounds * (32 + 8 * sizes))))


def tell_length(
    model: Any, image: Any, v: ValueFn | Sequence[ValueFn], num_players: int, evaluations: int, *, bound: str
) -> str:
    """One line on how long so many evaluations take here; "" where they take less than a minute.

    One forward pass of one image, which is compiled already, is timed first: a search of many coalitions at once needs
    less for each. Only where that comes to more than a minute is a chunk of coalitions compiled and timed.

    v:     the game, or several of the same players that share the evaluations evenly.
    bound: "at most" or "about", in front of the number of evaluations.
    """
    forward = jax.jit(type(model).logits)
    single = _seconds(lambda: forward(model, image[None]))
    if single * evaluations <= _SHORT:
        return ""
    rows = min(_CHUNK, num_players)
    masks = np.random.default_rng(0).random((rows, num_players)) < 0.5
    try:
        seconds = evaluations * _seconds_of_each(v if isinstance(v, Sequence) else [v], masks) / rows
    except (MemoryError, FloatingPointError):  # the search itself says what is wrong, and what to do
        return ""
    if seconds <= _SHORT:
        return ""
    return f"{bound} {evaluations:,} evaluations, about {_minutes(seconds)} on this machine"


def _seconds_of_each(games: Sequence[ValueFn], masks: np.ndarray) -> float:
    """The mean time that a game takes for these coalitions; of games of one structure one is timed."""
    alike: dict[Any, list[ValueFn]] = {}
    for game in games:
        alike.setdefault(jax.tree.structure(as_game(game)), []).append(game)
    times = [len(group) * _seconds(lambda game=group[0]: readouts(game, masks).values) for group in alike.values()]
    return sum(times) / len(games)


def _seconds(run: Any) -> float:
    """How long a compiled computation takes, the mean of two after one that compiles."""
    jax.block_until_ready(run())
    times = []
    for _ in range(2):
        started = time.perf_counter()
        jax.block_until_ready(run())
        times.append(time.perf_counter() - started)
    return sum(times) / len(times)


def _minutes(seconds: float) -> str:
    minutes = max(1, math.ceil(seconds / 60))
    return f"{minutes} min" if minutes < 120 else f"{seconds / 3600:.0f} hours"
