"""Cheap guesses at which player a greedy step will choose.

*Gradient*: the derivative of the payoff with respect to how much of a player is there (`relaxed` of the value functions
of images), at what is visible now. One backward pass scores everybody: for tokens, unseen ones read the others but are
not read themselves, and the derivative says what the first bit of reading them would bring.
*Attention*: how much the class token reads each token of the whole image.
*Stale*: what each player brought when it was last tried, at an earlier step; lazy greedy (Minoux, "Accelerated greedy
algorithms", 1978). Needs no model, and no pass.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxmoxi.errors import InputError
from jaxmoxi.games.base import Game, ValueFn, as_game, check_num_players
from jaxmoxi.guards import deliberate
from jaxmoxi.types import AnyArray


def check_gates(game: Game) -> None:
    """Raises InputError for a game without gates."""
    if not game.gated:
        raise InputError(
            "gate_gradient needs a value function with `relaxed(gates float32[C, P]) -> float32[C]`, such as those of "
            "token_value_fn and pixel_value_fn"
        )


@deliberate
def gate_gradient(v: ValueFn, mask: Bool[AnyArray, "P"]) -> Float[Array, "P"]:
    """d payoff / d gate of every player at a coalition, float32[P]: one forward and one backward pass.

    Of a visible player it says what showing less of it would cost, of a hidden one what showing some of it would bring.

    v:    a value function with `relaxed(gates float32[C, P]) -> float32[C]`, as `token_value_fn` (attention weights
          times the gate) and `pixel_value_fn` (a blend of fill and image) make them.
    mask: bool[P], the coalition.

    Raises InputError for a value function without gates, and a mask of another shape.
    """
    game = as_game(v)
    check_gates(game)
    mask = jnp.asarray(mask)
    if mask.ndim != 1 or mask.dtype != bool:
        raise InputError(f"expected one mask bool[P]; got {mask.dtype} of shape {mask.shape}")
    check_num_players(game, mask.shape[0])
    return _gradient(game, mask)


@jax.jit
def _gradient(game: Game, mask: Bool[Array, "P"]) -> Float[Array, "P"]:
    return jax.grad(lambda gates: game.relaxed(gates[None])[0])(mask.astype(jnp.float32))


@deliberate
def class_attention(model: Any, image: Float[AnyArray, "H W 3"]) -> Float[Array, "T"]:
    """How much the class token reads each patch token of the whole image: the mean over layers and heads, float32[T].

    model: a classifier with `attention_maps(image) -> float32[L, heads, N, N]`, a vision transformer of
           `jaxmoxi.models`. image: float32[H, W, 3], normalised.
    Raises ValueError for a model without them.
    """
    grid = getattr(model, "token_grid", None)
    if grid is None or not hasattr(model, "attention_maps"):
        raise InputError("class_attention needs a vision transformer with `attention_maps`; this model has none")
    weights = model.attention_maps(jnp.asarray(image))
    return jnp.mean(weights[:, :, 0, -grid[0] * grid[1] :], axis=(0, 1))
