"""The tables: sizes, shares held by what never was searched, and the sizes at which rival orders hold as often."""

from __future__ import annotations

from typing import Any

import numpy as np
from _search.report import interval

from jaxmoxi.attribution import METHODS as RIVALS

SHARES = ("share", "share_draws", "share_kinds")
LEVEL = 0.8


def size_at(line: dict[str, Any], level: float, of: str = "share") -> float:
    """The first size at which an order's players hold in a share `level` of the judges, on the line between sizes.

    The first is the kindest to the order: its share may fall again. All players where none reaches it.
    of: "share_searched" for the removals searched.
    """
    sizes, shares = [0, *line["sizes"]], [0.0, *line[of]]
    for before, after in zip(range(len(sizes)), range(1, len(sizes)), strict=False):
        if shares[after] >= level:
            part = (level - shares[before]) / (shares[after] - shares[before]) if shares[after] > shares[before] else 0
            return sizes[before] + max(part, 0) * (sizes[after] - sizes[before])
    return float(sizes[-1])


def chosen(rows: dict[str, dict[str, Any]], share: float) -> tuple[float, list[float]]:
    """(level, sizes): an order's sizes by photo, at which it holds in a mean `share` of the judges.

    A size is the first at which the order holds in a share `level` of the removals *searched*; the level, one for all
    photos, is the least by which the sizes hold in as many of the unseen. The first size that the judges themselves
    find in each photo (`size_at`) gains by their noise; this does not.
    """
    level, sizes = 0.0, [0.0] * len(rows)
    for level in np.arange(0.01, 1.001, 0.01):
        sizes = [size_at(row, level, "share_searched") for row in rows.values()]
        pairs = zip(sizes, rows.values(), strict=True)
        if np.mean([np.interp(n, [0, *row["sizes"]], [0.0, *row["share"]]) for n, row in pairs]) >= share:
            break
    return float(level), sizes


def tables(lines: list[dict[str, Any]], ours: str = "robust") -> dict[str, Any]:
    """Per method the mean of every number with its 95 % confidence interval over photos.

    Of an order: the mean size at which it holds in 80 % of the judges, how much of it lies on the object at the size of
    the group of `ours`, and by photo what that group is in players beside the size at which the order holds as often as
    the group does (the geometric mean of the ratios). And, where lines have it, on the terms of a group:
    see `chosen`.
    """
    by_method: dict[str, dict[str, dict[str, Any]]] = {}
    for line in lines:
        by_method.setdefault(line["method"], {})[line["file"]] = line
    base = by_method.get(ours, {})
    result: dict[str, Any] = {}
    for method, rows in by_method.items():
        entry: dict[str, Any] = {"kind": next(iter(rows.values()))["kind"], "photos": len(rows)}
        entry["forwards"] = interval([row["forwards"] for row in rows.values()])
        entry["seconds"] = interval([row["seconds"] for row in rows.values()])
        if entry["kind"] == "group":
            for name in ("size", *SHARES, "pieces", "inside", "searched"):
                values = [row[name] for row in rows.values() if name in row]
                if values:
                    entry[name] = interval(values)
            told = [row["by_kind"] for row in rows.values() if "by_kind" in row]
            for kind in dict.fromkeys(kind for row in told for kind in row):
                entry[f"held in {kind}"] = interval([row[kind] for row in told if kind in row])
        else:
            entry["size at 80 %"] = interval([size_at(row, LEVEL) for row in rows.values()])
            inside = [
                np.interp(base[f]["size"], row["sizes"], row["inside"])
                for f, row in rows.items()
                if f in base and "inside" in row
            ]
            if inside:
                entry["inside"] = interval(inside)
            pairs = [(base[f]["size"], size_at(rows[f], base[f]["share"])) for f in rows if f in base]
            if pairs:
                logs = interval([np.log(max(a, 1) / max(b, 1)) for a, b in pairs])
                ends = [logs["mean"] - logs["half"], logs["mean"], logs["mean"] + logs["half"]]
                entry[f"{ours} / its size at the same share"] = [round(float(np.exp(x)), 3) for x in ends]
            known = {f: row for f, row in rows.items() if f in base and "share_searched" in row}
            if known:
                level, sizes = chosen(known, float(np.mean([base[f]["share"] for f in known])))
                entry["level of the searched"] = round(level, 3)
                entry["size chosen on the searched"] = interval(sizes)
                told = interval(
                    [np.log(max(base[f]["size"], 1) / max(n, 1)) for f, n in zip(known, sizes, strict=True)]
                )
                ends = [told["mean"] - told["half"], told["mean"], told["mean"] + told["half"]]
                entry[f"{ours} / size chosen on the searched"] = [round(float(np.exp(x)), 3) for x in ends]
        result[method] = entry
    rivals = [m for m, rows in by_method.items() if m in RIVALS and next(iter(rows.values()))["kind"] == "order"]
    shared = [f for f in base if all(f in by_method[m] for m in rivals)]
    if rivals and shared:
        best = [min(size_at(by_method[m][f], base[f]["share"]) for m in rivals) for f in shared]
        logs = interval([np.log(max(base[f]["size"], 1) / max(b, 1)) for f, b in zip(shared, best, strict=True)])
        ends = [logs["mean"] - logs["half"], logs["mean"], logs["mean"] + logs["half"]]
        result["the best rival of each photo"] = {
            "kind": "order",
            "photos": len(shared),
            f"{ours} / its size at the same share": [round(float(np.exp(x)), 3) for x in ends],
        }
    return result


