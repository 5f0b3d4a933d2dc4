"""How much memory does an explanation take?

    python benchmarks/memory.py [--model FOLDER | --size tiny|small|base] [--out FILE.json]

A search of `--steps` players for each chunk size, in a process of its own: the peak of the process's memory on a CPU,
of the device's on an accelerator, beside what was there before the search (interpreter, libraries, weights).
"""

from __future__ import annotations

import dataclasses
import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import jax
import tyro
from _common import environment, write
from scaling import game

import jaxmoxi as jm
from jaxmoxi.cli.bench import SIZES, random_classifier


@dataclasses.dataclass
class Args:
    model: Path | None = None
    """A checkpoint folder of a vision transformer of 14 x 14 patches."""
    size: Literal["tiny", "small", "base"] = "tiny"
    """Without a folder: random weights of this size."""
    methods: tuple[Literal["insertion", "deletion", "pairwise"], ...] = ("insertion", "deletion", "pairwise")
    batch_sizes: tuple[int, ...] = (0, 8, 64)
    """0 is the automatic choice."""
    steps: int = 2
    """Players chosen; 0 runs the full order."""
    out: Path | None = None
    worker: str | None = None
    """(Internal) method:batch size."""


def peak() -> int:
    """Bytes at the peak so far."""
    stats = jax.local_devices()[0].memory_stats() or {}
    return stats.get("peak_bytes_in_use") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def work(args: Args, method: str, batch_size: int | None) -> dict[str, Any]:
    mesh = jm.local_mesh()
    model = random_classifier(SIZES[args.size]) if args.model is None else jm.models.load(args.model)
    side, _ = model.token_grid or (0, 0)
    v = jm.shard_coalitions(game(model, side), mesh)
    before = peak()
    if method == "pairwise":
        out = jm.pairwise_interactions(v, side * side, batch_size=batch_size)
    else:
        find = jm.greedy_insertion if method == "insertion" else jm.greedy_deletion
        stop = jm.Stop(size=args.steps) if args.steps else None
        out = find(v, side * side, stop=stop, batch_size=batch_size).order
    jax.block_until_ready(out)
    return {"method": method, "batch_size": batch_size, "before": before, "peak": peak()}


def main(args: Args) -> int:
    if args.worker:
        method, size = args.worker.split(":")
        print(json.dumps(work(args, method, int(size) or None)))
        return 0
    rows = []
    for method in args.methods:
        for size in args.batch_sizes:
            command = [sys.executable, __file__, "--worker", f"{method}:{size}", "--steps", str(args.steps)]
            command += ["--size", args.size, *(["--model", str(args.model)] if args.model else [])]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            rows.append(json.loads(done.stdout.splitlines()[-1]))
            print(rows[-1], file=sys.stderr, flush=True)
    name = args.size if args.model is None else args.model.name
    write({"question": "peak memory in bytes", "model": name, "environment": environment(), "rows": rows}, args.out)
    return 0


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Args)))
