"""Orders of players, and how many of them a share of the image takes."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int


def ranks_of(order: Int[Array, "P"]) -> Int[Array, "P"]:
    """The place of each player in an order, 0 for the first."""
    return jnp.argsort(order).astype(jnp.int32)


def leading_players(order: Int[Array, "P"], sizes: Int[Array, "P"], doubled: Any) -> Bool[Array, "*S P"]:
    """The first players of an order that together cover so many pixels, to the nearest player, halves up.

    sizes:   int32[P], pixels of each player.
    doubled: int32[*S], twice the pixels to cover: whole numbers have no rounding to disagree on.

    A player belongs to them if at least half of it lies within the first so many pixels of the order. Of P players of
    one size these are the first floor(P * share + 1/2).
    """
    taken = sizes[order]
    middles = 2 * jnp.cumsum(taken) - taken
    within = middles <= jnp.asarray(doubled)[..., None]
    return jnp.take(within, ranks_of(order), axis=-1)


def doubled_pixels(shares: Any, count: int) -> Any:
    """Twice the pixels that shares of an image's `count` pixels are, int32[...], on the host.

    The small addition keeps a share that was typed in decimals, such as 0.3, from falling below a half it should reach.
    """
    return np.floor(2 * np.asarray(shares, np.float64) * count + 1e-6).astype(np.int32)
