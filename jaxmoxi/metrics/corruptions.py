"""Ten common corruptions of photos, at five severities, as ImageNet-C defines them: pure functions on the device.

Source: Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations", ICLR
2019; the parameters are those of the generator of their ImageNet-C (photos of 224 x 224 pixels). Widths, radii and
distances are in pixels: in a photo of another size the same corruption covers another share of it.

Photos are levels 0 .. 255, before any normalisation: what `model.crop(photo)` gives. What ImageNet-C computes from 0 to
1 is computed so here. All kinds stay on the device, and a severity may be traced: one compiled program serves all five.

Deviations. The published files were saved as JPEG of quality 85 once more, which is not done here. Motion blur is
ImageMagick's formula in float32, which ImageMagick computes in its own whole numbers. JPEG is computed without a file
(see `_jpeg`): nearly all numbers are those that Pillow decodes, to a level, and a quotient that lies next to a half may
be rounded to the other side, by which its block differs a little. Draws are JAX's: the same distributions, other
numbers than NumPy's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Num

from jaxmoxi.errors import InputError, warn
from jaxmoxi.games.fill import of_kind
from jaxmoxi.games.imputation import RandomKey
from jaxmoxi.metrics import _jpeg
from jaxmoxi.pytrees import is_concrete
from jaxmoxi.types import AnyArray

CorruptionKind = Literal[
    "gaussian_noise", "shot_noise", "impulse_noise", "defocus_blur", "motion_blur", "fog", "brightness", "contrast",
    "pixelate", "jpeg",
]  # fmt: skip
CORRUPTIONS: tuple[CorruptionKind, ...] = get_args(CorruptionKind)  # in the order in which tables show them
SEVERITIES = (1, 2, 3, 4, 5)

Image = Float[Array, "H W channels"]  # in [0, 1]
Severity = Int[Array, ""]  # 1 .. 5


def corrupt(
    key: RandomKey,
    photo: Num[AnyArray, "H W channels"],
    kind: CorruptionKind,
    severity: int | np.integer | Int[AnyArray, ""],
) -> Num[Array, "H W channels"]:
    """A photo under one of ImageNet-C's corruptions; of the photo's shape and dtype, in [0, 255].

    key:      a JAX random key, for the noises, the direction of a motion and the shape of a fog. One key gives all
              severities of a kind the same draws; the other kinds draw nothing.
    photo:    uint8, or float in [0, 255], [H, W, channels] of one or three channels, before normalisation: what the
              model sees of a photo, `model.crop(photo)`.
    kind:     one of `CORRUPTIONS`.
    severity: 1 .. 5.

    A uint8 photo stays one: levels between whole numbers fall to the lower, as in ImageNet-C. "pixelate" and "jpeg"
    work on whole levels, to which a float photo is rounded before.
    Goes under `jit` and `vmap`, where a severity out of range gives NaN (0 in a uint8 photo).
    Raises ValueError for another kind or severity, another shape or dtype, and values outside [0, 255]; warns of a
    float photo that looks as if it were from 0 to 1.
    """
    if kind not in CORRUPTIONS:
        raise InputError(f"expected a corruption of {', '.join(CORRUPTIONS)}; got {kind!r}")
    level = np.asarray(severity) if is_concrete(severity) else None
    if level is not None and (level.shape != () or level.dtype.kind not in "iu" or not 1 <= level <= 5):
        raise InputError(f"expected a severity from 1 to 5, a whole number; got {severity!r}")
    try:
        jax.random.fold_in(key, 0)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"expected a JAX random key first, such as jax.random.key(0); got {type(key).__name__} "
            f"({str(error).splitlines()[0]})"
        ) from None
    return _corrupted(key, check_photo(photo), kind, jnp.asarray(severity, jnp.int32))


def check_photo(photo: Num[AnyArray, "H W channels"]) -> Num[Array, "H W channels"]:
    """A photo as an array, looked at as far as its numbers are there. Raises and warns as `corrupt`."""
    if not hasattr(photo, "shape") or not hasattr(photo, "dtype"):
        raise InputError(
            f"expected a photo as an array [H, W, channels]; got {type(photo).__name__}: model.crop(photo) makes one"
        )
    image = jnp.asarray(photo)
    if image.ndim != 3 or image.shape[2] not in (1, 3) or 0 in image.shape:
        raise InputError(f"expected a photo [H, W, channels] of one or three channels; got shape {list(image.shape)}")
    if image.dtype != jnp.uint8 and not jnp.issubdtype(image.dtype, jnp.floating):
        raise InputError(f"expected a photo of uint8, or of floats in [0, 255]; got {image.dtype}")
    if image.dtype != jnp.uint8 and is_concrete(image):
        low, high = float(image.min()), float(image.max())
        if not (low >= 0 and high <= 255):  # NaN too
            raise InputError(
                f"expected a photo from 0 to 255, before it is normalised; got values from {low:.4g} to {high:.4g}: "
                "model.crop(photo) gives what the model sees of a photo, as levels"
            )
        if 0 < high <= 1:
            warn(
                f"this photo has values from {low:.4g} to {high:.4g}, and is taken as nearly black: photos are from 0 "
                "to 255 here. If it is from 0 to 1, give 255 * photo"
            )
    return image


@partial(jax.jit, static_argnums=2)
def _corrupted(
    key: RandomKey, photo: Num[Array, "H W channels"], kind: CorruptionKind, severity: Severity
) -> Num[Array, "H W channels"]:
    found = 255 * jnp.clip(_KINDS[kind](key, photo.astype(jnp.float32) / 255, severity), 0, 1)
    found = jnp.where((severity >= 1) & (severity <= 5), found, jnp.nan)
    # The addition takes back the rounding of a division by 255 and its undoing.
    return of_kind(jnp.floor(found + 1e-3) if photo.dtype == jnp.uint8 else found, photo.dtype)


def _of(severity: Severity, values: object) -> Array:
    """The entry for a severity of a table with one for each of the five."""
    return jnp.asarray(values)[jnp.clip(severity - 1, 0, 4)]


def gaussian_noise(key: RandomKey, image: Image, severity: Severity) -> Image:
    """Normal noise on every number."""
    return image + _of(severity, [0.08, 0.12, 0.18, 0.26, 0.38]) * jax.random.normal(key, image.shape)


def shot_noise(key: RandomKey, image: Image, severity: Severity) -> Image:
    """Photons that are counted: Poisson noise, with so many photons for white."""
    photons = _of(severity, [60.0, 25.0, 12.0, 5.0, 3.0])
    mean, drawn = image * photons, jax.random.uniform(key, image.shape)

    # The count is that of the sums of probabilities below a uniform draw. More photons than those of white are white.
    def count(k: Array, state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        found, chance, total = state
        total = total + chance
        return found + (drawn > total), chance * mean / (k + 1), total

    start = jnp.zeros_like(mean), jnp.exp(-mean), jnp.zeros_like(mean)
    return jax.lax.fori_loop(0, 60, count, start)[0] / photons


def impulse_noise(key: RandomKey, image: Image, severity: Severity) -> Image:
    """Salt and pepper: a share of the numbers become 1 or 0, whichever falls."""
    hit, salt = jax.random.split(key)
    share = _of(severity, [0.03, 0.06, 0.09, 0.17, 0.27])
    salted = jax.random.bernoulli(salt, 0.5, image.shape).astype(image.dtype)
    return jnp.where(jax.random.uniform(hit, image.shape) <= share, salted, image)


def _disk(radius: int, sigma: int | float) -> Float[np.ndarray, "21 21"]:
    """A disk of a lens out of focus, its edge softened by a Gaussian of 3 (radius up to 8) or 5 pixels."""
    reach, taps = (8, 3) if radius <= 8 else (radius, 5)
    places = np.arange(-reach, reach + 1)
    disk = (places[:, None] ** 2 + places**2 <= radius**2).astype(np.float64)
    disk /= disk.sum()
    weights = np.exp(-0.5 * ((np.arange(taps) - taps // 2) / sigma) ** 2)
    weights /= weights.sum()
    for axis in (0, 1):
        edges = [(taps // 2, taps // 2) if a == axis else (0, 0) for a in (0, 1)]
        padded = np.pad(disk, edges, mode="reflect")
        disk = sum(w * padded.take(np.arange(i, i + len(places)), axis) for i, w in enumerate(weights))
    return np.pad(disk, 10 - reach)


_DISKS = np.stack([_disk(*c) for c in ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5))])


def defocus_blur(key: RandomKey, image: Image, severity: Severity) -> Image:
    """A lens out of focus: the mean over a disk, the image mirrored at its edges."""
    del key
    padded = jnp.pad(image, ((10, 10), (10, 10), (0, 0)), mode="reflect")
    kernel = _of(severity, _DISKS.astype(np.float32))
    planes = jnp.moveaxis(padded, -1, 0)[:, None]
    out = jax.lax.conv_general_dilated(planes, kernel[None, None], (1, 1), "VALID", precision="highest")
    return jnp.moveaxis(out[:, 0], 0, -1)


def _trail(radius: int, sigma: int | float) -> Float[np.ndarray, "41"]:
    """Half a Gaussian: how much each place of the way that a pixel comes counts."""
    width = 2 * radius + 1
    weights = np.exp(-0.5 * (np.arange(width) / sigma) ** 2)
    return np.pad(weights / weights.sum(), (0, 41 - width))


_TRAILS = np.stack([_trail(*c) for c in ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15))])


def motion_blur(key: RandomKey, image: Image, severity: Severity) -> Image:
    """A camera that moves in a direction within 45 degrees of the horizontal; edges are repeated."""
    angle = jax.random.uniform(key, (), minval=-45.0, maxval=45.0)
    return moved_blur(image, _of(severity, _TRAILS.astype(np.float32)), angle)


def moved_blur(image: Image, weights: Float[Array, "N"], degrees: Float[Array, ""]) -> Image:
    """The weighted mean of the image's pixels along a straight way of N steps (ImageMagick's MotionBlurImage)."""
    steps, radians = jnp.arange(len(weights)), jnp.deg2rad(degrees)
    down = jnp.ceil(steps * jnp.sin(radians) - 0.5).astype(jnp.int32)
    right = jnp.ceil(steps * jnp.cos(radians) - 0.5).astype(jnp.int32)
    rows, columns = jnp.arange(image.shape[0]), jnp.arange(image.shape[1])

    def add(total: Image, step: tuple[Array, Array, Array]) -> tuple[Image, None]:
        weight, dy, dx = step
        at = jnp.clip(rows + dy, 0, image.shape[0] - 1)
        shifted = image[at][:, jnp.clip(columns + dx, 0, image.shape[1] - 1)]
        return total + weight * shifted, None

    return jax.lax.scan(add, jnp.zeros_like(image), (weights, down, right))[0]


def fog(key: RandomKey, image: Image, severity: Severity) -> Image:
    """Clouds of a plasma fractal over the image, which is dimmed so that what was brightest stays as bright."""
    thickness, decay = _of(severity, [1.5, 2.0, 2.5, 2.5, 3.0]), _of(severity, [2.0, 2.0, 1.7, 1.5, 1.4])
    height, width, _ = image.shape
    side = max(2, 1 << (max(height, width) - 1).bit_length())  # 256 for photos of 224
    clouds = plasma(key, side, decay)[:height, :width, None]
    brightest = image.max()
    return (image + thickness * clouds) * brightest / (brightest + thickness)


def plasma(key: RandomKey, side: int, decay: Float[Array, ""]) -> Float[Array, "side side"]:
    """A cloudy map in [0, 1] that wraps around, by the diamond-square algorithm; side a power of two.

    decay: by which the random part shrinks from one scale to the next, half as large.
    """
    drawn = jax.random.uniform(key, (side, side), minval=-1.0, maxval=1.0)  # of each place of the map
    grid, step, wobble = jnp.zeros((1, 1)), side, jnp.float32(100.0)
    while step > 1:
        half = step // 2
        size = wobble**2
        along = grid + jnp.roll(grid, -1, 0)
        middle = (along + jnp.roll(along, -1, 1)) / 4 + size * drawn[half::step, half::step]
        top = (middle + jnp.roll(middle, 1, 0) + grid + jnp.roll(grid, -1, 1)) / 4 + size * drawn[::step, half::step]
        left = (middle + jnp.roll(middle, 1, 1) + grid + jnp.roll(grid, -1, 0)) / 4 + size * drawn[half::step, ::step]
        rows = jnp.stack([jnp.stack([grid, top], -1), jnp.stack([left, middle], -1)], 1)
        grid = rows.reshape(2 * len(grid), 2 * len(grid))
        step, wobble = half, wobble / decay
    grid = grid - grid.min()
    return grid / grid.max()


def brightness(key: RandomKey, image: Image, severity: Severity) -> Image:
    """More light: the value of HSV grows, hue and saturation stay."""
    del key
    value = image.max(-1, keepdims=True)
    brighter = jnp.clip(value + _of(severity, [0.1, 0.2, 0.3, 0.4, 0.5]), 0, 1)
    return jnp.where(value > 0, image * (brighter / jnp.where(value > 0, value, 1)), brighter)


def contrast(key: RandomKey, image: Image, severity: Severity) -> Image:
    """Less contrast: each channel moves towards its mean."""
    del key
    means = image.mean((0, 1), keepdims=True)
    return (image - means) * _of(severity, [0.4, 0.3, 0.2, 0.1, 0.05]) + means


_SHARES = (0.6, 0.5, 0.4, 0.3, 0.25)


def _box(size: int, new: int) -> Float[np.ndarray, "new size"]:
    """Pillow's box filter from `size` to `new` pixels, as a matrix."""
    scale = size / new
    wide = max(scale, 1.0)
    matrix = np.zeros((new, size))
    for i in range(new):
        centre = (i + 0.5) * scale
        first, last = max(0, int(centre - wide / 2 + 0.5)), min(size, int(centre + wide / 2 + 0.5))
        distance = (np.arange(first, last) - centre + 0.5) / wide
        matrix[i, first:last] = (distance > -0.5) & (distance <= 0.5)
    return matrix / matrix.sum(1, keepdims=True)


