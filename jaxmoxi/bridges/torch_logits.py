"""A PyTorch module as a `logits_fn` in JAX, traced by torchax: compiled with the search, and with gradients."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxmoxi.bridges.host import CallableLogits, from_callable
from jaxmoxi.bridges.torch_copy import arrays_of, check_has_numbers, copy_to_host, signature
from jaxmoxi.bridges.torch_modules import is_torch_module
from jaxmoxi.bridges.torch_trace import (
    Disagreement,
    TracedModule,
    environment,
    explain_failure,
    first_line,
    probe_images,
    reference_logits,
)
from jaxmoxi.errors import InputError, warn
from jaxmoxi.pytrees import record, static

_INSTALL = "pip install 'jaxmoxi[torch]'"
_SIDES = (224, 32, 28, 64, 96, 128)  # tried, where a module does not say what it takes


@record
class TorchLogits:
    """Made by `from_torch`: images float32[B, H, W, channels] -> logits float32[B, K]."""

    tensors: dict[str, Any]
    traced: TracedModule = static()
    channels_first: bool = static()

    def __call__(self, images: Float[Array, "B H W channels"]) -> Float[Array, "B K"]:
        return self.traced(self.tensors, jnp.moveaxis(images, -1, 1) if self.channels_first else images)


def from_torch(
    module: Any,
    *,
    image_shape: tuple[int, int, int] | None = None,
    channels_first: bool = True,
    fallback: bool = True,
) -> TorchLogits | CallableLogits:
    """A PyTorch module as a `logits_fn` in JAX (torchax; `pip install 'jaxmoxi[torch]'`).

    module:         a `torch.nn.Module` of images that returns logits [B, K], or an object (`.logits`), a dictionary or
                    a tuple with them in it. A copy of it is traced in evaluation mode (no dropout, batch normalisation
                    by its own statistics); the module stays as it was, on whatever device, each part in its mode.
    image_shape:    (H, W, channels) of the images with which the copy is tried. None: what the module's `config`
                    (transformers) or `pretrained_cfg` (timm) says, else a usual size that the module takes. Images of
                    another shape can follow; agreement is tried again for them at first.
    channels_first: True: the module takes [B, channels, H, W], as PyTorch's layers do. False: [B, H, W, channels].
    fallback:       whether what cannot be traced becomes `from_callable(module, K)`, with a warning that says why.

    The result works under `jit`, `vmap`, `grad` and on the devices of a mesh. The module's parameters, buffers and
    tensors in plain attributes are its leaves, copied: training that goes on does not reach them. Call `from_torch`
    again for the new weights; the traced function is kept as long as the module, so that this compiles nothing anew
    unless something else in the module has changed too. float64 becomes float32 (unless JAX has it enabled); 16-bit
    weights stay what they are, and images are cast to them.

    Before it is returned, its logits for three random images are compared with PyTorch's: they may differ by a
    thousandth of the largest (a twentieth with 16-bit weights). On accelerators and for gradients it is the one to
    take; on a CPU a convolutional network is often faster through `from_callable`, where PyTorch computes.

    Raises InputError (a ValueError) for anything but a module with weights that returns logits for such images; and,
    with `fallback=False`, for one that torchax cannot trace or traces to other logits. Raises ImportError without
    PyTorch; without torchax only if `fallback=False`.
    """
    module = _check_module(module)
    cause: Exception
    try:
        copied = copy_to_host(module)
        images, expected = _try_shapes(copied, image_shape, channels_first)
    except Exception as error:  # what cannot be copied, or runs on its own device only, may still run itself
        images, expected = _try_shapes(module, image_shape, channels_first)
        why, cause = f"no copy of it on the CPU can be made or run ({first_line(error)})", error
    else:
        try:
            return _traced(module, copied, images, expected, channels_first)
        except ImportError as error:
            if not fallback:
                raise ImportError(f"from_torch needs torchax: {_INSTALL} ({first_line(error)})") from error
            why, cause = f"torchax cannot be imported ({first_line(error)}; {_INSTALL})", error
        except Disagreement as error:
            why, cause = f"what torchax traced returns {error}", error
        except Exception as error:  # torchax, PyTorch and the module's own code raise whatever they like
            why, cause = f"torchax cannot trace {explain_failure(error)}", error
    if not fallback:
        raise InputError(
            f"this {type(module).__name__} cannot be computed in JAX: {why}. "
            f"from_callable(module, {expected.shape[1]}) calls it back on the host instead, without gradients"
        ) from cause
    warn(
        f"this {type(module).__name__} is called back on the host, as by from_callable, without gradients: {why}. "
        "fallback=False makes this an error"
    )
    return from_callable(module, expected.shape[1], channels_first=channels_first)


_kept: weakref.WeakKeyDictionary[Any, TracedModule] = weakref.WeakKeyDictionary()


def _traced(module: Any, copied: Any, images: np.ndarray, expected: np.ndarray, channels_first: bool) -> TorchLogits:
    """The function that agrees with the module: the one kept for it, if nothing but its numbers has changed."""
    environment()
    tensors, now = arrays_of(copied), signature(module)
    with jax.ensure_compile_time_eval():  # called within somebody's trace, there were no numbers to compare
        traced = _kept.get(module)
        if traced is not None and traced.signature == now:
            try:
                traced.check_agreement(tensors, images, expected)
                return TorchLogits(tensors, traced, channels_first)
            except Disagreement:  # something has changed that the signature does not tell
                pass
        traced = TracedModule(copied)
        traced.signature = now
        traced.check_agreement(tensors, images, expected)
    _kept[module] = traced
    return TorchLogits(tensors, traced, channels_first)


def _check_module(module: Any) -> Any:
    """The module to trace, out of the wrappers that PyTorch puts around one."""
    if not is_torch_module(module):
        if "torch" not in sys.modules and find_spec("torch") is None:
            raise ImportError(f"from_torch needs PyTorch and torchax: {_INSTALL}")
        advice = "for a function around a module there is from_callable"
        if isinstance(module, Mapping):
            advice = "a state dict has weights and no network: jm.models.load reads those of known architectures"
        raise InputError(f"from_torch expected a torch.nn.Module, got {type(module).__name__}; {advice}")
    torch = sys.modules["torch"]
    while True:
        if isinstance(module, torch.nn.DataParallel | torch.nn.parallel.DistributedDataParallel):
            module = module.module
        elif type(module).__name__ == "OptimizedModule" and hasattr(module, "_orig_mod"):  # of torch.compile
            module = module._orig_mod
        else:
            break
    check_has_numbers(module)
    return module


def _try_shapes(
    module: Any, image_shape: tuple[int, int, int] | None, channels_first: bool
) -> tuple[Float[np.ndarray, "B ..."], Float[np.ndarray, "B K"]]:
    """Images in the module's layout that it takes, and its logits for them."""

    def answer(shape: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
        height, width, channels = shape
        images = probe_images((channels, height, width) if channels_first else shape)
        return images, reference_logits(module, images)

    if image_shape is not None:
        shape = tuple(image_shape)
        if len(shape) != 3 or not all(isinstance(n, int | np.integer) and n > 0 for n in shape):
            raise InputError(f"image_shape must be (H, W, channels), three positive integers; got {image_shape!r}")
        return answer((int(shape[0]), int(shape[1]), int(shape[2])))
    tried = []
    for shape in dict.fromkeys(_likely_shapes(module)):
        try:
            return answer(shape)
        except InputError as error:
            if error.__cause__ is None:  # it took them, and returned no logits
                raise
            tried.append(shape)
    raise InputError(
        f"from_torch cannot tell what images this {type(module).__name__} takes: it took none of the shapes "
        f"{', '.join(map(str, tried))}. Give image_shape=(H, W, channels)"
    )


def _likely_shapes(module: Any) -> Iterator[tuple[int, int, int]]:
    """What the module says about its images, then usual sizes; of as many channels as it says, or first takes."""
    torch = sys.modules["torch"]
    config = getattr(module, "config", None)
    config = getattr(config, "vision_config", None) or config
    published = getattr(module, "pretrained_cfg", None) or getattr(module, "default_cfg", None)
    published = published.get("input_size") if isinstance(published, Mapping) else None
    convolutions = (part.in_channels for part in module.modules() if isinstance(part, torch.nn.Conv2d))
    channels = [getattr(config, "num_channels", None), next(convolutions, None), published[0] if published else None, 3]
    embedding = getattr(module, "patch_embed", None)  # of timm's transformers: what they were made for
    sides = [getattr(embedding, "img_size", None), getattr(config, "image_size", None), published and published[1:]]
    for side in [*sides, *_SIDES]:
        if isinstance(side, Mapping):
            side = (side.get("height"), side.get("width"))
        side = (side, side) if isinstance(side, int) else side
        for count in channels:
            match side, count:
                case (int(height), int(width)) | [int(height), int(width)], int(channel):
                    yield height, width, channel
