"""Superpixels: the label maps that follow the colours of a photo, by SLIC and by the watershed.

SLIC runs on the device (`jaxmoxi.regions.slic`) or, as the watershed always does, in scikit-image on the host, which is
imported only where it is called.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from jaxmoxi.errors import InputError
from jaxmoxi.pytrees import is_concrete
from jaxmoxi.regions.label_maps import relabel
from jaxmoxi.regions.slic import choose_grid, slic


def slic_regions(
    images: Any,
    *,
    num_segments: int = 100,
    compactness: Any = 20.0,
    num_iterations: int = 10,
    enforce_connectivity: bool = True,
    backend: Literal["jax", "skimage"] = "jax",
) -> Int[Array, "*B H W"]:
    """SLIC superpixels (Achanta et al. 2012) in CIELAB, of one image or a batch, in one compiled program on the device.

    images:       uint8 [H, W, 3] or [B, H, W, 3], or float in [0, 1], or a PIL image. Each is stretched to its own
                  darkest and brightest value. Its regions do not depend on the rest of the batch. Segment a batch that
                  is spread over several devices of a CPU inside `jax.shard_map`, which is fastest.
    num_segments: static, >= 1. "jax" gives at most that many regions, and nearly as many on photos.
    compactness:  > 0; higher gives squarer regions, lower follows colour more closely.
    num_iterations: >= 1, rounds of k-means; the first is the grid itself.
    enforce_connectivity: makes every region connected along rows and columns. Components that are small, or that exceed
                  `num_segments`, join the neighbour of the closest colour.
    backend:      "jax" has fixed shapes, is deterministic, and works under `jit` and `vmap`. "skimage" is
                  scikit-image's `slic`, on the host, with about as many segments as asked for, sometimes more.

    Returns int32[H, W] or int32[B, H, W], labels 0 .. P-1 in raster order of each region's first pixel; `num_regions`
    gives P. Raises ValueError for other inputs. The values of traced images are not checked.
    """
    images = _check_images(images)
    if num_segments < 1:
        raise InputError(f"num_segments must be at least 1; got {num_segments}")
    if num_iterations < 1:
        raise InputError(f"num_iterations must be at least 1; got {num_iterations}")
    if is_concrete(compactness) and not compactness > 0:
        raise InputError(f"compactness must be positive; got {compactness}")
    if backend == "jax":
        batch = images if images.ndim == 4 else images[None]
        labels = slic(
            jnp.asarray(batch),
            jnp.asarray(compactness, jnp.float32),
            num_segments=num_segments,
            num_iterations=num_iterations,
            enforce_connectivity=enforce_connectivity,
        )
        return labels if images.ndim == 4 else labels[0]
    if backend == "skimage":
        from skimage.segmentation import slic as on_host  # takes half a second to import

        def segment(photo: np.ndarray) -> Any:
            return on_host(
                photo,
                n_segments=num_segments,
                compactness=float(compactness),
                max_num_iter=num_iterations,
                enforce_connectivity=enforce_connectivity,
                start_label=0,
            )

        return _each_on_host(segment, images)
    raise InputError(f"backend must be 'jax' or 'skimage'; got {backend!r}")


def watershed_regions(images: Any, *, num_segments: int = 100, compactness: float = 0.002) -> Int[Array, "*B H W"]:
    """Watershed regions, by scikit-image on the host: basins of the colour gradient, flooded from a grid of markers.

    images:       as `slic_regions` takes them.
    num_segments: >= 1. The grid has at most that many markers. Each marker gives a region.
    compactness:  >= 0; higher gives squarer regions.

    Returns int32[H, W] or int32[B, H, W], labels 0 .. P-1 in raster order of each region's first pixel.
    Raises ValueError for anything else.
    """
    from skimage.color import rgb2lab
    from skimage.filters import sobel
    from skimage.segmentation import watershed

    images = _check_images(images)
    if num_segments < 1:
        raise InputError(f"num_segments must be at least 1; got {num_segments}")
    if not compactness >= 0:
        raise InputError(f"compactness must be at least 0; got {compactness}")

    def segment(photo: np.ndarray) -> Any:
        height, width = photo.shape[:2]
        rows, cols = choose_grid(height, width, num_segments)
        markers = np.zeros((height, width), np.int32)
        ys, xs = ((2 * np.arange(n) + 1) * side // (2 * n) for n, side in ((rows, height), (cols, width)))
        markers[np.ix_(ys, xs)] = np.arange(1, rows * cols + 1).reshape(rows, cols)
        lab = rgb2lab(photo) / 100
        slope = np.sqrt(sum(sobel(lab[..., i]) ** 2 for i in range(3)))
        return watershed(slope, markers, compactness=compactness)  # pyright: ignore[reportArgumentType]

    return _each_on_host(segment, images)


def _check_images(images: Any) -> Any:
    """Images as an array [H, W, 3] or [B, H, W, 3], or a ValueError."""
    if not isinstance(images, jax.Array):
        images = np.asarray(images)
    if images.ndim not in (3, 4) or images.shape[-1] != 3 or 0 in images.shape:
        raise InputError(
            f"superpixels need a colour photo [H, W, 3], or a batch [B, H, W, 3]; got shape {images.shape}"
        )
    floats = jnp.issubdtype(images.dtype, jnp.floating)
    if not floats and images.dtype != np.uint8:
        raise InputError(f"superpixels need a photo of uint8, or of floats in [0, 1]; got {images.dtype}")
    if floats and is_concrete(images) and not (images.min() >= 0 and images.max() <= 1):
        raise InputError(
            "a photo of floats must lie in [0, 1] for its colours to mean anything; got "
            f"[{images.min():.3g}, {images.max():.3g}]: pass the photo before normalisation"
        )
    return images


def _each_on_host(segment: Callable[[np.ndarray], Any], images: Any) -> Array:
    """The label map that a function of scikit-image makes of each image, with labels 0 .. P-1."""
    if not is_concrete(images):
        raise InputError("scikit-image makes superpixels on the host, outside of jit and vmap; got a traced image")
    photos = np.asarray(images)
    if photos.ndim == 3:
        return relabel(segment(photos))
    return jnp.stack([relabel(segment(photo)) for photo in photos])
