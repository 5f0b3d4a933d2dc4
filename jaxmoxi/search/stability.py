"""How a group holds elsewhere.

A very small group that is enough may owe that to a blind spot of the model: to tokens in a constellation it never met,
or to the edges that one fill makes. One that explains should hold under other fills, and when the image moves a little.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxmoxi.evaluate import readouts
from jaxmoxi.types import AnyArray, record


@record
class Stability:
    """A group under A other value functions.

    values:        float32[A], the payoffs.
    leads:         bool[A], the class is on top; None if the value functions cannot tell.
    probabilities: float32[A] in [0, 1]; None likewise.
    share:         float32[] in [0, 1], the share of them under which the class is on top; None likewise.
    """

    values: Float[Array, "A"]
    leads: Bool[Array, "A"] | None
    probabilities: Float[Array, "A"] | None
    share: Float[Array, ""] | None


def stability(
    vs: Sequence[Callable[..., object]],
    group: Bool[AnyArray, "P"],
    *,
    insertion: bool = True,
) -> Stability:
    """The group under other value functions of the same players: other fills, other maskings, a shifted image.

    vs:        value functions over the same P players, at least one. Those of one structure and shape compile once.
    group:     bool[P].
    insertion: True shows the group alone, False hides it.

    Raises ValueError for no value function and for a group that is not bool[P].
    """
    if not vs:
        raise ValueError("expected at least one value function to hold the group against; got none")
    group = jnp.asarray(group)
    if group.ndim != 1 or group.dtype != bool:
        raise ValueError(f"expected a group bool[P]; got {group.dtype} of shape {group.shape}")
    masks = (group if insertion else ~group)[None]
    outs = [readouts(v, masks) for v in vs]
    leads = [o.leads for o in outs if o.leads is not None]
    probabilities = [o.probabilities for o in outs if o.probabilities is not None]
    told = len(leads) == len(outs)
    return Stability(
        values=jnp.concatenate([o.values for o in outs]),
        leads=jnp.concatenate(leads) if told else None,
        probabilities=jnp.concatenate(probabilities) if len(probabilities) == len(outs) else None,
        share=jnp.mean(jnp.concatenate(leads).astype(jnp.float32)) if told else None,
    )
