import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxmoxi.metrics import order_agreement, top_k_overlap


def orders(count, players=9):
    rng = np.random.default_rng(players)
    return [rng.permutation(players).astype(np.int32) for _ in range(count)]


def test_by_hand():
    # Ranks 0 1 2 against 1 0 2: two of three pairs agree, and the squares of the distances sum to 2.
    found = order_agreement(jnp.array([0, 1, 2]), jnp.array([1, 0, 2]))
    np.testing.assert_allclose(found, [1 / 3, 1 - 6 * 2 / (3 * 8)], rtol=1e-6)
    same, reverse = order_agreement(jnp.arange(5), jnp.arange(5)), order_agreement(jnp.arange(5), jnp.arange(5)[::-1])
    np.testing.assert_allclose([*same, *reverse], [1, 1, -1, -1], rtol=1e-6)
    assert np.isnan(order_agreement(jnp.array([0]), jnp.array([0]))).all()


@pytest.mark.parametrize("players", [2, 9, 196])
def test_are_scipys(players):
    a, b = orders(2, players)
    ranks = np.argsort(a), np.argsort(b)
    found = order_agreement(a, b)
    np.testing.assert_allclose(found.kendall_tau, stats.kendalltau(*ranks).statistic, atol=1e-6)
    np.testing.assert_allclose(found.spearman_rho, stats.spearmanr(*ranks).statistic, atol=1e-6)
    assert found.kendall_tau.dtype == found.spearman_rho.dtype == jnp.float32


def test_many_players_do_not_overflow():
    found = order_agreement(jnp.arange(3000), jnp.arange(3000)[::-1])
    np.testing.assert_allclose(found, [-1, -1], rtol=1e-5)


def test_overlap_by_hand():
    a, b = jnp.array([4, 2, 0, 1, 3]), jnp.array([2, 3, 4, 0, 1])
    assert [float(top_k_overlap(a, b, k, how="share")) for k in (1, 2, 5)] == [0, 0.5, 1]
    np.testing.assert_allclose([top_k_overlap(a, b, k) for k in (1, 2, 3, 5)], [0, 1 / 3, 2 / 4, 1], rtol=1e-6)


def test_eager_is_jit_is_vmap():
    a, b = jnp.stack(orders(3)), jnp.stack(orders(6)[3:])
    for f in (order_agreement, lambda x, y: top_k_overlap(x, y, 4)):
        eager = jax.tree.map(lambda *x: jnp.stack(x), *[f(x, y) for x, y in zip(a, b, strict=True)])
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-6), eager, jax.jit(jax.vmap(f))(a, b))


@pytest.mark.usefixtures("unchecked")
def test_errors():
    a = jnp.arange(3)
    with pytest.raises(ValueError, match=r"permutation of the players 0 .. 2; 2 of them are missing: a search that"):
        order_agreement(a, jnp.array([0, -1, -1]))
    with pytest.raises(ValueError, match=r"an order int\[P\]; got float32 of shape \[3\]"):
        order_agreement(a, jnp.ones(3))
    with pytest.raises(ValueError, match="orders of the same players; got 3 and 4 of them"):
        order_agreement(a, jnp.arange(4))
    for k in (0, 4, 1.0, True):
        with pytest.raises(ValueError, match=f"k must be a whole number from 1 to the 3 players; got {k}"):
            top_k_overlap(a, a, k)
    with pytest.raises(ValueError, match="how must be 'jaccard' or 'share'; got 'dice'"):
        top_k_overlap(a, a, 1, how="dice")
