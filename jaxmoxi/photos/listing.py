"""Which files of a folder are photos, whatever depth they lie at, and why the others are not."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from jaxmoxi.escape import printable, shorten
from jaxmoxi.photos.formats import FORMATS, format_of, is_photo_name, suffix_of, why_not
from jaxmoxi.photos.reading import AnyPath, as_path


class Listing(NamedTuple):
    """The files of a folder and of the folders in it.

    photos:   the paths of those that count as photos, relative to the folder, with forward slashes, sorted.
    left_out: (path, reason) of the others, sorted. Hidden files count as neither.
    """

    photos: list[str]
    left_out: list[tuple[str, str]]

    @property
    def told(self) -> str:
        """One line that says how many files are photos and why the others are left out; "" where all are."""
        return describe_left_out(len(self.photos), self.left_out)


def find_photos(folder: AnyPath) -> Listing:
    """The photos of a folder and of all folders in it.

    A file counts as a photo by its ending (`photos.formats.PHOTO_SUFFIXES`, and .heic, .jxl and their like where the
    plug-in is installed), readable or not, so that a broken one is noticed. A file without an ending counts by its
    first bytes. Hidden files and folders, whose names begin with a dot, are passed over.
    """
    photos, left_out = [], []
    for name, path in _walk(as_path(folder), "", set()):
        reason = _left_out(path)
        if reason is None:
            photos.append(name)
        else:
            left_out.append((name, reason))
    return Listing(sorted(photos), sorted(left_out))


def describe_left_out(taken: int, left_out: Sequence[tuple[str, str]]) -> str:
    """One line: how many of how many files are taken, and the others by their reason, five names of each."""
    if not left_out:
        return ""
    reasons: dict[str, list[str]] = {}
    for name, reason in left_out:
        reasons.setdefault(reason, []).append(shorten(printable(name), 60))
    told = []
    for reason, names in reasons.items():
        more = f" and {len(names) - 5:,} more" if len(names) > 5 else ""
        told.append(f"{', '.join(names[:5])}{more} ({reason})")
    return f"{taken:,} of {taken + len(left_out):,} files are read; left out: {'; '.join(told)}"


def _left_out(path: Any) -> str | None:
    """Why a file is no photo; None for a photo."""
    if is_photo_name(path.name):
        return None
    head = _head(path)
    reason = why_not(path.name, head)
    if reason:
        return reason
    suffix, found = suffix_of(path.name), format_of(head)
    if not suffix:
        return None if found in FORMATS else "no image, by its first bytes"
    if found in FORMATS:
        return f"an image, though its ending {suffix} is not that of one: rename it"
    return f"the ending {suffix} is not that of an image"


def _walk(folder: Any, prefix: str, above: set[str]) -> Iterator[tuple[str, Any]]:
    """(relative path, path) of every file that is not hidden."""
    place = "" if "://" in str(folder) else os.path.realpath(str(folder))
    if place and place in above:  # a link to a folder that it lies in
        return
    for path in folder.iterdir():
        if path.name.startswith("."):
            continue
        if path.is_dir():
            yield from _walk(path, f"{prefix}{path.name}/", above | {place})
        else:
            yield f"{prefix}{path.name}", path


def _head(path: Any) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(32)
    except OSError:
        return b""
