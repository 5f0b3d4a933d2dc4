import os

from support.xla import quick_flags

# Eight simulated devices, for the tests of meshes; everything else runs on the first. Compiling is most of what the
# suite does, and quickly compiled programs do: it takes a third of the time. JAXMOXI_TEST_XLA=default compiles as for
# users; tests/test_default_xla.py runs a share of the suite so, and tests/test_readme.py most of the README's code.
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
if os.environ.get("JAXMOXI_TEST_XLA") != "default":
    os.environ["XLA_FLAGS"] += f" {quick_flags()}"

import gc
from pathlib import Path

import jax
import jaxtyping
import pytest

# A process may hold 65,530 maps of memory, unless the machine says otherwise, and every compiled program takes some.
_MAPS, _MOST_MAPS = Path("/proc/self/maps"), 30_000


# Tests that start processes which compile for themselves, half a minute some of them.
_LONG = ("test_readme.py", "test_default_xla.py", "test_examples.py")


def pytest_collection_modifyitems(items):
    """The longest come first, so that no worker waits at the end for another's."""
    items.sort(key=lambda item: item.path.name not in _LONG)


@pytest.fixture(autouse=True, scope="module")
def few_programs():
    """Forgets what was compiled once it is much: a process that reaches the limit on maps ends without a word."""
    yield
    if _MAPS.exists() and len(_MAPS.read_bytes().splitlines()) > _MOST_MAPS:
        jax.clear_caches()
        gc.collect()


@pytest.fixture
def unchecked():
    """Lets wrong types through to the package's own messages, which users without the type checker see."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
