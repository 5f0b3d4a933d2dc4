"""Coalitions spread over the devices of a mesh.

A sharded value function is a value function like any other, so every algorithm runs on many devices unchanged: each
chunk of coalitions is cut into equal parts, each device evaluates its part with the whole model, and only the finished
values are exchanged. There is no collective inside a forward pass.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float

from jaxmoxi.evaluate import is_sized, read
from jaxmoxi.types import Packed, Readout, is_concrete, pack, record, static


@record
class ShardedValueFn:
    """Made by `shard_coalitions`. It answers what the value function inside it answers, in the same words."""

    v: Packed
    mesh: Mesh = static()
    axes: tuple[str, ...] = static()

    @property
    def num_shards(self) -> int:
        """Into how many parts a chunk of coalitions is cut."""
        return math.prod(self.mesh.shape[a] for a in self.axes)

    @property
    def sized(self) -> bool:
        """Whether the value function inside gains from `max_visible`."""
        return is_sized(self.v)

    @property
    def num_players(self) -> int | None:
        """P, where the value function inside knows it."""
        return getattr(self.v.unpack(), "num_players", None)

    def readout(self, masks: Bool[Array, "C P"], *, max_visible: int | None = None) -> Readout:
        """The readout of the value function inside, each device taking its share of the rows."""
        count = len(masks)
        padded = -(-count // self.num_shards) * self.num_shards
        rows = jnp.minimum(jnp.arange(padded), count - 1)  # surplus rows repeat the last coalition

        def part(v: Packed, masks: Any) -> Readout:
            out = read(v, masks, max_visible)
            return jax.tree.map(lambda x: jax.lax.all_gather(x, self.axes, tiled=True), out)

        everywhere, split = PartitionSpec(), PartitionSpec(self.axes)
        spread = jax.shard_map(
            part, mesh=self.mesh, in_specs=(everywhere, split), out_specs=everywhere, check_vma=False
        )
        return jax.tree.map(lambda x: x[:count], spread(self.v, masks[rows]))

    def __call__(self, masks: Bool[Array, "C P"], *, max_visible: int | None = None) -> Float[Array, "C"]:
        """The payoff of each coalition, float32[C]."""
        return self.readout(masks, max_visible=max_visible).values

    def leads(self, masks: Bool[Array, "C P"]) -> Bool[Array, "C"]:
        """Whether the explained class leads, bool[C]. Raises ValueError if the value function inside cannot tell."""
        leads = self.readout(masks).leads
        if leads is None:
            raise ValueError("the sharded value function cannot tell who leads: it has neither leads nor readout")
        return leads


def shard_coalitions(v: Callable[..., Any], mesh: Mesh, *, axes: str | tuple[str, ...] | None = None) -> ShardedValueFn:
    """The same game, its coalitions evaluated on all devices of a mesh.

    v:    a value function; its arrays are copied to every device of the mesh.
    mesh: for one host `jax.make_mesh((jax.device_count(),), ("coalitions",))`.
    axes: the mesh axes to spread over; None means all of them.

    Orders are the same as on one device, values to rounding. `batch_size` counts the rows of all devices together, and
    the automatic one grows with the devices. On a CPU, where XLA runs a forward pass on little more than one core, a
    mesh of one simulated device a core (`XLA_FLAGS=--xla_force_host_platform_device_count=8`) uses them all.

    Raises ValueError for axes that the mesh does not have.
    """
    axes = mesh.axis_names if axes is None else (axes,) if isinstance(axes, str) else tuple(axes)
    unknown = [a for a in axes if a not in mesh.axis_names]
    if unknown or not axes:
        raise ValueError(f"expected axes of the mesh, which has {mesh.axis_names}; got {axes}")
    mesh = automatic(mesh)
    packed = pack(v)
    if is_concrete(packed):
        packed = jax.device_put(packed, NamedSharding(mesh, PartitionSpec()))
    return ShardedValueFn(v=packed, mesh=mesh, axes=axes)


def automatic(mesh: Mesh) -> Mesh:
    """The same mesh without explicit axes: what is sharded here is no part of the types that the caller sees."""
    return Mesh(mesh.devices, mesh.axis_names, axis_types=(AxisType.Auto,) * len(mesh.axis_names))
