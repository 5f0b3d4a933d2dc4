"""A PyTorch module's forward pass as a function that JAX traces, by torchax.

`torchax.extract_jax` works on the module itself, takes every attribute that happens to be a tensor for a weight
(computed ones too), and may leave a tracer behind as torchax's random key. So its pieces are put together here:
torchax's"""

from __future__ import annotations

import contextlib
import functools
import importlib
import linecache
import os
import re
import sys
import threading
import traceback
import types
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxmoxi.bridges.torch_copy import arrays_of, copy_sharing_tensors
from jaxmoxi.bridges.torch_modules import TorchInEvaluation
from jaxmoxi.errors import InputError
from jaxmoxi.games.outputs import find_logits, logits_of

_STRICT, _LOOSE = 1e-3, 5e-2  # of the largest logit: for float32, and for numbers of 16 bits
_ROWS = 3
_LIBRARIES = ("torch", "torchax", "jax", "jaxlib", "jaxmoxi", "jaxtyping", "beartype", "contextlib", "functools")
_TELEMETRY = "ENABLE_RUNTIME_UPTIME_TELEMETRY"


class Disagreement(Exception):
    """The traced function does not answer what the module answers; the message says how far apart they are."""


class TracedModule:
    """A module's forward pass as a function of its tensors and a batch of images in the module's own layout.

    Compared by identity, so that whatever was compiled with it serves until it is gone. It holds a copy of the module
    on the CPU with the weights it had: what becomes of the module does not reach a later trace, and agreement can be
    tried for images of another shape.
    """

    def __init__(self, copied: Any):
        self.signature: Any = None  # of the module that was copied, see `torch_copy.signature`
        self._copy = copied
        self._first = next((name for name, p in copied.named_parameters() if p.is_floating_point()), None)
        self._agreed: set[tuple[int, ...]] = set()
        self._lock = threading.RLock()
        self._compiled = jax.jit(self._forward)  # traced once for each shape, whatever is compiled around it

    def __call__(self, tensors: Mapping[str, Any], images: Float[Array, "B ..."]) -> Float[Array, "B K"]:
        """The logits. An image shape that is new is tried first; raises InputError where trace and module differ."""
        self._agree_on_shape(images.shape[1:])
        return self._compiled(dict(tensors), images)

    def _forward(self, tensors: dict[str, Any], images: Any) -> Any:
        torch, env = sys.modules["torch"], environment()
        module = copy_sharing_tensors(self._copy)  # a forward pass that keeps something in the module keeps a tracer
        images = images.astype(jnp.float32 if self._first is None else tensors[self._first].dtype)
        with self._lock, _of_a_trace(), torch.no_grad(), env.override_property(prng=jax.random.key(0)), env:
            out = torch.func.functional_call(module, env.j2t_iso(tensors), (env.j2t_iso(images),))
            found = find_logits(out, len(images))
            return logits_of(env.t2j_iso(out if found is None else found), len(images)).astype(jnp.float32)

    def check_agreement(
        self, tensors: Mapping[str, Any], images: Float[np.ndarray, "B ..."], expected: Float[np.ndarray, "B K"]
    ) -> None:
        """Raises Disagreement if the trace answers anything but `expected`; what tracing raises passes through."""
        # In full precision: whether the two are the same function, not how this device multiplies.
        with jax.default_matmul_precision("highest"):
            got = np.asarray(self._compiled(dict(tensors), jnp.asarray(images)))
        if got.shape != expected.shape:
            raise Disagreement(f"logits of shape {list(got.shape)} instead of {list(expected.shape)}")
        tolerance = _LOOSE if any(jnp.dtype(t.dtype).itemsize == 2 for t in tensors.values()) else _STRICT
        largest = float(np.abs(expected[np.isfinite(expected)]).max(initial=0.0))
        if not np.allclose(got, expected, rtol=0, atol=tolerance * largest + 1e-30, equal_nan=True):
            with np.errstate(invalid="ignore"):
                gap = float(np.abs(got - expected).max())
            raise Disagreement(f"logits that differ by up to {gap:.3g}, where the largest is {largest:.3g}")
        self._agreed.add(images.shape[1:])

    def _agree_on_shape(self, shape: tuple[int, ...]) -> None:
        """The copy against the trace of it, with the copy's own weights, for a shape never tried before."""
        if shape in self._agreed:
            return
        images = probe_images(shape)
        with jax.ensure_compile_time_eval():  # within a trace there were no numbers to compare
            try:
                self.check_agreement(arrays_of(self._copy), images, reference_logits(self._copy, images))
            except Disagreement as error:
                raise InputError(
                    f"for images of shape {list(shape)} the traced PyTorch module returns {error}; "
                    "use from_callable(module, num_classes) for them"
                ) from None


def probe_images(shape: tuple[int, ...]) -> Float[np.ndarray, "B ..."]:
    """A few images of one shape, the same ones every time."""
    return np.random.default_rng(0).normal(size=(_ROWS, *shape)).astype(np.float32)


