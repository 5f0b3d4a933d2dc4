"""The study as a whole: what it writes, what it survives, and that nobody's share of the work shows in it."""

import concurrent.futures
import dataclasses
import io
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

import jaxmoxi as jm
from jaxmoxi.models.preprocess import Preprocessing
from jaxmoxi.study import measure_photo, read_photo, run_study, setting, store
from jaxmoxi.study.photos import Photo, read_mask
from jaxmoxi.study.report import HIGHER, _mean
from support.study import METHODS, broken_files, tiny_classifier, tiny_config, write_photos


@pytest.fixture(scope="module")
def models():
    return {"tiny": tiny_classifier()}


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return write_photos(tmp_path_factory.mktemp("photos"))


@pytest.fixture(scope="module")
def whole(models, photos, tmp_path_factory):
    """A study that nothing interrupted."""
    out = tmp_path_factory.mktemp("studies") / "whole"
    run_study(photos, models, out, tiny_config(), shard_size=2, progress=False)
    return out


def files(out):
    """Everything that must not depend on how a study came about; a shard's times do."""
    names = ["report.md", "table.parquet", "study.json", *sorted(p.name for p in (out / "figures").iterdir())]
    found = {n: ((out / n) if (out / n).exists() else out / "figures" / n).read_bytes() for n in names}
    for path in sorted((out / "shards").iterdir()):
        for key, array in store.read_shard(path).items():
            if key != "seconds":
                found[f"{path.name}/{key}"] = array.tobytes()
    return found


def test_the_table_is_tidy(whole):
    table = pq.read_table(whole / "table.parquet").to_pylist()
    assert {row["method"] for row in table} == set(METHODS)
    assert {row["photo"] for row in table} == {"red/0.png", "red/4.png", "green/1.png", "blue/2.png", "grey/3.png"}
    assert {row["metric"] for row in table} <= set(HIGHER)
    assert len({tuple(row[k] for k in ("photo", "method", "removal", "metric")) for row in table}) == len(table)
    assert all(np.isfinite(row["value"]) for row in table)


def test_its_numbers_are_those_of_the_functions_under_it(whole, models, photos):
    model = models["tiny"]
    picture = read_photo(photos / "green" / "1.png")
    image, regions = model.preprocess(picture), jm.grid_regions(16, 16, rows=2, cols=4)
    v = jm.token_value_fn(model, image, 1, regions)
    shard = store.read_shard(whole / "shards" / "0-000000.npz")
    names = [str(s) for s in json.loads((whole / "study.json").read_text())["models"]["tiny"]["methods"]]
    place = next(i for i in range(2) if int(shard[f"{i}/target"]) == 1)
    orders = shard[f"{place}/orders"][names.index("moxi")]
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


@pytest.mark.slow
def test_devices_change_nothing_but_rounding(models, photos):
    picture = read_photo(photos / "blue" / "2.png")
    key, config = jax.random.key(3), tiny_config(methods=("gradient", "moxi", "rise"))
    mesh = jax.make_mesh((2,), ("devices",))
    one = measure_photo(key, setting(models["tiny"], config), picture, label=2)
    two = measure_photo(key, setting(models["tiny"], config, mesh=mesh), picture, label=2)
    assert one.keys() == two.keys()
    for name in one:
        np.testing.assert_allclose(one[name], two[name], rtol=1e-4, atol=1e-4, err_msg=name)


def test_boxes_are_where_the_model_sees_them(models, photos):
    picture = read_photo(photos / "blue" / "2.png")  # 24 x 20, squashed to 16 x 16
    config = tiny_config(metrics=("localisation",))
    boxes = np.float32([[0, 0, 24, 10]])  # the upper half: the first of two rows of regions
    out = measure_photo(jax.random.key(0), setting(models["tiny"], config), picture, label=2, boxes=boxes)
    best = out["orders"][:, 0, 0]
    np.testing.assert_array_equal(out["localisation"][:, 0], (best < 4).astype(np.float32))
    assert 0 < out["localisation"][:, 0].sum() < len(best)


