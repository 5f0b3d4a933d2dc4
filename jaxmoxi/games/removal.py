"""Several games of one image: other ways of removing the same players, other fills, the image a little moved.

Here are those that are named one by one; `removals` draws any number of them.

A result that holds under one of them alone may be the fill's.

Source: what "absent" means decides what insertion and deletion curves look like: Sturmfels, Lundberg and Lee,
"Visualizing the Impact of Feature Attribution Baselines", Distill 2020. Token removal is that of MoXI (`values`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal, get_args

import jax.numpy as jnp
import numpy as np
from jaxtyping import Num

from jaxmoxi.errors import InputError
from jaxmoxi.games.base import ValueFn
from jaxmoxi.games.image import pixel_value_fn, token_value_fn
from jaxmoxi.games.payoff import Link, Payoff
from jaxmoxi.types import AnyArray

Removal = Literal["tokens", "zero", "mean", "blur"]


def image_game(
    model: Any,
    image: Any,
    target: Any,
    regions: Any,
    *,
    removal: Any = "zero",
    payoff: Payoff = "log_odds",
    link: Link | None = None,
) -> ValueFn:
    """The game of one image under one way of removing its players: the one place that chooses between the two kinds.

    model:   a classifier of `jaxmoxi.models`, or any function [C, H, W, channels] -> float32[C, K].
    image, target, payoff, link: as `pixel_value_fn` takes them.
    regions: int[H, W], labels 0 .. P-1; None makes every token a player, where tokens are removed.
    removal: "tokens", hidden tokens are absent (vision transformers only); "zero", hidden pixels are 0 in the image's
             own normalised units; or what hidden pixels become, as the `fill` of `pixel_value_fn`.

    Raises ValueError for "tokens" and a model without them, and as `pixel_value_fn` and `token_value_fn`.
    """
    if isinstance(removal, str) and removal == "tokens":
        return token_value_fn(model, image, target, regions, payoff=payoff, link=link)
    fill = 0.0 if isinstance(removal, str) and removal == "zero" else removal
    return pixel_value_fn(getattr(model, "logits", model), image, target, regions, fill=fill, payoff=payoff, link=link)


def value_fns(
    model: Any,
    image: Any,
    target: Any,
    regions: Any,
    *,
    removals: Sequence[Removal] = ("tokens", "zero", "mean", "blur"),
    payoff: Payoff = "log_odds",
    link: Link | None = None,
) -> dict[str, ValueFn]:
    """The same players as a game for each way of removing them, by its name, in the order asked for.

    model:    a classifier of `jaxmoxi.models`, or any function [C, H, W, channels] -> float32[C, K].
    image, target, regions, payoff, link: as `pixel_value_fn` takes them.
    removals: "tokens", hidden tokens are absent (vision transformers only; a region that covers no token's majority
              changes nothing); "zero", hidden pixels are 0 in the image's own normalised units; "mean", they take the
              image's mean colour; "blur", the image under a Gaussian of a twentieth of its shorter side.

    The games of pixels share their structure, so what is compiled for one serves the others.
    Raises ValueError for "tokens" and a model without them, for names that are unknown, repeated or missing, and as
    `pixel_value_fn`.
    """
    names = check_names(model, removals, get_args(Removal), "removals")
    return {name: image_game(model, image, target, regions, removal=name, payoff=payoff, link=link) for name in names}


def alternatives(
    model: Any,
    image: Num[AnyArray, "H W channels"],
    target: Any,
    regions: Any,
    *,
    fills: Sequence[Any] = ("mean", "blur"),
    shift: int = 4,
    payoff: Payoff = "log_odds",
    link: Link | None = None,
) -> list[ValueFn]:
    """Other games of the same players, for `stability`: other fills, and the image a little to each side.

    model:   a classifier (`jaxmoxi.models.load`), or any function [C, H, W, channels] -> float32[C, K].
    image:   [H, W, channels], as the model wants it (normalised, of its size). target: the class.
    regions: int[H, W], the players.
    fills:   what hidden pixels become in one game each, as in `pixel_value_fn`. Leave out the fill of the game that is
             searched: it is no other.
    shift:   pixels that the image moves, up, down, left and right, in one game each; what leaves on one side enters on
             the other, and the players stay. 0: none. Hidden are tokens where the model has them, else pixels, by the
             mean colour.
    payoff, link: of the games, as in `pixel_value_fn`.

    Raises ValueError for a shift below 0 or of half the image, and what the value functions raise.
    """
    image = jnp.asarray(image)
    check_shift(shift, image)
    games = [image_game(model, image, target, regions, removal=fill, payoff=payoff, link=link) for fill in fills]
    hidden = "mean" if getattr(model, "token_grid", None) is None else "tokens"
    for axis, step in [(0, -shift), (0, shift), (1, -shift), (1, shift)] if shift else []:
        moved = jnp.roll(image, step, axis)
        games.append(image_game(model, moved, target, regions, removal=hidden, payoff=payoff, link=link))
    return games


def check_names(model: Any, asked: Any, known: Sequence[str], option: str) -> list[Any]:
    """The ways of removing players that were asked for, if they are known, differ, and are possible with this model.

    option: what the argument is called. Raises InputError otherwise.
    """
    names = [] if isinstance(asked, str) or not isinstance(asked, Iterable) else list(asked)
    if not names or not set(names) <= set(known):
        raise InputError(f"expected a sequence of {option} among {', '.join(known)}; got {asked!r}")
    if len(set(names)) != len(names):
        raise InputError(f"expected each of the {option} once; got {names}")
    if "tokens" in names and getattr(model, "token_grid", None) is None:
        left = tuple(name for name in known if name in names and name != "tokens")
        instead = f"leave it out: {option}={left}" if left else f"name others of {', '.join(known[1:])}"
        raise InputError(f'"tokens" needs a vision transformer, and this model has no tokens; {instead}')
    return names


def check_shift(shift: int, image: Num[AnyArray, "H W channels"]) -> None:
    """Raises InputError for a shift below 0 or of half the image."""
    most = min(image.shape[:2]) // 2
    whole = isinstance(shift, int | np.integer) and not isinstance(shift, bool)
    if not whole or not 0 <= shift < max(most, 1):
        raise InputError(f"expected a shift of whole pixels, from 0 to less than {most}; got {shift!r}")
