"""Files, in one place: writing a file that is never there in part, and claiming a folder for a run.

How a photo is read is in `jaxmoxi.photos`; its names that others use stand here too.

Every path may be a string, a `pathlib.Path` or an `etils.epath.Path`, so that buckets (gs://, s3://) work where the
caller has etils.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any, BinaryIO

from jaxmoxi.errors import InputError
from jaxmoxi.escape import file_name
from jaxmoxi.photos.convert import PhotoWarning, to_rgb
from jaxmoxi.photos.formats import PHOTO_SUFFIXES
from jaxmoxi.photos.reading import AnyPath, UnreadableError, as_path, read_image, read_photo, read_with_notes

__all__ = [
    "PHOTO_SUFFIXES",
    "AnyPath",
    "PhotoWarning",
    "UnreadableError",
    "changed_settings",
    "claim",
    "read_image",
    "read_photo",
    "read_with_notes",
    "sweep_drafts",
    "to_rgb",
    "write_together",
    "write_whole",
]

Content = str | bytes | Callable[[BinaryIO], Any]


def write_whole(path: AnyPath, content: Content) -> None:
    """Writes a file so that it is there as a whole, or as it was before.

    The content goes to a draft beside the file, which then takes the file's name in one step of the file system. An
    object in a bucket appears when it is complete.

    content: text (written as UTF-8), bytes, or a function that writes into the open binary file.
    Raises OSError, and whatever `content` raises, and leaves no draft behind.
    """
    write_together({path: content})


def write_together(contents: Mapping[AnyPath, Content]) -> None:
    """Writes several files so that all of them are there as a whole, or all are as they were before.

    All drafts are written first, then each takes its file's name. Where one cannot, those that came before it are taken
    back. A process that is killed in between leaves files without the last one: the last file tells that all are there.

    contents: what `write_whole` takes, by path; the paths differ.
    Raises OSError, and whatever a content raises, and leaves no draft behind.
    """
    drafts: list[tuple[Any, Any]] = []
    kept: list[tuple[Any, Any]] = []
    done: list[Any] = []
    try:
        for number, (path, content) in enumerate(contents.items()):
            place = as_path(path)
            draft = _beside(place, f"new{number}")
            drafts.append((draft, place))
            with draft.open("wb") as file:
                if callable(content):
                    content(file)
                else:
                    file.write(content.encode() if isinstance(content, str) else content)
                file.flush()
                _sync(file)
        for number, (_, place) in reversed(list(enumerate(drafts if len(drafts) > 1 else []))):
            if place.exists():
                old = _beside(place, f"old{number}")
                place.rename(old)
                kept.append((old, place))
        for draft, place in drafts:
            draft.replace(place)
            done.append(place)
    except BaseException:
        if len(drafts) > 1:
            for place in done:
                place.unlink(missing_ok=True)
        for old, place in kept:
            old.replace(place)
        for draft, _ in drafts:
            draft.unlink(missing_ok=True)
        raise
    for old, _ in kept:
        old.unlink(missing_ok=True)


def _beside(place: Any, kind: str) -> Any:
    """The hidden path of a draft for a file, which no other process uses and whose name is not too long."""
    end = f".{kind}.{os.uname().nodename[:40]}.{os.getpid()}.tmp"
    return place.parent / f".{file_name(place.name, limit=200 - len(end))}{end}"


def sweep_drafts(folder: AnyPath) -> None:
    """Removes the drafts that killed processes have left in a folder. Call this when no process writes there."""
    for path in as_path(folder).iterdir():
        if path.name.startswith(".") and path.name.endswith(".tmp"):
            path.unlink(missing_ok=True)


def make_folder(folder: AnyPath, kind: str) -> None:
    """Makes a folder where there is none. Raises ValueError where it, or what it is in, is a file.

    kind: what the folder is for, for the message: "study", "run".
    """
    place = as_path(folder)
    try:
        place.mkdir(parents=True, exist_ok=True)
        any(place.iterdir() if place.exists() else ())  # a bucket makes no folders, and so meets no file before
    except (FileExistsError, NotADirectoryError):
        raise InputError(
            f"{folder}: expected a folder for a {kind}, or a new one; it, or what it is in, is a file or a broken link"
        ) from None


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
    place = as_path(folder)
    path = place / name
    record = json.loads(json.dumps(record))
    now = settings(dict(record))
    if not path.exists():
        make_folder(folder, kind)
        if place.exists() and any(not p.name.startswith(".") for p in place.iterdir()):
            raise InputError(f"{folder} holds other files and no {kind}; name an empty folder, or a new one")
        write_whole(path, json.dumps(record, indent=1))
        return
    try:
        found = settings(json.loads(path.read_text(encoding="utf-8")))
        changed = changed_settings(found, now)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} does not hold the settings of a {kind} ({error}); name another folder") from None
    if changed:
        raise InputError(
            f"{folder} holds a {kind} with other settings: {', '.join(changed)}. Use the same settings, or another "
            "folder"
        )


def changed_settings(there: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs, each as `NAME (there OLD, now NEW)`, in alphabetical order; nested ones are named `OUTER.INNER`.

    What only one of the two has is `NAME (there OLD, not now)` or `NAME (not there, now NEW)`, without its value where
    more is nested in it.
    """
    return sorted(_changed(there, now, ""))


def _changed(there: Mapping[str, Any], now: Mapping[str, Any], prefix: str) -> Iterator[str]:
    for name in there.keys() | now.keys():
        full = f"{prefix}{name}"
        if (there if name in there else now)[name] is None and not (name in there and name in now):
            continue  # a setting that came later, and is None where it is not set
        if name not in now:
            yield f"{full} (there{_value(there[name])}, not now)"
        elif name not in there:
            yield f"{full} (not there, now{_value(now[name])})"
        elif isinstance(old := there[name], Mapping) and isinstance(new := now[name], Mapping):
            yield from _changed(old, new, f"{full}.")
        elif there[name] != now[name]:
            yield f"{full} (there {there[name]!r}, now {now[name]!r})"


def _value(value: Any) -> str:
    return "" if isinstance(value, Mapping) else f" {value!r}"


def _sync(file: BinaryIO) -> None:
    """Waits until a local file is on disk. An object in a bucket has no descriptor, and needs no waiting."""
    try:
        descriptor = file.fileno()
    except (AttributeError, io.UnsupportedOperation):
        return
    os.fsync(descriptor)
