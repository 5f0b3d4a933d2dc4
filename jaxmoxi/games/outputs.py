"""The logits in whatever a classifier returns: an array, an object with `.logits`, a dictionary or a tuple."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxmoxi.errors import InputError


def logits_of(out: Any, count: int) -> Float[Array, "B K"]:
    """The logits [B, K] in what a classifier returned for `count` images.

    An object's `logits`, a mapping's entry "logits", or the only array of `count` rows in a tuple or mapping.
    Raises InputError, which lists what came, where there is none or more than one.
    """
    found = find_logits(out, count)
    if _rows(found) == count:
        return jnp.asarray(found)
    if _shape(found) == (count,):
        raise InputError(
            f"expected a model that returns logits [B, K]; got shape [{count}] for {count} images. If it is one logit "
            'of yes or no for each, return logits[:, None] and say link="sigmoid"'
        )
    raise InputError(
        f"expected a model that returns logits [B, K] for {count} images, or an object, a dictionary or a tuple with "
        f"them in it; got {describe(out)}. Return the logits alone: lambda images: model(images)[...]"
    )


def find_logits(out: Any, count: int) -> Any:
    """The array that is the logits in what a classifier returned; None where there is none, or more than one."""
    if _shape(out) is not None:
        return out
    if getattr(out, "logits", None) is not None:
        return out.logits
    if isinstance(out, Mapping) and "logits" in out:
        return out["logits"]
    parts = list(out.values()) if isinstance(out, Mapping) else list(out) if isinstance(out, Sequence) else []
    fitting = [part for part in parts if _rows(part) == count]
    return fitting[0] if len(fitting) == 1 else None


def _shape(x: Any) -> tuple[int, ...] | None:
    shape = getattr(x, "shape", None)
    return tuple(shape) if shape is not None else None


def _rows(x: Any) -> int | None:
    """B of an array [B, K]; None for anything else."""
    shape = _shape(x)
    return shape[0] if shape is not None and len(shape) == 2 else None


def describe(out: Any) -> str:
    """What came, in a few words: shapes, names and types."""
    shape = _shape(out)
    if shape is not None:
        return f"shape {list(shape)}"
    if isinstance(out, Mapping):
        return f"a dictionary of {', '.join(f'{name!r}: {describe(part)}' for name, part in out.items()) or 'nothing'}"
    if isinstance(out, Sequence) and not isinstance(out, str | bytes):
        return f"a {type(out).__name__} of {', '.join(map(describe, out)) or 'nothing'}"
    return type(out).__name__
