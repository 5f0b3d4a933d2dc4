"""Many predictions of P2P on one sheet; `p2p.plot` has it. Matplotlib is imported inside the functions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from jaxmoxi.errors import InputError
from jaxmoxi.escape import plain
from jaxmoxi.p2p.inference.predict import Prediction
from jaxmoxi.plot.pictures import picture
from jaxmoxi.plot.strokes import FLIP, GROUP, INK, borders, draw_lines, draw_photo, fade, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_RIGHT = "#1a7f37"  # green
_PAIR, _SINGLE = 2.9, 1.75  # inches of a column


def contact_sheet(
    images: Any,
    result: Prediction,
    *,
    labels: Any = None,
    class_names: Sequence[str] | None = None,
    names: Sequence[str] | None = None,
    hidden: Literal["beside", "grey"] = "beside",
    fill: float = 0.0,
    columns: int | None = None,
    title: str | None = None,
) -> Figure:
    """Many predictions, each under its class and the share of the pixels that the classifier saw.

    images:  [B, H, W, 3], uint8 or floats in [0, 1], as predicted. result: of `predict` on them at one certainty.
    labels:  int[B], -1 where one is not known. The predicted class is green where it is the label, red where it is not,
             and grey where the label is not known; None writes all in grey.
    names:   a line above each, such as the file's name; where the class is wrong a third line says the label.
    hidden:  "beside" draws each photo beside the pixels that the classifier saw, the others in the colour `fill`;
             "grey" draws each photo once, the hidden pixels pale and grey, with a line around what was kept.
    fill:    the value of hidden pixels, in [0, 1] (`Config.fill`).
    columns: photos in a row, at least 1; None takes 4 pairs or 6 single photos.
    Raises ValueError for arguments that do not fit one another.
    """
    images, seen = np.asarray(images), np.asarray(result.pixel_mask)
    if images.ndim != 4 or images.shape[-1] != 3 or seen.shape != images.shape[:3]:
        raise InputError(
            f"expected images [B, H, W, 3] and their prediction at one certainty; got {images.dtype}"
            f"{list(images.shape)} and pixel_mask {list(seen.shape)}"
        )
    if labels is not None and np.shape(labels) != images.shape[:1]:
        raise InputError(f"expected labels int[{len(images)}]; got shape {list(np.shape(labels))}")
    if names is not None and len(names) != len(images):
        raise InputError(f"expected {len(images)} names, one for each image; got {len(names)}")
    if hidden not in ("beside", "grey"):
        raise InputError(f'expected hidden="beside" or "grey"; got {hidden!r}')
    columns = columns if columns is not None else 4 if hidden == "beside" else 6
    if columns < 1:
        raise InputError(f"columns must be at least 1; got {columns}")
    images = np.stack([picture(image) for image in images])
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    classes, chances = np.asarray(result.classes), np.asarray(result.probabilities).max(-1)
    wide, high = (_PAIR, 1.75) if hidden == "beside" else (_SINGLE, _SINGLE + 0.35)
    high += 0.15 if names is not None else 0
    size = 8 if hidden == "beside" else 7
    letters = int((wide - 0.15) * 72 / (0.6 * size))
    figure = new_figure(max(wide * columns, 3.2), high * rows + 0.3 * bool(title), title)
    for i, axes in enumerate(figure.subplots(rows, columns, squeeze=False).ravel()):
        if i >= len(images):
            axes.set_axis_off()
            continue
        if hidden == "beside":
            draw_photo(axes, _pair(images[i], seen[i], fill), "")
        else:
            draw_kept(axes, images[i], seen[i])
        label = -1 if labels is None else int(labels[i])
        text = f"{100 * chances[i]:.0f} %  ·  {100 * seen[i].mean():.0f} % seen"
        name = plain(class_name(int(classes[i]), class_names), limit=min(40, max(letters - len(text) - 2, 8)))
        lines, wrong = [f"{name}, {text}"], label >= 0 and classes[i] != label
        if names is not None:
            lines.insert(0, plain(names[i], limit=letters))
            lines += [plain(f"true: {class_name(label, class_names)}", limit=letters)] * bool(wrong)
        axes.set_title("\n".join(lines), fontsize=size, color=INK if label < 0 else FLIP if wrong else _RIGHT)
    return figure


def draw_kept(axes: Any, photo: np.ndarray, seen: np.ndarray) -> None:
    """The photo uint8[H, W, 3] where it was seen bool[H, W], pale and grey elsewhere, with a line between."""
    draw_photo(axes, np.where(seen[..., None], photo, fade(photo, 0.75)), "")
    draw_lines(axes, borders(np.pad(seen, 1).astype(np.int8), origin=-1), GROUP, 0.9)


def hide(photo: np.ndarray, seen: np.ndarray, fill: float) -> np.ndarray:
    """The photo uint8[H, W, 3] as the classifier saw it: what was hidden has the colour `fill`."""
    return np.where(seen[..., None], photo, np.uint8(round(255 * fill)))


def class_name(index: int, class_names: Sequence[str] | None) -> str:
    """The name of a class, or its number."""
    return f"class {index}" if class_names is None else class_names[index]


def _pair(photo: np.ndarray, seen: np.ndarray, fill: float) -> np.ndarray:
    gap = np.full((len(photo), max(1, photo.shape[1] // 32), 3), 255, np.uint8)
    return np.concatenate([photo, gap, hide(photo, seen, fill)], axis=1)
