"""Convolutions of one channel or of one pixel, in the form that the platform runs fastest, gradients included.

XLA's CPU backend has no fast depthwise convolution, nor a fast gradient of one. On it

    the convolution           is a sum of shifted images, each times one weight per channel: XLA fuses it (see
                              `shifted_sum`; figures in `cnn`);
    the image's gradient      is such a sum too, of the output's gradient; of a strided one, a sum for each phase;
    the kernel's gradient     is a loop over its weights, for each the sum of a product of two images: XLA vectorises
                              one such sum, but not several side by side, because it fuses them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def convolve(
    x: Float[Array, "B H W C"], kernel: Float[Array, "k k c D"], stride: int, dilation: int, margin: int
) -> Float[Array, "B h w D"]:
    """XLA's convolution, `margin` zeros on every side; depthwise where the kernel has one input channel (c = 1)."""
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), [(margin, margin)] * 2, rhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=x.shape[-1] // kernel.shape[2],
    )  # fmt: skip


def in_pairs(maps: Callable[[Array], Array], images: Float[Array, "B H W C"]) -> Float[Array, "B h w D"]:
    """`maps(images)`, two images at a time: the CPU's cache then holds the early layers.

    The images of an odd batch go one by one, which is still faster than all at once.
    """
    pair = 2 - len(images) % 2
    found = jax.lax.map(maps, images.reshape(len(images) // pair, pair, *images.shape[1:]))
    return found.reshape(len(images), *found.shape[2:])


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def depthwise(
    x: Float[Array, "B H W C"], kernel: Float[Array, "k k 1 C"], stride: int, dilation: int, margin: int
) -> Float[Array, "B h w C"]:
    """`convolve` of each channel with its own kernel. Differentiable in reverse mode."""
    native = functools.partial(convolve, stride=stride, dilation=dilation, margin=margin)
    margins = ((margin, margin),) * 2
    shifted = functools.partial(shifted_sum, stride=stride, dilation=dilation, margins=margins)
    return jax.lax.platform_dependent(x, kernel, cpu=shifted, default=native)


def _forward(x: Array, kernel: Array, stride: int, dilation: int, margin: int) -> tuple[Array, tuple[Array, Array]]:
    return depthwise(x, kernel, stride, dilation, margin), (x, kernel)


def _backward(
    stride: int, dilation: int, margin: int, saved: tuple[Array, Array], gradient: Array
) -> tuple[Array, Array]:
    def native(x: Array, kernel: Array, gradient: Array) -> tuple[Array, Array]:
        return jax.vjp(lambda x, k: convolve(x, k, stride, dilation, margin), x, kernel)[1](gradient)

    def shifted(x: Array, kernel: Array, gradient: Array) -> tuple[Array, Array]:
        return (
            _image_gradient(x.shape, kernel, gradient, stride, dilation, margin),
            _kernel_gradient(x, kernel.shape[0], gradient, stride, dilation, margin),
        )

    return jax.lax.platform_dependent(*saved, gradient, cpu=shifted, default=native)


depthwise.defvjp(_forward, _backward)


@jax.custom_vjp
def pointwise(x: Float[Array, "B H W C"], kernel: Float[Array, "C D"]) -> Float[Array, "B H W D"]:
    """A convolution of one pixel, as a matrix product. Differentiable in reverse mode.

    The kernel's gradient sums over the pixels. XLA's CPU backend transposes one side of that product to do so, by
    default the output's gradient. Here the product is written so that it transposes the side of fewer channels (16 to
    64 of them at 112 x 112 pixels: a quarter of the time).
    """
    return jnp.dot(x, kernel)


def _pointwise(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return pointwise(x, kernel), (x, kernel)


def _pointwise_gradient(saved: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    x, kernel = saved

    def product(a: Array, b: Array) -> Array:
        return jax.lax.dot_general(a, b, (((0, 1, 2), (0, 1, 2)), ((), ())))

    wider = kernel.shape[0] < kernel.shape[1]
    return jnp.dot(gradient, kernel.T), product(x, gradient) if wider else product(gradient, x).T


pointwise.defvjp(_pointwise, _pointwise_gradient)


def shifted_sum(
    x: Float[Array, "B H W C"],
    kernel: Float[Array, "k k 1 C"],
    *,
    stride: int,
    margins: Sequence[tuple[int, int]],
    dilation: int = 1,
) -> Float[Array, "B h w C"]:
    """A depthwise convolution as the sum of shifted images, each times one weight per channel: XLA fuses it.

    margins: zeros (before, behind) the rows, and the columns.
    """
    size = len(kernel)
    reach = dilation * (size - 1) + 1
    height, width = ((n + sum(m) - reach) // stride + 1 for n, m in zip(x.shape[1:3], margins, strict=True))
    x = _padded(x, *margins)
    total = jnp.zeros((), x.dtype)
    for i in range(size):
        for j in range(size):
            total = total + _window(x, i * dilation, j * dilation, height, width, stride) * kernel[i, j, 0]
    return total


def _image_gradient(
    shape: tuple[int, ...], kernel: Array, gradient: Array, stride: int, dilation: int, margin: int
) -> Array:
    # Pixel `stride * q + phase` was seen by output `q + offset` through tap i, for those taps whose offset is whole.
    counts = [-(-n // stride) for n in shape[1:3]]
    taps: list[list[tuple[int, int]]] = [[] for _ in range(stride)]
    for phase in range(stride):
        for i in range(len(kernel)):
            offset, rest = divmod(phase + margin - i * dilation, stride)
            if not rest:
                taps[phase].append((i, offset))
    offsets = [offset for row in taps for _, offset in row]
    before = max(0, -min(offsets))
    after = (max(0, count + max(offsets) - n) for count, n in zip(counts, gradient.shape[1:3], strict=True))
    gradient = _padded(gradient, *((before, n) for n in after))
    phases = []
    for rows in taps:
        for columns in taps:
            total = jnp.zeros((shape[0], *counts, shape[3]), gradient.dtype)
            for i, top in rows:
                for j, left in columns:
                    total = total + _window(gradient, before + top, before + left, *counts) * kernel[i, j, 0]
            phases.append(total)
    if stride == 1:
        return phases[0]
    x = jnp.stack(phases, axis=-2).reshape(shape[0], *counts, stride, stride, shape[3]).swapaxes(2, 3)
    x = x.reshape(shape[0], counts[0] * stride, counts[1] * stride, shape[3])
    return x[:, : shape[1], : shape[2]]


def _kernel_gradient(x: Array, size: int, gradient: Array, stride: int, dilation: int, margin: int) -> Array:
    batch, height, width, channels = gradient.shape
    x = _padded(x, (margin, margin), (margin, margin))
    seen = (batch, (height - 1) * stride + 1, (width - 1) * stride + 1, channels)

    def weigh(_: None, tap: Array) -> tuple[None, Array]:
        window = jax.lax.dynamic_slice(x, (0, tap // size * dilation, tap % size * dilation, 0), seen)
        return None, jnp.sum(window[:, ::stride, ::stride] * gradient, axis=(1, 2))

    # Summed over the images last: where a mesh shares them, the devices meet once.
    _, sums = jax.lax.scan(weigh, None, jnp.arange(size * size))
    return sums.sum(1).reshape(size, size, 1, channels)


def _padded(x: Array, rows: tuple[int, int], columns: tuple[int, int]) -> Array:
    # The barrier keeps the padding out of the sums, which would ask for every pixel whether it is inside.
    return jax.lax.optimization_barrier(jnp.pad(x, ((0, 0), rows, columns, (0, 0))))


def _window(x: Array, top: int, left: int, height: int, width: int, stride: int = 1) -> Array:
    """Every `stride`-th pixel from (top, left) on, `height` x `width` of them."""
    end = (len(x), top + (height - 1) * stride + 1, left + (width - 1) * stride + 1, x.shape[3])
    return jax.lax.slice(x, (0, top, left, 0), end, (1, stride, stride, 1))
