"""Reading one photo from a file: an explicit list of formats, a limit on pixels, errors that name the file.

Every path may be a string, a `pathlib.Path` or an `etils.epath.Path`, so that buckets (gs://, s3://) work where the
caller has etils. Pillow is imported inside the functions: the core of this package needs JAX and NumPy alone.
"""

from __future__ import annotations

import io
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from jaxmoxi.errors import InputError, warn
from jaxmoxi.escape import printable
from jaxmoxi.photos.convert import PhotoWarning, converted
from jaxmoxi.photos.formats import is_raw_name, known_formats, pixel_limit, why_not

if TYPE_CHECKING:
    from PIL import Image, ImageFile

AnyPath = str | os.PathLike[str]
T = TypeVar("T")

_OPENING = threading.Lock()


class UnreadableError(InputError):
    """A file that is not a readable image. The message names the file; `reason` says what is wrong without the name."""

    def __init__(self, message: str, reason: str):
        super().__init__(message)
        self.reason = reason


def read_photo(path: AnyPath, *, white: float | int | None = None, max_pixels: int | None = None) -> Image.Image:
    """A photo as an upright 8-bit RGB image.

    The EXIF rotation is applied. Greys, palettes, CMYK, 16-bit greys and transparency are converted as `to_rgb` says.
    A file that is cut short is noticed here, because all of its pixels are read. A read that fails for a moment, as on
    a network, is tried three times. The content decides what format it is, not the name; the formats are those of
    `photos.formats.FORMATS`, which start no other program. HEIC and JPEG XL need their plug-in (`pip install
    pillow-heif`), which is used where it is installed.

    white:      the level that is white, see `to_rgb`.
    max_pixels: the most pixels, checked before anything is unpacked. None: 2^27 (134 million), or what the environment
                says in JAXMOXI_MAX_PIXELS. A photo takes 4 bytes a pixel, and at most twice that while it is read.

    What was assumed is told by a `PhotoWarning` that names the file: see `to_rgb`.
    Raises UnreadableError, a ValueError that names the file, for a file that is missing, is a folder, is cut short, is
    no image, or has more pixels.
    """
    photo, notes = read_with_notes(path, white=white, max_pixels=max_pixels)
    for note in notes:
        warn(f"{printable(str(path))}: {note}", PhotoWarning)
    return photo


def read_with_notes(
    path: AnyPath, *, white: float | int | None = None, max_pixels: int | None = None
) -> tuple[Image.Image, tuple[str, ...]]:
    """`read_photo`, and its warnings as texts without the file's name, for who keeps them in a record."""

    def convert(image: Image.Image) -> tuple[Image.Image, tuple[str, ...]]:
        rgb, notes = converted(image, white)
        return (rgb.copy() if rgb is image else rgb), tuple(notes)  # a file's image knows its frames and rotation

    return read_image(path, convert, max_pixels=max_pixels)


def read_image(
    path: AnyPath, convert: Callable[[Image.Image], T], *, max_pixels: int | None = None, load: bool = True
) -> T:
    """What `convert` makes of the image in a file, all of whose pixels are loaded. Raises as `read_photo` does.

    load: False reads the head of the file alone, until `convert` asks for pixels.
    """
    from PIL import UnidentifiedImageError

    limit = pixel_limit(max_pixels)
    file, content = as_path(path), b""
    try:
        content = read_bytes(file)
        if is_raw_name(file.name):
            raise InputError(why_not(file.name, content[:32]))
        with open_image(content, max_pixels=limit) as image:
            if load:
                image.load()
            return convert(image)
    except FileNotFoundError:
        raise UnreadableError(f"{path} does not exist; expected an image file", "the file does not exist") from None
    except IsADirectoryError:
        raise UnreadableError(f"{path} is a folder, not a photo; expected an image file", "it is a folder") from None
    except UnidentifiedImageError:
        known = why_not(file.name, content[:32])
        reason = known or "not an image of a known format, such as JPEG, PNG or WebP"
        if known:
            raise UnreadableError(f"{path} cannot be read as an image ({reason})", reason) from None
    except InputError as error:  # the file is whole: copying it again would not help
        reason = str(error)
        raise UnreadableError(f"{path} cannot be read as an image ({reason})", reason) from None
    except Exception as error:  # decoders meet broken files with errors of every kind
        reason = " ".join(str(error).replace(str(path), "the file").split()) or type(error).__name__
    raise UnreadableError(
        f"{path} cannot be read as an image ({reason}): copy the file again, or leave it out", reason
    ) from None


def open_image(content: bytes, *, max_pixels: int | None = None) -> ImageFile.ImageFile:
    """An image in a file's content, of a known format and size; its pixels are not read yet.

    Raises InputError for more pixels than the limit (see `read_photo`), and PIL.UnidentifiedImageError.
    """
    from PIL import Image

    limit = pixel_limit(max_pixels)
    # Pillow's own limit is one for the whole process, whose warning starts at 89 million pixels.
    with _OPENING:
        theirs, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            image = Image.open(io.BytesIO(content), formats=known_formats())
        finally:
            Image.MAX_IMAGE_PIXELS = theirs
    width, height = image.size
    if width * height > limit:
        image.close()
        raise InputError(
            f"{width} x {height} = {width * height:,} pixels are more than the limit of {limit:,}: make the photo "
            f"smaller, or allow more with max_pixels= or JAXMOXI_MAX_PIXELS={width * height} in the environment"
        )
    return image


def as_path(path: AnyPath) -> Any:
    """A `pathlib.Path`, or a path of etils as it came, which has the same methods."""
    return path if hasattr(path, "open") else Path(path)


def read_bytes(path: Any) -> bytes:
    """The content of a file. A read that fails for a moment is tried three times."""
    for _ in range(2):
        try:
            return path.read_bytes()
        except (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError):
            raise
        except Exception:  # the libraries for buckets raise errors of their own
            time.sleep(0.5)
    return path.read_bytes()
