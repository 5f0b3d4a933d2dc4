"""`grid:RxC` and `slic:N`: what they mean, and what is said of other texts."""

import numpy as np
import pytest
import skimage.data

import jaxmoxi as jm
from jaxmoxi.regions.spec import parse_regions

PHOTO = skimage.data.chelsea()[:60, :80]


@pytest.mark.parametrize("text", ["grid:3x4", "slic:12"])
def test_a_text_means_a_label_map_and_is_written_back(text):
    spec = parse_regions(text)
    assert (str(spec), spec.count) == (text, 12)
    expected = jm.grid_regions(60, 80, rows=3, cols=4) if text[0] == "g" else jm.slic_regions(PHOTO, num_segments=12)
    np.testing.assert_array_equal(spec.label_map(PHOTO), expected)
    assert jm.count_regions(spec.label_map(PHOTO)) <= spec.count


@pytest.mark.parametrize(
    "text", ["", "grid:3", "grid:0x3", "grid:3x0", "grid:-1x3", "slic:0", "slic:", "slic:3x3", "hex:3", " slic:3"]
)
def test_other_texts_are_refused_with_an_example(text):
    with pytest.raises(ValueError, match=r"expected regions of grid:ROWSxCOLUMNS or slic:COUNT; got .*grid:14x14"):
        parse_regions(text)


def test_a_grid_finer_than_the_photo_is_refused_once_there_is_a_photo():
    with pytest.raises(ValueError, match="61 x 1 rectangles on 60 x 80 pixels"):
        parse_regions("grid:61x1").label_map(PHOTO)
