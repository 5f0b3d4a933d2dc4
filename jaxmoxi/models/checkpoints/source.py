"""What `load` is given, as a folder: one on disk, one in the cache of the Hugging Face hub, a weights file in one."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple

from jaxmoxi.errors import InputError
from jaxmoxi.models.checkpoints.json_file import MissingFileError
from jaxmoxi.models.checkpoints.torch_pickle import brief
from jaxmoxi.models.checkpoints.weights import NPZ, SAFETENSORS, TORCH, WEIGHTS, describe_unread

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+:/{1,2}|(?:hf|hf-hub):", re.IGNORECASE)


class Source(NamedTuple):
    """A folder with a `config.json`, the weights file in it that was asked for, and what to call the model.

    Beside a `.npz` of Google's JAX code there may be no `config.json`.
    """

    folder: Path
    file: str | None
    name: str


def find_source(source: str | os.PathLike[str]) -> Source:
    """The folder that a path or a name stands for.

    Raises FileNotFoundError, which says how to get it, for what is not on this machine, and ValueError for what is no
    path and no folder of a model.
    """
    try:
        given = os.fspath(source)
    except TypeError:
        raise InputError(f"expected the path of a checkpoint folder; got {brief(repr(source))}") from None
    if not isinstance(given, str) or not given.strip() or "\0" in given:
        raise InputError(f"expected the path of a checkpoint folder; got {brief(repr(given))}")
    if _ADDRESS.match(given):
        raise InputError(_describe_address(given))
    try:
        path = Path(given).expanduser()
    except RuntimeError as error:
        raise InputError(f"expected the path of a checkpoint folder; got {brief(given)}: {error}") from None
    try:
        found = _at(path)
    except MissingFileError:
        raise
    except OSError as error:
        raise InputError(f"expected the path of a checkpoint folder; got {brief(given)}: {error.strerror}") from None
    if found is not None:
        return found
    name = given.removesuffix("/")
    if _HUB_NAME.fullmatch(name):
        cached = _at(_cache() / f"models--{name.replace('/', '--')}")
        if cached is not None:
            return cached
        raise MissingFileError(_describe_hub_name(name))
    raise MissingFileError(
        f"no model folder {path}; expected a folder with config.json and one of {', '.join(WEIGHTS)}"
    )


def _at(path: Path) -> Source | None:
    """What stands at a path; None where nothing does."""
    if path.is_dir():
        if not (path / "config.json").exists() and (path / "snapshots").is_dir():
            organisation, _, name = path.resolve().name.removeprefix("models--").rpartition("--")
            return Source(_snapshot(path), None, name or organisation)
        return Source(path, None, path.resolve().name)
    if not path.exists():
        return None
    if path.name == "config.json":
        return Source(path.parent, None, path.resolve().parent.name)
    if not path.name.endswith(SAFETENSORS + TORCH + NPZ):
        if what := describe_unread(path.name):
            raise InputError(f"{path} is {what}")
        raise InputError(
            f"{path} is no folder and no weights file ({', '.join(SAFETENSORS + TORCH + NPZ)}); expected a checkpoint "
            "folder"
        )
    if not (path.parent / "config.json").exists():
        if path.name.endswith(NPZ):
            return Source(path.parent, path.name, path.stem)
        raise MissingFileError(
            f"{path} has no config.json beside it, which says what network the weights are of; write one such as "
            '{"architecture": "vit_tiny_patch16_224", "num_classes": 1000}'
        )
    return Source(path.parent, path.name, path.absolute().parent.name)


def _snapshot(root: Path) -> Path:
    """The snapshot of a model in the hub's cache: that of the branch main, else the only one."""
    main = root / "refs" / "main"
    if main.is_file() and main.stat().st_size < 1000:
        revision = main.read_text("utf-8", errors="replace").strip()
        if re.fullmatch(r"[\w-]+", revision) and (root / "snapshots" / revision).is_dir():
            return root / "snapshots" / revision
    snapshots = sorted(p for p in (root / "snapshots").iterdir() if p.is_dir())
    if len(snapshots) != 1:
        listed = ", ".join(p.name for p in snapshots[:4]) or "none"
        raise InputError(
            f"{root} is a folder of the hub's cache with {len(snapshots)} snapshots ({listed}); expected refs/main to "
            "name one of them: give the path of a snapshot"
        )
    return snapshots[0]


def _cache() -> Path:
    """Where the hub's own tools keep what they download."""
    home = os.environ.get("HF_HOME") or os.path.join(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "huggingface")
    return Path(os.environ.get("HF_HUB_CACHE") or os.path.join(home, "hub")).expanduser()


def _describe_hub_name(name: str) -> str:
    return (
        f"no folder {name}, and no model of this name in the cache of the Hugging Face hub; this package downloads "
        f"nothing. Fetch it with: huggingface-cli download {name} --local-dir {name.split('/')[1]}   and load that "
        "folder"
    )


def _describe_address(given: str) -> str:
    hub = re.match(r"(?:https?:/{1,2})?(?:www\.)?(?:huggingface\.co|hf\.co)/([\w.-]+/[\w.-]+)", given)
    hub = hub or re.match(r"hf(?:-hub)?:/{0,2}([\w.-]+/[\w.-]+)", given)
    if hub:
        return f"{brief(given)} is an address, not a folder. {_describe_hub_name(hub[1])}"
    return (
        f"{brief(given)} is an address, not a folder; this package downloads nothing. Download its config.json and "
        "weights into a folder, and load that"
    )
