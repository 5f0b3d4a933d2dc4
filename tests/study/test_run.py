"""The study as a whole: what it writes, what it survives, and that nobody's share of the work shows in it."""

import concurrent.futures
import dataclasses
import json
import os

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

import jaxmoxi as jm
from jaxmoxi.metrics.registry import all_columns
from jaxmoxi.study import read_photo, run, run_study, store
from support.study import METHODS, broken_files, files, tiny_classifier, tiny_config, write_photos


def test_the_table_is_tidy(whole):
    table = pq.read_table(whole / "table.parquet").to_pylist()
    assert {row["method"] for row in table} == set(METHODS)
    assert {row["photo"] for row in table} == {"red/0.png", "red/4.png", "green/1.png", "blue/2.png", "grey/3.png"}
    assert {row["metric"] for row in table} <= set(all_columns())
    assert len({tuple(row[k] for k in ("photo", "method", "removal", "metric")) for row in table}) == len(table)
    assert all(np.isfinite(row["value"]) for row in table)


def test_its_numbers_are_those_of_the_functions_under_it(whole, models, photos):
    model = models["tiny"]
    picture = read_photo(photos / "green" / "1.png")
    image, regions = model.preprocess(picture), jm.grid_regions(16, 16, rows=2, cols=4)
    v = jm.token_value_fn(model, image, 1, regions)
    results = [r for path in sorted((whole / "shards").iterdir()) for r in store.read_shard(path)]
    measured = next(r.measured for r in results if r.photo == "green/1.png")
    assert measured.target == 1
    orders = measured.orders[measured.methods.index("moxi")]
    np.testing.assert_array_equal(orders[0], jm.greedy_insertion(v, 8).order)
    np.testing.assert_array_equal(orders[1], jm.greedy_deletion(v, 8).order)
    rows = pq.read_table(whole / "table.parquet").to_pylist()
    told = {r["metric"]: r["value"] for r in rows if (r["photo"], r["method"]) == ("green/1.png", "moxi")}
    for d, curve in enumerate((jm.insertion_curve(v, orders[0]), jm.deletion_curve(v, orders[1]))):
        name = ("insertion", "deletion")[d]
        area = np.trapezoid(curve.probabilities, dx=1 / 8)
        np.testing.assert_allclose(told[f"{name} probability area"], area, rtol=1e-5)
        np.testing.assert_allclose(told[f"{name} accuracy area"], curve.accuracy_area, rtol=1e-6)
    highest = jm.insertion_curve(v, orders[0]).probabilities.max()
    np.testing.assert_allclose(told["highest probability"], highest, rtol=1e-5)


def test_a_finished_study_is_left_alone(whole, models, photos):
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("*")}
    assert run_study(photos, models, whole, tiny_config(), shard_size=2, progress=False) == whole / "report.md"
    assert {path: path.stat().st_mtime_ns for path in whole.rglob("*")} == before


def test_a_lost_shard_is_made_again_and_nothing_changes(whole, models, photos, tmp_path):
    out = tmp_path / "again"
    run_study(photos, models, out, tiny_config(), shard_size=2, progress=False)
    (out / "shards" / "0-000001.npz").unlink()
    (out / "report.md").unlink()
    kept = (out / "shards" / "0-000000.npz").stat().st_mtime_ns
    run_study(photos, models, out, tiny_config(), shard_size=2, progress=False)
    assert (out / "shards" / "0-000000.npz").stat().st_mtime_ns == kept
    assert files(out) == files(whole)


def test_processes_share_the_work_and_the_result_is_that_of_one(whole, models, photos, tmp_path):
    def run(index):
        config = tiny_config()
        run_study(
            photos, models, tmp_path / "out", config, shard_size=2, process=(index, 3), progress=False,
            poll_seconds=0.05,
        )  # fmt: skip

    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        list(pool.map(run, range(3)))
    assert files(tmp_path / "out") == files(whole)


