"""Groups that lie together: few connected pieces, for a few players more.

A search that looks at values alone scatters its group over the image, where nobody can read it. `connect` takes such a
group, and looks for one that reaches the same goal in fewer pieces. For the most pieces allowed, then for fewer and
fewer, as long as the group found is not too large:

1. *Starts*: the pieces of the group joined by the fewest players between them; its best pieces alone, grown along their
   borders until they are enough; a group grown from nobody; everybody, pruned.
2. *Prune*: players are taken away, several at a time, while the rest is enough and has no piece too many.
3. *Exchange*: one player too many is taken away; players are exchanged, mostly for neighbours of the group, until it is
   enough again. Stuck, it starts again from a disturbed group, as `climb` does.

Every group is judged by the search's own oracle; one with too many pieces costs nothing.

Sources: joining by the closest pairs: Takahashi and Matsuyama, "An approximate solution for the Steiner problem in
graphs", 1980; connected subgraphs that score best: Ideker et al., Bioinformatics 2002; what `climb` names.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Bool

from jaxmoxi.errors import InputError, warn
from jaxmoxi.games.base import Game
from jaxmoxi.games.evaluation import OUTSIDE, TracedError
from jaxmoxi.games.robust import borders_of
from jaxmoxi.pytrees import is_concrete
from jaxmoxi.regions.pieces import Lists, check_neighbours, neighbour_lists
from jaxmoxi.search.linker import Linker
from jaxmoxi.search.oracle import Oracle
from jaxmoxi.search.shared import within

Group = Bool[np.ndarray, "P"]

CONNECTED_OUTSIDE = f"connected groups are searched on the host. {OUTSIDE}"


@dataclasses.dataclass(frozen=True, eq=False)
class Connected:
    """The wish for a group of few connected pieces, as `minimal_group(..., connected=Connected(...))` takes it.

    neighbours: [P, P], symmetric, True or the length of a border where two players are neighbours, as
                `jm.region_adjacency(regions, P)` makes it. None asks the value function, which those of images can
                answer: regions are neighbours where pixels of theirs are, tokens where they touch, along rows and
                columns.
    max_pieces: the most pieces that the group may have, at least 1.
    extra:      how many more players, as a share of those that the group has without this wish, fewer pieces still may
                cost; at least 0. Below `max_pieces` pieces are only saved within it; `max_pieces` is kept at any cost.
    """

    neighbours: Any = None
    max_pieces: int = 3
    extra: float = 0.25


@dataclasses.dataclass(frozen=True)
class Wish:
    """A `Connected` that was checked."""

    lists: Lists
    max_pieces: int
    extra: float


def check_connected(connected: Connected | bool, games: Sequence[Game], num_players: int) -> Wish | None:
    """The wish for a connected group of players of these games; None without it. Raises InputError before the search.

    A traced game cannot be connected: the pieces are found on the host.
    """
    if isinstance(connected, bool | np.bool_):
        if not connected:
            return None
        connected = True
    wish = Connected() if connected is True else connected
    if not isinstance(wish, Connected):
        raise InputError(
            f"expected connected of True, False or jm.search.Connected(...); got {type(wish).__name__}: write "
            "Connected(max_pieces=1) for a number of pieces, Connected(neighbours=...) for your own neighbours"
        )
    most, extra = wish.max_pieces, wish.extra
    if isinstance(most, bool) or not isinstance(most, int | np.integer) or most < 1:
        raise InputError(f"max_pieces is a number of pieces, at least 1; got {most!r}")
    if isinstance(extra, bool) or not isinstance(extra, int | float | np.number) or not 0 <= extra < math.inf:
        raise InputError(f"extra is a share of the group's players, finite and at least 0; got {extra!r}")
    if not is_concrete(games):
        raise TracedError(CONNECTED_OUTSIDE)
    neighbours = borders_of(games, num_players) if wish.neighbours is None else wish.neighbours
    if neighbours is None:
        raise InputError(
            "this value function does not tell which players are neighbours (those of pixel_value_fn and "
            f"token_value_fn do): give connected=jm.search.Connected(jm.region_adjacency(regions, {num_players}))"
        )
    if not is_concrete(neighbours):
        raise TracedError(CONNECTED_OUTSIDE)
    return Wish(neighbour_lists(check_neighbours(neighbours, num_players)), int(most), float(extra))


def halves(limit: int, budget: int | None) -> tuple[int, int]:
    """The evaluations at which the search without regard to pieces ends, and at which that for few pieces does.

    limit: what the budget stands for; one that nobody gave is doubled, one that was given is shared.
    """
    return (limit, 2 * limit) if budget is None else (limit // 2, limit)


def connect(oracle: Oracle, group: Group, wish: Wish, limit: int) -> tuple[Group, int]:
    """A group that is enough, in few pieces, and how many pieces it has; from one that is enough.

    limit: the number of evaluations, over all that the oracle made, that ends the exchanges. Joining the group's pieces
           and taking single players away is done whatever the limit.

    No player can be taken away such that the rest is enough and has no more pieces than the group.
    """
    oracle.ask(group[None])  # an oracle of several games counts as it is asked
    free, best = Linker(oracle, wish.lists, len(group)), None
    pieces = free.pieces(group)
    if pieces <= 1:
        return group, pieces
    if pieces <= wish.max_pieces:
        best = group
    players = math.floor((1 + wish.extra) * int(group.sum()) + 1e-9)
    while pieces > 1 and (best is None or best.sum() <= players):
        most = min(wish.max_pieces, pieces - 1)
        left = max(0, limit - oracle.count)
        linker = Linker(oracle, wish.lists, most)
        stop = oracle.count + (left if best is None else left // 2)
        other = _search(linker, group if best is None else best, stop, players, needed=best is None)
        if other is None or (best is not None and other.sum() > players):
            break
        best, pieces = other, linker.pieces(other)
    if best is None:
        warn(
            f"no group along the way is enough in at most {wish.max_pieces} pieces: the group found without regard to "
            f"pieces is returned, which has {pieces}"
        )
        return group, pieces
    linker = Linker(oracle, wish.lists, free.pieces(best))
    best = linker.smallest(linker.shrink(best, limit, goal=0), limit)
    return best, linker.pieces(best)


def _search(linker: Linker, group: Group, limit: int, goal: int, *, needed: bool) -> Group | None:
    """A group that is enough in the pieces allowed, of at most `goal` players if the search gets there; None without.

    needed: look for one whatever the limit.
    """
    oracle, found = linker.oracle, []

    def add(start: Group | None) -> None:
        if start is not None:
            found.append(linker.prune(start))

    def rest() -> bool:
        for make in (partial(linker.kept, group), partial(linker.grown, np.zeros_like(group)), linker.everybody):
            add(make())
        return True

    if needed:
        add(linker.joined(group))
    else:
        within(oracle, limit, lambda: add(linker.joined(group)) or True)
    within(oracle, limit, rest)
    if not found and needed:
        add(linker.everybody())
    if not found:
        return None
    found.sort(key=lambda one: int(one.sum()))
    return linker.smallest(linker.shrink(found[0], limit, goal=goal), limit)
