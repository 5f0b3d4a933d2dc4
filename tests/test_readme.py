"""The README's commands and Python blocks do what they say."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")


def programs():
    """The Python blocks, each with those that go on from it: a block that imports jax or jaxmoxi starts anew."""
    out = []
    for block in re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL):
        if re.match(r"import jax|from jaxmoxi", block):
            out.append(block)
        else:
            out[-1] += block
    return out


PROGRAMS = programs()


def test_the_first_commands_bring_their_own_environment_and_are_what_ci_runs():
    explain, test = re.findall("^python3 -m venv.*", README, re.MULTILINE)
    assert explain == "python3 -m venv .venv && .venv/bin/pip install '.[demo]' && .venv/bin/jaxmoxi explain"
    assert test == "python3 -m venv .venv && .venv/bin/pip install -e '.[dev]' && .venv/bin/pytest"
    script = (ROOT / ".ci" / "run").read_text()
    taken = re.search(r"< <\((.*)\)\n", script)[1]
    lines = subprocess.run(["bash", "-c", taken], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert lines.splitlines() == [explain, test]


def test_every_block_is_run():
    assert sum(program.count("import ") > 0 for program in PROGRAMS) == len(PROGRAMS) == 6


@pytest.mark.parametrize("number", range(len(PROGRAMS)))
def test_blocks(number, tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-c", PROGRAMS[number]]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr
