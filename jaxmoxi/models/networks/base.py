"""What a classifier network may offer, declared in one class with a default for each.

Every network answers `features` and `classify`; the logits of images are `classify(features(images))`. A network of
tokens also answers `token_layout`, `embed`, `encode` and `scan_attention`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple, NoReturn, Protocol, TypeVar, runtime_checkable

import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, PyTree, Shaped

from jaxmoxi.errors import InputError

Carry = TypeVar("Carry")
Out = TypeVar("Out")

# Which tokens are there. Gates in place of truths multiply the attention weights: 0 is absent, 1 present.
Present = Bool[Array, "B N"] | Float[Array, "B N"]


# A side of square images, or (height, width), in pixels.
ImageSize = int | tuple[int, int]


@runtime_checkable
class NetworkConfig(Protocol):
    """The shape of a network: a frozen dataclass, which says at least these three things.

    image_size:   the images that the network is meant for, in pixels: a side, or (height, width).
    num_channels: the channels of these images.
    num_classes:  how many logits it gives.
    """

    @property
    def image_size(self) -> ImageSize: ...

    @property
    def num_channels(self) -> int: ...

    @property
    def num_classes(self) -> int: ...


def sides(size: ImageSize) -> tuple[int, int]:
    """(height, width) of an image size."""
    return (size, size) if isinstance(size, int) else size


def checked_size(size: Any, name: str = "image_size") -> ImageSize:
    """An image size as configs hold it: a side, or (height, width) where these differ.

    Raises ValueError for anything but positive whole numbers.
    """
    both = tuple(size) if isinstance(size, list | tuple) else (size, size)
    if len(both) != 2 or any(isinstance(s, bool) or not isinstance(s, int | np.integer) or s < 1 for s in both):
        raise InputError(f"{name} must be a whole number of pixels of at least 1, or (height, width); got {size!r}")
    height, width = map(int, both)
    return height if height == width else (height, width)


def image_shape(config: NetworkConfig) -> tuple[int, int, int]:
    """[H, W, C] of the images that a network of this config is meant for."""
    return (*sides(config.image_size), config.num_channels)


class Features(NamedTuple):
    """A network cut in two where its spatial maps are at their most abstract.

    maps: [B, h, w, C]. Of a CNN: the last convolution's output. Of a vision transformer: its patch tokens, on their
          grid, after the first norm of the last layer; this is what the class token's last attention reads. Where the
          logits also read the patch tokens' mean: these tokens as they enter the last layer.
    rest: what `classify` needs besides them. Of a CNN nothing; of a vision transformer the class tokens, before and
          after that norm, or as they enter the last layer.
    """

    maps: Float[Array, "B h w C"]
    rest: PyTree = ()


class TokenLayout(NamedTuple):
    """Where the tokens of a network stand.

    grid:       rows and columns of the patch tokens.
    num_prefix: the class tokens and registers, which are always there; they stand in front of the patch tokens.
    num_read:   the logits read so many of the class tokens, counted from the first.
    read_mean:  the logits read the mean of the patch tokens, alone (where `num_read` is 0) or beside the class token.
    """

    grid: tuple[int, int]
    num_prefix: int = 1
    num_read: int = 1
    read_mean: bool = False


class ClassifierNetwork(nnx.Module):
    """A network that classifies images. A family's module derives from it and answers what it can.

    `Network(config, rngs=rngs)` makes one with random weights.
    """

    # These parameters, by their first name, stay float32 where the others become bfloat16: the final norm and head.
    float32_parameters: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, config: Any, *, rngs: nnx.Rngs):
        raise TypeError(f"{type(self).__name__} must define __init__(config, *, rngs)")

    def __call__(self, images: Float[Array, "B H W channels"]) -> Float[Array, "B K"]:
        """Logits of preprocessed images."""
        return self.classify(self.features(images))

    def features(self, images: Float[Array, "B H W channels"]) -> Features:
        """What the network makes of images before it decides. Raises ValueError for images it cannot take."""
        self._lacks("features")

    def classify(self, features: Features) -> Float[Array, "B K"]:
        """Logits from `features`, differentiable in them."""
        self._lacks("features")

    @classmethod
    def token_layout(cls, config: Any) -> TokenLayout | None:
        """Where the tokens of a network of this config stand. The default, None, is for a network without tokens."""
        return None

    def embed(self, images: Float[Array, "B H W channels"]) -> PyTree[Shaped[Array, "B T ..."]]:
        """The patch tokens of each image, row by row, with all that depends on the image and not on other tokens."""
        self._lacks("tokens")

    def encode(self, tokens: PyTree[Shaped[Array, "B N ..."]], present: Present) -> Float[Array, "B K"]:
        """Logits from any subset of an image's tokens; those not `present` leave no trace.

        tokens:  arrays [B, N, ...], N at most the image's T, as `embed` made them; where a token stands in the image is
                 one of these arrays, for a network that asks.
        present: bool[B, N], or float32[B, N] in [0, 1]: gates, which multiply every attention weight on a token (0 and
                 1 are False and True), differentiable at both ends.
        """
        self._lacks("tokens")

    def scan_attention(
        self,
        image: Float[Array, "H W channels"],
        step: Callable[[Carry, Float[Array, "heads N N"]], tuple[Carry, Out]],
        start: Carry,
    ) -> tuple[Carry, Out]:
        """`jax.lax.scan` over the layers' attention; see `Classifier.scan_attention`."""
        self._lacks("attention")

    def _lacks(self, what: str) -> NoReturn:
        raise InputError(f"{type(self).__name__} has no {what}; take another model, or another method")


def check_images(images: Array, config: NetworkConfig) -> None:
    """Raises ValueError for images of another shape than a network of this config takes."""
    shape = image_shape(config)
    if images.ndim != 4 or images.shape[1:] != shape:
        height, width, channels = shape
        raise InputError(
            f"expected images [B, {height}, {width}, {channels}]; got {list(images.shape)}: model.preprocess(photo) "
            "makes one"
        )


def check_batch(images: Array, channels: int, least: int = 1) -> None:
    """Raises ValueError for what are no images [B, H, W, channels] of sides of at least `least` pixels."""
    if images.ndim != 4 or images.shape[-1] != channels or min(images.shape[1:3]) < least:
        sizes = f", H and W at least {least}" if least > 1 else ""
        raise InputError(
            f"expected images [B, H, W, {channels}]{sizes}; got {list(images.shape)}: image[None] adds a batch axis"
        )
