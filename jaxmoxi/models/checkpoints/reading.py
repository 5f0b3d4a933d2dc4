"""What a checkpoint says of its network, and its tensors by their published names, out of whatever wraps them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxmoxi.errors import InputError, warn
from jaxmoxi.models.checkpoints.json_file import read_json
from jaxmoxi.models.checkpoints.npz_file import npz_shapes
from jaxmoxi.models.checkpoints.source import Source
from jaxmoxi.models.checkpoints.unwrap import unwrap
from jaxmoxi.models.checkpoints.weights import NPZ, describe_found, describe_unread, open_weights
from jaxmoxi.models.networks.flax_names import flax_settings, from_flax
from jaxmoxi.models.networks.naming import published_names


def read_settings(found: Source) -> tuple[Path, dict[str, Any]]:
    """The content of a checkpoint's `config.json`, with the path that errors name.

    Where there is none, a `.npz` of Google's JAX code tells it by its shapes, with a warning.
    """
    path = found.folder / "config.json"
    if not path.exists():
        npz = _lonely_npz(found)
        if npz is not None:
            warn(
                f"{npz}: no config.json stands beside it; taken for a ViT as Google's JAX code computes it, with "
                "GELU in its tanh form and a LayerNorm epsilon of 1e-6",
                UserWarning,
            )
            return npz, flax_settings(npz_shapes(npz), str(npz))
        names = [p.name for p in found.folder.iterdir()] if found.folder.is_dir() else []
        if what := describe_unread(*names):
            raise InputError(f"{found.folder} has no config.json; it holds {what}")
    return path, read_json(path)


def _lonely_npz(found: Source) -> Path | None:
    """The `.npz` that was asked for, or the only one of the folder."""
    if found.file is not None:
        return found.folder / found.file if found.file.endswith(NPZ) else None
    files = sorted(p for p in found.folder.iterdir() if p.name.endswith(NPZ)) if found.folder.is_dir() else []
    return files[0] if len(files) == 1 else None


def read_network(found: Source, settings: Mapping[str, Any], *, entry: str | None) -> dict[str, np.ndarray]:
    """A network's tensors by the names of its published weights; see `unwrap` and `published_names`.

    Warns once of the file, the entry and the prefix that were taken, where there was a choice or any of them.
    """
    path, opened = open_weights(found.folder, file=found.file, entry=entry)
    model_type = settings.get("model_type")
    if path.name.endswith(NPZ):
        if isinstance(model_type, str) and model_type != "timm_wrapper":
            raise InputError(
                f"{path} is named as in Google's JAX code, and config.json speaks of Hugging Face's {model_type}; "
                "load the file alone, or beside a config.json with timm's architecture"
            )
        return from_flax(opened.tensors, str(path))
    unwrapped = unwrap(opened.tensors, str(path), opened.entry)
    clauses = [describe_found(path, found.file), opened.choice()]
    if opened.entry and entry is None and not opened.others:
        clauses.append(f"took the weights under {opened.entry}")
    if unwrapped.prefix and (model_type, unwrapped.prefix) != ("timm_wrapper", "timm_model."):  # its published names
        clauses.append(f"read the names without the prefix {unwrapped.prefix}")
    if unwrapped.averaged:
        asked = ".".join(part for part in (opened.entry, unwrapped.averaged[0].removesuffix(".")) if part)
        clauses.append(f"left out the averaged copy under {unwrapped.averaged[0]} (entry={asked!r} takes it instead)")
    if unwrapped.left_out:
        more = f" and {len(unwrapped.left_out) - 4} more" if len(unwrapped.left_out) > 4 else ""
        clauses.append(f"left out {', '.join(unwrapped.left_out[:4])}{more}")
    told = [clause for clause in clauses if clause]
    if told:
        warn(f"{path}: {'; '.join(told)}", UserWarning)
    return published_names(unwrapped.tensors, model_type)
