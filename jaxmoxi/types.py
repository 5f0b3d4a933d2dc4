"""The contract everything hangs on, and the records the algorithms return.

Axis glossary, used in every shape of this package:

    H, W   height and width of the image the model sees
    P      players: regions of the image, labelled 0 .. P-1
    C      coalitions evaluated together
    K      classes
    T      tokens of a vision transformer, without its class token
    D      width of a token
    B      images in a batch

A *value function* is any callable `masks bool[C, P] -> values float32[C]`, where True means that the player is
visible. It may also offer, each looked up by name and never required:

- the keyword `max_visible=m`, a static promise that no row shows more than `m` players; with the attribute
  `sized = True` the searches use it to run cheap, small evaluations first;
- `leads(masks) -> bool[C]`: whether the explained class is the model's top class;
- `readout(masks, max_visible=m) -> Readout`: the value, the lead and the probability from one forward pass.

Value functions are pytrees (arrays are leaves, code is static structure), so one compiled search serves every image
and every set of weights of the same shapes. A value never depends on what else is in the batch.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int

AnyArray = Array | np.ndarray  # what callers may pass; what this package returns is a jax.Array


@runtime_checkable
class ValueFn(Protocol):
    """`masks bool[C, P] -> values float32[C]`; see the module's head for what else it may offer."""

    def __call__(self, masks: Bool[Array, "C P"], /) -> Float[Array, "C"]: ...


class Readout(NamedTuple):
    """What one forward pass says about each coalition.

    values:        float32[C], the payoff.
    leads:         bool[C], the explained class is the top class; None if the value function cannot tell.
    probabilities: float32[C] in [0, 1], of the explained class; None if the value function cannot tell.
    """

    values: Float[Array, "C"]
    leads: Bool[Array, "C"] | None = None
    probabilities: Float[Array, "C"] | None = None


def record(cls: type) -> Any:
    """A frozen dataclass registered as a pytree; fields made with `static()` become its structure."""
    cls = dataclasses.dataclass(frozen=True)(cls)
    static_names = [f.name for f in dataclasses.fields(cls) if f.metadata.get("static", False)]
    data_names = [f.name for f in dataclasses.fields(cls) if f.name not in static_names]
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


def static(**kwargs: Any) -> Any:
    """A field of a `record` that is part of the pytree's structure: compared and hashed, never traced."""
    return dataclasses.field(metadata={"static": True}, **kwargs)


@record
class GreedyInfo:
    """One step of a greedy search, as `greedy_step` returns it and `callback` receives it.

    step:        int32[], how many players are chosen by now, this one included.
    player:      int32[], the player chosen.
    value:       float32[], the payoff after the choice.
    leads:       bool[] and
    probability: float32[], as in `Readout`, after the choice; None if the value function cannot tell.
    """

    step: Int[Array, "*batch"]
    player: Int[Array, "*batch"]
    value: Float[Array, "*batch"]
    leads: Bool[Array, "*batch"] | None
    probability: Float[Array, "*batch"] | None


@record
class GreedyResult:
    """The outcome of `greedy_insertion` or `greedy_deletion`. P players, of which `num_steps` were chosen.

    order:           int32[P], players in the order chosen; -1 from `num_steps` on.
    values:          float32[P], the payoff after each choice; NaN from `num_steps` on.
    num_steps:       int32[], how many players were chosen before the search stopped.
    start_value:     float32[], the payoff of the start: of the empty coalition (insertion) or the full one.
    num_evaluations: int32[], coalitions scored as candidates: P(P+1)/2 for a full order. The start is not among them.
    leads:           bool[P], the explained class is the top class after each choice; None if the value function
                     cannot tell (see `types`). False from `num_steps` on.
    probabilities:   float32[P], the explained class's probability after each choice, in [0, 1]; None likewise.
    start_leads:     bool[], and
    start_probability: float32[], the same two of the start.
    nan_player:      int32[], the player whose candidate had the value NaN and ended the search; -1 if none did. Outside
                     `jit` a NaN raises instead.
    insertion:       static; True for insertion, False for deletion.
    """

    order: Int[Array, "*batch P"]
    values: Float[Array, "*batch P"]
    num_steps: Int[Array, "*batch"]
    start_value: Float[Array, "*batch"]
    num_evaluations: Int[Array, "*batch"]
    leads: Bool[Array, "*batch P"] | None
    probabilities: Float[Array, "*batch P"] | None
    start_leads: Bool[Array, "*batch"] | None
    start_probability: Float[Array, "*batch"] | None
    nan_player: Int[Array, "*batch"]
    insertion: bool = static(default=True)


