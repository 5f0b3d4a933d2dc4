"""The run: it resumes with the same bits, shares its work, and refuses what cannot be."""

import dataclasses
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
import pytest

from jaxmoxi import p2p
from jaxmoxi.p2p.data import Arrays
from jaxmoxi.p2p.training.config import OBJECTIVE
from jaxmoxi.p2p.training.step import learning_rates
from support.trainer import CONFIG, TRAIN, After, Grid

SETTINGS = dict(train=dataclasses.replace(TRAIN, save_every=3), progress=False)


def test_a_selector_that_stays_has_to_be_given():
    train = dataclasses.replace(TRAIN, whole_epochs=0, freeze_selector=True)
    with pytest.raises(ValueError, match="freeze_selector=True needs a selector to keep: start"):
        p2p.fit(CONFIG, Grid(), train=train, classifier=p2p.init(jax.random.key(0), CONFIG).classifier, progress=False)


@pytest.mark.parametrize(
    ("was", "now", "message"),
    [
        (
            {"max_threshold": 0.3},
            {"max_threshold": 0.6},
            "keep 0.05 to 0.3 of the pixels; got the thresholds 0.05 to 0.6",
        ),
        (
            {"min_threshold": 0.1},
            {},
            "trained to keep 0.1 to 1 of the pixels; got the thresholds 0.05 to 1: choose",
        ),
        ({"threshold": 0.3}, {"threshold": 0.2}, "to keep 0.3 of the pixels; got the threshold 0.2: choose its own"),
        (
            {"threshold": 0.3},
            {"threshold": 0.6, "exact_budget": True},
            "to keep 0.3 of the pixels; got the threshold 0.6",
        ),
    ],
)
def test_a_selector_that_stays_keeps_what_it_was_trained_to_keep(was, now, message):
    train = dataclasses.replace(TRAIN, num_epochs=1, whole_epochs=0, freeze_selector=True)
    fixed = {"dynamic_threshold": "threshold" not in was}
    then, config = (dataclasses.replace(CONFIG, **fixed | changes) for changes in (was, now))
    with pytest.raises(ValueError, match=message):
        p2p.fit(config, Grid(), train=train, classifier=p2p.init(jax.random.key(0), then), progress=False)


def test_a_selector_that_stays_may_keep_fewer_by_an_exact_budget():
    train = dataclasses.replace(TRAIN, num_epochs=1, whole_epochs=0, freeze_selector=True)
    then, config = (
        dataclasses.replace(CONFIG, dynamic_threshold=False, threshold=threshold, exact_budget=True)
        for threshold in (0.5, 0.3)
    )
    result = p2p.fit(config, Grid(), train=train, classifier=p2p.init(jax.random.key(0), then), progress=False)
    assert 0 < result.history[0]["hard_share"] <= 0.3


@pytest.mark.parametrize("inside", ["", "run"])
def test_a_file_is_no_folder_of_a_run(tmp_path, inside):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(
        ValueError, match="file.*: expected a folder for a run, or a new one; it, or what it is in, is a"
    ):
        p2p.fit(CONFIG, Grid(), train=TRAIN, directory=tmp_path / "file" / inside, progress=False)
    assert (tmp_path / "file").read_text() == "mine"


