"""An index of order 2 or more as a network over the photo; `jaxmoxi.plot.figures` says what all pictures share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from jaxmoxi.errors import InputError
from jaxmoxi.interactions.result import Interactions
from jaxmoxi.plot.pictures import Channels, Stretch
from jaxmoxi.plot.sets import (
    LESS,
    MORE,
    below,
    check_count,
    checked,
    count_of_sets,
    for_edges,
    larger_sets,
    number,
    sign_words,
)
from jaxmoxi.plot.strokes import (
    INK,
    borders,
    bow,
    centroids,
    draw_lines,
    draw_photo,
    drawn,
    fade,
    new_figure,
    scene_of,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["interaction_network"]

_SIDE = 4.5  # inches of the photo's longer side
_LARGEST = 22.0  # points across a node
_EDGES = 30


def interaction_network(
    photo: Any,
    regions: Any,
    x: Interactions,
    *,
    edges: int | None = None,
    limit: float | None = None,
    unit: str = "payoff",
    title: str | None = None,
    caption: str | None = None,
    channels: Channels = None,
    stretch: Stretch = False,
) -> Figure:
    """Single players as nodes at the centroids of their regions, and the strongest pairs as edges between them.

    The area of a node says how large its first-order value is, its colour which sign it has. An edge is red where the
    two do more together than alone (synergy, above 0) and blue where they do less (redundancy); the stronger, the wider
    and the more opaque. Players of an edge have their numbers. What is drawn of how many stands above the picture; sets
    of three and more are not.

    x:       interactions of one image (`jm.interactions`), of order 2 or more, of as many players as regions.
    edges:   how many pairs to draw, >= 1, by their absolute value; None draws two for each player, at most 30. Pairs of
             the value 0 are never drawn.
    limit:   the absolute value of a pair at the ends of the colour scale, > 0, to compare pictures; None takes that of
             the strongest pair.
    unit:    what the values are in, for the labels: "log-odds of 'cat'".
    caption: a line below the picture, under the one on where the values come from.
    """
    from matplotlib.cm import ScalarMappable
    from matplotlib.collections import LineCollection
    from matplotlib.colors import Normalize

    scene = scene_of(photo, regions, channels, stretch)
    x = checked(x, pairs=True)
    edges = min(_EDGES, 2 * x.num_players) if edges is None else check_count("edges", "pairs", edges)
    if x.num_players != scene.num_players:
        raise InputError(f"the interactions are of {x.num_players} players, the regions are {scene.num_players}")
    if limit is not None and not limit > 0:
        raise InputError(f"limit is the absolute value at the ends of the colour scale, above 0; got {limit}")

    pairs, values = _strongest(x, edges)
    first = np.asarray(x.first_order(), np.float64)
    reach = limit or float(np.abs(values).max(initial=0.0)) or 1.0
    share = np.minimum(np.abs(values) / reach, 1)
    colours, norm = for_edges(), Normalize(-reach, reach)

    tall, wide = (_SIDE * side / max(scene.photo.shape[:2]) for side in scene.photo.shape[:2])
    width = max(wide, 3.4) + 1.4
    lines_below = drawn(below(x, larger_sets(x), caption), width=width - 0.8, size=8.0)
    height = tall + 1.1 + 0.16 * (lines_below.count("\n") + 1) + 0.2 * bool(title)
    figure = new_figure(width, height, _told(x, values, title))
    axes = figure.add_subplot()
    draw_photo(axes, fade(scene.photo, 0.45), "")
    draw_lines(axes, borders(scene.regions), "white", 0.3)
    middles = centroids(scene)
    if len(values):
        paths, widths = list(bow(_inwards(middles[pairs], scene.photo.shape))), 0.8 + 3.2 * share
        casing = LineCollection(paths, colors="white", linewidths=widths + 1.4, alpha=0.3 + 0.5 * share, zorder=3)
        lines = LineCollection(
            paths, colors=colours(norm(values)), linewidths=widths, alpha=0.6 + 0.4 * share, zorder=4, gid="edges"
        )
        axes.add_collection(casing)
        axes.add_collection(lines)
    axes.set(xlim=(-0.5, scene.photo.shape[1] - 0.5), ylim=(scene.photo.shape[0] - 0.5, -0.5))
    spacing = np.sqrt(tall * wide / len(first)) * 72  # points between neighbours of a grid
    across = min(_LARGEST, 0.8 * spacing)
    _draw_nodes(axes, middles, first, across, np.unique(pairs))
    if len(values):
        bar = figure.colorbar(ScalarMappable(norm, colours), ax=axes, shrink=0.8, pad=0.02, aspect=30)
        bar.set_label(drawn(f"{x.index} of a pair, {unit}", width=0.8 * tall, size=9.0), fontsize=9)
        bar.ax.tick_params(labelsize=8)
    _draw_legend(figure, x, values, first, across)
    axes.set_xlabel(lines_below, fontsize=8, color=INK)  # a label of the figure would lie under the legend
    return figure


def _strongest(x: Interactions, edges: int) -> tuple[np.ndarray, np.ndarray]:
    """The players int[E, 2] and the values float[E] of the strongest pairs, the strongest last, on top."""
    sets, values = np.asarray(x.sets), np.asarray(x.values, np.float64)
    pairs = np.flatnonzero(((sets >= 0).sum(1) == 2) & (values != 0))
    chosen = pairs[np.argsort(-np.abs(values[pairs]), kind="stable")[:edges][::-1]]
    return sets[chosen, :2], values[chosen]


def _inwards(ends: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The ends [E, 2, (x, y)] of edges, in the order in which an edge bends to the middle of the photo, not out."""
    start, stop = ends[:, 0], ends[:, 1]
    to_middle = np.array([shape[1] - 1, shape[0] - 1]) / 2 - (start + stop) / 2
    across = (stop - start)[:, ::-1] * np.array([-1, 1])
    out = (across * to_middle).sum(1) < 0
    return np.where(out[:, None, None], ends[:, ::-1], ends)


