"""`jaxmoxi explain`: what it prints and what it writes."""

import re
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

import jaxmoxi as jm
from jaxmoxi.cli import report as _report
from jaxmoxi.cli.explain import Explain
from jaxmoxi.cli.task import parse_fill
from support.explain import CLASSES, read, search


def test_explain_prints_the_answer_and_writes_three_files(run, folder, photo):
    code, out, err, base = run()
    expected = search(folder, photo, "insertion", stop=jm.Stop(flip=True))
    steps = int(expected.num_steps)
    arrays, record = read(base)
    assert (code, err) == (0, "")
    assert 1 < steps < 16
    np.testing.assert_array_equal(arrays["order"], expected.order)
    np.testing.assert_allclose(arrays["values"], expected.values, rtol=1e-4)
    np.testing.assert_array_equal(arrays["group"], expected.order[:steps])
    assert int(arrays["num_steps"]) == steps
    assert arrays["regions"].shape == (32, 32)
    assert record["order"] == record["group"] == arrays["order"][:steps].tolist()
    np.testing.assert_allclose(record["values"], arrays["values"][:steps], rtol=1e-6)
    np.testing.assert_allclose(record["probabilities"], arrays["probabilities"][:steps], rtol=1e-6)
    name = CLASSES[record["target"]["index"]]
    assert record["target"]["name"] == name
    assert record["prediction"]["index"] == record["target"]["index"]
    assert record["num_evaluations"] == int(expected.num_evaluations)
    assert record["finished"] is True
    first, answer, count, wrote = out.splitlines()
    chance = _report.percent(record["probabilities"][-1])
    assert answer == record["answer"]
    assert count.startswith(f"{record['num_evaluations']} coalitions in ")
    assert answer.endswith(f"of 16 regions are enough for {name.split(',')[0]!r}, {chance}")
    assert first.startswith(f"tiny-vit sees {name.split(',')[0]!r}, {_report.percent(record['target_probability'])}")
    for suffix in (".png", ".npz", ".json"):
        assert f"{base}{suffix}" in wrote
    with Image.open(f"{base}.png") as picture:
        assert picture.width > 1000
    assert sorted(p.name for p in base.parent.iterdir()) == [
        "cat-insertion.json",
        "cat-insertion.npz",
        "cat-insertion.png",
    ]


def test_deletion_of_pixels_in_a_grid(run, folder, photo):
    code, out, _, base = run("--method", "deletion", "--masking", "pixels", "--regions", "grid:2x3")
    regions = jm.grid_regions(32, 32, rows=2, cols=3)
    expected = search(folder, photo, "deletion", masking="pixels", regions=regions, stop=jm.Stop(flip=True))
    arrays, record = read(base)
    assert code == 0
    np.testing.assert_array_equal(arrays["order"], expected.order)
    np.testing.assert_allclose(arrays["values"], expected.values, rtol=1e-4)
    np.testing.assert_array_equal(arrays["regions"], regions)
    assert not arrays["insertion"]
    assert (record["masking"], record["regions"], record["fill"]) == ("pixels", "grid:2x3", 0)
    assert "of 6 regions it is no longer" in out


def test_target_until_k_and_payoff(run, folder, photo, sketch):
    code, out, _, base = run("--target", "LYNX", "--until", "3", "--payoff", "log_prob")
    expected = search(folder, photo, "insertion", target=2, stop=jm.Stop(size=3), payoff="log_prob")
    arrays, record = read(base)
    assert code == 0
    np.testing.assert_array_equal(arrays["order"], expected.order)
    np.testing.assert_allclose(arrays["values"], expected.values, rtol=1e-4)
    assert record["target"] == {"index": 2, "name": "lynx"}
    assert len(record["group"]) == 3
    assert "with these 3 of 16 regions 'lynx' is" in out


def test_target_may_be_an_index(run, sketch):
    _, _, _, base = run("--target", "3", "--until", "1")
    assert read(base)[1]["target"] == {"index": 3, "name": "tiger"}


def test_until_a_confidence(run, sketch):
    _, _, _, base = run("--until", "all")
    level = round(float(np.sort(read(base)[0]["probabilities"])[-3]) - 0.005, 3)  # two sizes at least are above
    code, out, _, base = run("--until", level)
    record = read(base)[1]
    assert code == 0
    assert record["probabilities"][-1] >= level
    assert all(p < level for p in record["probabilities"][:-1])
    assert f", {_report.percent(record['probabilities'][-1])}" in out


