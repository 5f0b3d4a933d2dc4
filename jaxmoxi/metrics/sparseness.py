"""How few players an explanation points at.

Sources: Chalasani, Chen, Chowdhury, Wu and Jha, "Concise Explanations of Neural Networks using Adversarial Training",
ICML 2020 (*sparseness*, the Gini index); Bhatt, Weller and Moura, "Evaluating and Aggregating Feature-based Model
Explanations", IJCAI 2020 (*complexity*, an entropy). Both look at absolute scores and at nothing else: a short
explanation need not be a true one.
"""

from __future__ import annotations

from collections.abc import Iterator

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxmoxi.attribution.methods import METHODS
from jaxmoxi.errors import InputError
from jaxmoxi.guards import deliberate
from jaxmoxi.metrics.registry import Column, Explained, Metric, Number, register
from jaxmoxi.types import AnyArray


@deliberate
def sparseness(scores: Float[AnyArray, "P"]) -> Float[Array, ""]:
    """The Gini index of the absolute scores, float32[] in [0, 1 - 1/P]; higher is sparser.

    0 where all players have the same, 1 - 1/P where one player has everything. NaN where all scores are 0.

        sum over ranks r = 1 .. P of (2 r - P - 1) |score at rank r|, over P times the sum of all; ranks ascend
    """
    sizes = jnp.sort(_sizes(scores))
    count = len(sizes)
    total = sizes.sum()
    weights = 2 * jnp.arange(1, count + 1) - count - 1
    return jnp.where(total > 0, (weights * sizes).sum() / (count * jnp.where(total > 0, total, 1)), jnp.nan)


@deliberate
def complexity(scores: Float[AnyArray, "P"]) -> Float[Array, ""]:
    """The entropy of the absolute scores as shares of their sum, float32[] in [0, log P], in nats; lower is simpler.

    NaN where all scores are 0.
    """
    sizes = _sizes(scores)
    total = sizes.sum()
    shares = sizes / jnp.where(total > 0, total, 1)
    logs = jnp.log(jnp.where(shares > 0, shares, 1))
    return jnp.where(total > 0, -(shares * logs).sum(), jnp.nan)


def _sizes(scores: Float[AnyArray, "P"]) -> Float[Array, "P"]:
    scores = jnp.asarray(scores, jnp.float32)
    if scores.ndim != 1 or not scores.size:
        raise InputError(f"expected scores float32[P] of one explanation; got shape {scores.shape}")
    sizes = jnp.abs(scores)
    root = jnp.sqrt(jnp.max(sizes))
    root = jnp.where(root > 0, root, 1)
    return sizes / root / root  # in [0, 1], so that no sum overflows; in two steps, as 1 / 3e38 is not a normal number


def _measure(explained: Explained) -> Iterator[Number]:
    for method, scores in zip(explained.methods, explained.scores[:, 0], strict=True):
        if METHODS[method].directed:  # its scores are places in an order, which say nothing of sizes
            continue
        yield Number("sparseness", method, "", float(np.asarray(sparseness(scores))))
        yield Number("complexity", method, "", float(np.asarray(complexity(scores))))


register(
    Metric(
        "sparseness",
        _measure,
        columns=(Column("sparseness", higher=True), Column("complexity", higher=False)),
        help="how few regions the scores point at: Gini index (Chalasani et al.) and entropy (Bhatt et al.)",
        by_default=False,
        place=53,
    )
)
