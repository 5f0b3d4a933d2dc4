"""How the tests compile. Nothing here imports JAX, which reads XLA's flags when it starts."""

import importlib.util
import mmap
from pathlib import Path


def knows(flag: str) -> bool:
    """Whether the flag is in JAX's library: XLA ends the process at a flag that it does not know."""
    spec = importlib.util.find_spec("jaxlib")
    for library in Path(spec.submodule_search_locations[0]).glob("libjax_common*"):
        with library.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            if content.find(flag.encode()) >= 0:
                return True
    return False


_EMITTERS = "xla_cpu_use_fusion_emitters"


def quick_flags() -> str:
    """XLA's flags for compiling quickly: no optimisations of LLVM's, and the emitter that does not go through MLIR."""
    return "--xla_backend_optimization_level=0" + (f" --{_EMITTERS}=false" if knows(_EMITTERS) else "")


def same_bits() -> dict[str, bool]:
    """`compiler_options` of `jax.jit` for a test of bits: as for users, one of a batch is rounded as it is alone."""
    return {_EMITTERS: True} if knows(_EMITTERS) else {}
