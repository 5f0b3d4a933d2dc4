"""What is drawn of images that are no uint8[H, W, 3], and what is asked for instead of guessed."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxmoxi import plot
from jaxmoxi.regions.label_maps import grid_regions

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (8, 10), dtype=np.uint8)
BANDS = RNG.integers(200, 4000, (8, 10, 11)).astype(np.uint16)


def test_grey_images_are_drawn_grey():
    for photo in (GREY, GREY[..., None], GREY / 255, jnp.asarray(GREY[..., None] / np.float32(255))):
        np.testing.assert_array_equal(plot.picture(photo), np.repeat(GREY[..., None], 3, -1))
    np.testing.assert_array_equal(plot.picture(GREY > 100)[..., 1], 255 * (GREY > 100))


def test_channels_are_those_asked_for():
    photo = np.stack([GREY, GREY // 2, GREY // 3, GREY // 4], -1)
    np.testing.assert_array_equal(plot.picture(photo, channels=(2, 0, None)), np.stack([GREY // 3, GREY, 0 * GREY], -1))
    np.testing.assert_array_equal(plot.picture(photo, channels=3), np.repeat((GREY // 4)[..., None], 3, -1))


def test_stretch_is_a_window_or_each_channels_own():
    window = plot.picture(BANDS, channels=4, stretch=(1000, 2000))[..., 0]
    np.testing.assert_array_equal(window, np.round(255 * ((BANDS[..., 4] - 1000.0) / 1000).clip(0, 1)))
    own = plot.picture(BANDS * np.array([1, 10, *[1] * 9]), channels=(0, 1, 2), stretch=True)
    assert (own.min((0, 1)) == 0).all()
    assert (own.max((0, 1)) == 255).all()
    assert not plot.picture(np.full((4, 4), 7, np.int32), stretch=True).any()


@pytest.mark.parametrize(
    ("photo", "options", "message"),
    [
        (BANDS, {}, r"11 channels can be drawn in many ways: say channels=\(red, green, blue\), three of 0 \.\. 10"),
        (BANDS[..., :4], {}, "four may be red, green, blue and transparency, or infrared"),
        (BANDS[..., :2], {}, "2 channels can be drawn in many ways"),
        (BANDS, dict(channels=11), r"channels=i, or .* of 0 \.\. 10.*got 11"),
        (BANDS, dict(channels=(0, 1)), r"got \(0, 1\)"),
        (BANDS, dict(channels=(1, 2, 3)), r"floats in \[0, 1\]; got uint16 from .*stretch=True"),
        (GREY.astype(int), {}, r"got int64 .*photo.astype\(numpy.uint8\), if 255 is white"),
        (GREY.astype(float), {}, r"got float64 from .*photo / 255, if 255 is white"),
        (GREY - 128.0, {}, "got float64 from -12"),
        (np.where(GREY > 9, np.nan, 0), {}, "NaN or infinite: replace them"),
        (GREY[None, ..., None], {}, r"one photo to draw.*shape \(1, 8, 10, 1\)"),
        (GREY, dict(stretch=(5, 5)), "black < white"),
        (GREY.astype(complex), {}, "complex128"),
    ],
)
def test_what_would_have_to_be_guessed_is_refused(photo, options, message):
    with pytest.raises(ValueError, match=message):
        plot.picture(photo, **options)


def test_every_figure_takes_them():
    regions, options = grid_regions(8, 10, rows=2, cols=2), dict(channels=(7, 3, 2), stretch=True)
    expected = plot.picture(BANDS, **options)
    figures = [
        plot.heatmap(BANDS, regions, [1, 2], **options),
        plot.group(BANDS, regions, [1, 2, 0, 3], **options),
        plot.groups(BANDS, regions, np.eye(4, dtype=bool)[0], **options),
        plot.interactions(BANDS, regions, np.ones((4, 4)), **options),
    ]
    for figure in figures[1:3]:
        np.testing.assert_array_equal(figure.axes[0].images[0].get_array(), expected)
    with pytest.raises(ValueError, match="channels first"):
        plot.group(np.moveaxis(BANDS, -1, 0), regions, [1])
