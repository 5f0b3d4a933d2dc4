"""Which tokens of a row are there, without a sort: accelerators sort slowly, and compile sorts slowly."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int


def first_true(shown: Bool[Array, "C T"], count: int) -> tuple[Int[Array, "C m"], Bool[Array, "C m"]]:
    """(places, there): where the first `count` True of each row stand, in their order.

    A row with fewer has False in `there` behind them, and some place or other in `places`. The plain form is
    `jnp.argsort(~shown, axis=1, stable=True)[:, :count]`. Place j is the number of places with at most j True up to and
    including them: `C * count * T` comparisons, which are not stored.
    """
    so_far = jnp.cumsum(shown, axis=1, dtype=jnp.int32)
    wanted = jnp.arange(count, dtype=jnp.int32)
    places = jnp.sum(so_far[:, None, :] <= wanted[:, None], axis=2, dtype=jnp.int32)
    return jnp.minimum(places, shown.shape[1] - 1), wanted < so_far[:, -1:]
