"""What does an explanation cost with more players, more images, more devices?

    python benchmarks/scaling.py [--model FOLDER | --size tiny|small|base] [--out FILE.json]

Players: a full insertion order for grids of more and more regions over the same tokens, beside P(P+1)/2.
Images: `greedy_images` on more and more images, against one after the other.
Both on all devices of the process, or all cores of its CPU (`jaxmoxi.local_mesh`).
Devices: `shard_coalitions` over more and more of this machine's devices; on a CPU, simulated ones in new processes,
which share the cores: beyond their number the figure says what sharding costs, not what it gains.
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
import jax.numpy as jnp
import tyro
from _common import environment, seconds, summary, write

import jaxmoxi as jm
from jaxmoxi.cli.bench import SIZES, random_classifier


@dataclasses.dataclass
class Args:
    model: Path | None = None
    """A checkpoint folder of a vision transformer of 14 x 14 patches."""
    size: Literal["tiny", "small", "base"] = "tiny"
    """Without a folder: random weights of this size."""
    sides: tuple[int, ...] = (2, 4, 7, 14)
    """Players: this many regions along each side."""
    images: tuple[int, ...] = (1, 2, 4, 8)
    devices: tuple[int, ...] = (1, 2, 4, 8)
    steps: int = 8
    """Players chosen per image in the last two measurements."""
    repeats: int = 3
    out: Path | None = None
    worker: int | None = None
    """(Internal) measure on this many devices in this process."""


def load(args: Args) -> Any:
    """The classifier."""
    return random_classifier(SIZES[args.size]) if args.model is None else jm.models.load(args.model)


def game(model: Any, side: int, seed: int = 0) -> Any:
    """A random image's value function over `side` x `side` regions."""
    size = model.config.image_size
    image = jax.random.normal(jax.random.key(seed), (size, size, 3))
    own = (side, side) == model.token_grid
    return jm.token_value_fn(model, image, 0, None if own else jm.grid_regions(size, size, rows=side, cols=side))


def by_players(args: Args, model: Any, mesh: Any) -> list[dict[str, Any]]:
    rows = []
    for side in args.sides:
        v, players = jm.shard_coalitions(game(model, side), mesh), side * side
        repeats = args.repeats if players < 100 else 1
        first, *warm = seconds(lambda v=v, p=players: jm.greedy_insertion(v, p).order, repeats=1 + repeats)
        rows.append({"players": players, "evaluations": players * (players + 1) // 2, "first": first, **summary(warm)})
        print(rows[-1], file=sys.stderr, flush=True)
    return rows


def by_images(args: Args, model: Any, mesh: Any) -> list[dict[str, Any]]:
    side = model.token_grid[0]
    stop, players = jm.Stop(size=args.steps), side * side
    rows = []
    for count in args.images:
        vs = [game(model, side, seed) for seed in range(count)]
        spread = [jm.shard_coalitions(v, mesh) for v in vs]
        together = seconds(
            lambda vs=vs: jm.greedy_images(vs, players, stop=stop, mesh=mesh).order, repeats=1 + args.repeats
        )[1:]
        alone = seconds(
            lambda vs=spread: [jm.greedy_insertion(v, players, stop=stop).order for v in vs], repeats=1 + args.repeats
        )[1:]
        rows.append({"images": count, "together": summary(together), "one by one": summary(alone)})
        print(rows[-1], file=sys.stderr, flush=True)
    return rows


def on_devices(args: Args, count: int) -> dict[str, Any]:
    """The same search on `count` devices of this process."""
    model = load(args)
    side = model.token_grid[0]
    mesh = jax.make_mesh((count,), ("coalitions",), devices=jax.devices()[:count])
    v = jm.shard_coalitions(game(model, side), mesh)
    stop = jm.Stop(size=args.steps)
    times = seconds(lambda: jm.greedy_insertion(v, side * side, stop=stop).order, repeats=1 + args.repeats)[1:]
    order = jm.greedy_insertion(v, side * side, stop=stop).order
    return {"devices": count, **summary(times), "order": jnp.asarray(order)[: args.steps].tolist()}


def by_devices(args: Args) -> list[dict[str, Any]]:
    if jax.default_backend() != "cpu":
        return [on_devices(args, n) for n in args.devices if n <= jax.device_count()]
    rows = []
    for count in args.devices:
        command = [sys.executable, __file__, "--worker", str(count), "--steps", str(args.steps), "--size", args.size]
        command += ["--repeats", str(args.repeats), *(["--model", str(args.model)] if args.model else [])]
        flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={count}"
        done = subprocess.run(
            command, check=True, stdout=subprocess.PIPE, text=True, env=os.environ | {"XLA_FLAGS": flags}
        )
        rows.append(json.loads(done.stdout.splitlines()[-1]))
        print(rows[-1], file=sys.stderr, flush=True)
    return rows


def main(args: Args) -> int:
    if args.worker is not None:
        print(json.dumps(on_devices(args, args.worker)))
        return 0
    mesh = jm.local_mesh()
    model = load(args)
    result = {
        "question": "cost against players, images and devices",
        "model": args.size if args.model is None else args.model.name,
        "environment": environment(),
        "players": by_players(args, model, mesh),
        "images": by_images(args, model, mesh),
        "devices": by_devices(args),
    }
    result["same order on all devices"] = len({str(row.pop("order")) for row in result["devices"]}) == 1
    write(result, args.out)
    return 0


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Args)))
