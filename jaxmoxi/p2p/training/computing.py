"""How a training step computes, apart from what it minimises: its precision, its batch in parts, averaged weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Key

from jaxmoxi.p2p.data.example import Batch
from jaxmoxi.p2p.model import State

Tree = TypeVar("Tree")
# A step's gradient: (statistics, batch, key) -> (gradients, (statistics, metrics)).
Gradient = Callable[[Any, Batch, Key[Array, ""]], tuple[Any, tuple[Any, Any]]]

# Parts of a network that stay float32, by their names: what decides logits, and norms over the last features.
_FLOAT32 = ("head", "teacher_head", "low_head", "high_head", "fc", "hidden", "modulation", "out")


class Computing(NamedTuple):
    """How a step computes; see `TrainConfig` for each."""

    accumulate: int = 1
    precision: Literal["float32", "bfloat16"] = "float32"
    ema: float | None = None


def lowered(params: State, precision: str) -> State:
    """A network's parameters as it computes with them. Gradients flow back to the float32 ones."""
    if precision == "float32":
        return params

    def lower(path: Any, array: Array) -> Array:
        names = {str(getattr(key, "key", getattr(key, "name", ""))) for key in path}
        return array if names & set(_FLOAT32) else array.astype(precision)

    return jax.tree_util.tree_map_with_path(lower, params)


def run(network: Any, images: Float[Array, "B H W 3"], precision: str) -> Float[Array, "..."]:
    """A network's answer, float32, computed in this precision."""
    return network(images.astype(precision)).astype(jnp.float32)


def in_parts(gradient: Gradient, count: int, statistics: Any, batch: Batch, key: Key[Array, ""]) -> Any:
    """What `gradient` answers for a whole batch, from so many parts of it: means, and the statistics after the last.

    Each part takes every count-th row, so that devices which share a batch share every part of it.
    """
    if count == 1:
        return gradient(statistics, batch, key)
    parts = jax.tree.map(lambda x: jnp.asarray(x).reshape(-1, count, *x.shape[1:]).swapaxes(0, 1), batch)
    first = jax.tree.map(lambda x: x[0], parts)
    shapes, (_, metrics) = jax.eval_shape(gradient, statistics, first, key)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), (shapes, metrics))

    def one(carry: Any, numbered: tuple[Int[Array, ""], Batch]) -> tuple[Any, None]:
        sums, statistics = carry
        gradients, (statistics, metrics) = gradient(statistics, numbered[1], jax.random.fold_in(key, numbered[0]))
        return (jax.tree.map(jnp.add, sums, (gradients, metrics)), statistics), None

    (sums, statistics), _ = jax.lax.scan(one, (zeros, statistics), (jnp.arange(count), parts))
    gradients, metrics = jax.tree.map(lambda x: x / count, sums)
    return gradients, (statistics, metrics)


def averaged(average: Tree, new: Tree, decay: float, step: Int[Array, ""]) -> Tree:
    """The running average of weights after the step of this number, counted from 0."""
    n = step.astype(jnp.float32)
    kept = jnp.minimum(decay, (1 + n) / (10 + n))
    return jax.tree.map(
        lambda a, b: a + (1 - kept) * (b - a) if jnp.issubdtype(a.dtype, jnp.floating) else b, average, new
    )


def faster_selector(rate: float) -> optax.GradientTransformation:
    """Multiplies the updates of the selector, the first of (selector, classifier), by a rate."""

    def scale(updates: Any, params: Any) -> Any:
        del params
        return jax.tree.map(lambda x: rate * x, updates[0]), updates[1]

    return optax.stateless(scale)
