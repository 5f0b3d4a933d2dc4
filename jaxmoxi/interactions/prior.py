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


class Sample(NamedTuple):
    """The values that choose a prior, and what they are values of.

    y:      float32[k], up to 512 of the values, evenly spread; of mean 0 and variance 1 all together.
    z:      float32[k, P], their coalitions: 1 for a player who is there, else -1.
    inside: bool[k], whether a coalition and its complement have two players or more.
    """

    y: Float[Array, "k"]
    z: Float[Array, "k P"]
    inside: Bool[Array, "k"]

    def judge(self, rho: Float[Array, "P"]) -> tuple[Array, Array]:
        """(minus the logarithm of the likelihood, but for a constant; s^2) of the kernel with these rho.

        Games change most where half of the players are there, and least near nobody and everybody, where the design has
        its first coalitions. So s^2 is the larger of its likelihood's and what makes the errors of the inner
        coalitions, each predicted from all others, as large as they should be.
        """
        count = len(self.y)
        identity = jnp.eye(count, dtype=self.y.dtype)
        weights = jnp.log1p(-rho) - jnp.log1p(rho)
        kernel = jnp.exp((jnp.sum(weights) - jnp.matmul(self.z * weights, self.z.T, precision="highest")) / 2)
        factor = jnp.linalg.cholesky(kernel + CONSTANT + noise_of(rho, count) * identity)
        white = linalg.solve_triangular(factor, self.y, lower=True)
        fit = jnp.maximum(jnp.mean(white**2), 1e-20)
        surprise = 0.5 * count * jnp.log(fit) + jnp.sum(jnp.log(jnp.diagonal(factor)))
        inverse = linalg.solve_triangular(factor, identity, lower=True)
        left_out = (inverse.T @ white) ** 2 / jnp.sum(inverse**2, axis=0)  # squared errors over their variances
        error = jnp.sum(jnp.where(self.inside, left_out, 0)) / jnp.maximum(jnp.sum(self.inside), 1)
        return surprise, jnp.maximum(fit, error)


def choose_prior(
    values: Float[Array, "m"], masks: Callable[[Int[Array, "k"]], Bool[Array, "k P"]], num_players: int
) -> tuple[Prior, Sample]:
    """The prior with one rho for all players whose likelihood is largest, and the values that chose it.

    masks: `indices -> bool[k, P]`, the coalitions of these values.
    """
    count = len(values)
    some = jnp.asarray(np.unique(np.linspace(0, count - 1, min(count, _MOST_FITTED)).astype(np.int32)))
    shift = jnp.mean(values)
    spread = jnp.std(values)
    scale = jnp.where(spread > 0, spread, 1.0)
    rows = masks(some)
    sizes = rows.sum(1)
    inside = jnp.minimum(sizes, num_players - sizes) >= 2
    sample = Sample(((values - shift) / scale)[some], 2.0 * rows.astype(values.dtype) - 1, inside)
    candidates = jnp.asarray(rhos(num_players), values.dtype)
    surprises, variances = jax.lax.map(lambda rho: sample.judge(jnp.full(num_players, rho)), candidates)
    best = jnp.nanargmin(surprises)
    return Prior(best, candidates[best], variances[best], shift, scale), sample


def choose_relevances(sample: Sample, prior: Prior, count: int) -> tuple[Float[Array, "P"], Float[Array, ""]]:
    """A rho for each player, and s^2: the kernel prod((1 + rho_i z_i z'_i) / (1 + rho_i)), by the likelihood.

    Players that do little get a small rho, and with it all sets that hold them. The start is the prior's one rho for
    all; a normal prior on the logits holds the players together, the tighter the fewer values there are, `count`.
    """
    n = sample.z.shape[1]
    tightness = 1 + 20 * n / count

    def loss(logits: Array) -> Array:
        surprise, _ = sample.judge(_MOST_RHO * jax.nn.sigmoid(logits))
        return surprise + 0.5 * tightness * jnp.sum((logits - jnp.mean(logits)) ** 2)

    start = jnp.full(n, jnp.log(prior.rho) - jnp.log(_MOST_RHO - prior.rho))
    rho = _MOST_RHO * jax.nn.sigmoid(_descend(loss, start))
    return rho, sample.judge(rho)[1]


def rhos(num_players: int) -> Float[np.ndarray, "K"]:
    """The candidates for rho."""
    sizes = np.minimum(_MEAN_SIZES, num_players * 0.35)
    return sizes / (num_players - sizes)


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
