"""Copies of PyTorch modules: their tensors as arrays, the rest of them, and whether a copy is still like the module.

PyTorch is never imported here: a module of it can only be met where it has been.
"""

from __future__ import annotations

import copy
import functools
import sys
import types
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmoxi.errors import InputError

_DEPTH = 8  # how deep objects in a module's attributes are looked into


def check_has_numbers(module: Any) -> None:
    """Raises InputError for a module whose parameters have no numbers yet."""
    torch = sys.modules["torch"]
    for name, tensor in named_tensors(module):
        if torch.nn.parameter.is_lazy(tensor):
            raise InputError(f"expected a module with weights; {name} is still lazy: call the module on a batch first")
        if tensor.device.type == "meta":
            raise InputError(
                f"expected a module with weights; {name} is on the meta device, which has none: load them first "
                '(module.to_empty(device="cpu"), then load_state_dict)'
            )


def named_tensors(module: Any) -> Iterator[tuple[str, Any]]:
    """Parameters, buffers and tensors that are plain attributes, by name; what is tied comes once."""
    torch = sys.modules["torch"]
    yield from module.named_parameters()
    yield from module.named_buffers()
    for prefix, part in module.named_modules():
        for name, value in vars(part).items():
            if isinstance(value, torch.Tensor):
                yield f"{prefix}.{name}" if prefix else name, value


def arrays_of(module: Any) -> dict[str, jax.Array]:
    """The numbers of a module's tensors, as arrays of their own; float64 becomes float32 unless JAX has it enabled."""
    return {name: _array(name, tensor) for name, tensor in named_tensors(module)}


def _array(name: str, tensor: Any) -> jax.Array:
    torch = sys.modules["torch"]
    on_host = tensor.detach().cpu()
    half = on_host.dtype == torch.bfloat16
    try:
        numbers = (on_host.float() if half else on_host.resolve_conj()).numpy()
    except (RuntimeError, TypeError) as error:  # quantised, sparse, eight bits
        raise TypeError(f"{name} is of {tensor.dtype}, {tensor.layout} ({_first_line(error)})") from error
    # A copy: memory that PyTorch shares would let training reach what was compiled.
    return jnp.array(numbers, jnp.bfloat16 if half else None, copy=True)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [""])[0]


def copy_to_host(module: Any) -> Any:
    """A deep copy on the CPU, in evaluation mode. Results of operations, which cannot be copied deeply, become data."""
    torch = sys.modules["torch"]
    memo: dict[int, Any] = {}
    for _, tensor in named_tensors(module):
        data = tensor.detach().to("cpu", copy=True)
        is_parameter = isinstance(tensor, torch.nn.Parameter)
        memo[id(tensor)] = torch.nn.Parameter(data, tensor.requires_grad) if is_parameter else data
    return copy.deepcopy(module, memo).eval()


def copy_sharing_tensors(module: Any) -> Any:
    """A deep copy with the very same tensors: cheap, and what a forward pass writes into attributes stays in it."""
    return copy.deepcopy(module, {id(tensor): tensor for _, tensor in named_tensors(module)})


def signature(module: Any) -> list[Any]:
    """All but the numbers in a module's tensors, to compare by `==`: classes, names, shapes, attributes, hooks."""
    parts: list[Any] = []
    for name, part in module.named_modules():
        for attribute, value in vars(part).items():
            if attribute in ("_parameters", "_buffers"):  # leaves, like the tensors among the other attributes
                parts.append((name, tuple((k, t if t is None else _frozen(t, _DEPTH)) for k, t in value.items())))
            elif attribute not in ("training", "_modules"):
                parts.append((name, type(part), attribute, _frozen(value, _DEPTH)))
    return parts


def _frozen(value: Any, depth: int) -> Any:
    """Plain data by value, a module's tensors by shape and dtype, functions by identity, objects by what they hold."""
    torch = sys.modules["torch"]
    if isinstance(value, torch.Tensor):
        # Deeper than a module's own tables, in a list say, it is no leaf but a constant of what is compiled.
        return ("tensor", tuple(value.shape), value.dtype) if depth == _DEPTH else (id(value), value._version)
    if value is None or isinstance(value, bool | int | float | complex | str | bytes | torch.dtype | torch.device):
        return type(value), value
    if depth == 0 or isinstance(value, torch.nn.Module | type | types.FunctionType | types.BuiltinFunctionType):
        return "same", id(value)
    deeper = functools.partial(_frozen, depth=depth - 1)
    if isinstance(value, Mapping):
        return type(value), tuple((deeper(k), deeper(v)) for k, v in value.items())
    if isinstance(value, set | frozenset):
        return type(value), frozenset(map(deeper, value))
    if isinstance(value, list | tuple):
        return type(value), tuple(map(deeper, value))
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, value.tobytes()
    if isinstance(value, types.MethodType):
        return "method", id(value.__self__), id(value.__func__)
    if isinstance(value, functools.partial):
        return "partial", deeper(value.func), deeper(value.args), deeper(value.keywords)
    held = getattr(value, "__dict__", None)
    return (type(value), deeper(held)) if held else ("same", id(value))