def pixelate(key: RandomKey, image: Image, severity: Severity) -> Image:
    """Large pixels: the photo made smaller and large again by Pillow's box filter, in whole levels."""
    del key
    size = image.shape[:2]
    down, up = [], []
    for side in size:  # of each side, padded to the largest of the five small photos
        small = [max(1, int(side * share)) for share in _SHARES]
        down.append(np.stack([np.pad(_box(side, n), ((0, max(small) - n), (0, 0))) for n in small]))
        up.append(np.stack([np.pad(_box(n, side), ((0, 0), (0, max(small) - n))) for n in small]))
    levels = jnp.round(image * 255)
    for matrices in (down, up):
        for axis in (1, 0):  # Pillow goes along the rows first, and rounds after each
            weights = _of(severity, matrices[axis].astype(np.float32))
            mixed = jnp.tensordot(weights, levels, axes=(1, axis), precision="highest")
            levels = jnp.floor(jnp.moveaxis(mixed, 0, axis) + 0.5 + 1e-4)
    return levels / 255


_TABLES = np.stack([_jpeg.tables(quality) for quality in (25, 18, 15, 10, 7)])


def jpeg(key: RandomKey, image: Image, severity: Severity) -> Image:
    """JPEG of low quality, chroma at half the resolution, as Pillow writes and reads it."""
    del key
    levels = jnp.round(image * 255).astype(jnp.int32)
    return _jpeg.there_and_back(levels, _of(severity, _TABLES)).astype(jnp.float32) / 255


_KINDS: Mapping[str, Callable[[RandomKey, Image, Severity], Image]] = MappingProxyType(
    dict(
        zip(
            CORRUPTIONS,
            (
                gaussian_noise, shot_noise, impulse_noise, defocus_blur, motion_blur, fog, brightness, contrast,
                pixelate, jpeg,
            ),
            strict=True,
        )
    )
)  # fmt: skip
