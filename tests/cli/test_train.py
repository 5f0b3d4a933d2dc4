"""`jaxmoxi train`: what it writes, and what it says about mistakes."""

import json

import jax
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from jaxmoxi import p2p
from jaxmoxi.cli import shared as _command
from jaxmoxi.cli import train as _train
from jaxmoxi.cli.main import main
from jaxmoxi.errors import InputError
from jaxmoxi.models.networks import vit
from support.games import golden_tensor

QUICK = ["--num-scenes", "80", "--epochs", "1", "--batch-size", "32", "--image-size", "32", "--num-groups", "16"]
TINY = ["--num-scenes", "20", "--epochs", "2", "--batch-size", "8", "--image-size", "32", "--num-groups", "9"]


@pytest.fixture(autouse=True)
def no_cache(monkeypatch):
    monkeypatch.setattr(_command, "start_compilation_cache", lambda: None)


def train(*arguments):
    return main(["train", *map(str, arguments)])


def test_a_small_run_and_a_prediction_with_it(tmp_path, capsys):
    run, photo = tmp_path / "run", tmp_path / "scene.png"
    assert train("--out", run, *TINY, "--certainties", "0.9", "--one-device") == 0
    printed = capsys.readouterr().out
    assert "training on 20 images of 6 classes" in printed
    assert "epoch 2: loss" in printed
    assert sorted(path.name for path in run.iterdir() if "arrays" not in path.name) == [
        "checkpoints", "config.json", "curves.jsonl", "curves.png", "evaluation.json", "evaluation.md", "history.jsonl",
    ]  # fmt: skip
    assert json.loads((run / "evaluation.json").read_text())["num_images"] == 4
    Image.fromarray(p2p.data.scene_source(jax.random.key(1), 1, image_size=32).images[0]).save(photo)
    arguments = [str(photo), "--checkpoint", str(run), "--out", str(tmp_path), "--regions", "grid:3x3", "--quiet"]
    assert main(["predict", *arguments]) == 0
    assert " of 9 superpixels, " in capsys.readouterr().out
    assert json.loads((tmp_path / "scene-p2p.json").read_text())["classes"][0] == "disc"


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("a mistake in the code"), None),
        (InputError("a mistake in the data"), "a mistake in the data"),
        (OSError("the disk is full"), "the disk is full"),
        (FloatingPointError("the loss is nan"), "the loss is nan"),
    ],
)
def test_only_errors_made_for_users_lose_their_traceback(error, line, tmp_path, capsys, monkeypatch):
    def fit(*args, **kwargs):
        raise error

    monkeypatch.setattr(p2p, "fit", fit)
    arguments = ["--out", tmp_path / "run", *TINY, "--one-device"]
    if line is None:
        with pytest.raises(ValueError, match="a mistake in the code"):
            train(*arguments)
    else:
        assert train(*arguments) == 2
        assert capsys.readouterr().err == f"jaxmoxi: error: {line}\n"


@pytest.mark.slow
def test_scenes_from_nothing_to_an_evaluation(tmp_path, capsys):
    arguments = ["--out", tmp_path / "run", *QUICK, "--certainties", "0.5", "0.9"]
    assert train(*arguments) == 0
    printed = capsys.readouterr().out
    assert "training on 80 images of 6 classes" in printed
    assert "epoch 1: loss" in printed
    assert "| certainty | accuracy % |" in printed
    record = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert record["certainty"] == [0.5, 0.9]
    assert record["num_images"] == 16
    assert record["versions"].keys() >= {"jax", "jaxmoxi"}
    assert (tmp_path / "run" / "evaluation.md").read_text().startswith("| certainty |")
    model = p2p.load(tmp_path / "run")
    assert (model.config.num_groups, model.config.selector) == (16, "small")
    assert p2p.load_class_names(tmp_path / "run")[0] == "disc"

    assert train(*arguments, "--quiet") == 0  # ended: only evaluated again
    assert capsys.readouterr().out.startswith("| certainty |")
    assert train(*arguments, "--learning-rate", "0.5") == 2
    assert "holds a run with other settings: train.learning_rate (there 0.003, now 0.5)" in capsys.readouterr().err


@pytest.fixture
def folders(tmp_path):
    rng = np.random.default_rng(0)
    for part in ("train", "val"):
        for name in ("cat", "dog"):
            folder = tmp_path / "photos" / part / name
            folder.mkdir(parents=True)
            for i in range(3):
                Image.fromarray(rng.integers(0, 256, (40, 40, 3), np.uint8)).save(folder / f"{i}.png")
    return tmp_path / "photos"


def prepared(**options):
    return _train._prepare(_train.Train(**options))


