"""The figures of a study: curves with confidence bands, and a contact sheet of heat maps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxmoxi.metrics import aggregate_curves
from jaxmoxi.plot.strokes import fade, new_figure, short
from jaxmoxi.study.measure import DIRECTIONS, Setting
from jaxmoxi.study.photos import UnreadableError, read_photo

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_GRID = np.linspace(0, 1, 101)
_OURS = ("moxi", "moxi-single")
# Told apart by most eyes, and none of them near MoXI's red or chance's grey.
_COLOURS = ("#1f77b4", "#ff7f0e", "#2ca02c", "#9467bd", "#8c564b", "#17becf", "#bcbd22", "#000080", "#006400")


def method_style(methods: Sequence[str]) -> dict[str, dict[str, Any]]:
    """How each method's line is drawn: MoXI's bold and red, whatever else there is."""
    others = [m for m in methods if m not in _OURS]
    out: dict[str, dict[str, Any]] = {
        m: {"color": _COLOURS[i % len(_COLOURS)], "linewidth": 1.1} for i, m in enumerate(others)
    }
    out |= {m: {"color": "#d0021b", "linewidth": 2.2, "linestyle": "-" if m == "moxi" else ":"} for m in _OURS}
    if "random" in out:
        out["random"] |= {"color": "#888888", "linestyle": "--"}
    return out


def curves(results: Sequence[Any], methods: Sequence[str], removal: str) -> Figure:
    """Accuracy and probability while players are inserted and deleted: the mean over photos, with its 95 % confidence
    band."""
    figure = new_figure(13.0, 9.0, None)
    panels = figure.subplots(2, 2, sharex=True)
    styles = method_style(methods)
    for row, (what, label) in enumerate((("leads", "accuracy"), ("probabilities", "probability of the class"))):
        for column, direction in enumerate(DIRECTIONS):
            axes = panels[row, column]
            for i, method in enumerate(methods):
                lines = np.stack([_line(r.arrays, f"{removal}/{direction}/{what}", i) for r in results])
                band = aggregate_curves(lines)
                axes.plot(100 * _GRID, band.mean, label=method, **styles[method])
                if len(lines) > 1:
                    low, high = np.clip(band.low, 0, 1), np.clip(band.high, 0, 1)
                    axes.fill_between(100 * _GRID, low, high, color=styles[method]["color"], alpha=0.08, linewidth=0)
            axes.set(xlim=(0, 100), ylim=(0, 1.02), ylabel=label)
            axes.grid(alpha=0.25)
            axes.spines[["top", "right"]].set_visible(False)
            if row == 0:
                better = "higher is better" if direction == "insertion" else "lower is better"
                axes.set_title(f"{direction} ({better}), {len(results)} photos", fontsize=10)
            else:
                axes.set_xlabel(f"players {'visible' if direction == 'insertion' else 'removed'}, %")
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside right center", frameon=False)
    return figure


def _line(arrays: Any, name: str, method: int) -> np.ndarray:
    shares = arrays["sizes"] / arrays["orders"].shape[-1]
    return np.interp(_GRID, shares, arrays[name][method].astype(np.float64))


def contact_sheet(results: Sequence[Any], task: Setting, folder: Any) -> Figure:
    """A row for each photo: the photo, then each method's heat map, by rank, so that all methods share one scale."""
    methods = task.methods
    figure = new_figure(1.25 * (len(methods) + 1), 1.28 * len(results) + 0.6, None)
    panels = figure.subplots(len(results), len(methods) + 1, squeeze=False)
    credits = []
    for axes_row, result in zip(panels, results, strict=True):
        try:
            picture = task.model.crop(read_photo(folder / result.photo.name))
        except (UnreadableError, OSError):  # it was there when it was measured
            picture = np.full((*result.arrays["regions"].shape, 3), 255, np.uint8)
        credits.append(result.photo.credit)
        axes_row[0].imshow(picture)
        name = short(task.model.class_names[int(result.arrays["target"])])
        axes_row[0].set_ylabel(name if len(name) < 18 else f"{name[:16]}…", fontsize=7)
        grey = fade(picture, 0.25)
        for i, axes in enumerate(axes_row[1:]):
            order = result.arrays["orders"][i, 0]
            heat = np.empty(len(order))
            heat[order] = 1 - np.arange(len(order)) / len(order)
            axes.imshow(grey)
            axes.imshow(heat[result.arrays["regions"]] ** 3, cmap="inferno", vmin=0, vmax=1, alpha=0.6)
    for axes, title in zip(panels[0], ("photo", *methods), strict=True):
        axes.set_title(title, fontsize=7)
    for axes in panels.flat:
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
    named = [c for c in dict.fromkeys(credits) if c]
    if named:
        figure.supxlabel(f"photos: {', '.join(named)}", fontsize=6, wrap=True)
    return figure
