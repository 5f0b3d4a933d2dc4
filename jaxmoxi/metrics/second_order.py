"""Orders that take interactions into account: insertion and deletion by what players add together.

A first-order order ranks players by single numbers, and puts two players that repeat each other side by side. A
second-order one is greedy on the *surrogate*, the game that interaction values make,

    s(S) = baseline + the sum of the values of all sets within S

and so counts of each player what it adds to those that are there already. It asks the model nothing: the curves along
the order are those of the true game.

Sources: Petsiuk, Das and Saenko, "RISE", BMVC 2018, for insertion and deletion; Baniecki, Muschalik, Fumagalli,
Hammer, Hüllermeier and Biecek, "Explaining Similarity in Vision-Language Encoders with Weighted Banzhaf Interactions",
NeurIPS 2025 (FIxLIP), for orders by a reconstruction of order two.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxmoxi.errors import InputError, warn
from jaxmoxi.games.base import ValueFn
from jaxmoxi.guards import deliberate
from jaxmoxi.interactions.result import Interactions
from jaxmoxi.moxi.curves import Share, deletion_curve, insertion_curve
from jaxmoxi.pytrees import is_concrete
from jaxmoxi.types import AnyArray, Curve

# Of these the values of sets do not add up to a game: what a pair adds is in the values of its players already, or the
# value is not of a coalition's own gains.
_NO_GAME = ("SII", "BII", "CHII", "Co-Moebius", "SGV", "BGV")


@deliberate
def interaction_order(x: Interactions, *, insertion: bool = True) -> Int[Array, "P"]:
    """The players in the order in which the surrogate of `x` is filled, or emptied, fastest; int32[P], best first.

    x:         the values of an index, of any order, as `jm.interactions.exact` and `estimate` give them. "k-SII",
               "STII", "FSII", "FBII" and "Moebius" are made to add up to the game. "SII" and others whose sets count
               twice what lies in smaller ones do not, and a warning says so where there are sets of two and more.
    insertion: at each step comes the player that adds most to the surrogate of those that are there. False: from
               everybody, at each step goes the player whose removal lowers it most.

    Sets of "OR" count as `x.reconstruct` counts them, as soon as one member is there. With an order of 1 the result is
    the first-order order, by the values of single players. Equal gains go to the lowest index, as in
    `jm.greedy_insertion`, which asks the true game P(P + 1) / 2 times for what is asked of the surrogate here.

    Takes O(P^3) operations of matrix products at order 2 (196 players in milliseconds), O(P M) for M sets of more.
    Goes under `jit` and `vmap`. Raises ValueError for what is no single result, and outside `jit` for NaN.
    """
    check_result(x)
    if x.order > 1 and x.index in _NO_GAME:
        warn(
            f"the values of {x.index} do not add up to a game, as a set's value is counted in other sets too: an order "
            'by what players add together takes "k-SII", "STII", "FSII", "FBII" or "Moebius"'
        )
    if x.sets.shape[1] <= 2 and x.index != "OR":
        return _order_of_pairs(x.sets, x.values, x.num_players, insertion)
    return _order_of_sets(x.sets, x.values, x.num_players, insertion, x.index == "OR")


@deliberate
def second_order_insertion(
    v: ValueFn,
    x: Interactions,
    *,
    share: Share = "players",
    regions: Int[AnyArray, "H W"] | None = None,
    batch_size: int | None = None,
) -> Curve:
    """The insertion curve of the game along `interaction_order(x)`; a higher area is better.

    v: the true game, which the curve is of: P + 1 evaluations. x: interaction values of its players, of any order.
    share, regions, batch_size: as `jm.insertion_curve` takes them.

    To be compared with the first-order order of the same values, `jm.insertion_curve(v, order)` with
    `order = jm.attribution.order_of(x.first_order())`, and with that of Shapley values, `interaction_order` of "SV".
    Mean areas under the probability of 36 games of real images (9 to 16 regions, exact values):

        order                      Shapley   k-SII, singles   k-SII   FSII    STII    MoXI (asks the game)
        insertion (higher)         0.707     0.649            0.706   0.715   0.728   0.743
        deletion (lower)           0.205     0.246            0.202   0.206   0.212   0.210

    So the pairs of an index are needed where its single values stand for single players alone; against Shapley values,
    which hold a share of every interaction already, an order of two gains a little in insertion, and nothing that is
    sure in deletion.

    Raises ValueError as `interaction_order` and `jm.insertion_curve` do.
    """
    return insertion_curve(v, interaction_order(x), share=share, regions=regions, batch_size=batch_size)


@deliberate
def second_order_deletion(
    v: ValueFn,
    x: Interactions,
    *,
    share: Share = "players",
    regions: Int[AnyArray, "H W"] | None = None,
    batch_size: int | None = None,
) -> Curve:
    """The deletion curve of the game along `interaction_order(x, insertion=False)`; a lower area is better.

    Otherwise as `second_order_insertion`.
    """
    order = interaction_order(x, insertion=False)
    return deletion_curve(v, order, share=share, regions=regions, batch_size=batch_size)


def check_result(x: Interactions, name: str = "x") -> None:
    """Raises InputError unless this is one result of `jaxmoxi.interactions`, of numbers where they can be looked at."""
    if not isinstance(x, Interactions):
        raise InputError(f"expected {name} of jaxmoxi.interactions, such as exact(v, P); got {type(x).__name__}")
    if x.sets.ndim != 2 or x.values.shape != x.sets.shape[:1]:
        raise InputError(
            f"expected one result, sets int[M, order] and values float[M]; got {name} with shapes "
            f"{list(x.sets.shape)} and {list(x.values.shape)}: jax.vmap takes several"
        )
    if is_concrete(x) and bool(np.isnan(x.values).any()):
        row = np.asarray(x.sets)[int(np.argmax(np.isnan(x.values)))]
        raise InputError(f"the value of the set {[int(i) for i in row if i >= 0]} in {name} is NaN")


@partial(jax.jit, static_argnums=(2, 3))
def _order_of_pairs(
    sets: Int[Array, "M order"], values: Float[Array, "M"], num_players: int, insertion: bool
) -> Int[Array, "P"]:
    """`interaction_order` of sets of one and two players: what a player adds is a row of a matrix."""
    first = jnp.max(sets, axis=1)
    second = jnp.where(jnp.min(sets, axis=1) < 0, first, jnp.min(sets, axis=1))
    full = jnp.zeros((num_players, num_players), values.dtype)
    full = full.at[first, second].add(jnp.where(first < 0, 0, values))
    full = full + full.T  # the diagonal is doubled
    alone, pairs = jnp.diagonal(full) / 2, jnp.fill_diagonal(full, 0, inplace=False)

    def gains(present: Bool[Array, "P"]) -> Float[Array, "P"]:
        return alone + jnp.matmul(pairs, present.astype(pairs.dtype), precision="highest")

    return _filled(gains, num_players, insertion)


@partial(jax.jit, static_argnums=(2, 3, 4))
def _order_of_sets(
    sets: Int[Array, "M order"], values: Float[Array, "M"], num_players: int, insertion: bool, meets: bool
) -> Int[Array, "P"]:
    """`interaction_order` of sets of any size: those count of which only the player itself is missing, or to leave.

    meets: a set counts as soon as one member is there, so what a player brings are the sets that nobody has met.
    """
    where = jnp.where(sets < 0, num_players, sets)
    sizes = jnp.sum(sets >= 0, axis=1)
    level = jnp.zeros_like(sizes) if meets else sizes - 1  # how many are there before the player comes
    level = level if insertion else level + 1

    def gains(present: Bool[Array, "P"]) -> Float[Array, "P"]:
        there = jnp.append(present, False)[where].sum(axis=1)
        moved = jnp.where(there == level, values, 0)
        shape = jnp.zeros(num_players + 1, values.dtype)
        return shape.at[where].add(jnp.broadcast_to(moved[:, None], where.shape))[:num_players]

    return _filled(gains, num_players, insertion)


def _filled(gains: Callable[[Array], Array], num_players: int, insertion: bool) -> Int[Array, "P"]:
    """Players one by one, each time the one of the largest gain: into nobody, or out of everybody."""

    def step(present: Bool[Array, "P"], _: None) -> tuple[Bool[Array, "P"], Int[Array, ""]]:
        free = present != insertion
        best = jnp.argmax(jnp.where(free, gains(present), -jnp.inf)).astype(jnp.int32)
        return present.at[best].set(insertion), best

    return jax.lax.scan(step, jnp.full(num_players, not insertion), length=num_players)[1]
