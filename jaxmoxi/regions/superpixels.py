"""Superpixels: the label maps that follow the colours of an image, by SLIC and by the watershed.

SLIC runs on the device (`jaxmoxi.regions.slic`) or, as the watershed always does, in scikit-image on the host, which is
imported only where it is called.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from jaxmoxi.errors import InputError, warn
from jaxmoxi.pytrees import is_concrete
from jaxmoxi.regions.colours import Space, colours_of
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
    space: Space | None = None,
) -> Int[Array, "*B H W"]:
    """SLIC superpixels (Achanta et al. 2012) of one image or a batch, in one compiled program on the device.

    images:       [H, W] (grey), [H, W, C] or [B, H, W, C] of any number of channels C >= 1, or a PIL image (modes other
                  than grey and RGB are made RGB, what is transparent white). A batch of greys is [B, H, W, 1]. For
                  CIELAB: uint8, or float in [0, 1]. Else: any integers, bools or finite floats. The regions of an image
                  do not depend on the rest of the batch. Segment a batch that is spread over several devices of a CPU
                  inside `jax.shard_map`, which is fastest.
    num_segments: static, >= 1. "jax" gives at most that many regions, and nearly as many on photos.
    compactness:  > 0, in the units of colour; higher gives squarer regions, lower follows colour more closely. A
                  difference in colour of `compactness` counts as much as a distance of the side of a square region.
    num_iterations: >= 1, rounds of k-means; the first is the grid itself.
    enforce_connectivity: makes every region connected along rows and columns. Components that are small, or that exceed
                  `num_segments`, join the neighbour of the closest colour.
    backend:      "jax" has fixed shapes, is deterministic, and works under `jit` and `vmap`. "skimage" is
                  scikit-image's `slic`, on the host, with about as many segments as asked for, sometimes more.
    space:        static, the space of the colours that regions follow.
                  "lab": CIELAB, of sRGB images [.., 3] alone, each stretched to its own darkest and brightest value.
                  "given": the image's own channels. One scale for all of them makes the root mean square distance of a
                  pixel's colour from the image's mean colour 25, about that of photos in CIELAB, so that a compactness
                  means about the same for every image, unit and number of channels. The channel that varies most weighs
                  most; a warning tells of channels of which one varies a hundred times as much as another. What is
                  further than 128 from the mean (a dead pixel) is cut off there.
                  "standardised": as "given", with each channel first divided by its standard deviation, so that all
                  weigh the same, the noisy ones too.
                  None: "lab" for three channels, "given" for any other number.

    Returns int32[H, W] or int32[B, H, W], labels 0 .. P-1 in raster order of each region's first pixel; `num_regions`
    gives P. Raises ValueError for other inputs. The values of traced images are not checked.
    """
    images, space = _check_images(images, space)
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
            space=space,
        )
        return labels if images.ndim == 4 else labels[0]
    if backend == "skimage":
        from skimage.segmentation import slic as on_host  # takes half a second to import

        def segment(photo: np.ndarray) -> Any:
            weight = float(compactness)
            if space != "lab":
                photo = np.moveaxis(np.asarray(colours_of(jnp.asarray(photo), space)), 0, -1)
                weight /= float(np.ptp(photo)) or 1.0  # scikit-image stretches these to [0, 1]
            return on_host(
                photo,
                n_segments=num_segments,
                compactness=weight,
                convert2lab=space == "lab",
                channel_axis=-1,
                max_num_iter=num_iterations,
                enforce_connectivity=enforce_connectivity,
                start_label=0,
            )

        return _each_on_host(segment, images)
    raise InputError(f"backend must be 'jax' or 'skimage'; got {backend!r}")


def watershed_regions(
    images: Any, *, num_segments: int = 100, compactness: float = 0.002, space: Space | None = None
) -> Int[Array, "*B H W"]:
    """Watershed regions, by scikit-image on the host: basins of the colour gradient, flooded from a grid of markers.

    images, space: as `slic_regions` takes them.
    num_segments: >= 1. The grid has at most that many markers. Each marker gives a region.
    compactness:  >= 0; higher gives squarer regions.

    Returns int32[H, W] or int32[B, H, W], labels 0 .. P-1 in raster order of each region's first pixel.
    Raises ValueError for anything else.
    """
    from skimage.color import rgb2lab
    from skimage.filters import sobel
    from skimage.segmentation import watershed

    images, space = _check_images(images, space)
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
        if space == "lab":
            planes = np.moveaxis(rgb2lab(photo), -1, 0) / 100
        else:
            planes = np.asarray(colours_of(jnp.asarray(photo), space)) / 100
        slope = np.sqrt(sum(sobel(plane) ** 2 for plane in planes))
        return watershed(slope, markers, compactness=compactness)  # pyright: ignore[reportArgumentType]

    return _each_on_host(segment, images)


def _check_images(images: Any, space: Space | None) -> tuple[Any, Space]:
    """Images as an array [H, W, C] or [B, H, W, C], and the space of their colours, or a ValueError."""
    if space not in (None, *get_args(Space)):
        raise InputError(f"space must be 'lab', 'given', 'standardised' or None; got {space!r}")
    if not isinstance(images, jax.Array):
        if hasattr(images, "getexif"):  # a PIL image
            images = _of_pillow(images)
        images = np.asarray(images)
    if images.ndim not in (2, 3, 4) or 0 in images.shape:
        raise InputError(
            "superpixels need an image [H, W] or [H, W, C], or a batch [B, H, W, C], channels last; got shape "
            f"{images.shape}"
        )
    if images.ndim == 2:
        images = images[..., None]
    height, width, channels = images.shape[-3:]
    if images.ndim == 3 and height <= 16 and height < min(width, channels):
        warn(
            f"an image of shape {images.shape} is taken as {height} x {width} pixels of {channels} channels. If it is "
            f"{width} x {channels} pixels of {height} channels, say numpy.moveaxis(image, 0, -1); if these are "
            f"{height} grey images, image[..., None]"
        )
    space = space or ("lab" if channels == 3 else "given")
    _check_numbers(images, space)
    return images, space


def _of_pillow(image: Any) -> Any:
    """A PIL image whose numbers are levels: grey ones as they are, others as RGB."""
    from jaxmoxi.photos.convert import to_rgb

    return image if image.mode in ("RGB", "L", "F") or image.mode.startswith("I") else to_rgb(image)


def _check_numbers(images: Any, space: Space) -> None:
    """Raises InputError for numbers that are no colours of the space; warns of a channel that drowns another."""
    floats = jnp.issubdtype(images.dtype, jnp.floating)
    if space == "lab":
        if images.shape[-1] != 3:
            raise InputError(
                f'CIELAB is of three channels, red, green and blue; got {images.shape[-1]}: space="given" follows the '
                "channels themselves"
            )
        if not floats and images.dtype != np.uint8:
            raise InputError(
                f"superpixels of three channels in CIELAB need a photo of uint8, or of floats in [0, 1]; got "
                f'{images.dtype}: rescale it, or say space="given" for channels that are no photo\'s colours'
            )
        if floats and is_concrete(images) and not (images.min() >= 0 and images.max() <= 1):
            raise InputError(
                "a photo of floats must lie in [0, 1] for its colours to mean anything; got "
                f"[{images.min():.3g}, {images.max():.3g}]: pass the photo before normalisation, or say "
                'space="given" for channels that are no photo\'s colours'
            )
        return
    if not (floats or jnp.issubdtype(images.dtype, jnp.integer) or images.dtype == bool):
        raise InputError(f"superpixels need an image of integers or floats; got {images.dtype}")
    if not is_concrete(images):
        return
    channels = np.asarray(images, np.float32)
    if not np.isfinite(channels).all():
        broken = int((~np.isfinite(channels)).sum())
        raise InputError(
            f"superpixels need an image of finite numbers; {broken} of {channels.size} are NaN or infinite. Replace "
            "them, as by numpy.nan_to_num"
        )
    if space == "given" and channels.shape[-1] > 1:
        spreads = channels.std(axis=tuple(range(channels.ndim - 1)), dtype=np.float64)
        varying = np.flatnonzero(spreads > 1e-6 * np.abs(channels).max(tuple(range(channels.ndim - 1))))
        most, least = (varying[f(spreads[varying])] if len(varying) else 0 for f in (np.argmax, np.argmin))
        if spreads[most] > 100 * spreads[least] > 0:
            warn(
                f"channel {most} varies {spreads[most] / spreads[least]:.3g} times as much as channel {least}, which "
                "the superpixels therefore hardly follow. If all channels should weigh the same, say "
                'space="standardised"'
            )


def _each_on_host(segment: Callable[[np.ndarray], Any], images: Any) -> Array:
    """The label map that a function of scikit-image makes of each image, with labels 0 .. P-1."""
    if not is_concrete(images):
        raise InputError("scikit-image makes superpixels on the host, outside of jit and vmap; got a traced image")
    photos = np.asarray(images)
    if photos.ndim == 3:
        return relabel(segment(photos))
    return jnp.stack([relabel(segment(photo)) for photo in photos])
