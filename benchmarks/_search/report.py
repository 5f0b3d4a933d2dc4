"""The lines that were measured, and the tables made of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np


def read(path: Path) -> list[dict[str, Any]]:
    """The lines of a file; a last one that was cut off is measured again."""
    lines = []
    for text in path.read_text().splitlines() if path.exists() else ():
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            continue
    return lines


def tables(lines: list[dict[str, Any]]) -> dict[str, Any]:
    """Per method the mean of every number, with half the width of its 95 % confidence interval over photos.

    Where an exact or greedy counterpart was measured on the same photos, also the mean difference to it.
    """
    by_method: dict[str, dict[str, dict[str, Any]]] = {}
    for line in lines:
        by_method.setdefault(line["method"], {})[line["file"]] = line
    result = {}
    for method, rows in by_method.items():
        kind = next(iter(rows.values()))["kind"]
        base = {
            "insertion": "exact insertion",
            "deletion": "exact deletion",
            "necessary": "greedy necessary group",
        }.get(kind, "greedy group")
        entry: dict[str, Any] = {"kind": kind, "photos": len(rows)}
        for number in ("size", "area", "leads", "stable", "missed", "audits", "regret", "forwards", "seconds"):
            values = [row[number] for row in rows.values() if number in row]
            if values:
                entry[number] = interval(values)
            shared = [f for f in rows if f in by_method.get(base, {})]
            pairs = [(rows[f], by_method[base][f]) for f in shared]
            pairs = [(a, b) for a, b in pairs if number in a and number in b]
            if method != base and pairs and number in ("size", "area", "leads", "forwards"):
                difference = interval([float(a[number]) - float(b[number]) for a, b in pairs])
                mean = float(np.mean([float(b[number]) for _, b in pairs]))
                entry[f"{number} - {base}"] = {**difference, "base": mean, "photos": len(pairs)}
        result[method] = entry
    return result


def interval(values: list[Any]) -> dict[str, float]:
    array = np.asarray(values, float)
    half = 1.96 * array.std(ddof=1) / np.sqrt(len(array)) if len(array) > 1 else float("nan")
    return {"mean": float(array.mean()), "half": float(half)}
