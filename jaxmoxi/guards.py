"""JAX's own guards at this package's doors: debugging NaNs, watching transfers, and asking for derivatives.

A search keeps NaN for the steps that it did not take, and decides on the host what to evaluate next. Both are meant,
so `jax_debug_nans` and `jax_transfer_guard` do not apply inside: a value that is NaN has an error of its own, which
names the coalition. What a search finds is a choice, and a choice has no gradient.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NoReturn, ParamSpec, TypeVar

import jax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array

from jaxmoxi.errors import InputError
from jaxmoxi.pytrees import is_concrete

Params = ParamSpec("Params")
Out = TypeVar("Out")
Tree = TypeVar("Tree")


def deliberate(function: Callable[Params, Out]) -> Callable[Params, Out]:
    """The function, whose NaN placeholders and transfers between host and device are meant.

    It runs as usual under `jax.debug_nans(True)` and `jax.transfer_guard("disallow")`.
    """

    @functools.wraps(function)
    def run(*args: Params.args, **kwargs: Params.kwargs) -> Out:
        with jax.debug_nans(False), jax.transfer_guard("allow"):
            return function(*args, **kwargs)

    return run


def without_gradient(tree: Tree) -> Tree:
    """The same results of a search, which raise InputError where `jax.grad` asks for their gradient.

    Concrete arrays come back as they are.
    """
    return tree if is_concrete(tree) else jax.tree.map(_mark, tree)


def held(tree: Tree, inputs: Any) -> Tree:
    """The results of a search in which nothing was differentiated, tied to what they came from.

    `jax.grad` of them raises InputError, as of `without_gradient`; their forward derivatives are NaN.
    """
    floats = [x for x in jax.tree.leaves(inputs) if jax.numpy.issubdtype(jax.numpy.result_type(x), jax.numpy.floating)]
    return jax.tree.map(lambda x: _tied(x, floats) if jax.numpy.issubdtype(x.dtype, jax.numpy.floating) else x, tree)


@jax.custom_jvp
def _tied(x: Array, inputs: list[Array]) -> Array:
    return x


@_tied.defjvp
def _tied_forward(primals: Any, tangents: Any) -> tuple[Any, Any]:
    x, _ = primals
    moved = sum(jax.numpy.sum(t, dtype=jax.numpy.float32) for t in tangents[1])
    return x, _search_result.bind(jax.numpy.full(x.shape, jax.numpy.nan, x.dtype) * moved)


def _mark(x: Array) -> Array:
    return _search_result.bind(x) if jax.numpy.issubdtype(x.dtype, jax.numpy.floating) else x


def _refuse(*_: Any, **__: Any) -> NoReturn:
    raise InputError(
        "the result of a search has no gradient: an order or a group of players is a choice. Differentiate the payoff "
        "of chosen coalitions instead, v(masks) or jaxmoxi.insertion_curve(v, order).values, or put "
        "jax.lax.stop_gradient around the result"
    )


def _push_forward(primals: Any, tangents: Any) -> tuple[Any, Any]:
    (tangent,) = tangents
    return _search_result.bind(*primals), tangent if type(tangent) is ad.Zero else _search_result.bind(tangent)


# The identity, but for its transposition. Forward derivatives pass: with the choices held fixed they exist.
_search_result = Primitive("search_result")
_search_result.def_impl(lambda x: x)
_search_result.def_abstract_eval(lambda x: x)
ad.primitive_jvps[_search_result] = _push_forward
ad.primitive_transposes[_search_result] = _refuse
batching.primitive_batchers[_search_result] = lambda args, dims: (_search_result.bind(*args), dims[0])
mlir.register_lowering(_search_result, lambda _, x: [x])
