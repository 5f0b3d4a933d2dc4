"""Each corruption against its definition in ImageNet-C, written with NumPy, SciPy, scikit-image or Pillow."""

import io
import math
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
from skimage import color

import jaxmoxi as jm
from jaxmoxi.metrics import CORRUPTIONS, _jpeg, corrupt, corruptions

KEY = jax.random.key(3)
RNG = np.random.default_rng(0)
SMOOTH = ndimage.gaussian_filter(RNG.uniform(0, 255, (45, 38, 3)), (3, 3, 0))
PHOTO = np.uint8(np.clip(128 + 6 * (SMOOTH - 128) + RNG.normal(0, 6, SMOOTH.shape), 0, 255))
SEVERITIES = (1, 2, 3, 4, 5)


def levels(kind, severity, photo=PHOTO):
    out = corrupt(KEY, photo, kind, severity)
    assert (out.shape, out.dtype) == (photo.shape, photo.dtype)
    return np.asarray(out).astype(float)


def near(found, wanted, slack=1.01):
    """Levels are truncated, and what lies at a whole level may fall to either side."""
    assert np.abs(found - np.uint8(np.clip(wanted, 0, 255) + 1e-3)).max() <= slack


@pytest.mark.parametrize("severity", SEVERITIES)
def test_what_draws_nothing_is_the_reference(severity):
    x, s = PHOTO / 255.0, severity - 1
    hsv = color.rgb2hsv(x)
    hsv[..., 2] = np.clip(hsv[..., 2] + (0.1, 0.2, 0.3, 0.4, 0.5)[s], 0, 1)
    near(levels("brightness", severity), 255 * color.hsv2rgb(hsv))
    means = x.mean((0, 1), keepdims=True)
    near(levels("contrast", severity), 255 * ((x - means) * (0.4, 0.3, 0.2, 0.1, 0.05)[s] + means))
    share = (0.6, 0.5, 0.4, 0.3, 0.25)[s]
    small = Image.fromarray(PHOTO).resize((int(38 * share), int(45 * share)), Image.Resampling.BOX)
    np.testing.assert_array_equal(levels("pixelate", severity), small.resize((38, 45), Image.Resampling.BOX))
    radius, sigma = ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5))[s]
    reach, width = (8, 1) if radius <= 8 else (radius, 2)
    grid = np.arange(-reach, reach + 1)
    disk = np.float64(grid[:, None] ** 2 + grid**2 <= radius**2)
    count = disk.sum()
    taps = np.exp(-(np.arange(-width, width + 1) ** 2) / (2 * sigma**2))
    for axis in (0, 1):  # "mirror" is OpenCV's border
        disk = ndimage.correlate1d(disk, taps / taps.sum(), axis, mode="mirror")
    blurred = ndimage.correlate(x, disk[..., None] / count, mode="mirror")
    near(levels("defocus_blur", severity), 255 * blurred)


@pytest.mark.parametrize("size", [(45, 38), (16, 16), (33, 8), (7, 50)])
def test_jpeg_is_pillows(size):
    rows, columns = (np.arange(n) % m for n, m in zip(size, PHOTO.shape, strict=False))
    photo = np.ascontiguousarray(PHOTO[rows][:, columns])
    for severity, quality in enumerate((25, 18, 15, 10, 7), 1):
        for image in (photo, photo[..., :1]):
            file = io.BytesIO()
            Image.fromarray(image.squeeze()).save(file, "JPEG", quality=quality)
            wanted = np.asarray(Image.open(file), float).reshape(image.shape)
            difference = np.abs(levels("jpeg", severity, image) - wanted)
            assert (difference > 2).mean() < 0.02, (severity, image.shape)
            assert difference.mean() < 0.2, (severity, image.shape)


def test_the_tables_of_jpeg_are_pillows():
    for quality in (1, 7, 25, 50, 85, 100):
        file = io.BytesIO()
        Image.fromarray(PHOTO).save(file, "JPEG", quality=quality)
        wanted = Image.open(file).quantization  # pyright: ignore[reportAttributeAccessIssue]
        for i, table in enumerate(_jpeg.tables(quality)):
            np.testing.assert_array_equal(table.ravel(), np.asarray(wanted[i]).ravel())


def test_motion_blur_is_imagemagicks_formula():
    x = PHOTO / 255.0
    for severity, (radius, sigma) in enumerate(((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)), 1):
        angle = float(jax.random.uniform(KEY, (), minval=-45.0, maxval=45.0))
        weights = [math.exp(-(i**2) / (2 * sigma**2)) for i in range(2 * radius + 1)]
        wanted = np.zeros_like(x)
        for i, weight in enumerate(weights):
            dy = math.ceil(i * math.sin(math.radians(angle)) - 0.5)
            dx = math.ceil(i * math.cos(math.radians(angle)) - 0.5)
            rows, columns = np.clip(np.arange(45) + dy, 0, 44), np.clip(np.arange(38) + dx, 0, 37)
            wanted += weight / sum(weights) * x[rows][:, columns]
        near(levels("motion_blur", severity), 255 * wanted)


def test_fog_is_its_formula_over_a_fractal():
    x = PHOTO / 255.0
    for severity, (thickness, decay) in enumerate(((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)), 1):
        clouds = np.asarray(corruptions.plasma(KEY, 64, jnp.float32(decay)))
        np.testing.assert_allclose(clouds, diamond_square(64, decay), atol=2e-5)
        fogged = (x + thickness * clouds[:45, :38, None]) * x.max() / (x.max() + thickness)
        near(levels("fog", severity), 255 * fogged)


