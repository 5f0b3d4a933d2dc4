"""Shapley values from a budget of coalitions.

Sources: Castro, Gómez and Tejada, "Polynomial calculation of the Shapley value based on sampling", Computers &
Operations Research 2009; Mitchell et al., "Sampling Permutations for Shapley Value Estimation", JMLR 2022, for orders
in pairs with their reverse; `interactions.gaussian` for the Gaussian process.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key, UInt32

from jaxmoxi.errors import InputError, nan_error
from jaxmoxi.games.base import Game, ValueFn, as_game
from jaxmoxi.games.differences import Parts, read_parts
from jaxmoxi.guards import deliberate
from jaxmoxi.interactions.estimate import estimate
from jaxmoxi.interactions.exact import MOST_PLAYERS, exact
from jaxmoxi.pytrees import is_concrete
from jaxmoxi.types import ShapleyEstimate

METHODS = ("gaussian-process", "permutation")


@deliberate
def sampled_shapley(
    key: Key[Array, ""] | UInt32[Array, "2"],
    v: ValueFn,
    num_players: int,
    *,
    num_samples: int,
    method: str = "gaussian-process",
    batch_size: int | None = None,
) -> ShapleyEstimate:
    """Shapley values by sampling, with standard errors.

    num_samples: at least 2; the budget is num_samples * (P - 1) + 2 values, what so many random orders of the players
                 cost ("gaussian-process" takes at least 2 P + 2).
    method:      "gaussian-process" has by far the smaller error: it evaluates other coalitions than orders do, and
                 reads the values of the most likely game (`interactions.estimate` with the index "SV"). Up to 20
                 players a budget of 2^P values gives the exact values, whose standard errors are 0. The estimate is
                 biased towards a game without interactions, as far as the budget leaves them open; the standard errors
                 include that, and the values sum to v(all) - v(none).
                 "permutation" is unbiased: each order adds the players one by one, and a player's sample is what it
                 adds when its turn comes. An even number of orders from four on comes in pairs, an order and its
                 reverse, which lowers the error. All standard errors shrink with 1 / sqrt(num_samples).

    Returns a `ShapleyEstimate`. The same key gives the same estimate, whatever the batch size.
    Raises ValueError for fewer than two samples and another method, NaNValueError (outside `jit`) if a value is NaN.
    """
    if num_samples < 2:
        raise InputError(f"num_samples must be at least 2, for a standard error; got {num_samples}")
    if method not in METHODS:
        raise InputError(f"expected a method of {', '.join(METHODS)}; got {method!r}")
    game = as_game(v)
    if method == "permutation":
        return _by_orders(key, game, num_players, num_samples, batch_size)
    budget = max(num_samples * (num_players - 1) + 2, 2 * num_players + 2)
    if num_players <= MOST_PLAYERS and budget >= 1 << num_players:
        found = exact(game, num_players, index="SV", order=1, batch_size=batch_size)
    else:
        found = estimate(key, game, num_players, index="SV", order=1, budget=budget, batch_size=batch_size)
    errors = found.standard_errors
    return ShapleyEstimate(
        values=found.values,
        standard_errors=jnp.zeros_like(found.values) if errors is None else errors,
        num_evaluations=jnp.int32(found.num_evaluations),
    )


def _by_orders(key: Array, game: Game, num_players: int, num_samples: int, batch_size: int | None) -> ShapleyEstimate:
    paired = num_samples >= 4 and num_samples % 2 == 0
    draws = num_samples // 2 if paired else num_samples
    orders = jax.vmap(lambda k: jax.random.permutation(k, num_players))(jax.random.split(key, draws))
    if paired:
        orders = jnp.stack([orders, orders[:, ::-1]], axis=1).reshape(num_samples, num_players)
    ranks = jnp.argsort(orders, axis=1).astype(jnp.int32)
    inner = num_players - 1
    count = num_samples * inner + 2
    parts = read_parts(
        game, _prefix, ranks, count=count, num_players=num_players, batch_size=batch_size, max_visible=num_players
    )
    _raise_nan(parts, lambda i: f"for the first {i % inner + 1 if i < count - 2 else 'or last'} of a sampled order")

    def gains(x: Float[Array, "C"]) -> Float[Array, "S P"]:
        paths = x[: num_samples * inner].reshape(num_samples, inner)
        ends = jnp.broadcast_to(x[-2:], (num_samples, 2))
        return jnp.diff(jnp.concatenate([ends[:, :1], paths, ends[:, 1:]], axis=1), axis=1)

    samples = jnp.take_along_axis(parts.combine(gains), ranks, axis=1)
    independent = samples.reshape(draws, -1, num_players).mean(1)
    return ShapleyEstimate(
        values=jnp.mean(samples, axis=0),
        standard_errors=jnp.std(independent, axis=0, ddof=1) / jnp.sqrt(draws),
        num_evaluations=jnp.int32(count),
    )


def _prefix(ranks: Int[Array, "S P"], index: Int[Array, ""]) -> Array:
    """The proper prefixes of each order in turn; the last two rows are nobody and everybody."""
    samples, players = ranks.shape
    inner = max(players - 1, 1)
    size = jnp.where(index < samples * (players - 1), index % inner + 1, players * (index - samples * (players - 1)))
    return ranks[jnp.minimum(index // inner, samples - 1)] < size


def _raise_nan(parts: Parts, describe: Callable[[int], str]) -> None:
    """Raises the error for a NaN among values that can be looked at; `describe` names the coalition of a row."""
    if is_concrete(parts) and bool(jnp.isnan(parts.rest).any()):
        raise nan_error(describe(int(np.argmax(np.isnan(parts.rest)))))
