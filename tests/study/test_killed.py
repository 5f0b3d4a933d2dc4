"""Whole processes: killed at any moment, and two of them sharing a study."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from support.study import files, write_photos

RUN = """
import sys
import jax
from pathlib import Path
from support.study import tiny_classifier, tiny_config
from jaxmoxi.study import run_study
photos, out, coordinator, count, index = sys.argv[1:]
if coordinator:
    jax.distributed.initialize(coordinator, int(count), int(index))
process = (jax.process_index(), jax.process_count())
run_study(Path(photos), {"tiny": tiny_classifier()}, Path(out), tiny_config(), shard_size=1, process=process,
          progress=False, poll_seconds=0.2)
"""


def start(photos, out, cache, coordinator="", count=1, index=0):
    tests = Path(__file__).parents[1]
    env = {
        **os.environ, "PYTHONPATH": f"{tests}{os.pathsep}{tests.parent}", "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }  # fmt: skip
    words = [str(x) for x in (photos, out, coordinator, count, index)]
    return subprocess.Popen([sys.executable, "-c", RUN, *words], env=env)


@pytest.mark.slow
def test_killed_at_any_moment_it_goes_on(tmp_path):
    """SIGKILL at random moments, KILLS times (default 5); each time the same command goes on."""
    photos, cache = write_photos(tmp_path / "photos", 24), tmp_path / "cache"
    assert start(photos, tmp_path / "whole", cache).wait() == 0
    rng, out, kills = random.Random(0), tmp_path / "killed", 0
    while kills < int(os.environ.get("KILLS", "5")):
        process = start(photos, out, cache)
        seen = len(list(out.glob("shards/*.npz")))
        while process.poll() is None and len(list(out.glob("shards/*.npz"))) == seen:
            time.sleep(0.005)
        time.sleep(rng.uniform(0, 0.05))
        if process.poll() is not None:  # it ended first: begin again with fewer shards
            for path in out.glob("shards/*.npz"):
                path.unlink()
            (out / "report.md").unlink()
            continue
        process.send_signal(signal.SIGKILL)
        process.wait()
        kills += 1
    assert start(photos, out, cache).wait() == 0
    assert files(out) == files(tmp_path / "whole")


@pytest.mark.slow
def test_two_processes_on_loopback(tmp_path):
    photos, cache = write_photos(tmp_path / "photos", 6), tmp_path / "cache"
    assert start(photos, tmp_path / "one", cache).wait() == 0
    address = f"127.0.0.1:{random.randrange(20_000, 60_000)}"
    pair = [start(photos, tmp_path / "two", cache, address, 2, i) for i in range(2)]
    assert [process.wait(timeout=300) for process in pair] == [0, 0]
    assert files(tmp_path / "two") == files(tmp_path / "one")
