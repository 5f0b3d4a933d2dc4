"""Integrated gradients: the gradient of the payoff along a line from a baseline to the image.

Source: Sundararajan, Taly and Yan, "Axiomatic Attribution for Deep Networks", ICML 2017. For a payoff F, an image x
and a baseline x', the attribution of pixel i is

    (x_i - x'_i) * integral over a in [0, 1] of dF(x' + a (x - x')) / dx_i

and over all pixels it sums to F(x) - F(x') (*completeness*), but for the error of the integral. That error is the
*completeness gap*, and the number of steps is chosen by it.

Deviations: the payoff of the game takes the place of the paper's probability, so that all methods explain the same
number; a player's score is the mean over its pixels; the rules for the integral are of second order (the paper's is of
first): the midpoint rule for a given number of steps, the trapezoid rule, whose points are those of the coarser one and
their midpoints, where the number is sought.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxmoxi.attribution.game import Problem, Seed, class_scores, need_gradients, without_game
from jaxmoxi.attribution.methods import Effort, Method, register
from jaxmoxi.errors import InputError, NotConvergedWarning, warn
from jaxmoxi.games.fill import fill_image
from jaxmoxi.games.payoff import Payoff
from jaxmoxi.guards import deliberate
from jaxmoxi.pytrees import is_concrete, record

TOLERANCE = 0.05
"""The completeness gap, as a share of `PathAttribution.scale`, at which the number of steps is enough."""
_FIRST, _LAST = 16, 1024  # steps at first and at most


@record
class PathAttribution:
    """What `path_attribution` found.

    scores:    float32[P], the mean attribution of each player's pixels, of either sign.
    pixels:    float32[H, W], the attribution of each pixel, summed over its channels.
    change:    float32[], the payoff of the image less that of the baseline: what `pixels` would sum to.
    gap:       float32[], what they sum to less `change`.
    scale:     float32[], what a gap is measured by: the size of `change`, or, where the payoff hardly changes, a tenth
               of the payoffs of the image and the baseline.
    num_steps: int32[], into how many parts the line was cut.
    """

    scores: Float[Array, "P"]
    pixels: Float[Array, "H W"]
    change: Float[Array, ""]
    gap: Float[Array, ""]
    scale: Float[Array, ""]
    num_steps: Int[Array, ""]


def integrated_gradients(
    key: Seed,
    problem: Problem,
    *,
    baseline: Any = 0.0,
    num_steps: int | Literal["auto"] = "auto",
    max_steps: int = _LAST,
    batch_size: int = 8,
    payoff: Payoff | None = None,
) -> Float[Array, "P"]:
    """Integrated gradients: (image - baseline) times the mean gradient on the straight line between them.

    A pixel's attribution is the sum over its channels; over all pixels they sum to the payoff of the image less that of
    the baseline, up to the integration. A player's score is the mean over its pixels, of either sign.
    `path_attribution` says by how much the sum misses.

    key:        unused, may be None.
    baseline:   in normalised units as the `fill` of `pixel_value_fn`: a number, one number a channel, an image, "mean",
                "blur"; or "black" (the paper's; needs a Classifier, which knows what black becomes). 0 is the mean
                colour of the pictures that the network was trained on, where they were normalised by it.
    num_steps:  points on the line, >= 1; "auto" doubles them from 16 until the sum misses by at most 5 %, and warns
                where `max_steps` do not reach that. 50, as often taken, can be far too few. Inside `jit` and `vmap` a
                number has to be given.
    max_steps:  where "auto" ends, at least 32.
    batch_size: points that are differentiated together; bounds the memory and changes nothing else.
    payoff:     what is differentiated; None means the game's own.

    Outside `jit` a NotConvergedWarning says where the sum misses by more than that, and for a given number of steps
    where it misses by more than a fifth.
    Raises ValueError for a baseline or a number that does not fit and a model without a gradient.
    """
    del key
    if not is_concrete(problem):
        steps, start, payoff = _prepare(problem, baseline, num_steps, batch_size, payoff)
        if isinstance(steps, str):
            raise InputError('num_steps="auto" decides on the host: inside jit and vmap give a number, such as 256')
        return problem.pool(_midpoints(without_game(problem), start, steps, batch_size, payoff))
    found = path_attribution(
        problem,
        baseline=baseline,
        num_steps=num_steps,
        max_steps=max_steps,
        batch_size=batch_size,
        payoff=payoff,
    )
    gap, change = float(found.gap), float(found.change)
    if abs(gap) > (TOLERANCE if num_steps == "auto" else 0.2) * float(found.scale):
        warn(
            f"integrated gradients of {int(found.num_steps)} steps sum to {change + gap:.3g}, where the payoff changes "
            f"by {change:.3g}: they have not converged. "
            + ("Raise max_steps, or explain another payoff" if num_steps == "auto" else 'Use num_steps="auto"'),
            NotConvergedWarning,
        )
    return found.scores


@deliberate
def path_attribution(
    problem: Problem,
    *,
    baseline: Any = 0.0,
    num_steps: int | Literal["auto"] = "auto",
    tolerance: float = TOLERANCE,
    max_steps: int = _LAST,
    batch_size: int = 8,
    payoff: Payoff | None = None,
) -> PathAttribution:
    """Integrated gradients with their completeness gap: pixels, players, and by how much the sum misses.

    baseline, num_steps, batch_size, payoff: as for `integrated_gradients`.
    tolerance: "auto" doubles the steps until the gap of the trapezoid rule is at most this share of the `scale`, and
               that of the midpoints alone twice this share, which tells a gap that is small by chance.
    max_steps: where "auto" ends; at least 32.

    Raises ValueError inside `jit` and for arguments that do not fit.
    """
    steps, start, payoff = _prepare(problem, baseline, num_steps, batch_size, payoff)
    if not is_concrete(problem):
        raise InputError("path_attribution looks at the completeness gap: call it outside jit and vmap")
    if not tolerance > 0 or max_steps < 2 * _FIRST:
        raise InputError(
            f"expected a tolerance above 0 and max_steps of at least {2 * _FIRST}; got {tolerance} and {max_steps}"
        )
    own = without_game(problem)
    ends = np.asarray(_payoffs(own, jnp.stack([start, problem.image]), payoff), np.float64)
    change = ends[1] - ends[0]
    scale = max(abs(change), 0.1 * np.abs(ends).sum())
    if isinstance(steps, str):
        pixels, steps = _doubled(own, start, batch_size, payoff, change, tolerance * scale, max_steps)
    else:
        pixels = _midpoints(own, start, steps, batch_size, payoff)
    return PathAttribution(
        scores=problem.pool(pixels),
        pixels=pixels,
        change=jnp.float32(change),
        gap=jnp.float32(np.asarray(pixels, np.float64).sum() - change),
        scale=jnp.float32(scale),
        num_steps=jnp.int32(steps),
    )


def _prepare(
    problem: Problem, baseline: Any, num_steps: Any, batch_size: int, payoff: Payoff | None
) -> tuple[int | str, Float[Array, "H W channels"], Payoff]:
    """(steps, baseline as an image, payoff), checked."""
    if (num_steps != "auto" and (isinstance(num_steps, str) or num_steps < 1)) or batch_size < 1:
        raise InputError(
            'expected num_steps of at least 1, or "auto", and batch_size of at least 1; '
            f"got {num_steps!r} and {batch_size}"
        )
    start = fill_image(problem.image, _black(problem) if _is_black(baseline) else baseline)
    need_gradients(problem, "integrated gradients")
    return num_steps, start, payoff or problem.payoff()


def _doubled(
    problem: Problem,
    start: Float[Array, "H W channels"],
    batch_size: int,
    payoff: Payoff,
    change: float,
    allowed: float,
    max_steps: int,
) -> tuple[Float[Array, "H W"], int]:
    """The trapezoid rule with as many steps as the gap asks for: (attribution of pixels, steps)."""
    steps = _FIRST
    weights = np.ones(steps + 1)
    weights[[0, -1]] = 0.5
    total = _weighted(problem, start, np.arange(steps + 1) / steps, weights, batch_size, payoff)
    while True:
        between = _weighted(problem, start, (np.arange(steps) + 0.5) / steps, np.ones(steps), batch_size, payoff)
        middle = float(_attribute(problem, start, between / steps).sum())
        total, steps = total + between, 2 * steps
        pixels = _attribute(problem, start, total / steps)
        gap = abs(float(pixels.sum()) - change)
        if (gap <= allowed and abs(middle - change) <= 2 * allowed) or 2 * steps > max_steps:
            return pixels, steps


def _weighted(
    problem: Problem,
    start: Float[Array, "H W channels"],
    places: np.ndarray,
    weights: np.ndarray,
    batch_size: int,
    payoff: Payoff,
) -> Float[Array, "H W channels"]:
    """The weighted sum of gradients at places in [0, 1] of the line, in chunks of one compiled shape."""
    count = -(-len(places) // batch_size) * batch_size
    padded = [np.pad(x, (0, count - len(x))).astype(np.float32).reshape(-1, batch_size) for x in (places, weights)]
    total = jnp.zeros_like(problem.image)
    for at, weight in zip(*padded, strict=True):
        total = total + _gradients(problem, start, at, weight, payoff)
    return total


@partial(jax.jit, static_argnums=4)
def _gradients(problem: Problem, start: Any, places: Any, weights: Any, payoff: Payoff) -> Float[Array, "H W channels"]:
    """The weighted sum of the payoff's gradients at places of the line; what has the weight 0 does not count."""
    images = start + places[:, None, None, None] * (problem.image - start)

    def score(images: Any) -> Any:
        values = class_scores(problem, problem.logits(images), payoff)
        return jnp.sum(jnp.where(weights > 0, weights * values, 0))

    return jax.grad(score)(images).sum(0)


def _midpoints(problem: Problem, start: Any, num_steps: int, batch_size: int, payoff: Payoff) -> Float[Array, "H W"]:
    """The attribution of pixels by the midpoint rule. Traceable."""
    chunks = -(-num_steps // batch_size)
    size = -(-num_steps // chunks)
    index = jnp.arange(chunks * size).reshape(chunks, size)
    total = _scanned(problem, start, (index + 0.5) / num_steps, (index < num_steps).astype(jnp.float32), payoff)
    return _attribute(problem, start, total / num_steps)


@partial(jax.jit, static_argnums=4)
def _scanned(problem: Problem, start: Any, places: Any, weights: Any, payoff: Payoff) -> Float[Array, "H W channels"]:
    def add(total: Any, chunk: Any) -> Any:
        return total + _gradients(problem, start, *chunk, payoff), None

    return jax.lax.scan(add, jnp.zeros_like(problem.image), (places, weights))[0]


def _attribute(problem: Problem, start: Any, mean: Any) -> Float[Array, "H W"]:
    return ((problem.image - start) * mean).sum(-1)


@partial(jax.jit, static_argnums=2)
def _payoffs(problem: Problem, images: Any, payoff: Payoff) -> Float[Array, "B"]:
    return class_scores(problem, problem.logits(images), payoff)


def _is_black(baseline: Any) -> bool:
    return isinstance(baseline, str) and baseline == "black"


def _black(problem: Problem) -> Any:
    how = getattr(problem.network(), "preprocessing", None)
    if how is None:
        raise InputError(
            "baseline='black' needs a Classifier, whose preprocessing says what black becomes; got a function of "
            "images: give a number, or one for each channel"
        )
    return [(how.offset - mean) / std for mean, std in zip(how.mean, how.std, strict=True)]


def _most_steps(effort: Effort) -> int:
    """A gradient costs about three evaluations; a method may use `effort.samples` of them."""
    return max(64, effort.samples // 3)


# Its `batch_size` counts points that are differentiated together, so a study's coalitions per forward pass are not it.
register(
    Method(
        "integrated-gradients",
        integrated_gradients,
        "Sundararajan, Taly and Yan, ICML 2017",
        "gradients",
        help="the mean gradient on the line from a baseline to the image, times their difference",
        complete="pixels",
        options=lambda effort: {"max_steps": _most_steps(effort)},
        cost=lambda effort: 3 * _most_steps(effort),
        place=31,
        colour="#8c564b",
    )
)
