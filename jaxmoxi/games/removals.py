"""Removals as a distribution: many ways in which the same players may be hidden, drawn by a key.

What "hidden" means decides what an explanation says, so a group of players should be judged over many meanings: hidden
tokens that are absent, hidden pixels that take a flat colour, a blur, noise, another photo, or what the visible pixels
suggest, each in an image that is a little moved, mirrored, brighter or darker. Some games are for a search, others,
which it never saw, for judging what it found.

Sources: fills and what they do to curves: Sturmfels, Lundberg and Lee, "Visualizing the Impact of Feature Attribution
Baselines", Distill 2020. Imputation: ROAD (Rong et al., ICML 2022; see `imputation`). A group's value over a
distribution of what is hidden: Wäldchen et al., "The computational complexity of understanding binary classifier
decisions", JAIR 2021.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Num

from jaxmoxi.errors import InputError
from jaxmoxi.games.base import Game
from jaxmoxi.games.fill import fill_image, of_kind
from jaxmoxi.games.image import TokenValueFn, pixel_value_fn, players_of_tokens, token_value_fn
from jaxmoxi.games.imputation import RandomKey
from jaxmoxi.games.moved import move, pixels_moved
from jaxmoxi.games.payoff import Link, Payoff
from jaxmoxi.games.removal import check_names, check_shift
from jaxmoxi.guards import deliberate
from jaxmoxi.pytrees import is_concrete
from jaxmoxi.regions.label_maps import grid_regions
from jaxmoxi.types import AnyArray

RemovalKind = Literal["tokens", "mean", "blur", "zero", "noise", "photo", "inpaint"]

_NOISE = 0.01  # of an imputation, in standard deviations of the image


@deliberate
def removals(
    key: RandomKey,
    model: Any,
    image: Num[AnyArray, "H W channels"],
    target: Any,
    regions: Int[AnyArray, "H W"] | None,
    *,
    count: int = 8,
    kinds: Sequence[RemovalKind] | None = None,
    photos: Sequence[Num[AnyArray, "H W channels"]] | Num[AnyArray, "N H W channels"] | None = None,
    shift: int | None = None,
    flip: bool = True,
    brightness: float = 0.2,
    payoff: Payoff = "log_odds",
    link: Link | None = None,
) -> list[Game]:
    """Games of the same players under `count` ways of removing them, drawn by a key; the same key, the same games.

    key:     a JAX random key. Game i depends on the key, on i and on its kind alone: of more games the first are the
             same.
    model:   a classifier of `jaxmoxi.models`, or any function [C, H, W, channels] -> float32[C, K].
    image, target, payoff, link: as `pixel_value_fn` takes them.
    regions: int[H, W], labels 0 .. P-1; None makes every token of a vision transformer a player.
    count:   how many games.
    kinds:   what becomes of hidden players; game i has `kinds[i % len(kinds)]`. None is all of the following in this
             order, without "tokens" for a model that has none and without "photo" where no photos are given.

        "tokens"   hidden tokens are absent; vision transformers only
        "mean"     hidden pixels take the image's mean colour
        "blur"     the image under a Gaussian of a twentieth of its shorter side
        "zero"     0 in the image's own (normalised) units
        "noise"    the colours of pixels of the image that are drawn at random
        "photo"    the pixels of one of `photos`, drawn
        "inpaint"  what the visible pixels around suggest (ROAD's noisy linear imputation), for every coalition

    photos:  other images [H, W, channels] for the kind "photo", made as `image` was.
    shift:   the most pixels by which a game's image moves, down or up and to a side; what leaves on one side enters on
             the other. None is the shorter side by 56, rounded: 4 of 224.
    flip:    about half of the games, as drawn, mirror the image left to right. False where a mirror image is another
             class, as of digits.
    brightness: the most that is added to or taken from all of an image, in its own standard deviations; it stays within
             the range of each channel.

    The players move with the image and are mirrored with it: a player is the same content in every game. (Tokens do not
    move: in the kind "tokens" a player owns the tokens it then covers most of.) Games of one kind, and all that hide
    pixels by a fill, share their structure, so `jm.robust_value_fn` evaluates them together. Whether the model answers
    the class for the whole image in each of them is the model's to say: `search.robust_group` tells of those where it
    does not.

    Raises ValueError for kinds that are unknown, repeated or not possible, for fewer games than kinds that were named,
    for photos that do not fit or are not used, and as `pixel_value_fn`.
    """
    _check_numbers(key, count, brightness)
    if not isinstance(flip, bool | np.bool_):
        raise InputError(f"expected flip of True or False; got {flip!r}")
    names = _names(model, kinds, photos, count)
    if regions is None:
        regions = _regions_of_tokens(model, image)
    given: dict[str, Any] = {"payoff": payoff, "link": link}
    pixels = tokens = None
    if set(names) != {"tokens"}:
        pixels = pixel_value_fn(getattr(model, "logits", model), image, target, regions, **given)
        target = pixels.target
    if "tokens" in names:
        tokens = token_value_fn(model, image, target, regions, **given)
    image = jnp.asarray(image)
    shift = round(min(image.shape[:2]) / 56) if shift is None else shift
    check_shift(shift, image)
    others = _stacked(photos, image) if "photo" in names else None
    games: list[Game] = []
    for i in range(count):
        name, own = names[i % len(names)], jax.random.fold_in(key, i)
        variation = _draw(own, shift, flip, brightness)
        seen = _brighten(image, variation.brightness)
        if name == "tokens" and tokens is not None:
            games.append(_tokens_moved(tokens, move(seen, variation.by), move(jnp.asarray(regions), variation.by)))
        elif pixels is not None:
            fill = _fill(jax.random.fold_in(own, 1), name, seen, others)
            games.append(pixels_moved(pixels, seen, fill, variation.by, imputed=name == "inpaint"))
    return games


class _Variation(NamedTuple):
    """What happens to a game's image."""

    by: Int[Array, "3"]  # a move, see `moved`
    brightness: Float[Array, ""]  # in standard deviations of the image


def _draw(key: RandomKey, shift: int, flip: bool, brightness: float) -> _Variation:
    shifts, mirror, light = jax.random.split(key, 3)
    steps = jax.random.randint(shifts, (2,), -shift, shift + 1)
    mirrored = jax.random.bernoulli(mirror) & flip
    by = jnp.append(steps, mirrored).astype(jnp.int32)
    return _Variation(by, jax.random.uniform(light, (), jnp.float32, -brightness, brightness))


def _brighten(image: Num[Array, "H W channels"], by: Float[Array, ""]) -> Num[Array, "H W channels"]:
    numbers = image.astype(jnp.float32)
    moved = numbers + by * jnp.std(numbers)
    return of_kind(jnp.clip(moved, numbers.min((0, 1)), numbers.max((0, 1))), image.dtype)


def _fill(
    key: RandomKey, kind: str, image: Num[Array, "H W channels"], photos: Num[Array, "N H W channels"] | None
) -> Num[Array, "H W channels"]:
    """What hidden pixels become; for an imputation the noise on them."""
    height, width, channels = image.shape
    if kind == "noise":
        drawn = jax.random.randint(key, (height, width), 0, height * width)
        return image.reshape(-1, channels)[drawn]
    if kind == "inpaint":
        return _NOISE * jnp.std(image.astype(jnp.float32)) * jax.random.normal(key, image.shape, jnp.float32)
    if photos is not None and kind == "photo":
        return photos[jax.random.randint(key, (), 0, len(photos))]
    return fill_image(image, 0 if kind == "zero" else kind)


def _tokens_moved(game: TokenValueFn, image: Num[Array, "H W channels"], regions: Int[Array, "H W"]) -> TokenValueFn:
    players, _, tokens_per_player = players_of_tokens(regions, image, game.model.token_grid)
    tokens = game.model.embed_tokens(image)
    return dataclasses.replace(game, tokens=tokens, players=players, tokens_per_player=tokens_per_player)


def _check_numbers(key: Any, count: Any, brightness: float) -> None:
    try:
        jax.random.fold_in(key, 0)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"expected a JAX random key first, such as jax.random.key(0); got {type(key).__name__} "
            f"({str(error).splitlines()[0]})"
        ) from None
    if isinstance(count, bool) or not isinstance(count, int | np.integer) or count < 1:
        raise InputError(f"count is the number of games, at least 1; got {count!r}")
    if not isinstance(brightness, int | float | np.number) or not 0 <= brightness < np.inf:
        raise InputError(f"brightness is in standard deviations of the image, at least 0; got {brightness!r}")


