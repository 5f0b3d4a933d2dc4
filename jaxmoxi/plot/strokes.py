"""The strokes of `plot`: each function draws one thing on given axes. Matplotlib is imported inside the functions."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from jaxmoxi.errors import InputError
from jaxmoxi.escape import plain, printable
from jaxmoxi.plot.pictures import Channels, Stretch, picture
from jaxmoxi.regions.label_maps import count_regions
from jaxmoxi.types import GreedyResult

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HEAT = "YlOrRd"
GROUP = "#00c8ff"  # a colour that photos rarely have and the heat map never
FLIP = "#d0021b"  # red
INK = "#333333"
_ROWS = 4  # lines of a title or caption


class Scene(NamedTuple):
    """A checked photo uint8[H, W, 3] and its regions int[H, W], labels 0 .. num_players - 1."""

    photo: np.ndarray
    regions: np.ndarray
    num_players: int


def scene_of(photo: Any, regions: Any, channels: Channels, stretch: Stretch) -> Scene:
    """The photo as it is drawn, and its regions. Raises ValueError where they do not fit."""
    size, regions = np.shape(photo), np.asarray(regions)
    if regions.shape != size[:2] or not np.issubdtype(regions.dtype, np.integer):
        first = ": the photo has its channels first; give numpy.moveaxis(photo, 0, -1)"
        raise InputError(
            f"expected regions of integers {size[:2]}, the size of the photo; got {regions.dtype} of shape "
            f"{regions.shape}{first if len(size) == 3 and regions.shape == size[1:] else ''}"
        )
    return Scene(picture(photo, channels=channels, stretch=stretch), regions, count_regions(regions))


def new_figure(width: float, height: float, title: str | None) -> Figure:
    """An empty figure of width x height inches, whose layout keeps labels from overlapping."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained", dpi=150)
    figure.get_layout_engine().set(w_pad=0.06, h_pad=0.06)  # type: ignore[union-attr]
    if title:
        figure.suptitle(drawn(title, width=width), fontsize=11)
    return figure


def draw_caption(figure: Any, caption: str | None) -> None:
    """A small line below the panels, or several where it is long."""
    if caption:
        figure.supxlabel(drawn(caption, width=figure.get_figwidth(), size=8.0), fontsize=8, color=INK)


def drawn(text: str, *, width: float = 4.0, size: float = 11.0) -> str:
    """A text as Matplotlib draws it letter by letter, in at most four lines.

    width: in inches, which a line may have in letters of `size` points; a letter is about 0.55 of its size wide.
    """
    columns = max(20, int(width * 72 / (0.55 * size)))
    rows = [row for line in str(text).split("\n") for row in textwrap.wrap(printable(line), columns) or [""]]
    if len(rows) > _ROWS:
        rows = [*rows[: _ROWS - 1], f"{rows[_ROWS - 1][: columns - 1]}…"]
    return "\n".join(plain(row, limit=columns) for row in rows)


def draw_photo(axes: Any, photo: np.ndarray, title: str) -> None:
    axes.imshow(photo, interpolation="none")
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    axes.set_title(title, fontsize=10)


def draw_heat(figure: Any, axes: Any, scene: Scene, heats: np.ndarray) -> None:
    """The heat float[P] of each region over a grey photo, and the colour bar that explains it."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    count = np.count_nonzero(heats)
    heats = heats[scene.regions]
    draw_photo(axes, fade(scene.photo, 0.15), "")  # grey, so that every colour seen is heat
    norm = Normalize(0, 1)
    axes.imshow(heats, cmap=HEAT, norm=norm, alpha=np.where(heats > 0, 0.65, 0.0), interpolation="none")
    draw_lines(axes, borders(np.where(heats > 0, scene.regions, -1)), "white", 0.6)
    below = axes.inset_axes((0.0, -0.065, 1.0, 0.035))  # not in a row of its own, which would stand too low
    bar = figure.colorbar(ScalarMappable(norm, HEAT), cax=below, orientation="horizontal")
    bar.solids.set_alpha(0.8)
    bar.outline.set_visible(False)
    bar.set_ticks([0, 0.5, 1], labels=["0: not chosen", f"heat $(n-k)/n$, $n={count}$", "1: first"])
    for label, side in zip(below.get_xticklabels(), ("left", "center", "right"), strict=True):
        label.set_horizontalalignment(side)
    below.tick_params(labelsize=8, length=0)


def draw_group(axes: Any, scene: Scene, players: np.ndarray) -> None:
    """The photo where it belongs to `players`, faded elsewhere, and the group's outline."""
    inside = np.isin(scene.regions, players)
    draw_photo(axes, np.where(inside[..., None], scene.photo, fade(scene.photo, 0.8)), "")
    draw_lines(axes, borders(np.pad(inside, 1).astype(np.int8), origin=-1), GROUP, 1.8)


