"""The smallest groups of several images at once.

A question of one search is often smaller than a chunk, and the last part of a search asks many such questions. Here the
searches of many images advance together, in one compiled loop, and share their chunks (`device.reading`).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from jaxmoxi.errors import InputError, warn
from jaxmoxi.games.base import ValueFn, as_game
from jaxmoxi.games.evaluation import check_batch_size, memory_advice
from jaxmoxi.games.sharding import automatic
from jaxmoxi.guards import deliberate, held
from jaxmoxi.moxi.batched import check_alike
from jaxmoxi.pytrees import Merge, is_concrete, split_games
from jaxmoxi.search.device.doors import capacity, raise_nan
from jaxmoxi.search.device.engine import Ended, Given, Plan, run_searches
from jaxmoxi.search.device.found import group_machine, group_result
from jaxmoxi.search.device.reading import Games
from jaxmoxi.search.oracle import GroupResult, goal_of
from jaxmoxi.search.shared import check_budget
from jaxmoxi.types import Stop


@deliberate
def minimal_groups(
    vs: Sequence[ValueFn],
    num_players: int,
    *,
    insertion: bool = True,
    stop: Stop | None = None,
    probability: float | None = None,
    value: float | None = None,
    budget: int | None = None,
    batch_size: int | None = None,
    mesh: Mesh | None = None,
) -> GroupResult:
    """`minimal_group` of B images together: a `GroupResult` whose arrays lead with [B].

    vs:          B value functions of one structure and the same shapes, as one model and one function make them for
                 B images. Arrays that all of them share (the same objects: the model's weights) are not copied.
    num_players: P, of each image.
    insertion, stop, probability, value: as for `minimal_group`, the goal of every image.
    budget:      evaluations of each image.
    batch_size:  coalitions a chunk, of all images together; None chooses.
    mesh:        None runs on one device. Otherwise the images are spread over all its axes.

    One compiled loop, on every backend; the images share its chunks, so that one which is done costs nothing more.
    Groups are those of the single searches, and do not depend on the other images, but for values so near to one
    another, or to the goal, that the rounding of another chunk decides.
    An image in which no group reaches the goal does not end the others' searches: a warning names it, its `enough` is
    False and its group everybody.

    Raises ValueError for value functions that differ in structure and as `minimal_group`; NaNValueError that names the
    image and the group, and whose `result` holds those of all images.
    """
    games = [as_game(v) for v in vs]
    if not games:
        raise InputError("expected at least one value function; got none")
    check_alike(games)
    check_batch_size(batch_size)
    limit = check_budget(budget, num_players)
    game, goal = goal_of(games[0], num_players, stop, probability=probability, value=value)
    machine, reader = group_machine(game, goal, num_players, insertion, eliminate=False)
    plan = Plan(machine, reader, batch_size, capacity(limit, machine.num_players))
    mesh = None if mesh is None else automatic(mesh)
    devices = 1 if mesh is None else mesh.size
    count, padded = len(games), -(-len(games) // devices) * devices
    games += games[-1:] * (padded - count)  # every device has as many images: the last one is repeated
    levels = goal.as_arrays()
    shared, own, merge = split_games([(g, levels) for g in games])
    given = Given(jnp.full(padded, min(limit, 2**31 - 1), jnp.int32))
    with memory_advice(game, machine.num_players, None, batch_size):
        ended = _search_together(plan, merge, padded, mesh, shared, own, given)
        ended = jax.tree.map(lambda x: x[:count], ended)
        result = group_result(ended)
        if is_concrete(result):
            _look(jax.block_until_ready(ended), result, insertion)
    return result


@partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _search_together(
    plan: Plan, merge: Merge, count: int, mesh: Mesh | None, shared: list[Any], own: list[Any], given: Given
) -> Ended:
    is_shared, treedef = merge.key
    is_own = tuple(not s for s in is_shared)

    def run(shared: list[Any], own: list[Any], given: Given) -> Ended:
        every, mine = iter(shared), iter(own)
        leaves = [next(mine if o else every) for o in is_own]
        here = count // (1 if mesh is None else mesh.size)
        return run_searches(plan, Games(leaves, is_own, treedef, here), given)

    if mesh is not None:
        split, everywhere = PartitionSpec(mesh.axis_names), PartitionSpec()
        run = jax.shard_map(
            run, mesh=mesh, in_specs=(everywhere, split, split), out_specs=split, check_vma=False
        )  # fmt: skip
    ended = run(jax.tree.map(jax.lax.stop_gradient, shared), jax.tree.map(jax.lax.stop_gradient, own), given)
    return ended._replace(outcome=held(ended.outcome, (shared, own)))


def _look(ended: Ended, result: GroupResult, insertion: bool) -> None:
    """Raises for the first image with a NaN; warns of those in which no group reaches the goal."""
    broken = np.asarray(ended.broken)
    for i in np.flatnonzero(broken):
        one = jax.tree.map(lambda x, i=i: x[i], ended)
        raise_nan(one, insertion, whose=f"the value function of image {i}", result=result)
    missed = np.flatnonzero(~np.asarray(result.enough)).tolist()
    if missed:
        warn(
            f"no group reaches the goal in {'image' if len(missed) == 1 else 'images'} "
            f"{', '.join(map(str, missed))} of {len(broken)}, counted from 0: their `enough` is False. Is this the "
            "class that the model predicts?"
        )
