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
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import _interactions as sides
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
    """Approximators of shapiq to leave out."""
    patience: float = 20.0
    """A peer that took more seconds for one estimate is not run at that budget and larger ones again."""
    long: bool = False
    """shapiq's exact values beyond 14 players too, and of order 3 beyond 9: minutes, and gigabytes."""
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
    table = random if players == args.largest else load(args, players)[0]
    rows = []
    for index in ("k-SII", "STII", "FSII", "FBII", "SII", "BII"):
        for order in (2, 3):
            found, first, times = sides.exact(table, index, order, args.repeats)
            row: dict[str, Any] = {"index": index, "order": order, "first": first, "jaxmoxi": times}
            affordable = players <= 9 or (players <= 14 and order == 2) or (players <= 16 and args.long)
            if with_peers(args) and affordable and players < args.largest:
                theirs, took = peers.exact(table, index, order, np.asarray(found.sets))
                row |= {
                    "shapiq": took,
                    "times faster": took / times["median"],
                    "largest difference": float(np.abs(np.asarray(found.values) - theirs).max()),
                }
            rows.append(row)
            said(f"exact {players} {index} {order}")
    return rows


@dataclasses.dataclass
class Row:
    """One estimate of one game."""

    game: int
    index: str
    share: float
    method: str
    error: float  # mean squared, over all sets
    precision: float
    seconds: float
    first: bool  # whether it was compiled in these seconds
    within: float | None = None  # the share of truths within two standard errors
    within_by_size: list[float] | None = None


def judged(case: dict[str, Any], truth: Any, values: np.ndarray, errors: np.ndarray | None = None, **more: Any) -> Row:
    """An estimate against the truth."""
    known = np.asarray(truth.values, np.float64)
    top, found = (set(np.argsort(-np.abs(x))[:10]) for x in (known, values))
    row = Row(**case, error=float(((values - known) ** 2).mean()), precision=len(top & found) / len(top), **more)
    if errors is not None:
        inside = np.abs(values - known) <= 2 * errors + 1e-6  # float32 rounds the truth
        sizes = (np.asarray(truth.sets) >= 0).sum(1)
        row.within = float(inside.mean())
        row.within_by_size = [float(inside[sizes == s].mean()) for s in range(1, sizes.max() + 1)]
    return row


def estimated(args: Args, players: int, indices: tuple[str, ...], order: int, theirs: bool) -> list[Row]:
    """All estimates of the games of so many players."""
    tables = load(args, players)
    truths = {
        (g, i): jm.interactions.from_table(t, index=i, order=order) for g, t in enumerate(tables) for i in indices
    }
    rows = []
    for case, run in ours(args, tables, indices, order):
        start = time.perf_counter()
        found = run()
        took = time.perf_counter() - start
        case, first = {k: v for k, v in case.items() if k != "first"}, case["first"]
        errors = None if found.standard_errors is None else np.asarray(found.standard_errors, np.float64)
        truth = truths[case["game"], case["index"]]
        rows.append(judged(case, truth, np.asarray(found.values, np.float64), errors, seconds=took, first=first))
    said(f"ours {players}")
    patience: dict[tuple[str, str], float] = {}
    for case in cases(tables, indices, args.shares) if theirs else ():
        index, share = case["index"], case["share"]
        for name in peers.APPROXIMATORS[index]:
            if name in args.skip or share >= patience.get((name, index), 2.0):
                continue
            sets = np.asarray(truths[case["game"], index].sets)
            game = peers.table_game(tables[case["game"]])
            budget = int(share * len(tables[0]))
            try:
                values, took = peers.approximate(name, game, players, index, order, budget, sets, args.seed)
            except Exception as error:  # a peer's bug at a small budget is its own
                said(f"{name} {index} {share}: {type(error).__name__} {error}"[:200])
                continue
            if took > args.patience:
                patience[name, index] = share
            rows.append(
                judged({**case, "method": name}, truths[case["game"], index], values, seconds=took, first=False)
            )
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


