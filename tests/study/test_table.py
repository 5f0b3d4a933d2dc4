"""Tables of photos as other programs write them."""

import csv

import pytest
from etils import epath

from jaxmoxi.study import Photo, list_photos
from jaxmoxi.study.table import read_rows

CLASSES = ("cat", "dog")


def listed(tmp_path, data):
    (tmp_path / "labels.csv").write_bytes(data)
    return list_photos(tmp_path / "labels.csv", CLASSES)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("file,label\ncafé.png,cat\n".encode("latin1"), "labels.csv is not UTF-8 .byte 14: 0xe9.; save it as CSV in"),
        ("file,label\na.png,cat\n".encode("utf-16"), "labels.csv is not UTF-8 .byte 0: 0xff."),
        (b"file,label\na.png,cat\0\n", "labels.csv holds zero bytes, and is no CSV"),
        (b"file,label\na.png,cat,3,4\n", "line 2 of .*labels.csv has more fields than the 2 columns"),
        (b'file,label\n"a.png,cat\n', "line 2 of .*labels.csv is no CSV .unexpected end of data."),
        (b'file,label\n"a"b.png,cat\n', "line 2 of .*labels.csv is no CSV"),
        (b"file;label\na.png;cat\n", "expected the columns file and label .or index. in .*labels.csv; got file;label"),
        (b"", "expected the columns file and label"),
        (b"file,label\na.png," + b"9" * 5000, "line 2 of .*labels.csv: expected a class from 0 to 1; got 999"),
        ("file,label\na.png,²\n".encode(), "line 2 of .*labels.csv: '²' is no class"),
        (b"file,label\na.png," + b"x" * 200_000, "line 2 of .*labels.csv: 'xxxx.* is no class"),
    ],
)
def test_what_is_no_table_is_named(tmp_path, data, message):
    with pytest.raises(ValueError, match=message) as error:
        listed(tmp_path, data)
    assert len(str(error.value)) < 600


def test_odd_tables_are_read(tmp_path):
    assert listed(tmp_path, b"file,label\r\na.png,dog\r\nb.png,\r\n\r\nc.png\r\n") == [
        Photo("a.png", 1), Photo("b.png", -1), Photo("c.png", -1),
    ]  # fmt: skip
    assert listed(tmp_path, b'file,label\n"two\nlines, one name.png",cat\n') == [Photo("two\nlines, one name.png", 0)]
    assert listed(tmp_path, "\ufefffile,label\nfile\u2028name.png,cat\n".encode()) == [Photo("file\u2028name.png", 0)]
    assert listed(tmp_path, b"file,label,note\na.png,cat," + b"x" * 300_000) == [Photo("a.png", 0)]  # an enormous field
    assert csv.field_size_limit() == 131_072  # as it was


def test_a_folder_is_no_table(tmp_path):
    (tmp_path / "a.csv").mkdir()
    with pytest.raises(ValueError, match="a.csv cannot be read .*; expected a CSV file"):
        read_rows(epath.Path(tmp_path / "a.csv"))
