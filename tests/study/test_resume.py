"""Going on with a study: what has changed, what is damaged, what is missing, and what is another's."""

import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from jaxmoxi.study import run, run_study, store
from jaxmoxi.study.measure import measure_photo
from jaxmoxi.study.report import has_results
from support.study import files, tiny_config, write_photos

SETTINGS = dict(methods=("random", "gradient"), metrics=("curves",), sizes=4)


def study(photos, models, out, **options):
    return run_study(photos, models, out, tiny_config(**SETTINGS), shard_size=2, progress=False, **options)


@pytest.fixture(scope="module")
def finished(models, tmp_path_factory):
    """Photos, and a finished study of them."""
    folder = tmp_path_factory.mktemp("finished")
    study(write_photos(folder / "photos"), models, folder / "out")
    return folder


@pytest.fixture
def mine(finished, tmp_path):
    return shutil.copytree(finished / "photos", tmp_path / "photos")


@pytest.fixture
def out(finished, tmp_path):
    return shutil.copytree(finished / "out", tmp_path / "out")


def repaint(path, seed=9):
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (20, 24, 3), np.uint8)).save(path)


def test_a_photo_that_has_changed_is_measured_again_and_named(out, mine, models, tmp_path, monkeypatch):
    repaint(mine / "blue" / "2.png")
    seen = []
    real = measure_photo
    monkeypatch.setattr(run, "measure_photo", lambda *a, **k: seen.append(k["label"]) or real(*a, **k))
    with pytest.warns(
        UserWarning, match="1 photo has changed since the study measured it, and is measured again: blue"
    ):
        study(mine, models, out)
    assert seen == [2]  # this one alone
    study(mine, models, tmp_path / "fresh")
    assert files(out) == files(tmp_path / "fresh")


def test_a_mask_that_has_changed_counts_where_masks_are_read(models, tmp_path):
    folder = write_photos(tmp_path / "photos", 1)
    Image.new("L", (24, 20), 255).save(folder / "mask.png")
    (folder / "labels.csv").write_text("file,label,mask\nred/0.png,0,mask.png\n")
    config = tiny_config(methods=("random",), metrics=("localisation",))
    run_study(folder, models, tmp_path / "out", config, progress=False)
    drawn = np.zeros((20, 24), np.uint8)
    drawn[:10] = 255
    Image.fromarray(drawn).save(folder / "mask.png")
    with pytest.warns(UserWarning, match="red/0.png"):
        run_study(folder, models, tmp_path / "out", config, progress=False)
    table = pq.read_table(tmp_path / "out" / "table.parquet").to_pylist()
    assert {row["value"] for row in table if row["metric"] == "energy inside"} != {1.0}


def test_a_photo_that_could_not_be_read_and_now_can_is_measured(models, tmp_path):
    folder = write_photos(tmp_path / "photos", 2)
    good = (folder / "red" / "0.png").read_bytes()
    (folder / "red" / "0.png").write_bytes(good[:60])
    assert "1 ok, 1 unreadable" in study(folder, models, tmp_path / "out").read_text()
    (folder / "red" / "0.png").write_bytes(good)
    with pytest.warns(UserWarning, match="red/0.png"):
        report = study(folder, models, tmp_path / "out")
    assert "Photos: 2 ok" in report.read_text()


def test_numbers_of_a_photo_that_is_gone_are_kept(models, tmp_path):
    folder = write_photos(tmp_path / "photos", 2)
    (folder / "labels.csv").write_text("file,label\nred/0.png,0\ngreen/1.png,1\n")
    study(folder, models, tmp_path / "out")
    before = files(tmp_path / "out")
    (folder / "red" / "0.png").unlink()
    study(folder, models, tmp_path / "out")
    assert files(tmp_path / "out") == before


def flip(path, place):
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(bytes(data))


def test_no_bit_of_a_shard_can_be_flipped_unnoticed(out):
    """Every 97th byte: an error that names the shard, or (a bit of the file's own bookkeeping) the same results."""
    path = out / "shards" / "0-000002.npz"
    whole, results = path.read_bytes(), [str(r) for r in store.read_shard(path)]
    noticed = 0
    for place in range(0, len(whole), 97):
        flip(path, place)
        try:
            found = [str(r) for r in store.read_shard(path)]
        except ValueError as error:
            noticed += "0-000002.npz is damaged" in str(error)
        else:
            assert found == results
        path.write_bytes(whole)
    assert noticed > 5


