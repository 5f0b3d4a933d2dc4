"""Quality against forward passes, drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from _search.report import interval
from jaxmoxi.attribution import METHODS as METHODS_OF_STUDY


def label_points(figure: Any, axes: Any, texts: list[tuple[str, tuple[float, float], str]]) -> None:
    """Each name beside its point, where no other name is."""
    figure.draw_without_rendering()
    taken: list[Any] = []
    for name, place, colour in texts:
        for x, y, side in ((7, 3, "left"), (7, -10, "left"), (-7, 3, "right"), (-7, -10, "right"), (7, 13, "left")):
            text = axes.annotate(
                name, place, xytext=(x, y), textcoords="offset points", fontsize=8, color=colour, ha=side
            )
            box = text.get_window_extent()
            if not any(box.overlaps(other) for other in taken):
                break
            text.remove()
        else:
            text = axes.annotate(name, place, xytext=(7, 3), textcoords="offset points", fontsize=8, color=colour)
        taken.append(text.get_window_extent())


def draw(lines: list[dict[str, Any]], path: Path) -> None:
    """Quality against forward passes: group sizes, insertion areas, deletion areas, over the photos that all methods of
    a panel have in common. A line joins the best for a price."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

    figure = Figure(figsize=(17, 6), layout="constrained")
    panels = (
        ("sufficient", "size", "players of a group that is enough", "smaller is better", -1),
        ("insertion", "area", "area under the class's probability", "higher is better", 1),
        ("deletion", "area", "area under the class's probability", "lower is better", -1),
    )
    for axes, (kind, number, label, better, sign) in zip(figure.subplots(1, 3), panels, strict=True):
        rows: dict[str, dict[str, Any]] = {}
        for line in lines:
            if line["kind"] == kind:
                rows.setdefault(line["method"], {})[line["file"]] = line
        files = set.intersection(*(set(found) for found in rows.values())) if rows else set()
        axes.set(
            xscale="log", xlabel="forward passes a photo", ylabel=label, title=f"{kind}: {better}, photos: {len(files)}"
        )
        if not files:
            continue
        points = []
        for name, found in rows.items():
            forwards = np.mean([found[file]["forwards"] for file in files])
            points.append((max(forwards, 0.5), interval([found[file][number] for file in files]), name))
        best, front, texts = -np.inf, [], []
        for x, y, name in sorted(points, key=lambda point: point[0]):
            if sign * y["mean"] > best:
                best = sign * y["mean"]
                front.append((x, y["mean"]))
            name = name.removesuffix(f" {kind}")
            rival = name in METHODS_OF_STUDY
            colour = "#888888" if rival else "#d0021b" if name.startswith(("exact", "greedy")) else "#1f77b4"
            axes.errorbar(x, y["mean"], yerr=np.nan_to_num(y["half"]), fmt="o", elinewidth=0.4, color=colour)
            texts.append((name, (x, y["mean"]), colour))
        axes.plot(*zip(*front, strict=True), color="#1f77b4", linewidth=0.8, linestyle="--", zorder=0)
        axes.margins(x=0.25, y=0.08)
        axes.grid(alpha=0.3)
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if kind == "sufficient" else (1,)))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))
        axes.xaxis.set_minor_locator(NullLocator())
        label_points(figure, axes, texts)
    figure.supxlabel("bars: 95 % confidence intervals; red: greedy; blue: jaxmoxi.search; grey: rivals", fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
