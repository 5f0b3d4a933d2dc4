"""What `load` is given, as a folder: one on disk, a weights file in one, a model of the Hugging Face hub."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

from jaxmoxi.errors import InputError, warn
from jaxmoxi.models.checkpoints import hub, hub_cache
from jaxmoxi.models.checkpoints.json_file import MissingFileError
from jaxmoxi.models.checkpoints.torch_pickle import brief
from jaxmoxi.models.checkpoints.weights import NPZ, SAFETENSORS, TORCH, WEIGHTS, describe_unread

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+:/{1,2}|(?:hf|hf[-_]hub):", re.IGNORECASE)


class Source(NamedTuple):
    """A folder with a `config.json`, the weights file in it that was asked for, and what to call the model.

    Beside a `.npz` of Google's JAX code there may be no `config.json`.
    """

    folder: Path
    file: str | None
    name: str


def find_source(
    source: str | os.PathLike[str],
    *,
    revision: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
    check: Callable[[Path], object] | None = None,
) -> Source:
    """The folder that a path, a name of the hub or the address of a model there stands for, downloaded if need be.

    What is on disk comes before a name of the hub. check: see `hub.fetch`.

    Raises FileNotFoundError, which says how to get it, for what is neither on this machine nor given by the hub, and
    ValueError for what is no path and no folder of a model.
    """
    given = _text(source)
    hub_cache.check_revision(revision)
    cache = hub_cache.cache_folder(cache_dir)
    if _ADDRESS.match(given):
        name, named = _parse_address(given)
        if named is not None and revision not in (None, named):
            raise InputError(f"{brief(given)} is the address of revision {named}, and revision={revision!r}; give one")
        return _of_hub(name, revision or named, cache, local_files_only, check, "")
    try:
        path = Path(given).expanduser()
    except RuntimeError as error:
        raise InputError(f"expected the path of a checkpoint folder; got {brief(given)}: {error}") from None
    try:
        found = _at(path, revision)
    except MissingFileError:
        raise
    except OSError as error:
        raise InputError(f"expected the path of a checkpoint folder; got {brief(given)}: {error.strerror}") from None
    if found is not None:
        return found
    name = given.removesuffix("/")
    if _HUB_NAME.fullmatch(name) and not name.endswith((*hub_cache.OTHERS, ".json")):
        return _of_hub(name, revision, cache, local_files_only, check, f"no folder {name}, and ")
    raise MissingFileError(
        f"no model folder {path}; expected a folder with config.json and one of {', '.join(WEIGHTS)}, or a name of the "
        "Hugging Face hub such as google/vit-base-patch16-224"
    )


def _text(source: object) -> str:
    try:
        given = os.fspath(source)  # type: ignore[arg-type]  whatever it is
    except TypeError:
        raise InputError(f"expected the path of a checkpoint folder; got {brief(repr(source))}") from None
    if not isinstance(given, str) or not given.strip() or "\0" in given:
        raise InputError(f"expected the path of a checkpoint folder; got {brief(repr(given))}")
    return given


def _at(path: Path, revision: str | None) -> Source | None:
    """What stands at a path; None where nothing does."""
    if path.is_dir() and not (path / "config.json").exists() and (path / "snapshots").is_dir():
        organisation, _, name = path.resolve().name.removeprefix("models--").rpartition("--")
        return Source(hub_cache.snapshot(path, revision)[0], None, name or organisation)
    if revision is not None and path.exists():
        warn(f"{path} is on this machine, which comes before a name of the hub; revision={revision!r} is not used")
    if path.is_dir():
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


def _of_hub(
    name: str,
    revision: str | None,
    cache: Path,
    local_files_only: bool,
    check: Callable[[Path], object] | None,
    nothing_here: str,
) -> Source:
    """A model of the hub: as the hub has it now, or (offline, or without huggingface_hub) as the cache has it.

    nothing_here: how the error begins for a name that could be a mistyped path.
    """
    short = name.split("/")[1]
    offline = "local_files_only=True" if local_files_only else hub.why_offline()
    problem = None
    if offline is None and hub.is_installed() and not hub.is_pinned(name, revision, cache):
        try:
            found = hub.fetch(name, revision, cache, check)
            return Source(found.folder, found.file, short)
        except hub.HubError as error:
            problem = error
    cached = None
    try:
        cached = hub_cache.find_cached(cache, name, revision)
    except InputError:
        if problem is None:
            raise
    which = name if revision is None else f"{name} of revision {revision}"
    if cached is not None:
        if problem is not None:
            warn(f"{problem.reason}. Taking {which} from the cache, commit {cached.commit}, which may be older")
        elif not cached.of_revision:
            warn(f"the cache does not say what the branch main of {name} is; taking its only commit, {cached.commit}")
        return Source(cached.folder, cached.file, short)
    if problem is not None:
        raise MissingFileError(f"{nothing_here if problem.is_unknown else ''}{problem}") from None
    nothing = f"{nothing_here}no whole copy of {which} in the cache of the Hugging Face hub ({cache})"
    if offline is not None:
        raise MissingFileError(f"{nothing}; {offline} keeps it from being downloaded")
    raise MissingFileError(f"{nothing}; to download it: pip install 'jaxmoxi[hub]'")


def _parse_address(given: str) -> tuple[str, str | None]:
    """(org/name, the revision or None) of an address of a model of the hub. Raises InputError for any other address."""
    part = r"[A-Za-z0-9][\w.-]*"
    model = rf"(?:models/)?(?P<name>{part}/{part})"
    own = hub.endpoint().partition("://")[2]
    place = rf"(?:https?:/{{1,2}})(?:www\.)?(?:huggingface\.co|hf\.co|{re.escape(own)})/"
    rest = r"(?:/tree/(?P<tree>[^?#]+?)|/commit/(?P<commit>[0-9a-f]+)|/blob/[^?#]+|/resolve/[^?#]+)?"
    found = re.fullmatch(rf"{place}{model}{rest}/?(?:[?#].*)?", given, re.IGNORECASE)
    if found is None:  # as huggingface_hub and timm write it
        found = re.fullmatch(
            rf"hf(?:[-_]hub)?:/{{0,2}}{model}(?:@(?P<tree>[^?#]+?))?(?P<commit>)/?", given, re.IGNORECASE
        )
    if found is None or found["name"].startswith(("datasets/", "spaces/", "models/", "docs/", "collections/")):
        raise InputError(
            f"{brief(given)} is an address, and not that of a model of the Hugging Face hub, such as "
            "https://huggingface.co/google/vit-base-patch16-224; download its config.json and weights into a folder, "
            "and load that"
        )
    if re.search(r"/(?:blob|resolve)/", given):
        raise InputError(f"{brief(given)} is the address of a single file; give {found['name']}, its model")
    revision = unquote(found["tree"] or found["commit"] or "") or None
    hub_cache.check_revision(revision)
    return found["name"], revision
