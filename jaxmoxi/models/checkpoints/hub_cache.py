"""The cache of the Hugging Face hub: where it is, which snapshot a revision means, and which files a classifier needs.

The layout is that of huggingface_hub, which is not needed to read it:
`models--ORG--NAME/refs/REVISION` holds a commit, and `models--ORG--NAME/snapshots/COMMIT/` its files.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import NamedTuple

from jaxmoxi.errors import InputError
from jaxmoxi.models.checkpoints.json_file import read_json
from jaxmoxi.models.checkpoints.torch_pickle import brief
from jaxmoxi.models.checkpoints.weights import SAFETENSORS, TORCH, WEIGHTS

CONFIG, PROCESSOR = "config.json", "preprocessor_config.json"
COMMIT = re.compile(r"[0-9a-f]{40}")
OTHERS = (*SAFETENSORS, *TORCH, ".npz")

# In this order: what runs no code when it is read comes first. transformers looks for them in the same order.
_USUAL = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
_TRAINING = re.compile(r"training_args|optimizer|scheduler|scaler|rng_state|random_states|adapter_")
_REVISION = re.compile(r"[^\s\x00-\x1f\x7f~^:?*\[\\]+")


class Cached(NamedTuple):
    """A model in the cache. file: its weights file, None for shards. commit: the snapshot's name."""

    folder: Path
    file: str | None
    commit: str
    of_revision: bool  # whether the cache says that the revision asked for is this commit


def cache_folder(cache_dir: str | os.PathLike[str] | None = None) -> Path:
    """Where the hub's own tools keep what they download, as the environment says now."""
    if cache_dir is not None:
        return Path(cache_dir).expanduser()
    home = os.environ.get("HF_HOME") or os.path.join(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "huggingface")
    named = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE")
    return Path(os.path.expandvars(os.path.expanduser(named or os.path.join(home, "hub"))))


def model_root(cache: Path, name: str) -> Path:
    """The folder of a model in the cache."""
    return cache / f"models--{name.replace('/', '--')}"


def check_revision(revision: str | None) -> None:
    """Raises InputError for what cannot be the name of a branch, a tag or a commit."""
    if revision is None:
        return
    good = isinstance(revision, str) and _REVISION.fullmatch(revision) and len(revision) < 256
    if not good or revision.startswith(("/", "-")) or revision.endswith("/") or ".." in revision:
        raise InputError(f"expected revision as the name of a branch, a tag or a commit; got {brief(repr(revision))}")


def commit_of(root: Path, revision: str | None) -> str | None:
    """The commit that the cache keeps for a revision (None: the branch main); None where it has no snapshot of it."""
    if revision is not None and (root / "snapshots" / revision).is_dir():
        return revision
    ref = root / "refs" / (revision or "main")
    if ref.is_file() and ref.stat().st_size < 1000:
        commit = ref.read_text("utf-8", errors="replace").strip()
        if re.fullmatch(r"[\w-]+", commit) and (root / "snapshots" / commit).is_dir():
            return commit
    return None


def snapshot(root: Path, revision: str | None = None) -> tuple[Path, bool]:
    """(the snapshot of a revision in a model's folder, whether the cache names it so).

    Without a revision that of the branch main, else the only one. Raises InputError where there is none or several.
    """
    commit = commit_of(root, revision)
    if commit is not None:
        return root / "snapshots" / commit, True
    snapshots = sorted(p for p in (root / "snapshots").iterdir() if p.is_dir())
    listed = ", ".join(p.name for p in snapshots[:4]) or "none"
    if revision is not None:
        raise InputError(
            f"{root} has no revision {brief(repr(revision))}; its snapshots are {listed}: give one of them"
        )
    if len(snapshots) != 1:
        raise InputError(
            f"{root} is a folder of the hub's cache with {len(snapshots)} snapshots ({listed}); expected refs/main to "
            "name one of them: give the path of a snapshot, or its name as revision"
        )
    return snapshots[0], False


def find_cached(cache: Path, name: str, revision: str | None) -> Cached | None:
    """A model in the cache that has all it needs; None where it is not there, or only in part."""
    root = model_root(cache, name)
    if not (root / "snapshots").is_dir() or (revision is not None and commit_of(root, revision) is None):
        return None
    if next((root / "snapshots").iterdir(), None) is None:
        return None
    folder, named = snapshot(root, revision)
    names = {p.name for p in folder.iterdir() if p.exists()}
    weights = choose_weights(names)
    if CONFIG not in names or weights is None:
        return None
    if is_index(weights) and not set(shards(folder / weights)) <= names:
        return None
    return Cached(folder, None if is_index(weights) else weights, folder.name, named)


def choose_weights(names: Collection[str]) -> str | None:
    """Which of these files of a folder to read the weights from, possibly an index; None where there is none.

    Safetensors before PyTorch; beside the usual names any other weights file, if it is the only one of its kind, but
    for what a training keeps beside them.
    """
    for name in (*_USUAL, *WEIGHTS):
        if name in names:
            return name
    for kinds in (SAFETENSORS, TORCH, (".npz",)):
        found = [n for n in names if n.endswith(kinds) and "/" not in n and not _TRAINING.match(n)]
        if found:
            return found[0] if len(found) == 1 else None
    return None


def is_index(file: str) -> bool:
    """Whether a file lists shards."""
    return file.endswith(".index.json")


def shards(index: Path) -> list[str]:
    """The files that an index names. Reading the tensors says what is wrong with an index that is damaged."""
    places = read_json(index).get("weight_map")
    values = places.values() if isinstance(places, Mapping) else ()
    return sorted({n for n in values if isinstance(n, str) and n.endswith(OTHERS) and not set("/\\\0") & set(n)})
