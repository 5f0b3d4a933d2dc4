"""The connected pieces of a group of players.

Two players are neighbours where their border is longer than nothing (`region_adjacency`); a *piece* of a group is a
largest part of it whose players reach each other through neighbours in the group. Players count, not pixels: a player
that itself lies in several parts of the image is one.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Int

from jaxmoxi.errors import InputError, warn
from jaxmoxi.pytrees import is_concrete
from jaxmoxi.regions.components import connected_components
from jaxmoxi.regions.label_maps import count_regions, region_adjacency, region_sizes
from jaxmoxi.types import AnyArray

Lists = Int[np.ndarray, "P D"]  # the neighbours of each player, filled up with P


@dataclasses.dataclass(frozen=True)
class Pieces:
    """What a group of players is, as `group_pieces` tells it. `str(pieces)` is "2 pieces, 14 % of the image".

    count:  how many connected pieces it has.
    share:  in [0, 1], how much of the image it is, in pixels.
    labels: int[P], the piece of each player, 0 for the one of the most pixels; -1 outside the group.
    sizes:  the number of players of each piece.
    shares: how much of the image each piece is, in [0, 1].
    """

    count: int
    share: float
    labels: Int[np.ndarray, "P"] = dataclasses.field(repr=False)
    sizes: tuple[int, ...]
    shares: tuple[float, ...]

    def __str__(self) -> str:
        return f"{self.count} piece{'' if self.count == 1 else 's'}, {percent(self.share)} of the image"


def group_pieces(group: Bool[AnyArray, "P"], regions: Int[AnyArray, "H W"]) -> Pieces:
    """The connected pieces of a group, and how much of the image they are.

    group:   bool[P], such as `GroupResult.group`.
    regions: int[H, W], labels 0 .. P-1. Regions are neighbours where pixels of theirs are, along rows and columns.

    A warning tells of a group with regions that do not hold together themselves: such a one counts as one player, in
    one piece. Raises ValueError for a group of another shape, a label map with gaps, and inside `jit`.
    """
    if not is_concrete((group, regions)):
        raise InputError("group_pieces counts pieces on the host and needs a group that is known; call it outside jit")
    regions = np.asarray(regions)
    if regions.ndim != 2 or not regions.size or not np.issubdtype(regions.dtype, np.integer):
        raise InputError(
            f"expected regions of integers [H, W], with pixels; got {regions.dtype} of shape {regions.shape}"
        )
    num_players = count_regions(regions)
    chosen = np.asarray(group)
    if chosen.shape != (num_players,) or chosen.dtype != bool:
        raise InputError(
            f"expected a group bool[{num_players}], one entry for each region; got {chosen.dtype} of shape "
            f"{chosen.shape}"
        )
    roots = piece_roots(chosen[None], neighbour_lists(np.asarray(region_adjacency(regions, num_players)) > 0))[0]
    pixels = np.asarray(region_sizes(regions, num_players))
    members = [np.flatnonzero(roots == root) for root in np.unique(roots[chosen])]
    members.sort(key=lambda players: -int(pixels[players].sum()))
    labels = np.full(num_players, -1)
    for number, players in enumerate(members):
        labels[players] = number
    _warn_of_parts(chosen, regions)
    return Pieces(
        count=len(members),
        share=float(pixels[chosen].sum() / regions.size),
        labels=labels,
        sizes=tuple(len(players) for players in members),
        shares=tuple(float(pixels[players].sum() / regions.size) for players in members),
    )


def check_neighbours(neighbours: Any, num_players: int) -> Bool[np.ndarray, "P P"]:
    """Who is whose neighbour, bool[P, P]. Raises InputError unless it is a symmetric matrix of bools or lengths >= 0.

    The diagonal says nothing.
    """
    matrix = np.asarray(neighbours)
    if matrix.shape != (num_players, num_players) or matrix.dtype.kind not in "biuf":
        raise InputError(
            f"expected neighbours [{num_players}, {num_players}], True (or a border's length) where two players are "
            f"neighbours, such as jm.region_adjacency(regions, {num_players}); got {matrix.dtype} of shape "
            f"{list(matrix.shape)}"
        )
    if matrix.dtype != bool and not (np.isfinite(matrix).all() and (matrix >= 0).all()):
        raise InputError("neighbours are bools, or the lengths of borders, finite and at least 0; got others")
    near = (matrix > 0) & ~np.eye(num_players, dtype=bool)
    if not np.array_equal(near, near.T):
        one, other = np.argwhere(near != near.T)[0]
        raise InputError(
            f"expected neighbours that are symmetric; player {one} and player {other} are neighbours in one direction "
            "alone: give neighbours | neighbours.T"
        )
    return near


def neighbour_lists(near: Bool[np.ndarray, "P P"]) -> Lists:
    """The neighbours of each player in a row, filled up with P, from a matrix without a diagonal."""
    counts = near.sum(1)
    order = np.argsort(~near, axis=1, kind="stable")[:, : int(counts.max(initial=0))]
    return np.where(np.arange(order.shape[1]) < counts[:, None], order, len(near))


def piece_roots(groups: Bool[np.ndarray, "C P"], lists: Lists) -> Int[np.ndarray, "C P"]:
    """The first player of the piece of each member of each group; P outside the group."""
    num_players = groups.shape[1]
    rows = np.arange(len(groups))[:, None]
    roots = np.full((len(groups), num_players + 1), num_players)
    roots[:, :-1] = np.where(groups, np.arange(num_players), num_players)
    while True:
        low = roots.copy()
        for column in lists.T:
            np.minimum(low[:, :-1], roots[:, column], out=low[:, :-1])
        low[:, :-1][~groups] = num_players
        low = low[rows, low]  # a root is a member, whose own root may be lower
        if np.array_equal(low, roots):
            return roots[:, :-1]
        roots = low


def count_pieces(groups: Bool[np.ndarray, "C P"], lists: Lists) -> Int[np.ndarray, "C"]:
    """How many connected pieces each group has."""
    return (piece_roots(groups, lists) == np.arange(groups.shape[1])).sum(1)


def _warn_of_parts(group: Bool[np.ndarray, "P"], regions: Int[np.ndarray, "H W"]) -> None:
    parts = np.asarray(connected_components(jnp.asarray(regions))).ravel()
    firsts = np.unique(parts)  # a pixel of every part
    counts = np.bincount(regions.ravel()[firsts], minlength=len(group))
    torn = np.flatnonzero(group & (counts > 1)).tolist()
    if torn:
        warn(
            f"{len(torn)} of the group's regions lie in several parts of the image (region {torn[0]} in "
            f"{counts[torn[0]]}) and count as one piece each: more pieces are seen than counted"
        )


def percent(share: float) -> str:
    """A share in [0, 1] as a text: "14 %"."""
    return f"{100 * share:.0f} %" if share == 0 or share >= 0.01 else f"{100 * share:.1f} %"
