"""Models of Flax Linen, Flax NNX and Equinox as the `logits_fn` that `pixel_value_fn` takes.

What the adapters return are pytrees: parameters are leaves, and so arguments of a compiled search; architecture and
options are structure. Other weights of the same architecture and shapes compile nothing.

A value must depend neither on chance nor on the rest of the batch, so models run as in evaluation: an adapter switches
the model over where its library has a switch (NNX, Equinox), and raises where only the caller has one (Linen).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxmoxi.bridges.host import check_hashable
from jaxmoxi.errors import InputError
from jaxmoxi.games.outputs import logits_of
from jaxmoxi.pytrees import ArrayHere, record, static


@record
class LinenLogits:
    """Made by `from_linen`: images float32[B, H, W, 3] -> logits float32[B, K]."""

    variables: Any
    module: Any = static()
    options: tuple[tuple[str, Any], ...] = static()

    def __call__(self, images: Float[Array, "B H W 3"]) -> Float[Array, "B K"]:
        from flax import errors

        try:
            out = self.module.apply(self.variables, images, **dict(self.options))
        except (errors.InvalidRngError, errors.ModifyScopeVariableError) as error:
            raise InputError(
                f"{type(self.module).__name__} is in training mode: it draws random numbers or updates statistics. "
                "Pass what its __call__ takes for evaluation, as from_linen(module, variables, train=False) "
                f"or deterministic=True ({str(error).splitlines()[0]})"
            ) from error
        return _check_output(out, images)


def from_linen(module: Any, variables: Mapping[str, Any], **apply_kwargs: Any) -> LinenLogits:
    """A Flax Linen module as a `logits_fn`.

    module:       a `flax.linen.Module` of images [B, H, W, 3] that returns logits [B, K].
    variables:    what `module.init` returned or training made of it: {"params": ..., "batch_stats": ...}. Leaves.
    apply_kwargs: for `module.apply`, hashable constants: `train=False`, `deterministic=True`, `method="logits"`.

    A Linen module is told by its arguments whether it is trained. One in training mode (dropout that draws, batch
    normalisation that updates) raises ValueError when the value function is made. Raises ValueError too for anything
    but a Linen module, for variables without their collections, and for `rngs` or `mutable`.
    """
    import flax.linen

    _check_type(isinstance(module, flax.linen.Module), module, "flax.linen.Module", "from_linen")
    if not isinstance(variables, Mapping) or (variables and "params" not in variables):
        got = sorted(map(str, variables)) if isinstance(variables, Mapping) else type(variables).__name__
        raise InputError(f"expected the variables that module.init returns, {{'params': ...}}; got {got}")
    training = [name for name in ("rngs", "mutable") if apply_kwargs.get(name)]
    if training:
        raise InputError(f"expected a module in evaluation mode; got {training[0]}, which only training needs: drop it")
    return LinenLogits(variables, check_hashable(module, "the module"), _constants(apply_kwargs))


@record
class NnxLogits:
    """Made by `from_nnx`: images float32[B, H, W, 3] -> logits float32[B, K]."""

    state: Any
    graph: Any = static()
    options: tuple[tuple[str, Any], ...] = static()

    def __call__(self, images: Float[Array, "B H W 3"]) -> Float[Array, "B K"]:
        from flax import nnx

        return _check_output(nnx.merge(self.graph, self.state)(images, **dict(self.options)), images)


def from_nnx(model: Any, **call_kwargs: Any) -> NnxLogits:
    """A Flax NNX model as a `logits_fn`.

    model:       a `flax.nnx.Module` of images [B, H, W, 3] that returns logits [B, K]. A copy of it is put into
                 evaluation mode (`Module.eval`: `deterministic=True`, `use_running_average=True` wherever a module has
                 these); the model itself stays as it is, and what becomes of it later does not reach the copy. All its
                 variables are leaves.
    call_kwargs: for its `__call__`, hashable constants, such as the `train=False` of one that takes its mode there.

    Raises ValueError for anything but a callable NNX module.
    """
    from flax import nnx

    _check_type(isinstance(model, nnx.Module) and callable(model), model, "callable flax.nnx.Module", "from_nnx")
    copy = nnx.clone(model)
    copy.eval()
    graph, state = nnx.split(copy)
    return NnxLogits(state, graph, _constants(call_kwargs))


@record
class EquinoxLogits:
    """Made by `from_equinox`: images float32[B, H, W, 3] -> logits float32[B, K]."""

    arrays: tuple[Any, ...]
    structure: Any = static()  # of (model, state), and its leaves that are no arrays: functions, flags, numbers
    batched: bool = static()
    channels_first: bool = static()
    options: tuple[tuple[str, Any], ...] = static()

    def __call__(self, images: Float[Array, "B H W 3"]) -> Float[Array, "B K"]:
        treedef, others = self.structure
        arrays = iter(self.arrays)
        model, state = jax.tree.unflatten(treedef, [next(arrays) if leaf is ArrayHere else leaf for leaf in others])

        def call(x: Any) -> Any:
            return model(x, **dict(self.options)) if state is None else model(x, state, **dict(self.options))[0]

        x = jnp.moveaxis(images, -1, 1) if self.channels_first else images
        return _check_output(call(x) if self.batched else jax.vmap(call)(x), images)


def from_equinox(
    model: Any, *, state: Any = None, batched: bool = False, channels_first: bool = True, **call_kwargs: Any
) -> EquinoxLogits:
    """An Equinox model as a `logits_fn`.

    model:          a callable `equinox.Module`. A copy of it is put into inference mode (`equinox.nn.inference_mode`).
    state:          of a model made by `equinox.nn.make_with_state` (batch normalisation), which is called as
                    `model(x, state)` and returns (logits, state); None for a model without one. Leaves, as the model's.
    batched:        False: the model takes one image and returns logits [K], as Equinox layers do, and is vmapped here.
                    True: it takes the batch and returns [B, K].
    channels_first: True: it takes images as [3, H, W] (the layout of `equinox.nn.Conv2d`), False: [H, W, 3].
    call_kwargs:    for its `__call__`, hashable constants, such as the `key=None` of one that insists on a key.

    Only arrays are leaves; functions, flags and Python numbers in the model are structure. Raises ImportError without
    Equinox, ValueError for anything but a callable Equinox module.
    """
    try:
        import equinox
    except ImportError as error:
        raise ImportError(f"from_equinox needs Equinox: pip install equinox ({error})") from error

    fits = isinstance(model, equinox.Module) and callable(model)
    _check_type(fits, model, "callable equinox.Module", "from_equinox")
    leaves, treedef = jax.tree.flatten((equinox.nn.inference_mode(model), state))
    is_array = [isinstance(leaf, jax.Array | np.ndarray | np.generic) for leaf in leaves]
    others = tuple(ArrayHere if a else leaf for a, leaf in zip(is_array, leaves, strict=True))
    return EquinoxLogits(
        tuple(leaf for a, leaf in zip(is_array, leaves, strict=True) if a),
        check_hashable((treedef, others), "what the model holds besides arrays"),
        batched,
        channels_first,
        _constants(call_kwargs),
    )


def _check_type(fits: bool, model: Any, name: str, adapter: str) -> None:
    if not fits:
        raise InputError(
            f"{adapter} expected a {name}, got {type(model).__name__}; "
            "there are from_linen, from_nnx, from_equinox and from_callable"
        )


def _constants(kwargs: dict[str, Any]) -> tuple[tuple[str, Any], ...]:
    """Keyword arguments as structure, the same in whatever order they were written."""
    for name, value in kwargs.items():
        check_hashable(value, f"the keyword argument {name}")
    return tuple(sorted(kwargs.items()))


def _check_output(out: Any, images: Any) -> Float[Array, "B K"]:
    return logits_of(out, len(images)).astype(jnp.float32)
