"""From a checkpoint's tensors to a network's state: whether they are those expected, and where each goes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxmoxi.errors import InputError

# A network's arrays by their places. Its own two parameters are given, as beartype warns of their bounds otherwise.
State = nnx.State[Any, Any]

# Where an array stands in a module: attribute names, and positions in lists.
Place = tuple[str | int, ...]

# Tensors that a checkpoint may hold beside those that a network reads, by the ends of their names. None of them changes
# the logits: BatchNorm's and an average's counters, Hugging Face's poolers and mask tokens, heads of other tasks, and
# indices and masks that follow from the network's shape.
IGNORED = (
    "num_batches_tracked", "n_averaged", "pooler.dense.weight", "pooler.dense.bias", "mask_token", "position_ids",
    "lm_head.weight", "lm_head.bias", "relative_position_index", "attn_mask",
)  # fmt: skip

_IGNORED_ENDS = tuple(f".{name}" for name in IGNORED)
_LISTED = 8  # of each kind of complaint: enough to see the pattern, few enough to read


def check_tensors(expected: Mapping[str, tuple[int, ...]], tensors: Mapping[str, np.ndarray], source: str) -> None:
    """Compares a checkpoint with what a network expects.

    expected: the shape of every tensor the network needs, by name.
    tensors:  what the checkpoint holds, by name; anything with a `shape`.
    source:   what to call the checkpoint in the error: its path.

    The checkpoint may hold what `IGNORED` names, which the logits do not depend on.
    Raises one ValueError that lists all missing, extra and misshapen tensors; and, where there are none of these, for a
    tensor that is not of finite floating-point numbers in float32's range.
    """
    check_shapes(expected, tensors, source)
    for name in expected:
        _check_numbers(name, np.asarray(tensors[name]), source)


def check_shapes(expected: Mapping[str, tuple[int, ...]], tensors: Mapping[str, Any], source: str) -> None:
    """The part of `check_tensors` that looks at names and shapes alone; whatever the tensors hold."""
    missing = [f"{name} {_dims(shape)}" for name, shape in expected.items() if name not in tensors]
    extra = [
        f"{name} {_dims(tensor.shape)}"
        for name, tensor in tensors.items()
        if name not in expected and not f".{name}".endswith(_IGNORED_ENDS)
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


def _check_numbers(name: str, tensor: np.ndarray, source: str) -> None:
    """Raises ValueError for numbers that would become others in float32, or that are none."""
    if not jnp.issubdtype(tensor.dtype, jnp.floating):
        raise InputError(
            f"{source}: the tensor {name} is of {tensor.dtype}; expected floating-point numbers: if it is quantised or "
            "complex, convert it to float32 and save it again"
        )
    if not tensor.size:
        return
    with np.errstate(over="ignore", invalid="ignore"):
        extremes = [float(tensor.min()), float(tensor.max())]  # a NaN anywhere makes both NaN
    if not np.isfinite(extremes).all():
        raise InputError(f"{source}: the tensor {name} holds NaN or infinity; the training failed, or it is damaged")
    if max(map(abs, extremes)) > float(np.finfo(np.float32).max):
        raise InputError(
            f"{source}: the tensor {name} holds {max(extremes, key=abs):g}, which overflows float32; scale the weights"
        )


def fold_norm(tensors: Mapping[str, np.ndarray], conv: str, norm: str, eps: float) -> tuple[np.ndarray, np.ndarray]:
    """Kernel [k, l, in, out] and bias [out] of a convolution without bias and the BatchNorm behind it, as one.

    conv, norm: their names in a PyTorch checkpoint. eps: what the norm adds to the variance. In float64.
    """
    leaves = ("weight", "bias", "running_mean", "running_var")
    scale, shift, mean, variance = (np.asarray(tensors[f"{norm}.{leaf}"], np.float64) for leaf in leaves)
    scale = scale / np.sqrt(variance + eps)
    kernel = np.asarray(tensors[f"{conv}.weight"], np.float64).transpose(2, 3, 1, 0)  # OIHW -> HWIO
    return kernel * scale, shift - mean * scale


def fill_state(network: Callable[..., nnx.Module], array_for: Callable[[Place, tuple[int, ...]], np.ndarray]) -> State:
    """The state of a network, each of its arrays given by its place.

    network:   `network(rngs=rngs)` builds the module; only its structure and shapes are computed.
    array_for: `(place, shape) -> array` of this shape; it is rounded to float32. A place is, for example,
               ("blocks", 0, "conv1", "kernel").

    Raises ValueError for an array that is not finite in float32, as where BatchNorm has a negative variance.
    """
    flat: Any = nnx.to_flat_state(nnx.state(nnx.eval_shape(lambda: network(rngs=nnx.Rngs(0)))))

    def rounded(place: Place, shape: tuple[int, ...]) -> np.ndarray:
        with np.errstate(over="ignore"):
            array = np.asarray(array_for(place, shape), np.float32)
        if array.size and not np.isfinite([array.min(), array.max()]).all():
            raise InputError(
                f"the weights make {'.'.join(map(str, place))} NaN or infinite in float32 (a negative variance of "
                "BatchNorm does, or weights beyond its range); check the checkpoint"
            )
        return array

    return nnx.from_flat_state([(place, leaf.replace(jnp.asarray(rounded(place, leaf.shape)))) for place, leaf in flat])


def _list(kind: str, names: list[str]) -> str:
    more = f" ... and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return f"{len(names)} {kind}: {', '.join(names[:_LISTED])}{more}"


def _dims(shape: tuple[int, ...]) -> str:
    return f"[{', '.join(map(str, shape))}]"
