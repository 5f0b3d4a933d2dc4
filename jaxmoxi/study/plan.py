"""What a study will do, counted in evaluations of the model before it is done: the steps of a photo, and their time."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import jax
import numpy as np

from jaxmoxi.attribution import METHODS, Effort
from jaxmoxi.games.base import Game
from jaxmoxi.games.evaluation import read_rows
from jaxmoxi.metrics import METRICS
from jaxmoxi.metrics.registry import DIRECTIONS
from jaxmoxi.moxi.stages import choose_chunk
from jaxmoxi.study.config import StudyConfig


class Step(NamedTuple):
    """One part of the work on a photo.

    name:        of the method and the direction of its order, or of the metric.
    evaluations: of the model, about; 0 where next to none are known of.
    """

    name: str
    evaluations: int


Watch = Callable[[Step], AbstractContextManager[None]]
"""What follows the work on a photo: each step is done inside `with watch(step)`. It may end the work by an error."""


def unwatched(step: Step) -> AbstractContextManager[None]:
    """Follows nothing."""
    del step
    return nullcontext()


def method_step(name: str, effort: Effort, direction: str) -> Step:
    """The step in which a method explains a photo, in one direction ("insertion", "deletion")."""
    method = METHODS[name]
    return Step(f"{name}, {direction}" if method.directed else name, 0 if method.cost is None else method.cost(effort))


def metric_step(name: str, methods: int, sizes: int, removals: int) -> Step:
    """The step in which a metric measures the explanations of a photo."""
    metric = METRICS[name]
    return Step(name, 0 if metric.cost is None else metric.cost(methods, sizes, removals))


def evaluations_of_a_photo(
    config: StudyConfig, methods: tuple[str, ...], metrics: tuple[str, ...], removals: int, num_players: int
) -> int:
    """About how many evaluations one photo takes."""
    effort = config.effort(num_players)
    steps = [
        method_step(name, effort, direction)
        for name in methods
        for direction in DIRECTIONS[: 1 + METHODS[name].directed]
    ]
    sizes = len(config.curve_sizes(num_players))
    steps += [metric_step(name, len(methods), sizes, removals) for name in metrics]
    return sum(step.evaluations for step in steps)


def evaluations_per_second(game: Game, config: StudyConfig, num_players: int, batch_size: int | None) -> float:
    """How fast the model evaluates coalitions, by a chunk of them that is timed after compilation."""
    # The chunk in which MoXI ranks what it has not chosen: where it does, this compiles nothing that is not used.
    rest = num_players - min(config.steps or 0, num_players - 1)
    size = choose_chunk(game, num_players, range(1, rest + 1), batch_size, None)
    masks = np.random.default_rng(0).random((size, num_players)) < 0.5
    run = lambda: jax.block_until_ready(read_rows(game, masks, size=size, max_visible=None))  # noqa: E731
    run()
    started, rounds = time.perf_counter(), 0
    while rounds < 8 and time.perf_counter() - started < 0.5:
        run()
        rounds += 1
    return rounds * size / (time.perf_counter() - started)
