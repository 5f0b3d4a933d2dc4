"""Which photos a study has, and reading them in any condition."""

import json
import shutil

import numpy as np
import pytest
from etils import epath
from PIL import Image

from jaxmoxi.study import Photo, UnreadableError, list_photos, read_photo
from jaxmoxi.study.photos import box_array, read_mask
from support.study import broken_files, save

CLASSES = ("tabby, tabby cat", "Egyptian cat", "lynx")


def test_class_folders_are_named_by_any_synonym_or_by_index(tmp_path):
    save(tmp_path / "Egyptian_cat" / "b.png")
    save(tmp_path / "tabby cat" / "a.jpg")
    save(tmp_path / "2" / "c.webp")
    save(tmp_path / "loose.png")
    (tmp_path / "tabby cat" / "notes.txt").write_text("no photo")
    (tmp_path / "tabby cat" / ".hidden.png").write_text("no photo")
    assert list_photos(tmp_path, CLASSES) == [
        Photo("2/c.webp", 2),
        Photo("Egyptian_cat/b.png", 1),
        Photo("loose.png", -1),
        Photo("tabby cat/a.jpg", 0),
    ]


def test_a_table_tells_labels_boxes_and_credits(tmp_path):
    (tmp_path / "labels.csv").write_text(
        "file,label,x0,y0,x1,y1,author,license\n"
        "b.png,lynx,1,2,3,4,Ann,https://creativecommons.org/licenses/by-sa/4.0/\n"
        "b.png,2,5,6,7,8,Ann,https://creativecommons.org/licenses/by-sa/4.0/\n"
        "a.png,,,,,,Bob,\n"
    )
    photos = list_photos(tmp_path, CLASSES)
    assert photos == list_photos(tmp_path / "labels.csv", CLASSES)
    assert photos[0] == Photo("b.png", 2, ((1, 2, 3, 4), (5, 6, 7, 8)), "Ann, CC BY-SA 4.0")
    assert photos[1] == Photo("a.png", -1, (), "Bob")
    np.testing.assert_array_equal(box_array(photos[0]), np.float32([[1, 2, 3, 4], [5, 6, 7, 8]]))
    assert box_array(photos[1]).shape == (0, 4)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,label\na.png,1\n", "expected the columns file and label"),
        ("file,label,x0\na.png,1,2\n", "expected all of the columns x0, y0, x1, y1"),
        ("file,label,x0,y0,x1,y1\na.png,1,2,3,4,much\n", "line 2 .*: expected numbers in x0"),
        ("file,label,x0,y0,x1,y1\na.png,1,2,3,1,4\n", "line 2 .*: expected x0 <= x1 and y0 <= y1; got 2, 3, 1, 4"),
        ("file,label\na.png,dog\n", "line 2 .*: 'dog' is no class of the model"),
        ("file,label\na.png,3\n", "line 2 .*: expected a class from 0 to 2; got 3"),
        ("file,label\na.png,1\na.png,2\n", "line 3 .* already has the label 1; got 2"),
    ],
)
def test_a_wrong_table_is_told_by_its_line(tmp_path, text, message):
    (tmp_path / "labels.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        list_photos(tmp_path, CLASSES)


def test_wordnet_identifiers_are_classes_in_their_order_when_all_are_there(tmp_path):
    for name in ("n02000000", "n01000000", "n03000000"):
        save(tmp_path / name / "a.png")
    found = {photo.name: photo.label for photo in list_photos(tmp_path, CLASSES)}
    assert found == {"n01000000/a.png": 0, "n02000000/a.png": 1, "n03000000/a.png": 2}
    shutil.rmtree(tmp_path / "n03000000")
    with pytest.raises(ValueError, match="has 2 folders called by WordNet identifiers, the model 3 classes"):
        list_photos(tmp_path, CLASSES)


def test_nothing_to_study(tmp_path):
    with pytest.raises(ValueError, match="nowhere does not exist"):
        list_photos(tmp_path / "nowhere", CLASSES)
    with pytest.raises(ValueError, match="holds no photo"):
        list_photos(tmp_path, CLASSES)
    save(tmp_path / "dogs" / "a.png")
    with pytest.raises(ValueError, match="the folder .*dogs: 'dogs' is no class"):
        list_photos(tmp_path, CLASSES)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("grey.png", {"mode": "L"}),
        ("cmyk.jpg", {"mode": "CMYK"}),
        ("palette.gif", {"mode": "P"}),
        ("clear.png", {"mode": "RGBA"}),
        ("bits.png", {"mode": "1"}),
    ],
)
def test_odd_photos_are_read(tmp_path, name, options):
    photo = read_photo(save(tmp_path / name, **options))
    assert photo.mode == "RGB"
    assert photo.size == (8, 6)


