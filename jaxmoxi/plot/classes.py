"""What a P2P model does with each class, drawn; `p2p.plot` has these. Matplotlib is imported inside the functions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxmoxi.errors import InputError
from jaxmoxi.escape import plain
from jaxmoxi.p2p.inference.classes import ClassSummary
from jaxmoxi.p2p.inference.parts import part_clusters
from jaxmoxi.p2p.inference.predict import Prediction
from jaxmoxi.plot.pictures import picture
from jaxmoxi.plot.sheet import class_name, draw_kept
from jaxmoxi.plot.strokes import (
    FLIP,
    GROUP,
    HEAT,
    INK,
    borders,
    draw_caption,
    draw_lines,
    draw_photo,
    fade,
    new_figure,
    short,
    style,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def class_maps(
    summaries: Sequence[ClassSummary], *, class_names: Sequence[str] | None = None, title: str | None = None
) -> Figure:
    """What a model looks at in each class: a row of the share of its photos that kept each pixel, and of examples.

    summaries: of `p2p.by_class`. The maps have one scale, from 0 to the largest share of all.
    Raises ValueError for no summary.
    """
    _check(summaries)
    columns = 1 + max(len(s.photos) for s in summaries)
    figure = new_figure(1.55 * columns + 1.0, 1.6 * len(summaries) + 0.75 + 0.3 * bool(title), title)
    panels = figure.subplots(len(summaries), columns, squeeze=False)
    most = max(float(s.kept_map.max()) for s in summaries) or 1.0
    shown: Any = None
    for row, summary in zip(panels, summaries, strict=True):
        shown = row[0].imshow(summary.kept_map, cmap=HEAT, vmin=0, vmax=most, interpolation="none")
        row[0].set(xticks=[], yticks=[])
        row[0].set_ylabel(_label(summary, class_names, "\n"), fontsize=8, rotation=0, ha="right", va="center")
        for i, axes in enumerate(row[1:]):
            if i >= len(summary.photos):
                axes.set_axis_off()
                continue
            draw_kept(axes, summary.photos[i], summary.masks[i])
            axes.set_title(f"{100 * summary.masks[i].mean():.0f} % seen", fontsize=7, pad=2)
    panels[0, 0].set_title("kept, of all", fontsize=7, pad=2)
    bar = figure.colorbar(shown, ax=panels, location="bottom", shrink=0.5, aspect=40, pad=0.02)
    bar.set_label("share of the class's photos that kept the pixel", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    return figure


def class_shares(
    summaries: Sequence[ClassSummary], *, class_names: Sequence[str] | None = None, title: str | None = None
) -> Figure:
    """How much of its pixels each class needs: the quartiles as a box, whiskers of 1.5 boxes at most, and each photo as
    a dot, red where the photo was taken for another class than its true one.

    summaries: of `p2p.by_class`; the class that needs least stands at the top.
    Raises ValueError for no summary.
    """
    _check(summaries)
    ranked = sorted(summaries, key=lambda s: s.quartiles[1])
    figure = new_figure(7.2, 0.34 * len(ranked) + 0.95 + 0.3 * bool(title), title)
    axes = figure.subplots()
    places = np.arange(len(ranked))
    axes.boxplot(
        [100 * s.shares for s in ranked],
        positions=places,
        orientation="horizontal",
        widths=0.55,
        showfliers=False,
        medianprops={"color": INK, "linewidth": 2},
        boxprops={"color": INK},
        manage_ticks=False,
    )
    lots = np.random.default_rng(0)  # dots of equal shares would hide one another
    for place, summary in zip(places, ranked, strict=True):
        wrong = summary.is_true & (summary.predicted != summary.label)
        heights = place + lots.uniform(-0.2, 0.2, summary.count)
        for chosen, colour in ((~wrong, GROUP), (wrong, FLIP)):
            axes.plot(100 * summary.shares[chosen], heights[chosen], "o", color=colour, markersize=3, alpha=0.7, mew=0)
    style(axes, "pixels that a photo needed (%)", "")
    axes.set_yticks(places, [_label(s, class_names, ", ") for s in ranked])
    axes.set(ylim=(len(ranked) - 0.4, -0.6), xlim=(0, None))
    if any(s.is_true and (s.predicted != s.label).any() for s in ranked):
        axes.plot([], [], "o", color=FLIP, markersize=4, label="taken for another class")
        axes.legend(fontsize=8, frameon=False, loc="best")
    return figure


def parts(
    images: Any,
    regions: Any,
    result: Prediction,
    *,
    num_parts: Sequence[int] = (2, 5),
    names: Sequence[str] | None = None,
    title: str | None = None,
    caption: str | None = None,
) -> Figure:
    """The parts and wholes of each image: the photo with what was kept outlined, then `p2p.part_clusters` into so many
    parts; two images in a row.

    images:    [B, H, W, 3], uint8 or floats in [0, 1], as predicted. regions: int[B, H, W].
    result:    of `predict` on them at one certainty.
    num_parts: a panel each; parts of the larger numbers lie inside those of the smaller ones.
    names:     a line above each photo.
    Raises ValueError for arguments that do not fit one another, and as `part_clusters` does, for a model without
    embeddings.
    """
    images, regions, seen = np.asarray(images), np.asarray(regions), np.asarray(result.pixel_mask)
    if images.ndim != 4 or images.shape[-1] != 3 or not regions.shape == seen.shape == images.shape[:3]:
        raise InputError(
            f"expected images [B, H, W, 3], regions [B, H, W] and their prediction at one certainty; got "
            f"{list(images.shape)}, {list(regions.shape)} and pixel_mask {list(seen.shape)}"
        )
    if names is not None and len(names) != len(images):
        raise InputError(f"expected {len(images)} names, one for each image; got {len(names)}")
    found = part_clusters(result.embeddings, result.areas, num_parts=tuple(num_parts))
    across, columns = min(2, len(images)), 1 + len(found)  # photos in a row, panels of a photo
    rows = -(-len(images) // across)
    high = 1.75 + 0.2 * (names is not None)
    figure = new_figure(1.75 * columns * across, high * rows + 0.25 + 0.3 * bool(title), title)
    panels = figure.subplots(rows, columns * across, squeeze=False).reshape(-1, columns)
    for i, row in enumerate(panels):
        if i >= len(images):
            for axes in row:
                axes.set_axis_off()
            continue
        photo, outline = picture(images[i]), borders(np.pad(seen[i], 1).astype(np.int8), origin=-1)
        draw_photo(row[0], photo, "")
        draw_lines(row[0], outline, GROUP, 1.2)
        row[0].set_title("" if names is None else plain(names[i], limit=28), fontsize=7, loc="left")
        for axes, own in zip(row[1:], found[:, i], strict=True):
            count = int(own.max()) + 1
            draw_parts(axes, photo, regions[i], own)
            draw_lines(axes, outline, "black", 0.9)
            axes.set_title(f"{count} part{'s' * (count != 1)}", fontsize=8)
    draw_caption(figure, caption)
    return figure


def draw_parts(axes: Any, photo: np.ndarray, regions: np.ndarray, own: np.ndarray) -> np.ndarray:
    """The parts int[G] of the regions in colours over the grey photo. Returns the colours, float[C, 3]."""
    from matplotlib import colormaps

    count = own.max() + 1
    palette = colormaps["tab10"](range(count)) if count <= 10 else colormaps["turbo"](np.linspace(0, 1, count))
    colours = palette[:, :3]
    draw_photo(axes, fade(photo, 0.15), "")
    painted = np.append(own, -1)[np.minimum(regions, len(own))]
    axes.imshow(colours[painted], alpha=np.where(painted >= 0, 0.65, 0.0), interpolation="none")
    draw_lines(axes, borders(painted), "white", 1.0)
    return colours


def _check(summaries: Sequence[ClassSummary]) -> None:
    if not summaries:
        raise InputError("expected the summaries of `p2p.by_class`, one for each class; got none")


def _label(summary: ClassSummary, class_names: Sequence[str] | None, between: str) -> str:
    """The class's name, whether it is the true one, and the number of its photos."""
    name = plain(short(class_name(summary.label, class_names)), limit=24)
    kind = "" if summary.is_true else " (predicted)"
    return f"{name}{kind}{between}{summary.count} photo{'s' * (summary.count != 1)}"
