"""`jaxmoxi study`: what it prints and writes, and how it ends when an input is wrong."""

import json
import shutil
from pathlib import Path

import pytest
from safetensors.numpy import save_file

import jaxmoxi as jm
from jaxmoxi.attribution import METHODS
from jaxmoxi.cli.main import main
from jaxmoxi.cli.shared import CommandError, load_model
from jaxmoxi.metrics import METRICS
from jaxmoxi.models.networks import vit
from support.games import golden_tensor
from support.study import CLASSES, write_photos


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return write_photos(tmp_path_factory.mktemp("photos"), 3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "tiny-vit"
    path.mkdir()
    config = vit.VisionTransformerConfig(
        image_size=16, patch_size=4, hidden_size=16, num_layers=2, num_heads=2, mlp_dim=32, num_classes=4
    )
    shapes = vit.expected_tensors(config, "vit")
    save_file({n: golden_tensor("study", n, s, 0.7) for n, s in shapes.items()}, path / "model.safetensors")
    settings = {
        "model_type": "vit", "image_size": 16, "patch_size": 4, "hidden_size": 16, "num_hidden_layers": 2,
        "num_attention_heads": 2, "intermediate_size": 32, "id2label": dict(enumerate(CLASSES)),
    }  # fmt: skip
    (path / "config.json").write_text(json.dumps(settings))
    (path / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.5] * 3, "image_std": [0.5] * 3}))
    return path


def run(*words):
    return main(["study", *map(str, words)])


def test_a_study(photos, folder, tmp_path, capsys):
    words = [
        photos, "--model", folder, "--out", tmp_path / "out", "--methods", "random", "occlusion", "--metrics", "curves",
        "--regions", "grid:2x2", "--only-correct", "False", "--num-photos", "2", "--quiet",
    ]  # fmt: skip
    assert run(*words) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'out' / 'report.md'}\n"
    report = (tmp_path / "out" / "report.md").read_text()
    assert "| occlusion | " in report
    assert "; about 5 evaluations a photo" in report  # one for each region, and the whole photo
    assert "Photos: 2 ok" in report
    assert {p.name for p in (tmp_path / "out").iterdir()} == {
        "report.md", "table.parquet", "study.json", "shards", "figures",
    }  # fmt: skip
    assert run(*words) == 0  # finished: nothing to do
    assert run(*words, "--seed", "1") == 2
    assert "a study with other settings: config.seed (there 0, now 1)" in capsys.readouterr().err


def test_the_demonstration_model_has_a_name(folder, tmp_path, monkeypatch):
    demo = object()
    monkeypatch.setattr(jm.models, "demo", lambda: demo)
    monkeypatch.chdir(tmp_path)
    assert load_model(Path("demo")) is load_model(None) is demo
    with pytest.raises(CommandError, match="--preprocessing needs a --model of yours: the demonstration model has its"):
        load_model(Path("demo"), "half")
    shutil.copytree(folder, tmp_path / "demo")  # a folder of that name is what it says
    assert load_model(Path("demo")).config.num_classes == 4


def test_minutes_that_are_over_are_no_error(photos, folder, tmp_path, capsys):
    words = [
        photos, "--model", folder, "--out", tmp_path / "out", "--methods", "random", "--metrics", "curves",
        "--regions", "grid:2x2", "--only-correct", "False",
    ]  # fmt: skip
    assert run(*words, "--max-minutes", "0.0001", "--quiet") == 0
    told = capsys.readouterr()
    assert told.out == f"{tmp_path / 'out' / 'report.md'}\n"
    assert "the 0.0001 minutes are over; no photo was finished: give it more minutes. The same command" in told.err
    assert "**Not finished**: 0 of 3" in (tmp_path / "out" / "report.md").read_text()


@pytest.mark.slow
def test_damaged_files_end_in_one_line_or_are_made_anew(photos, folder, tmp_path, capsys):
    out = tmp_path / "out"
    words = [
        photos, "--model", folder, "--out", out, "--methods", "random", "--metrics", "curves", "--regions", "grid:2x2",
        "--only-correct", "False", "--quiet",
    ]  # fmt: skip
    assert run(*words) == 0
    (out / "table.parquet").unlink()
    (out / "report.md").write_text("")
    assert run(*words) == 0
    assert "Photos: 3 ok" in (out / "report.md").read_text()
    assert (out / "table.parquet").stat().st_size > 0
    shard = out / "shards" / "0-000000.npz"
    shard.write_bytes(shard.read_bytes()[:-50])
    capsys.readouterr()
    assert run(*words) == 2
    error = capsys.readouterr().err
    assert f"the shard {shard} is damaged" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--max-minutes", "-1"], "max_minutes must be a number above 0"),
        (["--methods", "lime"], "expected methods among grad-cam, grad-cam++"),
        (["--regions", "hexagons"], "expected regions of grid:ROWSxCOLUMNS or slic:COUNT; got 'hexagons'"),
        (["--process-id", "1"], "--coordinator, --num-processes and --process-id need --distributed"),
        (["--distributed", "--process-id", "1"], "go together: give all three, or none"),
        (["--shard-size", "0"], "shard_size must be at least 1; got 0"),
    ],
)
def test_wrong_options_end_in_one_line(photos, folder, tmp_path, capsys, words, message):
    assert run(photos, "--model", folder, "--out", tmp_path / "out", *words) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_nothing_came_of_it(folder, tmp_path, capsys):
    """Finished, but no photo has a result: a script is to notice. Without MoXI no order is compared with its."""
    photos = write_photos(tmp_path / "photos", 2)
    for path in photos.rglob("*.png"):
        path.write_bytes(b"no photo")
    words = [photos, "--model", folder, "--out", tmp_path / "out", "--methods", "random", "--regions", "grid:2x2"]
    assert run(*words) == 2
    assert "no photo has a result; " in capsys.readouterr().err
    assert "unreadable" in (tmp_path / "out" / "report.md").read_text()


def test_a_missing_folder(folder, tmp_path, capsys):
    assert run(tmp_path / "nowhere", "--model", folder, "--out", tmp_path / "out") == 2
    assert "expected a folder of photos or a CSV file" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_its_help_names_every_method_and_every_metric(capsys):
    assert run("--help") == 0
    printed = "".join(capsys.readouterr().out.replace("│", "").split())  # lines break at hyphens, too
    for name, entry in {**METHODS, **METRICS}.items():
        assert f"{name} ({entry.help})".replace(" ", "") in printed


def test_several_models_and_heads_of_few_classes(photos, folder, tmp_path, capsys):
    other = tmp_path / "other-vit"
    shutil.copytree(folder, other)
    words = [
        photos, "--out", tmp_path / "out", "--methods", "random", "--metrics", "sparseness", "--regions", "grid:2x2",
        "--only-correct", "False", "--quiet", "--models", folder, other, "--classes", "2", "4",
    ]  # fmt: skip
    assert run(*words) == 0
    told = capsys.readouterr().err
    assert "heads of 2 classes leave out 1 of 3 photos, which show 3 classes" in told
    report = (tmp_path / "out" / "report.md").read_text()
    for name, counts in (("tiny-vit, 2 classes", "2 ok, 1 of another class"), ("other-vit, 4 classes", "3 ok")):
        assert f"## {name}\n\nPhotos: {counts}." in report
    assert "| tiny-vit, 2 classes and other-vit, 4 classes | 2 |" in report
    assert run(*words, "--classes", "1") == 2
    assert "expected numbers of classes from 2 to the model's 4, each once; got 1" in capsys.readouterr().err
