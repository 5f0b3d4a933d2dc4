"""What results are called: never over another photo's, and never too long."""

import json
import threading
import time

import pytest

from jaxmoxi.cli import names
from jaxmoxi.cli.shared import CommandError


def photo(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def write(base, record):
    for suffix in names.SUFFIXES:
        base.with_name(base.name + suffix).write_text(json.dumps(record))


def test_another_photo_of_the_same_name_gets_a_number_and_the_same_photo_its_own(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    first, second = photo(tmp_path / "a" / "cat.png", b"1"), photo(tmp_path / "b" / "cat.jpg", b"2")
    bases = {}
    for path in (first, second, first, second):
        own = names.identify(path)
        base, told = names.choose_base(out, "cat", "insertion", own)
        assert bases.setdefault(path, base) == base
        assert ("of another photo, so the files of this photo are called cat-2-insertion" in told) == (path == second)
        write(base, {"photo": str(path), **own.record()})
    assert [bases[first].name, bases[second].name] == ["cat-insertion", "cat-2-insertion"]
    copy = names.identify(photo(tmp_path / "c" / "cat.png", b"2"))  # the same content elsewhere
    assert names.choose_base(out, "cat", "insertion", copy)[0].name == "cat-2-insertion"
    changed = names.identify(photo(first, b"edited"))  # the same path
    assert names.choose_base(out, "cat", "insertion", changed)[0].name == "cat-insertion"
    assert names.choose_base(out, "cat", "deletion", copy)[0].name == "cat-deletion"


@pytest.mark.parametrize("record", ["{", "[1]", "{}", '{"photo": 3}', "[" * 100_000])
def test_what_is_not_this_photos_is_left_alone(tmp_path, record):
    own = names.identify(photo(tmp_path / "cat.png", b"1"))
    (tmp_path / "cat-p2p.json").write_text(record)
    assert names.choose_base(tmp_path, "cat", "p2p", own)[0].name == "cat-2-p2p"
    (tmp_path / "dog-p2p.png").write_text("a picture without a record")
    assert names.choose_base(tmp_path, "dog", "p2p", own)[0].name == "dog-2-p2p"


def test_records_of_older_versions_and_the_bundled_photo(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own = names.identify(photo(tmp_path / "cat.png", b"1"))
    write(tmp_path / "cat-insertion", {"photo": "cat.png"})
    assert names.choose_base(tmp_path, "cat", "insertion", own)[0].name == "cat-insertion"
    bundled = names.identify(None)
    assert names.choose_base(tmp_path, "cat", "insertion", bundled)[0].name == "cat-2-insertion"
    write(tmp_path / "chelsea-insertion", {"photo": None, **bundled.record()})
    assert names.choose_base(tmp_path, "chelsea", "insertion", bundled)[0].name == "chelsea-insertion"
    assert names.choose_base(tmp_path, "chelsea", "insertion", own)[0].name == "chelsea-2-insertion"


@pytest.mark.parametrize("stem", ["n" * 250, "é" * 120, "日本" * 60, "a/b", "..", "", "\udce9"])
def test_every_name_fits_the_file_system(tmp_path, stem):
    base, _ = names.choose_base(tmp_path, stem, "insertion", names.identify(None))
    assert base.parent == tmp_path
    write(base, {})
    assert len(list(tmp_path.iterdir())) == 3


def test_a_folder_whose_path_is_too_long_is_told_at_once(tmp_path):
    deep = tmp_path
    for _ in range(25):
        deep = deep / ("d" * 200)
    with pytest.raises(CommandError, match="its path is too long for the file system"):
        names.choose_base(deep, "cat", "insertion", names.identify(None))


def test_two_do_not_write_at_the_same_time(tmp_path):
    started = threading.Event()

    def hold():
        with names.locked(tmp_path):
            started.set()
            time.sleep(0.4)

    other = threading.Thread(target=hold)
    other.start()
    assert started.wait(10)
    begun = time.perf_counter()
    with names.locked(tmp_path):
        assert time.perf_counter() - begun > 0.2
    other.join()
    assert list(tmp_path.iterdir()) == []
