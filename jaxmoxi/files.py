"""Files, in one place: reading a photo, writing a file that is never there in part, and claiming a folder for a run.

Every path may be a string, a `pathlib.Path` or an `etils.epath.Path`, so that buckets (gs://, s3://) work where the
caller has etils. Pillow is imported inside the functions: the core of this package needs JAX and NumPy alone.
"""

from __future__ import annotations

import io
import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

import numpy as np

from jaxmoxi.errors import InputError

if TYPE_CHECKING:
    from PIL import Image

PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif")
"""The endings, in lower case, by which a folder's files count as photos."""

AnyPath = str | os.PathLike[str]
T = TypeVar("T")


class UnreadableError(InputError):
    """A file that is not a readable image. The message names the file; `reason` says what is wrong without the name."""

    def __init__(self, message: str, reason: str):
        super().__init__(message)
        self.reason = reason


def read_photo(path: AnyPath) -> Image.Image:
    """A photo as an upright 8-bit RGB image.

    The EXIF rotation is applied. Greys, palettes, CMYK, 16-bit greys and transparency are converted as `to_rgb` says.
    A file that is cut short is noticed here, because all of its pixels are read. A read that fails for a moment, as on
    a network, is tried three times.

    Raises UnreadableError, a ValueError that names the file, for a file that is missing, is a folder, is cut short, is
    no image, or has more pixels than Pillow unpacks (178 million).
    """
    return read_image(path, to_rgb)


def read_image(path: AnyPath, convert: Callable[[Image.Image], T]) -> T:
    """What `convert` makes of the image in a file, all of whose pixels are loaded. Raises as `read_photo` does."""
    from PIL import Image, UnidentifiedImageError

    file = _as_path(path)
    try:
        with Image.open(io.BytesIO(_read_bytes(file))) as image:
            image.load()
            return convert(image)
    except FileNotFoundError:
        raise UnreadableError(f"{path} does not exist; expected an image file", "the file does not exist") from None
    except IsADirectoryError:
        raise UnreadableError(f"{path} is a folder, not a photo; expected an image file", "it is a folder") from None
    except UnidentifiedImageError:
        reason = "not an image of a known format, such as JPEG, PNG or WebP"
    except Exception as error:  # decoders meet broken files with errors of every kind
        reason = " ".join(str(error).replace(str(path), "the file").split()) or type(error).__name__
    raise UnreadableError(
        f"{path} cannot be read as an image ({reason}): copy the file again, or leave it out", reason
    ) from None


def to_rgb(image: Image.Image) -> Image.Image:
    """An upright RGB image, turned as its EXIF data say.

    16-bit greys are divided by 257, so that white stays white. What is transparent becomes white, as on paper.
    Raises ValueError for an image without pixels, for floating-point greys, and for greys outside 0 .. 65535.
    """
    from PIL import Image, ImageOps

    if 0 in image.size:
        raise InputError(f"expected a photo; got an image of {image.height} x {image.width} pixels")
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):  # Pillow's own conversion clips at 255, which turns everything bright white
        grey = np.asarray(image).astype(np.int64)
        low, high = grey.min(), grey.max()
        if low < 0 or high > 65535:
            raise InputError(f"expected 16-bit greys, 0 to 65535; got {low} to {high}: rescale to 8 bits first")
        image = Image.fromarray(np.round(grey / 257).astype(np.uint8))
    if image.mode == "F":
        raise InputError("expected a photo of 8 or 16 bits; got floating-point greys (mode F): make them mode L first")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def write_whole(path: AnyPath, content: str | bytes | Callable[[BinaryIO], Any]) -> None:
    """Writes a file so that it is there as a whole, or as it was before.

    The content goes to a draft beside the file, which then takes the file's name in one step of the file system. An
    object in a bucket appears when it is complete.

    content: text (written as UTF-8), bytes, or a function that writes into the open binary file.
    Raises OSError, and whatever `content` raises, and leaves no draft behind.
    """
    place = _as_path(path)
    draft = place.parent / f".{place.name}.{os.uname().nodename}.{os.getpid()}.tmp"
    try:
        with draft.open("wb") as file:
            if callable(content):
                content(file)
            else:
                file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            _sync(file)
        draft.replace(place)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def sweep_drafts(folder: AnyPath) -> None:
    """Removes the drafts that killed processes have left in a folder. Call this when no process writes there."""
    for path in _as_path(folder).iterdir():
        if path.name.startswith(".") and path.name.endswith(".tmp"):
            path.unlink(missing_ok=True)


def claim(
    folder: AnyPath,
    name: str,
    record: Mapping[str, Any],
    *,
    kind: str,
    settings: Callable[[dict[str, Any]], Mapping[str, Any]] = dict,
) -> None:
    """Makes a folder that of a run, or checks that it is.

    An empty or missing folder gets the record. In any other folder the record must be there, with the same settings.

    name:     of the file that holds the record, JSON.
    record:   what JSON can hold.
    kind:     what the folder is for, for the messages: "study", "run".
    settings: the part of a record that must not change, applied to the record found and to the one of now; by default
              all of it. It may raise KeyError or TypeError for a record of another kind.

    Raises ValueError for a folder that holds something else, or a run with other settings, which the message lists.
    """
    place = _as_path(folder)
    path = place / name
    record = json.loads(json.dumps(record))
    now = settings(dict(record))
    if not path.exists():
        if place.exists() and any(not p.name.startswith(".") for p in place.iterdir()):
            raise InputError(f"{folder} holds other files and no {kind}; name an empty folder, or a new one")
        place.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps(record, indent=1))
        return
    try:
        found = settings(json.loads(path.read_text(encoding="utf-8")))
        changed = changed_settings(found, now)
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} does not hold the settings of a {kind} ({error}); name another folder") from None
    if changed:
        raise InputError(
            f"{folder} holds a {kind} with other settings: {', '.join(changed)}. Use the same settings, or another "
            "folder"
        )


def changed_settings(there: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs, each as `NAME (there OLD, now NEW)`, in alphabetical order; nested ones are named `OUTER.INNER`."""
    old, new = _flat(there), _flat(now)
    return [
        f"{name} (there {old.get(name)!r}, now {new.get(name)!r})"
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    ]


def _flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(tree, Mapping):
        return {k: v for name, part in tree.items() for k, v in _flat(part, f"{prefix}{name}.").items()}
    return {prefix.rstrip("."): tree}


def _as_path(path: AnyPath) -> Any:
    """A `pathlib.Path`, or a path of etils as it came, which has the same methods."""
    return path if hasattr(path, "open") else Path(path)


def _read_bytes(path: Any) -> bytes:
    for _ in range(2):
        try:
            return path.read_bytes()
        except (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError):
            raise
        except Exception:  # the libraries for buckets raise errors of their own
            time.sleep(0.5)
    return path.read_bytes()


def _sync(file: BinaryIO) -> None:
    """Waits until a local file is on disk. An object in a bucket has no descriptor, and needs no waiting."""
    try:
        descriptor = file.fileno()
    except (AttributeError, io.UnsupportedOperation):
        return
    os.fsync(descriptor)
