"""Pytrees: records whose fields are leaves or structure, any callable as a pytree of its arrays, and several in one."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, dataclass_transform

import jax
import numpy as np
from jax.core import Tracer

Class = TypeVar("Class")


def static(**kwargs: Any) -> Any:
    """A field of a `record` that is part of the pytree's structure: compared and hashed, never traced."""
    return dataclasses.field(metadata={"static": True}, **kwargs)


@dataclass_transform(frozen_default=True, field_specifiers=(static, dataclasses.field))
def record(cls: type[Class]) -> type[Class]:
    """A frozen dataclass registered as a pytree; fields made with `static()` become its structure."""
    for name, annotation in inspect.get_annotations(cls).items():
        if name not in cls.__dict__ and "ClassVar" not in str(annotation):
            setattr(cls, name, dataclasses.field())  # without it, what a base class has of that name were the default
    cls = dataclasses.dataclass(frozen=True)(cls)
    fields = dataclasses.fields(cls)  # pyright: ignore[reportArgumentType]
    static_names = [f.name for f in fields if f.metadata.get("static", False)]
    data_names = [f.name for f in fields if f.name not in static_names]
    keys = [jax.tree_util.GetAttrKey(name) for name in data_names]

    def flatten(self: Any) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        return tuple(getattr(self, n) for n in data_names), tuple(getattr(self, n) for n in static_names)

    def flatten_with_keys(self: Any) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        children, statics = flatten(self)
        return tuple(zip(keys, children, strict=True)), statics

    def unflatten(statics: tuple[Any, ...], children: Any) -> Any:
        # Past __init__: JAX also unflattens shapes, batch axes and sentinels, which no field's annotation admits.
        self = object.__new__(cls)
        for name, value in zip([*data_names, *static_names], [*children, *statics], strict=True):
            object.__setattr__(self, name, value)
        return self

    jax.tree_util.register_pytree_with_keys(cls, flatten_with_keys, unflatten, flatten)
    return cls


class ArrayHere:
    """Stands, itself, for an array among leaves that are structure. (A class stays itself when it is pickled.)"""


class Packed:
    """Any callable as a pytree whose leaves are all arrays, so that `jit` can take it as an argument.

    Arrays inside it (parameters of a `tree_util.Partial`, of an Equinox or NNX module, of a method's object) become
    leaves; everything else (code, activation functions, a plain function as a whole) becomes static structure. Two
    packed callables of the same code and the same array shapes therefore share one compilation.
    """

    def __init__(self, arrays: tuple[Any, ...], structure: tuple[Any, ...]):
        self.arrays = arrays
        self.structure = structure

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.unpack()(*args, **kwargs)

    def unpack(self) -> Callable[..., Any]:
        treedef, statics = self.structure
        arrays = iter(self.arrays)
        return jax.tree.unflatten(treedef, [next(arrays) if s is ArrayHere else s for s in statics])


jax.tree_util.register_pytree_node(
    Packed, lambda p: ((p.arrays,), p.structure), lambda structure, children: Packed(children[0], structure)
)


def pack(fn: Any) -> Packed:
    """Packs a callable, see `Packed`. Raises TypeError for what cannot be called or cannot be hashed."""
    if isinstance(fn, Packed):
        return fn
    if not callable(fn):
        raise TypeError(f"expected a function, got {type(fn).__name__}; pass something that can be called")
    if inspect.ismethod(fn):  # model.logits: its object's arrays must be leaves, not part of the code
        fn = jax.tree_util.Partial(fn.__func__, fn.__self__)
    elif isinstance(fn, functools.partial) and type(fn) is functools.partial:
        fn = jax.tree_util.Partial(fn.func, *fn.args, **fn.keywords)
    leaves, treedef = jax.tree.flatten(fn)
    dynamic = [is_array(leaf) for leaf in leaves]
    statics = tuple(ArrayHere if d else leaf for leaf, d in zip(leaves, dynamic, strict=True))
    try:
        hash((treedef, statics))
    except TypeError as error:
        raise TypeError(
            f"the function {fn!r} holds something that is neither an array nor hashable ({error}); "
            "pass its arrays as arguments of a jax.tree_util.Partial"
        ) from None
    return Packed(tuple(leaf for leaf, d in zip(leaves, dynamic, strict=True) if d), (treedef, statics))


def is_array(leaf: Any) -> bool:
    """Whether a leaf can be an argument of a compiled function: an array or a number, but not a flag.

    Modules of Equinox keep flags among their leaves (`inference`), and ask them with `if`.
    """
    return isinstance(leaf, jax.Array | np.ndarray | np.generic | float | int | complex) and not isinstance(leaf, bool)


def output_shapes(fn: Callable[..., Any], tree: Any, *static_args: Any) -> Any:
    """`jax.eval_shape(fn, tree, *static_args)`, remembered by the structure and shapes of `tree`.

    Checks before a search would otherwise trace the model once more for every image. `fn` is a module-level function.
    """
    treedef, avals = signature(tree)
    return _output_shapes(fn, treedef, avals, static_args)


@functools.lru_cache(maxsize=256)
def _output_shapes(fn: Callable[..., Any], treedef: Any, avals: tuple[Any, ...], static_args: tuple[Any, ...]) -> Any:
    tree = jax.tree.unflatten(treedef, [jax.ShapeDtypeStruct(shape, dtype) for shape, dtype in avals])
    return jax.eval_shape(lambda t: fn(t, *static_args), tree)


def is_concrete(tree: Any) -> bool:
    """True if no leaf is being traced by `jit`, `vmap` or `grad`: its numbers can be looked at."""
    return not any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(tree))


class Merge:
    """How a tree, such as a value function, is put together again from shared and own arrays. Static under `jit`."""

    def __init__(self, is_shared: tuple[bool, ...], treedef: Any):
        self.key = (is_shared, treedef)

    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Merge) and self.key == other.key

    def __call__(self, shared: Sequence[Any], own: Sequence[Any]) -> Any:
        is_shared, treedef = self.key
        shared_leaves, own_leaves = iter(shared), iter(own)
        return jax.tree.unflatten(treedef, [next(shared_leaves if s else own_leaves) for s in is_shared])


def signature(tree: Any) -> tuple[Any, tuple[Any, ...]]:
    """A tree's structure, and its leaves' shapes and dtypes: trees with the same one share a compiled program."""
    leaves, treedef = jax.tree.flatten(tree)
    return treedef, tuple((np.shape(leaf), jax.numpy.result_type(leaf)) for leaf in leaves)


def split_games(games: Sequence[Any]) -> tuple[list[Any], list[Any], Merge]:
    """Trees of one structure as (arrays that all share, arrays of each stacked along a first axis, the way back)."""
    columns = list(zip(*(jax.tree.leaves(v) for v in games), strict=True))
    is_shared = tuple(all(leaf is column[0] for leaf in column) for column in columns)
    shared = [column[0] for column, s in zip(columns, is_shared, strict=True) if s]
    own = [jax.numpy.stack(column) for column, s in zip(columns, is_shared, strict=True) if not s]
    return shared, own, Merge(is_shared, jax.tree.structure(games[0]))
