"""One trainer for each folder: a second one would remove the checkpoints that the first one needs.

The lock is the operating system's (`flock`), on the file `.lock` in the folder. It ends with the process, however the
process ends, so a run that was killed can be resumed at once. Network file systems pass such locks on to the other
hosts, if they are mounted with locking; where a file system has no locks, the run says so and goes on without.
"""

from __future__ import annotations

import contextlib
import errno
import os
import platform
from collections.abc import Iterator
from pathlib import Path

from jaxmoxi.errors import InputError, warn
from jaxmoxi.files import make_folder

_NAME = ".lock"
_NONE = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL}  # what says "no locks here"


@contextlib.contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Holds the folder's lock. The folder is made if it is missing.

    Raises ValueError at once if another process, or another run of this process, holds the lock, and where the folder
    is a file or in one; OSError if the folder cannot be written.
    """
    make_folder(folder, "run")
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    path = folder / _NAME
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(descriptor, 200, 0).decode("utf-8", "replace").strip()
            os.close(descriptor)
            if error.errno in _NONE:
                warn(
                    f"the file system of {folder} has no locks: take care that no other process trains there",
                )
                yield
                return
            raise InputError(
                f"another process trains in {folder} ({holder or 'it has just started'}); wait until it ends, or train "
                "in another directory"
            ) from None
        # Its holder removes the file at the end. What was locked may thus be a file that has no name any more.
        with contextlib.suppress(FileNotFoundError):
            if os.stat(path).st_ino == os.fstat(descriptor).st_ino:
                break
        os.close(descriptor)
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()} on {platform.node()}\n".encode(), 0)
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)
