"""Size against the share of unseen removals in which it holds, every method on one picture; and photos with groups."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from _search.report import interval
from PIL import Image

import jaxmoxi as jm
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


def draw_photos(
    lines: list[dict[str, Any]], model: Any, images: Path, grid: int, path: Path, *, ours: str, most: int = 10
) -> None:
    """Photos beside Grad-CAM's first players (as many as ours has), greedy's group and ours, with the shares held."""
    from matplotlib.figure import Figure

    rows: dict[str, dict[str, dict[str, Any]]] = {}
    for line in lines:
        rows.setdefault(line["file"], {})[line["method"]] = line
    shown = [(file, row) for file, row in rows.items() if {ours, "greedy", "grad-cam"} <= row.keys()][:most]
    if not shown:
        raise SystemExit(f"pictures need lines of {ours!r}, 'greedy' and 'grad-cam' of the same photo")
    figure = Figure(figsize=(10.4, 2.9 * len(shown)), layout="constrained")
    for panels, (file, row) in zip(np.atleast_2d(figure.subplots(len(shown), 4)), shown, strict=True):
        with Image.open(images / file) as opened:
            crop = np.asarray(model.crop(opened.convert("RGB")), float) / 255
        regions = np.asarray(jm.grid_regions(*crop.shape[:2], rows=grid, cols=grid))
        size, order = row[ours]["size"], row["grad-cam"]
        near = np.interp(size, [0, *order["sizes"]], [0.0, *order["share"]])
        told = [
            (None, file.removesuffix(".png")),
            (order["order"][:size], f"Grad-CAM: {size} regions, about {near:.0%}"),
            *((row[name]["group"], f"{name}: {row[name]['size']} regions, {row[name]['share']:.0%}")
              for name in ("greedy", ours)),
        ]  # fmt: skip
        for axes, (group, title) in zip(panels, told, strict=True):
            seen = np.ones(regions.shape, bool) if group is None else np.isin(regions, group)
            axes.imshow(np.where(seen[..., None], crop, 0.8 + 0.1 * crop))
            axes.set_title(title, fontsize=9)
            axes.set_axis_off()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=80)
