"""How groups hold in other games."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmoxi import search
from jaxmoxi.errors import NaNValueError
from support.games import ThresholdGame, table_game


def test_stability_says_where_a_group_holds():
    games = [ThresholdGame(jnp.ones(3), jnp.float32(b)) for b in (-1.5, -0.5, -2.5)]
    held = search.stability(games, np.array([True, True, False]))
    assert held.leads.tolist() == [True, True, False]
    np.testing.assert_allclose(held.values, [0.5, 1.5, -0.5])
    assert float(held.share) == pytest.approx(2 / 3)
    hidden = search.stability(games, np.array([True, True, False]), insertion=False)
    np.testing.assert_allclose(hidden.values, [-0.5, 0.5, -1.5])
    assert search.stability([table_game(3)[0]], np.ones(3, bool)).leads is None
    both = search.stability(games, np.array([[True, True, False], [True, True, True]]))
    assert both.leads.tolist() == [[True, True, False], [True, True, True]]
    np.testing.assert_allclose(both.values[0], held.values)
    np.testing.assert_allclose(both.share, [2 / 3, 1])


def test_results_carry_how_stable_they_are():
    v, *others = [ThresholdGame(jnp.array([3.0, 2.0, 1.0]), jnp.float32(b)) for b in (-2.5, -0.5, -4.5)]
    found = search.minimal_group(v, 3, alternatives=others)
    assert found.group.tolist() == [True, False, False]
    assert found.stability.leads.tolist() == [True, False]
    np.testing.assert_allclose(found.stability.values, [2.5, -1.5])
    assert search.minimal_group(v, 3).stability is None
    assert search.backward_elimination(v, 3, alternatives=others).stability.leads.tolist() == [True, False]
    lost = search.minimal_group(v, 3, insertion=False, alternatives=others)
    np.testing.assert_array_equal(lost.stability.values, [o(~lost.group[None])[0] for o in others])
    beam = search.beam_search(v, 3, num_groups=2, alternatives=others)
    assert beam.minimal.tolist() == [[True, False, False], [False, True, True]]
    assert beam.stability.leads.tolist() == [[True, False], [True, False]]
    both = search.necessary_and_sufficient(v, 3, alternatives=others)
    np.testing.assert_array_equal(both.stability.values, [o(both.group[None])[0] for o in others])

    def hopeless(masks):
        return 0.0 * masks.sum(1)

    with pytest.raises(TypeError, match="shape"):  # before the search, not after it
        search.minimal_group(hopeless, 3, value=1.0, alternatives=[lambda masks: masks @ jnp.ones(4)])
    with pytest.raises(ValueError, match="reach"):
        search.minimal_group(hopeless, 3, value=1.0)


@pytest.mark.usefixtures("unchecked")
def test_a_value_that_is_nan_is_an_error_that_names_the_game():
    group = np.array([True, True, False])
    games = [ThresholdGame(jnp.ones(3), jnp.float32(b)) for b in (-1.5, np.nan)]
    with pytest.raises(NaNValueError, match=r"value function 1 returned NaN for the group \(alone\)"):
        search.stability(games, group)
    with pytest.raises(NaNValueError, match=r"value function 1 returned NaN for group 0 \(hidden\)"):
        search.stability(games, group[None], insertion=False)
    with pytest.raises(NaNValueError, match="value function 0 returned NaN for group 0"):
        search.robust_group(games[:1] * 1, 3, unseen=games[1:])
    leads = jax.jit(lambda biases: search.stability([ThresholdGame(jnp.ones(3), b) for b in biases], group).leads)(
        jnp.array([-1.5, jnp.nan])
    )
    assert leads.tolist() == [True, False]  # nothing can be raised there
    with pytest.raises(ValueError, match="expected vs as a list of value functions; got ThresholdGame"):
        search.stability(games[0], group)
    with pytest.raises(ValueError, match="expected alternatives as a list of value functions; got ThresholdGame"):
        search.minimal_group(games[0], 3, alternatives=games[0])
    with pytest.raises(ValueError, match="batch_size must be at least 1, or None to have it chosen; got 1.5"):
        search.stability(games[:1], group, batch_size=1.5)
