"""Do groups hold when hidden players are removed in another way? Groups and rival orders, judged by the unseen.

    python benchmarks/robust.py --model FOLDER --images PHOTOS --lines ROBUST.jsonl --count 40
    python benchmarks/robust.py --model FOLDER --images PHOTOS --lines ROBUST.jsonl --count 0 --figure ROBUST.png
    python benchmarks/robust.py --model FOLDER --images PHOTOS --lines ALL.jsonl --count 12 --enumerated grid:3x3

`robust` searches in 24 removals of each photo (`jm.games.removals`: tokens absent, mean, noise and another photo's
pixels, in moved, mirrored, brighter or darker images). A group is judged by removals that no search saw: eight other
draws of these kinds (of other photos' pixels too), and eight of kinds that were not searched (zero, blur, inpainting).
Of a network without tokens blur is searched in their place.
`minimal`, `greedy` and `beam` search in the photo's one game; the orders of rivals are by that game too. One line of
JSON for each photo and method is appended to LINES as soon as it is measured, and is not measured again; `--count 0`
measures nothing.

FOLDER may be efficientnet-lite0, for the weights of the `demo` extra. Only photos that the model classifies correctly
count. A removal in which the whole image is answered otherwise is left out. On two cores a photo of 14 x 14 players
takes some minutes, half of them for the rivals; `--grid 7` is some ten times cheaper. `--methods` selects.
Rivals that sample have 20 evaluations a player, at most 2,000. `--enumerated` evaluates all coalitions of a few players
in four removals instead, and says how often the group that `robust_group` finds is the smallest there is.
"""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path

import tyro
from _common import environment, write
from _robust import enumerated
from _robust.figure import draw, draw_photos
from _robust.judged import judged
from _robust.methods import METHODS
from _robust.report import markdown, tables
from _search.cases import loaded
from _search.report import read


@dataclasses.dataclass
class Args:
    model: str
    """A checkpoint folder, or efficientnet-lite0."""
    images: Path
    """The folder of photos, with labels.csv."""
    lines: Path = Path("robust.jsonl")
    """Where the measurements are kept, one line of JSON each."""
    count: int = 40
    """How many correctly classified photos to measure; 0 reports what there is."""
    methods: tuple[str, ...] = ()
    """Which methods; none means all."""
    grid: int = 14
    """Players along one side."""
    searched: int = 24
    """Removals that are searched."""
    unseen: int = 8
    """Removals of either sort that judge."""
    seed: int = 0
    """Of the removals."""
    enumerated: str | None = None
    """The players whose coalitions are all evaluated, such as grid:3x3 or slic:11, instead of the comparison."""
    out: Path | None = None
    """Where to write the tables as JSON."""
    figure: Path | None = None
    """Where to draw size against share held."""
    pictures: Path | None = None
    """Where to draw the groups of ten photos, beside greedy's and Grad-CAM's."""
    ours: str = "robust"
    """Which of the methods the rivals are measured against."""


def measure(args: Args) -> None:
    args.lines.parent.mkdir(parents=True, exist_ok=True)
    known = {(line["file"], line["method"]) for line in read(args.lines)}
    names = args.methods or tuple(METHODS)
    for file, case in judged(
        args.model,
        args.images,
        count=args.count,
        grid=args.grid,
        always=True,
        searched=args.searched,
        unseen=args.unseen,
        seed=args.seed,
    ):
        for name in names:
            absent = name == "attention-rollout" and case.model.token_grid is None
            if (file, name) in known or absent:
                continue
            start = time.perf_counter()
            row = METHODS[name](case)
            line = {"file": file, "method": name, **row, "seconds": round(time.perf_counter() - start, 2)}
            with open(args.lines, "a") as f:
                f.write(json.dumps(line) + "\n")
            shown = {k: v for k, v in line.items() if k not in ("group", "order", "sizes")}
            print(json.dumps(shown), flush=True)


def enumerate_few(args: Args, regions: str) -> None:
    known = {(line["file"], line["regions"]) for line in read(args.lines)}
    options = {"count": args.count, "removals": 4, "seed": args.seed, "known": known}
    for line in enumerated.measure(args.model, args.images, regions, **options):
        with open(args.lines, "a") as f:
            f.write(json.dumps(line) + "\n")
        print(json.dumps(line), flush=True)
    table = enumerated.table(read(args.lines))
    print(enumerated.markdown(table))
    write({"model": Path(args.model).name, "environment": environment(), "enumerated": table}, args.out)


def main(args: Args) -> None:
    if args.enumerated:
        return enumerate_few(args, args.enumerated)
    unknown = [name for name in args.methods if name not in METHODS]
    if unknown:
        raise SystemExit(f"unknown methods {unknown}; there are: {', '.join(METHODS)}")
    measure(args)
    lines = read(args.lines)
    if not lines:
        raise SystemExit(f"nothing was measured: {args.lines} has no lines")
    if not any(line["method"] == args.ours and line["kind"] == "group" for line in lines):
        found = sorted({line["method"] for line in lines if line["kind"] == "group"})
        raise SystemExit(f"--ours {args.ours}: expected a method that finds groups, among those measured: {found}")
    table = tables(lines, args.ours)
    print(markdown(table, args.ours))
    name = Path(args.model).name
    games = {"searched": args.searched, "unseen": args.unseen, "grid": args.grid, "seed": args.seed}
    write({"model": name, "games": games, "environment": environment(), "methods": table}, args.out)
    if args.figure:
        photos = len({line["file"] for line in lines if line["method"] == args.ours})
        draw(lines, args.grid**2, args.figure, f"{name}, {args.grid} x {args.grid} players, {photos} photos")
    if args.pictures:
        draw_photos(lines, loaded(args.model), args.images, args.grid, args.pictures, ours=args.ours)


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
