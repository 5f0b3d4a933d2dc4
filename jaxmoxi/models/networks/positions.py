"""Grids of numbers at another size: the position embeddings and position biases of networks for other images.

The weights are those of PyTorch's `torch.nn.functional.interpolate(..., align_corners=False)`, which Hugging Face and
timm use: cubic convolution (Keys, "Cubic Convolution Interpolation for Digital Image Processing", 1981) with a = -0.75
and the edge repeated, or, with `antialias`, with a = -0.5, a kernel widened where the grid shrinks, and cut off at the
edge; and their linear forms.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import numpy as np
from jaxtyping import Float

from jaxmoxi.errors import InputError

Mode = Literal["bicubic", "bilinear"]


def resize_grid(
    grid: Float[np.ndarray, "h w *D"], size: tuple[int, int], *, mode: Mode = "bicubic", antialias: bool = False
) -> Float[np.ndarray, "H W *D"]:
    """A grid of numbers interpolated to `size`, (rows, columns), as float32.

    antialias: widen the kernel where the grid shrinks, as timm does; Hugging Face does not.
    Raises ValueError for an empty grid or size.
    """
    if min(*grid.shape[:2], *size) < 1:
        raise InputError(f"expected grids with rows and columns; got {list(grid.shape[:2])} and {list(size)}")
    if grid.shape[:2] == tuple(size):
        return np.asarray(grid, np.float32)
    rows, columns = (_weights(old, new, mode, antialias) for old, new in zip(grid.shape[:2], size, strict=True))
    wide = np.asarray(grid, np.float64).reshape(grid.shape[0], grid.shape[1], -1)
    wide = np.einsum("Hh,hwd,Ww->HWd", rows, wide, columns, optimize=True)
    return wide.reshape(*size, *grid.shape[2:]).astype(np.float32)


def _weights(old: int, new: int, mode: Mode, antialias: bool) -> Float[np.ndarray, "new old"]:
    """What each new place takes of each old one."""
    reach, kernel = _KERNELS[mode, antialias]
    scale = old / new
    weights = np.zeros((new, old))
    widening = max(scale, 1.0) if antialias else 1.0
    for i in range(new):
        centre = (i + 0.5) * scale
        if antialias:
            first, last = max(0, int(centre - reach * widening + 0.5)), min(old, int(centre + reach * widening + 0.5))
            row = np.array([kernel(abs(j - centre + 0.5) / widening) for j in range(first, last)])
            weights[i, first:last] = row / row.sum()
        else:
            centre = max(centre - 0.5, 0.0) if mode == "bilinear" else centre - 0.5
            start = math.floor(centre)
            for j in range(start - reach + 1, start + reach + 1):
                weights[i, min(max(j, 0), old - 1)] += kernel(abs(centre - j))
    return weights


def _cubic(a: float) -> Callable[[float], float]:
    def kernel(x: float) -> float:
        if x < 1:
            return ((a + 2) * x - (a + 3)) * x * x + 1
        return (((x - 5) * x + 8) * x - 4) * a if x < 2 else 0.0

    return kernel


def _linear(x: float) -> float:
    return max(1 - x, 0.0)


# How far each kernel reaches, in old places, and its weight at a distance.
_KERNELS = {
    ("bicubic", False): (2, _cubic(-0.75)),
    ("bicubic", True): (2, _cubic(-0.5)),
    ("bilinear", False): (1, _linear),
    ("bilinear", True): (1, _linear),
}
