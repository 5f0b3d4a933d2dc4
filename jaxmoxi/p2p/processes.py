"""Several processes that train one model: what each of them does, and how they take the same decisions.

Every process runs the same program. It loads its own rows of every batch and holds the whole state; the first process
alone takes the lock, writes the small files and calls back. Whatever decides how the run goes on is therefore agreed
upon: a stop, an error, what a folder holds. An error that one process meets is raised in all of them, by `agreeing`,
because a process that is left alone in a collective waits there until the runtime ends it.

Everything here is a collective: all processes call it, in the same order. With one process nothing is exchanged.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import platform
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Int

from jaxmoxi.errors import InputError, is_lost
from jaxmoxi.files import changed_settings

Tree = TypeVar("Tree")
_GOES_ON, _STOPS, _FAILS = 0, 1, 2
_PATIENCE = 30.0  # seconds that a file may take to be seen on another host


class OtherProcessError(InputError):
    """Another process of the run has failed, or differs from this one."""


@dataclasses.dataclass(frozen=True)
class Team:
    """The processes of a run, as one of them sees them. index: its number. count: how many there are."""

    index: int = 0
    count: int = 1

    @property
    def shard(self) -> tuple[int, int]:
        """This process's part, as a loader names it."""
        return self.index, self.count

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes and prints."""
        return self.index == 0

    def ask(self, code: int) -> Array:
        """int32[], the largest code of all processes. It comes when the devices get there; reading it waits for it."""
        devices = np.array(jax.local_devices())
        rows = NamedSharding(_every_device(), PartitionSpec("devices"))
        mine = np.full(len(devices), code, np.int32)
        return _largest()(jax.make_array_from_process_local_data(rows, mine))

    def largest(self, number: int) -> int:
        """The largest number, an int32, that any process has."""
        return number if self.count == 1 else int(self.ask(number))

    def stops(self, asked: Callable[[], bool]) -> bool:
        """Whether any process is asked to stop."""
        return asked() if self.count == 1 else self.largest(_STOPS if asked() else _GOES_ON) == _STOPS

    def texts(self, text: str) -> list[str]:
        """The text of every process."""
        return [part.tobytes().decode() for part in self._bytes(text.encode())]

    def total(self, numbers: np.ndarray) -> np.ndarray:
        """float64[N], the sums over the processes; exact in the order of the processes, so all have the same bits."""
        parts = [np.frombuffer(part) for part in self._bytes(np.asarray(numbers, np.float64).tobytes())]
        return np.sum(parts, axis=0)

    def said_by_first(self, say: Callable[[], Any]) -> Any:
        """What `say` answers in the first process, something that JSON can hold. Its error is raised in all."""
        said = None
        with self.agreeing():
            said = say() if self.first else None
        return said if self.count == 1 else json.loads(self.texts(json.dumps(said))[0])

    def of_first(self, tree: Tree) -> Tree:
        """The arrays of the first process, on the host; all give trees of the same shapes."""
        return tree if self.count == 1 else multihost_utils.broadcast_one_to_all(jax.device_get(tree))

    def gather(self, rows: np.ndarray) -> np.ndarray:
        """The rows of all processes, one after the other; all give the same shape."""
        return rows if self.count == 1 else multihost_utils.process_allgather(rows, tiled=True)

    @contextlib.contextmanager
    def agreeing(self) -> Iterator[None]:
        """What happens inside succeeds in all processes, or all raise: the one that failed its error, others a text."""
        error: Exception | None = None
        try:
            yield
        except Exception as raised:
            if self.count == 1 or is_lost(raised):  # then there is nobody to tell
                raise
            error = raised
        self.check(error, self.largest(_GOES_ON if error is None else _FAILS))

    def vote(self, error: Exception | None, asked: bool) -> Array | int:
        """Tells the others how this process is before a step. `check` looks at the answer."""
        return self.ask(_FAILS if error is not None else _STOPS if asked else _GOES_ON)

    def check(self, error: Exception | None, answer: int) -> bool:
        """Whether the answer of a vote is to stop. Raises this process's error, or that of another one."""
        if self.count > 1 and answer == _FAILS:
            texts = self.texts("" if error is None else f"{platform.node()}: {type(error).__name__}: {error}")
            if error is not None:
                raise error
            failed = next(i for i, text in enumerate(texts) if text)
            place, _, text = texts[failed].partition(": ")
            raise OtherProcessError(f"process {failed} on {place} has failed: {text.removeprefix('InputError: ')}")
        return answer == _STOPS

    def check_settings(self, settings: dict[str, Any]) -> None:
        """Raises InputError in all processes if the settings of one differ from the first one's; they are named."""
        if self.count == 1:
            return
        said = json.loads(self.texts(json.dumps(settings))[0])
        with self.agreeing():
            if changed := changed_settings(said, json.loads(json.dumps(settings))):
                text = ", ".join(changed).replace("(there ", "(in the first process ").replace(", now ", ", here ")
                raise InputError(f"all processes of a run need the same settings and data; they differ in {text}")

    def check_folder(self, folder: Path) -> None:
        """Raises InputError in all processes if one does not see what the first one writes into the folder."""
        if self.count == 1:
            return
        name = self.said_by_first(lambda: _leave_a_mark(folder))
        with self.agreeing():
            until = time.monotonic() + _PATIENCE
            while not (folder / name).exists():
                if time.monotonic() > until:
                    raise InputError(
                        f"{folder} is not the same folder here as in the first process; expected one that all hosts "
                        "share, such as a network file system"
                    )
                time.sleep(0.2)
                with contextlib.suppress(OSError):  # a network file system keeps what it saw of a folder for a while
                    list(folder.iterdir())
        if self.first:
            (folder / name).unlink(missing_ok=True)

    def _bytes(self, mine: bytes) -> list[np.ndarray]:
        """The bytes of every process, uint8[N] each."""
        if self.count == 1:
            return [np.frombuffer(mine, np.uint8)]
        sizes = multihost_utils.process_allgather(np.int32(len(mine)))
        room = max(256, 1 << int(sizes.max() - 1).bit_length())  # of few sizes, as each one is compiled for
        padded = np.zeros(room, np.uint8)
        padded[: len(mine)] = np.frombuffer(mine, np.uint8)
        parts = multihost_utils.process_allgather(padded)
        return [part[:size] for part, size in zip(parts, sizes, strict=True)]


