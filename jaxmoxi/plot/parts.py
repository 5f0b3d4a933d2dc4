"""A group of regions as a picture: its connected pieces, numbered, and what each of its members adds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float

from jaxmoxi.errors import InputError
from jaxmoxi.plot.pictures import Channels, Stretch
from jaxmoxi.plot.strokes import (
    GROUP,
    INK,
    Scene,
    borders,
    centroids,
    draw_caption,
    draw_group,
    draw_lines,
    draw_photo,
    drawn,
    fade,
    new_figure,
    scene_of,
)
from jaxmoxi.regions.pieces import Pieces, group_pieces, percent

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LISTED = 6  # pieces that the line below the photo tells of
_RISING, _DIVERGING = "YlOrRd", "RdYlBu_r"


def group_parts(
    photo: Any,
    regions: Any,
    group: Any,
    *,
    adds: Any = None,
    quantity: str = "payoff",
    title: str | None = None,
    caption: str | None = None,
    channels: Channels = None,
    stretch: Stretch = False,
) -> Figure:
    """A group on the photo, its connected pieces numbered and told in words; beside it what each member adds.

    photo, regions, channels, stretch: as everywhere in `jaxmoxi.plot`.
    group:    bool[P], such as `GroupResult.group`.
    adds:     float[P], what each member of the group adds, as `jm.search.member_values` tells; what stands outside the
              group is not looked at. Red adds, blue takes away; other regions stay grey, for nothing is said of them.
              None draws the photo alone.
    quantity: what `adds` counts: "payoff", "probability".
    caption:  a line below the panels.

    A warning tells of regions that lie in several parts (`jm.group_pieces`). Raises ValueError for a group or `adds` of
    another shape, and for `adds` of members that are not finite.
    """
    scene = scene_of(photo, regions, channels, stretch)
    pieces = group_pieces(group, scene.regions)
    inside = np.asarray(group)
    worth = None if adds is None else _checked(adds, inside)
    figure = new_figure(4.6 if worth is None else 9.0, 5.6, title)
    panels = np.atleast_1d(figure.subplots(1, 1 if worth is None else 2))
    _draw_pieces(panels[0], scene, inside, pieces)
    if worth is not None:
        _draw_worth(figure, panels[1], scene, inside, worth, quantity)
    draw_caption(figure, caption)
    return figure


def _checked(adds: Any, group: Bool[np.ndarray, "P"]) -> Float[np.ndarray, "P"]:
    worth = np.asarray(adds)
    if worth.shape != group.shape or worth.dtype.kind not in "iuf":
        raise InputError(
            f"expected adds float[{len(group)}], a number for each region, such as jm.search.member_values(v, group); "
            f"got {worth.dtype} of shape {worth.shape}"
        )
    broken = np.flatnonzero(group & ~np.isfinite(worth)).tolist()
    if broken:
        raise InputError(f"expected finite numbers in adds for the group's members; those of {broken[:5]} are not")
    return worth


def _draw_pieces(axes: Any, scene: Scene, group: Bool[np.ndarray, "P"], pieces: Pieces) -> None:
    draw_group(axes, scene, np.flatnonzero(group))
    axes.set_title(f"{_regions(int(group.sum()))} in {pieces}", fontsize=10)
    if pieces.count < 2:
        return
    middles = centroids(scene)
    for number in range(pieces.count):
        members = np.flatnonzero(pieces.labels == number)
        away = np.linalg.norm(middles[members] - middles[members].mean(0), axis=1)
        axes.text(
            *middles[members[np.argmin(away)]], str(number + 1), ha="center", va="center", fontsize=10, color="black",
            bbox={"boxstyle": "circle,pad=0.2", "facecolor": "white", "edgecolor": GROUP},
        )  # fmt: skip
    told = [
        f"{number + 1}: {_regions(size)}, {percent(share)}"
        for number, (size, share) in enumerate(zip(pieces.sizes, pieces.shares, strict=True))
    ]
    more = len(told) - _LISTED
    text = ";  ".join(told[:_LISTED]) + (f";  and {more} more" if more > 0 else "")
    axes.set_xlabel(drawn(text, width=4.2, size=8.0), fontsize=8, color=INK)


def _draw_worth(
    figure: Any, axes: Any, scene: Scene, group: Bool[np.ndarray, "P"], worth: Float[np.ndarray, "P"], quantity: str
) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    most = float(np.abs(worth[group]).max(initial=0)) or 1.0
    rising = not (worth[group] < 0).any()
    colours, norm = (_RISING, Normalize(0, most)) if rising else (_DIVERGING, Normalize(-most, most))
    inside = group[scene.regions]
    draw_photo(axes, fade(scene.photo, 0.35), f"what each adds to the {drawn(quantity)}")
    heats = np.where(group, worth, 0)[scene.regions]
    axes.imshow(heats, cmap=colours, norm=norm, alpha=np.where(inside, 0.75, 0.0), interpolation="none")
    draw_lines(axes, borders(np.where(inside, scene.regions, -1)), "white", 0.6)
    below = axes.inset_axes((0.0, -0.065, 1.0, 0.035))
    bar = figure.colorbar(ScalarMappable(norm, colours), cax=below, orientation="horizontal")
    bar.solids.set_alpha(0.85)
    bar.outline.set_visible(False)
    ticks = [0, most] if rising else [-most, 0, most]
    bar.set_ticks(ticks, labels=[f"{tick:.3g}" for tick in ticks])
    for label, side in zip(below.get_xticklabels(), ("left", "center", "right")[-len(ticks) :], strict=True):
        label.set_horizontalalignment(side)
    below.get_xticklabels()[0].set_horizontalalignment("left")
    below.tick_params(labelsize=8, length=0)


def _regions(count: int) -> str:
    return f"{count} region{'' if count == 1 else 's'}"
