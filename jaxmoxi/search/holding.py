"""How a group holds elsewhere.

A very small group that is enough may owe that to a blind spot of the model: to tokens in a constellation it never met,
or to the edges that one fill makes. One that explains should hold under other fills, and when the image moves a little.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxmoxi.errors import InputError
from jaxmoxi.games.evaluation import readouts
from jaxmoxi.games.image import Payoff, pixel_value_fn, token_value_fn
from jaxmoxi.pytrees import record
from jaxmoxi.types import AnyArray


@record
class Stability:
    """A group, or G of them, under A other value functions.

    values:        float32[A] or [G, A], the payoffs.
    leads:         bool[A] or [G, A], the class is on top; None if the value functions cannot tell.
    probabilities: float32[A] or [G, A] in [0, 1]; None likewise.
    share:         float32[] or [G] in [0, 1], the share of them under which the class is on top; None likewise.
    """

    values: Float[Array, "*G A"]
    leads: Bool[Array, "*G A"] | None
    probabilities: Float[Array, "*G A"] | None
    share: Float[Array, "*G"] | None


def alternatives(
    model: Any,
    image: Float[AnyArray, "H W 3"],
    target: int,
    regions: Any,
    *,
    fills: Sequence[Any] = ("mean", "blur"),
    shift: int = 4,
    payoff: Payoff = "log_odds",
) -> list[Callable[..., Any]]:
    """Other games of the same players, for `stability`: other fills, and the image a little to each side.

    model:   a classifier (`jaxmoxi.models.load`). image: normalised, of its size. target: the class.
    regions: int[H, W], the players.
    fills:   what hidden pixels become in one game each, as in `pixel_value_fn`. Leave out the fill of the game that is
             searched: it is no other.
    shift:   pixels that the image moves, up, down, left and right, in one game each; what leaves on one side enters on
             the other, and the players stay. 0: none. Hidden are tokens where the model has them, else pixels, by the
             mean colour.
    payoff:  of the games, as in `pixel_value_fn`.

    Raises ValueError for a shift below 0 or of half the image, and what the value functions raise.
    """
    image = jnp.asarray(image)
    if not 0 <= shift < min(image.shape[:2]) // 2:
        raise InputError(f"expected a shift from 0 to less than {min(image.shape[:2]) // 2} pixels; got {shift}")
    games: list[Callable[..., Any]] = [
        pixel_value_fn(model.logits, image, target, regions, fill=f, payoff=payoff) for f in fills
    ]
    for axis, step in [(0, -shift), (0, shift), (1, -shift), (1, shift)] if shift else []:
        moved = jnp.roll(image, step, axis)
        if model.token_grid is None:
            games.append(pixel_value_fn(model.logits, moved, target, regions, fill="mean", payoff=payoff))
        else:
            games.append(token_value_fn(model, moved, target, regions, payoff=payoff))
    return games


def stability(
    vs: Sequence[Callable[..., object]],
    group: Bool[AnyArray, "*G P"],
    *,
    insertion: bool = True,
) -> Stability:
    """A group under other value functions of the same players: other fills, other maskings, a shifted image.

    vs:        value functions over the same P players, at least one; `alternatives` makes some. Those of one structure
               and shape compile once.
    group:     bool[P], or bool[G, P] for several.
    insertion: True shows the group alone, False hides it.

    Raises ValueError for no value function and for a group that is not bool[P] or bool[G, P].
    """
    if not vs:
        raise InputError("expected at least one value function to hold the group against; got none")
    group = jnp.asarray(group)
    if group.ndim not in (1, 2) or group.dtype != bool:
        raise InputError(
            f"expected a group bool[P], or several as bool[G, P]; got {group.dtype} of shape {group.shape}"
        )
    masks = jnp.atleast_2d(group if insertion else ~group)
    outs = [readouts(v, masks) for v in vs]

    def joined(columns: list[Any]) -> Any:
        told = [column for column in columns if column is not None]
        return jnp.stack(told, axis=-1).reshape(*group.shape[:-1], len(outs)) if len(told) == len(outs) else None

    leads = joined([o.leads for o in outs])
    return Stability(
        values=joined([o.values for o in outs]),
        leads=leads,
        probabilities=joined([o.probabilities for o in outs]),
        share=None if leads is None else jnp.mean(leads.astype(jnp.float32), axis=-1),
    )


def check_alternatives(vs: Sequence[Callable[..., object]], num_players: int) -> None:
    """Raises before a search what `stability` would raise after it."""
    for v in vs:
        jax.eval_shape(lambda masks, v=v: readouts(v, masks), jax.ShapeDtypeStruct((1, num_players), bool))
