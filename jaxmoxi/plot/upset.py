"""The strongest sets of any order as an UpSet plot; `jaxmoxi.plot.figures` says what all pictures share.

Source: Lex et al., "UpSet: Visualization of Intersecting Sets", IEEE TVCG 2014.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from jaxmoxi.errors import InputError
from jaxmoxi.interactions.result import Interactions
from jaxmoxi.plot.pictures import Channels, Stretch
from jaxmoxi.plot.sets import (
    LESS,
    MORE,
    PALE,
    bar_handles,
    below,
    check_count,
    checked,
    count_of_sets,
    error_handle,
    members_of,
    number,
)
from jaxmoxi.plot.strokes import (
    INK,
    Scene,
    borders,
    centroids,
    draw_caption,
    draw_lines,
    draw_photo,
    drawn,
    fade,
    new_figure,
    scene_of,
    style,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["upset"]

_COLUMN, _ROW, _BARS, _MAP = 0.3, 0.17, 2.3, 3.2  # inches


def upset(
    x: Interactions,
    *,
    k: int = 15,
    size: int | None = None,
    photo: Any = None,
    regions: Any = None,
    unit: str = "payoff",
    title: str | None = None,
    caption: str | None = None,
    channels: Channels = None,
    stretch: Stretch = False,
) -> Figure:
    """The k strongest sets, of any order: a bar for each, and below it a dot for each player in the set.

    Bars above 0 are red, below 0 blue. Whiskers are one standard error to each side, where `x` has them.

    x:       interactions of one image (`jm.interactions`), of any order.
    k:       how many sets to draw, >= 1, by their absolute value; fewer where there are no more.
    size:    only sets of so many players, 1 .. x.order; None takes all.
    photo, regions: together, a map beside the bars of which region a number is. Left out: no map.
    unit:    what the values are in, for the label of the axis.
    caption: a line below the picture, under the one on where the values come from.
    """
    x = checked(x)
    k = check_count("k", "sets", k)
    scene = _map_of(x, photo, regions, channels, stretch)
    top = x.top(k, size=size)
    if not len(top.values):
        raise InputError(f"there is no set of {size} players among the {len(x.values)} of x")
    players = sorted({i for members in members_of(top) for i in members})
    columns, rows = len(top.values), len(players)

    dots = max(rows * _ROW, 0.3)
    left = max(columns * _COLUMN, 3.6) + 0.9
    figure = new_figure(left + (_MAP if scene else 0.0), max(_BARS + dots + 1.1, 4.2 if scene else 0.0), title)
    grid = figure.add_gridspec(
        2, 2 if scene else 1, height_ratios=[_BARS, dots], width_ratios=[left, _MAP] if scene else None, hspace=0.02
    )
    bars = figure.add_subplot(grid[0, 0])
    matrix = figure.add_subplot(grid[1, 0], sharex=bars)
    _draw_bars(bars, top, unit)
    of = "sets" if size is None else f"sets of {size}"
    total = count_of_sets(x, size)
    bars.set_title(
        f"{'all' if columns == total else f'the strongest {columns} of'} {total:,} {of}", fontsize=10, pad=20
    )
    _draw_members(matrix, members_of(top), players)
    if scene:
        _draw_map(figure.add_subplot(grid[:, 1]), scene, players)
    draw_caption(figure, below(x, caption))
    return figure


def _map_of(x: Interactions, photo: Any, regions: Any, channels: Channels, stretch: Stretch) -> Scene | None:
    if (photo is None) != (regions is None):
        raise InputError("a map needs both, photo= and regions=; got one of them")
    if photo is None:
        return None
    scene = scene_of(photo, regions, channels, stretch)
    if x.num_players != scene.num_players:
        raise InputError(f"the interactions are of {x.num_players} players, the regions are {scene.num_players}")
    return scene


def _draw_bars(axes: Any, top: Interactions, unit: str) -> None:
    values = np.asarray(top.values, np.float64)
    places = np.arange(len(values))
    bars = axes.bar(places, values, 0.72, color=np.where(values >= 0, MORE, LESS))
    for bar in bars:
        bar.set_gid("set")
    handles = bar_handles()
    if top.standard_errors is not None:
        errors = np.asarray(top.standard_errors, np.float64)
        axes.errorbar(places, values, errors, fmt="none", ecolor=INK, elinewidth=1.0, capsize=2.0)
        handles.append(error_handle())
    axes.axhline(0, color=INK, linewidth=0.8)
    style(axes, "", drawn(f"{top.index}, {unit}", width=_BARS + 0.3, size=9.0))
    axes.yaxis.set_major_formatter(lambda y, _: number(y, sign=False))  # no factor, which would lie under the legend
    axes.grid(visible=False, axis="x")
    axes.spines["bottom"].set_visible(False)
    axes.tick_params(axis="x", length=0, labelbottom=False)
    axes.set_xlim(-0.6, max(len(values), 3) - 0.4)
    axes.legend(
        handles=handles, loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=3, fontsize=8, frameon=False,
        borderaxespad=0.2, columnspacing=1.2, handlelength=1.4,
    )  # fmt: skip


def _draw_members(axes: Any, sets: list[list[int]], players: list[int]) -> None:
    row = {player: i for i, player in enumerate(players)}
    for i in range(0, len(players), 2):
        axes.axhspan(i - 0.5, i + 0.5, color="#f4f4f4", zorder=0)
    across, down = np.meshgrid(np.arange(len(sets)), np.arange(len(players)))
    axes.scatter(across, down, s=14, color=PALE, zorder=1)
    for column, members in enumerate(sets):
        at = [row[i] for i in members]
        axes.plot([column] * len(at), at, color=INK, marker="o", markersize=5, linewidth=1.3, zorder=2, gid="members")
    axes.set_ylim(len(players) - 0.5, -0.5)
    axes.set_yticks(range(len(players)), labels=[str(i) for i in players], fontsize=7)
    axes.set_ylabel("player", fontsize=9)
    axes.tick_params(length=0)
    axes.tick_params(axis="x", labelbottom=False)
    axes.spines[:].set_visible(False)


def _draw_map(axes: Any, scene: Scene, players: list[int]) -> None:
    """The photo, faded where no set has a player, and the numbers of those that have."""
    from matplotlib.patheffects import withStroke

    inside = np.isin(scene.regions, players)
    faded = np.where(inside[..., None], fade(scene.photo, 0.0), fade(scene.photo, 0.7))
    draw_photo(axes, faded, "which player is where")
    draw_lines(axes, borders(scene.regions), "white", 0.4)
    middles = centroids(scene)
    size = float(np.clip(72 * _MAP * 0.28 / np.sqrt(scene.num_players), 5.0, 10.0))
    for i in players:
        axes.annotate(str(i), middles[i], ha="center", va="center", fontsize=size, color="black",
                      path_effects=[withStroke(linewidth=1.6, foreground="white")])  # fmt: skip
