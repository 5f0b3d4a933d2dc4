"""Images of every mode as upright 8-bit RGB, and what was assumed on the way.

Everything but the rotation is done pixel by pixel, so large images are converted in bands of rows: beside the image and
its result, little memory is taken.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from jaxmoxi.errors import InputError, warn

if TYPE_CHECKING:
    from PIL import Image

_BAND = 2**20  # pixels converted at once
_ORIENTATION = 274
# An image whose brightest pixel has this level of 255 is black to the eye, and to a network.
_NEARLY_BLACK = 15
_FRAMES = {"GIF": "frames", "WEBP": "frames", "PNG": "frames", "AVIF": "frames", "TIFF": "pages", "DCX": "pages"}
_WAY_OUT = "give white=LEVEL to `jaxmoxi.files.read_photo` or `to_rgb`, or rescale the image to 8 bits"


class PhotoWarning(UserWarning):
    """Something about a photo was assumed, and the assumption decides what the model sees."""


def to_rgb(image: Image.Image, *, white: float | int | None = None) -> Image.Image:
    """An upright RGB image, turned as its EXIF data say. What is transparent becomes white, as on paper.

    white: the grey level that is white, above 0; lower levels are scaled, higher ones are white. None: 255 for images
           of 8 bits, the depth that a TIFF states, and else 65535 for 16-bit greys, so that white stays white.

    Where the levels leave that implausible, the assumption is told by a `PhotoWarning`: greys of more than 8 bits that
    reach no further than 255 (4095) are taken as 8 (12) bits deep, an image whose levels are 0 and 1 alone as black and
    white. Images of which all is (nearly) black are told too, and those of which only the first frame or page is read.

    Raises ValueError for an image without pixels, for greys outside 0 .. 65535 and floating-point greys where `white`
    is not given, and for colours that Pillow does not convert to RGB.
    """
    rgb, notes = converted(image, white)
    for note in notes:
        warn(note, PhotoWarning)
    return rgb


def converted(image: Image.Image, white: float | int | None = None) -> tuple[Image.Image, list[str]]:
    """`to_rgb`, and its warnings as texts. An upright RGB image comes back as it is, not as a copy."""
    from PIL import ImageOps

    if 0 in image.size:
        raise InputError(f"expected a photo; got an image of {image.height} x {image.width} pixels")
    if white is not None and not (math.isfinite(white) and white > 0):
        raise InputError(f"white is the level of a white pixel, a number above 0; got {white}")
    notes = _frames_note(image)
    stated, inverted = _stated_white(image), _is_inverted(image)
    deep = image.mode.startswith("I") or image.mode == "F"
    if image.getexif().get(_ORIENTATION, 1) in range(2, 9):
        image = ImageOps.exif_transpose(image)
    if deep:
        image = _eight_bits(image, white, stated, inverted, notes)
    if image.has_transparency_data:
        image = _in_bands(image, "RGB", _on_white)
    elif image.mode != "RGB":
        image = _in_bands(image, "RGB", lambda band: band.convert("RGB"))
    return (image if deep else _check_levels(image, white, notes)), notes


def _frames_note(image: Image.Image) -> list[str]:
    """What to say of an image that is the first of several. Not of formats whose first image is the photo itself."""
    kind = _FRAMES.get(image.format or "")
    if kind is None:
        return []
    try:
        count, at = int(getattr(image, "n_frames", 1)), int(image.tell())
    except Exception:  # a file that is closed or damaged further on
        return []
    if count < 2 or at:  # who has gone on to another frame wants that one
        return []
    one = kind.removesuffix("s")
    return [f"the image has {count} {kind}, and the first is read alone: save the {one} you mean as a photo of its own"]


def _tag(image: Image.Image, number: int) -> object:
    """A tag of a TIFF; None for other images."""
    return getattr(image, "tag_v2", {}).get(number) if image.format == "TIFF" else None


def _stated_white(image: Image.Image) -> float | None:
    """The level of white by the depth that a TIFF states, such as 4095; None where the depth is a container's."""
    bits = _tag(image, 258)
    depth = bits[0] if isinstance(bits, tuple) and bits else bits
    return 2.0**depth - 1 if isinstance(depth, int) and 8 < depth < 16 else None


def _is_inverted(image: Image.Image) -> bool:
    """Whether 0 is white, which Pillow heeds for 8 bits alone."""
    return image.mode.startswith("I;16") and _tag(image, 262) == 0


