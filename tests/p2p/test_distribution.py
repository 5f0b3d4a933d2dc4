"""The distribution over subsets of superpixels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmoxi.p2p import distribution
from jaxmoxi.p2p.training import losses

RNG = np.random.default_rng(0)
REGIONS = jnp.asarray([[[0, 0, 1], [2, 2, 2]], [[1, 1, 1], [1, 3, 3]]], jnp.int32)


def test_group_means_and_shares():
    x = jnp.asarray(RNG.normal(size=(2, 2, 3, 4)), jnp.float32)
    means, shares = distribution.group_means(x, REGIONS, 5)
    for b in range(2):
        for g in range(5):
            inside = np.asarray(REGIONS[b]) == g
            np.testing.assert_allclose(shares[b, g], inside.mean(), rtol=1e-6)
            expected = np.asarray(x[b])[inside].mean(0) if inside.any() else np.zeros(4)
            np.testing.assert_allclose(means[b, g], expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(distribution.group_means(x, REGIONS, 2)[1].sum(1), [0.5, 4 / 6], rtol=1e-6)


def test_samples_have_the_distribution():
    mu = jnp.asarray([[0.5, -1.0, 2.0]])
    embeddings = jnp.asarray([[[1.0, 0.0], [1.0, 0.5], [0.0, -2.0]]])
    samples = distribution.sample_logits(jax.random.key(0), mu, embeddings, 40000)[:, 0]
    np.testing.assert_allclose(samples.mean(0), mu[0], atol=0.03)
    np.testing.assert_allclose(np.cov(samples.T), distribution.covariance(embeddings)[0], atol=0.08)


def test_like_embeddings_are_kept_together():
    samples = distribution.sample_logits(jax.random.key(1), jnp.zeros((1, 2)), jnp.full((1, 2, 1), 50.0), 200)[:, 0] > 0
    np.testing.assert_array_equal(samples[:, 0], samples[:, 1])
    assert 60 < samples[:, 0].sum() < 140


@pytest.mark.parametrize("temperature", [0.1, 1.0, 3.0])
def test_relaxed_samples_exceed_a_half_as_often_as_the_probability_says(temperature):
    logits = jnp.asarray([-2.0, 0.0, 1.0])
    samples = distribution.sample_relaxed(jax.random.key(0), jnp.tile(logits, (40000, 1)), temperature)
    np.testing.assert_allclose((samples > 0.5).mean(0), jax.nn.sigmoid(logits), atol=0.01)
    assert ((samples >= 0) & (samples <= 1)).all()  # 1 - exp(-20) is 1 in float32


def test_straight_through_is_hard_forward_and_relaxed_backward():
    logits, key = jnp.asarray([-1.0, 0.3, 2.0]), jax.random.key(3)

    def total(logits, hard):
        return jnp.sum(distribution.sample_relaxed(key, logits, 0.7, hard=hard) * jnp.arange(1.0, 4.0))

    hard = distribution.sample_relaxed(key, logits, 0.7, hard=True)
    soft = distribution.sample_relaxed(key, logits, 0.7)
    np.testing.assert_allclose(hard, soft > 0.5, atol=1e-6)
    np.testing.assert_allclose(jax.grad(total)(logits, True), jax.grad(total)(logits, False), rtol=1e-5)


def test_groups_without_pixels_are_never_kept():
    kept = distribution.most_likely(jnp.asarray([[3.0, 3.0, -1.0]]), jnp.asarray([[0.5, 0.0, 0.5]]))
    assert kept.tolist() == [[True, False, False]]


def test_over_pixels():
    groups = jnp.asarray([[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]])  # [1, B, G]; label 3 has no group
    np.testing.assert_array_equal(
        distribution.over_pixels(groups, REGIONS), [[[[1, 1, 2], [3, 3, 3]], [[5, 5, 5], [5, 0, 0]]]]
    )
    kept = distribution.over_pixels(jnp.asarray([[True, False, True], [False, True, True]]), REGIONS)
    assert kept.dtype == bool
    assert kept[1].tolist() == [[True, True, True], [True, False, False]]


@pytest.mark.parametrize("regulariser", ["kl", "l1"])
def test_nothing_is_paid_below_the_threshold(regulariser):
    kept = jnp.asarray([0.1, 0.3])
    assert losses.sparsity_penalty(kept, 0.3, regulariser) == 0
    above = losses.sparsity_penalty(kept + 0.1, jnp.asarray([0.3, 0.3]), regulariser)
    np.testing.assert_allclose(above, 0.05 if regulariser == "l1" else np.log(0.7 / 0.6) / 2, rtol=1e-4)
    assert np.isfinite(losses.sparsity_penalty(jnp.ones(1), 1.0, regulariser))
    gradient = jax.grad(lambda k: losses.sparsity_penalty(k, 0.3, regulariser))(jnp.asarray([0.2, 1.0]))
    assert gradient[0] == 0
    assert 0 < gradient[1] < np.inf
