"""The contract: everything that a game may answer, and the one door through which a plain function becomes a game.

A *value function* is any callable `masks bool[C, P] -> values float32[C]`, where True means that a player is visible.
`Game` declares what else a game may answer, each with a default. Public functions take a `ValueFn` and call `as_game`
once; below them everything is a `Game`, and nothing is looked up by name.

A user's own value function may offer any of these without subclassing `Game`: `as_game` looks for the same names.
Games are pytrees (arrays are leaves, code is static structure), so one compiled search serves every image and every
set of weights of the same shapes. A value never depends on what else is in the batch.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxmoxi.errors import InputError
from jaxmoxi.games.payoff import Link, Payoff
from jaxmoxi.pytrees import Packed, is_array, pack, record, static
from jaxmoxi.types import Readout

Tree = TypeVar("Tree")


@runtime_checkable
class ValueFn(Protocol):
    """`masks bool[C, P] -> values float32[C]`, True = visible; see `jaxmoxi.games.base` for what else it may offer."""

    def __call__(self, masks: Bool[Array, "C P"], /) -> Float[Array, "C"]: ...


class Game:
    """Everything that a game may answer. A subclass defines `readout`, and of the rest what it can.

    num_players: P, where the game knows it; None accepts any number of players.
    sized:       the game gains from `max_visible`: searches then run cheap, small evaluations first.
    num_shards:  into how many equal parts, on as many devices, a chunk of coalitions is cut.
    payoff:      the payoff that the values are, where they come from a classifier's logits; else None.
    target:      int32[], the class explained; None where the game has no classes.
    link:        what makes probabilities of the logits, where the game answers `logits`; else None.
    foreign:     the game runs a user's own code, so that doors check whether a value depends on its coalition alone.
    compiles:    what the game answers follows from its arrays and this package's code, so that what is asked outside
                 `jit` is compiled once. A user's own function may look at anything, and is run as it is.
    gated:       the game answers `relaxed`.
    blends:      the game answers `blended`: its players are pixels, between an image and a fill.
    """

    num_players: int | None = None
    sized: bool = False
    num_shards: int = 1
    payoff: Payoff | None = None
    target: Int[Array, "*batch"] | None = None
    link: Link | None = None
    foreign: bool = False
    compiles: bool = False
    gated: bool = False
    blends: bool = False

    def readout(self, masks: Bool[Array, "C P"], *, max_visible: int | None = None) -> Readout:
        """Value, lead and probability of each coalition from one forward pass; the only method that must be there.

        max_visible: a static promise that no row shows more than so many players.
        """
        raise TypeError(f"{type(self).__name__} is a game without values: it must define readout")

    def __call__(self, masks: Bool[Array, "C P"], *, max_visible: int | None = None) -> Float[Array, "C"]:
        """The payoff of each coalition, float32[C]."""
        return self.readout(masks, max_visible=max_visible).values

    def leads(self, masks: Bool[Array, "C P"], *, max_visible: int | None = None) -> Bool[Array, "C"]:
        """Whether the model answers the explained class, bool[C]. Raises InputError where the game cannot tell."""
        leads = self.readout(masks, max_visible=max_visible).leads
        if leads is None:
            raise InputError("this game cannot tell who leads: its value function has neither leads nor readout")
        return leads

    def probabilities(self, masks: Bool[Array, "C P"], *, max_visible: int | None = None) -> Float[Array, "C"]:
        """The explained class's probability, float32[C] in [0, 1]. Raises InputError where the game cannot tell."""
        probabilities = self.readout(masks, max_visible=max_visible).probabilities
        if probabilities is None:
            raise InputError("this game cannot tell probabilities: its value function has no readout that does")
        return probabilities

    def logits(self, masks: Bool[Array, "C P"], *, max_visible: int | None = None) -> Float[Array, "C K"]:
        """The classifier's logits for each coalition, float32[C, K]. Raises InputError for a game without them."""
        raise InputError(f"this game ({type(self).__name__}) has no logits; those of pixel_value_fn and "
                         "token_value_fn have")  # fmt: skip

    def read(self, logits: Float[Array, "C K"]) -> Readout | None:
        """What rows of the game's own `logits` say; None for a game whose answers are not made of logits alone.

        Games that differ in their payoff alone then share one forward pass.
        """
        return None

    def relaxed(self, gates: Float[Array, "C P"]) -> Float[Array, "C"]:
        """The payoff with players that are partly there, float32[C]; differentiable in the gates.

        gates: float32[C, P] in [0, 1], at 0 and 1 the payoff of the masks. Raises InputError unless `gated`.
        """
        raise InputError(
            "the gradient needs a value function with `relaxed(gates float32[C, P]) -> float32[C]`, such as those of "
            "token_value_fn and pixel_value_fn"
        )

    def blended(self, shares: Float[Array, "C H W"]) -> Readout:
        """The readout of images between the fill (share 0 of a pixel) and the image (1). InputError unless `blends`."""
        raise InputError("this game hides no pixels; the games of pixel_value_fn do")

    def player_sizes(self, num_players: int) -> Int[Array, "P"] | None:
        """How much of the image each of the players is, int32[P], in pixels or tokens; None where the game has none."""
        return None

    def player_borders(self, num_players: int) -> Int[Array, "P P"] | None:
        """The length of the border between each two players, int32[P, P], 0 for those that are no neighbours.

        In pixels or tokens; None where the game has no neighbours, or cannot tell inside `jit`.
        """
        return None

    def with_payoff(self, payoff: Payoff) -> Game | None:
        """The same game under another payoff; None where it has no other."""
        return None

    def remainders(self) -> Game | None:
        """The same game, whose values are probabilities less the nearer of 0 and 1; None where it cannot tell them.

        For games whose values are probabilities. Up to a half the value is p, above it p - 1, with its sign bit set
        even where it is 0 (`payoff.probability_remainders`). What it tells beside its values stays as it is.
        """
        return None

    def spread(self, game: Game) -> Game:
        """Another game, its coalitions spread over devices as those of this one are: over one, as it is."""
        return game

    def replicate(self, tree: Tree) -> Tree:
        """Arrays that meet this game in a compiled program, where that program leaves what it returns."""
        return tree


