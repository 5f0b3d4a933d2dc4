"""Methods that are compiled where they are called outside of any trace."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import jax
from jax.core import Tracer

from jaxmoxi.pytrees import is_array

Method = TypeVar("Method", bound=Callable[..., Any])


def compiled(method: Method) -> Method:
    """A pure method of a pytree, whose keywords are static, compiled once for each structure and shape.

    Outside `jit` every loop of a network (`jax.lax.fori_loop`) is a program of its own, which JAX compiles anew with
    each call and keeps. Inside a trace, of an object that holds more than arrays, and of one whose `compiles` is False
    (a plain function is somewhere in it, which may look at anything), the method runs as it is.
    """
    compiled_method: Any = None

    @functools.wraps(method)
    def call(self: Any, *args: Any, **static: Any) -> Any:
        nonlocal compiled_method
        leaves = jax.tree.leaves((self, args))
        known = all(is_array(leaf) and not isinstance(leaf, Tracer) for leaf in leaves)
        if not known or not getattr(self, "compiles", True):
            return method(self, *args, **static)
        if compiled_method is None:
            compiled_method = jax.jit(_by_structure(method), static_argnums=0)
        return compiled_method(tuple(static.items()), self, *args)

    return call  # type: ignore[return-value]


def _by_structure(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def run(static: tuple[tuple[str, Any], ...], self: Any, *args: Any) -> Any:
        return method(self, *args, **dict(static))

    return run
