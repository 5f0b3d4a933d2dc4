"""How fast is a PyTorch module inside an explanation: traced by torchax, called back on the host, or as a network here?

    python benchmarks/torch_modules.py [--models resnet18 ...] [--repeats 3] [--out FILE.json]

Networks of timm with random weights (needs timm, PyTorch and torchax: `pip install 'jaxmoxi[torch]' timm`). Each is
measured in one coalition evaluation (`jm.evaluate`, all chunks of one size) and in a greedy search over a small grid
(`jm.greedy_insertion`, whose chunks are smaller and run in a compiled loop). PyTorch itself does the evaluation, with
the same masks in batches of the same size. The native network takes part where `jm.models.load` reads the folder that
timm saves. All sides take turns. Compiling is the first call less a later one.
"""

# pyright: reportMissingImports=false
from __future__ import annotations

import dataclasses
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import timm
import torch
import torchax
import tyro
from _common import environment, seconds, summary, write
from timm.models._hub import save_for_hf

import jaxmoxi as jm
from jaxmoxi.errors import InputError


@dataclasses.dataclass
class Args:
    models: tuple[str, ...] = ("resnet18", "convnext_tiny", "swin_tiny_patch4_window7_224", "vit_tiny_patch16_224")
    """Names of timm's."""
    coalitions: int = 32
    side: int = 3
    """The search's players are a grid of this many rows and columns."""
    batch: int = 8
    repeats: int = 3
    limit: float = 480.0
    """No further network is begun after this time."""
    out: Path | None = None


def native(module: torch.nn.Module) -> Callable[..., Any] | str:
    """The same network of this package's own; or why there is none."""
    with tempfile.TemporaryDirectory() as folder:
        save_for_hf(module, folder)
        try:
            return jm.models.load(folder).logits
        except InputError as error:
            return str(error)


def in_torch(module: torch.nn.Module, image: np.ndarray, regions: np.ndarray, masks: np.ndarray, batch: int) -> None:
    """The evaluation as one would write it in PyTorch, masking included."""
    shown = torch.from_numpy(masks)[:, torch.from_numpy(regions.copy()).long()][:, None]
    x = torch.from_numpy(image.transpose(2, 0, 1).copy())
    with torch.inference_mode():
        for start in range(0, len(masks), batch):
            module(torch.where(shown[start : start + batch], x, 0.0))


def in_turns(sides: dict[str, Callable[[], Any]], repeats: int) -> dict[str, Any]:
    """Seconds of each side: compiling, then the runs, one side after another."""
    first = {name: seconds(run, repeats=1)[0] for name, run in sides.items()}
    runs: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(repeats):
        for name, run in sides.items():
            runs[name] += seconds(run, repeats=1)
    return {name: summary(times) | {"compile": max(first[name] - min(times), 0.0)} for name, times in runs.items()}


def measure(name: str, args: Args) -> dict[str, Any]:
    torch.manual_seed(0)
    module = timm.create_model(name).eval()
    rng = np.random.default_rng(0)
    image = rng.normal(size=(224, 224, 3)).astype(np.float32)
    players = args.side**2
    regions = jm.grid_regions(224, 224, rows=args.side, cols=args.side)
    masks = rng.random((args.coalitions, players)) < 0.5
    start = time.perf_counter()
    fns: dict[str, Callable[..., Any]] = {"torchax": jm.from_torch(module, fallback=False)}
    row: dict[str, Any] = {"model": name, "from_torch seconds": time.perf_counter() - start}
    fns["callback"] = jm.from_callable(module, 1000)
    own = native(module)
    if isinstance(own, str):
        row["no native network"] = own
    else:
        fns["native"] = own
    with torch.inference_mode():
        expected = module(torch.from_numpy(image.transpose(2, 0, 1)[None].copy())).numpy()
    row["largest logit"] = float(np.abs(expected).max())
    row["largest logit difference"] = {
        side: float(
            np.abs(np.asarray(jax.jit(lambda fn, x: fn(x))(jax.tree_util.Partial(fn), image[None])) - expected).max()
        )
        for side, fn in fns.items()
    }
    games = {side: jm.pixel_value_fn(fn, image, int(expected.argmax()), regions) for side, fn in fns.items()}
    evaluations: dict[str, Callable[[], Any]] = {
        side: partial(jm.evaluate, v, jnp.asarray(masks), batch_size=args.batch) for side, v in games.items()
    }
    evaluations["PyTorch"] = partial(in_torch, module, image, np.asarray(regions), masks, args.batch)
    found: dict[str, jm.GreedyResult] = {}

    def search(side: str) -> jm.GreedyResult:
        found[side] = jm.greedy_insertion(games[side], players)
        return found[side]

    row["evaluation"] = in_turns(evaluations, args.repeats)
    row["search"] = in_turns({side: partial(search, side) for side in games}, args.repeats)
    row["orders"] = {side: r.order.tolist() for side, r in found.items()}
    counts = {"evaluation": args.coalitions, "search": int(found["torchax"].num_evaluations)}
    for what, count in counts.items():
        for times in row[what].values():
            times["images per second"] = count / times["median"]
    return row


def main(args: Args) -> int:
    began, rows = time.perf_counter(), []
    for name in args.models:
        if time.perf_counter() - began > args.limit:
            print(f"torch_modules: no time for {name}", file=sys.stderr)
            continue
        rows.append(measure(name, args))
        rates = {
            f"{w} {s}": round(t["images per second"], 1)
            for w in ("evaluation", "search")
            for s, t in rows[-1][w].items()
        }
        print(name, rates, file=sys.stderr, flush=True)
    result: dict[str, Any] = {
        "question": "images per second of PyTorch modules inside an explanation",
        "environment": environment() | {m.__name__: m.__version__ for m in (torch, timm, torchax)},
        "coalitions": args.coalitions,
        "batch": args.batch,
        "players of the search": args.side**2,
        "rows": rows,
    }  # fmt: skip
    write(result, args.out)
    return 0


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Args)))
