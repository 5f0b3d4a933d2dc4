"""How many masked forwards per second, and how near is that to what the machine's matrix products allow?

    python benchmarks/throughput.py [--model FOLDER | --size tiny|small|base] [--peer] [--out FILE.json]
    python benchmarks/throughput.py --peer --networks resnet-18 convnext-t [--naming timm] [--out FILE.json]

Per number of tokens, batch and dtype; `--peer` measures the same network in PyTorch beside it, in the same run (needs
PyTorch, and --model with a Hugging Face ViT folder). The peer's attention is PyTorch's fused one, its best.

With --networks: the networks of `variants/` by name, with random weights, hiding pixels, each beside the same network
in PyTorch: coalitions a second in a compiled search's loop, against PyTorch's forwards at its best batch.
"""

# pyright: reportMissingImports=false
from __future__ import annotations

import dataclasses
import statistics
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from _common import environment, write
from variants import Variant, every

import jaxmoxi as jm
from jaxmoxi.cli.bench import HEADER, SIZES, line, random_classifier, throughput
from jaxmoxi.games.evaluation import choose_batch_size

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from support.networks import made_images, made_tensors


@dataclasses.dataclass
class Args:
    model: Path | None = None
    """A checkpoint folder of a vision transformer."""
    size: Literal["tiny", "small", "base"] = "tiny"
    """Without a folder: random weights of this size."""
    tokens: tuple[int, ...] = (17, 33, 65, 129, 197)
    """Numbers of tokens, class token included."""
    batches: tuple[int, ...] = (4, 8, 16, 32, 64)
    dtypes: tuple[str, ...] = ("float32",)
    repeats: int = 7
    peer: bool = False
    """Measure PyTorch as well; --networks always does."""
    networks: tuple[str, ...] = ()
    """Networks of `variants/` instead, each against PyTorch: resnet-18, convnext-t, ..."""
    naming: str = "timm"
    """Whose networks these are: timm, transformers or torchvision."""
    coalitions: int = 32
    """With --networks: coalitions of a timed run."""
    out: Path | None = None


def race(variant: Variant, args: Args) -> dict[str, Any]:
    """Coalitions a second of one network, ours and PyTorch's, the timed runs taking turns."""
    import torch

    with tempfile.TemporaryDirectory() as folder:
        module = variant.write(Path(folder), made_tensors)
        mean = (0.5,) * variant.channels
        preprocessing = jm.models.Preprocessing(resize=variant.size, mean=mean, std=mean)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = jm.models.load(folder, preprocessing=preprocessing, image_size=variant.image_size)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    module = module.to(device)
    image = made_images(variant.size, variant.channels)[0]
    regions = jm.grid_regions(*variant.size, rows=7, cols=7)
    masks = jnp.asarray(np.random.default_rng(0).random((args.coalitions, 49)) < 0.5)
    v = jm.pixel_value_fn(model.logits, image, 0, regions)
    batch = choose_batch_size(v, 49)
    start = time.perf_counter()
    jax.block_until_ready(jm.evaluate(v, masks))
    compiled = time.perf_counter() - start
    ours: list[float] = []
    theirs: dict[int, list[float]] = {size: [] for size in args.batches if size <= args.coalitions}
    hidden = torch.from_numpy(image.transpose(2, 0, 1)[None]).to(device)
    for _ in range(args.repeats + 1):
        start = time.perf_counter()
        jax.block_until_ready(jm.evaluate(v, masks))
        ours.append(args.coalitions / (time.perf_counter() - start))
        for size, rates in theirs.items():
            rows = hidden.expand(size, -1, -1, -1).contiguous()
            start = time.perf_counter()
            with torch.inference_mode():
                module(rows)
            if device == "cuda":
                torch.cuda.synchronize()
            rates.append(size / (time.perf_counter() - start))
    best = max((statistics.median(rates[1:]), size) for size, rates in theirs.items())
    row = {
        "network": variant.architecture,
        "naming": variant.naming,
        "compile seconds": compiled - args.coalitions / ours[1],
        "batch": batch,
        "forwards_per_second": statistics.median(ours[1:]),
        "spread": [min(ours[1:]), max(ours[1:])],
        "PyTorch": best[0],
        "PyTorch's batch": best[1],
        "ratio": statistics.median(ours[1:]) / best[0],
    }
    print({k: round(x, 2) if isinstance(x, float) else x for k, x in row.items()}, file=sys.stderr, flush=True)
    return row


