"""The README's commands and Python blocks do what they say."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from support.xla import quick_flags

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
    assert sum(program.count("import ") > 0 for program in PROGRAMS) == len(PROGRAMS) == 7


def quick(program):
    """The same code on a grid of 4 x 4 regions, a ninth of the evaluations of 7 x 7, and on 64 scenes."""
    program = program.replace("rows=7, cols=7", "rows=4, cols=4").replace("key(0), 256)", "key(0), 64)")
    program = re.sub(r", 49(?=[,)])", ", 16", program)
    return program.replace("probability=0.9", "probability=0.3")  # no group of so large regions is surer than everybody


def run(program, folder, cache, flags=""):
    environment = {**os.environ, "XLA_FLAGS": flags}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment |= {"JAX_COMPILATION_CACHE_DIR": str(cache), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2"}
    command = [sys.executable, "-c", program]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    """Compiled programs that several blocks have in common."""
    return tmp_path_factory.mktemp("cache")


def test_the_quick_run_has_the_smaller_grid_everywhere():
    grids = [program for program in PROGRAMS if "rows=7, cols=7" in program]
    assert len(grids) == 4
    for program in grids:
        lines = [line.split("  #")[0] for line in quick(program).splitlines()]
        assert any("rows=4, cols=4" in line for line in lines)
        assert not any(re.search(r"=7\b|\b49\b", line) for line in lines)


SEARCHES = next(i for i, program in enumerate(PROGRAMS) if "minimal_group" in program)  # a dozen compiled programs


@pytest.mark.parametrize(
    "number", [pytest.param(i, marks=pytest.mark.slow if i == SEARCHES else ()) for i in range(len(PROGRAMS))]
)
def test_blocks(number, tmp_path, cache):
    program = quick(PROGRAMS[number])
    run(program, tmp_path, cache, quick_flags() if "p2p.fit" in program else "")  # a training compiles the most


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(PROGRAMS)))
def test_blocks_to_the_letter(number, tmp_path, cache):
    run(PROGRAMS[number], tmp_path, cache)
