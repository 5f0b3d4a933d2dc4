"""How much faster than the published procedure is an explanation?

    python benchmarks/reference_loop.py --model FOLDER --photo PHOTO [--out FILE.json]

Needs PyTorch beside the package, and a Hugging Face ViT folder. The peer (`torch_vit.published_steps`) scores every
patch at every step, embeds every copy of the image anew and always runs to the end of the order. Both have the same
weights, image and target, and full orders are timed side by side, one step of each in turn. What is reported:

    flip                 ours up to the prediction's flip, warm, against the peer's full order, which it always runs
    insertion, deletion  both full orders, without the compilation, which is given apart
    first explanation    `jaxmoxi explain` in a new process, with an empty and with a warm compilation cache
"""

# pyright: reportMissingImports=false
from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from _common import environment, seconds, summary, write


@dataclasses.dataclass
class Args:
    model: Path
    """A Hugging Face ViT folder."""
    photo: Path
    """The image explained; the target is the class that the model sees in it."""
    repeats: int = 3
    """Warm runs of the search up to the flip."""
    out: Path | None = None
    """Where to write the result as JSON."""
    worker: str | None = None
    """(Internal) the part to run in this process."""


def load(args: Args) -> tuple[Any, int, Any, int]:
    """(the value function, spread over all cores or devices; the number of players; the image; the target)."""
    import jax
    from PIL import Image

    import jaxmoxi as jm

    mesh = jm.local_mesh()
    model = jm.models.load(args.model)
    image = model.preprocess(Image.open(args.photo))
    logits = jax.jit(lambda model, images: model.logits(images))(model, image[None])
    target = int(np.argmax(logits[0]))
    v = jm.shard_coalitions(jm.token_value_fn(model, image, target), mesh)
    rows, cols = model.token_grid or (0, 0)
    return v, rows * cols, image, target


def side_by_side(args: Args, method: str) -> dict[str, Any]:
    """A full order by both, a step of the one after a step of the other, so that a noisy machine is noisy for both."""
    import torch
    from torch_vit import TorchViT, published_steps

    import jaxmoxi as jm

    v, players, image, target = load(args)
    find = jm.greedy_deletion if method == "deletion" else jm.greedy_insertion
    start = time.perf_counter()
    jm.compile_greedy(v, players, insertion=method == "insertion")
    compile_seconds = time.perf_counter() - start
    device = "cuda" if torch.cuda.is_available() else "cpu"
    peer = TorchViT(args.model, fused_attention=False, device=device)
    pixels = torch.from_numpy(np.asarray(image).transpose(2, 0, 1).copy()).to(device)
    steps = published_steps(peer, pixels, target, insertion=method == "insertion")
    theirs: list[tuple[int, float]] = []
    spent = {"ours": 0.0, "peer": 0.0}
    clock = time.perf_counter()

    def after_step(_: Any) -> None:
        nonlocal clock
        spent["ours"] += time.perf_counter() - clock
        start = time.perf_counter()
        theirs.append(next(steps))
        spent["peer"] += time.perf_counter() - start
        clock = time.perf_counter()

    result = find(v, players, callback=after_step)
    gap = np.abs(np.asarray(result.values) - np.array([value for _, value in theirs])).max()
    return {
        "peer": spent["peer"],
        "ours": spent["ours"],
        "times faster": spent["peer"] / spent["ours"],
        "ours, compilation": compile_seconds,
        "evaluations": int(result.num_evaluations),
        "same order": result.order.tolist() == [player for player, _ in theirs],
        "largest value difference": float(gap),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }


def up_to_flip(args: Args) -> dict[str, Any]:
    """jaxmoxi until the class leads: the first search of a process, which compiles, and warm ones."""
    import jaxmoxi as jm

    v, players, _, _ = load(args)
    stop = jm.Stop(flip=True)
    results = []
    first, *warm = seconds(
        lambda: results.append(jm.greedy_insertion(v, players, stop=stop)) or results[-1], repeats=1 + args.repeats
    )
    return {
        "steps": int(results[-1].num_steps),
        "evaluations": int(results[-1].num_evaluations),
        "first": first,
        "warm": summary(warm),
    }


def first_explanation(args: Args, cache: str) -> float:
    """Wall-clock seconds of the command in a new process, imports and compilation included."""
    with tempfile.TemporaryDirectory() as out:
        command = [
            sys.executable,
            "-m",
            "jaxmoxi",
            "explain",
            str(args.photo),
            "--model",
            str(args.model),
            "--out",
            out,
        ]
        start = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True, env=os.environ | {"XDG_CACHE_HOME": cache})
        return time.perf_counter() - start


def in_new_process(args: Args, worker: str) -> dict[str, Any]:
    """A part of the work in a process of its own, so that its memory is its own."""
    command = [sys.executable, __file__, "--model", str(args.model), "--photo", str(args.photo), "--worker", worker]
    done = subprocess.run([*command, "--repeats", str(args.repeats)], check=True, stdout=subprocess.PIPE, text=True)
    part = json.loads(done.stdout.splitlines()[-1])
    print(f"{worker}: {part}", file=sys.stderr, flush=True)
    return part


def main(args: Args) -> int:
    if args.worker:
        print(json.dumps(up_to_flip(args) if args.worker == "flip" else side_by_side(args, args.worker)))
        return 0
    result: dict[str, Any] = {"question": "how much faster than the published procedure", "photo": args.photo.name}
    result["environment"] = environment()
    with tempfile.TemporaryDirectory() as cache:
        result["first explanation"] = {"cold": first_explanation(args, cache), "warm": first_explanation(args, cache)}
    print(result["first explanation"], file=sys.stderr, flush=True)
    for part in ("flip", "insertion", "deletion"):
        result[part] = in_new_process(args, part)
    result["flip"]["times faster"] = result["insertion"]["peer"] / result["flip"]["warm"]["median"]
    write(result, args.out)
    return 0 if result["insertion"]["same order"] and result["deletion"]["same order"] else 1


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Args)))
