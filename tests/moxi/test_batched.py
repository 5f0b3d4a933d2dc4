"""Several images at once answer as they do one by one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmoxi as jm
from jaxmoxi.games.base import as_game
from jaxmoxi.models.networks.vit import VisionTransformerConfig
from jaxmoxi.moxi.batched import split_games
from support.games import ThresholdGame, lookup, table_game, vit_classifier

CONFIG = VisionTransformerConfig(
    image_size=40, patch_size=8, hidden_size=32, num_layers=2, num_heads=2, mlp_dim=64, num_classes=5
)
FIND = {True: jm.greedy_insertion, False: jm.greedy_deletion}


@pytest.fixture(scope="module")
def games():
    model = vit_classifier(CONFIG)
    images = jnp.asarray(np.random.default_rng(1).normal(size=(3, 40, 40, 3)), jnp.float32)
    return [jm.token_value_fn(model, image, target) for target, image in enumerate(images)]


@pytest.mark.parametrize("insertion", [True, False])
@pytest.mark.parametrize("devices", [None, 2, 8])
def test_orders_are_those_of_single_searches(games, insertion, devices):
    mesh = None if devices is None else jax.make_mesh((devices,), ("images",), devices=jax.devices()[:devices])
    many = jm.greedy_images(games, 25, insertion=insertion, mesh=mesh)
    assert many.order.shape == (3, 25)
    for i, game in enumerate(games):
        one = FIND[insertion](game, 25)
        np.testing.assert_array_equal(many.order[i], one.order)
        np.testing.assert_allclose(many.values[i], one.values, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(many.start_probability[i], one.start_probability, rtol=1e-4)
    assert many.num_evaluations.tolist() == [325] * 3


def test_each_image_stops_for_itself():
    games = [ThresholdGame(jnp.arange(6.0), jnp.float32(bias)) for bias in (-4.5, -8.5, -11.5, 1.0)]
    many = jm.greedy_images(games, 6, stop=jm.Stop(flip=True))
    assert many.num_steps.tolist() == [1, 2, 3, 0]
    assert many.order.tolist() == [[5, -1, -1, -1, -1, -1], [5, 4] + [-1] * 4, [5, 4, 3] + [-1] * 3, [-1] * 6]
    assert jm.greedy_images(games, 6, stop=jm.Stop(size=2)).num_steps.tolist() == [2] * 4


def test_a_batch_of_one_and_any_batch_size():
    v, _ = table_game(5)
    expected = jm.greedy_insertion(v, 5)
    for batch_size in (None, 1, 3, 64):
        many = jm.greedy_images([v], 5, batch_size=batch_size)
        np.testing.assert_array_equal(many.order, expected.order[None])
        np.testing.assert_array_equal(many.values, expected.values[None])


def test_weights_are_not_copied(games):
    shared, own, merge = split_games([as_game(v) for v in games])
    weights = {id(leaf) for leaf in jax.tree.leaves(games[0].model)}
    assert weights <= {id(leaf) for leaf in shared}
    assert all(leaf.shape[0] == 3 for leaf in own)
    again = merge(shared, [leaf[1] for leaf in own])
    for a, b in zip(jax.tree.leaves(again), jax.tree.leaves(as_game(games[1])), strict=True):
        np.testing.assert_array_equal(a, b)


def test_other_images_compile_nothing():
    traces = []

    def v(params, masks):
        traces.append(masks.shape)
        return masks @ params

    def run(seed):
        rows = np.random.default_rng(seed).normal(size=(3, 6)).astype(np.float32)
        return jm.greedy_images([jax.tree_util.Partial(v, jnp.asarray(row)) for row in rows], 6).order

    first = run(0)
    count = len(traces)
    assert count > 0
    assert run(1).tolist() != first.tolist()
    assert len(traces) == count


def test_errors():
    v, _ = table_game(4)
    with pytest.raises(ValueError, match="expected at least one value function; got none"):
        jm.greedy_images([], 4)
    with pytest.raises(ValueError, match="one structure and the same shapes; number 1 differs from number 0"):
        jm.greedy_images([v, table_game(5)[0]], 4)
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        jm.greedy_images([v], 4, batch_size=0)
    rest = jnp.asarray([0.0, 1, 2, 3, 4, 5, 6, 7, 1, 2, 3, 4, 5, 6, 7, 8])
    bad = jax.tree_util.Partial(lookup, rest.at[5].set(jnp.nan))  # players 0 and 2
    with pytest.raises(jm.NaNValueError, match="of image 1 returned NaN at step 2, for player 0") as e:
        jm.greedy_images([jax.tree_util.Partial(lookup, rest), bad], 4)
    assert e.value.result.order[1].tolist() == [2, -1, -1, -1]
