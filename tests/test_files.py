"""Reading photos, files that are there as a whole, and folders that know whose they are."""

import json
from pathlib import Path

import numpy as np
import pytest
from etils import epath
from PIL import Image

from jaxmoxi import files
from support.study import broken_files, save

KINDS = (str, Path, epath.Path)


@pytest.mark.parametrize("kind", KINDS)
def test_a_photo_is_read_by_any_kind_of_path(tmp_path, kind):
    exif = Image.Exif()
    exif[274] = 6  # a quarter turn
    photo = files.read_photo(kind(save(tmp_path / "turned.jpg", exif=exif)))
    assert (photo.mode, photo.size) == ("RGB", (6, 8))


@pytest.mark.parametrize("kind", KINDS)
def test_an_unreadable_file_is_named_and_the_reason_stands_alone(tmp_path, kind):
    for name, reason in broken_files(tmp_path):
        with pytest.raises(files.UnreadableError, match=f"{name} cannot be read as an image .*: copy the") as caught:
            files.read_photo(kind(tmp_path / name))
        assert isinstance(caught.value, ValueError)
        assert str(tmp_path) not in caught.value.reason
        assert any(word in caught.value.reason for word in reason.replace(".", " ").split("|"))
    with pytest.raises(files.UnreadableError, match=r"nowhere.png does not exist; expected an image file"):
        files.read_photo(kind(tmp_path / "nowhere.png"))
    with pytest.raises(files.UnreadableError, match="is a folder, not a photo"):
        files.read_photo(kind(tmp_path))


def test_floating_point_greys_are_refused_with_the_file_named(tmp_path):
    Image.fromarray(np.zeros((4, 4), np.float32)).save(tmp_path / "grey.tif")
    with pytest.raises(files.UnreadableError, match=r"grey.tif .*floating-point greys \(mode F\)"):
        files.read_photo(tmp_path / "grey.tif")


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_is_replaced_as_a_whole(tmp_path, kind):
    path = tmp_path / "report.v2.md"
    for content, written in (("é\n", "é\n".encode()), (b"\x00\x01", b"\x00\x01"), (lambda f: f.write(b"new"), b"new")):
        files.write_whole(kind(path), content)
        assert path.read_bytes() == written
        assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("kind", KINDS)
def test_a_write_that_fails_leaves_what_was_there(tmp_path, kind):
    def fail(file):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    path = tmp_path / "report.md"
    path.write_text("old")
    with pytest.raises(OSError, match="No space left"):
        files.write_whole(kind(path), fail)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_drafts_of_killed_processes_are_swept(tmp_path):
    for name in (".a.npz.host.12.tmp", "a.npz", ".hidden", "notes.tmp"):
        (tmp_path / name).touch()
    files.sweep_drafts(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {"a.npz", ".hidden", "notes.tmp"}


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_is_claimed_once_and_then_compared(tmp_path, kind):
    folder, record = kind(tmp_path / "out"), {"config": {"seed": 0, "sizes": (1, 2)}, "count": 3}
    for _ in range(2):
        files.claim(folder, "study.json", record, kind="study")
    assert json.loads((tmp_path / "out" / "study.json").read_text()) == {
        **record,
        "config": {"seed": 0, "sizes": [1, 2]},
    }
    other = {"config": {"seed": 1, "sizes": (1, 2)}, "count": 3, "shards": 4}
    message = r"holds a study with other settings: config.seed \(there 0, now 1\), shards \(not there, now 4\)\."
    with pytest.raises(ValueError, match=message):
        files.claim(folder, "study.json", other, kind="study")
    files.claim(folder, "study.json", other, kind="study", settings=lambda r: {"count": r["count"]})


def test_what_only_one_record_has_is_told_without_what_is_in_it(tmp_path):
    files.claim(tmp_path, "study.json", {"models": {"vit": {"weights": 1, "size": 2}}, "seed": 0}, kind="study")
    message = r"models.cnn \(not there, now\), models.vit \(there, not now\), seed \(there 0, not now\)\. Use"
    with pytest.raises(ValueError, match=message):
        files.claim(tmp_path, "study.json", {"models": {"cnn": {"weights": 1}}}, kind="study")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("inside", [False, True])
def test_a_file_is_no_folder(tmp_path, kind, inside):
    (tmp_path / "notes").write_text("mine")
    folder = tmp_path / "notes" / "out" if inside else tmp_path / "notes"
    with pytest.raises(ValueError, match="expected a folder for a study, or a new one; it, or what it is in, is"):
        files.claim(kind(folder), "study.json", {"seed": 0}, kind="study")
    assert (tmp_path / "notes").read_text() == "mine"


def test_a_setting_that_is_none_may_be_missing(tmp_path):
    files.claim(tmp_path, "study.json", {"a": 1}, kind="study")
    files.claim(tmp_path, "study.json", {"a": 1, "later": None}, kind="study")


def test_settings_of_one_name_in_two_parts_are_compared_apart(tmp_path):
    record = {"config": {"classifier": "vit"}, "train": {"classifier": None}}
    files.claim(tmp_path, "config.json", record, kind="run")
    with pytest.raises(ValueError, match=r"config.classifier \(there 'vit', now 'cnn'\)\."):
        files.claim(tmp_path, "config.json", {**record, "config": {"classifier": "cnn"}}, kind="run")


def test_a_folder_of_something_else_is_not_claimed(tmp_path):
    (tmp_path / ".hidden").touch()
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(ValueError, match="holds other files and no study; name an empty folder"):
        files.claim(tmp_path, "study.json", {}, kind="study")
    for text in ("{", "[1]", "{}"):
        (tmp_path / "study.json").write_text(text)
        with pytest.raises(ValueError, match="study.json does not hold the settings of a study"):
            files.claim(tmp_path, "study.json", {"a": 1}, kind="study", settings=lambda r: {"a": r["a"]})


def test_the_library_knows_no_other_list_of_photo_endings():
    package = Path(files.__file__).parent
    lists = [p for p in package.rglob("*.py") if '".jpeg"' in p.read_text()]
    assert lists == [Path(files.__file__).parent / "photos" / "formats.py"]
