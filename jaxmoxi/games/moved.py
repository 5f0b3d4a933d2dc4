"""Games of an image that was moved, whose players moved with it; and the game whose hidden pixels are imputed.

A move is int32[3]: rows down, columns to the right (what leaves on one side enters on the other), and whether the image
was mirrored left to right before. A region map that is moved alike keeps the same content in every player.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Num, Shaped

from jaxmoxi.compiling import compiled
from jaxmoxi.games.base import Game
from jaxmoxi.games.fill import of_kind
from jaxmoxi.games.image import PixelValueFn
from jaxmoxi.games.imputation import interpolate
from jaxmoxi.pytrees import record
from jaxmoxi.regions.label_maps import region_adjacency, visible_pixels
from jaxmoxi.types import Readout

ITERATIONS = 8  # of an imputation, see `imputation`


@jax.jit
def move(pixels: Shaped[Array, "H W *rest"], by: Int[Array, "3"]) -> Shaped[Array, "H W *rest"]:
    """An image, or a map of one, after a move."""
    return jnp.roll(jnp.where(by[2] > 0, pixels[:, ::-1], pixels), by[:2], (0, 1))


@jax.jit
def moved_back(pixels: Shaped[Array, "H W *rest"], by: Int[Array, "3"]) -> Shaped[Array, "H W *rest"]:
    """What `move` was given, from what it made."""
    pixels = jnp.roll(pixels, -by[:2], (0, 1))
    return jnp.where(by[2] > 0, pixels[:, ::-1], pixels)


@record
class MovedPixels(PixelValueFn):
    """A game of hidden pixels whose image, fill and regions were moved together.

    Whoever speaks of pixels (`blended`) speaks of those of the image before the move.
    """

    by: Int[Array, "*batch 3"] = dataclasses.field(kw_only=True)

    def blended(self, shares: Float[Array, "C H W"]) -> Readout:
        """The readout of blended images; the shares are of the image before the move, and move with it."""
        return PixelValueFn.blended(self, jax.vmap(move, (0, None))(shares, self.by))

    def player_borders(self, num_players: int) -> Int[Array, "P P"]:
        """The borders before the move, in which what left on one side touches what stood on the other."""
        return region_adjacency(moved_back(self.regions, self.by), num_players)


@record
class ImputedPixels(MovedPixels):
    """A game whose hidden pixels are guessed from the visible ones, coalition by coalition (see `imputation`).

    `fill` is noise that the guess is added to, the same for every coalition: a value depends on its coalition alone.
    With nobody visible the guess is 0. There is no fill to blend with, and so neither `relaxed` nor `blended`.
    """

    gated: ClassVar[bool] = False  # pyright: ignore[reportIncompatibleVariableOverride]
    blends: ClassVar[bool] = False  # pyright: ignore[reportIncompatibleVariableOverride]

    @compiled
    def logits(self, masks: Bool[Array, "C P"], *, max_visible: int | None = None) -> Float[Array, "C K"]:
        """The logits of the image with the hidden players' pixels imputed."""
        image = self.image.astype(jnp.float32)
        shown = visible_pixels(masks, self.regions)
        guess = jax.vmap(lambda shown: interpolate(image, ~shown, ITERATIONS))(shown) + self.fill
        # Integers are rounded, and so whole: visible pixels stay what they are.
        images = of_kind(jnp.where(shown[..., None], image, guess), self.image.dtype)
        return self.known(self.classify(images), self.regions, masks.shape[1])

    def relaxed(self, gates: Float[Array, "C P"]) -> Float[Array, "C"]:
        """Raises InputError."""
        return Game.relaxed(self, gates)

    def blended(self, shares: Float[Array, "C H W"]) -> Readout:
        """Raises InputError."""
        return Game.blended(self, shares)


def pixels_moved(
    game: PixelValueFn,
    image: Num[Array, "H W channels"],
    fill: Num[Array, "H W channels"],
    by: Int[Array, "3"],
    *,
    imputed: bool = False,
) -> MovedPixels:
    """A game of hidden pixels with another image and fill, both moved with the game's regions."""
    fields: dict[str, Any] = {field.name: getattr(game, field.name) for field in dataclasses.fields(game)}
    fields |= {"image": move(image, by), "fill": move(fill, by), "regions": move(game.regions, by), "by": by}
    return (ImputedPixels if imputed else MovedPixels)(**fields)
