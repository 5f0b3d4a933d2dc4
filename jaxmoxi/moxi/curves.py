"""Insertion and deletion curves: how the payoff and the prediction change along an order of players.

Source: Petsiuk, Das and Saenko, "RISE", BMVC 2018, as MoXI uses them: patch by patch, by the classifier's masking.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Num, Shaped

from jaxmoxi.errors import InputError, warn
from jaxmoxi.games.base import Game, ValueFn, as_game
from jaxmoxi.games.evaluation import read_generated
from jaxmoxi.pytrees import is_concrete
from jaxmoxi.regions.label_maps import check_regions, region_sizes
from jaxmoxi.types import AnyArray, Curve, Readout

Share = Literal["players", "pixels"]


def insertion_curve(
    v: ValueFn,
    order: Int[AnyArray, "P"],
    *,
    share: Share = "players",
    regions: Int[AnyArray, "H W"] | None = None,
    batch_size: int | None = None,
) -> Curve:
    """The readout while the players of `order` become visible one after the other; higher area is better.

    Endpoints: size 0 is the empty coalition (everything hidden), size P the whole image. P + 1 values. The areas are
    trapezoid sums over the share that is visible, in [0, 1].

    v:       a value function. order: int[P], a permutation of 0 .. P-1, most important first.
    share:   "players", k / P at size k; or "pixels", the share of the image's pixels that the first k players have.
             The two are the same for players of one size. Where players differ in size, as superpixels do, areas over
             players reward an order for naming large players first, and only areas over pixels compare orders fairly.
    regions: int[H, W], labels 0 .. P-1: whose pixels the players are, for share="pixels". None asks the value
             function; those of `pixel_value_fn` and `token_value_fn` know (a player of tokens has their pixels).

    Raises ValueError for an order that is not a permutation, such as that of a search which stopped early, for regions
    of other players, and where neither `regions` nor the value function tells the players' pixels.
    """
    return _curve(v, order, True, share, regions, batch_size)


def deletion_curve(
    v: ValueFn,
    order: Int[AnyArray, "P"],
    *,
    share: Share = "players",
    regions: Int[AnyArray, "H W"] | None = None,
    batch_size: int | None = None,
) -> Curve:
    """The readout while the players of `order` are hidden one after the other; lower area is better.

    Endpoints: size 0 is the whole image, size P the empty coalition; the areas are over the share that is hidden.
    Otherwise as `insertion_curve`.
    """
    return _curve(v, order, False, share, regions, batch_size)


def curve_readouts(
    v: ValueFn,
    orders: Int[AnyArray, "M P"],
    *,
    insertion: bool = True,
    sizes: Sequence[int] | None = None,
    batch_size: int | None = None,
) -> Readout:
    """The readouts along many orders of one game at once, each array [M, S]: what a comparison of methods needs.

    orders:    int[M, P], permutations of 0 .. P-1, most important first.
    insertion: True: the first players of an order are visible; False: all but them.
    sizes:     how many are inserted (deleted), S ascending numbers in 0 .. P; None means all of 0 .. P.

    A value function that gains from `max_visible` runs in four sizes, each coalition in the smallest that holds it.
    Raises ValueError for orders that are no permutations, and for sizes out of range or order.
    """
    orders = jnp.asarray(orders)
    if orders.ndim != 2:
        raise InputError(f"expected orders int[M, P]; got shape {orders.shape}: order[None] makes one of one")
    for row in orders if is_concrete(orders) else ():
        check_order(row)
    count, num_players = orders.shape
    at = np.asarray(check_sizes(sizes, num_players, least=1))
    game = as_game(v)
    ranks = jnp.argsort(orders, axis=1).astype(jnp.int32)
    visible = at if insertion else num_players - at
    limits = sorted({-(-num_players * k // 4) for k in (1, 2, 3, 4)}) if game.sized else [num_players]
    parts, places, low = [], [], -1
    for limit in limits:
        chosen = np.flatnonzero((visible > low) & (visible <= limit))
        low = limit
        if len(chosen):
            parts.append(
                read_generated(
                    game,
                    _row_along,
                    (ranks, jnp.asarray(at[chosen], jnp.int32), jnp.asarray(insertion)),
                    count=count * len(chosen),
                    num_players=num_players,
                    batch_size=batch_size,
                    max_visible=limit,
                )
            )
            places.append(chosen)
    back = np.argsort(np.concatenate(places))
    rows = [jax.tree.map(lambda x: x.reshape(count, -1), part) for part in parts]
    return jax.tree.map(lambda *xs: jnp.concatenate(xs, axis=1)[:, back], *rows)


def _row_along(
    operands: tuple[Int[Array, "M P"], Int[Array, "S"], Bool[Array, ""]], index: Int[Array, ""]
) -> Bool[Array, "P"]:
    """The first players of an order (insertion), or all but them: one program for both directions."""
    ranks, sizes, insertion = operands
    return (ranks[index // len(sizes)] < sizes[index % len(sizes)]) == insertion


def check_order(order: Int[AnyArray, "P"]) -> Int[Array, "P"]:
    """The order as int32[P].

    Raises ValueError for another shape or dtype, and for an order that is no permutation of the players 0 .. P-1. The
    values of a traced order are not known, so only its shape and dtype are checked.
    """
    order = jnp.asarray(order)
    if order.ndim != 1 or order.shape[0] < 1 or not jnp.issubdtype(order.dtype, jnp.integer):
        raise InputError(f"expected an order int[P]; got {order.dtype} of shape {list(order.shape)}")
    num_players = order.shape[0]
    if is_concrete(order) and not np.array_equal(np.sort(order), np.arange(num_players)):
        missing = num_players - len(np.intersect1d(order, np.arange(num_players)))
        raise InputError(
            f"expected a permutation of the players 0 .. {num_players - 1}; {missing} of them are missing: a search "
            "that stopped early has no complete order, run it with stop=None"
        )
    return order.astype(jnp.int32)


def check_sizes(sizes: Sequence[int] | None, num_players: int, *, least: int = 2) -> list[int]:
    """Group sizes of a curve, all of 0 .. P where None are given. Raises ValueError for fewer than `least`, 1 or 2, for
    sizes out of order, and for what are none."""
    at = np.arange(num_players + 1) if sizes is None else np.asarray(sizes)
    good = at.ndim == 1 and len(at) >= least and at.dtype.kind in "iu" and at[0] >= 0 and at[-1] <= num_players
    if not good or (np.diff(at) <= 0).any():
        some = "at least two " if least > 1 else ""
        raise InputError(f"expected {some}ascending sizes in 0 .. {num_players}; got {sizes}")
    return at.tolist()


def check_share(share: object) -> None:
    """Raises ValueError for what areas are not over."""
    if not isinstance(share, str) or share not in ("players", "pixels"):
        raise InputError(f"share must be 'players' or 'pixels'; got {share!r}")


def shares_along(order: Int[AnyArray, "*M P"], pixels: Num[AnyArray, "P"]) -> Float[Array, "*M P1"]:
    """The share of the image that the first k players of an order have, for k from 0 to P; float32[..., P+1].

    pixels: of each player, at least 0, not all 0.
    """
    taken = jnp.cumsum(jnp.take(jnp.asarray(pixels), jnp.asarray(order), axis=0), axis=-1)
    shares = jnp.asarray(taken, jnp.float32) / jnp.asarray(taken[..., -1:], jnp.float32)
    return jnp.concatenate([jnp.zeros_like(shares[..., :1]), shares], axis=-1)


def player_pixels(game: Game, num_players: int, regions: Int[AnyArray, "H W"] | None) -> Int[Array, "P"]:
    """Pixels of each player, int32[P]: of a label map, or as the game says. Raises ValueError where neither tells."""
    if regions is None:
        found = game.player_sizes(num_players)
        if found is None:
            raise InputError(
                'share="pixels" needs to know which pixels the players have, and this value function cannot tell: give '
                "regions=, the label map int[H, W] of its players"
            )
        return jnp.asarray(found)
    labels = jnp.asarray(regions)
    if labels.ndim != 2:
        raise InputError(f"expected regions int[H, W]; got shape {list(labels.shape)}")
    labels, count = check_regions(labels, *labels.shape)
    if count not in (None, num_players):
        raise InputError(f"expected regions of the {num_players} players of the order; got {count} regions")
    # Traced labels that are no players' become -1, and then nobody has a pixel: the shares are NaN.
    return jnp.where(labels.min() < 0, 0, region_sizes(labels, num_players))


def _curve(
    v: ValueFn,
    order: Int[AnyArray, "P"],
    insertion: bool,
    share: Share,
    regions: Int[AnyArray, "H W"] | None,
    batch_size: int | None,
) -> Curve:
    game, order = as_game(v), check_order(order)
    num_players = order.shape[0]
    check_share(share)
    if share == "players" and regions is not None:
        raise InputError(
            'regions tell the players\' pixels, which an area over players does not use: add share="pixels"'
        )
    pixels = jnp.ones(num_players, jnp.int32) if share == "players" else player_pixels(game, num_players, regions)
    rows = curve_readouts(game, order[None], insertion=insertion, batch_size=batch_size)
    out = jax.tree.map(lambda row: row[0], rows)
    shares = shares_along(order, pixels)
    return Curve(
        values=out.values,
        area=area_under(out.values, shares),
        leads=out.leads,
        accuracy_area=None if out.leads is None else area_under(out.leads, shares),
        probabilities=out.probabilities,
        probability_area=None if out.probabilities is None else area_under(out.probabilities, shares),
        shares=shares,
        share=share,
    )


def area_under(values: Shaped[AnyArray, "*batch S"], shares: Float[AnyArray, "*#batch S"]) -> Float[Array, "*batch"]:
    """The area under values at ascending shares, by the trapezoid rule; float32[...]."""
    return jnp.trapezoid(jnp.asarray(values, jnp.float32), jnp.asarray(shares, jnp.float32), axis=-1)


def trapezoid_area(values: Shaped[AnyArray, "P1"]) -> Float[Array, ""]:
    """The area under P + 1 equally spaced values over [0, 1], by the trapezoid rule; float32[]."""
    return area_under(values, np.linspace(0, 1, len(values)))


def warn_of_ties(scores: Num[np.ndarray, "P"], remedy: str) -> None:
    """Warns the caller's caller that an order of these scores is arbitrary among equals.

    remedy: what to do, a sentence without its full stop.
    """
    _, counts = np.unique(scores, return_counts=True)
    if (counts > 1).any():
        warn(
            f"{counts[counts > 1].sum()} of {len(scores)} players have the score of another, and stand in the order of "
            f"their indices, not of their importance: {remedy}",
            UserWarning,
        )
