"""Pictures of P2P's predictions and of their evaluation, as `matplotlib.figure.Figure`s: `figure.savefig(path)`.

As in `jaxmoxi.plot`, no function uses pyplot, and Matplotlib is imported inside the functions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int

from jaxmoxi.errors import InputError
from jaxmoxi.p2p.inference.evaluation import Evaluation
from jaxmoxi.p2p.inference.parts import part_clusters
from jaxmoxi.p2p.inference.predict import Prediction
from jaxmoxi.plot.classes import class_maps, class_shares, draw_parts, parts
from jaxmoxi.plot.pictures import picture
from jaxmoxi.plot.sheet import class_name, contact_sheet, hide
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
    style,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "class_maps",
    "class_shares",
    "clusters",
    "contact_sheet",
    "evaluation",
    "history",
    "parts",
    "prediction",
]


def clusters(
    embeddings: Float[np.ndarray, "G E"], areas: Float[np.ndarray, "G"], *, num_clusters: int = 5
) -> Int[np.ndarray, "G"]:
    """Clusters of like embeddings, which the selector keeps or drops together: `p2p.part_clusters` of one image.

    Returns int32[G], clusters 0 .. C-1 with C <= num_clusters, the largest area first; -1 for groups without pixels.
    Distances between embeddings do not depend on the threshold, and so neither do the clusters.
    Raises ValueError for embeddings of no dimension (a model of independent groups has none) and num_clusters < 1.
    """
    embeddings, areas = np.asarray(embeddings), np.asarray(areas)
    if embeddings.ndim != 2 or not embeddings.shape[1] or areas.shape != embeddings.shape[:1]:
        raise InputError(
            f"expected embeddings [G, E] of at least one dimension and areas [G]; got {list(embeddings.shape)} and "
            f"{list(areas.shape)}"
        )
    if num_clusters < 1:
        raise InputError(f"num_clusters must be at least 1; got {num_clusters}")
    return part_clusters(embeddings, areas, num_parts=num_clusters)


def prediction(
    photo: Any,
    regions: Any,
    result: Prediction,
    *,
    index: int = 0,
    class_names: Sequence[str] | None = None,
    fill: float = 0.0,
    num_clusters: int = 5,
    title: str | None = None,
    caption: str | None = None,
) -> Figure:
    """One prediction in four panels: the photo with its superpixels, the pixels that the classifier saw, the
    probability that each superpixel is kept, and the clusters of the embeddings. A model of independent groups has
    no fourth panel.

    photo:   [H, W, 3], uint8 or floats in [0, 1], as predicted. regions: int[H, W].
    result:  of `predict` at one certainty.
    index:   the place of this image in the prediction.
    class_names: for the title; None numbers the classes.
    fill:    the value of hidden pixels, in [0, 1] (`Config.fill`).
    title:   None writes the class, its probability and the threshold. caption: a line below the panels.
    Raises ValueError where photo, regions and result do not fit.
    """
    photo, regions, result = _one(photo, regions, result, index)
    probs, kept = np.asarray(result.group_probs[index]), np.asarray(result.group_mask[index])
    seen = np.asarray(result.pixel_mask[index])
    has_clusters = result.embeddings.shape[-1] > 0
    count = 4 if has_clusters else 3
    figure = new_figure(3.45 * count, 4.35, title or _headline(result, index, class_names))
    panels = figure.subplots(1, count)
    draw_photo(panels[0], photo, f"{len(np.unique(regions))} superpixels")
    draw_lines(panels[0], borders(regions), "white", 0.6)
    draw_photo(panels[1], hide(photo, seen, fill), f"seen: {100 * seen.mean():.0f} % of the pixels")
    _draw_probabilities(figure, panels[2], photo, regions, probs, kept)
    if has_clusters:
        areas = np.asarray(result.areas[index])
        own = clusters(np.asarray(result.embeddings[index]), areas, num_clusters=num_clusters)
        _draw_clusters(panels[3], photo, regions, own, probs, areas)
    draw_caption(figure, caption)
    return figure


def history(lines: Sequence[Mapping[str, Any]], *, title: str | None = None) -> Figure:
    """Training curves by epoch: the loss and its terms, the accuracy, the shares of pixels kept. Validation is dashed.

    lines: as `fit` returns them (`FitResult.history`) and `history.jsonl` holds them.
    Raises ValueError for no lines, or lines without an epoch.
    """
    from matplotlib.ticker import MaxNLocator

    if not lines or not all("epoch" in line for line in lines):
        raise InputError("expected the history of `fit`, a mapping with an epoch for each; got none or another kind")
    figure = new_figure(12.6, 3.5, title)
    names = (("loss", "target", "sparsity", "covariance"), ("accuracy",), ("soft_share", "hard_share"))
    for axes, group, ylabel in zip(figure.subplots(1, 3), names, ("loss", "accuracy", "share of pixels"), strict=True):
        for i, name in enumerate(group):
            for part, dashes in (("", "-"), ("validation", "--")):
                rows = [line.get("validation", {}) if part else line for line in lines]
                points = [(line["epoch"], row[name]) for line, row in zip(lines, rows, strict=True) if name in row]
                if points:
                    label = f"{name} {part}".replace("_", " ").strip()
                    marker = {"marker": "o", "markersize": 3} if len(points) <= 30 else {}
                    axes.plot(*zip(*points, strict=True), color=f"C{i}", linestyle=dashes, label=label, **marker)
        style(axes, "epoch", ylabel)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=7))
        if ylabel != "loss":
            axes.set_ylim(-0.02, 1.02)
        axes.legend(fontsize=8, frameon=False)
    return figure


def evaluation(result: Evaluation, *, title: str | None = None) -> Figure:
    """Accuracy over the share of pixels seen, one point for each certainty, and the fidelity curves at the highest."""
    count = 1 if result.fidelity is None else 2
    figure = new_figure(4.9 * count, 3.7, title)
    panels = figure.subplots(1, count, squeeze=False)[0]
    points = np.stack([100 * result.hard_share, 100 * result.accuracy], axis=1)
    panels[0].plot(*points.T, color=INK, linewidth=1.2, marker="o", markersize=5)
    if result.certainty is not None:
        for point in np.unique(points, axis=0):  # certainties with the same answer share a label
            at = (points == point).all(1)
            text = ", ".join(f"{certainty:g}" for certainty in result.certainty[at])
            panels[0].annotate(text, point, xytext=(5, -4), textcoords="offset points", va="top", fontsize=8)
        panels[0].set_title("at each certainty asked for", fontsize=10)
    style(panels[0], "pixels seen (%)", "accuracy (%)")
    panels[0].margins(0.15)
    if result.fidelity is not None:
        for name, colour in (("insertion", INK), ("deletion", FLIP)):
            values = np.atleast_2d(getattr(result.fidelity, name))[-1]
            panels[1].plot(100 * result.fidelity.shares, 100 * values, color=colour, linewidth=1.8, label=name)
        style(panels[1], "area shown or hidden (%)", "same class as before (%)")
        panels[1].set(ylim=(-2, 102), xticks=range(0, 101, 20), yticks=range(0, 101, 20))
        panels[1].legend(fontsize=8, frameon=False)
        which = "" if result.certainty is None else f" at certainty {result.certainty[-1]:g}"
        panels[1].set_title(f"fidelity{which}", fontsize=10)
    return figure


def _draw_probabilities(
    figure: Any, axes: Any, photo: np.ndarray, regions: np.ndarray, probs: np.ndarray, kept: np.ndarray
) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    draw_photo(axes, fade(photo, 0.15), "probability of being kept")
    heat = np.append(probs, 0.0)[np.minimum(regions, len(probs))]
    norm = Normalize(0, 1)
    axes.imshow(heat, cmap=HEAT, norm=norm, alpha=0.75, interpolation="none")
    draw_lines(axes, borders(regions), "white", 0.4)
    inside = np.append(kept, False)[np.minimum(regions, len(kept))]
    draw_lines(axes, borders(np.pad(inside, 1).astype(np.int8), origin=-1), GROUP, 1.6)
    below = axes.inset_axes((0.0, -0.065, 1.0, 0.035))
    bar = figure.colorbar(ScalarMappable(norm, HEAT), cax=below, orientation="horizontal")
    bar.solids.set_alpha(0.85)
    bar.outline.set_visible(False)
    bar.set_ticks([0, 0.5, 1], labels=["0", "0.5", "1"])
    below.tick_params(labelsize=8, length=0)


def _draw_clusters(
    axes: Any, photo: np.ndarray, regions: np.ndarray, own: np.ndarray, probs: np.ndarray, areas: np.ndarray
) -> None:
    """Draws the clusters in colours, with the mean probability of each below."""
    from matplotlib.patches import Patch

    count = own.max() + 1
    colours = draw_parts(axes, photo, regions, own)
    axes.set_title(f"{count} cluster{'' if count == 1 else 's'} of the embeddings", fontsize=10)
    means = [np.average(probs[own == c], weights=areas[own == c]) for c in range(count)]
    handles = [Patch(color=colours[c], alpha=0.8, label=f"{means[c]:.2f}") for c in range(min(count, 10))]
    axes.legend(
        handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.01), ncols=min(len(handles), 5), fontsize=8,
        frameon=False, handlelength=0.9, handletextpad=0.4, columnspacing=1.0, borderpad=0.2,
        title="mean probability", title_fontsize=8,
    )  # fmt: skip


def _one(photo: Any, regions: Any, result: Prediction, index: int) -> tuple[np.ndarray, np.ndarray, Prediction]:
    """Checks the inputs of a picture of one image, and returns them as arrays."""
    photo, regions = np.asarray(photo), np.asarray(regions)
    if photo.ndim != 3 or photo.shape[-1] != 3:
        raise InputError(f"expected a photo [H, W, 3], as predicted; got {photo.dtype} of shape {list(photo.shape)}")
    if regions.shape != photo.shape[:2] or not np.issubdtype(regions.dtype, np.integer):
        raise InputError(
            f"expected regions int{list(photo.shape[:2])}; got {regions.dtype} of shape {list(regions.shape)}"
        )
    if result.pixel_mask.ndim != 3 or result.pixel_mask.shape[1:] != regions.shape:
        raise InputError(
            f"expected a prediction at one certainty with pixel_mask [B, {regions.shape[0]}, {regions.shape[1]}]; got "
            f"{list(result.pixel_mask.shape)}"
        )
    if not 0 <= index < len(result.threshold):
        raise InputError(f"expected an index of 0 .. {len(result.threshold) - 1}; got {index}")
    return picture(photo), regions, result


def _headline(result: Prediction, index: int, class_names: Sequence[str] | None) -> str:
    chances = np.asarray(result.probabilities[index])
    name = class_name(int(chances.argmax()), class_names)
    return f"{name}, {100 * chances.max():.1f} %, at threshold {float(result.threshold[index]):.2f}"
