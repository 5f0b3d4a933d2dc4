"""A training with a frozen classifier, batches in parts and averaged weights, that is killed again and again."""

import os
import random
import signal
import subprocess
import sys
import time

import pytest

from jaxmoxi import p2p
from jaxmoxi.p2p.training.curves import NAMES, read_curves
from jaxmoxi.p2p.training.run_folder import read_history
from support.trainer import equal, timeless

WORDS = [
    "train", "--num-scenes", "160", "--epochs", "16", "--batch-size", "8", "--image-size", "32", "--num-groups", "16",
    "--method", "comet", "--ema", "0.9", "--accumulate", "2", "--save-every", "2", "--one-device", "--quiet",
    "--fidelity-shares", "0.1",
]  # fmt: skip


@pytest.mark.slow
def test_ten_kills_and_a_sigterm_change_nothing(tmp_path):
    """SIGKILL at random moments, KILLS times (default 10), then SIGTERM; each time the same command goes on."""
    env = {
        **os.environ,
        "JAXMOXI_CACHE_DIR": str(tmp_path / "cache"),
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "cache"),
    }

    def start(folder):
        command = [sys.executable, "-m", "jaxmoxi", *WORDS, "--out", str(folder)]
        return subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    def newest(folder):
        return max((int(p.name) for p in (folder / "checkpoints").glob("[0-9]*") if p.name.isdecimal()), default=-1)

    def until_further(process, folder, step):
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline and process.poll() is None and newest(folder) <= step:
            time.sleep(0.01)

    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert start(whole).wait() == 0
    rng = random.Random(int(os.environ.get("KILL_SEED", "0")))
    for _ in range(int(os.environ.get("KILLS", "10"))):
        process = start(killed)
        until_further(process, killed, newest(killed))
        time.sleep(rng.uniform(0, 0.2))
        process.send_signal(signal.SIGKILL)
        process.wait()
    process, step = start(killed), newest(killed)
    until_further(process, killed, step)
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 0
    assert process.stderr is not None
    assert "the same command goes on from there" in process.stderr.read()
    assert not (killed / "evaluation.json").exists()
    assert start(killed).wait() == 0
    assert equal(p2p.load(killed), p2p.load(whole))
    assert timeless(read_history(killed)) == timeless(read_history(whole))
    rows, expected = read_curves(killed), read_curves(whole)
    assert [row["step"] for row in rows] == [row["step"] for row in expected]
    for row, other in zip(rows, expected, strict=True):
        assert all(abs(row[name] - other[name]) <= 1e-4 * max(abs(other[name]), 1) for name in NAMES)