def team_of(mesh: Mesh | None) -> tuple[Mesh | None, Team]:
    """The mesh of a run, its devices in the order of their processes, and the processes that share it.

    mesh: None is one device of this process, or, under `jax.distributed`, all devices of all processes. A mesh of this
          process's devices makes it train by itself.
    Raises InputError for a mesh that some processes have no part in, or a smaller one.
    """
    count = jax.process_count()
    if count == 1:
        return mesh, Team()
    devices = list(_every_device().devices.flat) if mesh is None else list(mesh.devices.flat)
    owners = sorted({device.process_index for device in devices})
    if owners == [jax.process_index()]:
        return mesh, Team()
    shares = [sum(device.process_index == owner for device in devices) for owner in range(count)]
    if len(set(shares)) > 1:
        raise InputError(
            f"expected a mesh with as many devices of each of the {count} processes; got "
            f"{', '.join(map(str, shares))}: make one of the same number from each"
        )
    devices.sort(key=lambda device: device.process_index)  # stable
    return Mesh(np.array(devices), ("data",)), Team(jax.process_index(), count)


def local_part(mesh: Mesh | None) -> Mesh | None:
    """The mesh of this process's own devices of a mesh."""
    if mesh is None:
        return None
    own = [device for device in mesh.devices.flat if device.process_index == jax.process_index()]
    return mesh if len(own) == mesh.size else Mesh(np.array(own), ("data",)) if len(own) > 1 else None


def is_shared(mesh: Mesh) -> bool:
    """Whether devices of other processes are in the mesh."""
    return any(device.process_index != jax.process_index() for device in mesh.devices.flat)


def _every_device() -> Mesh:
    devices = sorted(jax.devices(), key=lambda device: (device.process_index, device.id))
    return Mesh(np.array(devices), ("devices",))


@functools.cache
def _largest() -> Callable[[Int[Array, "D"]], Int[Array, ""]]:
    """The largest of the codes of all devices, on every device."""
    return jax.jit(jnp.max, out_shardings=NamedSharding(_every_device(), PartitionSpec()))


def _leave_a_mark(folder: Path) -> str:
    """Writes a file that no other run has, and returns its name."""
    name = f".shared-{uuid.uuid4().hex[:12]}"
    (folder / name).touch()
    return name
