"""Seconds, bytes, and what is done where the memory is too small."""

from __future__ import annotations

import gc
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

_SAMPLED_EVERY = 0.005  # seconds between two looks at the memory


class Compilations:
    """Seconds that XLA has compiled for in this process, and how many programs; counted by JAX itself."""

    def __init__(self) -> None:
        self.seconds, self.programs, self.large = 0.0, 0, 0
        jax.monitoring.register_event_duration_secs_listener(self._hear)

    def _hear(self, event: str, duration_secs: float, **more: str | int) -> None:
        if event.endswith("backend_compile_duration"):
            self.seconds += duration_secs
            self.programs += 1
            self.large += duration_secs > 0.3  # seconds: a network, not one operation


def seconds(run: Callable[[], Any], *, repeats: int, most: float, warm: bool = False) -> list[float]:
    """Wall-clock seconds of each run, each waited for; the first that is timed comes after one that is not.

    most: seconds after which no further run begins. One run is timed whatever it takes.
    warm: it has run before.
    """
    if not warm:
        jax.block_until_ready(run())
    times: list[float] = []
    while len(times) < repeats and (not times or sum(times) + times[-1] < most):
        start = time.perf_counter()
        jax.block_until_ready(run())
        times.append(time.perf_counter() - start)
    return times


def temporary_bytes(compiled: Any) -> dict[str, Any]:
    """What a compiled program needs beside its inputs and outputs, where the backend tells."""
    try:
        return {"temporary_bytes": int(compiled.memory_analysis().temp_size_in_bytes)}
    except Exception:  # backends differ in what they tell and in how they refuse; a figure less is no failure
        return {}


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error tells that the device's memory was too small."""
    text = f"{type(error).__name__}: {error}"
    return "RESOURCE_EXHAUSTED" in text or "out of memory" in text.lower() or isinstance(error, MemoryError)


def halving(count: int, run: Callable[[int], dict[str, Any]]) -> dict[str, Any]:
    """The row of `run(count)`. Where the memory is too small, that of half as many, and so on; the row says so."""
    asked = count
    while True:
        try:
            row = run(count)
        except Exception as error:
            if count == 1 or not is_out_of_memory(error):
                raise
        else:
            return row if count == asked else row | {"out of memory, so halved": f"from {asked} to {count}"}
        gc.collect()  # the error has let go of what the attempt had on the device
        count //= 2


def _device_memory() -> dict[str, Any]:
    """What the first device's allocator tells; nothing where the backend has no answer, as a CPU has none."""
    try:
        return jax.local_devices()[0].memory_stats() or {}
    except Exception:  # backends differ in how they refuse; a figure less is no failure
        return {}


def _bytes_in_use() -> int | None:
    """Of the first device; of this process where the device is the CPU; None where nobody tells."""
    stats, status = _device_memory(), Path("/proc/self/statm")
    if "bytes_in_use" in stats:
        return int(stats["bytes_in_use"])
    return int(status.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if status.exists() else None


def _allocator_peak() -> int | None:
    """The most bytes that the device's allocator has given out since the process began; None where it does not say."""
    stats = _device_memory()
    return int(stats["peak_bytes_in_use"]) if "peak_bytes_in_use" in stats else None


class PeakMemory:
    """The most bytes in use while a `with` block runs, of the first device, or of this process on a CPU.

    The allocator's own peak is of the whole process and cannot be reset. It is the block's where the block raised it;
    otherwise the peak is the largest of samples, which short moments escape. What JAX has reserved ahead and not given
    out does not count.
    """

    def __enter__(self) -> PeakMemory:
        self._before, self._most, self._done = _allocator_peak(), _bytes_in_use() or 0, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error: Any) -> None:
        self._done.set()
        self._thread.join()
        self._after = _allocator_peak()

    def _watch(self) -> None:
        while not self._done.wait(_SAMPLED_EVERY):
            self._most = max(self._most, _bytes_in_use() or 0)

    def record(self) -> dict[str, Any]:
        """`peak_bytes`, and where the number is from: "allocator", "samples" (at least that), or "process"."""
        if self._after is None:
            return {"peak_bytes": self._most or None, "peak_from": "process"}
        if self._before is None or self._after > self._before:
            return {"peak_bytes": self._after, "peak_from": "allocator"}
        return {"peak_bytes": self._most, "peak_from": "samples"}
