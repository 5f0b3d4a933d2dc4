"""What a classifier sees of an image where no groups are chosen: the ways of the methods that P2P is compared with.

`Config.masking` says which it is: "groups" (P2P's own: hard groups, see `inference.predict`), "soft" (a continuous
mask over the pixels, COMET's), or "even" (an evenly spaced share of the pixels, the same of every image).
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from jaxmoxi.p2p.config import Config
from jaxmoxi.p2p.model import P2P, fill_colour


def evenly_spaced(side: int, share: float) -> Bool[np.ndarray, "S S"]:
    """A grid of pixels that is about this share of an image: as large a share of the rows as of the columns.

    At least one pixel is in it; with a share of 1, all are.
    """
    lines = max(round(side * math.sqrt(share)), 1)
    chosen = np.zeros(side, bool)
    chosen[((np.arange(lines) + 0.5) * side / lines).astype(int)] = True
    return chosen[:, None] & chosen


def pixel_mask(model: P2P, images: Float[Array, "B S S 3"]) -> Float[Array, "B S S"]:
    """How much the classifier sees of each pixel, in [0, 1], for a model of soft or even masking. images: normalised.

    Raises ValueError for a model that chooses groups.
    """
    config = model.config
    if config.masking == "even":
        shown = jnp.asarray(evenly_spaced(config.image_size, config.threshold), images.dtype)
        return jnp.broadcast_to(shown, images.shape[:3])
    if config.masking == "soft":
        return jax.nn.sigmoid(model.importance(images)[..., 0])
    raise ValueError('expected a model with masking="soft" or "even"')


def shown(images: Float[Array, "B S S 3"], mask: Float[Array, "B S S"], config: Config) -> Float[Array, "B S S 3"]:
    """The images through a mask over the pixels; what is hidden has the colour of `Config.fill`."""
    fill = fill_colour(config)
    return fill + (images - fill) * mask[..., None]


def classify_shown(model: P2P, images: Float[Array, "B S S 3"], mask: Float[Array, "B S S"]) -> Float[Array, "B K"]:
    """log(p + 1e-6) of each class, from what the mask shows. images: normalised."""
    logits = model.modules()[1](shown(images, mask, model.config))
    return jnp.log(jax.nn.softmax(logits, axis=-1) + 1e-6)
