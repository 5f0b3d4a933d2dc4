"""Pairs as a matrix of colours; `jaxmoxi.plot.figures` says what all pictures share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from jaxmoxi.errors import InputError
from jaxmoxi.interactions.result import Interactions
from jaxmoxi.plot.sets import PALE, below, checked, count_of_sets, larger_sets, numbers, on_paper
from jaxmoxi.plot.strokes import INK, draw_caption, drawn, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["heat_map"]

_WRITTEN = 10  # players up to which the numbers stand in the cells
_FRAMED = 50  # players up to which a line around the diagonal's cells says that their scale is another


def heat_map(
    x: Interactions,
    *,
    limit: float | None = None,
    diagonal_limit: float | None = None,
    unit: str = "payoff",
    title: str | None = None,
    caption: str | None = None,
) -> Figure:
    """The values of all pairs as a matrix, those of single players on its diagonal: red above 0, blue below.

    Single players mostly have larger values than pairs, so the diagonal has a scale of its own. Both are centred at 0.
    Sets that have no value in `x` are grey. For the heat of MoXI's order over a photo, see `heatmap`.

    x:              interactions of one image (`jm.interactions`), of order 2 or more; larger sets are not drawn.
    limit:          the absolute value of a pair at the ends of its scale, > 0; None takes that of the strongest pair.
    diagonal_limit: the same for single players; `diagonal_limit=limit` gives both one scale.
    unit:           what the values are in, for the labels of the colour bars.
    caption:        a line below the picture, under the one on where the values come from.
    """
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.patches import Rectangle
    from matplotlib.ticker import MaxNLocator

    x = checked(x, pairs=True)
    for name, given in (("limit", limit), ("diagonal_limit", diagonal_limit)):
        if given is not None and not given > 0:
            raise InputError(f"{name} is the absolute value at the ends of its scale, above 0; got {given}")
    pairs, alone = _cells(x)
    colours = on_paper()
    figure = new_figure(6.2, 5.0, title)
    axes = figure.add_subplot()
    bars = (  # the first colour bar comes to stand outermost
        (alone, diagonal_limit, f"{x.index} of one player (diagonal), {unit}", "diagonal"),
        (pairs, limit, f"{x.index} of a pair, {unit}", "pairs"),
    )
    for cells, given, label, gid in bars:
        reach = given or float(np.nanmax(np.abs(cells), initial=0.0)) or 1.0
        norm = Normalize(-reach, reach)
        hidden = np.eye(len(cells), dtype=bool) if gid == "pairs" else ~np.eye(len(cells), dtype=bool)
        shown = axes.imshow(
            np.ma.masked_invalid(cells), cmap=colours, norm=norm, interpolation="none", alpha=np.where(hidden, 0.0, 1.0)
        )
        shown.set_gid(gid)
        bar = figure.colorbar(ScalarMappable(norm, colours), ax=axes, shrink=0.85, pad=0.02, aspect=26)
        bar.set_label(drawn(label, width=4.0, size=9.0), fontsize=9)
        bar.ax.tick_params(labelsize=8)
        if len(cells) <= _WRITTEN:
            _write(axes, cells, reach, ~hidden)
    if len(pairs) <= _FRAMED:
        for i in range(len(pairs)):
            axes.add_patch(Rectangle((i - 0.5, i - 0.5), 1, 1, fill=False, edgecolor=INK, linewidth=0.6))
    axes.set_title(f"{count_of_sets(x, 2):,} pairs of {x.num_players} players", fontsize=10)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=15, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=15, integer=True))
    axes.tick_params(labelsize=8, length=0 if len(pairs) <= 20 else 2)
    axes.set_xlabel("player", fontsize=9)
    axes.set_ylabel("player", fontsize=9)
    axes.spines[:].set_color(PALE)
    missing = int(np.isnan(pairs[np.triu_indices(len(pairs), 1)]).sum())
    told = [f"{missing:,} pairs without a value are grey" if missing else None, larger_sets(x)]
    draw_caption(figure, below(x, "  ·  ".join(line for line in told if line), caption))
    return figure


def _cells(x: Interactions) -> tuple[np.ndarray, np.ndarray]:
    """The values of pairs and, on the diagonal, of single players: two float[P, P] with NaN for all else."""
    sets, values = np.asarray(x.sets), np.asarray(x.values, np.float64)
    size = (sets >= 0).sum(1)
    pairs, alone = (np.full((x.num_players, x.num_players), np.nan) for _ in range(2))
    i, j = sets[size == 2, :2].T
    pairs[i, j] = pairs[j, i] = values[size == 2]
    one = sets[size == 1, 0]
    alone[one, one] = values[size == 1]
    return pairs, alone


def _write(axes: Any, cells: np.ndarray, reach: float, shown: np.ndarray) -> None:
    size = float(np.clip(56 / len(cells), 5.0, 8.0))
    places = np.argwhere(shown & np.isfinite(cells))
    values = cells[tuple(places.T)]
    for (i, j), value, text in zip(places, values, numbers(values), strict=True):
        dark = abs(value) > 0.6 * reach
        axes.text(j, i, text, ha="center", va="center", fontsize=size, color="white" if dark else INK)
