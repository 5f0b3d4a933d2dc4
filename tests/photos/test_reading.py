"""What is opened, what is not, and what the message says to do."""

import subprocess
import sys
import types

import numpy as np
import pytest
from PIL import Image, ImageFile

from jaxmoxi import files
from jaxmoxi.photos import formats
from jaxmoxi.photos.reading import open_image
from support.photos import EPS, HEIC


@pytest.fixture
def fresh():
    """Plug-ins are looked for anew, before and after."""
    formats.known_formats.cache_clear()
    yield
    formats.known_formats.cache_clear()


def photo(seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (16, 16, 3), np.uint8))


@pytest.mark.parametrize("name", ["photo.png", "photo.eps", "photo"])
def test_postscript_starts_no_program(tmp_path, monkeypatch, name):
    def start(*args, **kwargs):
        raise AssertionError("a program was started")

    monkeypatch.setattr(subprocess, "Popen", start)
    (tmp_path / name).write_bytes(EPS)
    with pytest.raises(files.UnreadableError, match="a page or a drawing, not a photo: export it as PNG"):
        files.read_photo(tmp_path / name)


def test_every_open_names_its_formats():
    package = formats.__file__.rsplit("/", 2)[0]
    found = subprocess.run(["grep", "-rn", "--include=*.py", r"Image\.open(", package], capture_output=True, text=True)
    calls = [line for line in found.stdout.splitlines() if "PIL.Image.open(path)" not in line]
    assert len(calls) == 1
    assert "formats=known_formats()" in calls[0]
    assert not {"EPS", "WMF", "FITS", "HDF5", "GRIB", "BUFR", "MPEG"} & set(formats.known_formats())


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.jfif", {"format": "JPEG"}), ("a.jp2", {}), ("a.ppm", {}), ("a.tga", {}), ("a.bmp", {}), ("a.qoi", {}),
        ("a.dds", {}), ("a.sgi", {}), ("a.mpo", {}), ("a", {"format": "PNG"}), ("2024.01.05", {"format": "WEBP"}),
        ("wrong.gif", {"format": "PNG"}),
    ],
)  # fmt: skip
def test_pillows_formats_are_read_whatever_the_name(tmp_path, name, options):
    photo().save(tmp_path / name, **options)
    assert files.read_photo(tmp_path / name).size == (16, 16)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.heic", HEIC, "pip install pillow-heif"),
        ("a.jpg", HEIC, "pip install pillow-heif"),
        ("a.jxl", b"\xff\x0a" + bytes(30), "pip install pillow-jxl-plugin"),
        ("a.nef", b"II*\0" + bytes(30), "raw data of a camera.*develop it to JPEG"),
        ("a.svg", b"<svg></svg>", "a drawing, not a photo"),
        ("a.mp4", b"\0\0\0\x18ftypmp42" + bytes(30), "a film: export its frames"),
    ],
)
def test_the_way_out_is_told(tmp_path, name, content, reason):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(files.UnreadableError, match=reason):
        files.read_photo(tmp_path / name)


def test_a_plug_in_that_is_installed_is_used(tmp_path, monkeypatch, fresh):
    class Fake(ImageFile.ImageFile):
        format = "HEIF"

        def _open(self):
            self._size, self._mode = (4, 4), "L"

        def load(self):
            self.im = Image.new("L", (4, 4), 99).im
            return None

    opened = dict(Image.OPEN)
    plugin = types.ModuleType("pillow_heif")
    plugin.register_heif_opener = lambda: Image.register_open("HEIF", Fake, lambda head: head[4:8] == b"ftyp")
    monkeypatch.setitem(sys.modules, "pillow_heif", plugin)
    (tmp_path / "a.heic").write_bytes(HEIC)
    try:
        assert np.asarray(files.read_photo(tmp_path / "a.heic")).max() == 99
        assert formats.is_photo_name("a.HEIC")
    finally:
        Image.OPEN.clear()
        Image.OPEN.update(opened)


def test_the_limit_on_pixels_stands_before_unpacking(tmp_path, monkeypatch):
    Image.new("1", (12_000, 12_000)).save(tmp_path / "huge.png")
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("it was unpacked"))
    message = "12000 x 12000 = 144,000,000 pixels are more than the limit of 134,217,728.* JAXMOXI_MAX_PIXELS=144000000"
    with pytest.raises(files.UnreadableError, match=message):
        files.read_photo(tmp_path / "huge.png")
    content = (tmp_path / "huge.png").read_bytes()
    limit = Image.MAX_IMAGE_PIXELS
    assert open_image(content, max_pixels=144_000_000).size == (12_000, 12_000)
    monkeypatch.setenv("JAXMOXI_MAX_PIXELS", "200_000_000")
    assert open_image(content).size == (12_000, 12_000)
    assert limit == Image.MAX_IMAGE_PIXELS
    for text in ("0", "-1", "many", "1e9"):
        monkeypatch.setenv("JAXMOXI_MAX_PIXELS", text)
        with pytest.raises(ValueError, match="JAXMOXI_MAX_PIXELS: expected a number of pixels"):
            open_image(content)
    with pytest.raises(ValueError, match="max_pixels is a number of pixels, at least 1; got 0"):
        files.read_photo(tmp_path / "huge.png", max_pixels=0)
