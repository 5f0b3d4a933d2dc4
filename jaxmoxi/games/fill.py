"""What a hidden pixel becomes."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num

from jaxmoxi.errors import InputError
from jaxmoxi.pytrees import is_concrete


def fill_image(image: Num[Array, "H W channels"], fill: Any) -> Num[Array, "H W channels"]:
    """A fill as a whole image, so that fills of every kind share one compiled search. See `pixel_value_fn`.

    An image of integers has a fill of its own kind: a mean and a blur are rounded, other fills have to fit.
    """
    if isinstance(fill, str):
        if fill == "mean":
            return of_kind(jnp.broadcast_to(jnp.mean(image, axis=(0, 1)), image.shape), image.dtype)
        if fill == "blur":
            whole = jnp.issubdtype(image.dtype, jnp.integer)
            return of_kind(blur_image(image.astype(jnp.float32) if whole else image), image.dtype)
        raise InputError(f"expected a fill of 'mean', 'blur', a number, one number a channel or an image; got {fill!r}")
    try:
        given = jnp.asarray(fill)
        if given.dtype == bool or jnp.issubdtype(given.dtype, jnp.complexfloating):
            raise TypeError(f"an array of {given.dtype}")
    except (TypeError, ValueError) as error:
        raise InputError(
            "expected a fill of 'mean', 'blur', a number, one number a channel or an image; got "
            f"{type(fill).__name__} ({str(error).splitlines()[0]})"
        ) from None
    if given.shape not in ((), image.shape[-1:], image.shape):
        raise InputError(f"expected a fill of shape (), {image.shape[-1:]} or {image.shape}; got shape {given.shape}")
    filled = given.astype(image.dtype)
    if is_concrete(given):
        if not jnp.isfinite(given).all():
            raise InputError("expected a fill of finite numbers; some of it is NaN or infinite")
        if jnp.issubdtype(image.dtype, jnp.integer) and (filled.astype(jnp.float32) != given.astype(jnp.float32)).any():
            raise InputError(
                f"expected a fill that an image of {image.dtype} can hold; got numbers from {given.min()} to "
                f"{given.max()}: give whole numbers in its range, 'mean' or 'blur'"
            )
    return jnp.broadcast_to(filled, image.shape)


def of_kind(image: Float[Array, "*s"], dtype: Any) -> Num[Array, "*s"]:
    """Numbers as an image of `dtype` has them: rounded, and within its range, where these are integers."""
    if not jnp.issubdtype(dtype, jnp.integer):
        return image.astype(dtype)
    info = jnp.iinfo(dtype)
    return jnp.round(image).clip(info.min, info.max).astype(dtype)


def blur_image(image: Float[Array, "H W channels"], *, sigma: float | None = None) -> Float[Array, "H W channels"]:
    """The image under a Gaussian of `sigma` pixels (default: a twentieth of the shorter side), edges repeated."""
    if sigma is None:
        sigma = min(image.shape[:2]) / 20
    if not sigma > 0:
        raise InputError(f"sigma must be positive, in pixels; got {sigma}")
    radius = max(1, round(3 * sigma))
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    kernel = jnp.asarray(kernel / kernel.sum(), image.dtype)
    for axis in (0, 1):
        pad = [(radius, radius) if a == axis else (0, 0) for a in range(3)]
        padded = jnp.moveaxis(jnp.pad(image, pad, mode="edge"), axis, -1)
        lines = padded.reshape(-1, 1, padded.shape[-1])
        out = jax.lax.conv_general_dilated(lines, kernel[None, None], (1,), "VALID")
        image = jnp.moveaxis(out.reshape(*padded.shape[:-1], -1), -1, axis)
    return image
