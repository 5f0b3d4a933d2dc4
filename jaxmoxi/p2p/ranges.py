"""Whether images and labels are what a P2P model was made for. What is not would be answered, and quietly wrong."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Int

from jaxmoxi.errors import InputError, warn
from jaxmoxi.pytrees import is_concrete

_ROUNDING = 1e-3  # what rounding to bfloat16 and back may add to a 1


def check_range(images: ArrayLike, *, name: str = "images") -> None:
    """Raises ValueError for other dtypes, floats outside [0, 1] and NaN; warns of images that are almost black.

    images: uint8 in 0 .. 255, or floats in [0, 1]; not normalised, as the model does that itself. Under `jit` the
            numbers are not known, and nothing is checked.
    name:   what the message calls them.
    """
    if not is_concrete(images):
        return
    images = images if isinstance(images, jax.Array) else np.asarray(images)
    if not (images.dtype == np.uint8 or jnp.issubdtype(images.dtype, jnp.floating)):
        raise InputError(f"expected uint8 images, or float ones in [0, 1]; got {images.dtype} as {name}")
    if not images.size:
        return
    numpy = jnp if isinstance(images, jax.Array) else np
    low, high = float(numpy.min(images)), float(numpy.max(images))  # NaN if one of them is
    if images.dtype == np.uint8:
        if high == 1:
            _warn_dark(f"{name} are uint8 of 0 and 1 alone", "uint8 images have the range 0 .. 255")
        return
    if low >= -_ROUNDING and high <= 1 + _ROUNDING:
        if 0 < high < 1.01 / 255:
            _warn_dark(f"{name} are at most {high:.2g}", "float images have the range 0 .. 1")
        return
    values = np.asarray(images, np.float32)
    strange = int(np.sum(~np.isfinite(values)))
    if strange:
        good = values[np.isfinite(values)]
        low, high = (float(good.min()), float(good.max())) if good.size else (np.nan, np.nan)
    if strange:
        hint = "find where the NaN or infinite numbers come from"
    elif low >= 0 and high > 2:
        hint = "convert pixels of 0 to 255 to uint8, or divide them by 255"
    elif low < -0.2 or high > 1.2:
        hint = "do not normalise them: the model does that itself"
    else:
        hint = "clip them to [0, 1] after resizing"
    raise InputError(
        f"expected {name} as uint8, or as floats in [0, 1]; got {values.dtype if strange else images.dtype} from "
        f"{low:.4g} to {high:.4g}, with {strange} of {values.size} numbers NaN or infinite: {hint}"
    )


def _warn_dark(what: str, range_of: str) -> None:
    warn(f"{what}, which is almost black: {range_of}; were they divided by 255 twice?")


def check_labels(labels: ArrayLike, count: int, num_classes: int, *, name: str = "labels") -> Int[np.ndarray, "B"]:
    """Labels as an array. Raises ValueError for labels that are not `count` integers in 0 .. num_classes - 1."""
    found = np.asarray(labels)
    if found.shape != (count,) or not np.issubdtype(found.dtype, np.integer):
        raise InputError(f"expected {name} int[{count}]; got {found.dtype} of shape {list(found.shape)}")
    if count and (found.min() < 0 or found.max() >= num_classes):
        raise InputError(f"expected {name} 0 .. {num_classes - 1}; got {found.min()} .. {found.max()}")
    return found


def check_same_classes(names: Sequence[str] | None, others: Sequence[str] | None, where: str) -> None:
    """Raises ValueError where two lists of classes are known and differ: the same label would be two classes.

    where: whose the others are, such as "validation".
    """
    if differ := other_classes(names, others):
        raise InputError(
            f"the {where} data has other classes than the data to train on, {differ}: its labels would be those of "
            "other classes. Give both images of the same classes"
        )


def other_classes(names: Sequence[str] | None, others: Sequence[str] | None) -> str:
    """How a list of classes differs from the first one: "without cat and with dog"; nothing where one is not known."""
    if not names or not others or list(names) == list(others):
        return ""
    missing, more = (sorted(set(a) - set(b)) for a, b in ((names, others), (others, names)))
    differ = [
        f"{what} {', '.join(some[:5])}{', ...' if len(some) > 5 else ''}"
        for what, some in (("without", missing), ("with", more))
        if some
    ]
    return " and ".join(differ) or "in another order"
