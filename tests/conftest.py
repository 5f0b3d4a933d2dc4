import os

from support.xla import knows

# Eight simulated devices, for the tests of meshes; everything else runs on the first. Compiling is most of what the
# suite does: without LLVM's optimisations, and with XLA's plain emitter in place of the one that goes through MLIR, it
# takes a quarter of the time. JAXMOXI_TEST_XLA=default compiles as for users: tests/test_default_xla.py runs a share of
# the suite so, and tests/test_readme.py the README's code.
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
if os.environ.get("JAXMOXI_TEST_XLA") != "default":
    os.environ["XLA_FLAGS"] += " --xla_backend_optimization_level=0"
    if knows("xla_cpu_use_fusion_emitters"):
        os.environ["XLA_FLAGS"] += " --xla_cpu_use_fusion_emitters=false"

import gc
from pathlib import Path

import jax
import jaxtyping
import pytest

# A process may hold 65,530 maps of memory, unless the machine says otherwise, and every compiled program takes some.
_MAPS, _MOST_MAPS = Path("/proc/self/maps"), 30_000


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