def test_until_all_orders_everything_and_answers_up_to_the_flip(run, folder, photo):
    _, out, _, base = run("--until", "all")
    record = read(base)[1]
    flipped = search(folder, photo, "insertion", stop=jm.Stop(flip=True))
    assert sorted(record["order"]) == list(range(16))
    assert record["num_evaluations"] == 16 * 17 // 2
    assert record["group"] == np.asarray(flipped.order[: int(flipped.num_steps)]).tolist()
    assert f"these {int(flipped.num_steps)} of 16 regions are enough" in out


def test_superpixels_with_tokens(run, folder, photo, sketch):
    code, _, _, base = run("--regions", "slic:6")
    arrays, record = read(base)
    model = jm.models.load(folder)
    regions = jm.slic_regions(model.crop(Image.open(photo)), num_segments=6)
    np.testing.assert_array_equal(arrays["regions"], regions)
    assert code == 0
    assert record["num_regions"] == jm.count_regions(regions)


@pytest.mark.parametrize(("text", "fill"), [("mean", "mean"), ("blur", "blur"), ("-0.5", -0.5), (None, 0.0)])
def test_fill_is_read(text, fill):
    assert parse_fill(text) == fill


def test_fill_reaches_the_search(run, folder, photo, sketch):
    args = ["--masking", "pixels", "--regions", "grid:2x3", "--fill", "mean", "--until", "2"]
    _, _, _, base = run("--method", "deletion", *args)
    regions = jm.grid_regions(32, 32, rows=2, cols=3)
    stop = jm.Stop(size=2)
    expected = search(folder, photo, "deletion", masking="pixels", regions=regions, stop=stop, fill="mean")
    arrays, record = read(base)
    np.testing.assert_allclose(arrays["values"], expected.values, rtol=1e-4)
    assert record["fill"] == "mean"


def test_batch_size_reaches_the_search_and_credit_the_caption(run, monkeypatch):
    sizes, captions = [], []
    genuine = jm.greedy_insertion

    def draw(*args, caption, **kwargs):
        captions.append(caption)
        return Figure()

    def find(*args, batch_size, **kwargs):
        sizes.append(batch_size)
        return genuine(*args, batch_size=batch_size, **kwargs)

    monkeypatch.setattr(jm, "greedy_insertion", find)
    monkeypatch.setattr(jm.plot, "explanation", draw)
    assert run("--until", "1", "--batch-size", "5", "--credit", "photo: A. Body, CC BY 2.0")[0] == 0
    assert sizes == [5]
    assert captions[0].startswith("tiny-vit")
    assert captions[0].endswith("photo: A. Body, CC BY 2.0")


def test_without_a_photo_it_explains_the_bundled_one(run, sketch):
    code, _, _, base = run("--until", "1", photo=None)
    assert code == 0
    assert base.name == "chelsea-insertion"
    assert read(base)[1]["photo"] is None


def test_the_demonstration_asks_its_own_question_only_where_none_is_asked():
    def asked(**options):
        full = Explain(**options).filled_in()
        return full.target, full.until

    assert asked() == asked(quiet=True, regions="grid:5x5") == ("Egyptian cat", "0.7")
    assert asked(until="3") == (None, "3")
    assert asked(target="lynx") == ("lynx", "class")
    assert asked(method="deletion") == asked(photo=Path("cat.png")) == asked(model=Path("vit")) == (None, "class")


def test_a_photo_is_turned_the_right_way_up(run, photo, tmp_path, folder, sketch):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show it rotated by 270 degrees
    turned = tmp_path / "cat.png"
    Image.open(photo).transpose(Image.Transpose.ROTATE_90).save(turned, exif=exif)
    _, _, _, base = run("--until", "1", photo=turned)
    seen = read(base)[0]["photo"]
    np.testing.assert_array_equal(seen, jm.models.load(folder).crop(Image.open(photo)))


def test_quiet_prints_the_answer_alone(run, sketch):
    _, out, err, base = run("--quiet", "--until", "1")
    assert out.splitlines() == [read(base)[1]["answer"]]
    assert err == ""


def test_warm_compiles_what_the_search_needs_and_writes_nothing(run, monkeypatch):
    compiled = []
    monkeypatch.setattr(jm, "compile_greedy", lambda v, players, **options: compiled.append((players, options)) or 2)
    code, out, err, base = run("--warm", "--until", "3", "--method", "deletion")
    assert (code, err) == (0, "")
    assert re.fullmatch(r"compiled 2 programs of --method deletion in \d+ s, kept .+\n", out)
    assert not base.parent.exists() or not list(base.parent.iterdir())
    ((players, options),) = compiled
    assert players == 16
    assert options["insertion"] is False
    assert int(options["stop"].size) == 3
    code, _, err, _ = run("--warm", "--method", "minimal")
    assert code == 2
    assert "--warm compiles ahead for --method insertion and deletion" in err
