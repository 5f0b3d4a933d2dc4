"""`explain` and `study` on names and files as strangers bring them."""

import json
import os
import shutil

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image, ImageFile
from skimage import data

import jaxmoxi as jm
from jaxmoxi.cli import main as cli
from jaxmoxi.cli import shared as _command
from jaxmoxi.files import PhotoWarning, UnreadableError
from jaxmoxi.p2p.data import ImageFolder
from jaxmoxi.study import list_photos, run_study
from jaxmoxi.study.photos import find_listed
from support.explain import write_model
from support.photos import HEIC, frames
from support.study import CLASSES, tiny_classifier, tiny_config

CAT = Image.fromarray(data.chelsea()[::4, ::4])
HOSTILE = (r"cost $5 \frac{ <b>|# x", "two\nlines\x07", "z" * 240, "שלום", "\ud800")


@pytest.fixture
def explain(tmp_path, monkeypatch, capsys):
    """Runs `jaxmoxi explain` on a photo with classes of hostile names: (exit code, printed, errors, files written)."""
    monkeypatch.setattr(_command, "start_compilation_cache", lambda: None)
    monkeypatch.setattr(_command, "start_devices", lambda: None)
    model = tmp_path / r"m $\frac{ <b> | x"
    model.mkdir()
    write_model(model)
    settings = json.loads((model / "config.json").read_text())
    settings["id2label"] = {str(i): name for i, name in enumerate(HOSTILE)}
    (model / "config.json").write_text(json.dumps(settings))

    def run(photo, *args):
        out = tmp_path / "out"
        code = cli.main(["explain", os.fspath(photo), "--model", str(model), "--out", str(out), *map(str, args)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err, {p.name for p in out.iterdir()} if out.exists() else set()

    return run


@pytest.mark.parametrize("target", range(len(HOSTILE)))
def test_every_class_name_is_drawn_and_written(explain, tmp_path, target):
    CAT.save(tmp_path / "cat.png")
    code, out, _, files = explain(tmp_path / "cat.png", "--target", target, "--until", 1)
    assert (code, files) == (0, {"cat-insertion.png", "cat-insertion.npz", "cat-insertion.json"})
    record = json.loads((tmp_path / "out" / "cat-insertion.json").read_text(encoding="utf-8"))
    named = HOSTILE[target].encode("utf-8", "backslashreplace").decode()  # half a character is spelt out
    assert record["target"]["name"] == named
    assert "\x07" not in out
    assert len(out.splitlines()) == 4
    out.encode()


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        (b"caf\xe9 $1 $2.png", r"caf-xe9 $1 $2"),
        (b"n" * 250 + b".png", None),
        (b"a|b<c>*.png", "a-b-c--"),
        (b"new\nline.png", "new line"),
        ("日本.png".encode(), "日本"),
        (b"none", "none"),
    ],
)
def test_every_file_name_is_served(explain, tmp_path, monkeypatch, name, stem):
    monkeypatch.setattr(jm.plot, "explanation", lambda *args, **kwargs: Figure())
    path = os.path.join(os.fsencode(tmp_path), name)
    with open(path, "wb") as file:
        CAT.save(file, "PNG")
    code, out, err, files = explain(os.fsdecode(path), "--until", 1)
    assert (code, err) == (0, "")
    assert len(files) == 3
    assert stem is None or f"{stem}-insertion.json" in files
    out.encode()


def test_two_photos_of_one_name_keep_their_results(explain, tmp_path, monkeypatch):
    monkeypatch.setattr(jm.plot, "explanation", lambda *args, **kwargs: Figure())
    for folder, photo in (("a", CAT), ("b", CAT.transpose(Image.Transpose.FLIP_LEFT_RIGHT))):
        (tmp_path / folder).mkdir()
        photo.save(tmp_path / folder / "cat.png")
    assert explain(tmp_path / "a" / "cat.png", "--until", 1)[2] == ""
    code, out, err, files = explain(tmp_path / "b" / "cat.png", "--until", 1)
    assert code == 0
    assert "cat-insertion.json of another photo, so the files of this photo are called cat-2-insertion" in err
    assert "cat-2-insertion.png" in out
    assert len(files) == 6
    assert len(explain(tmp_path / "a" / "cat.png", "--until", 1)[3]) == 6
    records = [json.loads((tmp_path / "out" / f"{stem}-insertion.json").read_text()) for stem in ("cat", "cat-2")]
    assert [record["photo"][-9:] for record in records] == ["a/cat.png", "b/cat.png"]


def test_what_was_assumed_is_one_line_on_stderr(explain, tmp_path, monkeypatch):
    monkeypatch.setattr(jm.plot, "explanation", lambda *args, **kwargs: Figure())
    grey = np.asarray(CAT.convert("L"))
    Image.fromarray(grey.astype(np.uint16) * 16).save(tmp_path / "twelve.png")
    (tmp_path / "moving.gif").write_bytes(frames("GIF"))
    for name, words in (("twelve.png", "12 bits deep"), ("moving.gif", "has 2 frames, and the first is read alone")):
        code, _, err, _ = explain(tmp_path / name, "--until", 1)
        assert code == 0
        assert err.startswith("jaxmoxi: warning: ")
        assert f"{name}: the " in err
        assert words in err
        assert err.count("\n") == 1
    with np.load(tmp_path / "out" / "twelve-insertion.npz") as seen:
        assert seen["photo"].max() > 150


