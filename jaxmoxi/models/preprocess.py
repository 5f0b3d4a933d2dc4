"""From a photo to what a classifier takes: orientation, colours, resize, crop, normalisation.

Pillow does the resizing, as it did for the published weights, and the rounding follows the two code bases that the
weights come from. Both make the long side of a short-side resize `int(long * size / short)`. They centre a crop
differently where an odd number of pixels is left over: Hugging Face rounds the offset down, torchvision (and timm with
it) to the nearest even number.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from jaxtyping import Array, Float, UInt8
from PIL import Image

from jaxmoxi.errors import InputError
from jaxmoxi.files import to_rgb
from jaxmoxi.models.processors import HALF, RESAMPLING, huggingface_fields, is_count, timm_fields

# A Pillow image of any mode, or a uint8 array [H, W, 3], [H, W, 4] or [H, W], or bool [H, W], where True is white. For
# a network of C channels, C neither 1 nor 3: a uint8 array [H, W, C].
Photo = Image.Image | np.ndarray | Array

_MOST_SIDE = 1 << 15  # pixels of a resize or crop


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """How a photo becomes a network's input. Hashable, so it can be the static part of a pytree.

    resize:         the short side in pixels, proportions kept; or (height, width), which `fit` explains; or None.
    crop:           (height, width) of the centre crop that follows, or None.
    resample:       Pillow's resampling filter (0 nearest, 1 Lanczos, 2 bilinear, 3 bicubic, 4 box, 5 Hamming).
    rescale_factor: what pixels 0 .. 255 are multiplied by.
    offset:         what is then added.
    mean, std:      one number for each of the network's channels: `(pixel * rescale_factor + offset - mean) / std`.
    crop_rounding:  how the crop's offset is rounded, "down" or to the nearest "even" number; see the module's head.
    fit:            what resizing to (height, width) does: "squash" makes exactly that, proportions not kept; "cover"
                    keeps them and makes the smallest photo that covers it, of which a crop follows.

    Raises ValueError where these contradict each other or leave the size of the result open.
    """

    resize: int | tuple[int, int] | None = None
    crop: tuple[int, int] | None = None
    resample: int = 2
    rescale_factor: float = 1 / 255
    offset: float = 0.0
    mean: tuple[float, ...] = HALF
    std: tuple[float, ...] = HALF
    crop_rounding: Literal["down", "even"] = "down"
    fit: Literal["squash", "cover"] = "squash"

    def __post_init__(self):
        if self.crop is None and not isinstance(self.resize, tuple):
            raise InputError(
                f"resize={self.resize} without a crop leaves the size of the result open; "
                "give crop=(height, width), or both sides as resize=(height, width)"
            )
        for name in ("resize", "crop"):
            value = getattr(self, name)
            sides = value if isinstance(value, tuple) else (value,) * 2
            if value is not None and (len(sides) != 2 or not all(is_count(s) and s <= _MOST_SIDE for s in sides)):
                raise InputError(f"{name} must be pixels, whole numbers from 1 to {_MOST_SIDE}; got {value!r}")
        if self.resize is not None and self.crop is not None:
            resized = self.resize if isinstance(self.resize, tuple) else (self.resize, self.resize)
            if any(c > r for c, r in zip(self.crop, resized, strict=True)):
                raise InputError(f"crop={self.crop} does not fit in a photo resized to {self.resize}; resize to more")
        if self.resample not in RESAMPLING.values():
            raise InputError(f"resample must be one of Pillow's filters, 0 to 5; got {self.resample!r}")
        if self.crop_rounding not in ("down", "even"):
            raise InputError(f'crop_rounding must be "down" or "even"; got {self.crop_rounding!r}')
        if self.fit not in ("squash", "cover"):
            raise InputError(f'fit must be "squash" or "cover"; got {self.fit!r}')
        if self.fit == "cover" and not (isinstance(self.resize, tuple) and self.crop):
            raise InputError(f'fit="cover" needs resize=(height, width) and a crop; got {self.resize} and {self.crop}')
        for name in ("mean", "std"):
            value = getattr(self, name)
            if not isinstance(value, tuple) or not value or not all(math.isfinite(x) for x in value):
                raise InputError(f"{name} must be a tuple of finite numbers, one for each channel; got {value!r}")
        if len(self.mean) != len(self.std):
            raise InputError(
                f"mean and std must have one number for each channel; got {len(self.mean)} and {len(self.std)}"
            )
        if not min(self.std) >= 1e-6 or not 0 < self.rescale_factor < math.inf or not math.isfinite(self.offset):
            raise InputError(
                "std (at least 1e-6) and rescale_factor must be positive, and offset finite; got "
                f"{self.std}, {self.rescale_factor} and {self.offset}"
            )

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the result."""
        return self.crop or self.resize  # type: ignore[return-value]  as __post_init__ has checked

    @property
    def num_channels(self) -> int:
        """The channels of the result: 3 are red, green and blue, 1 is grey."""
        return len(self.mean)

    def to_size(self, size: tuple[int, int]) -> Preprocessing:
        """The same for images of another size, (height, width): a crop keeps its share of the resized photo.

        Raises ValueError for a size that is none.
        """
        if size == self.size:
            return self
        if self.crop is None:
            return dataclasses.replace(self, resize=size)
        resized: tuple[int, int] | None = None
        if self.resize is not None:
            before = self.resize if isinstance(self.resize, tuple) else (self.resize, self.resize)
            # The small number is for quotients such as 224 / 0.875, which are whole but for their last bits.
            resized = tuple(int(r * new / old + 1e-6) for r, new, old in zip(before, size, self.crop, strict=True))  # type: ignore[assignment]
        if resized is None or isinstance(self.resize, tuple):
            return dataclasses.replace(self, resize=resized, crop=size)
        if resized[0] == resized[1]:
            return dataclasses.replace(self, resize=resized[0], crop=size)
        return dataclasses.replace(self, resize=resized, crop=size, fit="cover")

    @classmethod
    def from_huggingface(cls, config: Mapping[str, Any], image_size: int, num_channels: int = 3) -> Preprocessing:
        """What a `preprocessor_config.json` of Hugging Face says.

        config:       the file's content; {} means the defaults of its ViT processor.
        image_size:   side of the network's input in pixels, for what the file leaves out.
        num_channels: of the network's input; the file's mean and std must have as many numbers, or one.

        A file that names no processor is read as its network's: `model_type` in it ("vit", "deit", ...) tells which.
        A bare number as `size` means what it means to the processor: both sides of a square (ViT, DeiT, BEiT, PVT), or
        the short side. {"shortest_edge"} and {"height", "width"} mean what they say. With `crop_pct` (ConvNeXT) the
        short side becomes size / crop_pct and a crop to size follows, below 384 pixels; from there on, a plain square.
        Raises ValueError for a processor or a value it does not understand.
        """
        return cls(**huggingface_fields(config, image_size, num_channels))

    @classmethod
    def from_timm(cls, pretrained_cfg: Mapping[str, Any]) -> Preprocessing:
        """What timm's `pretrained_cfg` says: the short side resized to floor(input / crop_pct), then a centre crop.

        Keys read: input_size [C, height, width], crop_pct, crop_mode ("center" or "squash"), interpolation, mean, std.
        Where one is absent, it is timm's default: 224 pixels, 0.875, "center", "bicubic", ImageNet's numbers.
        Raises ValueError for values it does not understand.
        """
        return cls(**timm_fields(pretrained_cfg))


