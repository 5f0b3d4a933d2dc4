"""The picture of a class against the one that the model predicts: what hides it, and what it rests on.

Arguments that all pictures share are those of `jaxmoxi.plot.figures`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from jaxmoxi.errors import InputError
from jaxmoxi.escape import plain
from jaxmoxi.plot.pictures import Channels, Stretch
from jaxmoxi.plot.strokes import (
    FLIP,
    GROUP,
    INK,
    Scene,
    borders,
    draw_caption,
    draw_lines,
    draw_photo,
    draw_removed,
    drawn,
    fade,
    new_figure,
    scene_of,
    style,
)
from jaxmoxi.types import Discrimination, TwoClasses

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_TARGET = "#007ea7"


def discrimination(
    photo: Any,
    regions: Any,
    result: Discrimination,
    *,
    target: str = "the target",
    predicted: str = "the prediction",
    title: str | None = None,
    caption: str | None = None,
    channels: Channels = None,
    stretch: Stretch = False,
) -> Figure:
    """`discriminate` in four panels: the players, what was removed, what the target needs of the rest, both classes.

    result:    a `Discrimination` of one image.
    target:    the name of the class asked about; predicted: of the class that the model predicts.
    caption:   a line below the panels, for credits and settings.

    Removed regions are red, needed ones have a blue outline. Of a target that never reaches the goal, those are red
    that are removed where it is at its highest. Without probabilities the last panel shows the payoffs.
    Raises InputError for a result that is no `Discrimination`, or not of these regions.
    """
    scene = scene_of(photo, regions, channels, stretch)
    if not isinstance(result, Discrimination):
        raise InputError(f"expected a Discrimination, as jaxmoxi.discriminate returns it; got {type(result).__name__}")
    if np.shape(result.removed) != (scene.num_players,):
        raise InputError(
            f"expected the result of one image of {scene.num_players} regions; its orders have the shape "
            f"{list(np.shape(result.removed))}"
        )
    searched = not np.isnan(np.asarray(result.needing.target_values)[0])
    removed = np.asarray(result.removed)[: int(result.num_removed) if searched else _best(result.removing)]
    needed = np.asarray(result.needed)[: int(result.num_needed)]
    figure = new_figure(14.0, 4.6, title)
    panels = figure.subplots(1, 4, width_ratios=[1, 1, 1, 1.15])
    draw_photo(panels[0], scene.photo, "")
    draw_lines(panels[0], borders(scene.regions), "white", 0.6)
    draw_removed(panels[1], scene, removed)
    _draw_needed(panels[2], scene, removed, needed)
    names = [plain(name, limit=24) for name in (target, predicted)]
    last = (
        f"{_regions(len(needed))} of the rest, alone" if result.insertion else f"{_regions(len(needed))} more removed"
    )
    never = [f"{names[0]} is at its highest there,", "and misses the goal"]
    told = [
        [f"the photo, {_regions(scene.num_players)}", *_levels(result.removing, 0, names)],
        [f"{_regions(len(removed))} removed", *_levels(result.removing, len(removed), names)],
        [last, *_levels(result.needing, len(needed), names)] if searched else never,
    ]
    for axes, lines in zip(panels[:3], told, strict=True):
        axes.set_title(drawn("\n".join(lines), width=3.4, size=9.5), fontsize=9.5)
    panels[3].set_box_aspect(scene.photo.shape[0] / scene.photo.shape[1] / 1.15)
    _draw_both(panels[3], result, names)
    draw_caption(figure, caption)
    return figure


def _draw_needed(axes: Any, scene: Scene, removed: np.ndarray, needed: np.ndarray) -> None:
    """What is left, faded but for the regions needed, which are outlined; what was removed is pale red."""
    inside, gone = np.isin(scene.regions, needed), np.isin(scene.regions, removed)
    rest = np.where(gone[..., None], np.array([243, 205, 208], np.uint8), fade(scene.photo, 0.55))
    draw_photo(axes, np.where(inside[..., None], scene.photo, rest), "")
    draw_lines(axes, borders(np.pad(inside, 1).astype(np.int8), origin=-1), GROUP, 2.0)


def _best(along: TwoClasses) -> int:
    """After how many choices the target is at its highest."""
    told = along.target_values if along.target_probabilities is None else along.target_probabilities
    return int(np.nanargmax(np.asarray(told)))


def _levels(along: TwoClasses, size: int, names: list[str]) -> list[str]:
    """The probabilities of the two classes after so many choices, one line each; none where they are not known."""
    both = (along.target_probabilities, along.predicted_probabilities)
    return [f"{name}: {_percent(float(p[size]))}" for name, p in zip(names, both, strict=True) if p is not None]


def _draw_both(axes: Any, result: Discrimination, names: list[str]) -> None:
    """Both classes while phase one removes, and through phase two where it removes too."""
    from matplotlib.ticker import MaxNLocator

    known = result.removing.target_probabilities is not None and result.removing.predicted_probabilities is not None
    size, more = int(result.num_removed), 0 if result.insertion else int(result.num_needed)

    def rows(along: TwoClasses) -> tuple[np.ndarray, np.ndarray]:
        if along.target_probabilities is not None and along.predicted_probabilities is not None:
            return np.asarray(along.target_probabilities), np.asarray(along.predicted_probabilities)
        return np.asarray(along.target_values), np.asarray(along.predicted_values)

    def along(first: Any, second: Any) -> np.ndarray:
        return np.concatenate([np.asarray(first)[: size + 1], np.asarray(second)[1 : more + 1]])

    both = [along(*pair) for pair in zip(rows(result.removing), rows(result.needing), strict=True)]
    marker = 3 if len(both[0]) <= 40 else 0
    for name, colour, heights in zip(names, (_TARGET, INK), both, strict=True):
        axes.plot(
            np.arange(len(heights)), heights, color=colour, linewidth=1.6, marker="o", markersize=marker, label=name
        )
    short = np.flatnonzero((both[0] > both[1]) & ~along(result.removing.leads, result.needing.leads))
    if len(short):  # a third class is above both, or (of independent labels) the target is not more likely than not
        at = {"linestyle": "none", "marker": "o", "markersize": 6, "markeredgecolor": _TARGET}
        axes.plot(short, both[0][short], markerfacecolor="white", label="higher, but does not lead", **at)
    style(axes, "regions removed", "probability" if known else "payoff")
    if known:
        axes.set_ylim(0, 1.05)
    leads = np.flatnonzero(np.asarray(result.removing.leads)[: size + 1])
    if len(leads):  # another goal than the lead may be met before it, or after
        axes.axvline(leads[0], color=FLIP, linewidth=1.0, linestyle="--")
        where = f"leads with {leads[0]} removed" if leads[0] else "leads from the start"
        axes.set_title(drawn(f"{names[0]} {where}", width=3.6, size=9.5), fontsize=9.5, color=FLIP)
    axes.legend(fontsize=8, frameon=False)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=7))


def _regions(count: int) -> str:
    return f"{count} region{'' if count == 1 else 's'}"


def _percent(share: float) -> str:
    if share < 0.0005 or share > 0.9995:
        return "under 0.1 %" if share < 0.5 else "over 99.9 %"
    return f"{100 * share:.{0 if 0.01 <= share <= 0.99 else 1}f} %"
