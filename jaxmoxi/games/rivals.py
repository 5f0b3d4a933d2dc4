"""Two games of the same players, one for each of two classes: how far is the one ahead of the other?

Where both are the same image game with another class explained, both answers are read in the same logits, of one
forward pass. Two plain functions are called both.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from jaxmoxi.errors import InputError
from jaxmoxi.games.base import Game, Tree, ValueFn, as_game, read_each
from jaxmoxi.games.probe import check_players
from jaxmoxi.pytrees import is_concrete, record, static
from jaxmoxi.types import Readout


class Both(NamedTuple):
    """What is said about each coalition of two classes.

    target, predicted: the readout of each.
    leads: bool[C], the target leads: it is the top class, where its game can tell; else its value is the higher one.
    ahead: float32[C], the target's value less the other's.
    finer: (float32[C], float32[C]), parts of `ahead` and of the target's value that are below the rounding of
           probabilities near 1 (`Game.remainders`); None where the games cannot tell them.
    """

    target: Readout
    predicted: Readout
    leads: Bool[Array, "*C"]
    ahead: Float[Array, "*C"]
    finer: tuple[Float[Array, "*C"], Float[Array, "*C"]] | None


@record
class DifferenceGame(Game):
    """The value of the target less that of the predicted class. Made by `difference_game`.

    Its lead and probability are the target's; where the target's game cannot tell who leads, the target leads where the
    difference is above 0.
    """

    rising: Game
    falling: Game
    shared: bool = static()

    @property
    def num_players(self) -> int | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        """P, where either game knows it."""
        return self.falling.num_players if self.rising.num_players is None else self.rising.num_players

    @property
    def sized(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Whether either game gains from `max_visible`."""
        return self.rising.sized or self.falling.sized

    @property
    def num_shards(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Into how many parts a chunk of coalitions is cut."""
        return max(self.rising.num_shards, self.falling.num_shards)

    @property
    def foreign(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Whether either game runs a user's own code."""
        return self.rising.foreign or self.falling.foreign

    def readout(self, masks: Bool[Array, "C P"], *, max_visible: int | None = None) -> Readout:
        """The difference, and the target's lead and probability."""
        both = self.both(masks, max_visible)
        return Readout(both.ahead, both.leads, both.target.probabilities)

    def both(self, masks: Bool[Array, "C P"], max_visible: int | None = None) -> Both:
        """What is said of each class; of one forward pass where the games share it. Traceable."""
        one, other = ([game, fine] if (fine := game.remainders()) is not None else [game]
                      for game in (self.rising, self.falling))  # fmt: skip
        if self.shared:
            told = read_each([*one, *other], masks, max_visible)
        else:
            told = read_each(one, masks, max_visible) + read_each(other, masks, max_visible)
        (target, *low), (predicted, *high) = told[: len(one)], told[len(one) :]
        equal = target.values == predicted.values  # two infinities, which have no difference
        ahead = jnp.where(equal, 0, target.values - predicted.values)
        leads = ahead > 0 if target.leads is None else target.leads
        parts = (low[0].values - high[0].values, low[0].values) if low and high else None
        return Both(target, predicted, leads, ahead, parts)

    def player_sizes(self, num_players: int) -> Any:
        """Those of the target's game."""
        return self.rising.player_sizes(num_players)

    def player_borders(self, num_players: int) -> Any:
        """Those of the target's game."""
        return self.rising.player_borders(num_players)

    def replicate(self, tree: Tree) -> Tree:
        """As the target's game."""
        return self.rising.replicate(tree)


def difference_game(v_target: ValueFn, v_predicted: ValueFn, num_players: int) -> DifferenceGame:
    """The two games as one. Raises InputError for games of other players, payoffs or links, or of the same class."""
    rising, falling = as_game(v_target), as_game(v_predicted)
    check_players(rising, num_players)
    check_players(falling, num_players)
    for what in ("payoff", "link"):
        one, other = getattr(rising, what), getattr(falling, what)
        if one is not None and other is not None and one != other:
            raise InputError(
                f"expected two games with the same {what}, whose values can be compared; v_target has {one!r} and "
                f"v_predicted {other!r}: make both with {what}={one!r}"
            )
    differing = _differing(rising, falling)
    if differing == []:
        which = "" if rising.target is None else f", of class {int(rising.target)}"
        raise InputError(
            f"expected the games of two classes; got the same game twice{which}. Give v_target for a class that the "
            "model does not predict, and v_predicted for the class that it does (target=None)"
        )
    one, other = rising.target, falling.target
    if one is not None and other is not None and is_concrete((one, other)) and np.array_equal(one, other):
        raise InputError(
            f"expected the games of two classes; got two of class {np.asarray(one).tolist()}. Give v_target for one "
            "that the model does not predict, and v_predicted for the class that it does (target=None)"
        )
    images = [getattr(game, "image", None) for game in (rising, falling)]
    if all(image is not None and is_concrete(image) for image in images) and not _equal(*images):
        raise InputError("expected two games of the same image; got different images: make both games of one")
    target = rising.target
    shared = rising.link is not None and differing is not None and all(leaf is target for leaf in differing)
    return DifferenceGame(rising, falling, shared=shared)


def _differing(one: Game, other: Game) -> list[Any] | None:
    """The arrays of the first game that the second has not alike; None for games of different structure.

    Arrays that are traced are alike where they are one.
    """
    leaves, structure = jax.tree.flatten(one)
    others, other_structure = jax.tree.flatten(other)
    if structure != other_structure:
        return None
    return [a for a, b in zip(leaves, others, strict=True) if not (a is b or _equal(a, b))]


def _equal(a: Any, b: Any) -> bool:
    if not is_concrete((a, b)) or jnp.shape(a) != jnp.shape(b) or jnp.result_type(a) != jnp.result_type(b):
        return False
    return bool(np.array_equal(np.asarray(a), np.asarray(b)))