def preprocess(photo: Photo, preprocessing: Preprocessing) -> Float[np.ndarray, "H W C"]:
    """A photo as a network's input: what `crop_photo` returns, normalised to float32[H, W, C]. Raises as it does."""
    return normalize(crop_photo(photo, preprocessing), preprocessing)


def normalize(cropped: UInt8[np.ndarray, "H W C"], preprocessing: Preprocessing) -> Float[np.ndarray, "H W C"]:
    """What `crop_photo` has returned as a network's input, for who needs both: a large photo is resized once."""
    p = preprocessing
    scaled = cropped.astype(np.float32) * np.float32(p.rescale_factor) + np.float32(p.offset)
    return (scaled - np.array(p.mean, np.float32)) / np.array(p.std, np.float32)


def crop_photo(photo: Photo, preprocessing: Preprocessing) -> UInt8[np.ndarray, "H W C"]:
    """What a network sees of a photo: resized and cropped, uint8[H, W, C] in 0 .. 255, not normalised.

    photo: a Pillow image of any mode, a uint8 array [H, W, 3], [H, W, 4] or [H, W], or bool[H, W], where True is
           white. It is turned upright as its EXIF data say, 16-bit greys are reduced to 8 bits, and what is
           transparent becomes white, as on paper. Of an animation the first frame is taken. Where the network has
           one channel, colours become greys (ITU-R 601: 0.299 red + 0.587 green + 0.114 blue). Where it has neither
           one nor three, the photo is an array uint8[H, W, C], taken as it is.

    What had to be assumed is told by a `PhotoWarning`: see `jaxmoxi.files.to_rgb`, which takes `white=LEVEL` instead.
    Raises ValueError for arrays of another dtype or shape, for a photo smaller than the crop where nothing is resized,
    and for a photo so narrow that resizing would make it huge; TypeError for what is no image.
    """
    planes = _planes(photo, preprocessing.num_channels)
    size = planes[0].height, planes[0].width
    (height, width), (top, left), (crop_height, crop_width) = crop_geometry(size, preprocessing)
    cropped = []
    for plane in planes:
        if preprocessing.resize is not None:
            plane = plane.resize((width, height), Image.Resampling(preprocessing.resample))
        cropped.append(np.array(plane.crop((left, top, left + crop_width, top + crop_height))))
    return cropped[0] if cropped[0].ndim == 3 else np.stack(cropped, axis=-1)


