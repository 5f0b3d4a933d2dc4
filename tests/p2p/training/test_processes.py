"""Two processes on this machine train what one trains, stop together, and go on from each other's checkpoints."""

import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from jaxmoxi import p2p
from jaxmoxi.p2p import arrays
from support.processes import TRAIN_ALIKE, StopAt, loaders
from support.trainer import CONFIG
from support.xla import quick_flags

ROOT = Path(__file__).parents[3]


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def fit(folder, stop=None):
    data, validation, *_ = loaders()
    return p2p.fit(
        CONFIG, data, validation=validation, train=TRAIN_ALIKE, directory=folder, progress=False, should_stop=stop
    )


pytestmark = pytest.mark.slow  # a minute and a half on two cores; .ci/run runs it


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """What two processes printed, the run that one process did, and the folder that they shared in turn."""
    folder = tmp_path_factory.mktemp("processes")
    env = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}", "XLA_FLAGS": quick_flags()}
    port, files = str(free_port()), [(folder / f"out{i}").open("w") for i in range(2)]
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "support.processes", str(i), port, str(folder)], env=env, stdout=files[i],
            stderr=subprocess.STDOUT,
        )
        for i in range(2)
    ]  # fmt: skip
    try:
        whole = fit(folder / "whole")
        until = time.monotonic() + 120
        while not (folder / "first-0").exists() or not (folder / "first-1").exists():
            assert time.monotonic() < until, [(folder / f"out{i}").read_text()[-3000:] for i in range(2)]
            time.sleep(0.05)
        between = fit(folder / "run", StopAt(3))  # one process goes on, and is stopped too
        (folder / "one-has-gone-on").touch()
        for process in processes:
            process.wait(timeout=120)
    finally:
        for process in processes:
            process.kill()
    return [(folder / f"out{i}").read_text() for i in range(2)], whole, between, folder


def line(text, name):
    (found,) = [line for line in text.splitlines() if line.startswith(name)]
    return found


def assert_alike(one, other):
    """The same parameters, to rounding. No score depends on the biases of keys: Adam moves those by rounding."""
    pairs = [arrays.flatten(model) for model in (one, other)]
    assert pairs[0].keys() == pairs[1].keys()
    for name in pairs[0]:
        a, b = (np.delete(x[name], slice(16, 32), -1) if name.endswith("qkv/bias") else x[name] for x in pairs)
        np.testing.assert_allclose(a, b, atol=2e-5, rtol=1e-3, err_msg=name)


def test_two_one_and_two_processes_end_with_the_parameters_of_one(ran):
    _, whole, between, folder = ran
    assert int(between.state.step) == 5
    assert_alike(p2p.load(folder / "run"), whole.model)
    history = [whole.history, p2p.training.run_folder.read_history(folder / "run")]
    for one, two in zip(*history, strict=True):
        assert one["step"] == two["step"]
        np.testing.assert_allclose(one["loss"], two["loss"], rtol=1e-4)
    assert history[0][-1]["validation"] == pytest.approx(history[1][-1]["validation"], abs=1e-4)
    assert_alike(*[p2p.load(folder / name, best=True) for name in ("run", "whole")])


def test_they_stop_at_the_same_step_and_read_their_share_alone(ran):
    texts, *_ = ran
    stopped = [line(text, "stopped") for text in texts]
    assert stopped[0].split()[1] == stopped[1].split()[1] == "2"
    read = [eval(re.findall(r"\[.*?\]", text)[0]) for text in stopped]
    assert not set(read[0]) & set(read[1])
    assert len(read[0]) == len(read[1]) == 12  # of the two steps, and of the one that they were ready for
    ended = [line(text, "ended") for text in texts]
    assert [text.split()[2] for text in ended] == ["7", "6"]  # of the 13 images to validate on
    assert ended[0].split("{")[1] == ended[1].split("{")[1]
    assert "loads True" in texts[0]
    assert "loads True" in texts[1]
    assert "epoch" in texts[0]
    assert "epoch" not in texts[1]  # the first one calls back


def test_what_one_process_meets_is_raised_in_both(ran):
    texts, *_ = ran
    photo = [line(text, "photo") for text in texts]
    assert sorted(text.split()[1] for text in photo) == ["InputError", "OtherProcessError"]
    assert all("photo 7 cannot be read" in text for text in photo)
    assert re.search(r"process [01] on \S+ has failed: photo 7", "".join(photo))
    assert "train.seed (in the first process 0, here 1)" in line(texts[1], "settings")
    assert "process 1 on" in line(texts[0], "settings")
    for text in texts:
        assert "a multiple of the 4 devices of all processes; got 6: take 4" in line(text, "batch")
        assert "is not the same folder" in line(text, "folder")
