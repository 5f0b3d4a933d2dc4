"""Estimates against the truth: what is measured of one, what is said of many, and the printed tables."""

from __future__ import annotations

import dataclasses
import statistics
from collections import defaultdict
from typing import Any

import _shapiq as peers
import numpy as np


@dataclasses.dataclass
class Row:
    """One estimate of one game."""

    game: int
    index: str
    share: float
    method: str
    error: float  # mean squared, over all sets
    precision: float  # at 10, or at a third of the sets
    seconds: float
    first: bool  # whether it was compiled in these seconds
    within: float | None = None  # the share of truths within two standard errors
    within_by_size: list[float] | None = None


def judged(case: dict[str, Any], truth: Any, values: np.ndarray, errors: np.ndarray | None = None, **more: Any) -> Row:
    """An estimate against the truth."""
    known = np.asarray(truth.values, np.float64)
    most = min(10, len(known) // 3)
    top, found = (set(np.argsort(-np.abs(x))[:most]) for x in (known, values))
    row = Row(**case, error=float(((values - known) ** 2).mean()), precision=len(top & found) / len(top), **more)
    if errors is not None:
        inside = np.abs(values - known) <= 2 * errors + 1e-6  # float32 rounds the truth
        sizes = (np.asarray(truth.sets) >= 0).sum(1)
        row.within = float(inside.mean())
        row.within_by_size = [float(inside[sizes == s].mean()) for s in range(1, sizes.max() + 1)]
    return row


def is_peer(name: str) -> bool:
    return name.split(" ")[0] in {n.split(" ")[0] for names in peers.APPROXIMATORS.values() for n in names}


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
                if (i, s) == (index, share) and is_peer(name) and len(g) == most
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


def table(part: str, players: int, found: Any) -> None:
    """Prints a part as a table in Markdown."""
    print(f"\n{part}, {players} players\n")
    if part == "exact":
        _print(
            ("index", "order", "largest difference", "jaxmoxi", "first call", "shapiq", "times faster"),
            [
                (
                    r["index"],
                    r["order"],
                    r.get("largest difference"),
                    r["jaxmoxi"]["median"],
                    r["first"],
                    r.get("shapiq"),
                    r.get("times faster"),
                )
                for r in found
            ],
        )
    elif part in ("estimates", "shapley"):
        keys = (
            "index",
            "share",
            "method",
            "games",
            "error",
            "geometric",
            "precision",
            "seconds",
            "first",
            "best peer",
            "beside its error",
            "beside the least geometric mean",
            "beside each game's best",
        )
        _print(keys, [tuple(r.get(k) for k in keys) for r in found])
    elif part == "errors":
        for method, of in found.items():
            print(f"{method}: {of['over all']:.3f} over all")
            rows = [(r["index"], r["share"], r["within"], *r["within by size"]) for r in of["rows"]]
            _print(("index", "share", "within", "of one", "of two"), rows)
    else:
        _print(("what", "seconds"), [(k, v) for k, v in found.items()])


def _print(head: tuple[str, ...], rows: list[tuple[Any, ...]]) -> None:
    print("| " + " | ".join(head) + " |")
    print("|" + "---|" * len(head))
    for row in rows:
        print("| " + " | ".join(_cell(x) for x in row) + " |", flush=True)


def _cell(x: Any) -> str:
    return "" if x is None else f"{x:.3g}" if isinstance(x, float) else str(x)
