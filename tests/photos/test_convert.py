"""Greys of every depth are neither black nor white by mistake, and what was assumed is told."""

import io
import warnings

import numpy as np
import pytest
from PIL import Image

from jaxmoxi.files import PhotoWarning, read_photo, to_rgb
from jaxmoxi.models.preprocess import Preprocessing, crop_photo
from support.photos import frames, png48, ramp, tiff

GREY = ramp()
AS_IS = Preprocessing(crop=GREY.shape)


def told(call, *args, **options):
    """(what a call returns, the texts of its warnings)."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        out = call(*args, **options)
    return out, [str(w.message) for w in caught if issubclass(w.category, PhotoWarning)]


@pytest.mark.parametrize("dtype", [np.uint16, np.int32])
@pytest.mark.parametrize(
    ("scale", "words"),
    [(257, []), (1, ["no further than 240", "8 bits deep (white is 255)", "white=LEVEL"]), (16, ["12 bits", "4095"])],
)
def test_deep_greys_in_memory_keep_their_brightness(dtype, scale, words):
    image = Image.fromarray(GREY.astype(dtype) * scale)
    assert image.mode.startswith("I")
    for make in (to_rgb, lambda photo: crop_photo(photo, AS_IS)):
        rgb, notes = told(make, image)
        np.testing.assert_allclose(np.asarray(rgb)[..., 0], GREY, atol=1)
        assert len(notes) == bool(words)
        assert all(word in notes[0] for word in words)


def test_fourteen_bits_are_told_and_the_level_of_white_can_be_given():
    image = Image.fromarray(GREY.astype(np.uint16) * 64)
    rgb, notes = told(to_rgb, image)
    assert np.asarray(rgb).max() < 64
    assert "makes a dark photo" in notes[0]
    rgb, notes = told(to_rgb, image, white=16383)
    np.testing.assert_allclose(np.asarray(rgb)[..., 0], GREY, atol=1)
    assert notes == []


@pytest.mark.parametrize(
    ("image", "white"),
    [
        (Image.fromarray((GREY / 255).astype(np.float32)), 1),
        (Image.fromarray(GREY // 8), 31),
        (Image.fromarray(np.stack([GREY // 8] * 3, -1)), 31),
        (Image.fromarray(GREY.astype(np.int32) * 1000), 255_000),
    ],
)
def test_white_serves_every_depth(image, white):
    rgb, notes = told(to_rgb, image, white=white)
    np.testing.assert_allclose(np.asarray(rgb)[..., 1], GREY, atol=9 if white == 31 else 1)
    assert notes == []


def test_levels_that_cannot_be():
    floats = Image.fromarray(np.full((2, 2), np.nan, np.float32))
    for image, white, message in [
        (Image.new("F", (2, 2)), None, "floating-point greys .* white=LEVEL"),
        (floats, 1.0, "finite greys; got NaN"),
        (Image.new("I", (2, 2), -5), None, "0 to 65535; got -5 to -5.* white=LEVEL"),
        (Image.new("L", (2, 2)), 0, "white is the level .* above 0; got 0"),
        (Image.new("La", (2, 2)), None, "got mode La"),
    ]:
        with pytest.raises(ValueError, match=message):
            to_rgb(image, white=white)


@pytest.mark.parametrize("shape", [(20, 30), (20, 30, 3)])
def test_zeros_and_ones_are_black_and_white(shape):
    array = (np.random.default_rng(0).random(shape) < 0.3).astype(np.uint8)
    rgb, notes = told(crop_photo, array, AS_IS)
    expected = 255 * (array if array.ndim == 3 else np.stack([array] * 3, -1))
    np.testing.assert_array_equal(rgb, expected)
    assert len(notes) == 1
    assert "0 and 1 alone, so 1 is taken as white" in notes[0]
    if array.ndim == 2:  # True is white: nothing is assumed
        rgb, notes = told(crop_photo, array.astype(bool), AS_IS)
        np.testing.assert_array_equal(rgb, expected)
        assert notes == []


def test_what_stays_black_is_told(tmp_path):
    dark = np.stack([GREY.astype(int) * 16] * 3, -1)  # 12 bits in a PNG of 48: Pillow reads the upper 8 of 16
    (tmp_path / "48.png").write_bytes(png48(dark))
    rgb, notes = told(read_photo, tmp_path / "48.png")
    assert np.asarray(rgb).max() == 15
    assert "48.png: the image is nearly black" in notes[0]
    rgb, notes = told(read_photo, tmp_path / "48.png", white=15)
    np.testing.assert_allclose(np.asarray(rgb)[..., 0], GREY, atol=17)
    assert notes == []
    assert told(to_rgb, Image.new("RGB", (2, 2)))[1] == ["every pixel of the image is black"]
    assert told(to_rgb, Image.new("I", (2, 2)))[1] == ["every pixel of the image is black"]


def test_what_a_file_states_is_not_guessed(tmp_path):
    (tmp_path / "12.tif").write_bytes(tiff(GREY.astype(int) * 16, bits=12))
    (tmp_path / "negative.tif").write_bytes(tiff(65535 - GREY.astype(int) * 257, white_is_zero=True))
    (tmp_path / "12.pgm").write_bytes(b"P5 30 20 4095\n" + (GREY.astype(int) * 16).astype(">u2").tobytes())
    for name in ("12.tif", "negative.tif", "12.pgm"):
        rgb, notes = told(read_photo, tmp_path / name)
        np.testing.assert_allclose(np.asarray(rgb)[..., 0], GREY, atol=1, err_msg=name)
        assert notes == []


def test_a_transparent_grey_of_16_bits_becomes_white():
    file = io.BytesIO()
    Image.fromarray(GREY.astype(np.uint16) * 257).save(file, "PNG", transparency=0)
    rgb = np.asarray(to_rgb(Image.open(file)))[..., 0]
    np.testing.assert_array_equal(rgb, np.where(GREY == 0, 255, GREY))


@pytest.mark.parametrize(
    ("name", "format", "kind", "options"),
    [
        ("a.gif", "GIF", "frames", {}),
        ("a.webp", "WEBP", "frames", {"lossless": True}),
        ("a.png", "PNG", "frames", {}),
        ("a.tif", "TIFF", "pages", {}),
        ("b.tif", "TIFF", "pages", {"compression": "tiff_lzw"}),
    ],
)
def test_the_first_of_several_frames_is_told(tmp_path, name, format, kind, options):
    (tmp_path / name).write_bytes(frames(format, **options))
    small = Preprocessing(resize=(4, 4))
    for make in (lambda: read_photo(tmp_path / name), lambda: crop_photo(Image.open(tmp_path / name), small)):
        rgb, notes = told(make)
        assert np.asarray(rgb)[0, 0].tolist() == [255, 0, 0]
        assert len(notes) == 1
        assert f"the image has 2 {kind}, and the first is read alone" in notes[0]
    image = Image.open(tmp_path / name)
    image.seek(1)  # the caller has chosen
    rgb, notes = told(crop_photo, image, small)
    assert rgb[0, 0].tolist() == [0, 0, 255]
    assert notes == []


def test_conversion_in_bands_is_that_of_the_whole(monkeypatch):
    rng = np.random.default_rng(0)
    rgba = Image.fromarray(rng.integers(0, 256, (40, 30, 4), np.uint8))
    whole = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    deep = Image.fromarray(rng.integers(0, 65536, (40, 30)).astype(np.uint16))
    monkeypatch.setattr("jaxmoxi.photos.convert._BAND", 100)
    np.testing.assert_array_equal(to_rgb(rgba), whole)
    np.testing.assert_array_equal(np.asarray(to_rgb(deep))[..., 0], np.round(np.asarray(deep) / 257))
    palette = rgba.convert("RGB").quantize(7)
    np.testing.assert_array_equal(to_rgb(palette), palette.convert("RGB"))
