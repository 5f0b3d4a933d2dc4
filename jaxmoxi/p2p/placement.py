"""Which device holds what when a mesh shares the batches of training and of prediction.

Each device takes its share of every batch, and all devices hold the same state. The step is compiled for the whole
batch and XLA divides it, so means over a batch, such as the statistics of BatchNorm, span all devices. The mesh may
span several processes (`processes.team_of`): each then has its own rows of a batch, and nobody has all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxmoxi.errors import InputError
from jaxmoxi.games.sharding import automatic
from jaxmoxi.p2p.processes import Team, is_shared


class Placement(NamedTuple):
    """Where arrays go.

    everywhere: copies arrays to every device: the state. Of several processes, that of the first counts.
    split:      divides the first axis of arrays among the devices: a batch. Of several processes, each gives its rows.
    one:        moves arrays to the first device of this process: the model that is validated.
    settle:     waits for the step before the next batch is prepared, on CPU devices. These share threads, so a
                collective and a superpixel program at once can deadlock. The two would not be faster together, either.
    num_devices: that share a batch.
    """

    everywhere: Callable[[Any], Any]
    split: Callable[[Any], Any]
    one: Callable[[Any], Any]
    settle: Callable[[Any], Any]
    num_devices: int = 1


def placement(mesh: Mesh | None, batch_size: int) -> Placement:
    """The placement over the devices of a mesh; with None, arrays stay where they are.

    Raises ValueError for a batch size that is no multiple of the number of devices.
    """
    if mesh is None:
        return Placement(_stay, _stay, _stay, _stay)
    mesh = spread = automatic(mesh)
    if batch_size % mesh.size:
        whose = f"{mesh.size} devices of all processes" if is_shared(mesh) else f"mesh's {mesh.size} devices"
        raise InputError(
            f"batch_size must be a multiple of the {whose}; got {batch_size}: take "
            f"{max(batch_size // mesh.size, 1) * mesh.size}"
        )
    whole, rows = (NamedSharding(mesh, spec) for spec in (PartitionSpec(), PartitionSpec(mesh.axis_names)))
    settle: Callable[[Any], Any] = jax.block_until_ready if mesh.devices.flat[0].platform == "cpu" else _stay
    if is_shared(mesh):
        team = Team(jax.process_index(), jax.process_count())
        return Placement(
            lambda x: jax.make_array_from_process_local_data(whole, team.of_first(x)),
            lambda x: jax.make_array_from_process_local_data(rows, x),
            lambda x: jax.tree.map(lambda array: array.addressable_data(0), x),
            settle,
            mesh.size,
        )
    return Placement(
        lambda x: jax.device_put(x, whole),
        lambda x: jax.device_put(x, rows),
        lambda x: jax.device_put(x, spread.devices.flat[0]),
        settle,
        mesh.size,
    )


def _stay(x: Any) -> Any:
    return x