@record
class Curve:
    """A readout at every group size along an order of P players. Entry k is the size k: entry 0 is the start
    (nothing inserted, nothing deleted), entry P the end (all inserted, all deleted).

    values:        float32[P+1], the payoff.
    area:          float32[], trapezoid area under `values` over the share of players k/P in [0, 1].
    leads:         bool[P+1], accuracy of the single image at each size; None if the value function cannot tell.
    accuracy_area: float32[] in [0, 1], trapezoid area under `leads`; None likewise.
    probabilities: float32[P+1] in [0, 1]; None likewise.
    """

    values: Float[Array, "*batch P1"]
    area: Float[Array, "*batch"]
    leads: Bool[Array, "*batch P1"] | None
    accuracy_area: Float[Array, "*batch"] | None
    probabilities: Float[Array, "*batch P1"] | None


@record
class ShapleyEstimate:
    """Sampled Shapley values: an unbiased mean over random permutations, and how sure it is.

    values:          float32[P]; they sum to v(all) - v(none) exactly (up to rounding), as every permutation's do.
    standard_errors: float32[P], of the mean: sample standard deviation / sqrt(num_samples).
    num_evaluations: int32[], coalitions evaluated.
    """

    values: Float[Array, "*batch P"]
    standard_errors: Float[Array, "*batch P"]
    num_evaluations: Int[Array, "*batch"]


@record
class Stop:
    """When a greedy search ends early; what is first met counts, and nothing after it is computed.

    size:        after this many players (>= 1).
    value:       insertion: the payoff is at or above this; deletion: at or below.
    flip:        insertion: the explained class is the top class; deletion: it no longer is.
    probability: in (0, 1); as `value`, of the explained class's probability whatever the payoff.

    A condition that the start already meets ends the search with no player chosen. `flip` and `probability` need a
    value function that answers them: those of `pixel_value_fn` and `token_value_fn` do.
    """

    size: int | None = None
    value: float | None = None
    flip: bool = False
    probability: float | None = None


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
        return jax.tree.unflatten(treedef, [next(arrays) if s is _ARRAY else s for s in statics])


_ARRAY = "<array>"  # stands for a dynamic leaf among the static ones

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
    elif type(fn) is functools.partial:
        fn = jax.tree_util.Partial(fn.func, *fn.args, **fn.keywords)
    leaves, treedef = jax.tree.flatten(fn)
    dynamic = [isinstance(leaf, jax.Array | np.ndarray | np.generic | float | int | complex) for leaf in leaves]
    statics = tuple(_ARRAY if d else leaf for leaf, d in zip(leaves, dynamic, strict=True))
    try:
        hash((treedef, statics))
    except TypeError as error:
        raise TypeError(
            f"the function {fn!r} holds something that is neither an array nor hashable ({error}); "
            "pass its arrays as arguments of a jax.tree_util.Partial"
        ) from None
    return Packed(tuple(leaf for leaf, d in zip(leaves, dynamic, strict=True) if d), (treedef, statics))


def output_shapes(fn: Callable[..., Any], tree: Any, *static_args: Any) -> Any:
    """`jax.eval_shape(fn, tree, *static_args)`, remembered by the structure and shapes of `tree`.

    Checks before a search would otherwise trace the model once more for every image. `fn` is a module-level function.
    """
    leaves, treedef = jax.tree.flatten(tree)
    avals = tuple((np.shape(leaf), jax.numpy.result_type(leaf)) for leaf in leaves)
    return _output_shapes(fn, treedef, avals, static_args)


@functools.lru_cache(maxsize=256)
def _output_shapes(fn: Callable[..., Any], treedef: Any, avals: tuple[Any, ...], static_args: tuple[Any, ...]) -> Any:
    tree = jax.tree.unflatten(treedef, [jax.ShapeDtypeStruct(shape, dtype) for shape, dtype in avals])
    return jax.eval_shape(lambda t: fn(t, *static_args), tree)


def is_concrete(tree: Any) -> bool:
    """True if no leaf is being traced by `jit`, `vmap` or `grad`: its numbers can be looked at."""
    return not any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(tree))
