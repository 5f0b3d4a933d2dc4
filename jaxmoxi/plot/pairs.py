"""Interactions of pairs drawn over the photo; `jaxmoxi.plot.figures` says what all pictures share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from jaxmoxi.errors import InputError
from jaxmoxi.plot.pictures import Channels, Stretch
from jaxmoxi.plot.sets import on_photo
from jaxmoxi.plot.strokes import INK, borders, bow, centroids, draw_lines, draw_photo, fade, new_figure, scene_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["interactions"]


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
    from matplotlib.colors import Normalize
    from matplotlib.lines import Line2D

    scene = scene_of(photo, regions, channels, stretch)
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

    colours = on_photo()
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
