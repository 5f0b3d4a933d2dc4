"""Runs that are stopped, or whose files are damaged: they go on with the same bits, or say what is wrong."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from jaxmoxi import p2p
from jaxmoxi.p2p.training.feed import check_batch
from support.trainer import CONFIG, TRAIN, Grid

# The black-box twin, as it compiles fast: 2 epochs of 4 steps. What is saved and resumed does not depend on that.
FIT = dict(train=dataclasses.replace(TRAIN, num_epochs=2, whole_epochs=0, select=False), progress=False)


def equal(a, b):
    return all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def timeless(history):
    return [{name: value for name, value in line.items() if name not in ("seconds", "throughput")} for line in history]


class After:
    """Answers True from the call of this number on."""

    def __init__(self, calls):
        self.left = calls

    def __call__(self):
        self.left -= 1
        return self.left < 0


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    return p2p.fit(CONFIG, Grid(), validation=Grid(32, first=64), directory=folder, **FIT), folder


# Asked before each step, and before each of the two batches of a validation: 4 steps, 2 batches, 4 steps, 2 batches.
@pytest.mark.parametrize(("calls", "step"), [(2, 2), (5, 4), (8, 6), (11, 8)])
def test_a_stopped_run_ends_with_the_same_bits(whole, tmp_path, calls, step):
    fit = dict(validation=Grid(32, first=64), directory=tmp_path, **FIT)
    stopped = p2p.fit(CONFIG, Grid(), should_stop=After(calls), **fit)
    assert int(stopped.state.step) == step
    assert json.loads((tmp_path / "config.json").read_text())["arrays"] is None
    if calls == 5:
        again = p2p.fit(CONFIG, Grid(), should_stop=After(0), **fit)  # stopped again, where it was
        assert int(again.state.step) == step
    result = p2p.fit(CONFIG, Grid(), should_stop=After(100), **fit)
    assert equal(result.state, whole[0].state)
    assert timeless(result.history) == timeless(whole[0].history)
    assert equal(p2p.load(tmp_path, best=True), p2p.load(whole[1], best=True))
    assert equal(p2p.load(tmp_path), whole[0].model)


def test_a_damaged_checkpoint_costs_its_steps_alone(whole, tmp_path, capfd):
    fit = dict(validation=Grid(32, first=64), directory=tmp_path, **FIT)
    p2p.fit(CONFIG, Grid(), should_stop=After(8), **fit)
    newest = tmp_path / "checkpoints" / "6"
    largest = max((p for p in newest.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    bad = bytearray(largest.read_bytes())
    bad[len(bad) // 3] ^= 16
    largest.write_bytes(bad)
    with pytest.warns(UserWarning, match="of step 6 .* is damaged: .* gives the model of step 4"):
        p2p.load(tmp_path)
    with pytest.warns(UserWarning, match="of step 6 .* is damaged: the run goes on from step 4"):
        result = p2p.fit(CONFIG, Grid(), **fit)
    assert capfd.readouterr().err == ""
    assert equal(result.state, whole[0].state)
    assert timeless(result.history) == timeless(whole[0].history)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stopped")
    p2p.fit(CONFIG, Grid(), directory=folder, should_stop=After(5), **FIT)
    return folder


LINE = b'{"epoch": 1, "step": 4, "loss": 1.0}\n'


@pytest.mark.parametrize(
    ("content", "number"),
    [(LINE[:-9], 1), (LINE + LINE[:8], 2), (LINE + LINE, 2), (b"[1, 2]\n", 1), (b"3\n", 1), (b'{"step": 4}\n', 1),
     (b'{"epoch": "1", "step": 4}\n', 1), (LINE + b"\n" + LINE, 2), (LINE + b"\xff\xfe", None),
     (b"[" * 100_000, 1)],
)  # fmt: skip
def test_a_damaged_history_is_named(stopped, content, number):
    (stopped / "history.jsonl").write_bytes(content)
    where = "no text from byte" if number is None else f"line {number} is not the record of an epoch"
    with pytest.raises(
        ValueError, match=rf"history.jsonl is damaged: (it is )?{where}.*; remove the file; the run then"
    ):
        p2p.fit(CONFIG, Grid(fail_at=5), directory=stopped, **FIT)


def test_without_its_history_a_run_goes_on_and_says_so(stopped):
    fit = dict(directory=stopped, **FIT)
    (stopped / "history.jsonl").unlink()
    with pytest.warns(UserWarning, match="holds the records of 0 of the 1 epochs that have ended"):
        result = p2p.fit(CONFIG, Grid(), **fit)
    assert [line["epoch"] for line in result.history] == [2]


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[]", b'{"config": {}, "train": 3}'])
def test_a_damaged_record_of_a_run_is_named(whole, tmp_path, content):
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"config.json (is not the record of|does not hold the settings of a run)"):
        p2p.fit(CONFIG, Grid(fail_at=0), directory=tmp_path, **FIT)


class Batches(Grid):
    """Batches with something wrong in them from a step on."""

    def __init__(self, change, at=0):
        super().__init__()
        self.change, self.at = change, at

    def batch(self, step):
        batch = super().batch(step)
        return self.change(batch) if step >= self.at else batch


WRONG = {
    "pixels": (lambda b: b._replace(images=b.images.astype(np.float32)), "or divide them by 255"),
    "normalised": (lambda b: b._replace(images=b.images / np.float32(60) - 2), "the model does that itself"),
    "NaN": (lambda b: b._replace(images=np.full(b.images.shape, np.nan, np.float32)), "NaN or infinite"),
    "labels": (lambda b: b._replace(labels=b.labels + 1), r"the labels of the batch of step 1 .* 0 .. 2; got 1 .. 3"),
    "negative labels": (lambda b: b._replace(labels=b.labels - 1), r"0 .. 2; got -1 .. 1"),
    "float labels": (lambda b: b._replace(labels=b.labels.astype(np.float32)), r"labels .* int\[16\]; got float32"),
    "regions": (lambda b: b._replace(regions=b.regions - 1), "superpixels .* numbered from 0"),
}


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(("change", "message"), WRONG.values(), ids=WRONG)
def test_batches_that_nothing_can_be_learned_from(change, message):
    with pytest.raises(ValueError, match=message):
        check_batch(change(Grid().batch(0)), CONFIG, step=1, first=True)


@pytest.mark.usefixtures("unchecked")
def test_images_that_go_wrong_later_are_named():
    wrong = Batches(lambda b: b._replace(images=b.images / np.float32(255) + 1), at=1)
    with pytest.raises(ValueError, match="the images of the batch of step 2 of the training as uint8, or as floats"):
        p2p.fit(CONFIG, wrong, **FIT)


@pytest.mark.usefixtures("unchecked")
def test_wrong_labels_are_named_where_they_come():
    wrong = Batches(lambda b: b._replace(labels=b.labels + 1), at=1)
    with pytest.raises(ValueError, match="the labels of the batch of step 2 of the training"):
        p2p.fit(CONFIG, wrong, **FIT)
    with pytest.raises(ValueError, match="the labels of the batch of step 2 of the validation"):
        p2p.fit(CONFIG, Grid(), validation=wrong, **FIT)
