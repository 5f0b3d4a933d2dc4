"""COCO-10 from annotations small enough to draw the masks by hand."""

import json
import runpy
import sys

import numpy as np
import pytest
from PIL import Image

from jaxmoxi.p2p.data import COCO10, build_coco10
from jaxmoxi.p2p.data.coco import segmentation_mask


def rows(*lines):
    return np.array([[c == "#" for c in line] for line in lines])


def test_polygons_cover_the_pixels_whose_centres_they_hold():
    square = [1, 1, 4, 1, 4, 3, 1, 3]
    np.testing.assert_array_equal(segmentation_mask([square], 4, 5), rows(".....", ".###.", ".###.", "....."))
    corner = [-2, -2, 1.2, -2, 1.2, 0.7, -2, 0.7]  # partly outside
    np.testing.assert_array_equal(segmentation_mask([square, corner], 4, 5), rows("#....", ".###.", ".###.", "....."))
    triangle = [0, 0, 4, 4, 0, 4]
    drawn = segmentation_mask([triangle], 4, 4)
    assert (drawn | np.eye(4, dtype=bool)).tolist() == np.tri(4, dtype=bool).tolist()  # its edge is on the diagonal


def test_run_lengths_go_down_the_columns():
    counts = [1, 2, 2, 3, 4]
    expected = rows(".##.", "#...", "##..") & False  # filled below, column by column
    for pixel in (1, 2, 5, 6, 7):
        expected[pixel % 3, pixel // 3] = True
    np.testing.assert_array_equal(segmentation_mask({"counts": counts, "size": [3, 4]}, 3, 4), expected)
    # The same, compressed: 1, 2, 2, then the differences 3 - 2 and 4 - 2.
    np.testing.assert_array_equal(segmentation_mask({"counts": "12212", "size": [3, 4]}, 3, 4), expected)


def test_compressed_run_lengths_of_several_characters_and_of_either_sign():
    # 100 = 4 + 3 * 32 -> "T3"; 50 = 18 + 32 -> "b1"; 30 -> "n0"; 20 - 50 = -30 -> (2, more) "R", (-1) "O".
    mask = segmentation_mask({"counts": "T3b1n0RO", "size": [10, 20]}, 10, 20)
    np.testing.assert_array_equal(np.flatnonzero(mask.T.ravel()), [*range(100, 150), *range(180, 200)])


def test_segmentations_that_are_none():
    with pytest.raises(ValueError, match=r"run lengths of 3 x 4 pixels that add up to 12; got size \[3, 4\], sum 11"):
        segmentation_mask({"counts": [1, 10], "size": [3, 4]}, 3, 4)
    with pytest.raises(ValueError, match="polygons of at least three corners x, y; got 4 numbers"):
        segmentation_mask([[0, 0, 1, 1]], 3, 4)


def box(left, top, right, bottom):
    return [[left, top, right, top, right, bottom, left, bottom]]


@pytest.fixture
def coco(tmp_path):
    """Six images of 16 x 20 pixels: `cat` on 1, 3, 4, 5; `dog` on 2, 6, 5; `cup` on 1."""
    rng = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    for i in range(1, 7):
        picture = Image.fromarray(rng.integers(0, 256, (16, 20, 3), np.uint8))
        picture.save(tmp_path / "images" / f"{i:03}.jpg")
    crowd = {"counts": [5 * 16, 3 * 16, 12 * 16], "size": [16, 20]}  # columns 5 to 7
    shown = [
        (1, 17, box(2, 3, 8, 9)), (1, 17, crowd), (1, 47, box(0, 0, 20, 16)),
        (4, 17, box(4, 2, 16, 14)), (3, 17, box(0, 0, 20, 16)),
        (2, 18, box(0, 0, 4, 4)), (6, 18, box(4, 4, 12, 12)),
        (5, 17, box(0, 0, 9, 9)), (5, 18, box(9, 9, 12, 12)),
    ]  # fmt: skip
    content = {
        "categories": [{"id": 17, "name": "cat"}, {"id": 18, "name": "dog"}, {"id": 47, "name": "cup"}],
        "images": [{"id": i, "file_name": f"{i:03}.jpg", "height": 16, "width": 20} for i in (4, 2, 1, 3, 6, 5)],
        "annotations": [
            {"image_id": i, "category_id": c, "segmentation": s, "iscrowd": int(s is crowd)} for i, c, s in shown
        ],
    }
    (tmp_path / "instances.json").write_text(json.dumps(content))
    return tmp_path


def build(coco, out="out", **changes):
    options = dict(train_per_class=1, val_per_class=1, classes=["cat", "dog"], image_size=8, progress=False)
    return build_coco10(coco / "instances.json", coco / "images", coco / out, **options | changes)


def test_builds_what_coco10_reads(coco):
    assert build(coco) == {"cat": 1, "dog": 0}  # the cat of image 3 covers everything
    train = COCO10(coco / "out")
    assert train.class_names == ("cat", "dog")
    np.testing.assert_array_equal(train[0].image, np.asarray(Image.open(coco / "images" / "001.jpg")))
    wanted = np.zeros((16, 20), bool)
    wanted[3:9, 2:8] = wanted[:, 5:8] = True
    np.testing.assert_array_equal(train[0].mask, wanted)
    assert train[1].mask.sum() == 16

    val = COCO10(coco / "out", split="val")
    assert sorted(p.name for p in (coco / "out" / "val").rglob("*.png")) == ["004.png", "006.png"]
    for example in (val[0], val[1]):
        assert example.image.shape == (8, 8, 3)
    # 16 x 20 -> 9 x 11 -> the 8 x 8 at (0, 2): rows 2 .. 13 and columns 4 .. 15 become 1 .. 7 and 2 .. 8, less 2.
    drawn = np.zeros((8, 8), bool)
    drawn[1:8, 0:7] = True
    np.testing.assert_array_equal(val[0].mask, drawn)


def test_a_mask_is_turned_with_its_image(coco):
    exif = Image.Exif()
    exif[0x0112] = 8
    path = coco / "images" / "001.jpg"
    Image.open(path).save(path, exif=exif, quality=95)
    build(coco)
    example = COCO10(coco / "out")[0]
    assert example.image.shape[:2] == example.mask.shape == (20, 16)
    np.testing.assert_array_equal(np.flatnonzero(example.mask[:, 0]), [12, 13, 14])  # columns 5 to 7, from the right


def test_says_what_is_wrong_before_anything_is_written(coco):
    with pytest.raises(ValueError, match=r"expected 5 images that show 'cat' and no other .* has 3: ask for fewer"):
        build(coco, train_per_class=4)
    with pytest.raises(ValueError, match="has no category 'cow'; it has cat, cup, dog"):
        build(coco, classes=["cow"])
    with pytest.raises(ValueError, match=r"images is not an empty folder"):
        build(coco, out="images")
    (coco / "other.json").write_text("[]")
    with pytest.raises(ValueError, match=r"other.json is not an instances_\*.json of MS COCO"):
        build_coco10(coco / "other.json", coco / "images", coco / "out")
    with pytest.raises(ValueError, match=r"expected the folder of the images at .*nowhere; there is none"):
        build_coco10(coco / "instances.json", coco / "nowhere", coco / "out")
    assert not (coco / "out").exists()


def test_says_what_is_wrong_with_an_image(coco):
    with pytest.raises(ValueError, match="class 'cat' has 0 test images whose object covers 0% to 1%, not 1"):
        build(coco, max_share=0.01, min_share=0.0)
    Image.new("RGB", (16, 20)).save(coco / "images" / "002.jpg")
    with pytest.raises(ValueError, match=r"002.jpg has 20 x 16 pixels; its annotations are for 16 x 20"):
        build(coco, out="again")
    (coco / "images" / "001.jpg").unlink()
    with pytest.raises(ValueError, match=r"the annotated image .*001.jpg cannot be read"):
        build(coco, out="more")


def test_from_the_command_line(coco, monkeypatch, capsys):
    given = ["--annotations", coco / "instances.json", "--images", coco / "images", "--out", coco / "out"]
    sizes = [
        "--train-per-class",
        1,
        "--val-per-class",
        1,
        "--image-size",
        8,
        "--no-progress",
        "--classes",
        "cat",
        "dog",
    ]
    monkeypatch.setattr(sys, "argv", ["make_coco10", *map(str, [*given, *sizes])])
    runpy.run_module("jaxmoxi.p2p.data.make_coco10", run_name="__main__")
    assert "passed over for their object's share: {'cat': 1, 'dog': 0}" in capsys.readouterr().out
    assert len(COCO10(coco / "out")) == 2
