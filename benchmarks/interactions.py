"""Interaction indices, exact and estimated: how near the truth, how fast, beside shapiq's?

    python benchmarks/interactions.py                                        # three games of nine players, some seconds
    python benchmarks/interactions.py --games GAMES --players 9 14 16 --out FILE.json
    python benchmarks/interactions.py --parts overhead --model FOLDER --photo PHOTO --out FILE.json

GAMES holds image-games-N.npz for each number of players N: `values` float32[G, 2^N], where bit i of a row's number says
whether player i is visible. Without it the three games of the package's tests are taken. As all values are known, so is
the truth. shapiq takes part where it is installed. Each part, and each number of players, has its place in FILE.json;
what was measured before is kept.

exact:     `from_table` against shapiq's ExactComputer, the table given.
estimates: mean squared error over all sets of up to two players, and precision at 10, at shares of all 2^N coalitions.
shapley:   Shapley values at the same budgets, permutation sampling among the peers.
errors:    how often the truth is within two of the stated standard errors.
overhead:  a vision transformer's forward passes, and the arithmetic beside them.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import _interactions as sides
import _interactions_report as report
import _shapiq as peers
import jax
import numpy as np
import tyro
from _common import environment

import jaxmoxi as jm

PARTS = ("exact", "estimates", "shapley", "errors", "overhead")
INDICES = ("SII", "k-SII", "FSII", "FBII")
_TESTS = Path(__file__).parents[1] / "tests" / "interactions"


@dataclasses.dataclass
class Args:
    games: Path = _TESTS
    """The folder of games."""
    players: tuple[int, ...] = (9,)
    """Which games."""
    parts: tuple[Literal["exact", "estimates", "shapley", "errors", "overhead"], ...] = PARTS[:-1]
    count: int = 12
    """The most games of one number of players."""
    shares: tuple[float, ...] = (0.05, 0.1, 0.2, 0.4)
    """Budgets, in units of all 2^N coalitions."""
    methods: Literal["auto", "all"] = "auto"
    """Of the package: the one that `auto` takes, or all that are registered."""
    peers: bool = True
    """Whether shapiq takes part."""
    skip: tuple[str, ...] = ()
    """Approximators of shapiq to leave out: "SVARMIQ", "SVARMIQ FSII" for an index, "SVARMIQ FSII 0.4" at a budget."""
    patience: float = 20.0
    """A peer that took more seconds for one estimate is not run at that budget and larger ones again."""
    long: bool = False
    """shapiq's exact values of order 2 of 15 and 16 players too, but for FSII and FBII: minutes."""
    largest: int = 20
    """Players of the largest exact indices, of a random table."""
    repeats: int = 5
    seed: int = 0
    model: Path | None = None
    """A vision transformer's folder, for the overhead."""
    photo: Path | None = None
    coalitions: int = 20_000
    """For the overhead: coalitions of the estimate."""
    forwards: int = 2_000
    """Of those, how many forward passes are timed; the others take as long each."""
    overhead_peers: tuple[str, ...] = ("SHAPIQ", "PermutationSamplingSII", "ProxySHAP")
    out: Path | None = None


def load(args: Args, players: int) -> np.ndarray:
    with np.load(args.games / f"image-games-{players}.npz", allow_pickle=False) as file:
        return file["values"][: args.count]


def with_peers(args: Args) -> bool:
    return args.peers and peers.AVAILABLE


def exact(args: Args, players: int) -> list[dict[str, Any]]:
    """Seconds and differences of the exact indices of one game."""
    random = np.random.default_rng(args.seed).normal(size=1 << players).astype(np.float32)
    known = players in args.players
    table = load(args, players)[0] if known else random
    rows = []
    for index in ("k-SII", "STII", "FSII", "FBII", "SII", "BII"):
        for order in (2, 3):
            found, first, times = sides.exact(table, index, order, args.repeats)
            row: dict[str, Any] = {"index": index, "order": order, "first": first, "jaxmoxi": times}
            matrix = index in ("FSII", "FBII")  # of 2^N rows and columns: 34 GB at 16 players
            affordable = players <= 14 or (players <= 16 and args.long and order == 2 and not matrix)
            if with_peers(args) and affordable and known:
                theirs, took = peers.exact(table, index, order, np.asarray(found.sets))
                row |= {
                    "shapiq": took,
                    "times faster": took / times["median"],
                    "largest difference": float(np.abs(np.asarray(found.values) - theirs).max()),
                }
            rows.append(row)
            said(f"exact {players} {index} {order}")
    return rows


