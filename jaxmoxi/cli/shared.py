"""What the commands share: the error that becomes one line, the start of a process, and the versions of a result."""

from __future__ import annotations

import dataclasses
import os
import platform
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import tyro
from jax.sharding import Mesh

from jaxmoxi.errors import InputError
from jaxmoxi.escape import printable

if TYPE_CHECKING:  # flax takes seconds to import
    from jaxmoxi.models.classifier import Classifier


class CommandError(Exception):
    """A mistake of the user, which the command explains in one line."""


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


@contextmanager
def plain_warnings() -> Iterator[None]:
    """Prints what the library warns of (`UserWarning`) as one plain line on stderr, each text once."""
    told: set[str] = set()
    with warnings.catch_warnings():
        others = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
            text = printable(str(message))
            if not issubclass(category, UserWarning):
                others(message, category, *place, **more)
            elif text not in told:
                told.add(text)
                say(f"jaxmoxi: warning: {text}")

        warnings.showwarning = show
        yield


def say(line: str) -> None:
    """Prints a line on stderr, above a progress bar."""
    from tqdm import tqdm

    tqdm.write(line, file=sys.stderr)


@dataclasses.dataclass(frozen=True)
class HubOptions:
    """For a --model that is a name of the Hugging Face hub."""

    revision: Annotated[str | None, tyro.conf.arg(metavar="NAME", help_behavior_hint="")] = None
    """A branch, a tag or a commit of the model. Left out: main."""
    cache_dir: Annotated[Path | None, tyro.conf.arg(metavar="DIR", help_behavior_hint="")] = None
    """Where downloaded models are kept. Left out: as HF_HOME or HF_HUB_CACHE says, else ~/.cache/huggingface/hub."""
    local_files_only: tyro.conf.FlagCreatePairsOff[bool] = False
    """Take the model as it is there, and ask nothing of the network."""


NO_HUB_OPTIONS = HubOptions()


def load_model(
    folder: Path | None,
    preprocessing: str | None = None,
    image_size: str | None = None,
    *,
    hub: HubOptions = NO_HUB_OPTIONS,
    quiet: bool = False,
) -> Classifier:
    """The classifier of a folder, or of a name of the hub; for None, and for "demo", the demonstration's.

    preprocessing, image_size: what the options of these names say. quiet: without the progress of a download.
    """
    import jaxmoxi as jm
    from jaxmoxi.models.checkpoints.hub import without_bars

    size = None if image_size is None else parse_size(image_size)
    if folder is not None and not (str(folder) == "demo" and not folder.exists()):
        bars = without_bars() if quiet and not folder.expanduser().exists() else nullcontext()
        with bars:
            return jm.models.load(folder, preprocessing=preprocessing, image_size=size, **dataclasses.asdict(hub))
    for name, given in (("--preprocessing", preprocessing), ("--image-size", image_size)):
        if given is not None:
            raise CommandError(f"{name} needs a --model of yours: the demonstration model has its own")
    if hub != NO_HUB_OPTIONS:
        raise CommandError("--revision, --cache-dir and --local-files-only need a --model that is a name of the hub")
    return jm.models.demo()


def parse_size(text: str) -> tuple[int, int]:
    """What `--image-size` says, as (height, width): "384", or "160x288" for 160 rows of 288 pixels."""
    found = re.fullmatch(r"(\d{1,5})(?:\s*[xX×]\s*(\d{1,5}))?", text.strip())
    if found is None or not int(found[1]) or not int(found[2] or 1):
        raise CommandError(
            f"--image-size: expected pixels, a side or HEIGHTxWIDTH, such as 384 or 160x288; got {text!r}"
        )
    return int(found[1]), int(found[2] or found[1])


def start_compilation_cache() -> None:
    """Keeps compiled programs on disk, because compilation is most of a short run.

    In `$XDG_CACHE_HOME/jaxmoxi` (default `~/.cache/jaxmoxi`), unless JAX_COMPILATION_CACHE_DIR names another folder.
    """
    import jax

    if jax.config.jax_compilation_cache_dir is not None:  # type: ignore[attr-defined]
        return
    try:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "jaxmoxi"
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # there is no home to write to, so every run compiles anew
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def start_devices() -> Mesh | None:
    """The mesh of all devices of this process (`jaxmoxi.local_mesh`).

    None where there is one device only, and where JAX has started already.
    """
    import jaxmoxi as jm

    try:
        mesh = jm.local_mesh()
    except RuntimeError:  # the caller uses JAX already, and has chosen its devices
        return None
    return mesh if mesh.size > 1 else None


def check_out(folder: Path) -> None:
    """Makes the folder and writes a probe into it, so that a mistake shows before the long computation."""
    probe = folder / f".write-test.{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise CommandError(f"--out {folder}: cannot write there ({error.strerror}); name a folder of yours") from None


def versions() -> dict[str, Any]:
    """The device and the versions that a result was computed with, for its record."""
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
