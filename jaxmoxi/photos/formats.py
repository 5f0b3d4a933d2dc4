"""Which image formats are opened, by which endings files count as photos, and what to say of the others.

Pillow tries every plug-in that it has on a file's content, whatever the file is called. Some of them start another
program (EPS runs Ghostscript), some only pass the file to a handler that a program registers (BUFR, GRIB, HDF5, MPEG,
WMF), and some belong to one science or game and accept nearly anything (FITS, SPIDER, IM, BLP, ...). None of these is a
photo's format. So every `Image.open` of this package names its formats: the raster formats that Pillow decodes itself,
and HEIF and JPEG XL where their plug-in is installed. Pillow is imported inside the functions.
"""

from __future__ import annotations

import functools
import importlib
import os
import re

from jaxmoxi.errors import InputError

FORMATS = (
    "JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "AVIF", "JPEG2000", "PPM", "HEIF", "JXL", "MPO", "DIB", "ICO", "CUR",
    "ICNS", "PSD", "QOI", "DDS", "SGI", "SUN", "PCX", "DCX", "MSP", "XBM", "XPM", "TGA",
)  # fmt: skip
"""The formats that are opened, by Pillow's names, in the order of trying them; TGA, which has no mark, is the last."""

PHOTO_SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".mpo", ".png", ".apng", ".webp", ".gif", ".tif", ".tiff", ".bmp", ".dib",
    ".avif", ".avifs", ".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx", ".ppm", ".pgm", ".pbm", ".pnm", ".ico", ".cur",
    ".icns", ".psd", ".qoi", ".dds", ".sgi", ".rgb", ".rgba", ".bw", ".ras", ".pcx", ".dcx", ".msp", ".xbm", ".xpm",
    ".tga", ".icb", ".vda", ".vst",
)  # fmt: skip
"""The endings, in lower case, by which a folder's files count as photos, readable or not."""

PLUGIN_SUFFIXES = {
    ".heic": "HEIF", ".heif": "HEIF", ".heics": "HEIF", ".heifs": "HEIF", ".hif": "HEIF", ".jxl": "JXL",
}  # fmt: skip
"""Endings of photos for which Pillow needs a plug-in, and the format's name in Pillow."""

MAX_PIXELS = 2**27
"""The most pixels of a photo, 134 million, unless the caller or JAXMOXI_MAX_PIXELS asks for more: half a gigabyte."""

# Pillow's name of a format: (the module of its plug-in, the function that registers it, what to install).
_PLUGINS = {
    "HEIF": ("pillow_heif", "register_heif_opener", "pillow-heif"),
    "JXL": ("pillow_jxl", "", "pillow-jxl-plugin"),
    "AVIF": ("pillow_avif", "", "pillow-avif-plugin"),
}
_NAMES = {"HEIF": "HEIC or HEIF", "JXL": "JPEG XL", "AVIF": "AVIF"}
_RAW = (
    ".dng", ".cr2", ".cr3", ".crw", ".nef", ".nrw", ".arw", ".srf", ".sr2", ".orf", ".rw2", ".raf", ".pef", ".srw",
    ".raw", ".3fr", ".erf", ".kdc", ".mrw", ".x3f", ".iiq", ".rwl",
)  # fmt: skip
_DRAWINGS = (".svg", ".svgz", ".pdf", ".eps", ".ps", ".ai", ".wmf", ".emf")
_FILMS = (".mp4", ".mov", ".m4v", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".3gp", ".mts", ".wmv", ".flc", ".fli")
_RAW_REASON = "the raw data of a camera, of which only a preview could be read: develop it to JPEG or TIFF"
_DRAWING_REASON = "a page or a drawing, not a photo: export it as PNG"
_FILM_REASON = "a film: export its frames as photos"


@functools.cache
def known_formats() -> tuple[str, ...]:
    """Those of `FORMATS` that this installation opens; plug-ins that are installed are registered with Pillow."""
    from PIL import Image

    Image.init()
    for name, (module, register, _) in _PLUGINS.items():
        if name not in Image.OPEN:
            try:
                plugin = importlib.import_module(module)
                if register:
                    getattr(plugin, register)()
            except Exception:  # not installed, or built for another Pillow: the file's message names the plug-in
                continue
    return tuple(name for name in FORMATS if name in Image.OPEN)