def rewritten(path, **changes):
    """A shard whose arrays were changed by a program that knows nothing of checksums."""
    with np.load(path) as file:
        arrays = dict(file)
    np.savez_compressed(path, **{**arrays, **changes})


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"PK"),
        lambda path: path.write_bytes(path.read_bytes()[:-100]),
        lambda path: np.savez(path, format=np.int32(3)),
        lambda path: np.savez(path, format=np.asarray("three")),
        lambda path: rewritten(path, target=np.asarray([0, 3], np.int32)),
        lambda path: rewritten(path, orders=np.zeros((2, 2, 3), np.int32)),
        lambda path: rewritten(path, photo=np.asarray([{"a": 1}], object)),
    ],
)
def test_damaged_shards_end_in_one_line_before_anything_is_measured(out, mine, models, damage, monkeypatch):
    damage(out / "shards" / "0-000000.npz")
    (out / "shards" / "0-000001.npz").unlink()
    monkeypatch.setattr(run, "measure_photo", None)
    with pytest.raises(ValueError, match="the shard .*0-000000.npz is damaged .*; delete it and run the study again"):
        study(mine, models, out)


def test_a_shard_copied_over_another_is_named(out, mine, models):
    shutil.copy(out / "shards" / "0-000001.npz", out / "shards" / "0-000000.npz")
    told = r"0-000000.npz holds the photos grey/3.png, red/0.png, not blue/2.png, green/1.png: another file was copied"
    with pytest.raises(ValueError, match=told):
        study(mine, models, out)


def test_a_shard_of_another_study_or_model_is_named(out, mine, models, tmp_path):
    two = {"a": models["tiny"], "b": models["tiny"]}
    study(mine, two, tmp_path / "two")
    shutil.copy(tmp_path / "two" / "shards" / "0-000000.npz", out / "shards" / "0-000000.npz")
    with pytest.raises(ValueError, match="0-000000.npz is of a study with other settings, photos or models"):
        study(mine, models, out)
    shutil.copy(tmp_path / "two" / "shards" / "0-000001.npz", tmp_path / "two" / "shards" / "1-000001.npz")
    with pytest.raises(ValueError, match="1-000001.npz is of model number 0, not 1"):
        study(mine, two, tmp_path / "two")


@pytest.mark.parametrize(
    "damage",
    [
        lambda out: (out / "table.parquet").unlink(),
        lambda out: (out / "table.parquet").write_bytes(b""),
        lambda out: (out / "table.parquet").write_bytes((out / "table.parquet").read_bytes()[:-20]),
        lambda out: flip(out / "table.parquet", 200),
        lambda out: (out / "report.md").write_text(""),
        lambda out: (out / "report.md").write_bytes(b"\xff\xfe"),
        lambda out: (out / "report.md").write_text((out / "report.md").read_text()[:400]),
        lambda out: shutil.rmtree(out / "figures"),
        lambda out: (out / "figures" / "tiny-heat-maps.png").write_bytes(b""),
        lambda out: [path.unlink() for path in (out / "report.md", out / "table.parquet")],
    ],
)
def test_a_finished_study_makes_its_report_anew(out, mine, models, damage, monkeypatch):
    before = files(out)
    damage(out)
    monkeypatch.setattr(run, "measure_photo", None)  # from the shards alone
    assert has_results(study(mine, models, out))
    assert files(out) == before


def test_what_a_reader_adds_to_the_report_stays(out, mine, models):
    report = out / "report.md"
    report.write_text(report.read_text().replace("# Study", "# My study of cats"))
    study(mine, models, out)
    assert "# My study of cats" in report.read_text()


def test_a_stale_report_is_made_anew(out, mine, models, tmp_path):
    """A report from before a shard was measured again under another seed of the same photos."""
    old = (out / "report.md").read_text()
    repaint(mine / "red" / "0.png")
    with pytest.warns(UserWarning, match="red/0.png"):
        study(mine, models, out)
    new = (out / "report.md").read_text()
    assert new != old
    (out / "report.md").write_text(old)
    study(mine, models, out)
    assert (out / "report.md").read_text() == new


@pytest.mark.parametrize("text", ["", "{", "[1]", "null", '{"config": null}', "[" * 100_000, '{"config": ' * 9, "\xff"])
def test_damaged_settings_are_named(out, mine, models, text):
    (out / "study.json").write_bytes(text.encode("latin1"))
    with pytest.raises(ValueError, match=r"study.json does not hold the settings|holds a study with other settings|"
                       "holds a study of another version"):  # fmt: skip
        study(mine, models, out)
