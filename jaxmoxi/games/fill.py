"""What a hidden pixel becomes."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxmoxi.errors import InputError


def fill_image(image: Float[Array, "H W channels"], fill: Any) -> Float[Array, "H W channels"]:
    """A fill as a whole image, so that fills of every kind share one compiled search. See `pixel_value_fn`."""
    if isinstance(fill, str):
        if fill == "mean":
            return jnp.broadcast_to(jnp.mean(image, axis=(0, 1)), image.shape)
        if fill == "blur":
            return blur_image(image)
        raise InputError(f"expected a fill of 'mean', 'blur', a number, one number a channel or an image; got {fill!r}")
    fill = jnp.asarray(fill, image.dtype)
    if fill.shape not in ((), image.shape[-1:], image.shape):
        raise InputError(f"expected a fill of shape (), {image.shape[-1:]} or {image.shape}; got shape {fill.shape}")
    return jnp.broadcast_to(fill, image.shape)


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