def test_masks_are_where_the_model_sees_them(models, photos, tmp_path):
    """A mask of the upper half says what a box of the upper half says, whatever its bright value."""
    picture = read_photo(photos / "blue" / "2.png")
    task = setting(models["tiny"], tiny_config(metrics=("localisation",)))
    drawn = np.zeros((20, 24), np.uint8)
    drawn[:10] = 1
    Image.fromarray(drawn).save(tmp_path / "mask.png")
    box = measure_photo(jax.random.key(0), task, picture, label=2, boxes=np.float32([[0, 0, 24, 10]]))
    mask = read_mask(tmp_path / "mask.png", picture.size)
    out = measure_photo(jax.random.key(0), task, picture, label=2, mask=mask)
    np.testing.assert_allclose(out["localisation"], box["localisation"], atol=1e-6)


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
    assert f"- `{names[1]}`: unreadable: its mask: {wanted}" in report
    assert f"- `{names[2]}`: unreadable: its mask: " in report
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
    assert "- `red/narrow.png`: failed: expected a photo of usual proportions; one of 60000 x 1 pixels" in report
    rows = pq.read_table(tmp_path / "out" / "table.parquet").to_pylist()
    assert {row["photo"] for row in rows} == {"red/caf\\xe9.png"}


def test_numbers_that_are_not_defined_are_left_out_of_means():
    """A pointing game without an object in the crop is NaN; the other photos still count."""
    assert _mean([1.0, np.nan, 3.0]) == pytest.approx((2.0, 1.96))
    assert _mean([np.nan]) is None


def test_chunks_change_nothing_but_rounding(models, photos):
    photo = read_photo(photos / "red" / "0.png")
    one, other = (
        measure_photo(jax.random.key(0), setting(models["tiny"], tiny_config(), batch_size=size), photo, label=0)
        for size in (None, 3)
    )
    np.testing.assert_array_equal(one["orders"], other["orders"])
    np.testing.assert_allclose(
        one["tokens/insertion/probabilities"], other["tokens/insertion/probabilities"], atol=1e-6
    )
    with pytest.raises(ValueError, match="batch_size"):
        measure_photo(jax.random.key(0), setting(models["tiny"], tiny_config(), batch_size=0), photo, label=0)


def test_a_model_without_tokens_leaves_out_their_removal():
    class Convolutional:
        name, token_grid, logits = "cnn", None, staticmethod(lambda images: images.mean((1, 2)))
        preprocessing = Preprocessing(resize=(16, 16), crop=(16, 16))

    config = tiny_config(methods=("moxi", "grad-cam"), removals=("tokens", "mean"))
    task = setting(Convolutional(), config)
    assert (task.methods, task.removals, task.masking) == (("moxi",), ("mean",), "zero")
    with pytest.raises(ValueError, match="cnn has no tokens to remove"):
        setting(Convolutional(), dataclasses.replace(config, removals=("tokens",)))


def test_a_folder_of_something_else_is_refused(models, photos, tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(ValueError, match="holds other files and no study"):
        run_study(photos, models, tmp_path, tiny_config(), progress=False)


def test_broken_photos_end_in_the_report(models, tmp_path):
    folder = write_photos(tmp_path / "photos", 2)
    broken = broken_files(folder / "red")
    run_study(folder, models, tmp_path / "out", tiny_config(methods=("random",), metrics=("curves",)), progress=False)
    report = (tmp_path / "out" / "report.md").read_text()
    assert f"{len(broken)} unreadable" in report
    for name, _ in broken:
        assert f"- `red/{name}`: unreadable: " in report
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


def test_what_is_not_written_whole_is_not_there(tmp_path, monkeypatch):
    from etils import epath

    path = epath.Path(tmp_path) / "x.npz"
    monkeypatch.setattr(type(path), "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "full")))
    with pytest.raises(OSError, match="full"):
        store.write_whole(path, b"data")
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_shard_is_named(tmp_path):
    from etils import epath

    (tmp_path / "0-000000.npz").write_bytes(b"PK")
    with pytest.raises(ValueError, match="the shard .*0-000000.npz is damaged"):
        store.read_shard(epath.Path(tmp_path) / "0-000000.npz")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"methods": ("lime",)}, "expected methods among grad-cam"),
        ({"methods": ("random", "random")}, "methods names random twice"),
        ({"metrics": ()}, "expected at least one of curves"),
        ({"regions": "hex:9"}, "expected regions of grid:ROWSxCOLUMNS"),
        ({"samples": 1}, "samples must be at least 2; got 1"),
        ({"methods": ("random",)}, '"agreement" compares orders with those of the method "moxi"'),
    ],
)
def test_settings_that_cannot_be(changes, message):
    with pytest.raises(ValueError, match=message):
        tiny_config(**changes)


