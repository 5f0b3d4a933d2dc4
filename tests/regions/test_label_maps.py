import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

import jaxmoxi as jm
from jaxmoxi.regions.label_maps import token_players


def test_what_looks_at_labels_says_that_it_cannot_inside_jit():
    labels = jnp.arange(4).reshape(2, 2)
    with pytest.raises(ValueError, match="count_regions needs a label map that is known; call it outside jit"):
        jax.jit(lambda x: jnp.full(3, jm.count_regions(x)))(labels)
    with pytest.raises(ValueError, match="relabel needs a label map that is known; call it outside jit"):
        jax.jit(jm.relabel)(labels)
    with pytest.raises(ValueError, match=r"expected a label map with pixels; got shape \(0, 2\)"):
        jm.count_regions(labels[:0])


def test_grid_that_divides():
    regions = jm.grid_regions(4, 6, rows=2, cols=3)
    assert regions.tolist() == [[0, 0, 1, 1, 2, 2]] * 2 + [[3, 3, 4, 4, 5, 5]] * 2


@pytest.mark.parametrize(("height", "width", "rows", "cols"), [(10, 7, 3, 2), (224, 224, 13, 5), (3, 3, 3, 3)])
def test_grid_that_does_not_divide(height, width, rows, cols):
    regions = np.asarray(jm.grid_regions(height, width, rows=rows, cols=cols))
    assert jm.count_regions(regions) == rows * cols
    boxes = ndimage.find_objects(regions + 1)
    heights = {b[0].stop - b[0].start for b in boxes}
    widths = {b[1].stop - b[1].start for b in boxes}
    assert max(heights) - min(heights) <= 1
    assert max(widths) - min(widths) <= 1
    assert (np.asarray(jm.region_sizes(regions, rows * cols)) == np.bincount(regions.ravel())).all()


def test_visible_pixels():
    regions = jm.grid_regions(2, 4, rows=1, cols=2)
    shown = jm.visible_pixels(jnp.asarray([[True, False], [False, True]]), regions)
    assert shown.tolist() == [[[True, True, False, False]] * 2, [[False, False, True, True]] * 2]


def test_token_players_take_the_majority():
    regions = jnp.asarray([[0, 0, 0, 1], [0, 2, 1, 1], [2, 2, 1, 1], [2, 2, 1, 3]])
    assert token_players(regions, rows=2, cols=2, num_players=4).tolist() == [0, 1, 2, 1]
    grid = jm.grid_regions(12, 12, rows=4, cols=4)
    assert token_players(grid, rows=4, cols=4, num_players=16).tolist() == list(range(16))
    draw = jnp.asarray([[1, 0]])
    assert jax.jit(lambda r: token_players(r, rows=1, cols=1, num_players=2))(draw).tolist() == [0]


def random_regions(seed=0, shape=(7, 9), players=5):
    return np.random.default_rng(seed).integers(0, players, shape).astype(np.int32)


@pytest.mark.parametrize("how", ["mean", "sum", "max", "min"])
@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_pooling_takes_each_players_pixels(how, dtype):
    regions = random_regions(players=4)
    values = np.random.default_rng(1).normal(-5, 9, (7, 9, 2)).astype(dtype)
    pooled = jax.jit(jm.pool_regions, static_argnames=("num_players", "how"))(values, regions, num_players=5, how=how)
    expected = [getattr(values[regions == p], how)(axis=0) for p in range(4)] + [np.zeros(2)]
    np.testing.assert_allclose(pooled, np.stack(expected), rtol=1e-5, atol=1e-6)
    assert pooled.dtype == (np.float32 if how == "mean" else dtype)
    assert jm.pool_regions(values[..., 0], regions, 5, how=how).shape == (5,)


def test_pooling_has_the_means_gradient():
    regions = random_regions()
    gradient = jax.grad(lambda x: jm.pool_regions(x, regions, 6)[2])(jnp.ones((7, 9)))
    np.testing.assert_allclose(gradient, (regions == 2) / np.sum(regions == 2), rtol=1e-6)


def test_adjacency_counts_the_pixels_of_shared_borders():
    regions = random_regions()
    expected = np.zeros((6, 6), int)
    for (y, x), one in np.ndenumerate(regions):
        for other in [*regions[y + 1 : y + 2, x], *regions[y, x + 1 : x + 2]]:
            expected[one, other] += one != other
            expected[other, one] += one != other
    np.testing.assert_array_equal(jm.region_adjacency(regions, 6), expected)
    grid = jm.region_adjacency(jm.grid_regions(6, 8, rows=2, cols=2), 4)
    assert grid.tolist() == [[0, 3, 4, 0], [3, 0, 0, 4], [4, 0, 0, 3], [0, 4, 3, 0]]


def test_borders_are_where_the_next_pixel_is_anothers():
    regions = np.stack([random_regions(seed) for seed in range(2)])
    borders = jm.region_borders(regions)
    for (i, y, x), border in np.ndenumerate(borders):
        others = [*regions[i, y + 1 : y + 2, x], *regions[i, y, x + 1 : x + 2]]
        assert border == any(other != regions[i, y, x] for other in others)
    np.testing.assert_array_equal(jm.region_borders(regions[1]), borders[1])


def test_padding_to_a_common_number_of_players():
    maps = [jm.grid_regions(4, 6, rows=2, cols=2), jm.grid_regions(4, 6, rows=1, cols=3)]
    regions, players = jm.pad_regions(maps)
    np.testing.assert_array_equal(regions, np.stack(maps))
    assert players.tolist() == [[True] * 4, [True] * 3 + [False]]
    assert jm.num_regions(regions).tolist() == [4, 3]
    _, traced = jax.jit(lambda x: jm.pad_regions(x, num_players=5))(regions)
    assert traced.sum(1).tolist() == [4, 3]
    # A player that is nowhere changes nothing.
    masks = jnp.asarray([[True, False, True, True], [True, False, True, False]])
    assert jnp.array_equal(*jm.visible_pixels(masks, regions[1]))


def test_relabel():
    assert jm.relabel(np.array([[7, 7, -1], [3, 7, 3]])).tolist() == [[0, 0, 1], [2, 0, 2]]


@pytest.mark.usefixtures("unchecked")
def test_errors():
    with pytest.raises(ValueError, match=r"1 <= rows <= height .*; got 0 x 3 rectangles on 8 x 8"):
        jm.grid_regions(8, 8, rows=0, cols=3)
    with pytest.raises(ValueError, match="how must be 'mean', 'sum', 'max' or 'min'; got 'median'"):
        jm.pool_regions(np.zeros((8, 8)), np.zeros((8, 8), np.int32), 1, how="median")
    with pytest.raises(ValueError, match="a label map has 3 players, more than num_players = 2"):
        jm.pad_regions([jm.grid_regions(4, 6, rows=1, cols=3)], num_players=2)
    with pytest.raises(ValueError, match=r"one size; got shapes \[\(4, 6\), \(6, 4\)\]"):
        jm.pad_regions([np.zeros((4, 6), int), np.zeros((6, 4), int)])
    with pytest.raises(ValueError, match="is not known; give num_players"):
        jax.jit(lambda x: jm.pad_regions(x))(np.zeros((2, 4, 6), int))
    with pytest.raises(ValueError, match="labels must be 0 .. P-1 without a gap; got 2 labels from 0 to 2"):
        jm.count_regions(np.array([[0, 2]]))
    with pytest.raises(ValueError, match="do not divide into 2 x 2 tokens"):
        token_players(jnp.zeros((3, 4), jnp.int32), rows=2, cols=2, num_players=1)
