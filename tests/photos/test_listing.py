"""Which files are photos, at any depth, and what is said of the others."""

import numpy as np
from PIL import Image

from jaxmoxi.photos.formats import suffix_of
from jaxmoxi.photos.listing import find_photos
from support.photos import HEIC


def test_a_folder_of_every_make(tmp_path):
    photo = Image.fromarray(np.zeros((4, 4, 3), np.uint8) + 99)
    taken = ["a.JPG", "b.jfif", "c.jp2", "d.avif", "deep/er/e.webp", "f", "g.2024.01.05", "deep/h.ppm"]
    for name in taken:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        photo.save(path, format={"a": "JPEG", "b": "JPEG", "c": "JPEG2000", "d": "PNG"}.get(name[0], "PNG"))
    (tmp_path / "broken.png").write_text("no image")  # counts, so that it is noticed
    others = {
        "i.heic": (HEIC, "pip install pillow-heif"),
        "j.cr2": (b"II*\0", "the raw data of a camera"),
        "notes.txt": (b"text", "the ending .txt is not that of an image"),
        "LICENSE": (b"text", "no image, by its first bytes"),
        "k.png.part": ((tmp_path / "f").read_bytes(), "an image, though its ending .part is not that of one: rename"),
    }
    for name, (content, _) in others.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / ".hidden").mkdir()
    photo.save(tmp_path / ".hidden" / "l.png")
    photo.save(tmp_path / ".m.png")
    found = find_photos(tmp_path)
    assert found.photos == sorted([*taken, "broken.png"])
    assert [name for name, _ in found.left_out] == sorted(others)
    assert all(others[name][1] in reason for name, reason in found.left_out)
    assert found.told.startswith("9 of 14 files are read; left out: LICENSE (no image, by its first bytes); ")


def test_links_do_not_lead_round_and_many_names_are_counted(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "round").symlink_to(tmp_path, target_is_directory=True)
    for i in range(8):
        (tmp_path / "a" / f"{i}.txt").touch()
    found = find_photos(tmp_path)
    assert len(found.left_out) == 8
    assert "a/4.txt and 3 more (the ending .txt" in found.told
    (tmp_path / "b").symlink_to(tmp_path / "a", target_is_directory=True)  # another way to the same files
    assert len(find_photos(tmp_path).left_out) == 16


def test_endings():
    names = {"a.PNG": ".png", "a.tar.gz": ".gz", "a": "", ".png": "", "a.2024": "", "v1.0 final": "", "a.b/c": ""}
    assert {name: suffix_of(name) for name in names} == names
