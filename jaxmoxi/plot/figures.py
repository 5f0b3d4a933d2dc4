"""Pictures of explanations, as `matplotlib.figure.Figure`s: save one with `figure.savefig(path)`.

No function uses pyplot, so no window opens, no global state changes and no display is needed. Matplotlib is imported
inside the functions, because the import takes most of a second and most users of this package never draw.

In every function

    photo:   what the model sees, as `model.crop(photo)` makes it: uint8[H, W, 3]. Or [H, W], [H, W, 1] or [H, W, C]
             of any numbers, as `jaxmoxi.plot.picture` takes it.
    channels, stretch: what is drawn of a photo that is no uint8[H, W, 3]: which channels, and from which level of black
             to which of white. See `jaxmoxi.plot.picture`.
    regions: int32[H, W], labels 0 .. P-1 (see `regions`).
    result:  a `GreedyResult` of one image, or the order alone: int[<=P], players in the order chosen.
    upto:    how much of the order to show. "flip" (default) is the paper's choice: the players chosen until the
             prediction flips, which is the first size at which the explained class leads (insertion) or no longer
             leads (deletion). If the prediction never flips, or the result does not know who leads, all players chosen
             are shown. "all" shows all players chosen; an integer n in 1 .. number chosen shows the first n.

Titles, captions and names are drawn letter by letter: `$` and `\\` are no mathematics.
A ValueError names the argument that does not fit the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from jaxmoxi.errors import InputError
from jaxmoxi.escape import plain
from jaxmoxi.moxi.curves import area_under
from jaxmoxi.plot.chosen import chosen_players, flip_size, heat
from jaxmoxi.plot.pictures import Channels, Stretch
from jaxmoxi.plot.strokes import (
    borders,
    draw_caption,
    draw_group,
    draw_heat,
    draw_lines,
    draw_photo,
    draw_removed,
    draw_search,
    drawn,
    new_figure,
    scene_of,
    style,
)
from jaxmoxi.types import Curve, GreedyResult

if TYPE_CHECKING:
    from matplotlib.figure import Figure


__all__ = ["curves", "explanation", "group", "groups", "heatmap"]


def heatmap(
    photo: Any,
    regions: Any,
    result: Any,
    *,
    upto: Any = "flip",
    title: str | None = None,
    channels: Channels = None,
    stretch: Stretch = False,
) -> Figure:
    """MoXI's heat map over the photo: the earlier a region was chosen, the hotter (`heat`)."""
    scene = scene_of(photo, regions, channels, stretch)
    figure = new_figure(4.6, 4.9, title)
    axes = figure.add_subplot()
    draw_heat(figure, axes, scene, heat(result, scene.num_players, upto=upto))
    return figure


def group(
    photo: Any,
    regions: Any,
    result: Any,
    *,
    upto: Any = "flip",
    title: str | None = None,
    channels: Channels = None,
    stretch: Stretch = False,
) -> Figure:
    """The chosen group: the other regions fade to grey, and a line runs around the group."""
    scene = scene_of(photo, regions, channels, stretch)
    figure = new_figure(4.6, 4.7, title)
    axes = figure.add_subplot()
    draw_group(axes, scene, chosen_players(result, scene.num_players, upto))
    return figure


def explanation(
    photo: Any,
    regions: Any,
    result: GreedyResult,
    *,
    target: str = "the class",
    upto: Any = "flip",
    heat_upto: Any = None,
    title: str | None = None,
    caption: str | None = None,
    whole: float | None = None,
    place: str = "the top class",
    channels: Channels = None,
    stretch: Stretch = False,
) -> Figure:
    """One search in four panels: the players, the heat map, the group, and the probability while the group grows.

    result:  a `GreedyResult`. Without probabilities the last panel shows the payoff.
    target:  the explained class's name, for the labels.
    upto:    what the group shows. The heat map shows the same, unless `heat_upto` is given.
    caption: a line below the panels, for credits and settings.
    whole:   the probability of the class in the whole photo, in [0, 1], drawn as a level; None draws no level.
    place:   what a class is that leads; of independent labels (link "sigmoid") "above 50 %".
    """
    if not isinstance(result, GreedyResult):
        raise InputError(
            f"expected a GreedyResult; got {type(result).__name__}: for an order alone use heatmap or group"
        )
    scene = scene_of(photo, regions, channels, stretch)
    players = chosen_players(result, scene.num_players, upto)
    heats = heat(result, scene.num_players, upto=upto if heat_upto is None else heat_upto)
    figure = new_figure(14.0, 4.35, title)
    panels = figure.subplots(1, 4, width_ratios=[1, 1, 1, 1.15])
    draw_photo(panels[0], scene.photo, f"{scene.num_players} regions")
    draw_lines(panels[0], borders(scene.regions), "white", 0.6)
    draw_heat(figure, panels[1], scene, heats)
    draw_group(panels[2], scene, players)
    verb = "inserted" if result.insertion else "deleted"
    panels[1].set_title(f"{_regions(int(np.count_nonzero(heats)))} {verb}, in order", fontsize=10)
    what = "alone" if result.insertion else "that were deleted"
    panels[2].set_title(f"the {_regions(len(players))} {what}", fontsize=10)
    panels[3].set_box_aspect(scene.photo.shape[0] / scene.photo.shape[1] / 1.15)
    draw_search(panels[3], result, flip_size(result), target, whole, place)
    draw_caption(figure, caption)
    return figure


