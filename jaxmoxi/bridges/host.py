"""A NumPy or PyTorch model, called back from compiled code, as the `logits_fn` that `pixel_value_fn` takes."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxmoxi.bridges.torch_modules import TorchInEvaluation, find_training, is_torch_module
from jaxmoxi.errors import InputError
from jaxmoxi.games.outputs import describe, find_logits
from jaxmoxi.pytrees import record, static


@record
class CallableLogits:
    """Made by `from_callable`: images float32[B, H, W, channels] -> logits float32[B, K]."""

    fn: Callable[..., Any] = static()
    num_classes: int = static()
    channels_first: bool = static()

    def __call__(self, images: Float[Array, "B H W channels"]) -> Float[Array, "B K"]:
        x = jnp.moveaxis(images, -1, 1) if self.channels_first else images
        x = x.astype(jnp.float32)
        _try_once(self.fn, self.num_classes, x.shape[1:])
        shape = jax.ShapeDtypeStruct((len(x), self.num_classes), jnp.float32)
        host = functools.partial(_call_host, self.fn, self.num_classes)
        return jax.pure_callback(host, shape, x, vmap_method="broadcast_all")


def from_callable(fn: Callable[..., Any], num_classes: int, *, channels_first: bool | None = None) -> CallableLogits:
    """A function of NumPy arrays, or a PyTorch module, as a `logits_fn` (`jax.pure_callback`).

    fn:             takes float32[B, H, W, channels], a NumPy array of its own that it may write to, of any B, and
                    returns logits [B, K] as anything that `numpy.asarray` takes: a NumPy array, a CPU tensor without
                    gradients; or an object, a dictionary or a tuple with them in it (`.logits`, "logits", the only
                    array of that shape). It is compiled code's callback: a pure function, and one that may be called
                    from other threads. A `torch.nn.Module` is taken as it is: it runs in evaluation mode, on the device
                    of its parameters and without gradients, and each of its modules is put back into the mode it had.
    num_classes:    K, at least 1 (one logit of yes or no: `link="sigmoid"`).
    channels_first: True: it takes float32[B, channels, H, W]. None: True for a `torch.nn.Module`, else False.

    Works under `jit` and `vmap` (the images of all rows go to `fn` as one batch) and on the devices of a mesh; it has
    no gradient. What `fn` holds is not seen: change its weights in place and nothing is compiled again, pass another
    function and everything is. A PyTorch module that a function only uses has to be in evaluation mode already.

    `fn` is called with one black image when a value function is made, so that what it returns is known to fit. Raises
    ValueError if it does not; before any call, for a function that uses a PyTorch module in training mode (found in its
    closure, its globals, its object's attributes, its defaults); and for `num_classes` below 1. What goes wrong in `fn`
    later comes out of compiled code, as JAX's own error with the message inside.
    """
    if not callable(fn):
        raise InputError(f"expected a function of images float32[B, H, W, channels]; got {type(fn).__name__}")
    if num_classes < 1:
        raise InputError(f"num_classes must be at least 1; got {num_classes}")
    if is_torch_module(fn):
        return CallableLogits(TorchInEvaluation(fn), num_classes, channels_first is not False)
    training = find_training(fn)
    if training is not None:
        raise InputError(
            f"expected a model in evaluation mode; this {training} is in training: call its eval(), or give the module "
            "itself to from_callable, which runs it in evaluation mode"
        )
    return CallableLogits(check_hashable(fn, "fn"), num_classes, bool(channels_first))


@functools.lru_cache(maxsize=16)
def _try_once(fn: Callable[..., Any], num_classes: int, shape: tuple[int, ...]) -> None:
    with jax.ensure_compile_time_eval():  # within a trace, what `fn` does in JAX would else become part of it
        _call_host(fn, num_classes, np.zeros((1, *shape), np.float32))


def _call_host(fn: Callable[..., Any], num_classes: int, images: Any) -> np.ndarray:
    """`fn` on images float32[..., B, H, W, channels], all leading axes as one batch."""
    images = np.array(images)  # a copy: what JAX hands out is read-only memory of its own
    batch = images.reshape(-1, *images.shape[-3:])
    out = fn(batch)
    try:
        found = find_logits(out, len(batch))
        logits = np.asarray(out if found is None else found).astype(np.float32)
    except Exception as error:  # whatever a foreign array type raises
        raise InputError(
            f"expected fn to return what numpy.asarray takes, logits [B, K]; got {type(out).__name__} ({error}). "
            "From PyTorch: run it under torch.no_grad() and return logits.float().cpu()"
        ) from error
    if logits.shape != (len(batch), num_classes):
        raise InputError(
            f"expected fn to return logits of shape {[len(batch), num_classes]} for images {list(batch.shape)}; "
            f"got {describe(out)}"
        )
    return logits.reshape(*images.shape[:-3], num_classes)


def check_hashable(thing: Any, what: str) -> Any:
    """`thing`, if it can be structure of a pytree; ValueError otherwise."""
    try:
        hash(thing)
    except TypeError as error:
        raise InputError(f"expected {what} to be hashable, for it is compiled in; {error}") from None
    return thing
