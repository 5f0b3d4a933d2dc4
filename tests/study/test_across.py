"""Several models under one study: what the report says of them together, and heads of few classes."""

import re
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest

import jaxmoxi as jm
from jaxmoxi.study import across, across_report, heads, run_study, store
from support.study import tiny_classifier, tiny_config, write_photos

TWO = {"a": tiny_classifier("a"), "b": tiny_classifier("b")}
CONFIG = tiny_config(methods=("moxi", "random"), metrics=("sparseness",), regions="grid:2x2", target="prediction")


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = write_photos(tmp_path_factory.mktemp("photos"), 3)
    out = tmp_path_factory.mktemp("across") / "out"
    report = run_study(folder, TWO, out, CONFIG, shard_size=2, progress=False).read_text()
    return folder, out, report


def orders_of(out):
    shards = {path.name: store.read_shard(path) for path in sorted((out / "shards").iterdir())}
    return [{r.photo: r.measured for n, rs in shards.items() if n[0] == m for r in rs} for m in "01"]


def test_agreement_is_that_of_the_orders_in_the_shards(done):
    _, out, report = done
    one, other = orders_of(out)
    correlations = []
    for photo in one:
        a, b = (np.argsort(m[photo].orders[m[photo].methods.index("moxi")], 1) for m in (one, other))
        correlations += [np.corrcoef(x, y)[0, 1] for x, y in zip(a, b, strict=True)]
    row = next(line for line in report.splitlines() if line.startswith("| a and b"))
    cells = [cell.strip() for cell in row.split("|")]
    assert cells[2] == "3"
    assert float(cells[3].split(" ")[0]) == pytest.approx(np.mean(correlations), abs=6e-4)
    assert "3 photos are measured under two models or more" in report


def test_areas_of_one_models_orders_are_those_of_its_curves_under_the_other(done):
    folder, out, report = done
    one, other = orders_of(out)
    areas = []
    for photo, measured in one.items():
        model = TWO["b"]
        image = model.preprocess(jm.study.read_photo(folder / photo))
        v = jm.token_value_fn(model, image, other[photo].target, jm.grid_regions(16, 16, rows=2, cols=2))
        curve = jm.deletion_curve(v, measured.orders[measured.methods.index("moxi"), 1])
        areas.append(float(curve.probability_area))
    deletion = report[report.index("### Deletion") :]
    cells = next(line for line in deletion.splitlines() if line.startswith("| b, order of a")).split("|")
    assert float(cells[3].strip().split(" ")[0]) == pytest.approx(np.mean(areas), abs=6e-4)
    assert len(re.findall(r"^\| [ab], its own order", deletion, re.M)) == 2


def test_is_made_once_and_again_where_it_is_damaged(done):
    folder, out, report = done
    path = out / "across.npz"
    before = path.stat().st_mtime_ns
    run_study(folder, TWO, out, CONFIG, shard_size=2, progress=False)
    assert path.stat().st_mtime_ns == before
    path.write_bytes(path.read_bytes()[:100])
    again = run_study(folder, TWO, out, CONFIG, shard_size=2, progress=False).read_text()
    assert again == report
    path.unlink()
    assert run_study(folder, TWO, out, CONFIG, shard_size=2, progress=False).read_text() == report


def test_agreement_by_hand():
    orders = np.array([[0, 1, 2, 3], [0, 1, 2, 3]]), np.array([[3, 2, 1, 0], [0, 1, 2, 3]])
    assert across.agreement(*orders) == (0.0, (0.5, 0.5))  # opposite for insertion, the same for deletion
    assert across.agreement(orders[0], orders[0]) == (1.0, (1.0, 1.0))
    assert [across.top_count(0.1, p) for p in (4, 49, 196)] == [1, 5, 20]


def test_heads_of_few_classes_leave_out_the_other_photos(tmp_path):
    folder = write_photos(tmp_path / "photos", 6)  # red 2, green 2, blue 1, grey 1
    config = tiny_config(methods=("random",), metrics=("sparseness",), regions="grid:2x2")
    with pytest.warns(UserWarning, match="heads of 2 classes leave out 2 of 6 photos, which show 4 classes"):
        models = heads.restricted_heads(folder, {"tiny": TWO["a"]}, (4, 2), config)
    assert list(models) == ["tiny, 4 classes", "tiny, 2 classes"]
    assert models["tiny, 2 classes"].class_names == ("red", "green")
    assert models["tiny, 4 classes"].restriction is None
    report = run_study(folder, models, tmp_path / "out", config, progress=False).read_text()
    few = report[report.index("## tiny, 2 classes") : report.index("## Across")]
    assert "Photos: 4 ok, 2 of another class." in few
    assert "Left out, as this head does not have their classes (2): blue/2.png, grey/3.png." in few
    rows = pq.read_table(tmp_path / "out" / "table.parquet").to_pylist()
    assert all(row["target"] == row["label"] for row in rows)  # in the classes of the whole head
    with pytest.raises(ValueError, match="2 to the model's 4, each once; got 5"):
        heads.restricted_heads(folder, {"tiny": TWO["a"]}, (5,), config)
    with pytest.raises(ValueError, match="with their whole heads"):
        heads.restricted_heads(folder, models, (2,), config)


@pytest.mark.slow
def test_superpixels_of_photos_cut_differently_are_not_compared(done, tmp_path):
    import dataclasses

    other = dataclasses.replace(TWO["b"], preprocessing=jm.models.Preprocessing(resize=20, crop=(16, 16)))
    for regions, told in (("slic:4", "models are not compared"), ("grid:2x2", "not quite the same part of the photo")):
        config = dataclasses.replace(CONFIG, regions=regions, methods=("random",), num_photos=1)
        report = run_study(
            done[0], {"a": TWO["a"], "b": other}, tmp_path / regions[:4], config, progress=False
        ).read_text()
        assert told in report
        rows = [line for line in report.splitlines() if line.startswith("| a and b | ")]
        assert [row.split("|")[2].strip() for row in rows] == ["0" if regions == "slic:4" else "1"] * 3
        assert ("| b, order of a" in report) == (regions != "slic:4")


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("regions", "told"), [("grid:4x4", "the same place of what each"), ("slic:9", "are not compar")]
)
def test_what_keeps_models_apart_is_said_once_for_all_heads(regions, told):
    def setting(crop, masking):
        model = SimpleNamespace(preprocessing=jm.models.Preprocessing(crop=crop))
        return SimpleNamespace(model=model, masking=masking, config=SimpleNamespace(regions=regions))

    names = ["A, 2", "A, 9", "B"]
    of = [setting((8, 8), "tokens"), setting((8, 8), "tokens"), setting((9, 9), "zero")]
    study = SimpleNamespace(settings=list(zip(names, of, strict=True)))
    first, _, second, _ = across_report._caveats(study, names)
    assert first.startswith("Photos are cut or resized in 2 ways: for A, 2 and A, 9; for B. ")
    assert told in first
    assert second == "What stands for hidden players differs: tokens of A, 2 and A, 9; zero of B."
    assert not across_report._caveats(SimpleNamespace(settings=study.settings[:2]), names[:2])
