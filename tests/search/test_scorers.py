"""Guesses: gradients of gates, attention, stale gains."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmoxi as jm
from jaxmoxi import search
from support.search import GatedLinear, games, tiny_model


@pytest.fixture(scope="module")
def tiny():
    return tiny_model()


@pytest.mark.parametrize("insertion", [True, False])
def test_gradients_are_exact_in_a_linear_game(insertion):
    v = GatedLinear(jnp.asarray(np.random.default_rng(0).normal(size=60), jnp.float32))
    best = np.argsort(-v.weights, kind="stable")
    found = search.backward_forward_order(v, 60, insertion=insertion)
    np.testing.assert_array_equal(found.order, best)
    assert int(found.num_gradients) == 29  # two go at a time while there are 48 or more
    assert int(found.num_evaluations) <= 24 * 25 / 2 + 3 * 36
    for scorer, gradients in ((None, 59), ("gradient", 60)):  # mixed knows all gains from the first step
        screened = search.screened_greedy(v, 60, insertion=insertion, scorer=scorer)
        np.testing.assert_array_equal(screened.greedy.order, best)
        assert (int(screened.num_missed), int(screened.num_gradients)) == (0, gradients)
        assert int(screened.num_audits) == 6  # after 1, 3, 6, 12, 24 and 48 players
    front = (
        jm.greedy_insertion(v, 60, stop=jm.Stop(size=4)) if insertion else jm.greedy_deletion(v, 60, stop=jm.Stop(4))
    )
    np.testing.assert_array_equal(search.complete_order(v, front).order, best)


def test_gates_of_zero_and_one_are_masks(tiny):
    for v, players in games(tiny):
        masks = jax.random.bernoulli(jax.random.key(1), 0.4, (6, players)).at[0].set(False)
        np.testing.assert_allclose(relaxed(v, masks.astype(jnp.float32)), jm.evaluate(v, masks), atol=2e-5)


relaxed = jax.jit(lambda v, gates: v.relaxed(gates))


def one_sided_slope(v, gates, player, sign, step=1e-3):
    """From inside [0, 1], of second order."""
    here, near, far = (float(relaxed(v, gates.at[player].add(sign * h)[None])[0]) for h in (0.0, step, 2 * step))
    return sign * (4 * near - far - 3 * here) / (2 * step)


def test_gate_gradient_is_the_derivative(tiny):
    for v, players in games(tiny):
        mask = jnp.arange(players) % 3 == 0
        gradient = search.gate_gradient(v, mask)
        for player in (0, 1, players - 1):
            slope = one_sided_slope(v, mask.astype(jnp.float32), player, -1.0 if mask[player] else 1.0)
            assert float(gradient[player]) == pytest.approx(slope, rel=0.05, abs=0.05)


def test_class_attention_is_a_share(tiny):
    scores = search.class_attention(*tiny)
    assert scores.shape == (16,)
    assert 0 < float(scores.sum()) < 1
    with pytest.raises(ValueError, match="vision transformer"):
        search.class_attention(object(), tiny[1])
