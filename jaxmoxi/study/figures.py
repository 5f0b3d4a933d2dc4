"""The figures of a study: lines with confidence bands, and a contact sheet of heat maps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from etils import epath

from jaxmoxi.attribution import METHODS
from jaxmoxi.errors import InputError
from jaxmoxi.escape import plain
from jaxmoxi.metrics import Metric, aggregate_curves
from jaxmoxi.plot.strokes import fade, new_figure, short
from jaxmoxi.study.measure import Setting
from jaxmoxi.study.photos import Photo, UnreadableError, read_photo
from jaxmoxi.study.records import Measured

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_GRID = np.linspace(0, 1, 101)


def method_style(name: str) -> dict[str, Any]:
    """How a method's line is drawn, as Matplotlib's keywords."""
    method = METHODS[name]
    return {"color": method.colour, "linestyle": method.line, "linewidth": 2.2 if method.bold else 1.1}


def lines(metric: Metric, photos: Sequence[Measured], methods: Sequence[str], removal: str) -> Figure:
    """The panels of a metric: each method's mean line over photos, with its 95 % confidence band.

    Raises ValueError for a metric without panels.
    """
    if metric.panels is None:
        raise InputError(f"expected a metric with panels; {metric.name} has none")
    rows, columns = metric.panels
    figure = new_figure(6.5 * len(columns), 4.5 * len(rows), None)
    panels = figure.subplots(len(rows), len(columns), sharex=True, squeeze=False)
    found: dict[tuple[str, str, str], list[np.ndarray]] = {}
    for line in (line for photo in photos for line in photo.lines):
        if (line.metric, line.removal) == (metric.name, removal):
            at = (line.method, line.direction, line.quantity)
            found.setdefault(at, []).append(np.interp(_GRID, line.shares, line.values))
    for row, (quantity, label) in enumerate(rows):
        for column, (direction, title, below) in enumerate(columns):
            axes = panels[row, column]
            for method in methods:
                if of := found.get((method, direction, quantity)):
                    _draw_band(axes, np.stack(of), method)
            axes.set(xlim=(0, 100), ylim=(0, 1.02), ylabel=label)
            axes.grid(alpha=0.25)
            axes.spines[["top", "right"]].set_visible(False)
            if row == 0:
                axes.set_title(f"{title}, {len(photos)} photos", fontsize=10)
            if row == len(rows) - 1:
                axes.set_xlabel(below)
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside right center", frameon=False)
    return figure


def _draw_band(axes: Any, values: np.ndarray, method: str) -> None:
    style = method_style(method)
    band = aggregate_curves(values)
    axes.plot(100 * _GRID, band.mean, label=method, **style)
    if len(values) > 1:
        low, high = np.clip(band.low, 0, 1), np.clip(band.high, 0, 1)
        axes.fill_between(100 * _GRID, low, high, color=style["color"], alpha=0.08, linewidth=0)


def contact_sheet(rows: Sequence[tuple[Photo, Measured]], task: Setting, folder: epath.Path) -> Figure:
    """A row for each photo: the photo, then each method's heat map.

    The heat is a region's rank, so that all methods share one scale; regions that a method scores alike look alike.
    """
    methods = task.methods
    figure = new_figure(1.25 * (len(methods) + 1), 1.28 * len(rows) + 0.6, None)
    panels = figure.subplots(len(rows), len(methods) + 1, squeeze=False)
    credits = []
    for axes_row, (photo, measured) in zip(panels, rows, strict=True):
        try:
            picture = task.model.crop(read_photo(folder / photo.name))
        except (UnreadableError, OSError):  # the photo was there when it was measured
            picture = np.full((*measured.regions.shape, 3), 255, np.uint8)
        credits.append(photo.credit)
        axes_row[0].imshow(picture)
        axes_row[0].set_ylabel(plain(short(task.model.class_names[measured.target]), limit=17), fontsize=7)
        grey = fade(picture, 0.25)
        for i, axes in enumerate(axes_row[1:]):
            heat = _ranks(measured.scores[i, 0])
            axes.imshow(grey)
            axes.imshow(heat[measured.regions] ** 3, cmap="inferno", vmin=0, vmax=1, alpha=0.6)
    for axes, title in zip(panels[0], ("photo", *methods), strict=True):
        axes.set_title(title, fontsize=7)
    for axes in panels.flat:
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
    named = [c for c in dict.fromkeys(credits) if c]
    if named:
        figure.supxlabel(f"photos: {', '.join(plain(name) for name in named)}", fontsize=6, wrap=True)
    return figure


def _ranks(scores: np.ndarray) -> np.ndarray:
    """Heat in (0, 1], by rank: 1 for the highest score, 1 / P for the lowest; equal scores share the mean."""
    known = np.sort(-scores)
    above, end = (np.searchsorted(known, -scores, side=side) for side in ("left", "right"))
    return 1 - (above + end - 1) / 2 / len(scores)
