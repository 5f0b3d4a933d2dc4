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
from jaxmoxi.plot.pictures import Channels, Stretch, picture
from jaxmoxi.plot.strokes import (
    FLIP,
    INK,
    Scene,
    borders,
    bow,
    centroids,
    draw_caption,
    draw_group,
    draw_heat,
    draw_lines,
    draw_photo,
    draw_search,
    drawn,
    fade,
    new_figure,
    style,
)
from jaxmoxi.regions.label_maps import count_regions
from jaxmoxi.types import Curve, GreedyResult

if TYPE_CHECKING:
    from matplotlib.figure import Figure


__all__ = ["curves", "explanation", "group", "groups", "heatmap", "interactions"]


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
    scene = _scene(photo, regions, channels, stretch)
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
    scene = _scene(photo, regions, channels, stretch)
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
    scene = _scene(photo, regions, channels, stretch)
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
    titles: Sequence[str] | None = None,
    title: str | None = None,
    caption: str | None = None,
    channels: Channels = None,
    stretch: Stretch = False,
) -> Figure:
    """The players, and beside them one group or several: the other regions fade to grey, a line runs around the group.

    groups:  bool[P] or bool[G, P], G >= 1, such as `GroupResult.group` and `BeamResult.minimal`.
    titles:  one for each group; None writes how many regions it has.
    caption: a line below the panels.
    """
    scene = _scene(photo, regions, channels, stretch)
    rows = np.atleast_2d(np.asarray(groups))
    if rows.dtype != bool or rows.ndim != 2 or rows.shape[1] != scene.num_players or not len(rows):
        raise InputError(
            f"expected groups bool[{scene.num_players}] or bool[G, {scene.num_players}], at least one; got "
            f"{rows.dtype} of shape {np.shape(groups)}"
        )
    if titles is not None and len(titles) != len(rows):
        raise InputError(f"expected a title for each of the {len(rows)} groups; got {len(titles)}")
    figure = new_figure(3.5 * (len(rows) + 1), 4.2, title)
    panels = figure.subplots(1, len(rows) + 1)
    draw_photo(panels[0], scene.photo, f"{scene.num_players} regions")
    draw_lines(panels[0], borders(scene.regions), "white", 0.6)
    for i, (axes, row) in enumerate(zip(panels[1:], rows, strict=True)):
        draw_group(axes, scene, np.flatnonzero(row))
        name = _regions(int(row.sum())) if titles is None else drawn(titles[i], width=3.4, size=10.0)
        axes.set_title(name, fontsize=10)
    draw_caption(figure, caption)
    return figure