def races(args: Args) -> int:
    """`race` of every network asked for."""
    import torch

    found = [v for v in every("VARIANTS") if v.naming == args.naming and v.architecture.lower() in args.networks]
    missing = set(args.networks) - {v.architecture.lower() for v in found}
    if missing:
        print(f"throughput: no network {', '.join(sorted(missing))} of {args.naming} in variants/", file=sys.stderr)
        return 2
    rows = [race(variant, args) for variant in found]
    environments = environment() | {"torch": torch.__version__, "torch threads": torch.get_num_threads()}
    write({"question": "coalitions a second against PyTorch", "environment": environments, "rows": rows}, args.out)
    return 0


def peer_rows(args: Args) -> list[dict[str, Any]]:
    """Forwards per second of the same network in PyTorch."""
    import torch
    from torch_vit import TorchViT

    assert args.model is not None
    device = "cuda" if torch.cuda.is_available() else "cpu"
    rows = []
    for dtype in args.dtypes:
        model = TorchViT(args.model, fused_attention=True, device=device, dtype=getattr(torch, dtype))
        with torch.inference_mode():
            every = model.embed(torch.randn(1, 3, 224, 224, device=device, dtype=getattr(torch, dtype)))
            for count in args.tokens:
                for batch in args.batches:
                    tokens = every[:, : count - 1].expand(batch, -1, -1).contiguous()
                    times = []
                    for _ in range(args.repeats + 1):
                        start = time.perf_counter()
                        model.encode(tokens)
                        if device == "cuda":
                            torch.cuda.synchronize()
                        times.append(time.perf_counter() - start)
                    times = times[1:]
                    rate = batch / statistics.median(times)
                    rows.append({"dtype": dtype, "tokens": count, "batch": batch, "forwards_per_second": rate})
                    print(f"peer {dtype:>9} {count:>7} {batch:>6} {rate:>11,.1f}", file=sys.stderr, flush=True)
    return rows


def best(rows: list[dict[str, Any]], dtype: str, tokens: int) -> float:
    """Forwards per second at the best batch."""
    return max(r["forwards_per_second"] for r in rows if (r["dtype"], r["tokens"]) == (dtype, tokens))


def main(args: Args) -> int:
    if args.networks:
        return races(args)
    if args.peer and args.model is None:
        print(
            "throughput: --peer needs --model FOLDER, a Hugging Face ViT with weights, or --networks NAME ... of "
            "variants/ (resnet-18, ...)",
            file=sys.stderr,
        )
        return 2
    mesh = jm.local_mesh()
    model = random_classifier(SIZES[args.size]) if args.model is None else jm.models.load(args.model)
    print(HEADER, file=sys.stderr)
    rows = []
    settings: dict[str, Any] = dict(tokens=args.tokens, batches=args.batches, dtypes=args.dtypes, repeats=args.repeats)
    for row in throughput(model, **settings, mesh=mesh):
        rows.append(row)
        print(line(row), file=sys.stderr, flush=True)
    result: dict[str, Any] = {
        "question": "masked forwards per second by tokens, batch and dtype",
        "model": args.size if args.model is None else args.model.name,
        "environment": environment(),
        "rows": rows,
    }
    if args.peer:
        import torch

        peers = peer_rows(args)
        result |= {"peer": f"PyTorch {torch.__version__}", "peer rows": peers}
        result["best against the peer's best"] = {
            f"{dtype} {n}": best(rows, dtype, n) / best(peers, dtype, n) for dtype in args.dtypes for n in args.tokens
        }
    write(result, args.out)
    return 0


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Args)))