def test_a_teacher_and_its_share_come_together(tmp_path):
    def fit(teacher=None, weight=0.0, **options):
        train = dataclasses.replace(TRAIN, num_epochs=1, whole_epochs=0, teacher_weight=weight)
        return p2p.fit(CONFIG, Grid(), train=train, teacher=teacher, progress=False, **options)

    teacher = p2p.init(jax.random.key(7), CONFIG)
    with pytest.raises(ValueError, match="teacher_weight needs a teacher: give fit"):
        fit(weight=0.5)
    with pytest.raises(ValueError, match=r"a teacher needs a TrainConfig\(teacher_weight=...\) above 0"):
        fit(teacher)
    other = p2p.init(jax.random.key(7), dataclasses.replace(CONFIG, num_classes=4))
    with pytest.raises(
        ValueError, match="the teacher has not the configuration's classifier, to teach it: num_classes"
    ):
        fit(other, 0.5)
    with pytest.raises(ValueError, match="the teacher's weights are not those of the configuration: 2 arrays differ"):
        fit(other.classifier, 0.5)
    light = p2p.init(jax.random.key(7), dataclasses.replace(CONFIG, std=(9.0, 9.0, 9.0)))
    with pytest.raises(ValueError, match=r"to teach it: std is \(9.0, 9.0, 9.0\), not"):
        fit(light, 0.5)
    stopped = fit(teacher, 0.5, directory=tmp_path, should_stop=After(2))
    assert int(stopped.state.step) == 2
    with pytest.raises(ValueError, match=r"other settings: train.teacher \(there \d+, now \d+\)"):
        fit(p2p.init(jax.random.key(8), CONFIG), 0.5, directory=tmp_path)
    resumed, whole = fit(teacher.classifier, 0.5, directory=tmp_path), fit(teacher, 0.5)
    assert equal(resumed.model, whole.model)
    assert not equal(whole.model.classifier, fit().model.classifier)


def leaves(tree):
    return [np.asarray(x) for x in jax.tree.leaves(tree)]


def equal(a, b):
    return all(np.array_equal(x, y) for x, y in zip(leaves(a), leaves(b), strict=True))


def lines(folder):
    return [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]


