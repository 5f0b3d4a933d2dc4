"""What a search asks of a forward pass, on the host as on the device.

A group's rank may be by another payoff than the game's own: how far the class's logit is ahead of the next. MoXI's
greedy steps compare the game's own payoff, of probabilities the remainders. All of these come from the same logits, so
that one forward pass answers every question that a search has about a coalition.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxmoxi.games.base import Game, read_each
from jaxmoxi.types import Stop

_MOST = 1e30


class Told(NamedTuple):
    """What one forward pass says about each coalition, for a search.

    values, leads, probabilities: as in `Readout`; the values are of the payoff that ranks, in -1e30 .. 1e30.
    own:   float32[C], the game's own payoff.
    finer: float32[C], what greedy compares: the remainders (`Game.remainders`) where they are asked for, else `own`; in
           -1e30 .. 1e30.
    """

    values: Float[Array, "*C"]
    leads: Bool[Array, "*C"] | None
    probabilities: Float[Array, "*C"] | None
    own: Float[Array, "*C"]
    finer: Float[Array, "*C"]


class Reader(NamedTuple):
    """How coalitions are read. Static under `jit`.

    margin: rank by the payoff "margin" where the game has it.
    finer:  tell the remainders.
    """

    margin: bool = False
    finer: bool = False

    def __call__(self, game: Game, masks: Bool[Array, "C P"], max_visible: int | None) -> Told:
        """One chunk through the game. Traceable."""
        ranking = game.with_payoff("margin") if self.margin else None
        remainders = game.remainders() if self.finer else None
        games = [game] + [other for other in (ranking, remainders) if other is not None]
        own, *others = read_each(games, masks, max_visible)
        ranked = own if ranking is None else others[0]
        finer = own.values if remainders is None else others[-1].values
        told = Told(*ranked, own=own.values, finer=bounded(finer, jnp))
        return told._replace(values=bounded(told.values, jnp))


def reader_of(game: Game, goal: Stop | None, *, greedy: bool = False) -> Reader:
    """How a search for this goal reads the game; `greedy`: whether it takes MoXI's steps."""
    margin = goal is not None and bool(goal.flip) and game.with_payoff("margin") is not None
    return Reader(margin=margin, finer=greedy and game.remainders() is not None)


def bounded(payoffs: Any, xp: Any) -> Any:
    """Payoffs in -1e30 .. 1e30, of NumPy or JAX: searches compare differences, and inf - inf is none. NaN stays."""
    return xp.clip(payoffs, -_MOST, _MOST)