# A photo is resized to no more pixels than this, unless it had more before.
_MOST_PIXELS = 2**27


def crop_geometry(
    photo_size: tuple[int, int], preprocessing: Preprocessing
) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
    """Of a photo of (height, width): (its size once resized, the (top, left) of the crop in it, the crop's size).

    Raises ValueError for a photo smaller than a crop that no resize precedes, and one so narrow that it would be
    resized to more than 2^27 pixels.
    """
    p, (height, width) = preprocessing, photo_size
    if isinstance(p.resize, tuple) and p.fit == "cover":
        ratio = max(p.resize[0] / height, p.resize[1] / width)
        resized = round(height * ratio), round(width * ratio)
    elif isinstance(p.resize, tuple):
        resized = p.resize
    elif p.resize is None:
        resized = photo_size
    elif width <= height:
        resized = int(p.resize * height / width), p.resize
    else:
        resized = p.resize, int(p.resize * width / height)
    if resized[0] * resized[1] > max(_MOST_PIXELS, height * width):
        raise InputError(
            f"expected a photo of usual proportions; one of {height} x {width} pixels would be resized to "
            f"{resized[0]} x {resized[1]}: crop it first"
        )
    crop = p.crop or resized
    spare = resized[0] - crop[0], resized[1] - crop[1]
    if min(spare) < 0:
        raise InputError(
            f"expected a photo of at least {crop[0]} x {crop[1]} pixels, as it is cropped without being resized; "
            f"got {height} x {width}: enlarge it first"
        )
    top, left = (s // 2 if p.crop_rounding == "down" else round(s / 2) for s in spare)
    return resized, (top, left), crop


def _planes(photo: Any, channels: int) -> list[Image.Image]:
    """A photo as images to be resized: one of RGB, one of greys, or one of greys for each channel."""
    if channels in (1, 3):
        if not isinstance(photo, Image.Image) and getattr(photo, "ndim", 0) == 3 and photo.shape[2] == 1:
            photo = photo[..., 0]
        image = _to_rgb(photo)
        return [image if channels == 3 else image.convert("L")]
    if isinstance(photo, Image.Image):
        raise InputError(
            f"expected an array uint8[H, W, {channels}], as the network takes {channels} channels; got an image of "
            f"mode {photo.mode}: stack its channels in the network's order"
        )
    array = _checked_array(photo)
    if array.ndim != 3 or array.shape[2] != channels or not array.size:
        raise InputError(f"expected an array uint8[H, W, {channels}] for this network; got {list(array.shape)}")
    return [Image.fromarray(np.ascontiguousarray(array[..., i])) for i in range(channels)]


def _to_rgb(photo: Any) -> Image.Image:
    """Any photo as an upright RGB image."""
    if isinstance(photo, str | bytes) or hasattr(photo, "__fspath__"):
        raise TypeError(f"expected a photo, got the path {photo!r}; open it first: PIL.Image.open(path)")
    if not isinstance(photo, Image.Image):
        photo = _array_to_image(photo)
    return to_rgb(photo)


def _checked_array(photo: Any) -> np.ndarray:
    """A photo as a uint8 array of any shape."""
    if not hasattr(photo, "shape") or not hasattr(photo, "dtype"):
        raise TypeError(f"expected a Pillow image or a uint8 array [H, W, 3]; got {type(photo).__name__}")
    array = np.asarray(photo)
    if array.dtype == np.bool_ and array.ndim == 2:
        array = np.where(array, np.uint8(255), np.uint8(0))
    if array.dtype != np.uint8:
        floats = "if it lies in 0 .. 1, pass (255 * photo).round().astype('uint8')"
        levels = "if its levels are 0 to 255, pass photo.astype('uint8'); deeper ones are rescaled first"
        raise InputError(
            f"expected a uint8 array with values 0 to 255; got {array.dtype}: "
            f"{levels if array.dtype.kind in 'iu' else floats}"
        )
    return array


def _array_to_image(photo: Any) -> Image.Image:
    array = _checked_array(photo)
    if not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))):
        raise InputError(f"expected an array [H, W, 3], [H, W, 4] or [H, W]; got shape {list(array.shape)}")
    if array.size == 0:
        raise InputError(f"expected a photo; got an empty array of shape {list(array.shape)}")
    return Image.fromarray(array)
