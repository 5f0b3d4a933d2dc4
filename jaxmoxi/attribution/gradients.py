"""Attribution by the gradient of the payoff with respect to the image.

Sources: Simonyan, Vedaldi and Zisserman, "Deep Inside Convolutional Networks", ICLR workshop 2014; Sundararajan, Taly
and Yan, "Axiomatic Attribution for Deep Networks", ICML 2017.

Deviations: the class score is the payoff of the game (the papers: the logit; the probability), so that all methods
explain the same number; a player's score is the mean over its pixels.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxmoxi.attribution.game import Problem, Seed, class_scores, need_gradients, without_game
from jaxmoxi.attribution.methods import Method, register
from jaxmoxi.errors import InputError
from jaxmoxi.games.image import fill_image
from jaxmoxi.games.payoff import Payoff


def gradient(key: Seed, problem: Problem, *, payoff: Payoff | None = None) -> Float[Array, "P"]:
    """Plain gradient: the largest absolute derivative of a pixel's three channels, mean over the player; not negative.

    key:    unused, may be None. payoff: what is differentiated; None means the game's own.
    Raises ValueError for a model without a gradient.
    """
    del key
    need_gradients(problem, "the gradient")
    return _gradient(without_game(problem), payoff or problem.payoff())


@partial(jax.jit, static_argnums=1)
def _gradient(problem: Problem, payoff: Payoff) -> Float[Array, "P"]:
    def score(image: Any) -> Any:
        return class_scores(problem, problem.logits(image[None]), payoff)[0]

    return problem.pool(jnp.abs(jax.grad(score)(problem.image)).max(-1))


def integrated_gradients(
    key: Seed,
    problem: Problem,
    *,
    baseline: Any = 0.0,
    num_steps: int = 50,
    batch_size: int = 8,
    payoff: Payoff | None = None,
) -> Float[Array, "P"]:
    """Integrated gradients: (image - baseline) times the mean gradient on the straight line between them.

    A pixel's attribution is the sum over its channels; over all pixels they sum to the payoff of the image less that of
    the baseline, up to the integration. A player's score is the mean over its pixels, of either sign.

    key:        unused, may be None.
    baseline:   in normalised units as the `fill` of `pixel_value_fn`: a number, 3 numbers, an image, "mean", "blur";
                or "black" (the paper's; needs a Classifier, which knows what black becomes). 0 is the mean colour of
                the pictures that the network was trained on, where they were normalised by it.
    num_steps:  points on the line, >= 1: the midpoints of equal parts (the paper takes their ends, of first order; the
                midpoint rule is of second).
    batch_size: points that are differentiated together; bounds the memory and changes nothing else.
    payoff:     as for `gradient`.

    Raises ValueError for a baseline or a number that does not fit and a model without a gradient.
    """
    del key
    if num_steps < 1 or batch_size < 1:
        raise InputError(f"expected num_steps and batch_size of at least 1; got {num_steps} and {batch_size}")
    start = fill_image(problem.image, _black(problem) if _is_black(baseline) else baseline)
    need_gradients(problem, "integrated gradients")
    return _integrated(without_game(problem), start, num_steps, batch_size, payoff or problem.payoff())


@partial(jax.jit, static_argnums=(2, 3, 4))
def _integrated(problem: Problem, start: Any, num_steps: int, batch_size: int, payoff: Payoff) -> Float[Array, "P"]:
    chunks = -(-num_steps // batch_size)
    size = -(-num_steps // chunks)
    points = jnp.arange(chunks * size).reshape(chunks, size)
    change = problem.image - start

    def add(total: Any, index: Any) -> Any:
        images = start + ((index + 0.5) / num_steps)[:, None, None, None] * change
        counts = index < num_steps  # points beyond the end fill the last chunk

        def score(images: Any) -> Any:
            return jnp.sum(jnp.where(counts, class_scores(problem, problem.logits(images), payoff), 0))

        return total + jax.grad(score)(images).sum(0), None

    total, _ = jax.lax.scan(add, jnp.zeros_like(problem.image), points)
    return problem.pool((change * total / num_steps).sum(-1))


def _is_black(baseline: Any) -> bool:
    return isinstance(baseline, str) and baseline == "black"


def _black(problem: Problem) -> Any:
    how = getattr(problem.network(), "preprocessing", None)
    if how is None:
        raise InputError(
            "baseline='black' needs a Classifier, whose preprocessing says what black becomes; got a function of "
            "images: give the three numbers"
        )
    return [(how.offset - mean) / std for mean, std in zip(how.mean, how.std, strict=True)]


register(
    Method(
        "gradient",
        gradient,
        "Simonyan, Vedaldi and Zisserman, ICLR workshop 2014",
        "gradients",
        help="the absolute derivative of the payoff with respect to the pixels",
        place=30,
        colour="#9467bd",
    )
)
# Its `batch_size` counts points that are differentiated together, so a study's coalitions per forward pass are not it.
register(
    Method(
        "integrated-gradients",
        integrated_gradients,
        "Sundararajan, Taly and Yan, ICML 2017",
        "gradients",
        help="the mean gradient on the line from a baseline to the image, times their difference",
        cost=lambda effort: 150,  # 50 points
        place=31,
        colour="#8c564b",
    )
)
