"""The smallest groups of several images, in one loop."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh

import jaxmoxi as jm
from jaxmoxi import search
from support.games import ThresholdGame, lookup
from support.interactions import GAMES
from support.search import any_game, tiny_model

WEIGHTS = jnp.arange(1.0, 7.0)


def test_images_together_are_images_in_turn_whoever_their_company_is():
    games = [any_game(7, seed, -1.0)[0] for seed in range(6)]
    found = search.minimal_groups(games[:4], 7)
    assert found.group.shape == (4, 7)
    for i, game in enumerate(games[:4]):
        jax.tree.map(lambda x, y, i=i: np.testing.assert_array_equal(x[i], y), found, search.minimal_group(game, 7))
    others = search.minimal_groups([games[5], games[2], games[4], games[0]], 7)
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(x[1::2], y[2::-2]), others, found)


@pytest.mark.slow
@pytest.mark.parametrize("insertion", [True, False])
def test_games_of_a_classifier_end_at_their_smallest_group(insertion):
    """Games of a ViT whose every value is known: of nine players the search misses no minimum of these."""
    level = float(np.mean([(table[0] + table[-1]) / 2 for table in GAMES]))
    tables = [t for t in GAMES if (t[-1] >= level) and (t[0] < level)]
    found = search.minimal_groups(
        [jax.tree_util.Partial(lookup, table) for table in tables], 9, value=level, insertion=insertion
    )
    sizes = np.array([i.bit_count() for i in range(512)])
    for i, table in enumerate(tables):
        alone = search.minimal_group(jax.tree_util.Partial(lookup, table), 9, value=level, insertion=insertion)
        jax.tree.map(lambda x, y, i=i: np.testing.assert_array_equal(x[i], y), found, alone)
        smallest = sizes[table >= level].min() if insertion else (9 - sizes[table <= level]).min()
        assert int(found.size[i]) == smallest


@pytest.mark.slow
def test_images_on_the_devices_of_a_mesh():
    games = [any_game(7, seed, -1.0)[0] for seed in range(5)]
    mesh = Mesh(np.array(jax.devices()[:2]), ("images",))
    spread = search.minimal_groups(games, 7, mesh=mesh)
    jax.tree.map(np.testing.assert_array_equal, spread, search.minimal_groups(games, 7))


def test_an_image_without_a_group_is_told_and_ends_nobody_elses_search():
    games = [ThresholdGame(WEIGHTS, jnp.float32(b)) for b in (-2.5, -200, -12)]
    with pytest.warns(UserWarning, match="no group reaches the goal in image 1 of 3"):
        found = search.minimal_groups(games, 6)
    assert found.enough.tolist() == [True, False, True]
    assert found.size.tolist() == [1, 6, 3]
    np.testing.assert_allclose(found.value[1], 21 - 200)


def test_a_nan_names_its_image_and_keeps_the_others():
    games = [ThresholdGame(WEIGHTS, jnp.float32(b)) for b in (-2.5, jnp.nan, -12)]
    with pytest.raises(jm.errors.NaNValueError, match=r"image 1 returned NaN for the group \[\] \(alone\)") as error:
        search.minimal_groups(games, 6)
    assert error.value.result.enough.tolist() == [True, False, True]
    assert error.value.result.size.tolist() == [1, 0, 3]


@pytest.mark.slow
def test_images_of_a_model_share_its_weights_and_its_forward_passes():
    model, image = tiny_model()
    images = [image, image[::-1], image[:, ::-1]]
    vs = [jm.token_value_fn(model, x, 2) for x in images]
    levels = dict(probability=0.25, budget=60)
    found = search.minimal_groups(vs, 16, **levels)
    for i, v in enumerate(vs):
        alone = search.minimal_group(v, 16, **levels)
        np.testing.assert_array_equal(found.group[i], alone.group)
        np.testing.assert_allclose(found.value[i], alone.value, rtol=1e-4, atol=1e-5)
    mesh = Mesh(np.array(jax.devices()[:2]), ("coalitions",))
    sharded = search.minimal_groups([jm.shard_coalitions(v, mesh) for v in vs], 16, **levels)
    np.testing.assert_array_equal(sharded.group, found.group)
    pixels = [jm.pixel_value_fn(model.logits, x, 2, jm.grid_regions(32, 32, rows=3, cols=3)) for x in images]
    several = jax.jit(lambda vs: search.minimal_groups(vs, 9, **levels))(pixels)
    for i, v in enumerate(pixels):
        np.testing.assert_array_equal(several.group[i], search.minimal_group(v, 9, **levels).group)
