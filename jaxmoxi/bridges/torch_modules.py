"""PyTorch modules that this package meets: run in evaluation mode and left as they were, or found in training mode.

PyTorch is never imported here: a module of it can only be met where it has been.
"""

from __future__ import annotations

import functools
import sys
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

_DEPTH = 4  # how far from a function its module is looked for: its closure, an object there, an attribute of that


def is_torch_module(thing: Any) -> bool:
    """Whether `thing` is a `torch.nn.Module`."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(thing, torch.nn.Module)


class TorchInEvaluation:
    """A `torch.nn.Module` as a function of NumPy arrays, in evaluation mode for the time of a call.

    Every module in it gets its own mode back, and what evaluation mode does not touch stays untouched: batch
    normalisation's statistics do not move.
    """

    def __init__(self, module: Any):
        self.module = module
        self._lock = threading.Lock()  # compiled code may call from several threads

    def __call__(self, images: np.ndarray) -> Any:
        torch = sys.modules["torch"]
        with self._lock, torch.no_grad():
            modes = [(part, part.training) for part in self.module.modules()]
            self.module.eval()
            try:
                first = next(self.module.parameters(), torch.zeros(()))
                dtype = first.dtype if first.is_floating_point() else torch.float32
                return _on_host(self.module(torch.from_numpy(images).to(first.device, dtype)))
            finally:
                for part, training in modes:
                    part.training = training


def _on_host(out: Any) -> Any:
    """What a module returned, its tensors as NumPy arrays: in an object's `logits`, mappings and sequences too."""
    torch = sys.modules["torch"]
    if isinstance(out, torch.Tensor):
        return out.detach().float().cpu().numpy()
    if isinstance(getattr(out, "logits", None), torch.Tensor):
        return _on_host(out.logits)
    if isinstance(out, Mapping):
        return {name: _on_host(part) for name, part in out.items()}
    return tuple(map(_on_host, out)) if isinstance(out, tuple | list) else out


def find_training(fn: Any) -> str | None:
    """The class's name of a PyTorch module in training mode that a function can reach; None if there is none.

    Looked at: the function's object, closure, defaults, wrapped function and the globals that its code names, the
    attributes of objects, and what lists, tuples and dictionaries among these hold. Also of any other object that says
    `training = True` and is called itself.
    """
    if getattr(fn, "training", False) is True:
        return type(fn).__name__
    seen: set[int] = set()
    level = [fn]
    for _ in range(_DEPTH):
        level = [part for thing in level for part in _parts(thing) if id(part) not in seen]
        seen |= {id(part) for part in level}
        for part in level:
            if is_torch_module(part) and any(inner.training for inner in part.modules()):
                return type(part).__name__
    return None


def _parts(thing: Any) -> Iterator[Any]:
    if isinstance(thing, functools.partial):
        yield from (thing.func, *thing.args, *thing.keywords.values())
    elif isinstance(thing, Mapping):
        yield from list(thing.values())[:100]
    elif isinstance(thing, list | tuple | set):
        yield from list(thing)[:100]
    elif is_torch_module(thing) or isinstance(thing, type) or type(thing).__module__ in ("builtins", "numpy"):
        code = getattr(thing, "__code__", None)
        if code is None:
            return
        for cell in getattr(thing, "__closure__", None) or ():
            try:
                yield cell.cell_contents
            except ValueError:  # a cell that is still empty
                continue
        yield from getattr(thing, "__defaults__", None) or ()
        yield from (getattr(thing, "__kwdefaults__", None) or {}).values()
        names = getattr(thing, "__globals__", {})
        yield from (names[name] for name in code.co_names if name in names and not _is_library(names[name]))
    else:
        yield from list(getattr(thing, "__dict__", {}).values())[:100]
    for name in ("__self__", "__func__", "__wrapped__"):
        inner = getattr(thing, name, None)
        if inner is not None and not _is_library(inner):
            yield inner


def _is_library(thing: Any) -> bool:
    """Whether it is a module of Python's, whose names lead everywhere."""
    return type(thing).__name__ == "module"
