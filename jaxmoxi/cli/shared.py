"""What the commands share: their one kind of error, and how a process starts and names itself."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from jax.sharding import Mesh

from jaxmoxi.errors import InputError


class CommandError(Exception):
    """A mistake that one line can explain."""


@contextmanager
def one_line(prefix: str = "") -> Iterator[None]:
    """Turns what the library says is wrong with an input into the command's own error.

    The errors are those made for users (`InputError`), of the file system, of a package that is missing, and of the
    memory. Any other error, such as a plain ValueError, is a mistake in the code and passes with its traceback.
    """
    try:
        yield
    except (InputError, OSError, ImportError, MemoryError) as error:
        raise CommandError(f"{prefix}{error}") from error


def start_compilation_cache() -> None:
    """Keeps compiled programs for the next run: most of a short run is compilation.

    In `$XDG_CACHE_HOME/jaxmoxi` (default `~/.cache/jaxmoxi`), unless JAX_COMPILATION_CACHE_DIR says otherwise.
    """
    import jax

    if jax.config.jax_compilation_cache_dir is not None:  # type: ignore[attr-defined]
        return
    try:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "jaxmoxi"
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # no home to write to: every run compiles anew
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def start_devices() -> Mesh | None:
    """The mesh of all that this process computes on (`jaxmoxi.local_mesh`), where it has more than one device and JAX
    has not started before; else None."""
    import jaxmoxi as jm

    try:
        mesh = jm.local_mesh()
    except RuntimeError:  # called from a program that uses JAX already: its devices are its own
        return None
    return mesh if mesh.size > 1 else None


def check_out(folder: Path) -> None:
    """Makes the folder and tries to write into it, before the long computation rather than after."""
    probe = folder / f".write-test.{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise CommandError(f"--out {folder}: cannot write there ({error.strerror}); name a folder of yours") from None


def versions() -> dict[str, Any]:
    """The device and the versions that a result comes from."""
    import jax

    import jaxmoxi as jm

    return {
        "device": jax.devices()[0].device_kind,
        "versions": {
            "jaxmoxi": jm.__version__,
            "jax": jax.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
    }
