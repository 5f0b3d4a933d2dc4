import jax.numpy as jnp
import numpy as np
import pytest

from jaxmoxi import metrics


def gini_by_pairs(x):
    x = np.abs(np.asarray(x, np.float64))
    return np.abs(x[:, None] - x[None]).sum() / (2 * len(x) * x.sum())


@pytest.mark.parametrize("seed", range(4))
def test_sparseness_is_the_mean_difference_of_pairs(seed):
    scores = np.random.default_rng(seed).normal(size=12)
    np.testing.assert_allclose(metrics.sparseness(scores), gini_by_pairs(scores), rtol=1e-5)
    p = np.abs(scores) / np.abs(scores).sum()
    np.testing.assert_allclose(metrics.complexity(scores), -(p * np.log(p)).sum(), rtol=1e-5)


@pytest.mark.usefixtures("unchecked")
def test_the_ends():
    one = jnp.zeros(8).at[3].set(-2.0)
    assert float(metrics.sparseness(one)) == pytest.approx(1 - 1 / 8)
    assert float(metrics.complexity(one)) == 0
    assert float(metrics.sparseness(jnp.full(8, 0.3))) == pytest.approx(0, abs=1e-6)
    assert float(metrics.complexity(jnp.full(8, 0.3))) == pytest.approx(np.log(8))
    assert np.isnan(metrics.sparseness(jnp.zeros(8)))
    assert np.isnan(metrics.complexity(jnp.zeros(8)))
    assert float(metrics.sparseness(jnp.ones(1))) == 0
    assert float(metrics.sparseness(jnp.asarray([1e38, 3e38, 3e38]))) == pytest.approx(gini_by_pairs([1, 3, 3]))
    with pytest.raises(ValueError, match=r"scores float32\[P\] of one explanation; got shape \(2, 3\)"):
        metrics.sparseness(jnp.zeros((2, 3)))