def test_16_bits_and_rotation(tmp_path):
    Image.fromarray(np.full((6, 8), 65535, np.uint16)).save(tmp_path / "deep.png")
    assert np.asarray(read_photo(tmp_path / "deep.png")).min() == 255
    exif = Image.Exif()
    exif[274] = 6  # a quarter turn
    save(tmp_path / "turned.jpg", exif=exif)
    assert read_photo(tmp_path / "turned.jpg").size == (6, 8)


def test_broken_photos_are_told_apart_from_others(tmp_path):
    for name, message in broken_files(tmp_path):
        with pytest.raises(UnreadableError, match=message):
            read_photo(tmp_path / name)
    with pytest.raises(UnreadableError, match="nowhere.png does not exist"):
        read_photo(tmp_path / "nowhere.png")


def test_rows_of_one_photo_are_put_together(tmp_path):
    (tmp_path / "labels.csv").write_text("file,label,mask,author\na.png,cat,m.png,Ann\n./a.png,cat,,\nb.png,cat,,\n")
    listed = list_photos(tmp_path, ("cat", "dog"))
    assert listed == [Photo("a.png", 0, (), "Ann", "m.png"), Photo("b.png", 0)]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("a.png,0,m.png,,,,\na.png,0,n.png,,,,", "line 3 of .*a.png already has the mask m.png; got n.png"),
        ("a.png,0,m.png,,,,\na.png,0,,1,1,2,2", "line 3 of .*a.png has a mask and a box"),
        ("a.png,0,,1,1,2,2\na.png,0,m.png,,,,", "line 3 of .*a.png has a mask and a box"),
        ("a.png,0,,,1,2,2", "line 2 of .*expected numbers in x0, y0, x1, y1"),
        (",0,,1,1,2,2", "line 2 of .*expected a photo's path under file; got none"),
    ],
)
def test_rows_that_contradict_one_another(tmp_path, rows, message):
    (tmp_path / "labels.csv").write_text(f"file,label,mask,x0,y0,x1,y1\n{rows}\n")
    with pytest.raises(ValueError, match=message):
        list_photos(tmp_path, ("cat", "dog"))


@pytest.mark.parametrize("mode", ["1", "L", "I;16", "P", "RGB", "RGBA", "LA"])
def test_masks_are_what_is_neither_black_nor_transparent(tmp_path, mode):
    inside = np.zeros((6, 8), bool)
    inside[1:4, 2:7] = True
    if mode == "I;16":
        image = Image.fromarray(inside.astype(np.uint16))
    elif mode in ("RGBA", "LA"):  # white all over, visible inside alone
        alpha = Image.fromarray(np.where(inside, 255, 0).astype(np.uint8))
        image = Image.new("RGB" if mode == "RGBA" else "L", (8, 6), "white").convert(mode)
        image.putalpha(alpha)
    elif mode == "P":
        image = Image.fromarray(inside.astype(np.uint8)).convert("P")
        image.putpalette([0, 0, 0, 0, 0, 9])
    else:
        image = Image.fromarray(np.where(inside, 255, 0).astype(np.uint8)).convert(mode)
    image.save(tmp_path / "mask.png")
    np.testing.assert_array_equal(
        np.asarray(read_mask(tmp_path / "mask.png", (8, 6)))[..., 0], np.where(inside, 255, 0)
    )


def test_reading_is_tried_again(tmp_path, monkeypatch):
    path = save(tmp_path / "a.png")
    failures = [OSError("timed out"), OSError("timed out"), OSError("timed out"), OSError("timed out"), OSError("gone")]
    plain = type(epath.Path(path)).read_bytes

    def flaky(self):
        if failures:
            raise failures.pop(0)
        return plain(self)

    monkeypatch.setattr(type(epath.Path(path)), "read_bytes", flaky)
    monkeypatch.setattr("jaxmoxi.photos.reading.time.sleep", lambda seconds: None)
    with pytest.raises(UnreadableError, match="timed out"):
        read_photo(path)  # three times
    assert read_photo(path).size == (8, 6)  # at the third


def test_a_huge_photo_is_not_unpacked(tmp_path):
    Image.new("1", (20_000, 15_000)).save(tmp_path / "huge.png")
    with pytest.raises(UnreadableError, match="300,000,000 pixels are more than the limit of 134,217,728"):
        read_photo(tmp_path / "huge.png")


def test_photo_is_a_plain_tuple():
    assert json.loads(json.dumps(Photo("a", 1))) == ["a", 1, [], "", ""]
