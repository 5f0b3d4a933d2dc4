"""Class activation maps weighted by gradients.

Sources: Selvaraju et al., "Grad-CAM", ICCV 2017; Chattopadhay et al., "Grad-CAM++", WACV 2018. With maps A^c (channel
c, position p) and the derivative g^c_p of the class score with respect to them, the map is

    M_p = relu( sum_c w^c A^c_p )

    Grad-CAM    w^c = mean_p g^c_p
    Grad-CAM++  w^c = sum_p a^c_p relu(g^c_p),   a = g^2 / (2 g^2 + (sum_q A^c_q) g^3) where g is not 0, 0 elsewhere

enlarged bilinearly to the image; a player's score is the mean over its pixels.

The maps are `features` of the model: the last convolution's of a CNN. Of a vision transformer, to which the papers do
not speak, they are the patch tokens on their grid after the first norm of the last layer: the last place where patches
still reach the class token, through its attention. Where the logits also read the mean of the patch tokens (DINOv2,
BEiT), they are these tokens before that norm, from where they reach the logits on every way. The class tokens and
registers have no place on the grid, and are left out.

Deviations: a is written as 1 / (2 + (sum_q A^c_q) g), the same number without powers that underflow, and is 0 where
that denominator is. Grad-CAM++ differentiates exp(score), whose derivative is exp(score) g with the same a: the factor,
one positive number for the whole image, is left out. The maps are not stretched to [0, 1], which changes no order.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxmoxi.attribution.game import Problem, Seed, class_scores, cut, need_features, without_game
from jaxmoxi.attribution.methods import Method, register
from jaxmoxi.games.payoff import Payoff


def grad_cam(key: Seed, problem: Problem, *, payoff: Payoff = "logit") -> Float[Array, "P"]:
    """Grad-CAM: feature maps weighted by their mean gradient; not negative.

    key:    unused, may be None. payoff: the class score; the paper takes the logit.
    Raises ValueError for a model without `features` and `classify`.
    """
    del key
    need_features(problem, "Grad-CAM")
    return _cam(without_game(problem), payoff, _mean_gradient)


def grad_cam_plus_plus(key: Seed, problem: Problem, *, payoff: Payoff = "logit") -> Float[Array, "P"]:
    """Grad-CAM++: as Grad-CAM, positive gradients weighted so that each of several objects counts; not negative.

    Its weights are derived for maps that are not negative, as after a ReLU; those of a vision transformer are not.
    Arguments and errors are those of `grad_cam`.
    """
    del key
    need_features(problem, "Grad-CAM++")
    return _cam(without_game(problem), payoff, _plus_plus)


def _mean_gradient(maps: Float[Array, "h w C"], slope: Float[Array, "h w C"]) -> Float[Array, "C"]:
    return slope.mean((0, 1))


def _plus_plus(maps: Float[Array, "h w C"], slope: Float[Array, "h w C"]) -> Float[Array, "C"]:
    below = 2 + maps.sum((0, 1)) * slope
    share = jnp.where((slope != 0) & (below != 0), 1 / jnp.where(below == 0, 1, below), 0)
    return (share * jax.nn.relu(slope)).sum((0, 1))


@partial(jax.jit, static_argnums=(1, 2))
def _cam(problem: Problem, payoff: Payoff, weigh: Any) -> Float[Array, "P"]:
    network = problem.network()
    given = network.features(problem.image[None])
    features = cut(given)

    def score(maps: Any) -> Any:
        whole = features._replace(maps=maps)
        logits = network.classify(whole if given is features else maps)
        return class_scores(problem, logits, payoff)[0]

    maps, slope = (x[0].astype(jnp.float32) for x in (features.maps, jax.grad(score)(features.maps)))
    heat = jax.nn.relu(maps @ weigh(maps, slope))
    return problem.pool(jax.image.resize(heat, problem.image.shape[:2], "linear"))


# A study leaves `payoff` alone: the papers take the logit, whatever the game's payoff is.
register(
    Method(
        "grad-cam",
        grad_cam,
        "Selvaraju et al., ICCV 2017",
        "features",
        help="feature maps weighted by their mean gradient",
        place=10,
        colour="#1f77b4",
    )
)
register(
    Method(
        "grad-cam++",
        grad_cam_plus_plus,
        "Chattopadhay et al., WACV 2018",
        "features",
        help="Grad-CAM whose weights count each of several objects",
        place=11,
        colour="#ff7f0e",
    )
)
