"""How the tests compile. Nothing here imports JAX, which reads XLA's flags when it starts."""

import os
import subprocess
import sys

_EMITTERS = "xla_cpu_use_fusion_emitters"
_TOLD = "JAXMOXI_TEST_HAS_EMITTERS"  # what a process found out, for those that it starts


def _has_emitters() -> bool:
    """Whether XLA takes the flag: it ends the process at one that it does not know, so another process tries."""
    if _TOLD not in os.environ:
        environment = {**os.environ, "XLA_FLAGS": f"--{_EMITTERS}=false", "JAX_PLATFORMS": "cpu"}
        tried = subprocess.run(
            [sys.executable, "-c", "import jax; jax.devices()"], env=environment, capture_output=True, check=False
        )
        os.environ[_TOLD] = str(int(tried.returncode == 0))
    return os.environ[_TOLD] == "1"


def quick_flags() -> str:
    """XLA's flags for compiling quickly: no optimisations of LLVM's, and the emitter that does not go through MLIR."""
    return "--xla_backend_optimization_level=0" + (f" --{_EMITTERS}=false" if _has_emitters() else "")


def same_bits() -> dict[str, bool]:
    """`compiler_options` of `jax.jit` for a test of bits: as for users, one of a batch is rounded as it is alone."""
    return {_EMITTERS: True} if _has_emitters() else {}
