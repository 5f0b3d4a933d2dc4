"""How small can a group be, how good an order, for how many forward passes? Every search against exact greedy.

    python benchmarks/search.py --model FOLDER --images PHOTOS --lines LINES.jsonl --count 100
    python benchmarks/search.py --model FOLDER --images PHOTOS --lines LINES.jsonl --count 0 --figure FRONT.png

    python benchmarks/search.py --model FOLDER --images PHOTOS --together 8 --grid 7 --out TOGETHER.json

One line of JSON for each photo and method is appended to LINES as soon as it is measured; what is there is not measured
again, so it can be stopped at any time. `--count 0` measures nothing and reports. Only photos that the model classifies
correctly count. FOLDER may be efficientnet-lite0, for the weights of the `demo` extra: hidden pixels then take the mean
colour, and the players are a 14 x 14 grid. A gradient is counted as three forward passes.

The dearest methods are the exact orders: DeiT-Tiny takes about 90 s (insertion) and 180 s (deletion) a photo on two
cores. `--methods` selects. What a study of the same photos measured at all sizes (`jaxmoxi study --preset paper
--masking mean`, or tokens for DeiT) is taken from its shards with `--study FOLDER`: MoXI's orders are the exact ones,
and every rival has its place in the figure.

    python benchmarks/search.py --model FOLDER --images PHOTOS --lines BUDGETS.jsonl --grid 7 --count 20 \\
        --budgets 0.1 0.2 1 --out BUDGETS.json

`--budgets` gives the published searches (LiMA, PhaseWin, MDA, written here) and `order_within` the same forward passes,
shares of a whole greedy order's; the players of any model are then a grid. What is in BUDGETS.jsonl is not measured
again.

`--together 8` compares the smallest groups of eight images in one loop (`minimal_groups`) with those of one after the
other; what OUT has of other forms, players and budgets stays.
"""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path

import tyro
from _common import environment, write
from _search.budgets import NAMES, budget_tables, measure_budgets
from _search.cases import cases
from _search.figure import draw
from _search.methods import METHODS
from _search.report import read, tables
from _search.study import from_study
from _together import compare


@dataclasses.dataclass
class Args:
    model: str
    """A checkpoint folder, or efficientnet-lite0."""
    images: Path
    """The folder of photos, with labels.csv."""
    lines: Path = Path("search.jsonl")
    """Where the measurements are kept, one line of JSON each."""
    count: int = 100
    """How many correctly classified photos to measure; 0 reports what there is."""
    methods: tuple[str, ...] = ()
    """Which methods; none means all."""
    grid: int = 14
    """Players along one side, where the model has no tokens; with --together, of any model."""
    together: int = 0
    """Compare the smallest groups of so many images in one loop with those in turn, instead of the methods;
    --methods then names forms."""
    budgets: tuple[float, ...] = ()
    """Compare orders found with these shares of a whole greedy order's forward passes; --methods then names theirs."""
    budget: int | None = None
    """Evaluations of each image, with --together; None is that of a whole order."""
    out: Path | None = None
    """Where to write the tables as JSON."""
    study: Path | None = None
    """A study of these photos, whose orders join the tables."""
    figure: Path | None = None
    """Where to draw quality against forward passes."""


def together(args: Args) -> None:
    """The first photos that the model classifies correctly, in one loop and one after the other."""
    found = [case for _, case in cases(args.model, args.images, count=args.count, grid=args.grid, always=True)]
    vs, num_players = [case.v for case in found], found[0].num_players
    compare(vs, num_players, budget=args.budget, forms=args.methods, out=args.out, name=Path(args.model).name)


def by_budget(args: Args) -> None:
    """The published searches and the package's, each with the same forward passes."""
    if unknown := [name for name in args.methods if name not in NAMES]:
        raise SystemExit(f"unknown methods {unknown}; there are: {', '.join(NAMES)}")
    if wrong := [share for share in args.budgets if not 0 < share <= 1]:
        raise SystemExit(f"budgets are shares of a whole order's forward passes, in (0, 1]; got {wrong}")
    found = cases(args.model, args.images, count=args.count, grid=args.grid, always=True)
    measure_budgets(found, args.lines, args.budgets, args.methods)
    table = budget_tables(read(args.lines))
    write(
        {"model": Path(args.model).name, "players": args.grid**2, "environment": environment(), "orders": table},
        args.out,
    )


def measure(args: Args) -> None:
    args.lines.parent.mkdir(parents=True, exist_ok=True)
    known = {(line["file"], line["method"]) for line in read(args.lines)}
    for file, case in cases(args.model, args.images, count=args.count, grid=args.grid):
        for name in args.methods or METHODS:
            if (file, name) in known or ("attention" in name and case.model.token_grid is None):
                continue
            start = time.perf_counter()
            row = METHODS[name](case)
            line = {"file": file, "method": name, **row, "seconds": round(time.perf_counter() - start, 2)}
            with open(args.lines, "a") as f:
                f.write(json.dumps(line) + "\n")
            print(json.dumps({k: v for k, v in line.items() if k != "curve"}), flush=True)


def main(args: Args) -> None:
    if args.together:
        together(dataclasses.replace(args, count=args.together))
        return
    if args.budgets:
        by_budget(args)
        return
    unknown = [name for name in args.methods if name not in METHODS]
    if unknown:
        raise SystemExit(f"unknown methods {unknown}; there are: {', '.join(METHODS)}")
    measure(args)
    name = Path(args.model).name
    lines = read(args.lines)
    if args.study:
        cnn = args.model == "efficientnet-lite0"
        lines += from_study(args.study, name, *(("mean", args.grid**2) if cnn else ("tokens", None)))
    table = tables(lines)
    write({"model": name, "environment": environment(), "methods": table}, args.out)
    if args.figure:
        draw(lines, args.figure)


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