class GameWrapper(Game):
    """A game around a game, `v`. It answers whatever the game inside answers; a subclass overrides what differs."""

    v: Game

    @property
    def num_players(self) -> int | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        """P, where the game inside knows it."""
        return self.v.num_players

    @property
    def sized(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Whether the game inside gains from `max_visible`."""
        return self.v.sized

    @property
    def num_shards(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Into how many parts the game inside cuts a chunk of coalitions."""
        return self.v.num_shards

    @property
    def payoff(self) -> Payoff | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The payoff of the game inside."""
        return self.v.payoff

    @property
    def target(self) -> Int[Array, "*batch"] | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The class that the game inside explains."""
        return self.v.target

    @property
    def link(self) -> Link | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        """What makes probabilities of the logits of the game inside."""
        return self.v.link

    @property
    def foreign(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Whether the game inside runs a user's own code."""
        return self.v.foreign

    @property
    def compiles(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Whether the game inside compiles."""
        return self.v.compiles

    @property
    def gated(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Whether the game inside answers `relaxed`."""
        return self.v.gated

    @property
    def blends(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Whether the game inside answers `blended`."""
        return self.v.blends

    def readout(self, masks: Bool[Array, "C P"], *, max_visible: int | None = None) -> Readout:
        """The readout of the game inside."""
        return self.v.readout(masks, max_visible=max_visible)

    def logits(self, masks: Bool[Array, "C P"], *, max_visible: int | None = None) -> Float[Array, "C K"]:
        """The logits of the game inside."""
        return self.v.logits(masks, max_visible=max_visible)

    def read(self, logits: Float[Array, "C K"]) -> Readout | None:
        """What the game inside reads in logits."""
        return self.v.read(logits)

    def relaxed(self, gates: Float[Array, "C P"]) -> Float[Array, "C"]:
        """The payoff at gates, of the game inside."""
        return self.v.relaxed(gates)

    def blended(self, shares: Float[Array, "C H W"]) -> Readout:
        """The readout of blended images, of the game inside."""
        return self.v.blended(shares)

    def player_sizes(self, num_players: int) -> Int[Array, "P"] | None:
        """The sizes of the players of the game inside."""
        return self.v.player_sizes(num_players)

    def player_borders(self, num_players: int) -> Int[Array, "P P"] | None:
        """The borders between the players of the game inside."""
        return self.v.player_borders(num_players)

    def with_payoff(self, payoff: Payoff) -> Game | None:
        """The same wrapper around the game inside under another payoff; None where that game has no other."""
        inner = self.v.with_payoff(payoff)
        return None if inner is None else self.around(inner)

    def remainders(self) -> Game | None:
        """The same wrapper around the remainders of the game inside; None where that game cannot tell them."""
        inner = self.v.remainders()
        return None if inner is None else self.around(inner)

    def around(self, game: Game) -> Game:
        """The same wrapper around another game."""
        raise TypeError(f"{type(self).__name__} must define around")

    def spread(self, game: Game) -> Game:
        """As the game inside."""
        return self.v.spread(game)

    def replicate(self, tree: Tree) -> Tree:
        """As the game inside."""
        return self.v.replicate(tree)


_OFFERS = (
    "readout", "leads", "logits", "relaxed", "with_payoff", "remainders", "target", "replicate", "player_sizes",
    "player_borders",
)  # fmt: skip


@record
class FunctionGame(Game):
    """A user's value function as a game. Made by `as_game`, which looks once at what the function offers.

    fn:     the function, its arrays as leaves.
    offers: the names it has, among those of `Game`.
    """

    fn: Packed
    num_players: int | None = static()
    sized: bool = static()
    num_shards: int = static()
    payoff: Payoff | None = static()
    blends: bool = static()
    offers: frozenset[str] = static()
    sized_leads: bool = static()
    foreign: bool = static(default=True)

    @property
    def gated(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Whether the function has `relaxed`."""
        return "relaxed" in self.offers

    @property
    def target(self) -> Int[Array, "*batch"] | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The class that the function says it explains."""
        return self._own().target if "target" in self.offers else None

    def readout(self, masks: Bool[Array, "C P"], *, max_visible: int | None = None) -> Readout:
        """What the function says of each coalition: its `readout`, or its value and its `leads`.

        Both are given the same `max_visible`, so that a compiler finds one forward pass in the two.
        """
        fn = self._own()
        size = {} if max_visible is None else {"max_visible": max_visible}
        if "readout" in self.offers:
            return fn.readout(masks, **size if self.sized else {})
        values = fn(masks, **size if self.sized else {})
        leads = fn.leads(masks, **size if self.sized_leads else {}) if "leads" in self.offers else None
        return Readout(values, leads, None)

    def logits(self, masks: Bool[Array, "C P"], *, max_visible: int | None = None) -> Float[Array, "C K"]:
        """The function's own logits."""
        if "logits" not in self.offers:
            return super().logits(masks)
        return self._own().logits(masks)

    def relaxed(self, gates: Float[Array, "C P"]) -> Float[Array, "C"]:
        """The function's own payoff at gates."""
        return self._own().relaxed(gates) if self.gated else super().relaxed(gates)

    def blended(self, shares: Float[Array, "C H W"]) -> Readout:
        """The function's own readout of blended images."""
        return self._own().blended(shares) if self.blends else super().blended(shares)

    def player_sizes(self, num_players: int) -> Int[Array, "P"] | None:
        """The sizes that the function tells, where it does."""
        return self._own().player_sizes(num_players) if "player_sizes" in self.offers else None

    def player_borders(self, num_players: int) -> Int[Array, "P P"] | None:
        """The borders that the function tells, where it does."""
        return self._own().player_borders(num_players) if "player_borders" in self.offers else None

    def with_payoff(self, payoff: Payoff) -> Game | None:
        """The function under another payoff, where it has `with_payoff`."""
        return as_game(self._own().with_payoff(payoff)) if "with_payoff" in self.offers else None

    def remainders(self) -> Game | None:
        """The remainders that the function tells, where it has `remainders`."""
        own = self._own().remainders() if "remainders" in self.offers else None
        return None if own is None else as_game(own)

    def replicate(self, tree: Tree) -> Tree:
        """As the function says, where it does."""
        return self._own().replicate(tree) if "replicate" in self.offers else tree

    def _own(self) -> Any:
        return self.fn.unpack()


def as_game(v: ValueFn) -> Game:
    """A value function as a game: the one place that looks at what a user's function offers.

    A `Game` whose leaves are arrays is returned as it is. Raises TypeError for what cannot be called.
    """
    if isinstance(v, Game) and all(is_array(leaf) for leaf in jax.tree.leaves(v)):
        return v
    packed = pack(v)
    own: Any = packed.unpack()
    leads = getattr(own, "leads", None)
    sized = bool(getattr(own, "sized", False))
    return FunctionGame(
        fn=packed,
        num_players=getattr(own, "num_players", None),
        sized=sized,
        num_shards=getattr(own, "num_shards", 1),
        payoff=getattr(own, "payoff", None),
        blends=getattr(own, "blends", False),
        offers=frozenset(name for name in _OFFERS if getattr(own, name, None) is not None),
        sized_leads=sized and leads is not None and _takes_max_visible(leads),
    )


def _takes_max_visible(method: Callable[..., Any]) -> bool:
    try:
        parameters = inspect.signature(method).parameters
    except (TypeError, ValueError):  # of a method that is not Python's
        return False
    return "max_visible" in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())


def read(game: Game, masks: Bool[Array, "C P"], max_visible: int | None) -> Readout:
    """One chunk through the game, with whatever it can tell. Traceable; no chunking, no `jit`."""
    out = game.readout(masks, max_visible=max_visible if game.sized else None)
    values = jnp.asarray(out.values)
    if values.shape != (len(masks),):
        raise InputError(
            f"a value function takes masks bool[C, P] and returns float32[C]; for {list(masks.shape)} "
            f"it returned shape {list(values.shape)}"
        )
    return out._replace(values=values.astype(jnp.float32))


def read_each(games: Sequence[Game], masks: Bool[Array, "C P"], max_visible: int | None) -> list[Readout]:
    """One chunk through games that differ in their payoff, or in the class explained, alone. Traceable.

    Of one forward pass, where they answer from logits.
    """
    first = games[0]
    if len(games) > 1 and first.link is not None:
        logits = first.logits(masks, max_visible=max_visible if first.sized else None)
        outs = [game.read(logits) for game in games]
        told = [out._replace(values=out.values.astype(jnp.float32)) for out in outs if out is not None]
        if len(told) == len(games):
            return told
    return [read(game, masks, max_visible) for game in games]


def check_num_players(game: Game, num_players: int) -> None:
    """Raises InputError if the game says how many players it has, and it is another number."""
    if not isinstance(num_players, int | np.integer) or num_players < 1:
        raise InputError(f"num_players must be an integer of at least 1; got {num_players!r}")
    if game.num_players is not None and game.num_players != num_players:
        raise InputError(
            f"the value function has {game.num_players} players; got num_players (or masks) for {num_players}"
        )