def test_options_change_single_settings_of_a_preset(folders, tmp_path):
    task = prepared(
        out=tmp_path,
        data=f"folder:{folders}",
        classifier="resnet18",
        threshold=0.2,
        weight_decay=0.1,
        exact_budget=True,
    )
    config = task.config
    assert (config.num_classes, config.classifier, config.selector) == (2, p2p.ResNetConfig(18), "lraspp")
    assert (config.dynamic_threshold, config.threshold, config.exact_budget) == (False, 0.2, True)
    assert task.train.learning_rate == 1e-4  # the published one
    assert task.train.weight_decay == 0.1
    assert task.train.num_epochs == 20
    assert task.train.select
    assert (len(task.data), len(task.test)) == (6, 6)
    assert task.data.class_names == ("cat", "dog")
    task = prepared(out=tmp_path, data=f"folder:{folders / 'train'}", preset="scenes", epochs=8, seed=3, black_box=True)
    assert (len(task.data), len(task.test)) == (4, 2)
    assert (task.train.num_epochs, task.train.whole_epochs) == (8, 2)  # a quarter of them, as in the preset
    assert (task.train.seed, task.train.select) == (3, False)
    assert task.config.image_size == 64


def vit_folder(path, **changes):
    sizes = dict(image_size=32, patch_size=8, hidden_size=96, num_layers=4, num_heads=3, mlp_dim=192, num_classes=5)
    config = vit.VisionTransformerConfig(**sizes | changes)
    tensors = {n: golden_tensor("x", n, s, 1.0) for n, s in vit.expected_tensors(config, "vit").items()}
    path.mkdir()
    save_file(tensors, path / "model.safetensors")
    settings = dict(
        model_type="vit", image_size=config.image_size, patch_size=8, hidden_size=96,
        num_hidden_layers=config.num_layers, num_attention_heads=3, intermediate_size=192, num_labels=5,
    )  # fmt: skip
    (path / "config.json").write_text(json.dumps(settings))
    (path / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.5] * 3, "image_std": [0.5] * 3}))
    return tensors


@pytest.mark.slow
def test_a_classifier_to_start_from(tmp_path, monkeypatch):
    small = p2p.ViTConfig(hidden_size=96, num_layers=4, num_heads=3, mlp_dim=192, patch_size=8)
    monkeypatch.setitem(p2p.presets.CLASSIFIERS, "vit-tiny", small)
    options = dict(out=tmp_path, classifier="vit-tiny", image_size=32, num_scenes=8)
    tensors = vit_folder(tmp_path / "vit")
    task = prepared(init=tmp_path / "vit", **options)
    started = task.classifier
    np.testing.assert_array_equal(started["norm"]["scale"][...], tensors["vit.layernorm.weight"])
    assert started["head"]["kernel"].shape == (96, 6)  # another number of classes: a new head
    assert task.config.mean == (0.5, 0.5, 0.5)  # the folder's normalisation
    with pytest.raises(_train.CommandError, match="vit has 5 classes, not 6; its answers are used as they are"):
        prepared(init=tmp_path / "vit", method="comet", whole_epochs=0, **options)  # would stay frozen with a new head
    vit_folder(tmp_path / "deep", num_layers=5)
    with pytest.raises(_train.CommandError, match="not the configuration's classifier: num_layers is 5, not 4"):
        prepared(init=tmp_path / "deep", **options)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "mnist:x"], "--data: expected scenes, imagenet:DIR"),
        (["--data", "imagenet"], "--data: expected scenes, imagenet:DIR"),
        (["--data", "folder:nowhere"], "--data: expected a folder of class folders at nowhere"),
        (["--data", "cifar10:nowhere"], "--data: expected cifar-10-binary.tar.gz"),
        (["--epochs", "0"], "--epochs: expected a number above 0; got 0"),
        (["--certainties", "1.5"], "--certainties: expected probabilities in (0, 1]"),
        (["--black-box", "--threshold", "0.3"], "--threshold is about what is selected; --method blackbox does"),
        (["--black-box", "--certainties", "0.8", "0.9"], "--certainties is about P2P's thresholds; --method blackbox"),
        (["--num-scenes", "9", "--data", "folder:x"], "--num-scenes is about synthetic scenes; --data folder:x brings"),
        (["--threshold", "1.5", *QUICK], "threshold must lie in (0, 1]; got 1.5"),
        (["--threshold", "0.3", "--threshold-input", "rerank", *QUICK], "needs dynamic_threshold=True"),
        (
            ["--image-size", "60", "--classifier", "vit-tiny", "--num-scenes", "8"],
            "image_size 60 is not a multiple of patch_size 16",
        ),
        (["--init", "nowhere", *QUICK], "no model folder nowhere"),
        (["--num-scenes", "40", "--batch-size", "64"], "choose a smaller batch_size"),
    ],
)
def test_mistakes_are_one_line(arguments, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert train("--out", tmp_path / "run", *arguments) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert message in error
    assert error.startswith("jaxmoxi: error:")
