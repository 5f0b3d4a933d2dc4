"""Groups that are necessary and sufficient."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxmoxi import search
from support.search import TableGame, any_game, enough, everybody, number


@pytest.mark.parametrize("seed", range(4))
def test_necessary_and_sufficient_is_both_and_minimal(seed):
    v, table = any_game(7, seed)
    both = lambda g: enough(table, g) and enough(table, g, False)  # noqa: E731
    found = search.necessary_and_sufficient(v, 7, budget=500)
    assert both(found.group)
    assert int(found.size) == min(g.sum() for g in everybody(7) if both(g))
    assert float(found.value) == table[number(found.group)]


def test_necessary_and_sufficient_at_a_level():
    """Far from 0: the group alone is to be above it and the others below, and the search is drawn to neither side."""
    table = any_game(7, 1)[1]
    shifted = TableGame(jnp.asarray(table + np.float32(50)))
    found = search.necessary_and_sufficient(shifted, 7, value=50.0, budget=500)
    both = lambda g: table[number(g)] >= 0 >= table[number(~g)]  # noqa: E731
    assert both(np.asarray(found.group))
    assert int(found.size) == min(g.sum() for g in everybody(7) if both(g))
