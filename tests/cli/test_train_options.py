"""What `jaxmoxi train` can be told besides: a time budget, a goal, other methods, another run to start from."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest

from jaxmoxi import p2p
from jaxmoxi.cli import shared as _command
from jaxmoxi.cli import train as _train
from jaxmoxi.cli import train_results
from jaxmoxi.cli.main import main
from jaxmoxi.cli.signals import Budget
from jaxmoxi.p2p.arrays import seal
from jaxmoxi.p2p.training.methods import for_method
from jaxmoxi.p2p.training.presets import PRESETS
from jaxmoxi.p2p.training.run_folder import give_up

TINY = ["--num-scenes", "20", "--epochs", "2", "--batch-size", "8", "--image-size", "32", "--num-groups", "9"]


@pytest.fixture(autouse=True)
def no_cache(monkeypatch):
    monkeypatch.setattr(_command, "start_compilation_cache", lambda: None)


def train(*arguments):
    return main(["train", *map(str, arguments), "--one-device"])


def test_a_time_budget_saves_says_how_to_go_on_and_is_kept(tmp_path, capsys, monkeypatch):
    run = tmp_path / "run"
    words = ["--out", run, *TINY, "--method", "blackbox-pixel-mask", "--fidelity-shares", "0.1", "0.2"]
    passed = Budget.passed

    def after_the_first_epoch(self):
        self.over = self.over or (run / "curves.jsonl").exists()
        return passed(self)

    with monkeypatch.context() as patch:
        patch.setattr(Budget, "passed", after_the_first_epoch)
        assert train(*words, "--max-minutes", "60") == 0
    error = capsys.readouterr().err
    assert "jaxmoxi: the 60 minutes are over: stopped after step 1, which is saved in" in error
    assert error.endswith("the same command goes on from there\n")
    assert not (run / "evaluation.json").exists()
    assert train(*words) == 0  # with another budget, or none
    printed = capsys.readouterr().out
    assert "| from top 10 % | from top 20 % |" in printed
    record = json.loads((run / "evaluation.json").read_text())
    assert record["method"] == "blackbox-pixel-mask"
    assert record["fidelity"]["shares"] == [0.1, 0.2]
    assert p2p.load(run).config.masking == "even"
    assert p2p.load(run).config.threshold == 0.2
    assert (run / "curves.png").stat().st_size > 1000

    # Another run's classifier to start from; a time that is over before the first step.
    task = prepared(out=tmp_path / "comet", init=run, method="comet", num_scenes=20, image_size=32, num_groups=9)
    assert (task.train.method, task.config.threshold) == ("comet", 0.2)
    assert task.classifier["head"]["kernel"].shape == p2p.load(run).classifier["head"]["kernel"].shape
    with pytest.raises(_train.CommandError, match="has not the configuration's classifier: image_size is 32, not 64"):
        prepared(out=tmp_path / "comet", init=run, num_scenes=20)


def prepared(**options):
    return _train._prepare(_train.Train(**options))


def test_a_run_to_start_from_with_its_selector(tmp_path):
    model = p2p.init(jax.random.key(3), dataclasses.replace(PRESETS["scenes"]().config, image_size=32))
    p2p.save(tmp_path / "run", model)
    options = {"out": tmp_path / "on", "init": tmp_path / "run", "image_size": 32, "num_scenes": 20}
    task = prepared(**options, init_selector=True, max_threshold=0.7, anneal=False)
    assert isinstance(task.classifier, p2p.P2P)
    for start, saved in zip(jax.tree.leaves(task.classifier), jax.tree.leaves(model), strict=True):
        np.testing.assert_array_equal(start, saved)
    assert task.config.max_threshold == 0.7
    assert not task.train.anneal
    assert not isinstance(prepared(**options).classifier, p2p.P2P)
    with pytest.raises(_train.CommandError, match="configuration's networks: threshold_input is shift, not"):
        prepared(**options, init_selector=True, threshold_input="rerank")
    with pytest.raises(_train.CommandError, match="networks: dynamic_threshold is True, not False"):
        prepared(**options, init_selector=True, threshold=0.2)
    with pytest.raises(_train.CommandError, match="--init-selector needs an --init that names a run"):
        prepared(out=tmp_path / "on", num_scenes=20, init_selector=True)


def test_a_selector_that_stays_as_it_is(tmp_path):
    model = p2p.init(jax.random.key(3), dataclasses.replace(PRESETS["scenes"]().config, image_size=32))
    p2p.save(tmp_path / "run", model)
    options = {"out": tmp_path / "on", "image_size": 32, "num_scenes": 20, "freeze_selector": True}
    task = prepared(**options, init=tmp_path / "run", init_selector=True)
    assert task.train.freeze_selector
    assert task.train.whole_epochs == 0  # the preset has 4
    with pytest.raises(_train.CommandError, match="--freeze-selector keeps a selector that selects already: give --in"):
        prepared(**options, init=tmp_path / "run")
    with pytest.raises(_train.CommandError, match="--selector-rate is about what a selector learns; --freeze-sel"):
        prepared(**options, init=tmp_path / "run", init_selector=True, selector_rate=2.0)
    with pytest.raises(_train.CommandError, match='it needs method="p2p" and whole_epochs=0; got'):
        prepared(**options, init=tmp_path / "run", init_selector=True, whole_epochs=1)


def test_a_teacher_is_a_run_of_the_same_classifier(tmp_path):
    config = dataclasses.replace(PRESETS["scenes"]().config, image_size=32)
    p2p.save(tmp_path / "twin", model := p2p.init(jax.random.key(3), config))
    p2p.save(tmp_path / "two", p2p.init(jax.random.key(3), dataclasses.replace(config, num_classes=2)))
    p2p.save(tmp_path / "light", p2p.init(jax.random.key(3), dataclasses.replace(config, std=(0.5, 0.5, 0.5))))
    options = {"out": tmp_path / "on", "image_size": 32, "num_scenes": 20}
    task = prepared(**options, teacher=tmp_path / "twin")
    assert task.train.teacher_weight == 0.5
    for given, saved in zip(jax.tree.leaves(task.teacher), jax.tree.leaves(model.classifier), strict=True):
        np.testing.assert_array_equal(given, saved)
    assert prepared(**options, teacher=tmp_path / "twin", teacher_weight=1.0).train.teacher_weight == 1.0
    plain = prepared(**options)
    assert (plain.teacher, plain.train.teacher_weight) == (None, 0.0)
    with pytest.raises(_train.CommandError, match=r"classifier, to teach it: std is \(0.5, 0.5, 0.5\), n"):
        prepared(**options, teacher=tmp_path / "light")
    with pytest.raises(_train.CommandError, match="two has 2 classes, not 6; its answers are used as they are, so it"):
        prepared(**options, teacher=tmp_path / "two")
    path = tmp_path / "parts" / "config.json"
    p2p.save(path.parent, model)
    path.write_text(json.dumps(seal(json.loads(path.read_text()) | {"train": {"select": True}})))
    with pytest.raises(_train.CommandError, match="parts: expected a classifier that was trained on whole images"):
        prepared(**options, teacher=path.parent)
    names = prepared(**options).data.class_names
    p2p.save(tmp_path / "same", model, class_names=names)
    assert prepared(**options, teacher=tmp_path / "same").teacher is not None
    p2p.save(tmp_path / "turned", model, class_names=names[::-1])
    with pytest.raises(_train.CommandError, match="turned has other classes than the data, in another order; its answ"):
        prepared(**options, teacher=tmp_path / "turned")
    with pytest.raises(_train.CommandError, match="nothing"):
        prepared(**options, teacher=tmp_path / "nothing")
    with pytest.raises(_train.CommandError, match="--teacher-weight needs --teacher, the run whose answers"):
        prepared(**options, teacher_weight=0.5)
    with pytest.raises(_train.CommandError, match="--teacher-weight: expected a share above 0, up to 1; got 0"):
        prepared(**options, teacher=tmp_path / "twin", teacher_weight=0.0)
    with pytest.raises(_train.CommandError, match="--teacher is about what P2P's classifier learns; --method comet"):
        prepared(**options, teacher=tmp_path / "twin", method="comet")


def test_other_methods_go_on_with_their_selector_and_another_number_of_classes_gets_a_new_head(tmp_path):
    preset = dataclasses.replace(PRESETS["scenes"]().config, image_size=32)
    comet = p2p.init(jax.random.key(3), for_method(dataclasses.replace(preset, threshold=0.2), "comet"))
    p2p.save(tmp_path / "comet", comet)
    options = {"out": tmp_path / "on", "init": tmp_path / "comet", "image_size": 32, "num_scenes": 20}
    task = prepared(**options, method="comet", init_selector=True)
    assert isinstance(task.classifier, p2p.P2P)
    with pytest.raises(_train.CommandError, match="networks: embedding_size is 0, not 3"):
        prepared(**options, init_selector=True)
    two = dataclasses.replace(preset, num_classes=2)
    p2p.save(tmp_path / "two", model := p2p.init(jax.random.key(3), two))
    task = prepared(**options | {"init": tmp_path / "two"}, init_selector=True)
    assert task.config.num_classes == 6
    assert task.classifier.classifier["head"]["kernel"].shape[1] == 6
    old, new = (m.classifier["down"][0]["kernel"] for m in (model, task.classifier))
    np.testing.assert_array_equal(new, old)


def test_a_start_that_fails_leaves_its_folder_free(tmp_path, capsys):
    words = ["--out", tmp_path / "run", *TINY, "--method", "blackbox"]
    assert train(*words, "--batch-size", "64") == 2
    assert "choose a smaller batch_size" in capsys.readouterr().err
    assert not [f for f in (tmp_path / "run").iterdir() if not f.name.startswith(".")]
    assert train(*words, "--quiet") == 0
    # What is finished stays, whatever fails later and whatever else is gone.
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    give_up(tmp_path / "run")
    assert p2p.load(tmp_path / "run").config.num_groups == 9


def test_a_frozen_classifier_answers_the_datas_classes(tmp_path):
    config = dataclasses.replace(PRESETS["scenes"]().config, image_size=32)
    for name, changes in {"two": {"num_classes": 2}, "other": {}}.items():
        model = p2p.init(jax.random.key(3), dataclasses.replace(config, **changes))
        names = tuple("abcdef"[: model.config.num_classes])
        p2p.save(tmp_path / name, model, class_names=names)
    options = {"out": tmp_path / "on", "image_size": 32, "num_scenes": 20, "method": "comet"}
    for name, message in {"two": "has 2 classes, not 6", "other": "has other classes than the data, without"}.items():
        assert prepared(**options, init=tmp_path / name).train.whole_epochs  # which train it
        with pytest.raises(_train.CommandError, match=f"{name} {message}.*; its answers are used as they are, so it"):
            prepared(**options, init=tmp_path / name, whole_epochs=0)
    own = for_method(dataclasses.replace(config, threshold=0.2), "comet")
    p2p.save(tmp_path / "comet", p2p.init(jax.random.key(3), own))
    path = tmp_path / "comet" / "config.json"
    path.write_text(json.dumps(seal(json.loads(path.read_text()) | {"train": {"method": "comet"}})))
    with pytest.warns(UserWarning, match="what stays frozen is now the classifier that this run trained through its"):
        prepared(**options, init=tmp_path / "comet", init_selector=True, whole_epochs=0)


def test_a_frozen_classifier_is_asked_for_by_the_commands_own_options(tmp_path):
    with pytest.raises(_train.CommandError, match="--method comet needs a trained classifier of whole images, which"):
        prepared(out=tmp_path, num_scenes=20, method="comet", whole_epochs=0)


def test_a_preset_that_grows_geometrically_can_be_told_not_to_anneal(tmp_path):
    run = {"out": tmp_path, "num_scenes": 8, "preset": "cifar10-96"}
    assert (prepared(**run).train.growth, prepared(**run).train.straight_through) == ("geometric", False)
    told = prepared(**run, anneal=False, straight_through=True, logit_weight=0.0).train
    assert (told.growth, told.anneal, told.straight_through, told.logit_weight) == ("linear", False, True, 0.0)


def test_a_model_that_sees_nothing_is_told_of(recwarn):
    train_results.warn_of_nothing(0.05)
    assert not recwarn.list
    with pytest.warns(UserWarning, match="keeps 1.6 % of the pixels of the test images: its selector gives hardly any"):
        train_results.warn_of_nothing(0.0158)


def test_a_budget_of_no_minutes_is_any_time():
    assert not Budget(None).passed()
    assert not Budget(1.0).passed()
    over = Budget(0.0)
    assert not over.over
    assert over.passed()
    assert over.over


def test_options_reach_the_settings(tmp_path):
    task = prepared(
        out=tmp_path, num_scenes=30, test_images=3, max_threshold=0.2, whole_epochs=3, goal_accuracy=0.9,
        goal_share=0.1, certainty=0.99, accumulate=4, precision="bfloat16", ema=0.99, selector_rate=2.0,
        regulariser_weight=5.0, save_every=7,
    )  # fmt: skip
    found = task.train
    assert (found.whole_epochs, found.goal_accuracy, found.goal_share, found.certainty) == (3, 0.9, 0.1, 0.99)
    assert (found.accumulate, found.precision, found.ema, found.selector_rate) == (4, "bfloat16", 0.99, 2.0)
    assert (found.regulariser_weight, found.save_every, task.config.max_threshold) == (5.0, 7, 0.2)
    assert len(task.test) == 3
    twin = prepared(out=tmp_path, num_scenes=8, method="blackbox")
    assert twin.train == prepared(out=tmp_path, num_scenes=8, black_box=True).train
    assert not twin.train.select


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--max-minutes", "0"], "--max-minutes: expected a number above 0; got 0"),
        (["--max-minutes", "nan"], "--max-minutes: expected a number above 0; got nan"),
        (
            ["--method", "comet", "--certainties", "0.9"],
            "--certainties is about P2P's thresholds; --method comet does nothing with it: leave one out",
        ),
        (["--method", "real-x", "--exact-budget"], "--exact-budget is about P2P's thresholds"),
        (["--method", "blackbox", "--threshold", "0.2"], "--threshold is about what is selected; --method blackbox"),
        (["--method", "comet", "--black-box"], "--black-box is --method blackbox; --method is comet: leave one out"),
        (
            ["--black-box", "--anneal", "False"],
            "--anneal is about what a selector learns; --method blackbox does nothing with it",
        ),
        (["--method", "comet", "--freeze-selector"], "--freeze-selector is about P2P's masks; --method comet does"),
        (["--black-box", "--init-selector"], "--init-selector is about what a selector learns; --method blackbox"),
        (["--method", "comet", "--straight-through", "True"], "--method comet does nothing with it: leave one out"),
        (["--method", "blackbox-pixel-mask", "--logit-weight", "0"], "--logit-weight is about what a selector learns"),
        (["--black-box", "--regulariser-weight", "3"], "--regulariser-weight is about what a selector learns"),
        (
            ["--method", "blackbox-pixel-mask", "--selector-rate", "3"],
            "--selector-rate is about what a selector learns",
        ),
        (["--method", "blackbox-pixel-mask", "--selector", "small"], "--selector is about what a selector learns"),
        (["--black-box", "--goal-share", "0.3"], "--goal-share is about what is selected; --method blackbox does"),
        (["--black-box", "--whole-epochs", "1"], "--whole-epochs is about epochs before those that select"),
        (["--method", "comet", "--certainty", "0.9"], "--certainty is about P2P's thresholds; --method comet does"),
        (
            ["--threshold", "0.2", "--max-threshold", "0.4"],
            "--max-threshold is about the share of the pixels that each image needs; --threshold 0.2 gives all",
        ),
        (["--threshold", "0.2", "--certainties", "0.9"], "--certainties is about the share of the pixels that each"),
        (["--fidelity-shares", "10"], "--fidelity-shares: expected shares of the pixels in [0, 1], such as 0.1; got"),
        (["--num-scenes", "20", "--test-images", "9"], "--test-images: expected 1 to 4, the test images; got 9"),
        (["--num-scenes", "20", "--accumulate", "3"], "accumulate must be a whole number that divides the batch_size"),
        (["--num-scenes", "20", "--goal-share", "25"], "goal_share must lie in (0, 1]; got 25"),
        (["--num-scenes", "20", "--ema", "2"], "ema is a decay in (0, 1), such as 0.999; got 2"),
    ],
)
def test_mistakes_are_one_line(arguments, message, tmp_path, capsys):
    assert train("--out", tmp_path / "run", *arguments) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert message in error
    assert error.startswith("jaxmoxi: error:")