def suffix_of(name: str) -> str:
    """The ending of a file's name in lower case, "" where there is none; digits alone, as in `2024.01.05`, are none."""
    found = re.search(r"[^.](\.[^./\s]*)$", name)
    return "" if found is None or not re.search("[A-Za-z]", found[1]) else found[1].lower()


def is_photo_name(name: str) -> bool:
    """Whether a file counts as a photo by its ending: one of `PHOTO_SUFFIXES`, or of a plug-in that is installed."""
    suffix = suffix_of(name)
    return suffix in PHOTO_SUFFIXES or PLUGIN_SUFFIXES.get(suffix) in known_formats()


def format_of(head: bytes) -> str:
    """The format that a file's first 32 bytes tell, by Pillow's name where it has one; "" for one not known."""
    brand = head[8:12] if head[4:8] == b"ftyp" else b""
    if brand in (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"):
        return "AVIF" if b"avif" in head[12:32] else "HEIF"
    if brand in (b"avif", b"avis"):
        return "AVIF"
    if brand in (b"crx ",):
        return "RAW"
    if brand:
        return "FILM"
    if head[:4] == b"RIFF":
        return {b"WEBP": "WEBP", b"AVI ": "FILM"}.get(head[8:12], "")
    marks = {
        b"\xff\xd8\xff": "JPEG", b"\x89PNG\r\n\x1a\n": "PNG", b"GIF8": "GIF", b"II*\0": "TIFF", b"MM\0*": "TIFF",
        b"II+\0": "TIFF", b"MM\0+": "TIFF", b"\0\0\0\x0cjP  ": "JPEG2000", b"\xff\x4f\xff\x51": "JPEG2000",
        b"\xff\x0a": "JXL", b"\0\0\0\x0cJXL ": "JXL", b"8BPS": "PSD", b"qoif": "QOI", b"DDS ": "DDS",
        b"icns": "ICNS", b"\0\0\1\0": "ICO", b"\x1a\x45\xdf\xa3": "FILM", b"%PDF": "DRAWING", b"%!PS": "DRAWING",
        b"\xc5\xd0\xd3\xc6": "DRAWING", b"<svg": "DRAWING", b"FUJIFILM": "RAW",
    }  # fmt: skip
    for mark, name in marks.items():
        if head.startswith(mark):
            return name
    if re.match(rb"P[1-6]\s", head):
        return "PPM"
    return "BMP" if head[:2] == b"BM" and len(head) > 14 and head[14:18] in (b"\x28\0\0\0", b"\x7c\0\0\0") else ""


def why_not(name: str, head: bytes) -> str:
    """Why a file is not read as a photo, and the way out; "" where neither its name nor its first bytes tell."""
    suffix, found = suffix_of(name), format_of(head)
    if suffix in _RAW or found == "RAW":
        return _RAW_REASON
    needs = found if found in _PLUGINS else PLUGIN_SUFFIXES.get(suffix, "") if not found else ""
    if needs and needs not in known_formats():
        return f"{_NAMES[needs]}, which Pillow opens with a plug-in: pip install {_PLUGINS[needs][2]}"
    if found == "DRAWING" or (not found and suffix in _DRAWINGS):
        return _DRAWING_REASON
    if found == "FILM" or (not found and suffix in _FILMS):
        return _FILM_REASON
    return ""


def is_raw_name(name: str) -> bool:
    """Whether a file's ending is that of a camera's raw data, of which Pillow would read a small preview."""
    return suffix_of(name) in _RAW


def pixel_limit(max_pixels: int | None) -> int:
    """The most pixels of a photo: `max_pixels`, else the environment's JAXMOXI_MAX_PIXELS, else `MAX_PIXELS`."""
    if max_pixels is not None:
        if max_pixels < 1:
            raise InputError(f"max_pixels is a number of pixels, at least 1; got {max_pixels}")
        return max_pixels
    text = os.environ.get("JAXMOXI_MAX_PIXELS", "").strip().replace("_", "")
    if not text:
        return MAX_PIXELS
    if not (text.isascii() and text.isdigit() and int(text[:19]) > 0):
        raise InputError(f"JAXMOXI_MAX_PIXELS: expected a number of pixels such as 200000000; got {text[:40]!r}")
    return int(text[:19])
