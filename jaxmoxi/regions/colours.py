"""The colours that superpixels follow: CIELAB of a photo, or an image's own channels in CIELAB's range.

A compactness weighs colour against place, so colours of every kind have about the range that CIELAB has in photos.
"""

from __future__ import annotations

from functools import reduce
from typing import Literal

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num

Space = Literal["lab", "given", "standardised"]

SPREAD = 25.0
"""The root mean square distance of a pixel's colour from the mean colour, of channels that are not CIELAB's. In photos
CIELAB's is 20 to 35."""
_REACH = 128.0  # the range of a channel, to each side, for which the sums of SLIC are exact
FEW = 4
"""Up to so many channels are taken one by one, which XLA fuses."""

# Linear sRGB to XYZ over the white of D65, with the digits that scikit-image has.
_XYZ = np.array(
    [[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]]
) / np.array([[0.95047], [1.0], [1.08883]])


def colours_of(image: Num[Array, "H W channels"], space: Space) -> Float[Array, "channels H W"]:
    """The colours of one image, float32, a plane for each channel, each in [-128, 128].

    "lab":          CIELAB of three sRGB channels (`rgb_to_lab`).
    "given":        the channels by one common scale, which makes their spread `SPREAD`: they weigh as they vary.
    "standardised": the channels, each of which varies as much as the others. Those that are constant stay so.
    """
    return rgb_to_lab(image) if space == "lab" else _scaled(image, standardised=space == "standardised")


def _scaled(image: Num[Array, "H W channels"], *, standardised: bool) -> Float[Array, "channels H W"]:
    planes = jnp.moveaxis(image.astype(jnp.float32), -1, 0)
    axes = (1, 2) if standardised else (0, 1, 2)
    low, high = (jnp.asarray(f(planes, axis=axes, keepdims=True)) for f in (jnp.min, jnp.max))
    # Stretched to [0, 1] first: a constant is then 0 exactly, and squares of large numbers do not overflow.
    planes = (planes - low) / jnp.where(high > low, high - low, 1.0)
    means = jnp.mean(planes, axis=(1, 2), keepdims=True)
    power = jnp.mean((planes - means) ** 2, axis=(1, 2), keepdims=True)
    power = power * jnp.maximum(jnp.sum(power > 0), 1) if standardised else jnp.sum(power, axis=0, keepdims=True)
    # The sums above round as the compiler orders them, and the regions must not: scales are steps of 2 %, and the
    # centre, which only keeps the colours in reach, is a whole number.
    steps = jnp.round(16 * jnp.log2(jnp.where(power > 0, power, 1.0)))
    scale = jnp.exp2(steps / 32) / SPREAD
    return jnp.clip(planes / scale - jnp.round(means / scale), -_REACH, _REACH)


def rgb_to_lab(image: Num[Array, "H W 3"]) -> Float[Array, "3 H W"]:
    """CIELAB (D65) of an sRGB image stretched to [0, 1], float32, one plane for each of L, a, b."""
    image = image.astype(jnp.float32)
    low, high = jnp.min(image), jnp.max(image)
    rgb = jnp.moveaxis((image - low) / jnp.where(high > low, high - low, 1.0), -1, 0)
    # Powers by logarithms: XLA's own are several times slower on a CPU.
    rgb = jnp.where(rgb > 0.04045, jnp.exp(2.4 * jnp.log((rgb + 0.055) / 1.055)), rgb / 12.92)
    matrix = _XYZ.astype(np.float32)
    xyz = jnp.stack([row[0] * rgb[0] + row[1] * rgb[1] + row[2] * rgb[2] for row in matrix])
    x, y, z = jnp.where(xyz > 0.008856, jnp.exp(jnp.log(jnp.maximum(xyz, 0.008856)) / 3), 7.787 * xyz + 16 / 116)
    return jnp.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def squared_distance(a: Float[Array, "channels *s"], b: Float[Array, "channels *t"]) -> Float[Array, "*s"]:
    """The sum over channels of (a - b)². Few channels are added one by one, which XLA fuses."""
    if len(a) <= FEW:
        return reduce(jnp.add, [(x - y) ** 2 for x, y in zip(a, b, strict=True)])
    return jnp.sum((a - b) ** 2, axis=0)
