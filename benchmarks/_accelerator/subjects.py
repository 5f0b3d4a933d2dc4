"""The models, photos and games that the parts measure."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import jaxmoxi as jm
from jaxmoxi.cli.rates import forward_flops, random_classifier
from jaxmoxi.files import read_photo
from jaxmoxi.models.classifier import Classifier
from jaxmoxi.models.networks.base import image_shape, sides
from jaxmoxi.models.networks.resnet import ResNet
from jaxmoxi.models.networks.resnet_config import ResNetConfig, block_shapes
from jaxmoxi.models.networks.vit import VisionTransformerConfig
from jaxmoxi.photos.listing import find_photos


class Subjects:
    """What a run asks about.

    model:  the classifier of --model, or one of random weights.
    photos: those of --photos as uint8[H, W, 3] of the size that the model sees, or made up.
    """

    def __init__(self, model: Classifier, photos: Sequence[np.ndarray]):
        self.model, self.photos = model, photos

    @functools.cache  # noqa: B019  as long-lived as the process
    def in_dtype(self, dtype: str) -> Classifier:
        """The model computing in this dtype."""
        return self.model.astype(dtype)

    def image(self, index: int = 0) -> jax.Array:
        """A photo as the model's input; there are as many as one asks for, for they come again."""
        return self.model.preprocess(self.photos[index % len(self.photos)])

    @functools.cache  # noqa: B019
    def top_class(self, index: int = 0) -> int:
        """What the model answers for a photo, in float32."""
        return int(jnp.argmax(_logits(self.model, self.image(index)[None])[0]))

    def game(self, dtype: str, *, side: int | None, index: int = 0, regions: Any = None) -> tuple[Any, int]:
        """(the token game of a photo and its top class, number of players).

        side: players along a side of the image; None makes every token a player.
        """
        model, image = self.in_dtype(dtype), self.image(index)
        if side is not None:
            regions = jm.grid_regions(*image.shape[:2], rows=side, cols=side)
        rows, cols = model.token_grid or (0, 0)
        players = rows * cols if side is None else side * side
        return jm.token_value_fn(model, image, self.top_class(index), regions), players

    def flops(self, *, tokens: int | None = None) -> float:
        """Operations of one coalition of the model, of all tokens or of so many; 0 where nobody has counted them."""
        return coalition_flops(self.model, tokens)


_logits = jax.jit(lambda model, images: model.logits(images))


def coalition_flops(model: Classifier, tokens: int | None = None) -> float:
    """Floating-point operations of one coalition (`forward_flops`); 0 for a network that is no plain ViT."""
    rows, cols = model.token_grid or (0, 0)
    config = model.config
    return (
        float(forward_flops(config, tokens or rows * cols + 1)) if isinstance(config, VisionTransformerConfig) else 0.0
    )


def load(folder: Path | None, small: VisionTransformerConfig) -> Classifier:
    """The classifier of a folder; None for random weights. Raises InputError for a network without tokens."""
    if folder is None:
        return random_vit(small)
    model = jm.models.load(folder)
    if model.token_grid is None:
        raise jm.InputError(f"--model: {model.name} has no tokens to remove; expected a vision transformer's folder")
    return model


def photos_for(model: Classifier, folder: Path | None, count: int) -> tuple[list[np.ndarray], str]:
    """(at most `count` photos as the model sees them, where they are from). None for a folder makes up two.

    Files that cannot be read are left out, and named. Raises InputError where none is left.
    """
    if folder is None:
        height, width, channels = image_shape(model.config)
        return [_made_photo(seed, height, width, channels) for seed in range(2)], "made up"
    found, broken = [], []
    for name in find_photos(folder).photos:
        if len(found) == count:
            break
        try:
            found.append(model.crop(read_photo(folder / name)))
        except jm.InputError:
            broken.append(name)
    if not found:
        raise jm.InputError(f"--photos: {folder} holds no photo that can be read; expected a folder of images")
    return found, f"{len(found)} of {folder.name}" + (f", unreadable: {', '.join(broken)}" if broken else "")


def _made_photo(seed: int, height: int, width: int, channels: int) -> np.ndarray:
    """Smooth colours, so that superpixels have something to follow."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width] / max(height, width)
    waves = [np.sin(2 * np.pi * (a * y + b * x + c)) for a, b, c in rng.random((channels, 3)) * 4]
    noise = rng.normal(size=(height, width, channels)) * 0.1
    return np.clip(127.5 + 100 * (np.stack(waves, -1) + noise), 0, 255).astype(np.uint8)


def batch_of(photos: Sequence[np.ndarray], count: int, side: int) -> np.ndarray:
    """uint8[count, side, side, 3]: photos made square, over and over."""
    rows = []
    for i in range(count):
        photo = photos[i % len(photos)]
        ys, xs = (np.arange(side) * n // side for n in photo.shape[:2])
        colours = photo[..., [0, 0, 0]] if photo.shape[-1] < 3 else photo[..., :3]
        rows.append(np.roll(colours[ys][:, xs], i, axis=1))  # no two alike
    return np.stack(rows)


def random_vit(config: VisionTransformerConfig) -> Classifier:
    """A vision transformer of this shape with random weights."""
    name = f"random ViT of width {config.hidden_size} and {config.num_layers} layers"
    return dataclasses.replace(random_classifier(config), name=name)


def random_image(model: Classifier) -> jax.Array:
    """A made-up photo as the network's input, float32[H, W, C]."""
    return model.preprocess(_made_photo(0, *image_shape(model.config)))


def random_resnet(config: ResNetConfig) -> Classifier:
    """A ResNet of this shape with random weights."""
    state = jax.jit(lambda: nnx.state(ResNet(config, rngs=nnx.Rngs(0)), nnx.Param))()
    names = tuple(f"class {i}" for i in range(config.num_classes))
    preprocessing = jm.models.Preprocessing(resize=sides(config.image_size))
    return Classifier(state, config, preprocessing, names, f"random ResNet of {2 * sum(config.depths) + 2} layers")


def resnet_flops(config: ResNetConfig) -> int:
    """The floating-point operations of one image, 2 for each multiply-add; convolutions and the classifier alone."""
    height, width = sides(config.image_size)

    def shrink(stride: int) -> tuple[int, int]:
        return -(-height // stride), -(-width // stride)

    height, width = shrink(2)
    total = 49 * config.num_channels * config.stem * height * width
    height, width = shrink(2)  # the pool behind the stem
    for block in block_shapes(config):
        before = height, width
        for size, fan_in, fan_out, stride in block.convolutions:
            height, width = shrink(stride)
            total += size * size * fan_in * fan_out * height * width
        if block.shortcut is not None:
            _, fan_in, fan_out, stride = block.shortcut
            total += fan_in * fan_out * -(-before[0] // stride) * -(-before[1] // stride)
    return 2 * (total + config.widths[-1] * config.num_classes)
