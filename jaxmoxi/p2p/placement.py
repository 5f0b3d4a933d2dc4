"""Which device holds what where a mesh shares the batches of training and of prediction.

Each device takes its share of every batch, and the state is the same on all. The step is compiled for the whole batch
and XLA cuts it up, so means over a batch, the statistics of BatchNorm among them, are those of all devices together.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxmoxi.errors import InputError
from jaxmoxi.games.sharding import automatic


class Placement(NamedTuple):
    """Where arrays go: the state everywhere, batches split, the model that is validated on one device.

    settle: waits for a step where the next batch must not be begun beside it. Devices that are cores of one CPU share
            the threads that programs run on: a step that waits in one of them for the other device, while a superpixel
            program holds the other, would wait for ever. There is nothing to gain from both at once, either.
    """

    everywhere: Callable[[Any], Any]
    split: Callable[[Any], Any]
    one: Callable[[Any], Any]
    settle: Callable[[Any], Any]


def placement(mesh: Mesh | None, batch_size: int) -> Placement:
    """Over the devices of a mesh; None leaves all where it is. Raises ValueError for a batch that cannot be shared."""
    if mesh is None:
        return Placement(*[lambda x: x] * 4)
    mesh = spread = automatic(mesh)
    if batch_size % mesh.size:
        raise InputError(
            f"batch_size must be a multiple of the mesh's {mesh.size} devices; got {batch_size}: take "
            f"{max(batch_size // mesh.size, 1) * mesh.size}"
        )
    whole, rows = (NamedSharding(mesh, spec) for spec in (PartitionSpec(), PartitionSpec(mesh.axis_names)))
    return Placement(
        lambda x: jax.device_put(x, whole),
        lambda x: jax.device_put(x, rows),
        lambda x: jax.device_put(x, spread.devices.flat[0]),
        jax.block_until_ready if mesh.devices.flat[0].platform == "cpu" else lambda x: x,
    )
