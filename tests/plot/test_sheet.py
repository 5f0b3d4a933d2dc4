"""Many predictions on one sheet."""

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from jaxmoxi.p2p import plot
from jaxmoxi.plot.strokes import fade
from support.sparse import PHOTOS, SIDE, make_prediction, save, texts_cut_off


def test_a_contact_sheet():
    figure = plot.contact_sheet(
        PHOTOS, make_prediction(), labels=np.array([1, 1, 1]), class_names=("cat", "dog"), columns=2, title="three"
    )
    assert len(figure.axes) == 4
    titles = [axes.get_title() for axes in figure.axes[:3]]
    assert titles == ["dog, 90 %  ·  50 % seen", "cat, 75 %  ·  25 % seen", "dog, 98 %  ·  25 % seen"]
    colours = [to_rgb(axes.title.get_color()) for axes in figure.axes[:3]]
    assert colours[0] == colours[2] != colours[1]
    pair = np.asarray(figure.axes[1].images[0].get_array())
    np.testing.assert_array_equal(pair[:, :SIDE], PHOTOS[1])
    mask = np.asarray(make_prediction().pixel_mask[1])
    np.testing.assert_array_equal(pair[:, -SIDE:], np.where(mask[..., None], PHOTOS[1], 0))
    assert not figure.axes[3].axison
    assert not texts_cut_off(figure)
    save(figure)
    with pytest.raises(ValueError, match=r"expected images \[B, H, W, 3\] and their prediction at one certainty"):
        plot.contact_sheet(PHOTOS[:2], make_prediction())
    with pytest.raises(ValueError, match=r"expected labels int\[3\]; got shape \[2\]"):
        plot.contact_sheet(PHOTOS, make_prediction(), labels=np.array([0, 1]))
    with pytest.raises(ValueError, match="columns must be at least 1; got 0"):
        plot.contact_sheet(PHOTOS, make_prediction(), columns=0)


def test_what_was_hidden_is_grey_and_names_stand_above():
    names = ("a.png", "a long name of a photo from a camera.png" * 2, "two\nlines $x$")
    figure = plot.contact_sheet(
        PHOTOS, make_prediction(), labels=np.array([1, 1, -1]), class_names=("cat", "dog" * 30), names=names,
        hidden="grey",
    )  # fmt: skip
    seen = np.asarray(make_prediction().pixel_mask[1])
    drawn = np.asarray(figure.axes[1].images[0].get_array())
    np.testing.assert_array_equal(drawn[seen], PHOTOS[1][seen])
    np.testing.assert_array_equal(drawn[~seen], fade(PHOTOS[1], 0.75)[~seen])
    titles = [axes.get_title().split("\n") for axes in figure.axes]
    assert [len(lines) for lines in titles] == [2, 3, 2]  # the third says the label of what is wrong
    assert titles[0][0] == "a.png"
    assert titles[1][1] == "cat, 75 %  ·  25 % seen"
    assert titles[1][2].startswith("true: dogdog")
    assert titles[2][0] == r"two lines \$x\$"
    colours = [to_rgb(axes.title.get_color()) for axes in figure.axes]
    assert len(set(colours)) == 3  # right, wrong, not known
    assert not texts_cut_off(figure)
    widths = [axes.title.get_window_extent().width for axes in figure.axes]
    assert max(widths) < figure.bbox.width / 3  # none runs into its neighbour
    save(figure)
    for change, message in (
        ({"names": names[:2]}, "expected 3 names, one for each image; got 2"),
        ({"columns": 0}, "columns must be at least 1; got 0"),
    ):
        with pytest.raises(ValueError, match=message):
            plot.contact_sheet(PHOTOS, make_prediction(), **change)
