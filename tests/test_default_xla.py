"""A share of the suite with XLA's default optimisations, as users run it; the rest runs without them, to be quick."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
# Parity with the authors' code, and the way by which fewer tokens give the same values: half a minute and more.
PARTS = [
    pytest.param("moxi/test_golden.py", "dev-b", marks=pytest.mark.slow),
    pytest.param("p2p/test_golden.py", "", marks=pytest.mark.slow),
    pytest.param("games/test_image.py", "max_visible or payoffs", marks=pytest.mark.slow),
]


@pytest.mark.skipif(os.environ.get("JAXMOXI_TEST_XLA") == "default", reason="everything runs so already")
@pytest.mark.parametrize(("part", "chosen"), PARTS)
def test_at_the_default_optimisation_level(part, chosen):
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    environment["JAXMOXI_TEST_XLA"] = "default"
    command = [sys.executable, "-m", "pytest", "-q", "-n0", "-p", "no:cacheprovider", str(TESTS / part), "-k", chosen]
    done = subprocess.run(
        command, cwd=TESTS.parent, env=environment, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
