"""`jaxmoxi interactions`: what it prints, and what it writes."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

import jaxmoxi as jm
from jaxmoxi.cli import findings
from jaxmoxi.cli import interactions as command
from jaxmoxi.cli import main as cli
from jaxmoxi.cli.interactions import ShowInteractions, choose_way
from support.explain import read

PICTURES = ("network", "matrix", "upset", "waterfall")


@pytest.fixture
def show(folder, photo, tmp_path, capsys, no_cache):
    """Runs the command on the photo; returns (exit code, printed lines, errors, the folder of its files)."""

    def show(*args, photo=photo, model=folder):
        code = cli.main(["interactions", str(photo), "--model", str(model), "--out", str(tmp_path / "out"),
                         *map(str, args)])  # fmt: skip
        captured = capsys.readouterr()
        return code, captured.out.splitlines(), captured.err, tmp_path / "out"

    return show


@pytest.fixture
def sketches(monkeypatch):
    """Empty pictures, where drawing them is not what a test is about; how they were called."""
    calls = {}
    for name in ("interaction_network", "upset", "heat_map", "waterfall"):
        monkeypatch.setattr(
            jm.plot, name, lambda *args, name=name, **how: calls.update({name: (args, how)}) or Figure()
        )
    return calls


def game(folder, photo, target, rows=2, cols=3):
    model = jm.models.load(folder)
    image = model.preprocess(Image.open(photo))
    return jm.token_value_fn(model, image, target, jm.grid_regions(32, 32, rows=rows, cols=cols))


def test_all_coalitions_are_evaluated_where_the_budget_allows_it(show, folder, photo):
    code, lines, err, out = show("--regions", "grid:2x3", "--target", "lynx", "--order", "3", "--index", "STII")
    base = out / "cat-STII-3"
    arrays, record = read(base)
    expected = jm.interactions.exact(game(folder, photo, 2), 6, index="STII", order=3)
    assert (code, err) == (0, "")
    np.testing.assert_array_equal(arrays["sets"], expected.sets)
    np.testing.assert_allclose(arrays["values"], expected.values, atol=2e-4)
    np.testing.assert_allclose(arrays["baseline"], expected.baseline, atol=2e-4)
    assert arrays["total"] == pytest.approx(float(arrays["baseline"] + arrays["values"].sum()), abs=1e-3)
    assert (str(arrays["index"]), int(arrays["order"]), int(arrays["num_evaluations"])) == ("STII", 3, 64)
    assert "standard_errors" not in arrays
    assert arrays["regions"].shape == (32, 32)
    assert record["exact"] is True
    assert record["method"] is record["seed"] is record["faithfulness"] is None
    assert (record["num_evaluations"], record["num_sets"], record["num_regions"]) == (64, 41, 6)
    assert record["target"] == {"index": 2, "name": "lynx"}
    top = expected.top(15)
    assert record["strongest"][0]["players"] == [int(i) for i in top.sets[0] if i >= 0]
    np.testing.assert_allclose([entry["value"] for entry in record["strongest"]], top.values, atol=2e-4)
    assert record["strongest"][0]["standard_error"] is None
    assert lines[1] == "exact: all 64 coalitions of 6 regions, within --budget 4,096"
    assert lines[2] == record["answer"]
    assert re.match(r"strongest for 'lynx': region \d \([+−][\d.]+\), regions \{\d, \d\} \(.*\), regions \{", lines[2])
    assert re.match(r"regions\s+STII of order 3, log-odds of 'lynx'$", lines[3])
    assert len([line for line in lines if re.match(r"(\{[\d, ]+\}|\d)\s+[+−][\d.]+$", line)]) == 10
    assert f"R² {record['reconstruction_r2']:.3f}" in "\n".join(lines)
    assert re.match(r"64 coalitions in [\d.]+ s", lines[-2])
    files = {f"cat-STII-3{end}" for end in (".npz", ".json", *(f"-{name}.png" for name in PICTURES))}
    assert {path.name for path in out.iterdir()} == files
    assert all(name in lines[-1] for name in files)
    for name in PICTURES:
        with Image.open(out / f"cat-STII-3-{name}.png") as picture:
            assert picture.width > 700


def test_the_pictures_get_what_was_asked(show, sketches):
    args = ("--regions", "grid:2x2", "--top", "3", "--edges", "2", "--payoff", "logit", "--credit", "photo: A. Body")
    code, _, _, out = show(*args)
    record = read(out / "cat-k-SII-2")[1]
    assert code == 0
    assert len(record["strongest"]) == 3
    assert sketches["upset"][1]["k"] == 3
    assert sketches["interaction_network"][1]["edges"] == 2
    unit = f"logit of {record['target']['name'].split(',')[0]!r}"
    for _, how in sketches.values():
        assert how["unit"] == unit
        assert how["caption"].endswith("payoff logit  ·  grid:2x2  ·  photo: A. Body")
    assert sketches["waterfall"][1]["total"] == pytest.approx(record["total"], rel=1e-5)


def test_single_regions_have_no_pairs(show, sketches):
    code, lines, _, out = show("--regions", "grid:2x2", "--index", "SV")
    assert code == 0
    assert "order 1 has no pairs: no network and no matrix are drawn" in lines
    assert {path.name for path in out.glob("*.png")} == {"cat-SV-1-upset.png", "cat-SV-1-waterfall.png"}
    assert read(out / "cat-SV-1")[1]["order"] == 1


def test_an_index_that_is_no_model_of_the_value_says_so(show, sketches):
    _, lines, _, out = show("--regions", "grid:2x2", "--index", "BII")
    assert "faithfulness: not measured, for BII of order 2 is no model of the value" in lines
    assert read(out / "cat-BII-2")[1]["reconstruction_r2"] is None


def test_quiet_prints_the_answer_alone(show, sketches):
    _, lines, err, out = show("--regions", "grid:2x2", "--quiet")
    assert lines == [read(out / "cat-k-SII-2")[1]["answer"]]
    assert err == ""


def test_the_way_is_chosen_by_regions_and_budget():
    assert choose_way(12, 4096) == (True, "exact: all 4,096 coalitions of 12 regions, within --budget 4,096")
    assert choose_way(13, 4096) == (
        False, "estimate from 4,096 coalitions: 13 regions have 8,192, more than --budget")  # fmt: skip
    assert choose_way(20, 1 << 20)[0]
    assert choose_way(21, 1 << 30) == (
        False, "estimate from 1,073,741,824 coalitions: 21 regions are more than 20")  # fmt: skip
    assert ShowInteractions().budget == 4096


def test_an_estimate_that_says_little_is_doubted_aloud():
    x = jm.interactions.from_table(jnp.arange(8.0)).replace(faithfulness=jnp.float32(0.3))
    assert "sum to little of the value (R² 0.30" in findings.doubt(x)
    assert findings.doubt(x).endswith("k-SII can be far from it even where it is exact")
    assert findings.doubt(x.replace(index="FSII")).endswith("another order before they are believed")
    assert findings.doubt(x.replace(faithfulness=jnp.float32(0.5))) is None
    assert findings.doubt(x.replace(index="SII")) is None  # which does not sum to the value
    found = findings.Found(x.replace(index="SII"), 0.0, None)
    assert findings.fit(found).endswith("no value was fitted to; SII of order 2 is no model of the value")


def test_an_estimate_gets_the_budget_and_tells_its_errors(show, sketches, monkeypatch):
    asked = {}

    def estimate(key, v, num_players, *, index, **more):
        asked.update(more, key=key, players=num_players, index=index)
        values = jnp.asarray([0.5, -2.0, 1.0])
        return jm.interactions.Interactions(
            sets=jnp.asarray([[0, -1], [1, 15], [3, -1]], jnp.int32), values=values, baseline=jnp.float32(0.25),
            standard_errors=values**2 / 10, faithfulness=jnp.float32(0.875), num_evaluations=more["budget"],
            index=index, order=more["order"], num_players=num_players,
        )  # fmt: skip

    monkeypatch.setattr(command, "estimate", estimate)
    code, lines, _, out = show("--regions", "grid:4x4", "--budget", "300", "--seed", "7", "--index", "FSII",
                               "--method", "mine", "--p", "0.25", "--batch-size", "8")  # fmt: skip
    arrays, record = read(out / "cat-FSII-2")
    assert code == 0
    assert (asked["players"], asked["index"], asked["order"], asked["budget"], asked["method"]) == (
        16, "FSII", 2, 300, "mine")  # fmt: skip
    assert (asked["p"], asked["batch_size"]) == (0.25, 8)
    assert (jax.random.key_data(asked["key"]) == jax.random.key_data(jax.random.key(7))).all()
    assert lines[1] == "estimate from 300 coalitions: 16 regions have 65,536, more than --budget"
    assert "(± 1 standard error)" in lines[3]
    assert [re.split(r"\s{2,}", line) for line in lines[4:7]] == [
        ["{1, 15}", "−2.00", "± 0.40"], ["3", "+1.00", "± 0.10"], ["0", "+0.50", "± 0.03"]]  # fmt: skip
    assert "faithfulness: R² 0.875 on coalitions that no value was fitted to" in lines
    assert lines[-2].startswith("300 coalitions in ")
    np.testing.assert_allclose(arrays["standard_errors"], [0.025, 0.4, 0.1], rtol=1e-6)
    assert record["exact"] is False
    assert (record["method"], record["seed"], record["budget"], record["faithfulness"]) == ("mine", 7, 300, 0.875)
    assert record["strongest"][0] == {"players": [1, 15], "value": -2.0, "standard_error": pytest.approx(0.4)}


@pytest.mark.parametrize(("args", "says"), [
    (["--order", "7", "--regions", "grid:2x3"], "order must be a whole number from 1 to the 6 players; got 7"),
    (["--order", "0"], "--order: expected a whole number of at least 1; got 0"),
    (["--index", "SV", "--order", "2", "--regions", "grid:2x3"], "SV explains single players: order must be 1; got 2"),
    (["--budget", "1"], "--budget: expected a whole number of at least 2; got 1"),
    (["--top", "0"], "--top: expected a whole number of at least 1; got 0"),
    (["--edges", "0"], "--edges: expected a whole number of at least 1; got 0"),
    (["--regions", "grid:0x3"], "--regions: "),
    (["--target", "no such class"], "--target: "),
])  # fmt: skip
def test_mistakes_are_one_line(show, args, says):
    code, lines, err, _ = show(*args)
    assert (code, lines) == (2, [])
    assert err.startswith("jaxmoxi: error: ")
    assert says in err
    assert err.count("\n") == 1


def test_its_help_names_every_index(capsys):
    assert cli.main(["interactions", "--help"]) == 0
    printed = "".join(capsys.readouterr().out.split())
    assert all(name in printed for name in jm.interactions.INDICES)


def test_an_estimate_is_what_the_library_estimates(show, folder, photo, sketches):
    code, lines, _, out = show("--regions", "grid:2x3", "--budget", "40", "--index", "FBII", "--target", "lynx")
    arrays, record = read(out / "cat-FBII-2")
    expected = jm.interactions.estimate(
        jax.random.key(0), game(folder, photo, 2), 6, index="FBII", order=2, budget=40
    )  # fmt: skip
    assert code == 0
    assert lines[1] == "estimate from 40 coalitions: 6 regions have 64, more than --budget"
    np.testing.assert_allclose(arrays["values"], expected.values, atol=1e-3)
    assert (arrays["evaluated"].shape, record["method"]) == ((40,), "gaussian-process")