def test_masks_of_a_table(models, tmp_path):
    folder = write_photos(tmp_path / "photos", 4)
    names = [str(path.relative_to(folder)) for path in sorted(folder.rglob("*.png"))]
    Image.new("L", (24, 20), 255).save(folder / "all.png")
    Image.new("L", (5, 7), 255).save(folder / "small.png")
    masks = ("all.png", "small.png", "none.png", "")
    lines = [f"{name},0,{mask}" for name, mask in zip(names, masks, strict=True)]
    (folder / "labels.csv").write_text("\n".join(["file,label,mask", *lines]))
    config = tiny_config(methods=("random",), metrics=("localisation",))
    report = run_study(folder, models, tmp_path / "out", config, progress=False).read_text()
    wanted = "expected the size of the photo, 24 x 20 pixels; got 5 x 7"
    assert f"- {names[1]}: unreadable: its mask: {wanted}" in report
    assert f"- {names[2]}: unreadable: its mask: " in report
    rows = pq.read_table(tmp_path / "out" / "table.parquet").to_pylist()
    inside = {(row["photo"], row["value"]) for row in rows if row["metric"] == "energy inside"}
    assert inside == {(names[0], 1.0)}
    (folder / "labels.csv").write_text("file,label,mask,x0,y0,x1,y1\na.png,0,all.png,0,0,1,1")
    with pytest.raises(ValueError, match="line 2 of .*a.png has a mask and a box; give one of them"):
        run_study(folder, models, tmp_path / "other", config, progress=False)


def test_drafts_of_killed_runs_are_swept(models, photos, tmp_path):
    config = tiny_config(methods=("random",), metrics=("localisation",))
    run_study(photos, models, tmp_path, config, progress=False)
    draft = tmp_path / "shards" / ".0-000000.npz.host.1.tmp"
    draft.write_bytes(b"half")
    (tmp_path / "report.md").unlink()
    run_study(photos, models, tmp_path, config, progress=False)
    assert not draft.exists()


def test_other_settings_are_refused(whole, models, photos):
    with pytest.raises(ValueError, match=r"a study with other settings: config.samples \(there 8, now 9\)"):
        run_study(photos, models, whole, tiny_config(samples=9), shard_size=2, progress=False)
    with pytest.raises(ValueError, match=r"models.tiny.weights \(there"):
        run_study(photos, {"tiny": tiny_classifier("other")}, whole, tiny_config(), shard_size=2, progress=False)
    model = models["tiny"]
    brighter = dataclasses.replace(model, preprocessing=dataclasses.replace(model.preprocessing, mean=(0.4, 0.4, 0.4)))
    with pytest.raises(ValueError, match=r"models.tiny.weights \(there"):
        run_study(photos, {"tiny": brighter}, whole, tiny_config(), shard_size=2, progress=False)


def test_models_in_another_order_are_refused(models, photos, tmp_path):
    """Shards are numbered by it: one model's numbers would pass for the other's."""
    config = tiny_config(methods=("random",), metrics=("localisation",), num_photos=1)
    two = {"a": models["tiny"], "b": tiny_classifier("other")}
    run_study(photos, two, tmp_path / "out", config, progress=False)
    with pytest.raises(ValueError, match=r"order of the models \(there \['a', 'b'\], now \['b', 'a'\]\)"):
        run_study(photos, dict(reversed(two.items())), tmp_path / "out", config, progress=False)


def test_a_photos_numbers_do_not_depend_on_the_others(whole, models, photos, tmp_path):
    run_study(photos, models, tmp_path / "out", tiny_config(num_photos=2), shard_size=2, progress=False)
    rows = pq.read_table(tmp_path / "out" / "table.parquet").to_pylist()
    assert {row["photo"] for row in rows} == {"blue/2.png", "red/4.png"}
    everything = pq.read_table(whole / "table.parquet").to_pylist()
    assert all(row in everything for row in rows)


def test_photos_without_labels_are_refused_where_the_study_asks_for_them(models, tmp_path):
    folder = write_photos(tmp_path / "photos", 1)
    (folder / "red" / "0.png").rename(folder / "0.png")
    with pytest.raises(ValueError, match="does not tell what its photos show, and the study asks for it"):
        run_study(folder, models, tmp_path / "out", tiny_config(), progress=False)
    assert not (tmp_path / "out").exists()
    path = run_study(
        folder, models, tmp_path / "out", tiny_config(methods=("moxi",), target="prediction"), progress=False
    )
    assert "Photos: 1 ok" in path.read_text()


