"""Games with every value known, for tests of interactions."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

_FILE = Path(__file__).parents[1] / "interactions" / "image-games-9.npz"
GAMES = [jnp.asarray(values) for values in np.load(_FILE, allow_pickle=False)["values"]]


def table_of(n, seed=0):
    """A game of n players, float64[2^n], in which every set adds something."""
    return np.random.default_rng(seed + n).normal(size=1 << n)


def game_of(table):
    """The value function of a table."""
    n = len(table).bit_length() - 1

    def value(table, masks):
        return table[masks.astype(jnp.int32) @ (1 << jnp.arange(masks.shape[1]))]

    assert n
    return jax.tree_util.Partial(value, table)
