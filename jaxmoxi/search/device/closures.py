"""Functions that close over arrays which are being traced, as games whose arrays are all arguments.

A `vmap` rule sees what goes into a search, and nothing that its function reads from around it.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun
from jaxtyping import Array, Bool, Float

from jaxmoxi.errors import InputError
from jaxmoxi.games.base import Game, GameWrapper, read
from jaxmoxi.games.evaluation import OUTSIDE
from jaxmoxi.pytrees import record, static
from jaxmoxi.types import Readout


@record
class Opened(GameWrapper):
    """Made by `open_closure`: the game inside, reading what it closes over from `arrays`.

    numbers: which array each thing closed over is, by its identity; they live for one trace.
    """

    v: Game
    arrays: tuple[Array, ...]
    numbers: tuple[int, ...] = static()

    def around(self, game: Game) -> Opened:
        """Another game that closes over the same."""
        return Opened(game, self.arrays, self.numbers)

    def readout(self, masks: Bool[Array, "C P"], *, max_visible: int | None = None) -> Readout:
        """The readout of the game inside."""
        return self._call(partial(read, max_visible=max_visible), masks)

    def logits(self, masks: Bool[Array, "C P"], *, max_visible: int | None = None) -> Float[Array, "C K"]:
        """The logits of the game inside."""
        return self._call(lambda game, rows: game.logits(rows, max_visible=max_visible), masks)

    def relaxed(self, gates: Float[Array, "C P"]) -> Float[Array, "C"]:
        """The payoff of the game inside at gates."""
        return self._call(lambda game, rows: game.relaxed(rows), gates)

    def blended(self, shares: Float[Array, "C H W"]) -> Readout:
        """The readout of blended images of the game inside."""
        return self._call(lambda game, rows: game.blended(rows), shares)

    def _call(self, ask: Any, rows: Array) -> Any:
        closed, shape = jax.make_jaxpr(ask, return_shape=True)(self.v, rows)
        known = dict(zip(self.numbers, self.arrays, strict=True))
        consts = [known.get(id(const), const) for const in closed.consts]
        if any(isinstance(c, Tracer) and id(c) not in known for c in closed.consts):
            raise InputError(OUTSIDE)
        out = jaxpr_as_fun(ClosedJaxpr(closed.jaxpr, consts))(*jax.tree.leaves((self.v, rows)))
        return jax.tree.unflatten(jax.tree.structure(shape), out)


def open_closure(game: Game, num_players: int) -> Game:
    """The game; `Opened`, where it reads arrays that are being traced and that it does not hold."""
    if not game.foreign:
        return game
    closed = jax.make_jaxpr(partial(read, max_visible=None))(game, jnp.ones((1, num_players), bool))
    hidden = {id(const): const for const in closed.consts if isinstance(const, Tracer)}
    return Opened(game, tuple(hidden.values()), tuple(hidden)) if hidden else game
