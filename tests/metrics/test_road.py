import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmoxi as jm
from jaxmoxi.metrics import noisy_linear_imputation, road_curve

KEY = jax.random.key(0)
REGIONS = jm.grid_regions(6, 6, rows=2, cols=3)  # six players of six pixels
IMAGE = jnp.zeros((6, 6, 3)).at[:3, :2].set(1.0)  # player 0 is bright


def brightness(images):
    """Two classes, of which the first leads where the image is bright: logits 100 (mean - 1/30), 0."""
    mean = images.mean((1, 2, 3))
    return jnp.stack([100 * (mean - 1 / 30), jnp.zeros_like(mean)], 1)


def test_by_hand():
    order = jnp.array([0, 1, 2, 3, 4, 5])
    first = road_curve(KEY, brightness, IMAGE, 0, REGIONS, order, shares=(0.0, 0.2, 0.5, 1.0), noise=0.0)
    # Player 0 goes first: all that is left is dark, and imputed dark. The whole image's mean is 1/6.
    np.testing.assert_allclose(first.probabilities, 1 / (1 + np.exp([-40 / 3, 10 / 3, 10 / 3, 10 / 3])), rtol=1e-5)
    assert first.leads.tolist() == [True, False, False, False]
    np.testing.assert_allclose(first.shares, np.float32([0, 0.2, 0.5, 1]))
    last = road_curve(
        KEY, brightness, IMAGE, 0, REGIONS, order, shares=(0.5, 0.8), most_relevant_first=False, noise=0.0
    )
    assert last.leads.tolist() == [True, True]  # the bright one is still there, and shines into the others
    assert (last.probabilities > first.probabilities[0]).all()


def test_is_classification_of_the_imputed_images():
    order = np.array([3, 0, 5, 1, 2, 4])
    image = jnp.asarray(np.random.default_rng(0).normal(size=(6, 6, 3)), jnp.float32)
    shares = (1 / 6, 0.5, 0.7)
    for flag, removed in [(True, ([3], [3, 0, 5], [3, 0, 5, 1])), (False, ([4], [4, 2, 1], [4, 2, 1, 5]))]:
        hidden = jnp.stack([jnp.isin(REGIONS, jnp.array(players)) for players in removed])
        images = jax.vmap(noisy_linear_imputation, in_axes=(0, None, 0))(jax.random.split(KEY, 3), image, hidden)
        expected = jax.nn.softmax(brightness(images))[:, 1]
        found = road_curve(KEY, brightness, image, 1, REGIONS, order, shares=shares, most_relevant_first=flag)
        np.testing.assert_allclose(found.probabilities, expected, atol=1e-5)
        np.testing.assert_array_equal(found.leads, expected > 0.5)


def test_shares_are_of_the_pixels():
    regions = jnp.zeros((4, 4), jnp.int32).at[0, 0].set(1).at[0, 1].set(2)  # 14, 1 and 1 pixels

    def count_kept(images):  # one channel holds the pixels' own numbers, which imputation changes
        kept = (images == numbers).all(-1).sum((1, 2)).astype(jnp.float32)
        return jnp.stack([kept, jnp.zeros_like(kept)], 1)

    numbers = jnp.asarray(np.random.default_rng(1).normal(size=(4, 4, 3)), jnp.float32)
    found = road_curve(KEY, count_kept, numbers, 0, regions, jnp.array([1, 0, 2]), shares=(0.1, 0.49, 0.5, 0.97))
    logits = jnp.log(found.probabilities / (1 - found.probabilities))
    np.testing.assert_allclose(jnp.round(logits), [15, 15, 1, 0], atol=0.5)


def test_eager_is_jit_is_vmap():
    orders = jnp.stack([jnp.arange(6), jnp.arange(6)[::-1]])

    def one(order):
        return road_curve(KEY, brightness, IMAGE, 0, REGIONS, order, shares=(0.3, 0.6))

    eager = jax.tree.map(lambda *x: jnp.stack(x), *[one(order) for order in orders])
    batched = jax.jit(jax.vmap(one))(orders)
    np.testing.assert_allclose(eager.probabilities, batched.probabilities, rtol=1e-4)
    np.testing.assert_array_equal(eager.leads, batched.leads)


@pytest.mark.usefixtures("unchecked")
def test_errors():
    order = jnp.arange(6)
    with pytest.raises(ValueError, match="an order of the 6 regions; got one of 5 players"):
        road_curve(KEY, brightness, IMAGE, 0, REGIONS, jnp.arange(5))
    with pytest.raises(ValueError, match="permutation of the players 0 .. 5"):
        road_curve(KEY, brightness, IMAGE, 0, REGIONS, order.at[0].set(3))
    for shares in ((0.5, 1.2), (), 0.5):
        with pytest.raises(ValueError, match=r"shares of the image to remove, numbers in \[0, 1\]; got"):
            road_curve(KEY, brightness, IMAGE, 0, REGIONS, order, shares=shares)
    with pytest.raises(ValueError, match="noise must be at least 0"):
        road_curve(KEY, brightness, IMAGE, 0, REGIONS, order, noise=-0.1)
    with pytest.raises(ValueError, match=r"expected one image \[H, W, channels\]"):
        road_curve(KEY, brightness, IMAGE[None], 0, REGIONS, order)
