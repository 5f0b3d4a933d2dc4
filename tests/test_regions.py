import jax
import jax.numpy as jnp
import numpy as np
import pytest
import skimage.data
from scipy import ndimage

import jaxmoxi as jm
from jaxmoxi.regions import token_players


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


def test_slic_regions_are_compact_connected_and_deterministic():
    photo = skimage.data.chelsea()[:120, :160]
    regions = jm.slic_regions(photo, num_segments=40)
    count = jm.count_regions(regions)
    assert 25 <= count <= 55
    first = np.unique(np.asarray(regions), return_index=True)[1]
    assert (np.diff(first) > 0).all()  # raster order
    for label in range(count):
        assert ndimage.label(np.asarray(regions) == label)[1] == 1
    np.testing.assert_array_equal(regions, jm.slic_regions(photo, num_segments=40))
    floats = jm.slic_regions(photo / np.float32(255), num_segments=40)
    assert np.mean(floats == regions) > 0.99  # the same colours, rounded elsewhere


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


def test_relabel():
    assert jm.relabel(np.array([[7, 7, -1], [3, 7, 3]])).tolist() == [[0, 0, 1], [2, 0, 2]]


@pytest.mark.usefixtures("unchecked")
def test_errors():
    with pytest.raises(ValueError, match=r"1 <= rows <= height .*; got 0 x 3 rectangles on 8 x 8"):
        jm.grid_regions(8, 8, rows=0, cols=3)
    with pytest.raises(ValueError, match="num_segments must be at least 1; got 0"):
        jm.slic_regions(np.zeros((8, 8, 3), np.uint8), num_segments=0)
    with pytest.raises(ValueError, match="compactness must be positive"):
        jm.slic_regions(np.zeros((8, 8, 3), np.uint8), compactness=0.0)
    with pytest.raises(ValueError, match=r"colour photo \[H, W, 3\]; got shape \(8, 8\)"):
        jm.slic_regions(np.zeros((8, 8), np.uint8))
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\].* pass the photo before normalisation"):
        jm.slic_regions(np.full((8, 8, 3), -1.5))
    with pytest.raises(ValueError, match="labels must be 0 .. P-1 without a gap; got 2 labels from 0 to 2"):
        jm.count_regions(np.array([[0, 2]]))
    with pytest.raises(ValueError, match="do not divide into 2 x 2 tokens"):
        token_players(jnp.zeros((3, 4), jnp.int32), rows=2, cols=2, num_players=1)
