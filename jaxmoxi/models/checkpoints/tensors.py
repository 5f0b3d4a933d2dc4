"""Whether a checkpoint holds the tensors a network expects."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from jaxmoxi.errors import InputError

_LISTED = 8  # of each kind of complaint: enough to see the pattern, few enough to read


def check_tensors(expected: Mapping[str, tuple[int, ...]], tensors: Mapping[str, np.ndarray], source: str) -> None:
    """Compares a checkpoint with what a network expects.

    expected: the shape of every tensor the network needs, by name.
    tensors:  what the checkpoint holds, by name; anything with a `shape`.
    source:   what to call the checkpoint in the error: its path.

    BatchNorm's step counters (`num_batches_tracked`) may be there or not: no inference needs them.
    Raises one ValueError that lists all missing, extra and misshapen tensors.
    """
    missing = [f"{name} {_dims(shape)}" for name, shape in expected.items() if name not in tensors]
    extra = [
        f"{name} {_dims(tensor.shape)}"
        for name, tensor in tensors.items()
        if name not in expected and not name.endswith("num_batches_tracked")
    ]
    misshapen = [
        f"{name} (expected {_dims(shape)}, found {_dims(tensors[name].shape)})"
        for name, shape in expected.items()
        if name in tensors and tuple(tensors[name].shape) != tuple(shape)
    ]
    kinds = {"missing": missing, "extra": extra, "misshapen": misshapen}
    complaints = [_list(kind, names) for kind, names in kinds.items() if names]
    if complaints:
        raise InputError(
            f"{source} does not hold the {len(expected)} tensors that the network expects: {'; '.join(complaints)}. "
            "Check that its config describes these weights"
        )


def _list(kind: str, names: list[str]) -> str:
    more = f" ... and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return f"{len(names)} {kind}: {', '.join(names[:_LISTED])}{more}"


def _dims(shape: tuple[int, ...]) -> str:
    return f"[{', '.join(map(str, shape))}]"
