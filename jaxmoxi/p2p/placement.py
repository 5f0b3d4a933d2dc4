"""Which device holds what when a mesh shares the batches of training and of prediction.

Each device takes its share of every batch, and all devices hold the same state. The step is compiled for the whole
batch and XLA divides it, so means over a batch, such as the statistics of BatchNorm, span all devices.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxmoxi.errors import InputError
from jaxmoxi.games.sharding import automatic


class Placement(NamedTuple):
    """Where arrays go.

    everywhere: copies arrays to every device: the state.
    split:      divides the first axis of arrays among the devices: a batch.
    one:        moves arrays to the first device: the model that is validated.
    settle:     waits for the step before the next batch is prepared, on CPU devices. These share threads, so a
                collective and a superpixel program at once can deadlock. The two would not be faster together, either.
    """

    everywhere: Callable[[Any], Any]
    split: Callable[[Any], Any]
    one: Callable[[Any], Any]
    settle: Callable[[Any], Any]


def placement(mesh: Mesh | None, batch_size: int) -> Placement:
    """The placement over the devices of a mesh; with None, arrays stay where they are.

    Raises ValueError for a batch size that is no multiple of the number of devices.
    """
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
