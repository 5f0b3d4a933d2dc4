"""The published augmentations, and how an image gets the size of the model.

Source: Vandenhirtz and Vogt, "From Pixels to Perception", ICML 2025, and the authors' repository.

Training. Images of ImageNet, ImageNet-9, BAM and COCO-10 are cropped at random to 8 .. 100 % of the area with sides of
3:4 to 4:3, then resized (`crop="resized"`). Images of CIFAR-10 are resized to 8/7 of the size and cropped at random
(`crop="shifted"`). Both are mirrored half of the time. The colours are jittered with strength 0.5: brightness, contrast
and saturation by factors in 1 +- 0.8 of the strength, hue by +- 0.4 of it in turns, in random order.
Evaluation. The shorter side is resized to 8/7 of the size, and the centre is cropped. An image that has the right size
already stays as it is. (The published test images of ImageNet-9 and COCO-10 do, and their masks fit them.)

Pillow resizes the images (bilinear, antialiased). Labels (object masks, superpixels) undergo the same geometry, with
the nearest pixel's label. JAX changes the colours on the host's CPU. For 224 x 224 pixels, each takes about a
millisecond of one core. From dm-pix come hue and grey alone: its brightness is an addition, its contrast keeps each
channel's mean, and its saturation scales the S of HSV, whereas the published ones blend the image with black, with its
mean grey and with the grey of each pixel.

Deviation: the colours are rounded to 8 bits after the jitter, by half a level at most; the authors keep floats.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import UInt8
from PIL import Image

from jaxmoxi.errors import InputError
from jaxmoxi.p2p.data.example import Example

MARGIN = 8 / 7  # 256 / 224
AREA = (0.08, 1.0)
ASPECT = (3 / 4, 4 / 3)


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """What is done to an image before the model is trained on it. Raises ValueError for impossible values.

    crop:   "resized" takes a part of random area and aspect; "shifted" a random place at a fixed scale; None the
            centre, as in evaluation.
    flip:   True mirrors with probability 1/2.
    turn:   True turns by 0, 90, 180 or 270 degrees, for images that have no top. The published code does not turn.
    colour: strength of the colour jitter, in [0, 1]; 0 for none.
    """

    crop: Literal["resized", "shifted"] | None = "resized"
    flip: bool = True
    turn: bool = False
    colour: float = 0.5

    def __post_init__(self):
        if self.crop not in ("resized", "shifted", None):
            raise InputError(f'expected a crop of "resized", "shifted" or None; got {self.crop!r}')
        if not 0 <= self.colour <= 1:
            raise InputError(f"colour is a strength in [0, 1]; got {self.colour!r}")


class Geometry(NamedTuple):
    """Crop `box`, resize it to `size`, crop a square at `offset`, mirror it where `flip` says so, and turn it.

    box:    top, left, height, width, in pixels of the image.
    size:   height, width, in pixels.
    offset: top, left, in pixels after the resizing.
    turns:  number of turns by a right angle.
    """

    box: tuple[int, int, int, int]
    size: tuple[int, int]
    offset: tuple[int, int]
    flip: bool = False
    turns: int = 0


def augment(
    rng: np.random.Generator, example: Example, *, image_size: int, augmentation: Augmentation | None = None
) -> Example:
    """The example with a random augmentation, for training; the result follows from `rng` alone.

    image_size:   side of the result, in pixels.
    augmentation: None for the published one of ImageNet.

    The mask undergoes the image's geometry, and so do regions where `augmentation.crop` is None. A random crop drops
    the regions (None), because the superpixels are then made of the part that is left.
    """
    augmentation = augmentation or Augmentation()
    geometry = random_geometry(rng, example.image.shape[:2], image_size, augmentation)
    example = _placed(example, geometry, image_size)
    image = jitter_colours(rng, example.image, augmentation.colour) if augmentation.colour else example.image
    return example._replace(image=image, regions=None if augmentation.crop else example.regions)


def resize_and_crop(example: Example, *, image_size: int) -> Example:
    """The example in the geometry of evaluation, `image_size` pixels a side."""
    return _placed(example, centre_geometry(example.image.shape[:2], image_size), image_size)


def centre_geometry(shape: tuple[int, ...], image_size: int) -> Geometry:
    """The geometry of evaluation, for an image of `shape` (height, width)."""
    height, width = shape
    if (height, width) == (image_size, image_size):
        return Geometry((0, 0, height, width), (height, width), (0, 0))
    size = _enlarged(height, width, image_size)
    return Geometry((0, 0, height, width), size, (round((size[0] - image_size) / 2), round((size[1] - image_size) / 2)))


def random_geometry(
    rng: np.random.Generator, shape: tuple[int, ...], image_size: int, augmentation: Augmentation
) -> Geometry:
    """The geometry of an augmentation, for an image of `shape` (height, width)."""
    height, width = shape
    if augmentation.crop == "resized":
        geometry = Geometry(_random_box(rng, height, width), (image_size, image_size), (0, 0))
    elif augmentation.crop == "shifted":
        size = _enlarged(height, width, image_size)
        top, left = (int(rng.integers(side - image_size + 1)) for side in size)
        geometry = Geometry((0, 0, height, width), size, (top, left))
    else:
        geometry = centre_geometry(shape, image_size)
    flip = bool(augmentation.flip and rng.random() < 0.5)
    return geometry._replace(flip=flip, turns=int(rng.integers(4)) if augmentation.turn else 0)


def place_image(image: UInt8[np.ndarray, "H W 3"], geometry: Geometry, image_size: int) -> UInt8[np.ndarray, "S S 3"]:
    """The image through the geometry, bilinear."""
    top, left, height, width = geometry.box
    part = Image.fromarray(image[top : top + height, left : left + width])
    if (height, width) != geometry.size:
        part = part.resize((geometry.size[1], geometry.size[0]), Image.Resampling.BILINEAR)
    return _finish(np.asarray(part), geometry, image_size)


def place_labels(labels: np.ndarray, geometry: Geometry, image_size: int) -> np.ndarray:
    """A map [H, W] of labels through the geometry; each pixel takes the label of the nearest one."""
    top, left, height, width = geometry.box
    rows, columns = (
        start + ((np.arange(count) + 0.5) * side / count).astype(int)
        for start, side, count in ((top, height, geometry.size[0]), (left, width, geometry.size[1]))
    )
    return _finish(labels[rows][:, columns], geometry, image_size)


def jitter_colours(
    rng: np.random.Generator, image: UInt8[np.ndarray, "H W 3"], strength: float
) -> UInt8[np.ndarray, "H W 3"]:
    """Changes brightness, contrast, saturation and hue at random, in random order. strength: in [0, 1]."""
    factors = 1 + 0.8 * strength * rng.uniform(-1, 1, 3)
    turn = 0.4 * strength * rng.uniform(-1, 1)
    amounts = np.append(factors, turn).astype(np.float32)
    with jax.default_device(host()):
        return np.asarray(_recolour(image, rng.permutation(4).astype(np.int32), amounts))


@functools.cache
def host() -> Any:
    """The CPU, which prepares images while the accelerator trains; None (JAX's default) if JAX may not use the CPU."""
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError:
        return None


@jax.jit
def _recolour(image: jax.Array, order: jax.Array, amounts: jax.Array) -> jax.Array:
    """`order` is a permutation of 0 .. 3: brightness, contrast, saturation (factors) and hue (turns)."""
    import dm_pix  # half a second to import, and only this needs it

    def blend(image: jax.Array, other: jax.typing.ArrayLike, factor: jax.Array) -> jax.Array:
        return jnp.clip(factor * image + (1 - factor) * other, 0, 1)

    changes = (
        lambda image: blend(image, 0.0, amounts[0]),
        lambda image: blend(image, jnp.mean(dm_pix.rgb_to_grayscale(image)), amounts[1]),
        lambda image: blend(image, dm_pix.rgb_to_grayscale(image), amounts[2]),
        lambda image: dm_pix.adjust_hue(image, amounts[3]),
    )
    start = image.astype(jnp.float32) / 255
    changed, _ = jax.lax.scan(lambda image, kind: (jax.lax.switch(kind, changes, image), None), start, order)
    return jnp.round(255 * jnp.clip(changed, 0, 1)).astype(jnp.uint8)


def _placed(example: Example, geometry: Geometry, image_size: int) -> Example:
    mask, regions = (
        None if labels is None else place_labels(labels, geometry, image_size)
        for labels in (example.mask, example.regions)
    )
    return Example(place_image(example.image, geometry, image_size), example.label, mask, regions)


def _finish(pixels: np.ndarray, geometry: Geometry, image_size: int) -> np.ndarray:
    top, left = geometry.offset
    square = pixels[top : top + image_size, left : left + image_size]
    return np.ascontiguousarray(np.rot90(square[:, ::-1] if geometry.flip else square, geometry.turns))


def _enlarged(height: int, width: int, image_size: int) -> tuple[int, int]:
    """Height and width with the shorter side at 8/7 of the size."""
    short = round(image_size * MARGIN)
    if height <= width:
        return short, int(short * width / height)
    return int(short * height / width), short


def _random_box(rng: np.random.Generator, height: int, width: int) -> tuple[int, int, int, int]:
    """A random part of the image. If ten draws of area and aspect do not fit, the largest central part that does."""
    for _ in range(10):
        area = height * width * rng.uniform(*AREA)
        aspect = np.exp(rng.uniform(*np.log(ASPECT)))
        rows, columns = round(np.sqrt(area / aspect)), round(np.sqrt(area * aspect))
        if 0 < rows <= height and 0 < columns <= width:
            return int(rng.integers(height - rows + 1)), int(rng.integers(width - columns + 1)), rows, columns
    rows = min(height, round(width / ASPECT[0]))
    columns = min(width, round(height * ASPECT[1]))
    return (height - rows) // 2, (width - columns) // 2, rows, columns
