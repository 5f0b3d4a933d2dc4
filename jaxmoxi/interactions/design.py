"""Which coalitions an estimate evaluates: pairs of a coalition and its complement, for few players never one twice.

The first are nobody and everybody, then every player alone and all but every player. Then come pairs of a coalition
and its complement: their size is drawn by `weights`, the coalition uniformly among those of the size. A game's odd and
even interactions cannot disturb each other in a fit to such pairs (antithetic sampling). The coalition of an index does
not depend on how many are drawn, so that an estimate can be continued.
"""

from __future__ import annotations

from math import comb
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxmoxi.interactions.exact import MOST_PLAYERS


class Design(NamedTuple):
    """What coalitions are made from: `rows` of a table for up to 20 players, else draws from a key.

    rows:       int32[budget], the coalitions as numbers of a table's rows; None above 20 players.
    key:        the key of the drawn coalitions; None where there are rows.
    cumulative: float32[P + 1], the probability of a size or a smaller one; None where there are rows.
    players:    int32[P].
    """

    rows: Int[Array, "budget"] | None
    key: Any
    cumulative: Float[Array, "P1"] | None
    players: Int[Array, "P"]


def draw(key: Any, num_players: int, budget: int, weights: Float[np.ndarray, "P1"]) -> Design:
    """The design of this key; `weights` float[P + 1] are the shares of the sizes 0 to P, symmetric."""
    players = jnp.arange(num_players, dtype=jnp.int32)
    if num_players <= MOST_PLAYERS:
        return Design(_distinct_rows(key, num_players, weights)[:budget], None, None, players)
    inner = weights.copy()
    inner[[0, 1, -2, -1]] = 0
    cumulative = np.cumsum(inner / inner.sum())
    return Design(None, key, jnp.asarray(cumulative, jnp.float32), players)


def coalition(design: Design, index: Int[Array, ""]) -> Bool[Array, "P"]:
    """The coalition of an index, bool[P]."""
    if design.rows is not None:
        return (design.rows[index] >> design.players) & 1 == 1
    if design.cumulative is None:
        raise TypeError("a design has rows, or draws by cumulative shares of the sizes")
    count = design.players.shape[0]
    pair, second = index // 2, index % 2 == 1
    draws = jax.random.split(jax.random.fold_in(design.key, pair))
    size = jnp.searchsorted(design.cumulative, jax.random.uniform(draws[0]), side="right")
    places = jax.random.uniform(draws[1], (count,))
    drawn = places < jnp.sort(places)[jnp.clip(size, 1, count - 1)]
    core = design.players == pair - 1  # pair 0 is nobody, pair i + 1 player i
    return jnp.where(pair <= count, core, drawn) ^ second


def _distinct_rows(key: Any, num_players: int, weights: np.ndarray) -> Int[Array, "rows"]:
    """All rows of a table, in the order in which pairs are drawn one after the other without replacement.

    The order of log(weight) + Gumbel noise is that of such draws (Yellott, 1977).
    """
    half = 1 << (num_players - 1)
    sizes = np.bitwise_count(np.arange(half))
    smaller = np.minimum(sizes, num_players - sizes)
    chance = np.array([weights[s] / comb(num_players, s) for s in range(num_players + 1)])
    score = jnp.asarray(np.log(chance[sizes]), jnp.float32) + jax.random.gumbel(key, (half,))
    order = jnp.lexsort((-score, jnp.asarray(np.minimum(smaller, 2), jnp.int32)))
    return jnp.stack([order, 2 * half - 1 - order], axis=1).reshape(-1).astype(jnp.int32)
