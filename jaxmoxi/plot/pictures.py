"""An image of any number of channels, depth and range as the picture that is drawn. Nothing is guessed here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt8

from jaxmoxi.errors import InputError

Channels = int | Sequence[int | None] | None
Stretch = bool | Sequence[float | int]

_TAILS = (1, 99)  # percent


def picture(photo: Any, *, channels: Channels = None, stretch: Stretch = False) -> UInt8[np.ndarray, "H W 3"]:
    """What is drawn of an image, uint8[H, W, 3].

    photo:    [H, W] or [H, W, 1], drawn grey; [H, W, 3], drawn as red, green and blue; [H, W, C] of any other
              number of channels, of which `channels` says what is drawn. Without `stretch`: uint8, bool, or floats in
              [0, 1].
    channels: an index i in 0 .. C-1, drawn grey, or three, (red, green, blue), of which None stays black. Left out, one
              and three channels are drawn as they are; of others you have to say which, for four may be red, green,
              blue and transparency, or red, green, blue and infrared.
    stretch:  False draws levels as they are. (low, high), numbers in the photo's own units, draws low black and high
              white, in all channels drawn. True draws each of them from its first percentile to its 99th, so that dead
              pixels and clouds do not leave the rest dark; brightness then says nothing between pictures, and colours
              are no photo's.

    Raises ValueError for other shapes, channels that there are not, numbers that need `stretch`, and NaN.
    """
    image = _checked(photo)
    count = image.shape[-1]
    drawn = _chosen(channels, count)
    if stretch is False:
        _check_range(image[..., [i for i in drawn if i is not None]])
    planes = [None if i is None else _levels(image[..., i], stretch) for i in drawn]
    black = np.zeros(image.shape[:2], np.uint8)
    return np.stack([black if plane is None else plane for plane in planes], axis=-1)


def _checked(photo: Any) -> np.ndarray:
    """The photo as an array of numbers [H, W, C]."""
    image = np.asarray(photo)
    if image.dtype.kind == "V" or str(image.dtype) == "bfloat16":  # of JAX, which NumPy cannot compare
        image = image.astype(np.float32)
    if image.ndim not in (2, 3) or 0 in image.shape or image.dtype.kind not in "biuf":
        raise InputError(
            "expected one photo to draw, numbers [H, W] or [H, W, C]; got "
            f"{image.dtype} of shape {image.shape}: model.crop(photo) makes what the model sees"
        )
    if image.dtype.kind == "f" and not np.isfinite(image).all():
        broken = int((~np.isfinite(image)).sum())
        raise InputError(
            f"expected a photo of finite numbers; {broken} of its {image.size} are NaN or infinite: replace them, as "
            "by numpy.nan_to_num"
        )
    return image[..., None] if image.ndim == 2 else image


def _chosen(channels: Channels, count: int) -> tuple[int | None, int | None, int | None]:
    """The channels drawn red, green and blue."""
    if channels is None:
        if count in (1, 3):
            return (0, 0, 0) if count == 1 else (0, 1, 2)
        four = " (four may be red, green, blue and transparency, or infrared)" if count == 4 else ""
        raise InputError(
            f"a photo of {count} channels can be drawn in many ways{four}: say channels=(red, green, blue), three of "
            f"0 .. {count - 1}, or channels=i for one in grey"
        )
    one = isinstance(channels, int | np.integer) and not isinstance(channels, bool)
    chosen: Any = [channels] * 3 if one else channels
    three = tuple(chosen) if np.iterable(chosen) else ()
    indices = [i for i in three if i is not None]
    if len(three) != 3 or not indices or not all(isinstance(i, int | np.integer) and 0 <= i < count for i in indices):
        raise InputError(
            f"expected channels=i, or (red, green, blue), of 0 .. {count - 1}, the photo's channels, or None for one "
            f"that stays black; got {channels!r}"
        )
    return three  # type: ignore[return-value]


def _check_range(image: np.ndarray) -> None:
    """Raises InputError for numbers that are no levels from black to white."""
    low, high = image.min(), image.max()
    if image.dtype in (np.uint8, bool) or (image.dtype.kind == "f" and low >= 0 and high <= 1):
        return
    eight = image.dtype.kind in "iu" and low >= 0 and high <= 255
    hint = "photo.astype(numpy.uint8), if 255 is white, or " if eight else ""
    hint += "photo / 255, if 255 is white, or " if image.dtype.kind == "f" and low >= 0 and 1 < high <= 255 else ""
    raise InputError(
        f"expected a photo of uint8, or of floats in [0, 1]; got {image.dtype} from {low:.4g} to {high:.4g}. Give "
        f"model.crop(photo), which is what the model sees, or {hint}stretch=(black, white), the levels that become "
        "black and white, or stretch=True, which draws every channel from its darkest to its brightest"
    )


def _levels(plane: np.ndarray, stretch: Stretch) -> UInt8[np.ndarray, "H W"]:
    """One channel as levels 0 .. 255."""
    if stretch is False:
        bright = plane if plane.dtype == np.uint8 else np.round(255 * plane.astype(np.float32).clip(0, 1))
        return bright.astype(np.uint8)
    plane = plane.astype(np.float64)
    if stretch is True:
        low, high = np.percentile(plane, _TAILS)
        if not high > low:  # almost all pixels are alike: nothing is cut off
            low, high = plane.min(), plane.max()
            high = high if high > low else low + 1
    else:
        low, high = _window(stretch)
    return np.round(255 * ((plane - low) / (high - low)).clip(0, 1)).astype(np.uint8)


def _window(stretch: Any) -> tuple[float, float]:
    try:
        low, high = (float(x) for x in stretch)
    except (TypeError, ValueError):
        low, high = np.nan, np.nan
    if not (np.isfinite(low) and np.isfinite(high) and low < high):
        raise InputError(f"expected stretch of False, True or (black, white) with black < white; got {stretch!r}")
    return low, high
