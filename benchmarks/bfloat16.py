"""What does computing in bfloat16 change about the answers?

    python benchmarks/bfloat16.py --model FOLDER --images PHOTOS [--count 8] [--steps 8] [--out FILE.json]

The first `--steps` players of insertion and deletion on photos, searched in float32 and in bfloat16: how many players
both have in common, how long the orders agree, and how good the group found in bfloat16 is by float32's own measure.
"""

from __future__ import annotations

import dataclasses
import statistics
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from _common import environment, write
from PIL import Image

import jaxmoxi as jm


@dataclasses.dataclass
class Args:
    model: Path
    """A checkpoint folder of a vision transformer."""
    images: Path
    """A folder of photos."""
    count: int = 8
    """Photos, the first by name."""
    steps: int = 8
    """Players chosen."""
    out: Path | None = None


def compare(args: Args, model: Any, mesh: Any, path: Path, insertion: bool) -> dict[str, Any]:
    """One photo, one direction."""
    image = model.preprocess(Image.open(path))
    logits = jax.jit(lambda model, images: model.logits(images))
    exact = logits(model, image[None])[0]
    half = model.astype("bfloat16")
    target = int(jnp.argmax(exact))
    players = model.token_grid[0] * model.token_grid[1]
    games = [jm.shard_coalitions(jm.token_value_fn(m, image, target), mesh) for m in (model, half)]
    find = jm.greedy_insertion if insertion else jm.greedy_deletion
    orders = [np.asarray(find(v, players, stop=jm.Stop(size=args.steps)).order)[: args.steps] for v in games]
    masks = np.zeros((3, players), bool)
    for row, order in zip(masks, orders, strict=False):
        row[order] = True
    start, by_float32, by_bfloat16 = (0, 1, 2)
    masks = masks[[2, 0, 1]] if insertion else ~masks[[2, 0, 1]]
    values = np.asarray(jm.evaluate(games[0], jnp.asarray(masks)))
    return {
        "photo": path.name,
        "method": "insertion" if insertion else "deletion",
        "largest logit difference": float(jnp.abs(exact - logits(half, image[None])[0]).max()),
        "players in common": len(set(orders[0]) & set(orders[1])) / args.steps,
        "agreeing prefix": int(np.argmin(np.append(orders[0] == orders[1], False))),
        # How far the payoff was moved, measured in float32, as a share of what the float32 search reached.
        "effect kept": float((values[by_bfloat16] - values[start]) / (values[by_float32] - values[start])),
    }


def main(args: Args) -> int:
    mesh = jm.local_mesh()
    model = jm.models.load(args.model)
    paths = sorted(p for p in args.images.iterdir() if p.suffix in (".png", ".jpg"))[: args.count]
    rows = []
    for path in paths:
        for insertion in (True, False):
            rows.append(compare(args, model, mesh, path, insertion))
            print(rows[-1], file=sys.stderr, flush=True)
    medians = {
        f"{method}, {key}": statistics.median(r[key] for r in rows if r["method"] == method)
        for method in ("insertion", "deletion")
        for key in ("players in common", "agreeing prefix", "effect kept")
    }
    result = {"question": "what bfloat16 changes about the answers", "model": args.model.name, "steps": args.steps}
    write(result | {"environment": environment(), "medians": medians, "rows": rows}, args.out)
    return 0


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Args)))
