"""How a group holds in other games of the same players.

A very small group that is enough may exploit a blind spot of the model: tokens in a constellation that the model never
met, or the edges that one fill makes. A group that explains should hold under other fills, and when the image moves a
little.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxmoxi.errors import InputError
from jaxmoxi.games.base import ValueFn, as_game
from jaxmoxi.games.evaluation import readouts, tells
from jaxmoxi.games.probe import check_players
from jaxmoxi.guards import deliberate
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


@deliberate
def stability(
    vs: Sequence[ValueFn],
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


def check_alternatives(vs: Sequence[ValueFn], num_players: int) -> None:
    """Raises before a search what `stability` would raise after it. Games of one structure are traced once."""
    for v in vs:
        game = as_game(v)
        check_players(game, num_players)
        tells(game, num_players)
