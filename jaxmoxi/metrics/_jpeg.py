"""Baseline JPEG as libjpeg and Pillow do it, there and back, on the device: what is lost, without the file.

An image goes through the standard's colour transform, chroma at half the resolution (4:2:0), the cosine transform of
blocks of 8 x 8, the standard's tables of divisors scaled by quality, and back through all of them. What a file does
besides, the coding of the numbers in bits, loses nothing.

Source: ITU-T T.81 (1992), its annexes A and K; the tables' scaling, the chroma's averages and the triangle filter that
takes chroma back to full resolution are those of the Independent JPEG Group's library.
Deviation: the cosine transforms are computed in float32, where the library computes in whole numbers; a level, or a
quotient next to a half, may be rounded to the other side. Images of one channel are greys, without chroma.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

# The standard's divisors at quality 50 (annex K): of luminance, and of chrominance.
_LUMINANCE = np.array(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ]
)
_CHROMINANCE = np.full((8, 8), 99)
_CHROMINANCE[:4, :4] = [[17, 18, 24, 47], [18, 21, 26, 66], [24, 26, 56, 99], [47, 66, 99, 99]]

_FREQUENCY, _PLACE = np.arange(8)[:, None], np.arange(8)[None]
_COSINES = np.sqrt(2 / 8) * np.cos((2 * _PLACE + 1) * _FREQUENCY * np.pi / 16)
_COSINES[0] = np.sqrt(1 / 8)


def tables(quality: int) -> Int[np.ndarray, "2 8 8"]:
    """The divisors of luminance and chrominance at a quality from 1 to 100."""
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    return np.clip((np.stack([_LUMINANCE, _CHROMINANCE]) * scale + 50) // 100, 1, 255)


def there_and_back(image: Int[Array, "H W channels"], divisors: Int[Array, "2 8 8"]) -> Int[Array, "H W channels"]:
    """An image of one or three channels, levels 0 .. 255, after compression by these divisors."""
    height, width, channels = image.shape
    if channels == 1:
        return _blocks(image[..., 0], divisors[0])[:height, :width, None]
    y, *chroma = _to_ycc(image)
    y = _blocks(y, divisors[0])[:height, :width]
    small = -(-height // 2), -(-width // 2)
    halved = [_blocks(_halve(c), divisors[1])[: small[0], : small[1]] for c in chroma]
    blue, red = (_double(c)[:height, :width] for c in halved)
    return _to_rgb(y, blue, red)


def _fixed(number: float) -> int:
    return int(number * 65536 + 0.5)


def _to_ycc(image: Int[Array, "H W 3"]) -> list[Int[Array, "H W"]]:
    """Luminance and chroma in whole numbers, with the library's 16 bits after the point."""
    r, g, b = (image[..., i].astype(jnp.int32) for i in range(3))
    half, middle = 1 << 15, 128 << 16
    y = _fixed(0.299) * r + _fixed(0.587) * g + _fixed(0.114) * b + half
    blue = -_fixed(0.16874) * r - _fixed(0.33126) * g + _fixed(0.5) * b + middle + half - 1
    red = _fixed(0.5) * r - _fixed(0.41869) * g - _fixed(0.08131) * b + middle + half - 1
    return [y >> 16, blue >> 16, red >> 16]


def _to_rgb(y: Int[Array, "H W"], blue: Int[Array, "H W"], red: Int[Array, "H W"]) -> Int[Array, "H W 3"]:
    half, blue, red = 1 << 15, blue - 128, red - 128
    r = y + ((_fixed(1.402) * red + half) >> 16)
    g = y + ((-_fixed(0.34414) * blue - _fixed(0.71414) * red + half) >> 16)
    b = y + ((_fixed(1.772) * blue + half) >> 16)
    return jnp.clip(jnp.stack([r, g, b], axis=-1), 0, 255)


def _padded(plane: Int[Array, "H W"], rows: int, columns: int) -> Int[Array, "H2 W2"]:
    """The last row and column repeated until both sides are multiples."""
    return jnp.pad(plane, ((0, -plane.shape[0] % rows), (0, -plane.shape[1] % columns)), mode="edge")


def _halve(plane: Int[Array, "H W"]) -> Int[Array, "h w"]:
    """The means of 2 x 2 pixels; every other column rounds halves down, and the others up, so that no tint arises."""
    padded = _padded(plane, 2, 16)
    rows, columns = padded.shape
    total = padded.reshape(rows // 2, 2, columns // 2, 2).sum((1, 3))
    return (total + 1 + jnp.arange(columns // 2) % 2) >> 2


def _blocks(plane: Int[Array, "H W"], divisors: Int[Array, "8 8"]) -> Int[Array, "H8 W8"]:
    """A plane after its blocks' cosine transforms were divided, rounded and taken back."""
    padded = _padded(plane, 8, 8).astype(jnp.float32) - 128
    rows, columns = padded.shape
    blocks = padded.reshape(rows // 8, 8, columns // 8, 8)
    cosines = jnp.asarray(_COSINES, jnp.float32)
    found = jnp.einsum("ui,vj,aibj->aubv", cosines, cosines, blocks, precision="highest")
    # The library has eighths here, in whole numbers, which decide where a quotient lies halfway.
    eighths, steps = jnp.floor(8 * found + 0.5).astype(jnp.int32), divisors[None, :, None, :]
    kept = (jnp.sign(eighths) * ((jnp.abs(eighths) + 4 * steps) // (8 * steps)) * steps).astype(jnp.float32)
    back = jnp.einsum("ui,vj,aubv->aibj", cosines, cosines, kept, precision="highest")
    return jnp.clip(jnp.round(back.reshape(rows, columns)) + 128, 0, 255).astype(jnp.int32)


def _double(plane: Int[Array, "h w"]) -> Int[Array, "H W"]:
    """Twice the resolution by the triangle filter: three parts of the nearer pixel, one of the farther."""

    def between(lines: Int[Array, "n m"], axis: int) -> tuple[Int[Array, "n m"], Int[Array, "n m"]]:
        before = jnp.concatenate([jnp.take(lines, jnp.array([0]), axis), lines], axis).take(
            jnp.arange(lines.shape[axis]), axis
        )
        after = jnp.concatenate([lines, jnp.take(lines, jnp.array([-1]), axis)], axis).take(
            jnp.arange(1, lines.shape[axis] + 1), axis
        )
        return 3 * lines + before, 3 * lines + after

    rows = jnp.stack(between(plane, 0), axis=1).reshape(2 * plane.shape[0], -1)
    left, right = between(rows, 1)
    return jnp.stack([(left + 8) >> 4, (right + 7) >> 4], axis=-1).reshape(rows.shape[0], -1)
