"""Interactions by a Gaussian process over coalitions: the posterior mean of the game, of which any index is read.

Model. A game is a sum of its Fourier coefficients, v(T) = sum over A of c_A prod(z_i for i in A) with z_i = 1 for a
player in T, else -1. A priori c_A is normal with variance s^2 rho^|A|: large sets matter less. That is a Gaussian
process over coalitions with the kernel s^2 prod(1 + rho z_i z'_i), which depends on the distance of two coalitions
alone. From the values of some coalitions follow the posterior mean of all others, and how uncertain it is.

rho and s come from the values themselves, by the likelihood of up to 512 of them. Up to 20 players each has a rho of
its own, and c_A the variance s^2 prod(rho_i for i in A): sets that hold a player who does little matter little. A
little noise stands for what no smooth game explains. As every index is a linear function of the game, its posterior
mean is the index of the mean, and its standard error the posterior's standard deviation (widened by a half, as real
games differ more from set to set than a prior says). The estimate is biased towards games without interactions, as far
as the budget leaves open what they are, and the standard error includes that.

Sources: Rasmussen and Williams, "Gaussian Processes for Machine Learning", 2006 (chapters 2 and 5); the kernel is the
discrete diffusion kernel of Kondor and Lafferty, ICML 2002; that Fourier coefficients of large sets are small is what
SPEX builds on (Kang et al., "SPEX: Scaling Feature Interaction Explanations for LLMs", ICML 2025).
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array

from jaxmoxi.interactions.cube import fit_cube
from jaxmoxi.interactions.design import Design, coalition, draw
from jaxmoxi.interactions.draws import binomial_sizes
from jaxmoxi.interactions.exact import MOST_PLAYERS
from jaxmoxi.interactions.indices import INDICES
from jaxmoxi.interactions.large import fit_large
from jaxmoxi.interactions.methods import Fit, Method, Request, register
from jaxmoxi.interactions.moments import mapped


class Operands(NamedTuple):
    """The coalitions, and the key of the draws that the standard errors are made from."""

    design: Design
    key: Array


def plan(key: Array, request: Request, budget: int) -> Operands:
    """The coalitions of this key."""
    # Half by size, half by coalition: measured best for Shapley's indices and Banzhaf's together.
    n = request.num_players
    weights = np.full(n + 1, 1 / (n + 1)) / 2 + np.array(binomial_sizes(n, 0.5, paired=False)) / 2
    keys = jax.random.split(key)
    return Operands(draw(keys[0], n, budget, weights), keys[1])


def mask(operands: Operands, index: Array) -> Array:
    """One of the coalitions, bool[P]."""
    return coalition(operands.design, index)


def fit(operands: Operands, values: Array, request: Request) -> Fit:
    """The index of the posterior mean, and how sure it is."""
    rows = operands.design.rows
    if rows is not None:
        return fit_cube(rows[: len(values)], values, operands.key, request)
    return _fit_large(operands, values, request)


@functools.partial(jax.jit, static_argnums=2)
def _fit_large(operands: Operands, values: Array, request: Request) -> Fit:
    masks = mapped(jax.vmap(functools.partial(coalition, operands.design)), len(values))
    return fit_large(masks, values, operands.key, request)


def refuse(request: Request) -> str | None:
    """Why a request is not served, or None."""
    n = request.num_players
    if n > MOST_PLAYERS and INDICES[request.index].generalised:
        return f"takes at most {MOST_PLAYERS} players for {request.index}; got {n}: groups have worth, not interactions"
    return too_many(request)


def too_many(request: Request) -> str | None:
    """Why there are too many players for the order, or None."""
    most = {1: 1000, 2: 1000, 3: 60}.get(request.order, MOST_PLAYERS)
    n = request.num_players
    return f"takes at most {most} players for order {request.order}; got {n}" if n > most else None


register(
    Method(
        "gaussian-process",
        "Rasmussen and Williams, 'Gaussian Processes for Machine Learning', 2006",
        "the posterior mean of the whole game, where large sets matter less; any index is read of it",
        least=lambda request: 2 * request.num_players + 2,
        plan=plan,
        mask=mask,
        fit=fit,
        refuse=refuse,
    )
)
