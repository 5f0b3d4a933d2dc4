"""Attribution by the gradient of the payoff with respect to the image.

Source: Simonyan, Vedaldi and Zisserman, "Deep Inside Convolutional Networks", ICLR workshop 2014.

Deviations: the class score is the payoff of the game (the paper: the logit), so that all methods explain the same
number; a player's score is the mean over its pixels.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxmoxi.attribution.game import Problem, Seed, class_scores, need_gradients, without_game
from jaxmoxi.attribution.methods import Method, register
from jaxmoxi.games.payoff import Payoff


def gradient(key: Seed, problem: Problem, *, payoff: Payoff | None = None) -> Float[Array, "P"]:
    """Plain gradient: the largest absolute derivative among a pixel's channels, mean over the player; not negative.

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