def test_fewer_sizes_are_dense_at_both_ends():
    sizes = dataclasses.replace(tiny_config(), sizes=25).curve_sizes(196)
    assert sizes[:2] == [0, 1]
    assert sizes[-2:] == [195, 196]
    assert np.diff(sizes).max() == np.diff(sizes)[len(sizes) // 2]
    assert tiny_config().curve_sizes(5) == [0, 1, 2, 3, 4, 5]


@pytest.mark.slow
def test_superpixels_differ_in_number_and_are_studied_all_the_same(models, photos, tmp_path):
    settings = dict(methods=("random", "gradient"), metrics=("curves", "road"), masking="zero", sizes=4, num_photos=2)
    run_study(photos, models, tmp_path / "out", tiny_config(regions="slic:6", **settings), progress=False)
    assert "2 ok" in (tmp_path / "out" / "report.md").read_text()


def test_photo_is_a_plain_tuple():
    assert json.loads(json.dumps(Photo("a", 1))) == ["a", 1, [], "", ""]


def test_npz_bytes_follow_from_their_arrays():
    first, second = io.BytesIO(), io.BytesIO()
    for file in (first, second):
        np.savez_compressed(file, a=np.arange(5))
        time.sleep(0.01)
    assert first.getvalue() == second.getvalue()


RUN = """
import sys
import jax
from pathlib import Path
from support.study import tiny_classifier, tiny_config
from jaxmoxi.study import run_study
photos, out, coordinator, count, index = sys.argv[1:]
if coordinator:
    jax.distributed.initialize(coordinator, int(count), int(index))
process = (jax.process_index(), jax.process_count())
run_study(Path(photos), {"tiny": tiny_classifier()}, Path(out), tiny_config(), shard_size=1, process=process,
          progress=False, poll_seconds=0.2)
"""


def start(photos, out, cache, coordinator="", count=1, index=0):
    tests = Path(__file__).parents[1]
    env = {
        **os.environ, "PYTHONPATH": str(tests), "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }  # fmt: skip
    words = [str(x) for x in (photos, out, coordinator, count, index)]
    return subprocess.Popen([sys.executable, "-c", RUN, *words], env=env)


@pytest.mark.slow
def test_killed_at_any_moment_it_goes_on(tmp_path):
    """SIGKILL at random moments, KILLS times (default 5); each time the same command goes on."""
    photos, cache = write_photos(tmp_path / "photos", 24), tmp_path / "cache"
    assert start(photos, tmp_path / "whole", cache).wait() == 0
    rng, out, kills = random.Random(0), tmp_path / "killed", 0
    while kills < int(os.environ.get("KILLS", "5")):
        process = start(photos, out, cache)
        seen = len(list(out.glob("shards/*.npz")))
        while process.poll() is None and len(list(out.glob("shards/*.npz"))) == seen:
            time.sleep(0.005)
        time.sleep(rng.uniform(0, 0.05))
        if process.poll() is not None:  # it ended first: begin again with fewer shards
            for path in out.glob("shards/*.npz"):
                path.unlink()
            (out / "report.md").unlink()
            continue
        process.send_signal(signal.SIGKILL)
        process.wait()
        kills += 1
    assert start(photos, out, cache).wait() == 0
    assert files(out) == files(tmp_path / "whole")


@pytest.mark.slow
def test_two_processes_on_loopback(tmp_path):
    photos, cache = write_photos(tmp_path / "photos", 6), tmp_path / "cache"
    assert start(photos, tmp_path / "one", cache).wait() == 0
    address = f"127.0.0.1:{random.randrange(20_000, 60_000)}"
    pair = [start(photos, tmp_path / "two", cache, address, 2, i) for i in range(2)]
    assert [process.wait(timeout=300) for process in pair] == [0, 0]
    assert files(tmp_path / "two") == files(tmp_path / "one")
