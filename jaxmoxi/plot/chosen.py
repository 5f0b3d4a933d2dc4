"""Which players of a result a picture shows, and how hot each is. Nothing is drawn here."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxmoxi.errors import InputError
from jaxmoxi.metrics.curves import smallest_flip
from jaxmoxi.types import GreedyResult, Readout


def flip_size(result: GreedyResult) -> int | None:
    """How many players had been chosen when the prediction flipped, by `jaxmoxi.metrics.smallest_flip`.

    0 means that the start was already past the flip. None means that the prediction never flipped, or that the value
    function cannot tell which class leads.

    result: of one image.
    """
    if result.leads is None:
        return None
    num_players, steps = result.order.shape[0], int(result.num_steps)
    leads = np.full(num_players + 1, not result.insertion)  # sizes that were not reached do not count as a flip
    if result.start_leads is not None:  # an unknown start does not either
        leads[0] = result.start_leads
    leads[1 : steps + 1] = np.asarray(result.leads)[:steps]
    readout = Readout(values=jnp.zeros(num_players + 1), leads=jnp.asarray(leads))
    size = int(smallest_flip(readout, insertion=result.insertion))
    return size if size <= num_players else None


def heat(result: Any, num_players: int, *, upto: Any = "flip") -> np.ndarray:
    """The paper's heat of each player, float32[P] in [0, 1].

    `upto` chooses n players (see `jaxmoxi.plot.figures`). The player chosen at rank k = 0 .. n-1 has the heat
    (n - k) / n, so that the first chosen is the hottest. Other players have the heat 0.
    """
    players = chosen_players(result, num_players, upto)
    out = np.zeros(num_players, np.float32)
    out[players] = 1 - np.arange(len(players)) / max(len(players), 1)
    return out


def chosen_players(result: Any, num_players: int, upto: Any) -> np.ndarray:
    """The players that `upto` asks for, in the order chosen."""
    searched = isinstance(result, GreedyResult)
    order = np.asarray(result.order if searched else result)
    if order.ndim != 1 or not np.issubdtype(order.dtype, np.integer):
        raise InputError(f"expected the order of one image, int[P]; got {order.dtype} of shape {order.shape}")
    if searched and len(order) != num_players:
        raise InputError(f"the result orders {len(order)} players, the regions are {num_players}")
    order = order[: int(result.num_steps)] if searched else np.trim_zeros(order + 1, "b") - 1
    outside = [int(p) for p in order if not 0 <= p < num_players]
    if outside or len(np.unique(order)) != len(order):
        wrong = f"{outside[:3]}, which are none of them" if outside else "a player twice"
        raise InputError(f"expected an order of the players 0 .. {num_players - 1}; got {wrong}")
    if upto == "all":
        return order
    if upto == "flip":
        return order[: flip_size(result)] if searched else order
    if isinstance(upto, str) or not 1 <= upto <= len(order):
        raise InputError(f"expected upto of 'flip', 'all' or 1 .. {len(order)}, the players chosen; got {upto!r}")
    return order[:upto]
