"""Shapley values and pairwise interactions in the contexts that MoXI uses.

`v` is the value function, N all players. The *context* of a value is who else is there: nobody (self-context), all
others (full-context), or, for the Shapley value proper, every subset in its share.

Where MoXI's pairs stand among the interaction indices of `jaxmoxi.interactions`. All of them are means of one
discrete derivative, D_ij(T) = v(T + i + j) - v(T + i) - v(T + j) + v(T), over contexts T without i and j:

    pairs in self-context     T = nobody alone: the Moebius coefficient of the pair (Harsanyi's dividend)
    pairs in full context     T = all others alone: the co-Moebius coefficient
    pairs in a context T      that T alone: one term of every index below
    SII                       all sizes of T alike, and all T of a size alike
    BII                       all T alike, so that T of about half of the others count most; with p, of about a share p
    STII of order 2           size t with the weight 2 (n - 1 - t) / (n (n - 1)): small T count most
    k-SII of order 2          as SII: pairs are its largest sets, and only single players give up a share to them
    FSII of order 2           size t with the weight 6 (t + 1) (n - 1 - t) / (n (n^2 - 1)): middle sizes count most
    FBII of order 2           as BII

So the two of MoXI are the ends of what the others average over: P(P + 1) / 2 + 1 values tell them for all pairs, where
an average needs all 2^P, or a sample. Its search needs no more than an end: insertion asks what a player adds to the
group found so far where nobody else is there, deletion what the two lose together where everybody else is.

Probabilities near 1: under the payoff "prob" the games of `pixel_value_fn` and `token_value_fn` tell p - 1 to full
relative precision, and all differences here are taken of that (`jaxmoxi.games.differences`), so that a model that is
certain to 1 - 1e-9 has interactions with all their digits. A plain function of values cannot say more than float32
holds: a `RoundingWarning` tells where its differences are rounding.

Source: Sumiyasu et al., CVPR 2024, for the contexts; Grabisch and Roubens, International Journal of Game Theory 1999,
for the interaction of two players.
"""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxmoxi.errors import InputError, nan_error
from jaxmoxi.games.base import Game, ValueFn, as_game
from jaxmoxi.games.differences import Parts, read_parts, warn_of_rounding
from jaxmoxi.guards import deliberate
from jaxmoxi.pytrees import is_concrete
from jaxmoxi.types import AnyArray


@deliberate
def self_context_shapley(v: ValueFn, num_players: int, *, batch_size: int | None = None) -> Float[Array, "P"]:
    """What each player is worth alone: phi(i) = v({i}) - v({}), float32[P]. P + 1 values.

    The Moebius coefficients of single players. Warns (`RoundingWarning`) where most are below the rounding of v.
    Raises NaNValueError (outside `jit`) that names a player whose value is NaN.
    """
    return _single_context(as_game(v), num_players, jnp.zeros(num_players, bool), 1, batch_size)


@deliberate
def full_context_shapley(v: ValueFn, num_players: int, *, batch_size: int | None = None) -> Float[Array, "P"]:
    """What is lost without each player: phi(i) = v(N) - v(N - i), float32[P]. P + 1 values.

    The co-Moebius coefficients of single players. Warns (`RoundingWarning`) where most are below the rounding of v.
    Raises NaNValueError (outside `jit`) that names a player whose value is NaN.
    """
    return _single_context(as_game(v), num_players, jnp.ones(num_players, bool), num_players, batch_size)


def _single_context(
    game: Game, num_players: int, context: Bool[Array, "P"], max_visible: int, batch_size: int | None
) -> Float[Array, "P"]:
    parts = read_parts(
        game,
        _toggle_one,
        context,
        count=num_players + 1,
        num_players=num_players,
        batch_size=batch_size,
        max_visible=max_visible,
    )
    _raise_nan(parts, lambda i: f"with only player {i - 1} toggled" if i else "of the context itself")
    shapley = parts.combine(lambda x: jnp.where(context, x[0] - x[1:], x[1:] - x[0]))
    warn_of_rounding(parts, shapley, "Shapley values in context", terms=2)
    return shapley