def reference_logits(module: Any, images: Float[np.ndarray, "B ..."]) -> Float[np.ndarray, "B K"]:
    """What PyTorch answers; InputError where the module does not take the images, or returns no logits.

    Where one can be made, a copy of its own runs: what a forward pass keeps in a module may hold for one shape only.
    """
    try:
        own = copy_sharing_tensors(module)
    except Exception:  # whatever a user's module holds
        own = module
    try:
        out = TorchInEvaluation(own)(images.copy())
    except Exception as error:  # whatever a user's module raises
        raise InputError(
            f"this {type(module).__name__} does not take images of shape {list(images.shape[1:])} "
            f"({type(error).__name__}: {first_line(error)}); give the image_shape=(H, W, channels) that it takes"
        ) from error
    with jax.ensure_compile_time_eval():
        return np.asarray(logits_of(out, len(images)), np.float32)


@functools.cache
def environment() -> Any:
    """torchax's environment for tracing, one of our own. ImportError without torchax."""
    torch, tensor = sys.modules["torch"], _import_torchax()

    class Environment(tensor.Environment):
        """Tells at which operation it failed, and takes tensors that a forward pass makes on the CPU as constants."""

        def dispatch(self, func: Any, classes: Any, args: Any, kwargs: Any) -> Any:
            try:
                return super().dispatch(func, classes, args, kwargs)
            except tensor.OperatorNotFound:  # torchax tries the operation's parts, and the message has its name
                raise
            except Exception as error:
                if isinstance(error, TypeError) and not hasattr(func, "name") and "keyword argument" in str(error):
                    raise tensor.OperatorNotFound(str(error)) from error  # a name that torchax's own lacks: as parts
                if not hasattr(error, "operation"):
                    error.operation = func.name() if hasattr(func, "name") else func.__name__  # pyright: ignore
                raise

        def t2j_iso(self, torchtensors: Any) -> Any:
            def constant(x: Any) -> Any:
                ours = isinstance(x, tensor.Tensor | tensor.View) or not x.ndim  # torchax reads single numbers itself
                return x if ours else tensor.Tensor(self.t2j_copy(x), self)

            return super().t2j_iso(tensor.torch_pytree.tree_map_only(torch.Tensor, constant, torchtensors))

    return Environment()


def _import_torchax() -> Any:
    """`torchax.tensor`, without what importing torchax changes for everybody in the process.

    That is: PyTorch's fast attention off, an environment variable that asks for telemetry, and an accelerator "jax"
    that PyTorch then finds available, so that `DataParallel` or a trainer puts modules on it. The device's name stays.
    """
    torch = sys.modules["torch"]
    if "torchax" in sys.modules:  # somebody else's, who wants it as it is
        return importlib.import_module("torchax.tensor")
    fast_path, telemetry = torch.backends.mha.get_fastpath_enabled(), os.environ.get(_TELEMETRY)
    try:
        tensor = importlib.import_module("torchax.tensor")
        device: Any = importlib.import_module("torchax.device_module")
        device.is_available, device.device_count = (lambda: False), (lambda: 0)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
        if telemetry is None:
            os.environ.pop(_TELEMETRY, None)
    return tensor


@contextlib.contextmanager
def _of_a_trace() -> Iterator[None]:
    """For the time of a trace: PyTorch's fused attention off, which torchax cannot see into, and no word from JAX about
    each int64 that becomes an int32."""
    backend = sys.modules["torch"].backends.mha
    enabled = backend.get_fastpath_enabled()
    backend.set_fastpath_enabled(False)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Explicitly requested dtype .* is not available")
            yield
    finally:
        backend.set_fastpath_enabled(enabled)


def explain_failure(error: BaseException) -> str:
    """Why torchax could not trace: the operation, and the line of the module's code that asked for it."""
    missing = re.search(r"Operator with name (\S+) has no lowering", str(error))
    operation = missing.group(1) if missing else getattr(error, "operation", None)
    if isinstance(error, jax.errors.JAXTypeError | jax.errors.JAXIndexError):
        what = "a step that depends on the images' own numbers"
        what += f" ({operation})" if operation else ""
    elif missing:
        what = f"the operation {operation}, which torchax does not have"
    else:
        what = f"the operation {operation}" if operation else "it"
        what += f" ({type(error).__name__}: {first_line(error)})"
    walked = [(f, line) for f, line in traceback.walk_tb(error.__traceback__) if not _is_library(f)]
    if not walked:
        return what
    frame, line = walked[-1]
    code = linecache.getline(frame.f_code.co_filename, line).strip()
    return f'{what}, in {frame.f_code.co_name}, line {line}: "{code}"'


def _is_library(frame: types.FrameType) -> bool:
    name = frame.f_globals.get("__name__", "")
    return name.partition(".")[0] in _LIBRARIES or frame.f_code.co_filename.startswith("<")


def first_line(error: BaseException) -> str:
    """The first line of an error's message."""
    return (str(error).strip().splitlines() or [""])[0]
