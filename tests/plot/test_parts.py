"""The picture of a group: what it shows and says."""

import matplotlib.text
import numpy as np
import pytest

import jaxmoxi as jm
from jaxmoxi.regions.label_maps import grid_regions

PHOTO = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
REGIONS = grid_regions(20, 30, rows=2, cols=3)  # players 0 1 2 above 3 4 5
GROUP = np.array([1, 0, 1, 0, 0, 1], bool)


def texts(figure):
    figure.draw_without_rendering()
    return [t.get_text() for t in figure.findobj(matplotlib.text.Text) if t.get_text()]


def test_it_numbers_and_names_the_pieces():
    said = texts(jm.plot.group_parts(PHOTO, REGIONS, GROUP, title="a dog"))
    assert {"a dog", "3 regions in 2 pieces, 50 % of the image", "1", "2"} <= set(said)
    assert "1: 2 regions, 33 %; 2: 1 region, 17 %" in " ".join(said).replace(";  ", "; ")
    together = texts(jm.plot.group_parts(PHOTO, REGIONS, np.arange(6) < 2))
    assert "2 regions in 1 piece, 33 % of the image" in together
    assert "1" not in together
    many = texts(jm.plot.group_parts(np.zeros((9, 9)), np.arange(81).reshape(9, 9), np.arange(81) % 2 == 0))
    assert any("and 35 more" in text for text in many)


@pytest.mark.parametrize(("adds", "most", "least"), [([1, 9, 2, 9, 9, 4], 4, 0), ([-3, 9, 2, 9, 9, 1], 3, -3)])
def test_the_heat_is_of_members_alone(adds, most, least):
    figure = jm.plot.group_parts(PHOTO, REGIONS, GROUP, adds=np.array(adds, float), quantity="logit")
    panel = next(axes for axes in figure.axes if axes.get_title() == "what each adds to the logit")
    heat = panel.images[-1]
    inside = GROUP[np.asarray(REGIONS)]
    np.testing.assert_array_equal(np.asarray(heat.get_alpha()) > 0, inside)
    np.testing.assert_array_equal(np.asarray(heat.get_array())[inside], np.array(adds)[np.asarray(REGIONS)][inside])
    assert (heat.norm.vmin, heat.norm.vmax) == (least, most)
    background = np.asarray(panel.images[0].get_array())
    assert (background[..., 0] == background[..., 1]).all()  # grey: no colour outside the group


def test_errors():
    with pytest.raises(jm.InputError, match=r"adds float\[6\]"):
        jm.plot.group_parts(PHOTO, REGIONS, GROUP, adds=np.ones(5))
    with pytest.raises(jm.InputError, match=r"finite numbers in adds.*\[2\]"):
        jm.plot.group_parts(PHOTO, REGIONS, GROUP, adds=np.array([1, np.nan, np.nan, 1, 1, 1]))
    with pytest.raises(jm.InputError, match=r"a group bool\[6\]"):
        jm.plot.group_parts(PHOTO, REGIONS, GROUP[:3])
