"""Methods that are compiled where they are called outside of any trace."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

import jax
from jax.core import Tracer

from jaxmoxi.pytrees import is_array

Method = TypeVar("Method", bound=Callable[..., Any])


def compiled(method: Method) -> Method:
    """A pure method of a pytree, compiled once for each structure and shape; what is keyword-only is static.

    Outside `jit` every loop of a network (`jax.lax.fori_loop`) is a program of its own, which JAX compiles anew with
    each call and keeps. Inside a trace, of arguments that are more than arrays, and of an object whose `compiles` is
    False (a user's own function is somewhere in it, which may look at anything), the method runs as it is.
    """
    signature = inspect.signature(method)
    only = {name for name, p in signature.parameters.items() if p.kind is inspect.Parameter.KEYWORD_ONLY}
    program: Any = None

    @functools.wraps(method)
    def call(self: Any, *args: Any, **keywords: Any) -> Any:
        nonlocal program
        if any(name not in only for name in keywords):
            bound = signature.bind(self, *args, **keywords)
            args, keywords = bound.args[1:], bound.kwargs
        leaves = jax.tree.leaves((self, args))
        known = all(is_array(leaf) and not isinstance(leaf, Tracer) for leaf in leaves)
        if not known or not _hashable(keywords) or not getattr(self, "compiles", True):
            return method(self, *args, **keywords)
        if program is None:
            program = jax.jit(_by_structure(method), static_argnums=0)
        return program(tuple(keywords.items()), self, *args)

    return call  # type: ignore[return-value]


def _hashable(keywords: dict[str, Any]) -> bool:
    try:
        hash(tuple(keywords.values()))
    except TypeError:
        return False
    return True


def _by_structure(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def run(static: tuple[tuple[str, Any], ...], self: Any, *args: Any) -> Any:
        return method(self, *args, **dict(static))

    return run