def test_names_that_are_no_utf8_and_photos_too_narrow_to_resize(tmp_path):
    folder = write_photos(tmp_path / "photos", 1)
    os.rename(folder / "red" / "0.png", os.fsencode(folder / "red") + b"/caf\xe9.png")
    Image.new("RGB", (1, 60_000)).save(folder / "red" / "narrow.png")
    model = tiny_classifier()
    model = dataclasses.replace(
        model, preprocessing=dataclasses.replace(model.preprocessing, resize=256, crop=(16, 16))
    )
    config = tiny_config(methods=("random",), metrics=("curves",))
    report = run_study(folder, {"tiny": model}, tmp_path / "out", config, progress=False).read_text()
    assert "Photos: 1 ok, 1 failed" in report
    assert "- red/narrow.png: failed: expected a photo of usual proportions; one of 60000 x 1 pixels" in report
    rows = pq.read_table(tmp_path / "out" / "table.parquet").to_pylist()
    assert {row["photo"] for row in rows} == {"red/caf\\xe9.png"}


def test_broken_photos_end_in_the_report(models, tmp_path):
    folder = write_photos(tmp_path / "photos", 2)
    broken = broken_files(folder / "red")
    run_study(folder, models, tmp_path / "out", tiny_config(methods=("random",), metrics=("curves",)), progress=False)
    report = (tmp_path / "out" / "report.md").read_text()
    assert f"{len(broken)} unreadable" in report
    for name, _ in broken:
        assert f"- red/{name}: unreadable: " in report
    assert len({row["photo"] for row in pq.read_table(tmp_path / "out" / "table.parquet").to_pylist()}) == 2


def test_photos_that_are_not_classified_correctly_are_left_out(models, photos, tmp_path):
    model = models["tiny"]
    right = [
        path
        for path in sorted(photos.rglob("*.png"))
        if int(np.argmax(model.logits(model.preprocess(read_photo(path))[None]))) == model.find_class(path.parent.name)
    ]
    out = tmp_path / "out"
    run_study(
        photos, models, out, tiny_config(methods=("random",), metrics=("curves",), only_correct=True), progress=False
    )
    report = (out / "report.md").read_text()
    assert f"{5 - len(right)} not classified correctly" in report
    assert 0 < 5 - len(right) <= 5


def test_a_full_disk_stops_it_with_what_was_written(models, photos, tmp_path, monkeypatch):
    real, count = store.write_whole, [0]

    def full(path, data):
        count[0] += 1
        if count[0] > 2:
            raise OSError(28, "No space left on device")
        real(path, data)

    monkeypatch.setattr(store, "write_whole", full)
    with pytest.raises(OSError, match="No space left"):
        run_study(photos, models, tmp_path / "out", tiny_config(), shard_size=1, progress=False)
    assert sorted(p.name for p in (tmp_path / "out" / "shards").iterdir()) == ["0-000000.npz", "0-000001.npz"]


@pytest.mark.parametrize(
    ("error", "listed"),
    [
        (jm.InputError("expected a larger photo"), "failed: expected a larger photo"),
        (jm.NaNValueError("the value function returned NaN"), "failed: the value function returned NaN"),
        (ValueError("operands could not be broadcast together"), None),
    ],
)
def test_only_errors_that_concern_a_photo_are_listed(models, photos, tmp_path, monkeypatch, error, listed):
    """A mistake inside the package is nothing that a photo did: it ends the study, with its traceback."""

    def fail(*args, **options):
        raise error

    monkeypatch.setattr(run, "measure_photo", fail)
    config = tiny_config(methods=("random",), metrics=("curves",), num_photos=1)
    if listed is None:
        with pytest.raises(ValueError, match="operands could not be broadcast together"):
            run_study(photos, models, tmp_path / "out", config, progress=False)
        assert list((tmp_path / "out" / "shards").iterdir()) == []
    else:
        report = run_study(photos, models, tmp_path / "out", config, progress=False).read_text()
        assert f"- blue/2.png: {listed}" in report


def test_a_study_of_an_earlier_version_is_refused(whole, models, photos, tmp_path):
    record = json.loads((whole / "study.json").read_text())
    del record["format"]
    (tmp_path / "study.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match="holds a study of another version of jaxmoxi, whose shards .*; name another"):
        run_study(photos, models, tmp_path, tiny_config(), shard_size=2, progress=False)
