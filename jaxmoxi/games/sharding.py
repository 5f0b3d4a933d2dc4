"""Coalitions spread over the devices of a mesh.

A sharded value function is a value function like any other, so every algorithm runs on many devices unchanged: each
chunk of coalitions is cut into equal parts, each device evaluates its part with the whole model, and only the finished
values are exchanged. There is no collective inside a forward pass.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float

from jaxmoxi.errors import InputError
from jaxmoxi.games.evaluation import is_sized, read
from jaxmoxi.pytrees import Packed, is_concrete, pack, record, static
from jaxmoxi.types import Readout


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

    # What the value function inside may have or not: without it, AttributeError, as `hasattr` expects.

    @property
    def with_payoff(self) -> Callable[..., ShardedValueFn]:
        """The same game under another payoff, spread alike; only where the value function inside has `with_payoff`."""
        inner: Any = self.v.unpack()
        change = inner.with_payoff
        return lambda payoff: ShardedValueFn(v=pack(change(payoff)), mesh=self.mesh, axes=self.axes)

    @property
    def relaxed(self) -> Callable[..., Float[Array, "C"]]:
        """The payoff at gates, of the value function inside; only where it has `relaxed`."""
        inner: Any = self.v.unpack()
        return inner.relaxed

    def replicate(self, tree: Any) -> Any:
        """Arrays that meet this value function in a compiled program, on all devices of the mesh.

        What such a program returns is there; arrays that are elsewhere at first would compile it a second time.
        """
        return jax.device_put(tree, NamedSharding(self.mesh, PartitionSpec()))

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
            raise InputError("the sharded value function cannot tell who leads: it has neither leads nor readout")
        return leads


def shard_coalitions(v: Callable[..., Any], mesh: Mesh, *, axes: str | tuple[str, ...] | None = None) -> ShardedValueFn:
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
    packed = pack(v)
    if is_concrete(packed):
        packed = jax.device_put(packed, NamedSharding(mesh, PartitionSpec()))
    return ShardedValueFn(v=packed, mesh=mesh, axes=axes)


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