def _names(model: Any, kinds: Sequence[RemovalKind] | None, photos: Any, count: int) -> list[str]:
    """The kinds of games, if they are possible with what was given."""
    everything = get_args(RemovalKind)
    if kinds is None:
        absent = {"tokens"} if getattr(model, "token_grid", None) is None else set()
        absent |= {"photo"} if photos is None else set()
        names = [name for name in everything if name not in absent]
        if photos is not None and count <= names.index("photo"):
            raise InputError(
                f'photos were given, and {count} games use none: "photo" is kind number {names.index("photo") + 1}. '
                f"Ask for count={len(names)} or more, or name it: kinds=('photo', ...)"
            )
        return names
    names = check_names(model, kinds, everything, "kinds")
    if "photo" in names and photos is None:
        raise InputError('the kind "photo" needs other photos to take pixels from: give photos=[...], or leave it out')
    if "photo" not in names and photos is not None:
        raise InputError(f'photos were given, and the kinds {names} use none: name "photo" among them')
    if count < len(names):
        raise InputError(f"expected at least one game of each of the {len(names)} kinds; got count = {count}")
    return names


def _regions_of_tokens(model: Any, image: Any) -> Int[Array, "H W"]:
    grid = getattr(model, "token_grid", None)
    if grid is None:
        raise InputError("expected regions int[H, W]; only the tokens of a vision transformer are players of their own")
    height, width = np.shape(image)[:2] if np.ndim(image) == 3 else (0, 0)
    if not height or height % grid[0] or width % grid[1]:
        raise InputError(f"expected an image [H, W, channels] of the model's size; got shape {list(np.shape(image))}")
    return grid_regions(height, width, rows=grid[0], cols=grid[1])


def _stacked(photos: Any, image: Num[Array, "H W channels"]) -> Num[Array, "N H W channels"]:
    """The photos as one array, if each can stand in for the image."""
    if not len(photos):
        raise InputError("expected at least one photo in photos; got none")
    for i, photo in enumerate(photos):
        kind = np.asarray(photo).dtype.kind
        if kind in "iub" and jnp.issubdtype(image.dtype, jnp.floating):
            raise InputError(
                f"expected photos made as the image was, {image.dtype}; number {i} is {np.asarray(photo).dtype}: give "
                "model.preprocess(photo)"
            )
        if np.shape(photo) != image.shape:
            raise InputError(
                f"expected photos of the image's shape {list(image.shape)}, made as it was; number {i} has shape "
                f"{list(np.shape(photo))}"
            )
    fills = jnp.stack([fill_image(image, photo) for photo in photos])
    if is_concrete((fills, image)):
        same = np.flatnonzero(np.asarray((fills == image).all((1, 2, 3))))
        if same.size:
            raise InputError(
                f"expected other photos than the image itself, which hides nothing; number {same[0]} is it"
            )
    return fills