def test_a_photo_is_decoded_and_resized_once(explain, tmp_path, monkeypatch):
    monkeypatch.setattr(jm.plot, "explanation", lambda *args, **kwargs: Figure())
    CAT.save(tmp_path / "cat.jpg")
    counts = {"load": 0, "resize": 0, "copy": 0}
    for name, owner in (("load", ImageFile.ImageFile), ("resize", Image.Image), ("copy", Image.Image)):
        genuine = getattr(owner, name)

        def counted(self, *args, name=name, genuine=genuine, **options):
            unread = name != "load" or getattr(self, "tile", None)  # `load` does nothing where all is read
            if unread and self.size == CAT.size:
                counts[name] += 1
            return genuine(self, *args, **options)

        monkeypatch.setattr(owner, name, counted)
    assert explain(tmp_path / "cat.jpg", "--until", 1)[0] == 0
    assert counts == {"load": 1, "resize": 1, "copy": 0}


def write_mixed(root):
    """Nine files of class folders, of every make and depth, of which six are photos that can be opened here."""
    names = ["red/a.png", "red/2023/a.png", "green/b.jfif", "green/c.jp2", "train/blue/d", "blue/deep/er/e.avif"]
    for i, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(i).integers(0, 256, (20, 24, 3), np.uint8)
        Image.fromarray(pixels).save(path, format={"b": "JPEG", "c": "JPEG2000"}.get(path.name[0], "PNG"))
    (root / "red" / "x.heic").write_bytes(HEIC)
    (root / "red" / "$notes|<b>.txt").write_text("text")
    (root / "red" / "y.cr2").write_bytes(b"II*\0")
    return names


def test_a_study_reads_nested_folders_and_tells_what_it_leaves_out(tmp_path):
    names = write_mixed(tmp_path / "photos")
    with pytest.warns(PhotoWarning, match=r"6 of 9 files are read; left out: .*x.heic \(.*pip install pillow-heif\)"):
        photos = list_photos(tmp_path / "photos", CLASSES)
    assert [photo.name for photo in photos] == sorted(names)
    assert {photo.name: CLASSES[photo.label] for photo in photos}["train/blue/d"] == "blue"
    assert len({photo.name for photo in photos}) == 6
    changes = dict(methods=("random",), regions="grid:1x2", metrics=("curves",), removals=("zero",), masking="zero")
    config = tiny_config(only_correct=False, target="prediction", **changes)
    with pytest.warns(PhotoWarning, match="6 of 9 files are read"):
        report = run_study(tmp_path / "photos", {"tiny": tiny_classifier()}, tmp_path / "out", config, progress=False)
    text = report.read_text()
    assert "6 of 9 files are read; left out: " in text
    assert "&#36;notes&#124;&#60;b&#62;.txt" in text
    assert "Photos: 6 ok" in text


def test_folders_that_are_no_classes(tmp_path):
    write_mixed(tmp_path / "photos")
    shutil.copytree(tmp_path / "photos" / "green", tmp_path / "photos" / "holiday" / "day 1")
    with pytest.raises(ValueError, match=r"holiday/day 1: 'day 1' is no class of the model.*nor is any folder above"):
        list_photos(tmp_path / "photos", CLASSES)
    found = find_listed(tmp_path / "photos", CLASSES, need_labels=False)
    assert {photo.label for photo in found.photos if photo.name.startswith("holiday/")} == {-1}
    (tmp_path / "other" / "1" / "red").mkdir(parents=True)
    CAT.save(tmp_path / "other" / "1" / "red" / "a.png")
    with pytest.raises(ValueError, match="lies in '1', the index of a class, and in 'red', the name of another"):
        list_photos(tmp_path / "other", CLASSES)


def test_training_reads_the_same_files(tmp_path):
    names = write_mixed(tmp_path)
    with pytest.warns(PhotoWarning, match=r"6 of 9 files are read; left out: .*pillow-heif"):
        images = ImageFolder(tmp_path)
    assert images.class_names == ("blue", "green", "red", "train")
    assert len(images) == len(names)
    assert [images[i].image.shape for i in range(len(images))] == [(20, 24, 3)] * 6
    assert {name for name, _ in images.left_out} == {"red/x.heic", "red/$notes|<b>.txt", "red/y.cr2"}
    shutil.rmtree(tmp_path / "green")
    (tmp_path / "green").mkdir()
    (tmp_path / "green" / "x.heic").write_bytes(HEIC)
    with pytest.raises(ValueError, match=r"green holds no image \(0 of 1 files .*pip install pillow-heif"):
        ImageFolder(tmp_path)
    with pytest.raises(UnreadableError, match="pip install pillow-heif"):
        jm.study.read_photo(tmp_path / "green" / "x.heic")
