import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxmoxi.attribution import order_of
from jaxmoxi.metrics import order_agreement, score_agreement, top_k_overlap, top_k_score_overlap


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


def tied_scores(seed, players=196, zeros=136):
    """Unrelated scores, most of them clipped to zero."""
    rng = np.random.default_rng(seed)
    scores = rng.random(players).astype(np.float32)
    scores[rng.permutation(players)[:zeros]] = 0
    return scores


@pytest.mark.parametrize("make", [tied_scores, lambda s: np.float32(np.random.default_rng(s).integers(0, 5, 40))])
def test_scores_with_ties_are_scipys_tau_b_and_mid_ranks(make):
    a, b = make(1), make(2)
    found = score_agreement(a, b)
    np.testing.assert_allclose(found.kendall_tau, stats.kendalltau(a, b).statistic, atol=1e-6)
    np.testing.assert_allclose(found.spearman_rho, stats.spearmanr(a, b).statistic, atol=1e-6)


def test_ties_alone_are_no_agreement():
    """Orders by index make 0.22 of 136 zeros that unrelated scores share a part of."""
    seeds = range(0, 40, 2)
    by_index = [order_agreement(*(np.argsort(-tied_scores(s), kind="stable") for s in (i, i + 1))) for i in seeds]
    by_score = [score_agreement(tied_scores(i), tied_scores(i + 1)) for i in seeds]
    assert np.mean([found.kendall_tau for found in by_index]) > 0.15
    assert abs(np.mean([found.kendall_tau for found in by_score])) < 0.03
    broken = [
        order_agreement(*(order_of(tied_scores(s), ties=jax.random.key(s)) for s in (i, i + 1))).kendall_tau
        for i in seeds
    ]
    assert abs(np.mean(broken)) < 0.03


def test_scores_without_ties_agree_as_their_orders():
    scores = [np.random.default_rng(i).normal(size=30).astype(np.float32) for i in (1, 2)]
    both = [np.argsort(-s) for s in scores]
    np.testing.assert_allclose(score_agreement(*scores), order_agreement(*both), atol=1e-6)
    for k in (1, 7, 30):
        np.testing.assert_allclose(top_k_score_overlap(*scores, k), top_k_overlap(*both, k), rtol=1e-6)
    big = [np.float32([np.inf, 1e38, -1e38, -np.inf, 1e-45]), np.float32([5, 4, 2, 1, 3])]
    np.testing.assert_allclose(score_agreement(*big), [1, 1], rtol=1e-6)


def test_scores_that_are_all_equal_rank_nothing():
    flat, other = np.zeros(5, np.float32), np.arange(5, dtype=np.float32)
    assert np.isnan(score_agreement(flat, other)).all()
    assert np.isnan(score_agreement(flat, flat)).all()
    # They overlap with anything as chance does: 2 of 5.
    for x in (flat, other):
        np.testing.assert_allclose(top_k_score_overlap(flat, x, 2, how="share"), 2 / 5, rtol=1e-6)


def test_overlap_of_ties_is_that_of_ties_broken_at_random():
    a, b, k = np.float32([3, 1, 1, 1, 0, 0]), np.float32([2, 2, 0, 2, 0, 1]), 3
    drawn = [
        top_k_overlap(order_of(a, ties=jax.random.key(i)), order_of(b, ties=jax.random.key(1000 + i)), k, how="share")
        for i in range(300)
    ]
    np.testing.assert_allclose(top_k_score_overlap(a, b, k, how="share"), np.mean(drawn), atol=0.03)


def test_scores_eager_is_jit_is_vmap():
    a, b = (jnp.stack([tied_scores(s, 20, 9) for s in seeds]) for seeds in ((1, 2, 3), (4, 5, 6)))
    for f in (score_agreement, lambda x, y: top_k_score_overlap(x, y, 14)):
        eager = jax.tree.map(lambda *x: jnp.stack(x), *[f(x, y) for x, y in zip(a, b, strict=True)])
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-6), eager, jax.jit(jax.vmap(f))(a, b))
        assert np.isnan(jax.tree.leaves(jax.jit(f)(a[0].at[2].set(jnp.nan), b[0]))).all()


@pytest.mark.usefixtures("unchecked")
def test_errors_of_scores():
    a = jnp.arange(3.0)
    with pytest.raises(ValueError, match=r"expected scores float\[P\], one a player; got int32 of shape \[3\]: orders"):
        score_agreement(a, jnp.arange(3))
    with pytest.raises(ValueError, match="scores of the same players; got 3 and 4 of them"):
        top_k_score_overlap(a, jnp.arange(4.0), 1)
    with pytest.raises(ValueError, match="the score of player 1 is NaN"):
        score_agreement(a, a.at[1].set(jnp.nan))
    with pytest.raises(ValueError, match="k must be a whole number from 1 to the 3 players; got 4"):
        top_k_score_overlap(a, a, 4)
