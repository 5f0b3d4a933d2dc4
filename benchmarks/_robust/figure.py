"""Size against the share of unseen removals in which it holds, every method on one picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from _search.report import interval

from jaxmoxi.attribution import METHODS as RIVALS


def draw(lines: list[dict[str, Any]], num_players: int, path: Path, title: str) -> None:
    """Orders are lines, groups are points with 95 % confidence intervals over the photos."""
    from matplotlib.figure import Figure

    by_method: dict[str, list[dict[str, Any]]] = {}
    for line in lines:
        by_method.setdefault(line["method"], []).append(line)
    figure = Figure(figsize=(9, 6), layout="constrained")
    axes = figure.subplots()
    for name, rows in by_method.items():
        if rows[0]["kind"] == "order":
            colour = RIVALS[name].colour if name in RIVALS else "#888888"
            shares = np.mean([row["share"] for row in rows], 0)
            sizes = np.asarray(rows[0]["sizes"]) / num_players
            axes.plot(sizes, shares, color=colour, label=name, linestyle="-" if name in RIVALS else ":")
    for marker, (name, rows) in zip(
        "osD^vPX*<>", [x for x in by_method.items() if x[1][0]["kind"] == "group"], strict=False
    ):
        size, share = (interval([row[what] for row in rows]) for what in ("size", "share"))
        axes.errorbar(
            size["mean"] / num_players,
            share["mean"],
            xerr=np.nan_to_num(size["half"]) / num_players,
            yerr=np.nan_to_num(share["half"]),
            fmt=marker,
            color="#1f77b4" if name.startswith("robust") else "#d0021b",
            elinewidth=0.6,
            label=f"group: {name}",
        )
    axes.axhline(0.8, color="black", linewidth=0.6, linestyle="--")
    axes.set(
        xlabel=f"share of the {num_players} players shown",
        ylabel="share of unseen removals in which the class leads",
        title=title,
        xlim=(0, 1),
        ylim=(0, 1.02),
    )
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