def _toggle_one(context: Bool[Array, "P"], index: Int[Array, ""]) -> Bool[Array, "P"]:
    """Row 0 is the context, row i + 1 the context with player i joining or leaving."""
    return context ^ (jnp.arange(context.shape[0]) == index - 1)


@deliberate
def pairwise_interactions(
    v: ValueFn,
    num_players: int,
    *,
    context: Bool[AnyArray, "P"] | None = None,
    batch_size: int | None = None,
) -> Float[Array, "P P"]:
    """The interaction of every pair of players in a context T, float32[P, P], symmetric, zero on the diagonal.

        I(i, j) = v(T + i + j) - v(T + i - j) - v(T + j - i) + v(T - i - j)

    Positive: the two are worth more together than apart (they complete each other); negative: less (they repeat each
    other). In self-context this is the Moebius coefficient of each pair, in full context its co-Moebius coefficient,
    those of `jaxmoxi.interactions.exact` from 2^P values; SII, BII and the others average it over contexts (see the
    head of `jaxmoxi.moxi.contexts`).

    context: bool[P], the players present besides i and j (whether i and j themselves are marked makes no difference).
             None is the self-context, nobody; `jnp.ones(P, bool)` the full context.

    With s_i = -1 for players in T and +1 for the others, T^i for T with i joined or left, all four terms come from T
    and its neighbours: I(i, j) = s_i s_j (v(T) - v(T^i) - v(T^j) + v(T^ij)). So all pairs cost 1 + P + P(P-1)/2
    values. Cancellation: an interaction is exact to about four roundings of v, not of I; but for the payoff "prob" of
    `pixel_value_fn` and `token_value_fn`, to four roundings of the nearer of p and 1 - p. Where most interactions are
    below four roundings, and all values lie within 1,024 roundings of one another, a `RoundingWarning` says so
    (outside `jit`).

    Raises ValueError for a context that is not bool[P], NaNValueError (outside `jit`) that names a pair.
    """
    if context is None:
        context, max_visible = np.zeros(num_players, bool), 2
    else:
        context = jnp.asarray(context)
        if context.shape != (num_players,) or context.dtype != bool:
            raise InputError(f"expected a context bool[{num_players}]; got {context.dtype} of shape {context.shape}")
        # Not the context's own size: that would compile anew for every context.
        max_visible = num_players
    context = jnp.asarray(context)
    first, second = np.triu_indices(num_players, k=1)
    # Toggling "player" P toggles nobody: one table serves the context, the single players and the pairs.
    nobody = num_players
    rows = np.concatenate([[nobody], np.arange(num_players), first])
    cols = np.concatenate([[nobody], np.full(num_players, nobody), second])
    parts = read_parts(
        as_game(v),
        _toggle_two,
        (context, jnp.asarray(rows, jnp.int32), jnp.asarray(cols, jnp.int32)),
        count=len(rows),
        num_players=num_players,
        batch_size=batch_size,
        max_visible=min(max_visible, num_players),
    )
    _raise_nan(
        parts, lambda i: f"with the players {sorted({int(rows[i]), int(cols[i])} - {nobody})} toggled in the context"
    )
    sign = jnp.where(context, -1.0, 1.0)

    def derivative(x: Float[Array, "R"]) -> Float[Array, "pairs"]:
        none, single, pair = x[0], x[1 : num_players + 1], x[num_players + 1 :]
        return sign[first] * sign[second] * (none - single[first] - single[second] + pair)

    upper = parts.combine(derivative)
    warn_of_rounding(parts, upper, "pair interactions", terms=4)
    matrix = jnp.zeros((num_players, num_players)).at[first, second].set(upper)
    return matrix + matrix.T


def _toggle_two(
    operands: tuple[Bool[Array, "P"], Int[Array, "R"], Int[Array, "R"]], index: Int[Array, ""]
) -> Bool[Array, "P"]:
    context, rows, cols = operands
    players = jnp.arange(context.shape[0])
    return context ^ (players == rows[index]) ^ (players == cols[index])


def _raise_nan(parts: Parts, describe: Callable[[int], str]) -> None:
    """Raises the error for a NaN among values that can be looked at; `describe` names the coalition of a row."""
    values = parts.rest
    if is_concrete(values) and bool(jnp.isnan(values).any()):
        raise nan_error(describe(int(np.argmax(np.isnan(values)))))
