"""Orders of players, and how many of them a share of the image takes."""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from jaxmoxi.types import AnyArray


def ranks_of(order: Int[Array, "P"]) -> Int[Array, "P"]:
    """The place of each player in an order, 0 for the first."""
    return jnp.argsort(order).astype(jnp.int32)


def leading_players(
    order: Int[Array, "P"], sizes: Int[Array, "P"], doubled: int | Int[AnyArray, "*S"]
) -> Bool[Array, "*S P"]:
    """The first players of an order that together cover so many pixels, to the nearest player, halves up.

    sizes:   int32[P], pixels of each player.
    doubled: int32[*S], twice the pixels to cover; whole numbers are free of rounding.

    A player belongs to them if at least half of it lies within the first so many pixels of the order. Of P players of
    one size these are the first floor(P * share + 1/2).
    """
    taken = sizes[order]
    middles = 2 * jnp.cumsum(taken) - taken
    within = middles <= jnp.asarray(doubled)[..., None]
    return jnp.take(within, ranks_of(order), axis=-1)


def doubled_pixels(shares: float | Sequence[float] | np.ndarray, count: int) -> Int[np.ndarray, "..."]:
    """Twice the pixels that shares of an image's `count` pixels are, int32[...], on the host.

    The small addition keeps a share that was typed in decimals, such as 0.3, from being rounded below a half.
    """
    return np.asarray(np.floor(2 * np.asarray(shares, np.float64) * count + 1e-6), np.int32)
