"""Superpixels of grey images and of images of many channels: they follow the parts that the channels show."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import skimage.data
from PIL import Image
from scipy import ndimage

import jaxmoxi as jm
from jaxmoxi.regions.colours import SPREAD, colours_of
from jaxmoxi.regions.spec import parse_regions

SIDE = 64


def scene(channels, *, seed=0):
    """An image [SIDE, SIDE, channels] of six parts, each of a colour of its own, and the part of each pixel."""
    rng = np.random.default_rng(seed)
    seeds, (y, x) = rng.integers(0, SIDE, (6, 2)), np.mgrid[:SIDE, :SIDE]
    parts = np.argmin((y[..., None] - seeds[:, 0]) ** 2 + (x[..., None] - seeds[:, 1]) ** 2, -1)
    return rng.random((6, channels))[parts] + 0.03 * rng.normal(size=(SIDE, SIDE, channels)), parts


def purity(labels, parts):
    """The share of pixels whose region lies, for its largest part, in their own part."""
    table = np.zeros((labels.max() + 1, parts.max() + 1))
    np.add.at(table, (np.ravel(labels), parts.ravel()), 1)
    return table.max(1).sum() / parts.size


_SLOW = pytest.mark.slow


@pytest.mark.parametrize("channels", [pytest.param(1, marks=_SLOW), 4, pytest.param(30, marks=_SLOW)])
def test_regions_follow_the_parts_and_do_not_depend_on_units(channels):
    image, parts = scene(channels)
    image = image[..., 0] if channels == 1 else image
    labels = np.asarray(jm.slic_regions(image, num_segments=25))
    assert abs(jm.count_regions(labels) - 25) <= 0.15 * 25
    assert all(ndimage.label(labels == k)[1] == 1 for k in range(labels.max() + 1))
    grid = np.asarray(jm.grid_regions(SIDE, SIDE, rows=5, cols=5))
    assert purity(labels, parts) > 0.95 > purity(grid, parts) + 0.04
    for other in (image.astype(np.float32) * 1000 - 7, (image * 20000 + 5000).astype(np.uint16)):
        assert np.mean(jm.slic_regions(other, num_segments=25) == labels) > 0.99
    theirs = np.asarray(jm.slic_regions(image, num_segments=25, backend="skimage"))
    assert purity(theirs, parts) > 0.95
    assert np.mean(np.asarray(jm.region_borders(theirs)) == np.asarray(jm.region_borders(labels))) > 0.85


def test_eager_is_jit_is_vmap_is_a_batch():
    images = np.stack([scene(4, seed=seed)[0] for seed in (0, 1)]).astype(np.float32)
    labels = jm.slic_regions(images, num_segments=25)
    np.testing.assert_array_equal(jax.jit(lambda x: jm.slic_regions(x, num_segments=25))(images), labels)
    np.testing.assert_array_equal(jax.vmap(lambda x: jm.slic_regions(x, num_segments=25))(jnp.asarray(images)), labels)
    np.testing.assert_array_equal(jm.slic_regions(images[1], num_segments=25), labels[1])


def test_copies_of_a_channel_and_constant_ones_change_nothing():
    image, _ = scene(1)
    for more in (image, 0 * image):
        doubled = colours_of(jnp.asarray(np.concatenate([image, more], -1)), "given")
        distance = np.sqrt((np.asarray(doubled) ** 2).sum(0) - 0)
        assert distance.std() > 0
        np.testing.assert_allclose(np.sqrt(np.asarray(doubled).var((1, 2)).sum()), SPREAD, rtol=0.02)
    flat = colours_of(jnp.full((8, 8, 5), 0.1), "given")
    np.testing.assert_array_equal(flat, 0)


def test_a_dead_pixel_does_not_hide_the_rest():
    image = (skimage.data.camera()[::4, ::4] * 40.0).astype(np.uint16)
    dead = image.copy()
    dead[5, 5] = 65535
    a, b = (np.asarray(jm.slic_regions(x, num_segments=40)) for x in (image, dead))
    assert np.mean(np.asarray(jm.region_borders(a)) == np.asarray(jm.region_borders(b))) > 0.95


def test_a_channel_that_drowns_the_others_is_told_and_can_be_made_equal():
    image, parts = scene(4)
    image[..., 3] = 1e4 * np.random.default_rng(1).normal(size=parts.shape)
    with pytest.warns(UserWarning, match=r"channel 3 varies .* times as much as channel \d.*standardised"):
        drowned = jm.slic_regions(image, num_segments=25)
    equal = jm.slic_regions(image, num_segments=25, space="standardised")
    assert purity(np.asarray(equal), parts) > purity(np.asarray(drowned), parts) + 0.02


def test_shapes_that_look_like_channels_first_are_told():
    with pytest.warns(UserWarning, match="taken as 11 x 20 pixels of 24 channels.*moveaxis"):
        jm.slic_regions(np.random.default_rng(0).random((11, 20, 24)), num_segments=4)


def test_pictures_of_pillow_and_specs():
    photo = Image.fromarray(skimage.data.camera()[::8, ::8])
    grey = jm.slic_regions(np.asarray(photo), num_segments=12)
    np.testing.assert_array_equal(jm.slic_regions(photo, num_segments=12), grey)
    np.testing.assert_array_equal(parse_regions("slic:12").label_map(np.asarray(photo)), grey)
    assert parse_regions("grid:2x3").label_map(np.asarray(photo)).max() == 5
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        palette = jm.slic_regions(photo.convert("P"), num_segments=12)  # as RGB, not as numbers of a palette
    assert jm.count_regions(palette) == 12


def test_watershed_of_channels_follows_the_parts():
    image, parts = scene(4)
    assert purity(np.asarray(jm.watershed_regions(image, num_segments=25)), parts) > 0.97
