"""Attention rollout: how much of each patch has reached the class token, or whatever the logits read.

Source: Abnar and Zuidema, "Quantifying Attention Flow in Transformers", ACL 2020. With A_l the attention of layer l,
its heads made one, and half of what a token becomes taken from itself for the residual connection,

    R = B_L ... B_2 B_1,    B_l = (A_l + I) / 2, its rows scaled to sum to 1

The class token's row of R says what share of it came from each patch. It does not depend on the class explained. Where
the logits read the mean of the patch tokens, as BEiT's do, it is the mean of these tokens' rows; where they read both,
as DINOv2's do, the mean of the two.

Where weights are discarded, the lowest share of a layer's joint weights is 0 before the residual connection is added;
the first weight, of the class token on itself, stays. That is no part of the paper; it is what popular code of the
method calls `discard_ratio` (J. Gildenblat, vit-explain).

Deviations: none without discarding; with it, rows are scaled to sum to 1 as above, where vit-explain divides entry
(i, j) by the sum of row j. A DeiT whose logits are the mean of two heads has two class tokens: the mean of both rows
is taken; where the second is read by no head, its row is not. What comes from registers belongs to no patch, and is
left out.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxmoxi.attribution.game import Problem, Seed, need_attention, without_game
from jaxmoxi.attribution.methods import Method, register
from jaxmoxi.errors import InputError
from jaxmoxi.models.networks.base import TokenLayout

Heads = Literal["mean", "max", "min"]


def attention_rollout(
    key: Seed, problem: Problem, *, heads: Heads = "mean", discard_ratio: float = 0.0
) -> Float[Array, "P"]:
    """Attention rollout, the share of what the logits read that comes from the player's pixels' patches; not negative.

    Every pixel has the number of the patch that it lies in, and a player's score is the mean over its pixels.

    key:           unused, may be None.
    heads:         how a layer's heads become one; the paper takes the mean.
    discard_ratio: in [0, 1), the share of a layer's weights, the lowest ones, that is taken for 0; the paper takes 0.
    Raises ValueError for a model that is not a vision transformer, other `heads`, and a ratio out of range.
    """
    del key
    if heads not in get_args(Heads):
        raise InputError(f"expected heads of {', '.join(get_args(Heads))}; got {heads!r}")
    if not 0 <= discard_ratio < 1:
        raise InputError(f"discard_ratio must lie in [0, 1); got {discard_ratio}")
    need_attention(problem, "attention rollout")
    return _rollout(without_game(problem), heads, float(discard_ratio))


@partial(jax.jit, static_argnums=(1, 2))
def _rollout(problem: Problem, heads: Heads, discard_ratio: float) -> Float[Array, "P"]:
    model = problem.network()
    (rows, cols), count, num_read, read_mean = TokenLayout(*model.token_layout)
    height, width = problem.image.shape[:2]
    join = {"mean": jnp.mean, "max": jnp.max, "min": jnp.min}[heads]

    def layer(flow: Any, weights: Any) -> Any:
        joint = join(weights, axis=0)
        discarded = int(joint.size * discard_ratio)
        if discarded:
            lowest = jnp.argsort(joint.ravel(), stable=True)[:discarded]
            joint = (
                joint.ravel().at[jnp.where(lowest == 0, joint.size, lowest)].set(0, mode="drop").reshape(joint.shape)
            )
        mixed = joint + jnp.eye(len(flow))
        return (mixed / mixed.sum(-1, keepdims=True)) @ flow, None

    flow, _ = model.scan_attention(problem.image, layer, jnp.eye(count + rows * cols))
    parts = [flow[:num_read].mean(0)] if num_read else []
    if read_mean:  # the logits read the mean of the patch tokens, alone or beside the class token
        parts.append(flow[count:].mean(0))
    read = jnp.stack(parts).mean(0)[count:]
    pixels = jnp.repeat(jnp.repeat(read.reshape(rows, cols), height // rows, 0), width // cols, 1)
    return problem.pool(pixels)


register(
    Method(
        "attention-rollout",
        attention_rollout,
        "Abnar and Zuidema, ACL 2020",
        "attention",
        help="how much of each patch reaches the class token through the attention of all layers",
        place=20,
        colour="#2ca02c",
    )
)