def markdown(table: dict[str, Any], ours: str = "robust") -> str:
    """The groups, then the orders."""

    def told(entry: dict[str, Any], name: str, scale: float = 1.0, digits: int = 0) -> str:
        if name not in entry:
            return ""
        mean, half = scale * entry[name]["mean"], scale * entry[name]["half"]
        return f"{mean:.{digits}f} ± {half:.{digits}f}"

    rows = [
        "| group | photos | players | holds in unseen removals | other draws | other kinds | pieces | on the object | "
        "forwards |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, entry in table.items():
        if entry["kind"] == "group":
            shares = [told(entry, share, 100) + " %" if share in entry else "" for share in SHARES]
            cells = [name, str(entry["photos"]), told(entry, "size", digits=1), *shares]
            inside = told(entry, "inside", 100) + " %" if "inside" in entry else ""
            cells += [told(entry, "pieces", digits=1), inside, told(entry, "forwards")]
            rows.append("| " + " | ".join(cells) + " |")
    kinds = dict.fromkeys(key for entry in table.values() for key in entry if key.startswith("held in "))
    if kinds:
        rows += ["", f"| group | {' | '.join(kinds)} |", "|---" * (1 + len(kinds)) + "|"]
        rows += [
            f"| {name} | " + " | ".join(f"{told(entry, kind, 100)} %" if kind in entry else "" for kind in kinds) + " |"
            for name, entry in table.items()
            if any(kind in entry for kind in kinds)
        ]
    rows += [
        "",
        f"| order | photos | players at 80 % | {ours} / players at the same share | on the object, as many players | "
        f"forwards | players for as many unseen on the mean, chosen on the searched | {ours} / these |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, entry in table.items():
        if entry["kind"] == "order":
            ratio = entry.get(f"{ours} / its size at the same share")
            ends, fair = (
                "" if x is None else f"{x[1]:.2f} ({x[0]:.2f} to {x[2]:.2f})"
                for x in (ratio, entry.get(f"{ours} / size chosen on the searched"))
            )
            inside = told(entry, "inside", 100) + " %" if "inside" in entry else ""
            cells = [name, str(entry["photos"]), told(entry, "size at 80 %"), ends, inside, told(entry, "forwards")]
            cells += [told(entry, "size chosen on the searched"), fair]
            rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows)
