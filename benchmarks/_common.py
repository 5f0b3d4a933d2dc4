"""What the benchmarks share: versions, repeated timings, results as JSON."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def environment() -> dict[str, Any]:
    """Where a result comes from: device, cores, versions."""
    import jax

    import jaxmoxi as jm

    device = jax.devices()[0]
    return {
        "device": device.device_kind,
        "devices": jax.device_count(),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "jax": jax.__version__,
        "jaxmoxi": jm.__version__,
        "date": time.strftime("%Y-%m-%d"),
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def seconds(run: Callable[[], Any], *, repeats: int) -> list[float]:
    """Wall-clock seconds of each of `repeats` runs; a run blocks until its result is there."""
    import jax

    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(run())
        times.append(time.perf_counter() - start)
    return times


def summary(times: list[float]) -> dict[str, Any]:
    """Median and spread."""
    return {"median": statistics.median(times), "least": min(times), "most": max(times), "runs": len(times)}


def write(result: dict[str, Any], out: Path | None) -> None:
    """Prints a result as JSON, and writes it."""
    text = json.dumps(result, indent=1)
    print(text)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text + "\n")