def groups(
    photo: Any,
    regions: Any,
    groups: Any,
    *,
    hidden: Sequence[bool] | None = None,
    titles: Sequence[str] | None = None,
    title: str | None = None,
    caption: str | None = None,
    channels: Channels = None,
    stretch: Stretch = False,
) -> Figure:
    """The players, and beside them one group or several: the other regions fade to grey, a line runs around the group.

    groups:  bool[P] or bool[G, P], G >= 1, such as `GroupResult.group` and `BeamResult.minimal`.
    hidden:  for each group whether it is hidden, as a necessary group is: the photo is then drawn as it is, and the
             group in red. None: no group is.
    titles:  one for each group; None writes how many regions it has.
    caption: a line below the panels.
    """
    scene = scene_of(photo, regions, channels, stretch)
    rows = np.atleast_2d(np.asarray(groups))
    if rows.dtype != bool or rows.ndim != 2 or rows.shape[1] != scene.num_players or not len(rows):
        raise InputError(
            f"expected groups bool[{scene.num_players}] or bool[G, {scene.num_players}], at least one; got "
            f"{rows.dtype} of shape {np.shape(groups)}"
        )
    if titles is not None and len(titles) != len(rows):
        raise InputError(f"expected a title for each of the {len(rows)} groups; got {len(titles)}")
    if hidden is not None and len(hidden) != len(rows):
        raise InputError(f"expected hidden to say it of each of the {len(rows)} groups; got {len(hidden)}")
    figure = new_figure(3.5 * (len(rows) + 1), 4.2, title)
    panels = figure.subplots(1, len(rows) + 1)
    draw_photo(panels[0], scene.photo, f"{scene.num_players} regions")
    draw_lines(panels[0], borders(scene.regions), "white", 0.6)
    for i, (axes, row) in enumerate(zip(panels[1:], rows, strict=True)):
        draw = draw_removed if hidden is not None and hidden[i] else draw_group
        draw(axes, scene, np.flatnonzero(row))
        name = _regions(int(row.sum())) if titles is None else drawn(titles[i], width=3.4, size=10.0)
        axes.set_title(name, fontsize=10)
    draw_caption(figure, caption)
    return figure


def curves(
    named: Mapping[str, Curve],
    *,
    quantity: Literal["payoff", "probability"] = "payoff",
    title: str | None = None,
) -> Figure:
    """Insertion or deletion curves over the share of regions, with the area under each in the legend.

    named:    what to call each `Curve`; each of one image, all over the same share (of players, or of pixels).
    quantity: "payoff", or "probability" where every curve knows it.
    """
    if not named:
        raise InputError("expected at least one curve, {name: insertion_curve(...)}; got none")
    if quantity not in ("payoff", "probability"):
        raise InputError(f"expected a quantity of 'payoff' or 'probability'; got {quantity!r}")
    kinds = {curve.share for curve in named.values()}
    if len(kinds) > 1:
        raise InputError("expected curves over the same share; got some over players and some over pixels")
    figure = new_figure(5.2, 3.8, title)
    axes = figure.add_subplot()
    for name, curve in named.items():
        heights = np.asarray(curve.values) if quantity == "payoff" else curve.probabilities
        if heights is None:
            raise InputError(
                f"the curve {name!r} has no probabilities, as its value function does not give them; draw the payoff"
            )
        heights = np.asarray(heights)
        if heights.ndim != 1 or len(heights) < 2:
            raise InputError(f"expected the curve of one image, [P+1]; {name!r} has shape {heights.shape}")
        shares = np.linspace(0, 1, len(heights)) if curve.shares is None else np.asarray(curve.shares)
        area = float(curve.area if quantity == "payoff" else area_under(heights, shares))
        axes.plot(shares, heights, linewidth=1.8, label=f"{plain(name, limit=60)} (area {area:.3f})")
    of = {"players": "regions", "pixels": "pixels"}[kinds.pop()]
    style(axes, f"share of {of} inserted or deleted", "payoff" if quantity == "payoff" else "probability")
    axes.set_xlim(0, 1)
    if quantity == "probability":
        axes.set_ylim(-0.02, 1.02)
    axes.legend(fontsize=8, frameon=False)
    return figure


def _regions(count: int) -> str:
    return f"{count} region{'' if count == 1 else 's'}"
