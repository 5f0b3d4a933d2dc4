"""Superpixels of photos: what they are like, and what is said of inputs that are no photo."""

import jax
import numpy as np
import pytest
import skimage.data
import skimage.segmentation
from PIL import Image
from scipy import ndimage

import jaxmoxi as jm


def check_partition(labels):
    labels = np.asarray(labels)
    count = jm.count_regions(labels)
    assert (np.diff(np.unique(labels, return_index=True)[1]) > 0).all()  # raster order
    assert all(ndimage.label(labels == label)[1] == 1 for label in range(count))
    return count


@pytest.mark.parametrize("backend", ["jax", "skimage"])
def test_slic_regions_are_compact_connected_and_deterministic(backend):
    photo = skimage.data.chelsea()[:120, :160]
    regions = jm.slic_regions(photo, num_segments=40, backend=backend)
    assert 25 <= check_partition(regions) <= (40 if backend == "jax" else 55)
    np.testing.assert_array_equal(regions, jm.slic_regions(photo, num_segments=40, backend=backend))
    np.testing.assert_array_equal(regions, jm.slic_regions(Image.fromarray(photo), num_segments=40, backend=backend))
    floats = jm.slic_regions(photo / np.float32(255), num_segments=40, backend=backend)
    assert np.mean(np.asarray(floats == regions)) > 0.99  # the same colours, rounded elsewhere


def test_scikit_images_options_are_passed_on():
    photos = np.stack([skimage.data.chelsea()[:60, :80], skimage.data.chelsea()[100:160, 100:180]])
    ours = jm.slic_regions(
        photos, num_segments=20, compactness=3, num_iterations=2, enforce_connectivity=False, backend="skimage"
    )
    for photo, regions in zip(photos, ours, strict=True):
        theirs = skimage.segmentation.slic(
            photo, n_segments=20, compactness=3.0, max_num_iter=2, enforce_connectivity=False, start_label=0
        )
        np.testing.assert_array_equal(regions, jm.relabel(theirs))


def test_watershed_regions_have_their_borders_on_edges():
    photo = np.full((40, 60, 3), 30, np.uint8)
    photo[:, 33:] = (200, 180, 30)
    photo[:18] //= 3
    regions = np.asarray(jm.watershed_regions(np.stack([photo, photo[::-1]]), num_segments=4, compactness=0.0))
    assert check_partition(regions[0]) == check_partition(regions[1]) == 4
    assert np.mean(regions[0] == (np.arange(60) >= 33) + 2 * (np.arange(40)[:, None] >= 18)) > 0.95
    squarer = jm.watershed_regions(photo, num_segments=4, compactness=1e4)
    assert np.mean(np.asarray(squarer == jm.grid_regions(40, 60, rows=2, cols=2))) > 0.95


@pytest.mark.usefixtures("unchecked")
def test_errors():
    with pytest.raises(ValueError, match="num_segments must be at least 1; got 0"):
        jm.slic_regions(np.zeros((8, 8, 3), np.uint8), num_segments=0)
    with pytest.raises(ValueError, match="compactness must be positive"):
        jm.slic_regions(np.zeros((8, 8, 3), np.uint8), compactness=0.0)
    with pytest.raises(ValueError, match="num_iterations must be at least 1; got 0"):
        jm.slic_regions(np.zeros((8, 8, 3), np.uint8), num_iterations=0)
    with pytest.raises(ValueError, match="backend must be 'jax' or 'skimage'; got 'fast'"):
        jm.slic_regions(np.zeros((8, 8, 3), np.uint8), backend="fast")
    for shape in ((8,), (0, 8, 8, 3), (1, 2, 8, 8, 3)):
        with pytest.raises(ValueError, match=r"\[H, W\] or \[H, W, C\], or a batch .*; got shape \("):
            jm.slic_regions(np.zeros(shape, np.uint8))
    with pytest.raises(ValueError, match=r'uint8, or of floats in \[0, 1\]; got int64: .*space="given"'):
        jm.slic_regions(np.zeros((8, 8, 3), np.int64))
    with pytest.raises(ValueError, match="CIELAB is of three channels.*got 4"):
        jm.slic_regions(np.zeros((8, 8, 4)), space="lab")
    with pytest.raises(ValueError, match="'lab', 'given', 'standardised' or None; got 'rgb'"):
        jm.slic_regions(np.zeros((8, 8, 3)), space="rgb")
    with pytest.raises(ValueError, match="64 of 128 are NaN or infinite"):
        jm.slic_regions(np.stack([np.zeros((8, 8)), np.full((8, 8), np.nan)], -1))
    with pytest.raises(ValueError, match="integers or floats; got complex128"):
        jm.slic_regions(np.zeros((8, 8), complex))
    with pytest.raises(ValueError, match=r"on the host, outside of jit and vmap; got a traced image"):
        jax.jit(lambda x: jm.slic_regions(x, backend="skimage"))(np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(ValueError, match="num_segments must be at least 1; got -1"):
        jm.watershed_regions(np.zeros((8, 8, 3), np.uint8), num_segments=-1)
    with pytest.raises(ValueError, match="compactness must be at least 0; got -1"):
        jm.watershed_regions(np.zeros((8, 8, 3), np.uint8), compactness=-1.0)
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\].* pass the photo before normalisation"):
        jm.slic_regions(np.full((8, 8, 3), -1.5))
