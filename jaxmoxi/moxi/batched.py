"""The greedy search on several images at once.

One image's steps late in an insertion, or early in a deletion, score few or short coalitions: too little work to fill
an accelerator. Here the searches of many images advance together, one `vmap` over the images around the stage of
`greedy`, and on a mesh each device takes its share of the images and never waits for another.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from jaxmoxi.errors import InputError, NaNValueError
from jaxmoxi.games.base import Game, ValueFn, as_game
from jaxmoxi.games.evaluation import check_batch_size, choose_batch_size, memory_advice
from jaxmoxi.games.sharding import automatic
from jaxmoxi.guards import deliberate
from jaxmoxi.moxi.greedy import GreedyState, finish, greedy_init, last_size, raise_nan, run_stage, stages_of
from jaxmoxi.moxi.overlap import ahead
from jaxmoxi.moxi.stages import Stage
from jaxmoxi.pytrees import Merge, signature, split_games
from jaxmoxi.types import GreedyResult, Stop


@deliberate
def greedy_images(
    vs: Sequence[ValueFn],
    num_players: int,
    *,
    insertion: bool = True,
    stop: Stop | None = None,
    batch_size: int | None = None,
    mesh: Mesh | None = None,
) -> GreedyResult:
    """`greedy_insertion` (or `greedy_deletion`) of B images together: a `GreedyResult` whose arrays lead with [B].

    vs:          B value functions of one structure and the same shapes, as one model and one function make them for
                 B images. Arrays that all of them share (the same objects: the model's weights) are not copied.
    num_players: P, of each image.
    insertion:   False deletes.
    stop:        per image; an image that is done waits for the slowest of its batch, and a stage that none of them
                 reaches is neither compiled nor run.
    batch_size:  coalitions per chunk and image; None divides what fits the memory among the images.
    mesh:        None runs on one device. Otherwise the images are spread over all its axes.

    Orders are those of the single searches, values theirs to rounding.
    Raises ValueError for value functions that differ in structure, NaNValueError that names the image.
    """
    games = [as_game(v) for v in vs]
    if not games:
        raise InputError("expected at least one value function; got none")
    check_alike(games)
    check_batch_size(batch_size)
    stop = stop or Stop()
    single = greedy_init(games[0], num_players, insertion=insertion)
    stop.check(single.start)
    limits, last = stop.as_arrays(), last_size(stop, num_players)
    mesh = None if mesh is None else automatic(mesh)
    devices = 1 if mesh is None else mesh.size
    count, padded = len(games), -(-len(games) // devices) * devices
    games += games[-1:] * (padded - count)  # every device has as many images: the last one is repeated
    shared, own, merge = split_games(games)
    states = jax.tree.map(lambda x: jnp.broadcast_to(x, (padded, *x.shape)), single)
    stages = stages_of(games[0], num_players, insertion, last)

    def prepare(stage: Stage) -> None:
        _run_images(shared, own, merge, states, limits, jnp.int32(-1), batch_size, stage, mesh)

    with ahead(stages, prepare) as reach:
        for i, stage in enumerate(stages):
            with memory_advice(games[0], num_players, stage.max_visible, batch_size):
                reach(i)
                goal = jnp.int32(min(stage.steps, last))
                states, met = _run_images(shared, own, merge, states, limits, goal, batch_size, stage, mesh)
                _raise_nan(states, count)
            if bool(np.all(met)):
                break
    return jax.tree.map(lambda x: x[:count], finish(states))


@partial(jax.jit, static_argnums=(2, 6, 7, 8))
def _run_images(
    shared: list[Any],
    own: list[Any],
    merge: Merge,
    states: Any,
    limits: Stop,
    goal: Any,
    batch_size: int | None,
    stage: Stage,
    mesh: Mesh | None,
) -> Any:
    images = states.step.shape[0] // (1 if mesh is None else mesh.size)

    def one(shared: Any, own: Any, state: Any, limits: Stop, goal: Any) -> Any:
        v = merge(shared, own)
        fits = choose_batch_size(v, state.order.shape[0], max_visible=stage.max_visible)
        size = batch_size or max(1, fits // images)
        return run_stage(v, state, limits, goal, size, stage)

    every = jax.vmap(one, in_axes=(None, 0, 0, None, None))
    if mesh is not None:
        split, everywhere = PartitionSpec(mesh.axis_names), PartitionSpec()
        every = jax.shard_map(
            every, mesh=mesh, in_specs=(everywhere, split, split, everywhere, everywhere), out_specs=split,
            check_vma=False,
        )  # fmt: skip
    return every(shared, own, states, limits, goal)


def check_alike(games: list[Game]) -> None:
    """Raises InputError for games that differ in structure or shapes."""
    first = signature(games[0])
    for i, v in enumerate(games):
        if signature(v) != first:
            raise InputError(
                f"expected value functions of one structure and the same shapes; number {i} differs from number 0: "
                "make all of them with one model, one payoff, images of one size and as many players"
            )


def _raise_nan(states: GreedyState, count: int) -> None:
    players, starts, steps = (np.asarray(x)[:count] for x in (states.nan_player, states.start.values, states.step))
    broken = (players >= 0) | ((steps == 0) & np.isnan(starts))
    if broken.any():
        i = int(np.argmax(broken))
        try:
            raise_nan(jax.tree.map(lambda x: x[i], states), whose=f"the value function of image {i}")
        except NaNValueError as error:
            error.result = finish(states)  # of all images: nothing computed is lost
            raise