def summarised(rows: list[Row]) -> list[dict[str, Any]]:
    """By index, budget and method."""
    groups = defaultdict(list)
    for row in rows:
        groups[row.index, row.share, row.method].append(row)
    most = max(len(g) for g in groups.values())
    out = []
    for (index, share, method), group in groups.items():
        warm = [row.seconds for row in group if not row.first] or [row.seconds for row in group]
        entry: dict[str, Any] = {
            "index": index,
            "share": share,
            "method": method,
            "games": len(group),
            "error": statistics.fmean(row.error for row in group),
            "geometric": geometric([row.error for row in group]),
            "precision": statistics.fmean(row.precision for row in group),
            "seconds": statistics.median(warm),
        }
        if group[0].first:
            entry["first"] = group[0].seconds
        if group[0].within is not None:
            entry["within"] = statistics.fmean(row.within for row in group if row.within is not None)
            sizes = [row.within_by_size for row in group if row.within_by_size is not None]
            entry["within by size"] = np.mean(sizes, 0).tolist()
        if method == "auto":
            others = [
                (name, g) for (i, s, name), g in groups.items()
                if (i, s) == (index, share) and sides.is_peer(name) and len(g) == most
            ]  # fmt: skip
            entry |= beside(group, others)
        out.append(entry)
    return out


def beside(group: list[Row], others: list[tuple[str, list[Row]]]) -> dict[str, Any]:
    """Ours beside the best peer of this budget: by the mean over games, and by the geometric mean."""
    if not others:
        return {}
    name, best = min(others, key=lambda other: statistics.fmean(row.error for row in other[1]))
    each = [geometric([row.error for row in rows]) for _, rows in others]
    fewest = [min(errors) for errors in zip(*([row.error for row in rows] for _, rows in others), strict=True)]
    mean, middle = statistics.fmean(row.error for row in group), geometric([row.error for row in group])
    return {
        "best peer": name,
        "beside its error": mean / statistics.fmean(row.error for row in best),
        "beside the least geometric mean": middle / min(each),
        "beside each game's best": middle / geometric(fewest),
        "best precision of a peer": max(statistics.fmean(row.precision for row in rows) for _, rows in others),
    }


def geometric(values: list[float]) -> float:
    return float(np.exp(np.mean(np.log(np.maximum(values, 1e-15)))))


def coverage(summaries: list[dict[str, Any]]) -> dict[str, Any]:
    """The share of truths within two standard errors, by method: over all, by index and budget, by size of set."""
    out = {}
    for method in {entry["method"] for entry in summaries if "within" in entry}:
        chosen = [entry for entry in summaries if entry["method"] == method]
        out[method] = {
            "over all": statistics.fmean(entry["within"] for entry in chosen),
            "rows": [{k: entry[k] for k in ("index", "share", "within", "within by size")} for entry in chosen],
        }
    return out


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
        sides.table(part, players, found)
        if args.out is not None:
            args.out.write_text(json.dumps(result, indent=1) + "\n")

    for players in args.players:
        if "exact" in args.parts:
            keep("exact", players, exact(args, players))
        found: list[dict[str, Any]] = []
        for part, indices, order in (("estimates", INDICES, 2), ("shapley", ("SV",), 1)):
            if part in args.parts or "errors" in args.parts:
                theirs = with_peers(args) and part in args.parts
                summaries = summarised(estimated(args, players, indices, order, theirs))
                found += summaries
                if part in args.parts:
                    keep(part, players, summaries)
        if "errors" in args.parts:
            keep("errors", players, coverage(found))
    if "exact" in args.parts and args.largest > max(args.players):
        keep("exact", args.largest, exact(args, args.largest))
    if "overhead" in args.parts:
        if args.model is None or args.photo is None:
            sys.exit("the overhead is that of a --model on a --photo")
        keep("overhead", 196, sides.overhead(args, with_peers(args)))


if __name__ == "__main__":
    main(tyro.cli(Args))
