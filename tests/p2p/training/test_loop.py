"""The run: it resumes with the same bits, shares its work, and refuses what cannot be."""

import dataclasses
import inspect
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
from jaxmoxi.p2p import presets
from jaxmoxi.p2p.data import Arrays
from jaxmoxi.p2p.training.step import learning_rates
from support.trainer import CONFIG, Grid

SETTINGS = dict(batch_size=16, learning_rate=1e-3, progress=False, save_every=3)


def leaves(tree):
    return [np.asarray(x) for x in jax.tree.leaves(tree)]


def equal(a, b):
    return all(np.array_equal(x, y) for x, y in zip(leaves(a), leaves(b), strict=True))


def lines(folder):
    return [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]


def timeless(history):
    return [{name: value for name, value in line.items() if name != "seconds"} for line in history]


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
        p2p.fit(CONFIG, Grid(), mesh=mesh, batch_size=20)


def test_other_settings_and_other_folders_are_refused(whole, tmp_path):
    folder = whole[1]
    fit = dict(validation=Grid(32, first=64), directory=folder, **SETTINGS)
    with pytest.raises(
        ValueError, match=r"other settings: learning_rate \(there 0.001, now 0.01\), seed \(there 0, now 3\)"
    ):
        p2p.fit(CONFIG, Grid(), **fit | dict(learning_rate=1e-2, seed=3))
    with pytest.raises(ValueError, match=r"other settings: embedding_size \(there 2, now 1\)"):
        p2p.fit(dataclasses.replace(CONFIG, embedding_size=1), Grid(), **fit)
    with pytest.raises(ValueError, match="already holds a training run; resume it"):
        p2p.fit(CONFIG, Grid(), resume=False, **fit)
    p2p.save(tmp_path, whole[0].model)
    with pytest.raises(ValueError, match="already holds a saved model"):
        p2p.fit(CONFIG, Grid(), **fit | dict(directory=tmp_path))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 0}, "batch_size must be above 0; got 0"),
        ({"learning_rate": -1.0}, "learning_rate must be above 0"),
        ({"save_every": 0}, "save_every must be above 0; got 0"),
        ({"weight_decay": -0.1}, "weight_decay must be at least 0"),
        ({"schedule": "linear"}, 'expected a schedule of "cosine" or "constant"'),
        ({"warmup": 1.0}, r"warmup is a share of the steps, in \[0, 1\); got 1.0"),
        ({"certainty": 0.0}, r"certainty must lie in \(0, 1\]; got 0.0"),
        ({"validation_share": 1.0}, r"validation_share must lie in \(0, 1\); got 1.0"),
        (
            {"classifier": {"head": np.zeros(3)}},
            "not those of the configuration: .* arrays differ, such as classifier/",
        ),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_settings_that_cannot_be(changes, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        p2p.fit(CONFIG, Grid(), **{"directory": tmp_path / "run", **changes})


def test_a_source_holds_out_its_validation_images(tmp_path):
    grid = Grid(84)
    regions = np.broadcast_to(grid.regions, grid.images.shape[:3])
    source = Arrays(grid.images, grid.labels, regions=regions, class_names=("disc", "square", "triangle"))
    result = p2p.fit(CONFIG, source, directory=tmp_path, augment=False, validation_share=0.2, **SETTINGS)
    assert int(result.state.step) == 12  # three epochs of 67 images, 16 a step
    assert all("validation" in line for line in result.history)
    assert p2p.load_class_names(tmp_path) == source.class_names
    with pytest.raises(ValueError, match="the data has 3 classes, the configuration num_classes=4"):
        p2p.fit(dataclasses.replace(CONFIG, num_classes=4), source)


@pytest.mark.slow
def test_the_black_box_twin_and_what_starts_from_it():
    config = dataclasses.replace(CONFIG, num_epochs=1)
    settings = dict(batch_size=16, learning_rate=1e-3, progress=False)
    twin = p2p.fit(config, Grid(), validation=Grid(32, first=64), select=False, **settings)
    assert twin.history[0]["validation"]["hard_share"] == 1
    assert twin.history[0]["hard_share"] == 1
    given = twin.model.classifier
    before = leaves(given)
    started = p2p.fit(config, Grid(), classifier=given, **settings | dict(learning_rate=1e-9))
    for a, b in zip(leaves(started.model.classifier), before, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    assert equal(given, before)  # what was handed in was not donated


def test_a_loss_that_is_no_number_ends_the_run(tmp_path):
    with pytest.raises(
        FloatingPointError, match="the loss of epoch 1 is nan; train with a lower learning_rate than 1e"
    ):
        p2p.fit(CONFIG, Grid(), directory=tmp_path, batch_size=16, learning_rate=1e30, warmup=0.0, progress=False)


def test_learning_rates():
    cosine, constant = (learning_rates(2.0, kind, 0.1, 100) for kind in ("cosine", "constant"))
    assert [float(cosine(i)) for i in (0, 5, 10, 100)] == [0, 1, 2, 0]
    assert [float(constant(i)) for i in (0, 5, 10, 100)] == [0, 1, 2, 2]
    assert float(learning_rates(2.0, "constant", 0.0, 100)(0)) == 2


def test_presets_are_settings_of_fit():
    for make in presets.PRESETS.values():
        config, training = make(4)
        assert config.num_classes == 4
        assert training.keys() <= inspect.signature(p2p.fit).parameters.keys()


RUN = """
import sys
from support.trainer import CONFIG, Grid
from jaxmoxi import p2p
import dataclasses
config = dataclasses.replace(CONFIG, num_epochs=40)
p2p.fit(config, Grid(), directory=sys.argv[1], batch_size=16, learning_rate=1e-3, progress=False, save_every=3)
"""


@pytest.mark.slow
def test_a_killed_run_ends_with_the_same_bits(tmp_path):
    """SIGKILL at random moments, KILLS times (default 3); each time the same command goes on."""

    def start(folder):
        root = Path(__file__).parents[2]
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
