"""What is in the photos' files: a study notices a photo that has changed since it was measured."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

from etils import epath

from jaxmoxi.escape import printable, shorten
from jaxmoxi.study.photos import Photo
from jaxmoxi.study.records import Result

LISTED = 3  # names in a message; of the others it tells the number


def content_of(folder: epath.Path, photo: Photo, *, with_mask: bool) -> str:
    """SHA-256 of a photo's file, and of its mask's after a plus sign where the study reads masks; "" for no file."""
    wanted = [photo.name, *([photo.mask] if photo.mask and with_mask else [])]
    found = [_digest(folder / name) for name in wanted]
    return "+".join(found) if found[0] else ""


def changed(folder: epath.Path, photos: Sequence[Photo], results: Iterable[Result], *, with_mask: bool) -> list[Result]:
    """The results whose photos, or masks, are no longer those that were measured.

    A photo whose file is gone has not changed: its numbers are all that is left of it.
    """
    found = []
    for result in results:
        now = content_of(folder, photos[result.index], with_mask=with_mask)
        if now and now != result.content:
            found.append(result)
    return found


def names(results: Iterable[str]) -> str:
    """Some names for a message: the first three, and how many more there are."""
    listed = [shorten(printable(name), 120) for name in results]
    more = f" and {len(listed) - LISTED} more" if len(listed) > LISTED else ""
    return ", ".join(listed[:LISTED]) + more


def _digest(path: epath.Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except Exception:  # the libraries for buckets raise errors of their own; reading the photo tells what is wrong
        return ""