def draw_removed(axes: Any, scene: Scene, players: np.ndarray) -> None:
    """The photo, with the regions of `players` in red: they are hidden."""
    inside = np.isin(scene.regions, players)
    red = (0.45 * fade(scene.photo, 0.2) + 0.55 * np.array([208, 2, 27])).astype(np.uint8)
    draw_photo(axes, np.where(inside[..., None], red, scene.photo), "")
    draw_lines(axes, borders(np.pad(inside, 1).astype(np.int8), origin=-1), FLIP, 1.2)


def draw_search(
    axes: Any, result: GreedyResult, flip: int | None, target: str, whole: float | None, place: str
) -> None:
    """The probability (or payoff) after each choice, with the flip marked and the whole photo's level."""
    from matplotlib.ticker import MaxNLocator

    steps = int(result.num_steps)
    if result.probabilities is None:
        start, heights, name = result.start_value, result.values, "payoff"
    else:
        start, heights, name = result.start_probability, result.probabilities, "probability"
    heights = np.append(np.nan if start is None else start, np.asarray(heights)[:steps])
    axes.plot(np.arange(steps + 1), heights, color=INK, linewidth=1.6, marker="o", markersize=3 if steps <= 30 else 0)
    style(axes, f"regions {'shown' if result.insertion else 'removed'}", f"{name} of '{plain(target, limit=40)}'")
    if name == "probability":
        axes.set_ylim(0, 1.05)
        if whole is not None:
            axes.axhline(whole, color=INK, linewidth=0.9, linestyle=":")
            axes.annotate(
                "whole\nphoto",
                (1, whole),
                xycoords=("axes fraction", "data"),
                xytext=(3, 0),  # outside of the axes, where no curve runs
                textcoords="offset points",
                va="center",
                fontsize=8,
                color=INK,
            )
    if flip is not None:
        past = place if result.insertion else f"no longer {place}"
        axes.axvline(flip, color=FLIP, linewidth=1.0, linestyle="--")
        axes.plot(flip, heights[flip], "o", color=FLIP, markersize=6)
        axes.set_title(f"{past} {f'from {flip} on' if flip else 'from the start'}", fontsize=10, color=FLIP)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=7))
    axes.set_xlim(-0.02 * max(steps, 1), max(steps, 1) * 1.02)


def style(axes: Any, xlabel: str, ylabel: str) -> None:
    axes.set_xlabel(xlabel, fontsize=9)
    axes.set_ylabel(ylabel, fontsize=9)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, linewidth=0.6)


def fade(photo: np.ndarray, amount: float) -> np.ndarray:
    """The photo in grey, drawn towards light grey by `amount` in [0, 1]; uint8."""
    grey = photo @ np.array([0.299, 0.587, 0.114])
    return np.repeat(grey + (220 - grey) * amount, 3).reshape(photo.shape).astype(np.uint8)


def borders(labels: np.ndarray, *, origin: int = 0) -> np.ndarray:
    """The lines between pixels of different labels, as segments [N, 2, (x, y)], one for each straight run."""
    segments = []
    for transposed in (False, True):
        map_ = labels.T if transposed else labels
        change = np.pad(map_[:, 1:] != map_[:, :-1], ((1, 1), (0, 0)))  # between column x and x + 1, at row y
        edges = np.diff(change.astype(np.int8), axis=0).T
        x, top = np.nonzero(edges == 1)
        _, bottom = np.nonzero(edges == -1)
        ends = np.stack([np.stack([x + 0.5, top - 0.5], -1), np.stack([x + 0.5, bottom - 0.5], -1)], 1)
        segments.append(ends[..., ::-1] if transposed else ends)
    return np.concatenate(segments) + origin


def draw_lines(axes: Any, segments: np.ndarray, colour: str, width: float) -> None:
    from matplotlib.collections import LineCollection

    # Projecting ends close the corners at which two runs meet.
    axes.add_collection(LineCollection(list(segments), colors=colour, linewidths=width, capstyle="projecting"))


def bow(ends: np.ndarray) -> np.ndarray:
    """Slightly curved paths [N, 17, (x, y)] between points. On a grid, straight paths cross the ends of others."""
    start, stop = ends[:, :1], ends[:, 1:]
    t = np.linspace(0, 1, 17)[:, None]
    across = (stop - start)[..., ::-1] * np.array([-1, 1])
    return start + t * (stop - start) + 0.3 * t * (1 - t) * across


def centroids(scene: Scene) -> np.ndarray:
    """The mean (x, y) of each region's pixels, float[P, 2]."""
    labels = scene.regions.ravel()
    rows, cols = np.indices(scene.regions.shape).reshape(2, -1)
    return np.stack([np.bincount(labels, cols), np.bincount(labels, rows)], 1) / np.bincount(labels)[:, None]


def short(class_name: str) -> str:
    """The first of a class's synonyms, on one line; the whole name where the first is empty."""
    return printable(class_name.split(",")[0]) or printable(class_name)
