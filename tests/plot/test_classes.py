"""What a model does with each class, drawn."""

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from jaxmoxi import p2p
from jaxmoxi.p2p import plot
from jaxmoxi.plot.strokes import FLIP
from support.sparse import PHOTOS, REGIONS, make_prediction, save, texts_cut_off

NAMES = ("cat $", "dog, hound")


@pytest.fixture
def summaries():
    return p2p.by_class(PHOTOS, make_prediction(), labels=[1, 1, -1])


def test_where_it_looks(summaries):
    figure = plot.class_maps(summaries, class_names=NAMES, title="maps")
    maps = [figure.axes[i] for i in (0, 3)]  # two examples of the first class, one of the second
    np.testing.assert_array_equal(maps[0].images[0].get_array(), summaries[0].kept_map)
    np.testing.assert_array_equal(maps[1].images[0].get_array(), summaries[1].kept_map)
    assert [axes.get_ylabel() for axes in maps] == ["dog\n2 photos", "dog (predicted)\n1 photo"]
    assert maps[0].images[0].get_clim() == maps[1].images[0].get_clim() == (0, 1)
    assert not figure.axes[5].axison  # the second class has one example
    assert not texts_cut_off(figure)
    save(figure)


def test_how_much_it_needs(summaries):
    figure = plot.class_shares(summaries, class_names=NAMES)
    (axes,) = figure.axes
    assert [t.get_text() for t in axes.get_yticklabels()] == ["dog (predicted), 1 photo", "dog, 2 photos"]
    dots = [line for line in axes.lines if line.get_marker() == "o" and len(line.get_xdata())]
    shown = {to_rgb(line.get_color()): sorted(line.get_xdata()) for line in dots}
    assert shown[to_rgb(FLIP)] == [25]  # the dog that is taken for a cat
    assert not [text for text in texts_cut_off(figure) if not text.isdecimal()]  # ticks beyond the end are not drawn
    save(figure)
    for draw in (plot.class_maps, plot.class_shares):
        with pytest.raises(ValueError, match="expected the summaries of `p2p.by_class`"):
            draw([])


def test_parts_of_each_image():
    result, regions = make_prediction(), np.stack([REGIONS] * 3)
    figure = plot.parts(PHOTOS, regions, result, num_parts=(1, 2), names=["a", "b $", "c"])
    assert len(figure.axes) == 12
    assert [axes.get_title() for axes in figure.axes[1:3]] == ["1 part", "2 parts"]
    painted = np.asarray(figure.axes[2].images[1].get_array())
    np.testing.assert_array_equal(painted[:8, :8], painted[8:, 8:])  # groups 0 and 3 have like embeddings
    assert (painted[0, 0] != painted[0, 15]).any()
    assert not figure.axes[9].axison
    assert not texts_cut_off(figure)
    save(figure)
    with pytest.raises(ValueError, match=r"embedding_size=0. has no embeddings"):
        plot.parts(PHOTOS, regions, make_prediction(width=0))
    with pytest.raises(ValueError, match=r"expected images \[B, H, W, 3\], regions \[B, H, W\]"):
        plot.parts(PHOTOS, REGIONS, result)
    with pytest.raises(ValueError, match="expected 3 names"):
        plot.parts(PHOTOS, regions, result, names=["a"])