def _eight_bits(
    image: Image.Image, white: float | int | None, stated: float | None, inverted: bool, notes: list[str]
) -> Image.Image:
    """Greys of integers or floating-point numbers as an image of mode L, or LA where one grey is transparent."""
    from PIL import Image

    if image.mode == "F" and white is None:
        raise InputError(
            "expected a photo of 8 or 16 bits; got floating-point greys (mode F): make them mode L first, or give "
            "white=LEVEL"
        )
    lows, highs = zip(*((band.min(), band.max()) for _, band in _bands(image)), strict=True)
    low, high = min(lows), max(highs)
    if not (math.isfinite(low) and math.isfinite(high)):
        raise InputError("expected finite greys; got NaN or infinity")
    if white is None:
        if low < 0 or high > 65535:
            raise InputError(
                f"expected 16-bit greys, 0 to 65535; got {low} to {high}: rescale to 8 bits first, or give white=LEVEL"
            )
        white = stated or _assumed_white(int(high), notes)
    clear = image.info.get("transparency")
    out = Image.new("L" if not isinstance(clear, int) else "LA", image.size)
    scale = white / 255
    for top, band in _bands(image):
        levels = np.clip(np.round(band / scale), 0, 255).astype(np.uint8)
        picture = Image.fromarray(255 - levels if inverted else levels)
        if isinstance(clear, int):
            picture.putalpha(Image.fromarray(np.where(band == clear, 0, 255).astype(np.uint8)))
        out.paste(picture, (0, top))
    if high == 0 and not inverted:
        notes.append("every pixel of the image is black")
    return out


def _assumed_white(high: int, notes: list[str]) -> float:
    """The level of white where nothing states it, by the highest grey."""
    if high <= 255:
        white, depth = (1, 1) if high == 1 else (255, 8)
    elif high <= 4095:
        white, depth = 4095, 12
    else:
        white, depth = 65535, 16
    if high and white < 65535:
        notes.append(
            f"the 16-bit greys of the image reach no further than {high}, so they are taken as {depth} "
            f"bit{'s'[: depth > 1]} deep (white is {white}). If they are not, {_WAY_OUT}"
        )
    elif high and high < 16384:
        notes.append(
            f"the 16-bit greys of the image reach no further than {high} of 65535, which makes a dark photo. If they "
            f"are 14 bits deep (white is 16383), {_WAY_OUT}"
        )
    return float(white)


def _check_levels(image: Image.Image, white: float | int | None, notes: list[str]) -> Image.Image:
    """An RGB image with its levels scaled to `white`, and a note where they are implausible."""
    high = max(int(high) for _, high in image.getextrema())  # type: ignore[misc]  of RGB, three pairs
    if white is None and high == 1:
        white = 1
        notes.append(f"the levels of the image are 0 and 1 alone, so 1 is taken as white. If it is not, {_WAY_OUT}")
    elif white is None and high == 0:
        notes.append("every pixel of the image is black")
    elif white is None and high <= _NEARLY_BLACK:
        notes.append(
            f"the image is nearly black: its brightest level is {high} of 255. Of colours of 16 bits the upper 8 are "
            f"read, so colours of fewer bits come out black. If it should be brighter, {_WAY_OUT}"
        )
    if white is None or white == 255:
        return image
    table = np.clip(np.round(np.arange(256) / (white / 255)), 0, 255).astype(int).tolist()
    return image.point(table * 3)


def _bands(image: Image.Image) -> Iterator[tuple[int, np.ndarray]]:
    """(the first row, the pixels [rows, W]) of each band of a grey image."""
    rows = max(1, _BAND // image.width)
    for top in range(0, image.height, rows):
        yield top, np.asarray(image.crop((0, top, image.width, min(top + rows, image.height))))


def _in_bands(image: Image.Image, mode: str, convert: Callable[[Image.Image], Image.Image]) -> Image.Image:
    """The image of another mode, converted band by band."""
    from PIL import Image

    out = Image.new(mode, image.size)
    rows = max(1, _BAND // image.width)
    try:
        for top in range(0, image.height, rows):
            band = convert(image.crop((0, top, image.width, min(top + rows, image.height))))
            out.paste(band, (0, top))
    except ValueError as error:
        raise InputError(
            f"expected a photo whose colours Pillow converts to RGB; got mode {image.mode} ({error}): save it as RGB"
        ) from None
    return out


def _on_white(band: Image.Image) -> Image.Image:
    from PIL import Image

    band = band.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", band.size, "white"), band).convert("RGB")
