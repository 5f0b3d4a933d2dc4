"""The machine that programs are planned for: how large a chunk may be, and how fine the stages.

It is the machine at hand, unless `planned_for` names another, for which programs are compiled ahead of time.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import NamedTuple

import jax


class Hardware(NamedTuple):
    """A machine. `platform`: "cpu", "gpu" or "tpu"; `free_bytes`: the memory a device has left, None where unknown."""

    platform: str
    free_bytes: int | None = None


_planned: ContextVar[Hardware | None] = ContextVar("planned", default=None)


def hardware() -> Hardware:
    """What programs are planned for."""
    planned = _planned.get()
    if planned is not None:
        return planned
    stats = jax.local_devices()[0].memory_stats() or {}
    limit = stats.get("bytes_limit")
    return Hardware(jax.default_backend(), None if limit is None else limit - stats.get("bytes_in_use", 0))


def platform() -> str:
    """The platform that programs are planned for: "cpu", "gpu", "tpu"."""
    planned = _planned.get()
    return jax.default_backend() if planned is None else planned.platform


@contextlib.contextmanager
def planned_for(machine: Hardware) -> Iterator[None]:
    """Plans programs for another machine than the one at hand, for as long as the `with` lasts.

    For compiling ahead of time, in a process that runs nothing: functions that are already traced keep their plans.
    """
    before = _planned.set(machine)
    try:
        yield
    finally:
        _planned.reset(before)