def timeless(history):
    return [{name: value for name, value in line.items() if name not in ("seconds", "throughput")} for line in history]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing interrupts, and its folder."""
    folder = tmp_path_factory.mktemp("whole")
    return p2p.fit(CONFIG, Grid(), validation=Grid(32, first=64), directory=folder, **SETTINGS), folder


def test_a_run_and_what_it_leaves(whole):
    result, folder = whole
    assert int(result.state.step) == 12
    assert [line["epoch"] for line in result.history] == [1, 2, 3]
    assert lines(folder) == result.history
    for line in result.history:
        assert {"loss", "accuracy", "soft_share", "hard_share"} <= line.keys()
        assert 0 <= line["validation"]["accuracy"] <= 1
        assert 0 <= line["validation"]["hard_share"] <= 1
    first, second, _ = result.history  # `whole_epochs` is 1
    assert first["hard_share"] == first["soft_share"] == first["validation"]["hard_share"] == 1
    assert first["sparsity"] == 0 < second["sparsity"]
    assert second["soft_share"] < 1
    assert equal(p2p.load(folder), result.model)
    assert not equal(p2p.load(folder, best=True), p2p.init(jax.random.key(0), CONFIG))
    again = p2p.fit(CONFIG, Grid(fail_at=0), validation=Grid(32, first=64), directory=folder, **SETTINGS)
    assert equal(again.state, result.state)  # a run that has ended is not run again
    assert again.history == result.history


@pytest.mark.parametrize("at", [5, 8])
def test_an_interrupted_run_ends_with_the_same_bits(whole, tmp_path, at):
    fit = dict(validation=Grid(32, first=64), directory=tmp_path, **SETTINGS)
    with pytest.raises(KeyboardInterrupt):
        p2p.fit(CONFIG, Grid(fail_at=at), **fit)
    assert p2p.load(tmp_path).config == CONFIG  # a training folder loads while it trains
    result = p2p.fit(CONFIG, Grid(), **fit)
    assert equal(result.state, whole[0].state)
    assert timeless(result.history) == timeless(whole[0].history)
    assert timeless(lines(tmp_path)) == timeless(whole[0].history)


@pytest.mark.slow
def test_devices_that_share_the_batches_agree_with_one(whole):
    mesh = jax.make_mesh((8,), ("data",))
    result = p2p.fit(CONFIG, Grid(), validation=Grid(32, first=64), mesh=mesh, **SETTINGS)
    for line, expected in zip(result.history, whole[0].history, strict=True):
        np.testing.assert_allclose(line["loss"], expected["loss"], rtol=1e-3)
    for a, b in zip(leaves(result.model), leaves(whole[0].model), strict=True):
        np.testing.assert_allclose(a, b, atol=5e-3)
    with pytest.raises(ValueError, match="batch_size must be a multiple of the mesh's 8 devices; got 20: take 16"):
        p2p.fit(CONFIG, Grid(), mesh=mesh, train=p2p.TrainConfig(batch_size=20))


def test_other_settings_and_other_folders_are_refused(whole, tmp_path):
    folder = whole[1]
    fit = dict(validation=Grid(32, first=64), directory=folder, **SETTINGS)
    with pytest.raises(
        ValueError,
        match=r"other settings: train.learning_rate \(there 0.001, now 0.01\), train.seed \(there 0, now 3\)",
    ):
        p2p.fit(CONFIG, Grid(), **fit | dict(train=dataclasses.replace(SETTINGS["train"], learning_rate=1e-2, seed=3)))
    with pytest.raises(ValueError, match=r"other settings: config.embedding_size \(there 2, now 1\)"):
        p2p.fit(dataclasses.replace(CONFIG, embedding_size=1), Grid(), **fit)
    with pytest.raises(ValueError, match="already holds a training run; resume it"):
        p2p.fit(CONFIG, Grid(), resume=False, **fit)
    p2p.save(tmp_path, whole[0].model)
    with pytest.raises(ValueError, match="already holds a saved model"):
        p2p.fit(CONFIG, Grid(), **fit | dict(directory=tmp_path))


def test_another_architecture_of_the_same_shapes_is_refused(whole):
    heads = dataclasses.replace(CONFIG, classifier=dataclasses.replace(CONFIG.classifier, num_heads=1))
    arrays = [jax.tree.map(np.shape, p2p.init(jax.random.key(0), config)) for config in (CONFIG, heads)]
    assert jax.tree.leaves(arrays[0]) == jax.tree.leaves(arrays[1])
    fit = dict(validation=Grid(32, first=64), directory=whole[1], **SETTINGS)
    with pytest.raises(ValueError, match=r"other settings: config.classifier.num_heads \(there 2, now 1\). Use"):
        p2p.fit(heads, Grid(), **fit)
    with pytest.raises(ValueError, match=r"other settings: train.classifier \(there None, now \d+\). Use"):
        p2p.fit(CONFIG, Grid(), classifier=whole[0].model.classifier, **fit)


def as_older(folder):
    """Rewrites a run's record as it was written before `TrainConfig`: a part of the settings stood in the model's."""
    path = folder / "config.json"
    record = json.loads(path.read_text())
    train = record.pop("train")
    del record["checksum"]
    record["config"] |= {name: train.pop(name) for name in OBJECTIVE if name in train}
    path.write_text(json.dumps(record | {"training": train}))


def test_a_folder_of_an_older_run_goes_on(whole, tmp_path):
    fit = dict(validation=Grid(32, first=64), directory=tmp_path, **SETTINGS)
    with pytest.raises(KeyboardInterrupt):
        p2p.fit(CONFIG, Grid(fail_at=5), **fit)
    as_older(tmp_path)
    with pytest.raises(ValueError, match=r"other settings: train.num_epochs \(there 3, now 4\). Use"):
        p2p.fit(CONFIG, Grid(), **fit | dict(train=dataclasses.replace(SETTINGS["train"], num_epochs=4)))
    assert equal(p2p.fit(CONFIG, Grid(), **fit).state, whole[0].state)
    assert equal(p2p.load(tmp_path), whole[0].model)


@pytest.mark.usefixtures("unchecked")
def test_weights_of_another_network_are_refused(tmp_path):
    with pytest.raises(ValueError, match="not those of the configuration: .* arrays differ, such as classifier/"):
        p2p.fit(CONFIG, Grid(), classifier={"head": np.zeros(3)}, directory=tmp_path / "run")


def test_a_source_holds_out_its_validation_images(tmp_path):
    grid = Grid(84)
    regions = np.broadcast_to(grid.regions, grid.images.shape[:3])
    source = Arrays(grid.images, grid.labels, regions=regions, class_names=("disc", "square", "triangle"))
    train = dataclasses.replace(TRAIN, augment=False, validation_share=0.2)
    result = p2p.fit(CONFIG, source, directory=tmp_path, train=train, progress=False)
    assert int(result.state.step) == 12  # three epochs of 67 images, 16 a step
    assert all("validation" in line for line in result.history)
    assert p2p.load_class_names(tmp_path) == source.class_names
    with pytest.raises(ValueError, match="the data has 3 classes, the configuration num_classes=4"):
        p2p.fit(dataclasses.replace(CONFIG, num_classes=4), source)


@pytest.mark.slow
def test_the_black_box_twin_and_what_starts_from_it():
    train = dataclasses.replace(TRAIN, num_epochs=1, whole_epochs=0)
    black_box = dataclasses.replace(train, select=False)
    twin = p2p.fit(CONFIG, Grid(), validation=Grid(32, first=64), train=black_box, progress=False)
    assert twin.history[0]["validation"]["hard_share"] == 1
    assert twin.history[0]["hard_share"] == 1
    given = twin.model.classifier
    before = leaves(given)
    slow = dataclasses.replace(train, learning_rate=1e-9)
    started = p2p.fit(CONFIG, Grid(), classifier=given, train=slow, progress=False)
    for a, b in zip(leaves(started.model.classifier), before, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    assert equal(given, before)  # what was handed in was not donated


def test_a_loss_that_is_no_number_ends_the_run(tmp_path):
    train = dataclasses.replace(TRAIN, learning_rate=1e30, warmup=0.0)
    with pytest.raises(
        FloatingPointError, match="the loss of epoch 1 is nan; train with a lower learning_rate than 1e"
    ):
        p2p.fit(CONFIG, Grid(), directory=tmp_path, train=train, progress=False)


def test_learning_rates():
    cosine, constant = (learning_rates(2.0, kind, 0.1, 100) for kind in ("cosine", "constant"))
    assert [float(cosine(i)) for i in (0, 5, 10, 100)] == [0, 1, 2, 0]
    assert [float(constant(i)) for i in (0, 5, 10, 100)] == [0, 1, 2, 2]
    assert float(learning_rates(2.0, "constant", 0.0, 100)(0)) == 2


RUN = """
import sys
from support.trainer import CONFIG, TRAIN, After, Grid
from jaxmoxi import p2p
import dataclasses
train = dataclasses.replace(TRAIN, num_epochs=40, save_every=3)
p2p.fit(CONFIG, Grid(), train=train, directory=sys.argv[1], progress=False)
"""


@pytest.mark.slow
def test_a_killed_run_ends_with_the_same_bits(tmp_path):
    """SIGKILL at random moments, KILLS times (default 3); each time the same command goes on."""

    def start(folder):
        root = Path(__file__).parents[2]  # of the tests, for `support`
        env = {**os.environ, "PYTHONPATH": str(root), "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "cache")}
        return subprocess.Popen([sys.executable, "-c", RUN, str(folder)], env=env)

    assert start(tmp_path / "whole").wait() == 0
    seed = int(os.environ.get("KILL_SEED", "0"))
    rng, killed = random.Random(seed), tmp_path / "killed"
    for _ in range(int(os.environ.get("KILLS", "3"))):
        process = start(killed)
        seen = len(list((killed / "checkpoints").glob("[0-9]*"))) if killed.exists() else 0
        newest = max((int(p.name) for p in (killed / "checkpoints").glob("[0-9]*") if p.name.isdecimal()), default=-1)
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline and process.poll() is None:  # until it has got further, then at any moment
            steps = [int(p.name) for p in (killed / "checkpoints").glob("[0-9]*") if p.name.isdecimal()]
            if max(steps, default=-1) > newest:
                break
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.2))
        process.send_signal(signal.SIGKILL)
        process.wait()
        print("killed", "after step", newest, seen)
    assert start(killed).wait() == 0
    assert equal(p2p.load(killed), p2p.load(tmp_path / "whole"))
    assert timeless(lines(killed)) == timeless(lines(tmp_path / "whole"))
