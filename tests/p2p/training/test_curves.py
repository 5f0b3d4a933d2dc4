"""The learning curves that are written while a run trains, and its throughput."""

import dataclasses
import json
import threading
import time

import numpy as np
import pytest

from jaxmoxi import p2p
from jaxmoxi.p2p.training.curves import FILE, NAMES, describe_epoch, read_curves
from jaxmoxi.p2p.training.throughput import Measured, Throughput
from jaxmoxi.plot.learning import learning_curves
from support.trainer import CONFIG, TRAIN, After, Grid

BLACK_BOX = dataclasses.replace(TRAIN, num_epochs=2, whole_epochs=0, select=False, log_every=3)


def test_curves_are_written_on_the_way_and_agree_with_the_history(tmp_path):
    fit = dict(train=BLACK_BOX, progress=False)
    whole = p2p.fit(CONFIG, Grid(), directory=tmp_path / "whole", **fit)
    rows = read_curves(tmp_path / "whole")
    assert [(row["epoch"], row["step"]) for row in rows] == [(1, 3), (1, 4), (2, 7), (2, 8)]
    for line, (first, rest) in zip(whole.history, (rows[:2], rows[2:]), strict=True):
        for name in NAMES:
            np.testing.assert_allclose((3 * first[name] + rest[name]) / 4, line[name], rtol=1e-4)
    assert rows[1]["images_per_second"] > 0
    assert 0 <= rows[1]["data_wait"] <= 1
    assert "images/s, " in describe_epoch(whole.history[1])

    folder = tmp_path / "stopped"  # in the middle of a window, with a line of the future and a torn one
    p2p.fit(CONFIG, Grid(), directory=folder, should_stop=After(6), **fit)
    assert [row["step"] for row in read_curves(folder)] == [3, 4]
    with (folder / FILE).open("a") as file:
        file.write(json.dumps(rows[2]) + "\n" + json.dumps(rows[3])[:40])
    p2p.fit(CONFIG, Grid(), directory=folder, **fit)
    for row, expected in zip(read_curves(folder), rows, strict=True):
        for name in ("epoch", "step", *NAMES):
            np.testing.assert_allclose(row[name], expected[name], rtol=1e-4)


@pytest.mark.parametrize("count", [0, 1, 4])
def test_they_are_drawn_however_far_they_are(count):
    row = dict.fromkeys(NAMES, 0.5)
    rows = [row | {"epoch": 1 + i // 2, "step": 10 * (i + 1)} for i in range(count)]
    history = [row | {"epoch": 1, "step": 20, "validation": {"accuracy": 0.9, "hard_share": 0.2}}] if count > 2 else []
    losses, shares = learning_curves(rows, history).axes
    assert losses.get_lines()[0].get_xdata().tolist() == [0.5 * (i + 1) for i in range(count)] or count == 1
    assert len(shares.get_lines()) == 5


class Later:
    """An array that is ready some time after it is asked for."""

    def __init__(self, seconds):
        self.seconds = seconds

    def block_until_ready(self):
        time.sleep(self.seconds)
        return self


@pytest.mark.parametrize(("data", "work", "least", "most"), [(0.0, 0.05, 0.0, 0.2), (0.08, 0.02, 0.6, 0.95)])
def test_the_share_of_the_time_that_a_device_waits_for_data(data, work, least, most):
    with Throughput() as clock:
        clock.step(Later(data), Later(work), 10)  # the first counts for nothing: it may have compiled
        for _ in range(4):
            clock.step(Later(data), Later(work), 10)
        found = clock.take()
        assert found.images == 40
        assert least <= found.record()["data_wait"] <= most
        assert 1 < found.record()["images_per_second"] < 40 / (4 * (data + work)) * 1.01
        clock.pause()
        clock.step(Later(0), Later(0), 10)
        assert clock.take() == Measured()
        assert Measured().record() == {}
    assert "jaxmoxi-throughput" not in {thread.name for thread in threading.enumerate()}
