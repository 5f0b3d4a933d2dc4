"""How many images a second does each method of a study explain?

    python benchmarks/study.py [--model FOLDER | --size tiny|small|base] [--out FILE.json]

It measures every method of `jaxmoxi.attribution.METHODS` that applies, with 600 evaluations for each that samples and
MoXI one by one for 12 players, on images of noise, after compilation; MoXI and MoXI(-) in both directions. It does so
on more and more devices: those that an accelerator has, or simulated devices of a CPU in new processes. Simulated
devices share the cores, so beyond the number of cores the figure says what sharding costs, not what it gains. The games
of the perturbation methods are spread over the devices; gradients and attention run on one.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import jax
import tyro
from _common import environment, seconds, summary, write

import jaxmoxi as jm
from jaxmoxi.attribution import METHODS
from jaxmoxi.cli.bench import SIZES, random_classifier
from jaxmoxi.study import StudyConfig


@dataclasses.dataclass
class Args:
    model: Path | None = None
    """A checkpoint folder."""
    size: Literal["tiny", "small", "base"] = "tiny"
    """Without a folder: a vision transformer with random weights of this size."""
    side: int = 7
    """Players along each side."""
    methods: tuple[str, ...] = tuple(METHODS)
    devices: tuple[int, ...] = (1, 8)
    repeats: int = 3
    out: Path | None = None
    worker: int | None = None
    """(Internal) measure on this many devices in this process."""


def rows(args: Args) -> list[dict[str, Any]]:
    """Seconds an image of each method, on the devices of this process."""
    model = random_classifier(SIZES[args.size]) if args.model is None else jm.models.load(args.model)
    height, width = model.preprocessing.size
    regions, players = jm.grid_regions(height, width, rows=args.side, cols=args.side), args.side**2
    config = StudyConfig(steps=12, samples=600)
    count = args.worker or 1
    mesh = jax.make_mesh((count,), ("devices",), devices=jax.devices()[:count])

    def problem(seed: int) -> Any:
        image = jax.random.normal(jax.random.key(seed), (height, width, 3))
        own = (args.side, args.side) == model.token_grid
        if model.token_grid is None:
            v: Any = jm.pixel_value_fn(model.logits, image, 0, regions)
        else:
            v = jm.token_value_fn(model, image, 0, None if own else regions)
        return jm.attribution.problem(model, image, 0, regions, v=jm.shard_coalitions(v, mesh))

    found, key = [], jax.random.key(0)
    effort = config.effort(players)
    for name in args.methods:
        method = METHODS[name]
        try:
            method.applies(problem(0))
        except ValueError:
            continue
        for direction in ("insertion", "deletion")[: 1 + method.directed]:
            options = method.keywords(effort, insertion=direction == "insertion")
            images = iter([problem(seed) for seed in range(1 + args.repeats)])
            first, *warm = seconds(
                lambda m=method, o=options, i=images: m.explain(key, next(i), **o), repeats=1 + args.repeats
            )
            row = {"method": name, "direction": direction if method.directed else "", "devices": count}
            found.append(row | {"first": first, **summary(warm), "images a second": 1 / summary(warm)["median"]})
            print(found[-1], file=sys.stderr, flush=True)
    return found


def devices() -> tuple[str, int]:
    """(backend, number of devices), asked in a process of its own: this one must not hold the accelerator."""
    ask = "import jax; print(jax.default_backend(), jax.device_count())"
    run = subprocess.run([sys.executable, "-c", ask], stdout=subprocess.PIPE, text=True, check=True)
    backend, count = run.stdout.split()
    return backend, int(count)


def on_devices(args: Args, count: int, backend: str) -> list[dict[str, Any]]:
    """`rows` in a process that has so many devices."""
    words = ["--size", args.size, "--side", args.side, "--repeats", args.repeats, "--worker", count]
    words += ["--methods", *args.methods] + ([] if args.model is None else ["--model", args.model])
    env = dict(os.environ)
    if backend == "cpu":
        env["XLA_FLAGS"] = f"{env.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={count}"
    run = subprocess.run(
        [sys.executable, __file__, *map(str, words)], env=env, stdout=subprocess.PIPE, text=True, check=True
    )
    return json.loads(run.stdout)


def main(args: Args) -> None:
    if args.worker is not None:
        print(json.dumps(rows(args)))
        return
    backend, most = devices()
    counts = [n for n in args.devices if backend == "cpu" or n <= most]
    measured = [row for count in counts for row in on_devices(args, count, backend)]
    write(
        {
            "question": "images a second that each method explains",
            "model": str(args.model.name if args.model else args.size),
            "players": args.side**2,
            "environment": environment(),
            "rows": measured,
        },
        args.out,
    )


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