def _told(x: Interactions, values: np.ndarray, title: str | None) -> str:
    """The title, and how many of how many pairs are drawn."""
    total = count_of_sets(x, 2)
    least = number(np.abs(values).min(initial=np.inf), sign=False)
    told = f"the strongest {len(values)} of {total:,} pairs, from {least} on"
    if len(values) == total:
        told = f"all {total:,} pairs"
    if not len(values):
        told = "no pair interacts"
    return f"{title}\n{told}" if title else told


def _draw_nodes(axes: Any, middles: np.ndarray, first: np.ndarray, across: float, joined: np.ndarray) -> None:
    """The nodes, of `across` points for the largest, and the numbers of those that an edge joins."""
    from matplotlib.patheffects import withStroke

    share = np.abs(first) / (np.abs(first).max() or 1.0)
    for sign, colour in ((1, MORE), (-1, LESS)):
        these = np.flatnonzero(np.sign(first) == sign)
        dots = axes.scatter(*middles[these].T, s=across**2 * share[these], color=colour, edgecolors="white",
                            linewidths=0.5, alpha=0.85, zorder=5)  # fmt: skip
        dots.set_gid("nodes above 0" if sign > 0 else "nodes below 0")
    radii = across * np.sqrt(share) / 2
    small = joined[radii[joined] < 2]
    axes.scatter(*middles[small].T, s=5, color="white", edgecolors=INK, linewidths=0.5, zorder=6)
    size = float(np.clip(across / 3, 5.0, 8.0))
    outline = [withStroke(linewidth=1.6, foreground="white")]
    for i in joined:
        away = 0.7 * radii[i] + 1
        axes.annotate(str(i), middles[i], (away, away), textcoords="offset points", ha="left", va="bottom",
                      fontsize=size, color="black", path_effects=outline, zorder=7)  # fmt: skip


def _draw_legend(figure: Any, x: Interactions, values: np.ndarray, first: np.ndarray, across: float) -> None:
    from matplotlib.lines import Line2D

    largest = float(np.abs(first).max())
    more, less = sign_words(x)
    found = {sign: int((np.sign(values) == sign).sum()) for sign in (1, -1)}
    handles: list[Any] = [
        Line2D([], [], color=MORE, linewidth=3, label=f"{more} ({found[1]})"),
        Line2D([], [], color=LESS, linewidth=3, label=f"{less} ({found[-1]})"),
    ]
    for colour, value in ((MORE, float(first.max())), (LESS, float(first.min()))):
        if value * (1 if colour == MORE else -1) > 0:
            wide = max(3.0, across * np.sqrt(abs(value) / largest))
            handles.append(
                Line2D([], [], color=colour, marker="o", linestyle="", markersize=wide, markeredgecolor="white",
                       label=f"alone, up to {number(value)}")
            )  # fmt: skip
    figure.legend(
        handles=handles, loc="outside lower center", ncols=2, fontsize=8, frameon=False, labelspacing=1.3,
        columnspacing=2.0, borderaxespad=0.2, borderpad=0.6,
    )  # fmt: skip
