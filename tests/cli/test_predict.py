"""`jaxmoxi predict`: what it prints, what it writes, and how it ends when an input is wrong."""

import dataclasses
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import tyro
from matplotlib.figure import Figure
from PIL import Image
from skimage import data

from jaxmoxi import p2p
from jaxmoxi.cli import shared as _command
from jaxmoxi.cli.predict import Predict
from jaxmoxi.cli.shared import CommandError
from jaxmoxi.p2p import plot
from support.p2p import SMALL_CONFIG as CONFIG
from support.p2p import spread_model

NAMES = ("tabby, tabby cat", "lynx", "tiger")


@pytest.fixture(autouse=True)
def _no_cache(monkeypatch):
    """The cache on disk is the process's, not this test's."""
    monkeypatch.setattr(_command, "start_compilation_cache", lambda: None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "small"
    p2p.save(path, spread_model(), class_names=NAMES)
    return path


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    path = tmp_path_factory.mktemp("photos") / "cat.png"
    Image.fromarray(data.chelsea()[::4, ::4]).save(path)
    return path


@pytest.fixture
def sketch(monkeypatch):
    """An empty picture, where drawing it is not what a test is about."""
    monkeypatch.setattr(plot, "prediction", lambda *args, **kwargs: Figure())


def test_what_it_prints_and_writes(photo, folder, tmp_path, capsys):
    assert Predict((photo,), folder, out=tmp_path / "out").run() == 0
    lines = capsys.readouterr().out.splitlines()
    base = tmp_path / "out" / "cat-p2p"
    assert sorted(p.name for p in base.parent.iterdir()) == ["cat-p2p.json", "cat-p2p.npz", "cat-p2p.png"]
    record = json.loads(base.with_suffix(".json").read_text())
    arrays = np.load(base.with_suffix(".npz"), allow_pickle=False)
    assert arrays["photo"].shape == (32, 32, 3)
    assert record["num_regions"] == len(np.unique(arrays["regions"])) <= 18
    assert lines[0] == f"{folder} chooses among {record['num_regions']} superpixels of {photo}"
    assert lines[1] == record["answer"]
    assert lines[2].startswith("the classifier ran ")
    assert lines[3] == f"wrote {', '.join(str(base.with_suffix(s)) for s in ('.png', '.npz', '.json'))}"

    out = p2p.predict(p2p.load(folder), arrays["photo"][None], arrays["regions"][None])
    top = int(out.classes[0])
    assert record["prediction"]["index"] == top
    assert record["prediction"]["name"] == NAMES[top]
    assert record["answer"].startswith(f"{NAMES[top].split(',')[0]!r}, ")
    np.testing.assert_allclose(record["probabilities"], out.probabilities[0], rtol=1e-4)
    np.testing.assert_allclose(record["threshold"], out.threshold[0])
    np.testing.assert_allclose(record["hard_share"], arrays["pixel_mask"].mean(), rtol=1e-5)
    assert record["kept"] == np.flatnonzero(out.group_mask[0]).tolist()
    assert record["certainty"] == 0.99
    assert record["regions"] == "slic:18"
    assert record["num_evaluations"] == int(out.num_evaluations[0])
    assert record["versions"]["jaxmoxi"]
    np.testing.assert_array_equal(arrays["group_mask"], out.group_mask[0])
    picture = np.asarray(Image.open(base.with_suffix(".png")).convert("RGB"))
    assert picture.std() > 10


def test_names_of_every_kind_and_two_photos_of_one_name(photo, tmp_path, capsys):
    hostile = (r"cost $5 \frac{ <b>|", "z" * 240, "two\nlines")
    checkpoint = tmp_path / "run $1 <b> | $2"
    p2p.save(checkpoint, spread_model(), class_names=hostile)
    pictures = []
    for folder, turn in (("a", 0), ("b", 90), ("a", 0)):
        path = tmp_path / folder / os.fsdecode(b"caf\xe9 $1.png")
        path.parent.mkdir(exist_ok=True)
        with open(path, "wb") as file:
            Image.open(photo).rotate(turn).save(file, "PNG")
        assert Predict((path,), checkpoint, out=tmp_path / "out").run() == 0
        pictures.append(capsys.readouterr())
    stems = ("caf-xe9 $1-2-p2p", "caf-xe9 $1-p2p")
    assert {p.name for p in (tmp_path / "out").iterdir()} == {
        f"{s}{e}" for s in stems for e in (".json", ".npz", ".png")
    }
    assert [bool(printed.err) for printed in pictures] == [False, True, False]
    assert "are called caf-xe9 $1-2-p2p" in pictures[1].err
    record = json.loads((tmp_path / "out" / f"{stems[0]}.json").read_text())
    assert record["photo"] == str(tmp_path / "b" / os.fsdecode(b"caf\xe9 $1.png"))
    assert record["classes"] == list(hostile)


@pytest.mark.usefixtures("sketch")
def test_a_certainty_a_grid_and_quiet(photo, folder, tmp_path, capsys):
    shares = []
    for certainty in (0.4, 1.0):
        options = Predict((photo,), folder, certainty=certainty, regions="grid:4x4", out=tmp_path, quiet=True)
        assert options.run() == 0
        (line,) = capsys.readouterr().out.splitlines()
        record = json.loads((tmp_path / "cat-p2p.json").read_text())
        assert line == record["answer"]
        assert "of 16 superpixels" in line
        shares.append((record["threshold"], record["certain"], "never as certain as 1" in line))
    assert shares[0] == (0.05, True, False)
    assert shares[1] == (1.0, False, True)


@pytest.mark.usefixtures("sketch")
def test_a_fixed_threshold_without_names(photo, tmp_path, capsys):
    model = spread_model(dataclasses.replace(CONFIG, dynamic_threshold=False, threshold=0.2), seed=1)
    p2p.save(tmp_path / "fixed", model)
    assert Predict((photo,), tmp_path / "fixed", out=tmp_path, quiet=True).run() == 0
    record = json.loads((tmp_path / "cat-p2p.json").read_text())
    assert record["certainty"] is None
    assert record["threshold"] == 0.2
    assert record["prediction"]["name"] == f"class {record['prediction']['index']}"
    with pytest.raises(CommandError, match=r"--certainty: the model of .*fixed has a fixed threshold \(0.2\)"):
        Predict((photo,), tmp_path / "fixed", certainty=0.9, out=tmp_path).run()


@pytest.mark.usefixtures("sketch")
def test_any_kind_of_image(folder, tmp_path):
    """A grey picture on its side, with transparency: what `explain` takes, this takes."""
    grey = Image.fromarray(data.camera()[:200, :120])
    exif = Image.Exif()
    exif[0x0112] = 6
    grey.save(tmp_path / "turned.jpg", exif=exif)
    clear = Image.fromarray(np.dstack([data.chelsea()[:90, :70], np.full((90, 70), 128, np.uint8)]), "RGBA")
    clear.save(tmp_path / "clear.png")
    for name in ("turned.jpg", "clear.png"):
        assert Predict((tmp_path / name,), folder, out=tmp_path, quiet=True).run() == 0
    photo = np.load(tmp_path / "turned-p2p.npz", allow_pickle=False)["photo"].astype(float)
    upright = Image.fromarray(np.rot90(data.camera()[:200, :120], -1)).resize((62, 37)).crop((15, 2, 47, 34))
    assert np.corrcoef(photo[..., 0].ravel(), np.asarray(upright, float).ravel())[0, 1] > 0.9


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"certainty": 1.5}, r"--certainty: expected a probability in \(0, 1\], such as 0.9; got 1.5"),
        ({"photos": (Path("nowhere.png"),)}, "nowhere.png does not exist; expected an image file"),
        ({"checkpoint": Path("nowhere")}, "--checkpoint: expected a P2P checkpoint.*no such folder"),
        ({"regions": "grid:9x9"}, "--regions grid:9x9: the model knows at most 18 regions; ask for no more"),
        ({"regions": "slic:19"}, "--regions slic:19: the model knows at most 18 regions"),
        ({"regions": "hex:3"}, "--regions: expected regions of grid:ROWSxCOLUMNS or slic:COUNT; got 'hex:3'"),
        ({"regions": "slic:0"}, "--regions: expected regions of .*; got 'slic:0'"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(photo, folder, tmp_path, change, message):
    options = dataclasses.replace(Predict((photo,), folder, out=tmp_path / "out"), **change)
    with pytest.raises(CommandError, match=message):
        options.run()
    assert not (tmp_path / "out").exists()


def test_damaged_files_and_a_place_that_cannot_be_written(photo, folder, tmp_path):
    (tmp_path / "cut.png").write_bytes(photo.read_bytes()[:1000])
    with pytest.raises(CommandError, match="cut.png cannot be read as an image"):
        Predict((tmp_path / "cut.png",), folder).run()
    shutil.copytree(folder, tmp_path / "damaged")
    (tmp_path / "damaged" / "config.json").write_text("{}")
    with pytest.raises(CommandError, match="--checkpoint: .*config.json is not the record of a P2P checkpoint"):
        Predict((photo,), tmp_path / "damaged").run()
    (tmp_path / "file").write_text("")
    with pytest.raises(CommandError, match="--out .*file.*: cannot write there"):
        Predict((photo,), folder, out=tmp_path / "file" / "out").run()


def test_options_as_typed(photo):
    typed = [str(photo), "--checkpoint", "runs/a", "--certainty", "0.9", "--regions", "slic:50", "--quiet"]
    found = tyro.cli(Predict, args=typed)
    assert found == Predict((photo,), Path("runs/a"), certainty=0.9, regions="slic:50", quiet=True)
    assert found.out == Path("jaxmoxi-out")