def diamond_square(side, decay):
    """The reference's loops, point by point, with the draws of `plasma`."""
    drawn = np.asarray(jax.random.uniform(KEY, (side, side), minval=-1.0, maxval=1.0), np.float64)
    heights, step, wobble = np.zeros((side, side)), side, 100.0
    while step >= 2:
        half = step // 2
        for y in range(0, side, step):
            for x in range(0, side, step):
                corners = [heights[(y + a) % side, (x + b) % side] for a in (0, step) for b in (0, step)]
                heights[y + half, x + half] = np.mean(corners) + wobble**2 * drawn[y + half, x + half]
        for y, x in [(y, x) for y in range(0, side, half) for x in range(0, side, half) if (y + x) // half % 2]:
            around = [
                heights[(y + a) % side, (x + b) % side] for a, b in ((half, 0), (-half, 0), (0, half), (0, -half))
            ]
            heights[y, x] = np.mean(around) + wobble**2 * drawn[y, x]
        step, wobble = half, wobble / decay
    heights -= heights.min()
    return heights / heights.max()


@pytest.mark.parametrize("severity", SEVERITIES)
def test_the_noises_have_their_distributions(severity):
    grey = np.full((120, 100, 3), 102.0, np.float32)  # 0.4
    normal = levels("gaussian_noise", severity, grey) / 255
    scale = (0.08, 0.12, 0.18, 0.26, 0.38)[severity - 1]
    draws = np.random.default_rng(1).normal(0.4, scale, 200_000).clip(0, 1)
    np.testing.assert_allclose([normal.mean(), normal.std()], [draws.mean(), draws.std()], atol=0.01)
    photons = (60, 25, 12, 5, 3)[severity - 1]
    counts = levels("shot_noise", severity, grey) / 255 * photons
    np.testing.assert_allclose(counts, np.round(counts), atol=1e-3)
    wanted = np.random.default_rng(2).poisson(0.4 * photons, 200_000).clip(0, photons)
    found = np.bincount(np.round(counts).astype(int).ravel(), minlength=photons + 1) / counts.size
    np.testing.assert_allclose(found, np.bincount(wanted, minlength=photons + 1) / wanted.size, atol=0.012)
    salted = np.round(levels("impulse_noise", severity, grey))
    share = (0.03, 0.06, 0.09, 0.17, 0.27)[severity - 1]
    np.testing.assert_allclose([(salted == v).mean() for v in (0, 255)], share / 2, atol=0.008)
    assert set(np.unique(salted)) == {0, 102, 255}
    each = (salted != 102).mean((0, 1)), (salted != 102).all(-1).mean()  # channel by channel, not pixel by pixel
    np.testing.assert_allclose(each[0], share, atol=0.012)
    assert each[1] < 3 * share**3 + 0.002


def test_draws_follow_the_key_and_severity_may_be_traced():
    for kind in CORRUPTIONS:
        assert (levels(kind, 2) == levels(kind, 2)).all()
        drawn = kind in ("gaussian_noise", "shot_noise", "impulse_noise", "motion_blur", "fog")
        assert (np.asarray(corrupt(jax.random.key(4), PHOTO, kind, 2)) != levels(kind, 2)).any() == drawn, kind
    five = jax.jit(jax.vmap(lambda severity: corrupt(KEY, PHOTO, "contrast", severity)))(jnp.arange(1, 6))
    for severity, found in zip(SEVERITIES, five, strict=True):
        np.testing.assert_array_equal(found, levels("contrast", severity))
    assert np.isnan(jax.jit(lambda s: corrupt(KEY, np.float32(PHOTO), "fog", s))(6)).all()


def test_more_severe_is_further_from_the_photo_and_floats_are_not_truncated():
    for kind in CORRUPTIONS:
        exact = [np.asarray(corrupt(KEY, np.float32(PHOTO), kind, s)) for s in (1, 5)]
        assert (np.clip(exact, 0, 255) == exact).all()
        far = [np.abs(e - PHOTO).mean() for e in exact]
        assert far[0] < far[1], kind
        np.testing.assert_allclose(levels(kind, 5), exact[1], atol=1.01)


def test_black_photos_have_answers():
    black = np.zeros((9, 9, 3), np.uint8)
    for kind in CORRUPTIONS:
        assert np.isfinite(np.asarray(corrupt(KEY, np.float32(black), kind, 3))).all(), kind
    assert (levels("brightness", 3, black) == 76).all()


@pytest.mark.usefixtures("unchecked")
def test_errors_and_warnings():
    for photo, told in (
        (PHOTO / 127.5 - 1, "from 0 to 255, before it is normalised; got values from -1"),
        (np.full((4, 4, 3), np.nan, np.float32), "from 0 to 255"),
        (PHOTO[..., 0], r"got shape \[45, 38\]"),
        (np.zeros((4, 4, 4), np.uint8), "one or three channels"),
        (PHOTO.astype(np.int32), "uint8, or of floats"),
        (Image.fromarray(PHOTO), r"model.crop\(photo\) makes one"),
    ):
        with pytest.raises(ValueError, match=told):
            corrupt(KEY, photo, "fog", 1)
    for severity in (0, 6, 1.5, True, "2"):
        with pytest.raises(ValueError, match="a severity from 1 to 5"):
            corrupt(KEY, PHOTO, "fog", severity)
    with pytest.raises(ValueError, match=r"a JAX random key first, such as jax.random.key\(0\); got NoneType"):
        corrupt(None, PHOTO, "fog", 1)
    with pytest.raises(ValueError, match="expected a corruption of gaussian_noise, .*; got 'snow'"):
        corrupt(KEY, PHOTO, "snow", 1)
    with pytest.warns(UserWarning, match="give 255 \\* photo"):
        corrupt(KEY, np.float32(PHOTO / 255), "contrast", 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        corrupt(KEY, PHOTO, "contrast", 1)
    assert jm.metrics.corrupt is corrupt
