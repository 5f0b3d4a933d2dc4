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

from jaxmoxi.errors import InputError, nan_error
from jaxmoxi.games.base import ValueFn, as_game
from jaxmoxi.games.evaluation import check_batch_size, readouts, tells
from jaxmoxi.games.probe import check_players
from jaxmoxi.guards import deliberate
from jaxmoxi.pytrees import is_concrete, record
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
    batch_size: int | None = None,
) -> Stability:
    """A group under other value functions of the same players: other fills, other maskings, a shifted image.

    vs:        value functions over the same P players, at least one; `alternatives` makes some. Those of one structure
               and shape compile once.
    group:     bool[P], or bool[G, P] for several.
    insertion: True shows the group alone, False hides it.
    batch_size: groups per chunk; None chooses.

    Raises ValueError for no value function and for a group that is not bool[P] or bool[G, P]; NaNValueError that names
    the value function. Inside `jit`, where nothing can be raised, a class whose value is NaN is not on top.
    """
    vs = check_list(vs, "vs")
    if not vs:
        raise InputError("expected at least one value function to hold the group against; got none")
    group = jnp.asarray(group)
    if group.ndim not in (1, 2) or group.dtype != bool:
        raise InputError(
            f"expected a group bool[P], or several as bool[G, P]; got {group.dtype} of shape {group.shape}"
        )
    masks = jnp.atleast_2d(group if insertion else ~group)
    check_batch_size(batch_size)
    outs = [readouts(v, masks, batch_size=batch_size and min(batch_size, len(masks))) for v in vs]
    broken = [jnp.isnan(out.values) for out in outs]
    for i, nan in enumerate(broken):
        if is_concrete(nan) and nan.any():
            which = f"for group {int(jnp.argmax(nan))}" if group.ndim == 2 else "for the group"
            raise nan_error(f"{which} ({'alone' if insertion else 'hidden'})", whose=f"value function {i}")
    outs = [
        out._replace(leads=None if out.leads is None else out.leads & ~nan)
        for out, nan in zip(outs, broken, strict=True)
    ]

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


def check_list(vs: Sequence[ValueFn], name: str) -> list[ValueFn]:
    """Value functions as a list. Raises ValueError for a single one."""
    if callable(vs) or isinstance(vs, str) or not isinstance(vs, Sequence):
        raise InputError(f"expected {name} as a list of value functions; got {type(vs).__name__}")
    return list(vs)


def check_alternatives(vs: Sequence[ValueFn], num_players: int) -> None:
    """Raises before a search what `stability` would raise after it. Games of one structure are traced once."""
    for v in check_list(vs, "alternatives"):
        game = as_game(v)
        check_players(game, num_players)
        tells(game, num_players)