def interactions(
    photo: Any,
    regions: Any,
    matrix: Any,
    *,
    top: int = 30,
    limit: float | None = None,
    title: str | None = None,
    channels: Channels = None,
    stretch: Stretch = False,
) -> Figure:
    """The strongest pairwise interactions as lines between the regions' centroids.

    A red pair does more together than the sum of each alone (synergy, I > 0), a blue pair less (redundancy, I < 0). The
    stronger an interaction, the wider and the more opaque the line.

    matrix: float[P, P], symmetric (`pairwise_interactions`); the diagonal is ignored.
    top:    how many pairs to draw, >= 1, by |I|. Pairs that do not interact are never drawn.
    limit:  |I| at the ends of the colour scale, > 0, to compare pictures; None takes that of the strongest pair.
    """
    from matplotlib.cm import ScalarMappable
    from matplotlib.collections import LineCollection
    from matplotlib.colors import LinearSegmentedColormap, Normalize
    from matplotlib.lines import Line2D

    scene = _scene(photo, regions, channels, stretch)
    count = scene.num_players
    matrix = np.array(matrix, np.float64)
    if matrix.shape != (count, count):
        raise InputError(f"expected interactions of {count} x {count} players; got shape {matrix.shape}")
    np.fill_diagonal(matrix, 0.0)
    if not np.isfinite(matrix).all() or np.abs(matrix - matrix.T).max() > 1e-3 * np.abs(matrix).max():
        raise InputError("expected a symmetric matrix of finite interactions, such as pairwise_interactions returns")
    if top < 1:
        raise InputError(f"top is how many pairs to draw, at least 1; got {top}")
    if limit is not None and not limit > 0:
        raise InputError(f"limit is the |interaction| at the ends of the colour scale, above 0; got {limit}")

    first, second = np.triu_indices(count, 1)
    strength = np.abs(matrix[first, second])
    strongest = np.argsort(-strength, kind="stable")[:top]
    strongest = strongest[strength[strongest] > 0][::-1]  # the strongest last, on top
    pairs = np.stack([first[strongest], second[strongest]], axis=1)
    values = matrix[first, second][strongest]
    reach = limit or float(strength.max(initial=0.0)) or 1.0
    share = np.minimum(np.abs(values) / reach, 1)

    # White would be lost on a photo, so the scale runs from clear blue to clear red through a little grey.
    stops = zip((0, 0.35, 0.5, 0.65, 1), ("#0b3fd6", "#6f9bff", "#d0d0d0", "#ff8a66", FLIP), strict=True)
    colours = LinearSegmentedColormap.from_list("interaction", list(stops))
    norm = Normalize(-reach, reach)
    figure = new_figure(5.4, 4.9, title)
    axes = figure.add_subplot()
    draw_photo(axes, fade(scene.photo, 0.35), "")
    draw_lines(axes, borders(scene.regions), "white", 0.3)
    if len(pairs):
        ends = centroids(scene)[pairs]
        paths = bow(ends)
        widths = 0.8 + 3.2 * share
        axes.add_collection(
            LineCollection(list(paths), colors="white", linewidths=widths + 1.2, alpha=0.5 * share, zorder=3)
        )
        lines = LineCollection(
            list(paths), colors=colours(norm(values)), linewidths=widths, alpha=0.6 + 0.4 * share, zorder=4
        )
        lines.set_gid("interactions")
        axes.add_collection(lines)
        dots = ends.reshape(-1, 2)
        axes.scatter(dots[:, 0], dots[:, 1], s=12, color="white", edgecolors=INK, linewidths=0.6, zorder=5)
    bar = figure.colorbar(ScalarMappable(norm, colours), ax=axes, shrink=0.85, pad=0.02)
    bar.set_label("interaction $I(i, j)$", fontsize=9)
    bar.ax.tick_params(labelsize=8)
    found = {sign: int((np.sign(values) == sign).sum()) for sign in (1, -1)}
    handles = [
        Line2D([], [], color=colours(1.0), linewidth=3, label=f"synergy ({found[1]})"),
        Line2D([], [], color=colours(0.0), linewidth=3, label=f"redundancy ({found[-1]})"),
    ]
    pairs_drawn = f"the strongest {len(values)} of {len(strength):,} pairs" if len(values) else "no pair interacts"
    figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=2,
        fontsize=8,
        title=pairs_drawn,
        title_fontsize=8,
        frameon=False,
    )
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


def _scene(photo: Any, regions: Any, channels: Channels, stretch: Stretch) -> Scene:
    size, regions = np.shape(photo), np.asarray(regions)
    if regions.shape != size[:2] or not np.issubdtype(regions.dtype, np.integer):
        first = ": the photo has its channels first; give numpy.moveaxis(photo, 0, -1)"
        raise InputError(
            f"expected regions of integers {size[:2]}, the size of the photo; got {regions.dtype} of shape "
            f"{regions.shape}{first if len(size) == 3 and regions.shape == size[1:] else ''}"
        )
    return Scene(picture(photo, channels=channels, stretch=stretch), regions, count_regions(regions))


def _regions(count: int) -> str:
    return f"{count} region{'' if count == 1 else 's'}"
