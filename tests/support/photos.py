"""Photos of every make, written byte by byte where Pillow does not write them."""

import io
import struct
import zlib

import numpy as np
from PIL import Image


def ramp(height=20, width=30):
    """uint8[H, W], greys from 0 to 240."""
    return np.linspace(0, 240, height * width).reshape(height, width).astype(np.uint8)


def tiff(pixels, *, bits=16, white_is_zero=False):
    """A grey TIFF of 12 or 16 bits. pixels: int[H, W], W even."""
    height, width = pixels.shape
    if bits == 12:
        left, right = pixels[:, 0::2].astype(int), pixels[:, 1::2].astype(int)
        body = np.stack([left >> 4, (left & 15) << 4 | right >> 8, right & 255], -1).astype(np.uint8).tobytes()
    else:
        body = pixels.astype("<u2").tobytes()
    tags = [
        (256, 3, width), (257, 3, height), (258, 3, bits), (259, 3, 1), (262, 3, 0 if white_is_zero else 1),
        (273, 4, 8), (277, 3, 1), (278, 3, height), (279, 4, len(body)),
    ]  # fmt: skip
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    end = struct.pack("<H", len(tags)) + entries + bytes(4)
    return b"II*\0" + struct.pack("<I", 8 + len(body)) + body + end


def png48(pixels):
    """A PNG of 16 bits a channel, which Pillow reads but does not write. pixels: int[H, W, 3]."""
    height, width, _ = pixels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    mark = b"\x89PNG\r\n\x1a\n"
    return mark + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def frames(name, **options):
    """The content of a file of two frames: red, then blue."""
    file = io.BytesIO()
    red, blue = Image.new("RGB", (16, 16), "red"), Image.new("RGB", (16, 16), "blue")
    red.save(file, format=name, save_all=True, append_images=[blue], **options)
    return file.getvalue()


HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(40)
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n(x) show\nshowpage\n"
