"""`jaxmoxi predict` of folders and of several photos: the table, the sheets, the report, and what goes wrong."""

import csv
import dataclasses
import json
import re
import shutil

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from jaxmoxi import p2p
from jaxmoxi.cli import main as cli
from jaxmoxi.cli import predict_many
from jaxmoxi.cli import shared as _command
from jaxmoxi.cli.predict_files import COLUMNS
from jaxmoxi.p2p import plot
from jaxmoxi.p2p.arrays import seal
from support.p2p import SMALL_CONFIG as CONFIG
from support.p2p import spread_model

NAMES = ("tabby, tabby cat", "lynx", "tiger | $x$")
HOSTILE = "two\nlines \x1b[31m|<b> $x$.png"


@pytest.fixture(autouse=True)
def _alone(monkeypatch):
    """The cache on disk and the simulated devices are the process's, not this test's."""
    monkeypatch.setattr(_command, "start_compilation_cache", lambda: None)
    monkeypatch.setattr(_command, "start_devices", lambda: None)


@pytest.fixture
def sketch(monkeypatch):
    """Empty pictures, where drawing them is not what a test is about."""
    for name in ("contact_sheet", "class_maps", "class_shares", "parts"):
        monkeypatch.setattr(plot, name, lambda *args, **kwargs: Figure((1, 1)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "small"
    p2p.save(path, spread_model(), class_names=NAMES)
    return path


def draw(path, seed, size=(40, 50)):
    path.parent.mkdir(parents=True, exist_ok=True)
    rough = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    Image.fromarray(rough).resize(size[::-1], Image.Resampling.BICUBIC).save(path)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Seven photos: five in class folders, one in a folder of another name, one of a hostile name; and four others."""
    root = tmp_path_factory.mktemp("photos") / "in"
    for i, name in enumerate(("Tabby_cat/a.png", "Tabby_cat/b.png", "lynx/a.png", "2/deep/c.png", "01_lynx/d.png")):
        draw(root / name, i)
    draw(root / "pots" / "e.png", 5, (32, 32))
    draw(root / HOSTILE, 6)
    (root / "lynx" / "text.jpg").write_text("no image")
    cut = (root / "lynx" / "a.png").read_bytes()
    (root / "lynx" / "cut.png").write_bytes(cut[: len(cut) // 2])
    (root / "notes.txt").write_text("")
    return root


def run(capsys, *args):
    code = cli.main(["predict", *map(str, args)])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def changed(folder, copy, change):
    """A copy of a model whose record is another's."""
    shutil.copytree(folder, copy)
    record = json.loads((copy / "config.json").read_text())
    change(record)
    record.pop("checksum")
    (copy / "config.json").write_text(json.dumps(seal(record)))


def rows_of(path):
    with path.open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert tuple(lines[0]) == COLUMNS
    return lines


def test_a_folder_with_all_that_is_written(photos, folder, tmp_path, capsys, monkeypatch):
    out = tmp_path / "out"
    code, printed, told = run(
        capsys, photos, "--checkpoint", folder, "--out", out, "--report", "--batch-size", 3, "--certainty", 0.9
    )
    assert code == 2  # two photos cannot be read; the others are there
    lines = told.splitlines()
    assert "left out: notes.txt" in lines[0]
    assert "the true class of 7 of 9 photos is known, by class folders" in lines[1]
    assert "2: tiger" in lines[1]
    assert "pots/ names no class of the model" in lines[2]
    assert "1 of 9 photos cannot be read: lynx/text.jpg (not an image" in lines[3]  # before anything is computed
    assert lines[-1].startswith("jaxmoxi: error: 2 of 9 photos cannot be read: lynx/text.jpg")
    assert "lynx/cut.png" in lines[-1]

    rows = rows_of(out / "predictions.csv")
    assert [row["file"].removeprefix(f"{photos}/") for row in rows] == [
        "01_lynx/d.png", "2/deep/c.png", "Tabby_cat/a.png", "Tabby_cat/b.png", "lynx/a.png", "pots/e.png", HOSTILE,
        "lynx/text.jpg", "lynx/cut.png",
    ]  # fmt: skip
    assert [row["true_index"] for row in rows] == ["1", "2", "0", "0", "1", "", "", "1", "1"]
    assert all(row["problem"] for row in rows[7:])
    assert not any(row["problem"] for row in rows[:7])
    # The same answers as one by one.
    monkeypatch.setattr(plot, "prediction", lambda *args, **kwargs: Figure((1, 1)))
    for row in rows[:7]:
        assert cli.main(["predict", row["file"], "--checkpoint", str(folder), "--out", str(tmp_path / "one"),
                         "--certainty", "0.9", "--quiet"]) == 0  # fmt: skip
        (path,) = (tmp_path / "one").glob("*.json")
        one = json.loads(path.read_text())
        assert int(row["class_index"]) == one["prediction"]["index"]
        np.testing.assert_allclose(float(row["probability"]), one["prediction"]["probability"], rtol=1e-4)
        np.testing.assert_allclose(float(row["share"]), one["hard_share"], rtol=1e-4)
        np.testing.assert_allclose(float(row["threshold"]), one["threshold"], rtol=1e-4)
        assert (int(row["kept"]), int(row["superpixels"])) == (len(one["kept"]), one["num_regions"])
        assert row["certain"] == str(one["certain"])
        assert row["right"] == ("" if row["true_index"] == "" else str(row["true_index"] == row["class_index"]))
        shutil.rmtree(tmp_path / "one")

    assert "\x1b" not in printed
    table = printed.splitlines()[1:9]
    assert table[0].split() == ["file", "class", "probability", "pixels", "superpixels", "threshold", "true", "class"]
    assert table[7].startswith(r"two lines \x1b[31m|<b> $x$.png")
    assert sum("WRONG" in line for line in table) == sum(row["right"] == "False" for row in rows)
    record = json.loads((out / "predictions.json").read_text())
    assert (record["photos"], record["labelled"], record["finished"]) == (7, 5, True)
    assert record["accuracy"] == sum(row["right"] == "True" for row in rows) / 5
    assert record["certainty"] == 0.9
    assert record["versions"]["jaxmoxi"]
    assert {str(p.relative_to(out)) for p in out.rglob("*") if p.is_file()} == {*record["files"], "predictions.json"}
    sheet = np.asarray(Image.open(out / "predictions-sheet.png").convert("RGB"))
    assert sheet.std() > 10

    report = (out / "predictions-report.md").read_text()
    assert "The 5 photos whose true class is known are grouped by it, the other 2 by the class predicted" in report
    assert "| tabby | 2 | " in report
    assert "tiger &#124; &#36;x&#36;" in report
    assert "<b>" not in report
    figures = {name for name in record["files"] if name.endswith(".png") and "report" in name}
    assert all(f"]({name})" in report for name in figures)
    assert {"predictions-report/parts.png", "predictions-report/needs.png"} <= figures
    wrong = sum(row["right"] == "False" for row in rows)
    assert f"{wrong} of 5 photos are taken for another class" in report


@pytest.mark.usefixtures("sketch")
def test_names_of_files_are_kept_apart_and_replaced(photos, folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(predict_many, "_ON_A_SHEET", 2)
    out, some = tmp_path / "out", [photos / "Tabby_cat" / "a.png", photos / "lynx" / "a.png", photos / HOSTILE]
    base = ("--checkpoint", folder, "--out", out, "--quiet")
    assert run(capsys, *some, some[0], *base)[0] == 0
    assert len(rows_of(out / "predictions.csv")) == 3  # each photo once
    assert {p.name for p in out.iterdir()} == {
        "predictions.csv", "predictions.json", "predictions-sheet-01.png", "predictions-sheet-02.png",
    }  # fmt: skip
    code, printed, told = run(capsys, photos / "lynx" / "a.png", photos / "pots", *base)
    assert code == 0
    assert "has predictions of other photos, so the files of these are called predictions-2" in told
    assert len(rows_of(out / "predictions-2.csv")) == 2
    assert (out / "predictions-2-sheet.png").exists()
    assert len(printed.splitlines()) == 3 + ("*" in printed) + 1  # the head, two rows, what * means, and the sum
    # The same question again takes the same names, and leaves no sheet of before.
    monkeypatch.setattr(predict_many, "_ON_A_SHEET", 3)
    assert run(capsys, *some, some[0], *base)[0] == 0
    assert {p.name for p in out.glob("predictions-*.png")} == {"predictions-sheet.png", "predictions-2-sheet.png"}
    assert not (out / "predictions-3.csv").exists()


@pytest.mark.usefixtures("sketch")
def test_what_was_computed_is_written_whatever_ends_it(photos, folder, tmp_path, capsys, monkeypatch):
    predict, calls = predict_many._predict, []

    def interrupted(*args):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return predict(*args)

    monkeypatch.setattr(predict_many, "_predict", interrupted)
    options = (photos / "Tabby_cat", photos / "lynx", "--checkpoint", folder, "--out", tmp_path, "--batch-size", 2)
    code, printed, _ = run(capsys, *options)
    assert code == 130
    assert len(rows_of(tmp_path / "predictions.csv")) == 4  # two answers, and two photos that cannot be read
    assert not json.loads((tmp_path / "predictions.json").read_text())["finished"]
    assert "2 photos, seen " in printed
    monkeypatch.setattr(predict_many, "_predict", lambda *args: interrupted() if len(calls) else None)
    calls[:] = [1]
    code, _, _ = run(capsys, photos / "pots", "--checkpoint", folder, "--out", tmp_path / "none")
    assert code == 130
    assert not list((tmp_path / "none").iterdir())


@pytest.mark.usefixtures("sketch")
def test_models_without_an_embedding_and_black_boxes_say_so(photos, folder, tmp_path, capsys):
    config = dataclasses.replace(CONFIG, dynamic_threshold=False, threshold=0.2, embedding_size=0)
    p2p.save(tmp_path / "fixed", spread_model(config))
    args = (photos / "Tabby_cat", "--report", "--checkpoint")
    assert run(capsys, *args, tmp_path / "fixed", "--out", tmp_path / "a")[0] == 0
    report = (tmp_path / "a" / "predictions-report.md").read_text()
    assert "This model has no embedding" in report
    assert "parts.png" not in report
    assert "The model has a fixed threshold, 0.2" in report
    assert "The true class of no photo is known" in report  # its classes have no names, and these folders no numbers
    rows = rows_of(tmp_path / "a" / "predictions.csv")
    assert [row["certain"] for row in rows] == ["", ""]

    changed(folder, tmp_path / "box", lambda record: record.update(train={"select": False}))
    code, _, told = run(capsys, *args, tmp_path / "box", "--out", tmp_path / "b")
    assert code == 0
    assert "is a black box, trained on whole images: its selector learned nothing" in told
    report = (tmp_path / "b" / "predictions-report.md").read_text()
    assert "**The model is a black box**" in report
    assert "its embedding was never trained" in report


def test_what_is_wrong_is_said_in_a_line(photos, folder, tmp_path, capsys):
    empty, texts, table = tmp_path / "empty", tmp_path / "texts", tmp_path / "table"
    for path in (empty, texts, table):
        path.mkdir()
    (texts / "a.jpg").write_text("no image")
    draw(table / "a.png", 0)
    draw(table / "b.png", 1)
    (table / "labels.csv").write_text("file,label\na.png,lynx\nb.png,unicorn\n")
    out, one = tmp_path / "out", photos / "lynx" / "a.png"
    changed(folder, tmp_path / "soft", lambda record: record["config"].update(masking="soft"))
    for args, message in (
        ((empty,), "holds no photo; expected image files"),
        ((texts,), "1 of 1 photos cannot be read: a.jpg (not an image of a known format"),
        ((table,), "line 3 of .*labels.csv: 'unicorn' is no class of the model"),
        ((one, "--report"), "--report is about many photos: name a folder, or several photos"),
        ((photos / "pots", "--report"), "--report is about many photos: there is 1 to predict in .*pots"),
        ((photos, "--checkpoint", tmp_path / "nowhere"), "--checkpoint: expected a P2P checkpoint"),
        ((photos, "--batch-size", 0), "--batch-size: expected a number of at least 1; got 0"),
        ((photos, "--regions", "grid:9x9"), "--regions grid:9x9: the model knows at most 18 regions"),
        ((photos, "--out", photos), "--out .* is the folder of the photos"),
        ((photos, "--checkpoint", tmp_path / "soft"), "masks single pixels and keeps no superpixels"),
        ((), "expected a photo, or a folder of photos; got none"),
    ):
        code, printed, told = run(capsys, "--checkpoint", folder, "--out", out, *args)
        assert code == 2
        assert not printed
        (line,) = told.strip().splitlines()[-1:]
        assert line.startswith("jaxmoxi: error: ")
        assert re.search(message.replace("(", r"\("), line), line
        assert not out.exists()


@pytest.mark.usefixtures("sketch")
def test_labels_of_a_table_and_pictures_that_are_no_photos(folder, tmp_path, capsys):
    root = tmp_path / "in"
    for i in range(3):
        draw(root / f"{i}.png", i)
    (root / "labels.csv").write_text("file,label\n2.png,2\n0.png,tabby\nlost.png,lynx\n")
    code, _, told = run(capsys, root, "--checkpoint", folder, "--out", root / "out", "--regions", "grid:3x3", "--quiet")
    assert code == 2
    assert "labels.csv does not list 1.png, which is left out" in told
    assert "1 of 3 photos cannot be read: lost.png (the file does not exist)" in told
    rows = rows_of(root / "out" / "predictions.csv")
    assert [(row["file"][-5:], row["true_class"]) for row in rows[:2]] == [("2.png", NAMES[2]), ("0.png", NAMES[0])]
    assert {row["superpixels"] for row in rows[:2]} == {"9"}
    (root / "labels.csv").unlink()
    code, _, told = run(capsys, root, "--checkpoint", folder, "--out", root / "out", "--regions", "grid:3x3", "--quiet")
    assert code == 0
    assert "out/, the folder of --out, is passed over" in told
    assert len(rows_of(root / "out" / "predictions.csv")) == 3
