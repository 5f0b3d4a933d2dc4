"""What each member of a group adds, against the values of a table."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmoxi as jm
from jaxmoxi import search
from support.games import index, table_game


@pytest.mark.parametrize("insertion", [True, False])
def test_a_member_adds_what_is_lost_without_it(insertion):
    v, table = table_game(6, 3)
    group = np.array([1, 0, 1, 1, 0, 0], bool)
    told = search.member_values(v, group, insertion=insertion)
    everyone, members = set(range(6)), {0, 2, 3}
    for player in range(6):
        without = members - {player}
        shown = [index(group if insertion else everyone - group) for group in (members, without)]
        lost = (table[shown[0]] - table[shown[1]]) * (1 if insertion else -1)
        assert float(told[player]) == pytest.approx(float(lost) if player in members else 0.0)
    assert not np.asarray(search.member_values(v, np.zeros(6, bool))).any()


def test_errors():
    v, _ = table_game(3)
    with pytest.raises(jm.InputError, match="outside jit"):
        jax.jit(lambda group: search.member_values(v, group))(jnp.ones(3, bool))
    with pytest.raises(jm.NaNValueError, match=r"for the group \[0, 1, 2\] \(alone\)"):
        search.member_values(lambda masks: masks.sum(1) * jnp.nan, np.ones(3, bool))
