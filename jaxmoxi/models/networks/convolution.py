"""Dense convolutions in the form that each platform runs fastest.

Accelerators run XLA's own. On XLA's CPU backend

    a convolution of 1x1 pixels                is a matrix product over all positions;
    one of 3x3 pixels with stride 1            is Winograd's minimal filtering F(2x2, 3x3): tiles of 4x4 pixels go
                                               through 16 matrix products in place of 36 multiplications a pixel;
    any other, and 3x3 on small maps           is one matrix product over the pixels of every window, laid side by side.

Images a second of whole networks at 224 pixels, two at a time, inside a compiled loop, on two idle AVX2 cores:

                                                    ResNet-18   ResNet-50
    XLA's convolutions throughout                          35          13
    1x1 as matrix products                                 36          16
    and windows side by side on small maps                 37          16
    as here                                                53          18

Source: Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016. The transforms hold 0, 1 and
1/2 alone, so results differ from a direct convolution's by rounding alone, about 1e-6 of their size.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

# The smallest map, in pixels, on which Winograd's products are wide enough to be worth the reading of their weights.
_LEAST_PIXELS = 100

Margins = Sequence[tuple[int, int]]


def convolve(
    x: Float[Array, "B H W C"], kernel: Float[Array, "k l C D"], stride: int = 1, margins: Margins = ((0, 0), (0, 0))
) -> Float[Array, "B h w D"]:
    """XLA's convolution. margins: zeros (before, behind) the rows, and the columns."""
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), list(margins), dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def convolve_cpu(
    x: Float[Array, "B H W C"], kernel: Float[Array, "k l C D"], stride: int = 1, margins: Margins = ((0, 0), (0, 0))
) -> Float[Array, "B h w D"]:
    """The same in the CPU's form; differentiable in both."""
    if kernel.shape[:2] == (1, 1):
        x = jnp.pad(x, ((0, 0), *margins, (0, 0))) if any(map(any, margins)) else x
        return _product(x[:, ::stride, ::stride], kernel[0, 0])
    wide = x.shape[1] * x.shape[2] >= _LEAST_PIXELS
    if kernel.shape[:2] == (3, 3) and stride == 1 and wide and x.dtype == jnp.float32:  # halves would lose digits
        return winograd(x, kernel, margins)
    return side_by_side(x, kernel, stride, margins)


def side_by_side(
    x: Float[Array, "B H W C"], kernel: Float[Array, "k l C D"], stride: int, margins: Margins
) -> Float[Array, "B h w D"]:
    """A convolution as one matrix product: the pixels of every window become one row."""
    size = kernel.shape[:2]
    height, width = _output(x.shape[1:3], size, stride, margins)
    x = _padded(x, margins)
    windows = [_strided(x, i, j, height, width, stride) for i in range(size[0]) for j in range(size[1])]
    rows = jax.lax.optimization_barrier(jnp.concatenate(windows, axis=-1))
    return _product(rows, kernel.reshape(-1, kernel.shape[-1]))


def winograd(x: Float[Array, "B H W C"], kernel: Float[Array, "3 3 C D"], margins: Margins) -> Float[Array, "B h w D"]:
    """A 3x3 convolution of stride 1 by F(2x2, 3x3)."""
    height, width = _output(x.shape[1:3], (3, 3), 1, margins)
    rows, cols = -(-height // 2), -(-width // 2)  # tiles of 2x2 outputs
    spare = (2 * rows - height, 2 * cols - width)
    x = _padded(x, [(before, behind + s) for (before, behind), s in zip(margins, spare, strict=True)])
    tiles = [[_strided(x, i, j, rows, cols, 2) for j in range(4)] for i in range(4)]
    tiles = list(zip(*[_input_transform(row) for row in zip(*tiles, strict=True)], strict=True))
    tiles = [_input_transform(row) for row in tiles]
    # The barrier keeps each sum from being computed again within the product that reads it.
    stacked = jax.lax.optimization_barrier(jnp.stack([part for row in tiles for part in row]))
    # As sums: an einsum with the transform's matrix takes longer than the convolution, once in every pair of images.
    rows_of = _filter_transform(kernel)
    filters = jax.lax.optimization_barrier(jnp.stack([part for row in rows_of for part in _filter_transform(row)]))
    products = [[_product(stacked[4 * u + w], filters[4 * u + w]) for w in range(4)] for u in range(4)]
    columns = [_output_transform(column) for column in zip(*products, strict=True)]
    pixels = [_output_transform(row) for row in zip(*columns, strict=True)]
    y = jnp.stack([jnp.stack(row, axis=3) for row in pixels], axis=2)  # [B, rows, 2, cols, 2, D]
    return y.reshape(len(x), 2 * rows, 2 * cols, -1)[:, :height, :width]


def _filter_transform(g: Sequence[Array] | Array) -> list[Array]:
    even, odd = (g[0] + g[2]) * 0.5, g[1] * 0.5
    return [g[0], even + odd, even - odd, g[2]]


def _input_transform(d: Sequence[Array]) -> list[Array]:
    return [d[0] - d[2], d[1] + d[2], d[2] - d[1], d[1] - d[3]]


def _output_transform(m: Sequence[Array]) -> list[Array]:
    return [m[0] + m[1] + m[2], m[1] - m[2] - m[3]]


def max_pool(x: Float[Array, "B H W C"], size: int, stride: int, margin: int) -> Float[Array, "B h w C"]:
    """The largest of every window of size x size pixels, `margin` pixels of nothing on every side.

    As the larger of shifted images: XLA's CPU backend has no fast window.
    """
    height, width = _output(x.shape[1:3], (size, size), stride, ((margin, margin),) * 2)
    lowest = jnp.asarray(-jnp.inf, x.dtype)
    x = jnp.pad(x, ((0, 0), (margin, margin), (margin, margin), (0, 0)), constant_values=lowest)
    x = jax.lax.optimization_barrier(x)
    rows = [jax.lax.slice_in_dim(x, i, i + (height - 1) * stride + 1, stride, 1) for i in range(size)]
    x = functools.reduce(jnp.maximum, rows)
    columns = [jax.lax.slice_in_dim(x, j, j + (width - 1) * stride + 1, stride, 2) for j in range(size)]
    return functools.reduce(jnp.maximum, columns)


def _output(shape: tuple[int, ...], size: tuple[int, ...], stride: int, margins: Margins) -> list[int]:
    return [(n + sum(m) - k) // stride + 1 for n, k, m in zip(shape, size, margins, strict=True)]


def _padded(x: Array, margins: Margins) -> Array:
    # The barrier keeps the padding out of what reads it, which would ask of every pixel whether it is inside.
    return jax.lax.optimization_barrier(jnp.pad(x, ((0, 0), *margins, (0, 0))))


def _strided(x: Array, top: int, left: int, height: int, width: int, stride: int) -> Array:
    """Every `stride`-th pixel from (top, left) on, `height` x `width` of them."""
    end = (len(x), top + (height - 1) * stride + 1, left + (width - 1) * stride + 1, x.shape[3])
    return jax.lax.slice(x, (0, top, left, 0), end, (1, stride, stride, 1))


def _product(x: Array, kernel: Array) -> Array:
    return jnp.dot(x.reshape(-1, x.shape[-1]), kernel).reshape(*x.shape[:-1], -1)
