"""Two trainers in one folder: the second is refused, and a killed one is in nobody's way."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from jaxmoxi import p2p
from jaxmoxi.p2p.training.lock import only_one
from support.trainer import CONFIG, TRAIN, Grid

HOLD = """
import sys, time
from pathlib import Path
from jaxmoxi.p2p.training.lock import only_one
with only_one(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_trainer_is_refused_at_once(tmp_path):
    with (
        only_one(tmp_path),
        pytest.raises(ValueError, match=r"another process trains in .* \(process \d+ on .*\); wait"),
    ):
        p2p.fit(CONFIG, Grid(fail_at=0), train=TRAIN, directory=tmp_path, progress=False)
    assert list(tmp_path.iterdir()) == []  # the first one left nothing, the second made nothing
    with only_one(tmp_path):
        pass


def test_a_killed_trainer_holds_nothing(tmp_path):
    root = str(Path(p2p.__file__).parents[2])
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    process = subprocess.Popen(command, env={"PYTHONPATH": root}, stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"held\n"
    with pytest.raises(ValueError, match=f"another process trains in .*process {process.pid} on"), only_one(tmp_path):
        pass
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert (tmp_path / ".lock").exists()
    with only_one(tmp_path):
        pass
    assert not (tmp_path / ".lock").exists()