def estimated(args: Args, players: int, indices: tuple[str, ...], order: int, theirs: bool) -> list[report.Row]:
    """All estimates of the games of so many players."""
    tables = load(args, players)
    true = functools.partial(jm.interactions.from_table, order=order)
    truths = {(g, i): true(table, index=i) for g, table in enumerate(tables) for i in indices}
    rows = []
    for case, run in ours(args, tables, indices, order):
        start = time.perf_counter()
        found = run()
        took = time.perf_counter() - start
        case, first = {k: v for k, v in case.items() if k != "first"}, case["first"]
        errors = None if found.standard_errors is None else np.asarray(found.standard_errors, np.float64)
        truth = truths[case["game"], case["index"]]
        rows.append(report.judged(case, truth, np.asarray(found.values, np.float64), errors, seconds=took, first=first))
    said(f"ours {players}")
    patience: dict[tuple[str, str], float] = {}
    for case in cases(tables, indices, args.shares) if theirs else ():
        index, share = case["index"], case["share"]
        for name in peers.APPROXIMATORS[index]:
            left_out = {name, f"{name} {index}", f"{name} {index} {share}"} & set(args.skip)
            if left_out or share >= patience.get((name, index), 2.0):
                continue
            sets = np.asarray(truths[case["game"], index].sets)
            game = peers.table_game(tables[case["game"]])
            budget = int(share * len(tables[0]))
            try:
                values, took = peers.approximate(
                    name, game, players, index, order, budget, sets, args.seed * 1000 + case["game"]
                )
            except Exception as error:  # a peer's bug at a small budget is its own
                said(f"{name} {index} {share}: {type(error).__name__} {error}"[:200])
                continue
            if took > args.patience:
                patience[name, index] = share
            truth = truths[case["game"], index]
            rows.append(report.judged({**case, "method": name}, truth, values, seconds=took, first=False))
    said(f"all {players}")
    return rows


def cases(tables: np.ndarray, indices: tuple[str, ...], shares: tuple[float, ...]) -> Iterator[dict[str, Any]]:
    for share in shares:
        for index in indices:
            for game in range(len(tables)):
                yield {"game": game, "index": index, "share": share}


def ours(
    args: Args, tables: np.ndarray, indices: tuple[str, ...], order: int
) -> Iterator[tuple[dict[str, Any], Callable[[], Any]]]:
    """Every estimate of the package's, to be run."""
    players = len(tables[0]).bit_length() - 1
    for case in cases(tables, indices, args.shares):
        table, budget = tables[case["game"]], int(case["share"] * len(tables[0]))
        key = jax.random.key(args.seed * 1000 + case["game"])
        for method in sides.methods(args.methods, players, case["index"], order, budget):
            yield (
                {**case, "method": method, "first": case["game"] == 0},
                lambda method=method, case=case, key=key, table=table, budget=budget: sides.estimate(
                    key, table, case["index"], order, budget, method
                ),
            )
        if case["index"] == "SV" and order == 1:
            for name, run in sides.permutations(key, table, budget, seed=args.seed + case["game"]).items():
                yield {**case, "method": name, "first": case["game"] == 0}, run


def said(text: str) -> None:
    print(f"{time.perf_counter() - _START:6.0f} s  {text}", file=sys.stderr, flush=True)


_START = time.perf_counter()


def main(args: Args) -> None:
    result: dict[str, Any] = json.loads(args.out.read_text()) if args.out and args.out.exists() else {}
    where = environment() | {"shapiq": peers.version() if with_peers(args) else None}
    if not with_peers(args):
        said("shapiq is not installed, or was not asked for: its columns are left out")

    def keep(part: str, players: int, found: Any) -> None:
        result.setdefault(part, {})[str(players)] = {"environment": where, "found": found}
        report.table(part, players, found)
        if args.out is not None:
            args.out.write_text(json.dumps(result, indent=1) + "\n")

    for players in args.players:
        if "exact" in args.parts:
            keep("exact", players, exact(args, players))
        found: list[dict[str, Any]] = []
        for part, indices, order in (("estimates", INDICES, 2), ("shapley", ("SV",), 1)):
            if part in args.parts or "errors" in args.parts:
                theirs = with_peers(args) and part in args.parts
                summaries = report.summarised(estimated(args, players, indices, order, theirs))
                found += summaries
                if part in args.parts:
                    keep(part, players, summaries)
        if "errors" in args.parts:
            keep("errors", players, report.coverage(found))
    if "exact" in args.parts and args.largest > max(args.players):
        keep("exact", args.largest, exact(args, args.largest))
    if "overhead" in args.parts:
        if args.model is None or args.photo is None:
            sys.exit("the overhead is that of a --model on a --photo")
        keep("overhead", 196, sides.overhead(args, with_peers(args)))


if __name__ == "__main__":
    main(tyro.cli(Args))
