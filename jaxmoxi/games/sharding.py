"""Coalitions spread over the devices of a mesh.

A sharded value function is a value function like any other, so every algorithm runs on many devices unchanged: each
chunk of coalitions is cut into equal parts, each device evaluates its part with the whole model, and only the finished
values are exchanged. There is no collective inside a forward pass.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float, Shaped

from jaxmoxi.compiling import compiled
from jaxmoxi.errors import InputError
from jaxmoxi.games.base import Game, GameWrapper, Tree, ValueFn, as_game
from jaxmoxi.pytrees import is_concrete, record, static
from jaxmoxi.types import Readout


@record
class ShardedValueFn(GameWrapper):
    """Made by `shard_coalitions`. It answers whatever the game inside answers, its rows spread over the devices.

    Only `relaxed`, a gradient's single row, is answered by the game inside alone.
    """

    v: Game
    mesh: Mesh = static()
    axes: tuple[str, ...] = static()

    @property
    def num_shards(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Into how many parts a chunk of coalitions is cut."""
        return math.prod(self.mesh.shape[a] for a in self.axes)

    def around(self, game: Game) -> ShardedValueFn:
        """Another game, spread alike."""
        return dataclasses.replace(self, v=game)

    def spread(self, game: Game) -> Game:
        """Another game over the same devices."""
        return shard_coalitions(game, self.mesh, axes=self.axes)

    def replicate(self, tree: Tree) -> Tree:
        """Arrays that meet this game in a compiled program, on all devices of the mesh.

        What such a program returns is there; arrays that are elsewhere at first would compile it a second time.
        """
        return jax.device_put(tree, NamedSharding(self.mesh, PartitionSpec()))

    @compiled
    def readout(self, masks: Bool[Array, "C P"], *, max_visible: int | None = None) -> Readout:
        """The readout of the game inside, each device taking its share of the rows."""
        return self._spread(lambda game, rows: game.readout(rows, max_visible=max_visible), masks)

    @compiled
    def logits(self, masks: Bool[Array, "C P"], *, max_visible: int | None = None) -> Float[Array, "C K"]:
        """The logits of the game inside, spread likewise."""
        return self._spread(lambda game, rows: game.logits(rows, max_visible=max_visible), masks)

    @compiled
    def blended(self, shares: Float[Array, "C H W"]) -> Readout:
        """The readout of blended images of the game inside, spread likewise."""
        return self._spread(lambda game, rows: game.blended(rows), shares)

    def _spread(self, ask: Callable[[Game, Array], Any], rows: Shaped[Array, "C ..."]) -> Any:
        """What the game inside answers about rows, each device asking about its share of them."""
        count = len(rows)
        padded = -(-count // self.num_shards) * self.num_shards
        repeated = jnp.minimum(jnp.arange(padded), count - 1)  # surplus rows repeat the last one

        def part(game: Game, rows: Array) -> Any:
            return jax.tree.map(lambda x: jax.lax.all_gather(x, self.axes, tiled=True), ask(game, rows))

        everywhere, split = PartitionSpec(), PartitionSpec(self.axes)
        spread = jax.shard_map(
            part, mesh=self.mesh, in_specs=(everywhere, split), out_specs=everywhere, check_vma=False
        )
        return jax.tree.map(lambda x: x[:count], spread(self.v, rows[repeated]))


def shard_coalitions(v: ValueFn, mesh: Mesh, *, axes: str | tuple[str, ...] | None = None) -> ShardedValueFn:
    """The same game, its coalitions evaluated on all devices of a mesh.

    v:    a value function; its arrays are copied to every device of the mesh.
    mesh: for one host `jax.make_mesh((jax.device_count(),), ("coalitions",))`.
    axes: the mesh axes to spread over; None means all of them.

    Orders are the same as on one device, values to rounding. `batch_size` counts the rows of all devices together, and
    the automatic one grows with the devices. On a CPU the mesh of `local_mesh` is the fastest.

    Raises ValueError for axes that the mesh does not have.
    """
    axes = mesh.axis_names if axes is None else (axes,) if isinstance(axes, str) else tuple(axes)
    unknown = [a for a in axes if a not in mesh.axis_names]
    if unknown or not axes:
        raise InputError(f"expected axes of the mesh, which has {mesh.axis_names}; got {axes}")
    mesh = automatic(mesh)
    game = as_game(v)
    if is_concrete(game):
        game = jax.device_put(game, NamedSharding(mesh, PartitionSpec()))
    return ShardedValueFn(v=game, mesh=mesh, axes=axes)


def local_mesh(*, num_cores: int | None = None) -> Mesh:
    """A mesh, of one axis "devices", of all that this process computes on: its accelerators, or the cores of its CPU.

    On a CPU it makes every core a device that runs on one thread, and so is to be called first, before JAX computes
    anything. Cores that share every matrix product wait for one another some hundred times in a forward pass; cores
    that each have coalitions of their own do not (DeiT-Tiny, 197 tokens, two cores: 79 forwards/s against 62). It sets
    `jax_num_cpu_devices` and adds `--xla_cpu_multi_thread_eigen=false` to XLA_FLAGS, for the whole process: what is not
    spread over the mesh then runs on one core. Simulated devices that XLA_FLAGS asks for already are left as they are.

    num_cores: of a CPU; None means all that this process may use.

    Raises RuntimeError if JAX has started already with another number of devices; ValueError for `num_cores` below 1.
    """
    cores = _num_cores() if num_cores is None else num_cores
    if cores < 1:
        raise InputError(f"num_cores must be at least 1; got {cores}")
    flags = os.environ.get("XLA_FLAGS", "")
    if "xla_force_host_platform_device_count" not in flags:
        try:
            jax.config.update("jax_num_cpu_devices", cores)
        except RuntimeError:  # JAX has started
            if jax.default_backend() == "cpu" and jax.local_device_count() != cores:
                raise RuntimeError(
                    f"JAX has started already, with {jax.local_device_count()} CPU device(s) where {cores} are asked "
                    "for; call local_mesh before anything is computed"
                ) from None
        else:
            if "xla_cpu_multi_thread_eigen" not in flags:
                os.environ["XLA_FLAGS"] = f"{flags} --xla_cpu_multi_thread_eigen=false".strip()
    return Mesh(np.array(jax.local_devices()), ("devices",), axis_types=(AxisType.Auto,))


def _num_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def automatic(mesh: Mesh) -> Mesh:
    """The same mesh without explicit axes: what is sharded here is no part of the types that the caller sees."""
    return Mesh(mesh.devices, mesh.axis_names, axis_types=(AxisType.Auto,) * len(mesh.axis_names))
