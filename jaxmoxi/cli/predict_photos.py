"""Which photos `jaxmoxi predict` is given: files and folders, with the classes that folders or tables name."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxmoxi.cli.shared import CommandError, one_line
from jaxmoxi.errors import InputError
from jaxmoxi.escape import printable, shorten
from jaxmoxi.files import UnreadableError, read_image, read_with_notes
from jaxmoxi.photos.formats import FORMATS, format_of
from jaxmoxi.photos.listing import find_photos
from jaxmoxi.plot.strokes import short

_NAMED = 5  # of many


class Given(NamedTuple):
    """One photo. path: as it is opened. name: what it is called in tables. label: its true class, -1 if not known."""

    path: Path
    name: str
    label: int


class Photos(NamedTuple):
    """The photos to predict.

    readable: those that look like images.
    failed:   (photo, why) of the others.
    notes:    lines to tell before it begins.
    """

    readable: list[Given]
    failed: list[tuple[Given, str]]
    notes: list[str]


def is_collection(path: Path) -> bool:
    """Whether a path stands for several photos: a folder, or a table of them."""
    return path.is_dir() or path.suffix.lower() == ".csv"


def find_given(paths: Sequence[Path], class_names: Sequence[str], out: Path) -> Photos:
    """The photos that paths stand for, each once, in the order of the paths; folders are sorted by name.

    out: the folder to write to, whose pictures are no photos: it is passed over where it lies inside a folder.

    No photo is opened but for its first bytes, or, where those tell nothing, its head.
    Raises CommandError for a folder or a table that holds no photo, for labels that are no class, and for a folder that
    is the one to write to.
    """
    found: dict[str, Given] = {}
    notes: list[str] = []
    for path in paths:
        if path.is_dir() and path.resolve() == out.resolve():
            raise CommandError(
                f"--out {out} is the folder of the photos, where the next run would take the pictures for photos: name "
                "another folder"
            )
        one = [Given(path, str(path), -1)]
        for photo in _of_collection(path, class_names, notes, out) if is_collection(path) else one:
            found.setdefault(os.path.abspath(photo.path), photo)
    every = list(found.values())
    if len(paths) > 1:  # what the paths have in common says nothing in a table
        common = os.path.commonpath([os.path.dirname(path) for path in found])
        every = [photo._replace(name=os.path.relpath(path, common)) for path, photo in found.items()]
    reasons = [_looks_wrong(photo.path) for photo in every]
    failed = [(photo, reason) for photo, reason in zip(every, reasons, strict=True) if reason]
    if len(failed) == len(every):
        raise CommandError(f"{tell_failed(failed, len(every))}: there is nothing to predict")
    return Photos([p for p, reason in zip(every, reasons, strict=True) if not reason], failed, notes)


def _of_collection(path: Path, class_names: Sequence[str], notes: list[str], out: Path) -> list[Given]:
    """The photos of a folder or table, and notes of what is not read, and of where their classes come from."""
    from jaxmoxi.study.photos import find_listed, photo_folder

    with one_line():
        found = find_listed(path, class_names, need_labels=False)
        root = Path(str(photo_folder(path)))
        table = path if path.suffix.lower() == ".csv" else path / "labels.csv"
        is_table = table.is_file()
        beside = find_photos(path).photos if is_table and table != path else []
    shown = printable(str(path))
    if found.told:
        notes.append(f"{shown}: {found.told}")
    photos = found.photos
    if path.is_dir() and out.resolve().is_relative_to(path.resolve()):
        inside = out.resolve().relative_to(path.resolve()).as_posix() + "/"
        photos = [photo for photo in photos if not photo.name.startswith(inside)]
        beside = [name for name in beside if not name.startswith(inside)]
        if len(photos) < len(found.photos):
            notes.append(f"{shown}: {printable(inside)}, the folder of --out, is passed over")
        if not photos:
            raise CommandError(f"{path} holds no photo but those in {out}, the folder of --out")
    named = {photo.name for photo in photos} | {photo.mask for photo in photos}
    passed = [name for name in beside if name not in named]
    if passed:
        notes.append(f"{shown}: labels.csv does not list {listed(passed)}, which {_are(passed)} left out")
    known = [photo for photo in photos if photo.label >= 0]
    if known:
        by = printable(table.name) if is_table else "class folders"
        folders = {(part, p.label) for p in known for part in p.name.split("/")[:-1]}
        numbered = sorted((part, label) for part, label in folders if part.isdecimal() and int(part) == label)
        if numbered and not is_table:
            part, label = numbered[0]
            by += f", whose numbers are taken as indices ({part}: {shorten(printable(short(class_names[label])), 30)})"
        notes.append(f"{shown}: the true class of {len(known):,} of {len(photos):,} photos is known, by {by}")
    unknown = sorted({photo.name.rpartition("/")[0] for photo in photos if photo.label < 0} - {""})
    if unknown and not is_table:
        told = ", ".join(shorten(printable(short(name)), 30) for name in class_names[:_NAMED])
        more = ", ..." if len(class_names) > _NAMED else ""
        notes.append(
            f"{shown}: {listed(unknown, '/')} name{'s' * (len(unknown) == 1)} no class of the model ({told}{more}), so "
            "the true class of the photos there is not known"
        )
    return [Given(root / p.name, p.name, p.label) for p in photos]


def _looks_wrong(path: Path) -> str:
    """Why a file cannot be a photo, by its first bytes or its head; "" for one that may be."""
    try:
        with path.open("rb") as file:
            if format_of(file.read(32)) in FORMATS:
                return ""
        read_image(path, lambda image: None, load=False)
    except UnreadableError as error:
        return error.reason
    except FileNotFoundError:
        return "the file does not exist"
    except OSError as error:
        return error.strerror or str(error)
    return ""


class Read(NamedTuple):
    """A photo that was read. image: uint8[S, S, 3], as the model sees it. notes: what was assumed."""

    given: Given
    image: np.ndarray
    notes: tuple[str, ...]


def read_each(photos: Sequence[Given], image_size: int, failed: list[tuple[Given, str]]) -> Iterator[Read | None]:
    """Each photo as the model sees it; None, with a line more in `failed`, for one that cannot be read."""
    from jaxmoxi.p2p.data import Example, resize_and_crop

    for photo in photos:
        try:
            picture, notes = read_with_notes(photo.path)
            image = resize_and_crop(Example(np.array(picture), 0), image_size=image_size).image
        except UnreadableError as error:
            failed.append((photo, error.reason))
        except (InputError, OSError, MemoryError) as error:
            failed.append((photo, " ".join(str(error).split()) or type(error).__name__))
        else:
            yield Read(photo, image, notes)
            continue
        yield None


def tell_failed(failed: Sequence[tuple[Given, str]], total: int) -> str:
    """One line: how many of how many photos cannot be read, and the first of them with their reasons."""
    told = [f"{shorten(printable(photo.name), 60)} ({printable(reason)})" for photo, reason in failed[:_NAMED]]
    more = f" and {len(failed) - _NAMED:,} more" if len(failed) > _NAMED else ""
    return f"{len(failed):,} of {total:,} photos cannot be read: {', '.join(told)}{more}"


def listed(names: Sequence[str], end: str = "") -> str:
    """The first of many names, for print, and how many more there are."""
    more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
    return ", ".join(shorten(printable(name), 60) + end for name in names[:_NAMED]) + more


def _are(names: Sequence[str]) -> str:
    return "is" if len(names) == 1 else "are"
