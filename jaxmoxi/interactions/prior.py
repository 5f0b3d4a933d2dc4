"""The prior of the Gaussian process over coalitions, chosen by the values; and how its equations are solved."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import jax.scipy.linalg as linalg
import numpy as np
from jaxtyping import Array, Bool, Float, Int

_NOISE = 5e-3  # of the prior variance of a value, but for its mean
CONSTANT = 1.0  # the prior variance of the mean, in those of a value; the values are centred first
WIDER = 1.5  # standard errors, over the posterior's: real games differ more from set to set than the prior says
_MOST_FITTED = 512  # values whose likelihood chooses rho
_MOST_STEPS = 200
_MOST_RHO, _PACE = 0.95, 0.2
# Candidates for rho, by the mean size of a set under the prior, P rho / (1 + rho).
_MEAN_SIZES = np.array([0.1, 0.18, 0.3, 0.45, 0.7, 1.0, 1.4, 1.9, 2.6, 3.6, 5.0])


class Prior(NamedTuple):
    """The prior that the values chose, in units of their spread.

    choice:   int32[], which of `rhos`.
    rho:      float32[], the ratio of variances from one size to the next.
    variance: float32[], s^2: the prior variance of a value.
    shift:    float32[], subtracted from the values.
    scale:    float32[], then divided by.
    """

    choice: Int[Array, ""]
    rho: Float[Array, ""]
    variance: Float[Array, ""]
    shift: Float[Array, ""]
    scale: Float[Array, ""]


def choose_prior(
    values: Float[Array, "m"],
    distances: Callable[[Int[Array, "k"]], Int[Array, "k k"]],
    inner: Callable[[Int[Array, "k"]], Bool[Array, "k"]],
    num_players: int,
) -> Prior:
    """The prior whose likelihood is largest, given up to 512 of the values, evenly spread.

    distances: `indices -> int32[k, k]`, in how many players two coalitions differ.
    inner:     `indices -> bool[k]`, whether a coalition and its complement have two players or more.

    Games change most where half of the players are there, and least near nobody and everybody, where the design has its
    first coalitions. So s^2 is the larger of its likelihood's and what makes the errors of the inner coalitions, each
    predicted from all others, as large as they should be.
    """
    count = len(values)
    some = jnp.asarray(np.unique(np.linspace(0, count - 1, min(count, _MOST_FITTED)).astype(np.int32)))
    shift = jnp.mean(values)
    spread = jnp.std(values)
    scale = jnp.where(spread > 0, spread, 1.0)
    y = ((values - shift) / scale)[some]
    apart, inside = distances(some), inner(some)
    identity = jnp.eye(len(some), dtype=values.dtype)

    def judge(candidate: tuple[Array, Array]) -> tuple[Array, Array]:
        by_distance, rho = candidate
        noise = noise_of(jnp.full(num_players, rho), len(some))
        factor = jnp.linalg.cholesky(by_distance[apart] + CONSTANT + noise * identity)
        white = linalg.solve_triangular(factor, y, lower=True)
        fit = jnp.maximum(jnp.mean(white**2), 1e-20)
        likelihood = -0.5 * len(some) * jnp.log(fit) - jnp.sum(jnp.log(jnp.diagonal(factor)))
        inverse = linalg.solve_triangular(factor, identity, lower=True)
        left_out = (inverse.T @ white) ** 2 / jnp.sum(inverse**2, axis=0)  # squared errors over their variances
        error = jnp.sum(jnp.where(inside, left_out, 0)) / jnp.maximum(jnp.sum(inside), 1)
        return jnp.where(jnp.isnan(likelihood), -jnp.inf, likelihood), jnp.maximum(fit, error)

    tables = jnp.asarray(np.stack([_by_distance(rho, num_players) for rho in rhos(num_players)]), values.dtype)
    candidates = jnp.asarray(rhos(num_players), values.dtype)
    likelihoods, variances = jax.lax.map(judge, (tables, candidates))
    best = jnp.argmax(likelihoods)
    return Prior(best, candidates[best], variances[best], shift, scale)


def rhos(num_players: int) -> Float[np.ndarray, "K"]:
    """The candidates for rho."""
    sizes = np.minimum(_MEAN_SIZES, num_players * 0.35)
    return sizes / (num_players - sizes)


def _by_distance(rho: float, num_players: int) -> Float[np.ndarray, "P1"]:
    """The kernel by distance, 1 at 0."""
    return ((1 - rho) / (1 + rho)) ** np.arange(num_players + 1)


def noise_of(rho: Float[Array, "P"], count: int) -> Float[Array, ""]:
    """The noise of a value, in units of s^2: a share of what sets of players add; no less than float32 can carry.

    rho: of each player. count: coalitions, whose common part has an eigenvalue of this size.
    """
    return jnp.maximum(_NOISE * (1 - 1 / jnp.prod(1 + rho)), count * 1e-6)


def noise_of_small_sets(rest: Float[Array, ""], count: int) -> Float[Array, ""]:
    """The noise with which a preconditioner solves for small sets exactly, no less than float32 can tell from it.

    rest: what is noise to the small sets. count: coalitions, whose common part has an eigenvalue of this size.
    """
    return jnp.maximum(rest, count * (1 + CONSTANT) * 1e-6)


def conjugate_gradients(
    product: Callable[[Array], Array], precondition: Callable[[Array], Array], target: Array, tolerance: float
) -> Array:
    """The solution of product(x) = target, to a residual of `tolerance` times the target's size, or 200 steps.

    Of all steps the one with the smallest residual is kept: where float32 can go no further, residuals grow again.
    """
    enough = tolerance**2 * jnp.sum(target**2)

    class State(NamedTuple):
        x: Array
        residual: Array
        direction: Array
        decrease: Array
        best: Array
        smallest: Array
        step: Array

    def going(s: State) -> Array:
        return (s.step < _MOST_STEPS) & (s.smallest > enough)

    def step(s: State) -> State:
        image = product(s.direction)
        length = _ratio(s.decrease, jnp.sum(s.direction * image))
        x, residual = s.x + length * s.direction, s.residual - length * image
        steepest = precondition(residual)
        decrease = jnp.sum(residual * steepest)
        direction = steepest + _ratio(decrease, s.decrease) * s.direction
        size = jnp.sum(residual**2)
        better = size < s.smallest
        best = jnp.where(better, x, s.best)
        return State(x, residual, direction, decrease, best, jnp.where(better, size, s.smallest), s.step + 1)

    first, blank = precondition(target), jnp.zeros_like(target)
    start = State(blank, target, first, jnp.sum(target * first), blank, jnp.sum(target**2), jnp.int32(0))
    return jax.lax.while_loop(going, step, start).best


def _ratio(a: Array, b: Array) -> Array:
    return jnp.where(b == 0, 0.0, a / jnp.where(b == 0, 1.0, b))


def choose_relevances(
    values: Float[Array, "m"], rows: Bool[Array, "m P"], prior: Prior
) -> tuple[Float[Array, "P"], Float[Array, ""]]:
    """A rho for each player, and s^2: the kernel prod((1 + rho_i z_i z'_i) / (1 + rho_i)), by the likelihood.

    Players that do little get a small rho, and with it all sets that hold them. The start is the prior's one rho for
    all; a normal prior on the logits holds the players together, the tighter the fewer values there are.
    """
    count, n = rows.shape
    some = jnp.asarray(np.unique(np.linspace(0, count - 1, min(count, _MOST_FITTED)).astype(np.int32)))
    y = ((values - prior.shift) / prior.scale)[some]
    z = 2.0 * rows[some].astype(values.dtype) - 1
    sizes = rows[some].sum(1)
    inside = jnp.minimum(sizes, n - sizes) >= 2
    identity = jnp.eye(len(some), dtype=values.dtype)
    tightness = 1 + 20 * n / count

    def factorise(rho: Array) -> tuple[Array, Array]:
        weights = jnp.log1p(-rho) - jnp.log1p(rho)
        kernel = jnp.exp((jnp.sum(weights) - jnp.matmul(z * weights, z.T, precision="highest")) / 2)
        noise = noise_of(rho, len(some))
        factor = jnp.linalg.cholesky(kernel + CONSTANT + noise * identity)
        return factor, linalg.solve_triangular(factor, y, lower=True)

    def loss(logits: Array) -> Array:
        factor, white = factorise(_MOST_RHO * jax.nn.sigmoid(logits))
        fit = jnp.maximum(jnp.mean(white**2), 1e-20)
        surprise = 0.5 * len(some) * jnp.log(fit) + jnp.sum(jnp.log(jnp.diagonal(factor)))
        return surprise + 0.5 * tightness * jnp.sum((logits - jnp.mean(logits)) ** 2)

    start = jnp.full(n, jnp.log(prior.rho) - jnp.log(_MOST_RHO - prior.rho))
    rho = _MOST_RHO * jax.nn.sigmoid(_descend(loss, start))
    factor, white = factorise(rho)
    inverse = linalg.solve_triangular(factor, identity, lower=True)
    left_out = (inverse.T @ white) ** 2 / jnp.sum(inverse**2, axis=0)
    error = jnp.sum(jnp.where(inside, left_out, 0)) / jnp.maximum(jnp.sum(inside), 1)
    return rho, jnp.maximum(jnp.mean(white**2), error)


def _descend(loss: Callable[[Array], Array], start: Float[Array, "P"]) -> Float[Array, "P"]:
    """The best of 40 steps of Adam (Kingma and Ba, ICLR 2015); steps that no number came of are not taken."""

    class State(NamedTuple):
        x: Array
        mean: Array
        square: Array
        best: Array
        lowest: Array

    def step(s: State, i: Array) -> tuple[State, None]:
        value, slope = jax.value_and_grad(loss)(s.x)
        fine = jnp.isfinite(value) & jnp.all(jnp.isfinite(slope))
        slope = jnp.where(fine, slope, 0)
        mean, square = 0.9 * s.mean + 0.1 * slope, 0.95 * s.square + 0.05 * slope**2
        move = _PACE * (mean / (1 - 0.9**i)) / (jnp.sqrt(square / (1 - 0.95**i)) + 1e-8)
        better = fine & (value < s.lowest)
        x = jnp.where(fine, s.x - move, (s.x + s.best) / 2)
        return State(x, mean, square, jnp.where(better, s.x, s.best), jnp.where(better, value, s.lowest)), None

    blank = jnp.zeros_like(start)
    first = State(start, blank, blank, start, jnp.asarray(jnp.inf, start.dtype))
    return jax.lax.scan(step, first, jnp.arange(1.0, 41.0, dtype=start.dtype))[0].best
