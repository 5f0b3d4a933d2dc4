"""What the files of a result are called: after the photo, and never over the result of another photo."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from jaxmoxi.cli.shared import CommandError
from jaxmoxi.escape import file_name

SUFFIXES = (".png", ".npz", ".json")
# Most file systems hold names of 255 bytes, encrypted ones of about 140; drafts and endings need some of them.
_LENGTHS = (180, 80)
_MOST = 10_000


class Identity(NamedTuple):
    """Which photo a result is of. path: absolute, None for the bundled photo. digest: SHA-256 of the file."""

    path: str | None
    digest: str | None

    def record(self) -> dict[str, Any]:
        """The entries of a result's record by which its photo is known again."""
        return {"photo_path": self.path, "photo_sha256": self.digest}


def identify(photo: Path | None) -> Identity:
    """The identity of a photo that can be read."""
    if photo is None:
        return Identity(None, None)
    return Identity(os.path.abspath(photo), hashlib.sha256(photo.read_bytes()).hexdigest())


def choose_base(out: Path, stem: str, kind: str, photo: Identity) -> tuple[Path, str]:
    """(the path of a result's files without their endings, what to tell: "" for the plain name).

    STEM-KIND, where no file is called so, or where the files there are of the same photo, by its path or its content:
    they are then replaced. Otherwise STEM-2-KIND, STEM-3-KIND, ... A name that is too long for the file system is
    shortened.
    """
    stem = _fitting(out, stem, kind)
    other = ""
    for number in range(1, _MOST):
        base = out / f"{stem}{'' if number == 1 else f'-{number}'}-{kind}"
        there = [base.with_name(base.name + suffix) for suffix in SUFFIXES]
        if not any(path.exists() for path in there) or _is_of(there[-1], photo):
            return base, f"{other}, so the files of this photo are called {base.name}" if other else ""
        other = other or f"{out} has {base.name}{SUFFIXES[-1]} of another photo"
    raise CommandError(f"--out {out}: has results of {_MOST} photos called {stem}; name another folder")


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keeps other processes from choosing a name and writing in a folder at the same time, where locks are known."""
    descriptor = None
    try:
        with suppress(OSError, ImportError):
            import fcntl

            descriptor = os.open(folder, os.O_RDONLY)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _fitting(out: Path, stem: str, kind: str) -> str:
    """The stem as a file's name, of a length that the file system takes."""
    for length in _LENGTHS:
        name = file_name(stem, limit=length)
        try:
            os.lstat(out / f".{name}-{kind}.json.{'0' * 40}")
        except FileNotFoundError:
            return name
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:
                raise CommandError(f"--out {out}: cannot write there ({error.strerror})") from None
        else:
            return name
    raise CommandError(f"--out {out}: its path is too long for the file system; name a shorter one")


def _is_of(record: Path, photo: Identity) -> bool:
    """Whether a record is of the photo. One that is missing or damaged is of another."""
    try:
        found = json.loads(record.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    if not isinstance(found, dict) or "photo" not in found:
        return False
    named = found["photo"]
    if named is None or photo.path is None:
        return named is photo.path
    path = found.get("photo_path") or (os.path.abspath(named) if isinstance(named, str) else None)
    return path == photo.path or (found.get("photo_sha256") or "") == photo.digest
