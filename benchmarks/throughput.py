"""How many masked forwards per second, and how near is that to what the machine's matrix products allow?

    python benchmarks/throughput.py [--model FOLDER | --size tiny|small|base] [--peer] [--out FILE.json]

Per number of tokens, batch and dtype; `--peer` measures the same network in PyTorch beside it, in the same run (needs
PyTorch, and --model with a Hugging Face ViT folder). The peer's attention is PyTorch's fused one, its best.
"""

# pyright: reportMissingImports=false
from __future__ import annotations

import dataclasses
import statistics
import sys
import time
from pathlib import Path
from typing import Any, Literal

import tyro
from _common import environment, write

import jaxmoxi as jm
from jaxmoxi.cli.bench import HEADER, SIZES, line, random_classifier, throughput


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
    """Measure PyTorch as well."""
    out: Path | None = None


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
    if args.peer and args.model is None:
        print("throughput: --peer needs --model FOLDER, a Hugging Face ViT with weights", file=sys.stderr)
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
