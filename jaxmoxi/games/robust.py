"""Several games of the same players as one: a group that holds in it holds in the worst of them, or on average.

A game hides players in one way. What a model then answers is partly the answer to that way, so a group found in one
game may fail in the next. The least value of several games is itself a game, and every search of this package finds
groups that are sufficient in all of them.

Source: sufficiency under one fill, under a distribution of what is hidden, and under the worst of it are three notions:
Wäldchen, Macdonald, Hauch and Kutyniok, "The computational complexity of understanding binary classifier decisions",
JAIR 2021 (the second); Marques-Silva and Ignatiev, "Delivering trustworthy AI through formal XAI", AAAI 2022 (the
third). Here the distribution, or the set, is a finite list of games.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxmoxi.compiling import compiled
from jaxmoxi.errors import InputError
from jaxmoxi.games.base import Game, Tree, ValueFn, as_game, read
from jaxmoxi.games.payoff import Link, Payoff
from jaxmoxi.pytrees import Merge, is_concrete, record, signature, split_games, static
from jaxmoxi.types import Readout

Reduce = Literal["min", "mean", "max"]


@record
class Stack:
    """Games of one structure and the same shapes: arrays that all share once, the others along a first axis."""

    shared: tuple[Any, ...]
    own: tuple[Any, ...]
    merge: Merge = static()
    count: int = static()

    @classmethod
    def of(cls, games: Sequence[Game]) -> Stack:
        """The stack of some games."""
        shared, own, merge = split_games(games)
        return cls(tuple(shared), tuple(own), merge, len(games))

    def game(self, number: int) -> Game:
        """One of the games."""
        return self.merge(self.shared, [x[number] for x in self.own])

    @property
    def kind(self) -> Game:
        """A game that answers what is static as each of them does; its arrays are the stacked ones."""
        return self.merge(self.shared, self.own)

    def ask(self, question: Callable[[Game], Any]) -> Any:
        """What each game answers, along a first axis, in one pass."""
        if not self.own:  # of one game, or of one game several times
            answer = question(self.kind)
            return jax.tree.map(lambda x: jnp.broadcast_to(x, (self.count, *x.shape)), answer)
        return jax.vmap(lambda own: question(self.merge(self.shared, own)))(self.own)

    def changed(self, change: Callable[[Game], Game | None]) -> Stack | None:
        """The stack of the games after a change; None where one of them cannot be changed so."""
        before = self.game(0)
        first = change(before)
        if first is None:
            return None
        leaves, known = jax.tree.leaves(first), jax.tree.leaves(before)
        if len(leaves) == len(known) and all(a is b for a, b in zip(leaves, known, strict=True)):
            merge = Merge(self.merge.key[0], jax.tree.structure(first))  # only what is static differs
            return dataclasses.replace(self, merge=merge)
        others = [change(self.game(i)) for i in range(1, self.count)]
        games = [first] + [game for game in others if game is not None]
        return Stack.of(games) if len(games) == self.count else None


@record
class RobustValueFn(Game):
    """Made by `robust_value_fn`: several games of the same players as one.

    Beyond what a game answers, `games` are the games and `each` is what every one of them says.
    """

    stacks: tuple[Stack, ...]
    agree: Bool[Array, "*batch"] | None  # of targets that were traced when they met: whether they are one class
    places: tuple[int, ...] = static()  # where each game stands among those of the stacks
    reduce: Reduce = static()
    remainder: bool = static(default=False)  # whether values are probabilities less the nearer of 0 and 1

    @property
    def games(self) -> list[Game]:
        """The games, in the order in which they were given."""
        found = [stack.game(i) for stack in self.stacks for i in range(stack.count)]
        return [found[place] for place in self.places]

    @property
    def num_players(self) -> int | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        """P, where one of the games knows it."""
        return next((g.num_players for g in self._kinds if g.num_players is not None), None)

    @property
    def sized(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Whether all games gain from `max_visible`."""
        return all(g.sized for g in self._kinds)

    @property
    def num_shards(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Into how many parts a chunk of coalitions is cut: 1, unless the games themselves are spread over devices."""
        return max(g.num_shards for g in self._kinds)

    @property
    def payoff(self) -> Payoff | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The payoff of all games."""
        return self._kinds[0].payoff

    @property
    def target(self) -> Int[Array, "*batch"] | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The class that all games explain."""
        return self.stacks[0].game(0).target

    @property
    def link(self) -> Link | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Of a single game its link. None of several, which have no logits in common."""
        return self._kinds[0].link if self._alone else None

    @property
    def foreign(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Whether one of the games runs a user's own code."""
        return any(g.foreign for g in self._kinds)

    @property
    def compiles(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Whether all games compile."""
        return all(g.compiles for g in self._kinds)

    @property
    def gated(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Whether all games answer `relaxed`."""
        return all(g.gated for g in self._kinds)

    @property
    def blends(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Whether all games answer `blended`."""
        return all(g.blends for g in self._kinds)

    @compiled
    def each(self, masks: Bool[Array, "C P"], *, max_visible: int | None = None) -> Readout:
        """What each of the G games says of each coalition, a `Readout` of arrays [G, C], in the order given."""
        return self._ask(lambda game: read(game, masks, max_visible))

    @compiled
    def readout(self, masks: Bool[Array, "C P"], *, max_visible: int | None = None) -> Readout:
        """The least (mean, largest) value and probability of the games, and whether the class leads in all of them.

        Under "mean" it leads where it does in more than half of them, under "max" where it does in one.
        """
        return self._reduced(self.each(masks, max_visible=max_visible))

    def logits(self, masks: Bool[Array, "C P"], *, max_visible: int | None = None) -> Float[Array, "C K"]:
        """The logits of a single game. Raises InputError for several, which have none in common."""
        if not self._alone:
            raise InputError("several games as one have no logits in common; ask each of `games` for its own")
        game = self.stacks[0].game(0)
        return game.logits(masks, max_visible=max_visible if game.sized else None)

    def read(self, logits: Float[Array, "C K"]) -> Readout | None:
        """What a single game reads in logits; None of several."""
        return self.stacks[0].game(0).read(logits) if self._alone else None

    @compiled
    def relaxed(self, gates: Float[Array, "C P"]) -> Float[Array, "C"]:
        """The least (mean, largest) payoff at gates, where all games answer it; differentiable."""
        if not self.gated:
            return super().relaxed(gates)
        return self._reduced(self._ask(lambda game: Readout(game.relaxed(gates)))).values

    @compiled
    def blended(self, shares: Float[Array, "C H W"]) -> Readout:
        """The readout of blended images, reduced as any other, where all games answer it."""
        return self._reduced(self._ask(lambda game: game.blended(shares))) if self.blends else super().blended(shares)

    def player_sizes(self, num_players: int) -> Int[Array, "P"] | None:
        """The sizes of the players in the first game that counts pixels, or else in the first that counts anything."""
        stacks = sorted(self.stacks, key=lambda stack: not stack.kind.blends)
        told = (stack.game(0).player_sizes(num_players) for stack in stacks)
        return next((sizes for sizes in told if sizes is not None), None)

    def player_borders(self, num_players: int) -> Int[Array, "P P"] | None:
        """The borders in the first game that has pixels, or else in the first that tells them."""
        return borders_of([stack.game(0) for stack in self.stacks], num_players)

    def with_payoff(self, payoff: Payoff) -> RobustValueFn | None:
        """The same games under another payoff; None where one of them has no other."""
        return self._changed(lambda game: game.with_payoff(payoff), remainder=False)

    def remainders(self) -> RobustValueFn | None:
        """The same game, whose values are probabilities less the nearer of 0 and 1; None where a game cannot tell."""
        return self._changed(lambda game: game.remainders(), remainder=True)

    def spread(self, game: Game) -> Game:
        """Another game, over the devices of the games, where these are spread."""
        over = next((one for one in self._kinds if one.num_shards > 1), None)
        return game if over is None else over.spread(game)

    def replicate(self, tree: Tree) -> Tree:
        """As the games say."""
        for game in self._kinds:
            tree = game.replicate(tree)
        return tree

    @property
    def _kinds(self) -> list[Game]:
        """A game for each stack, to ask about what is static."""
        return [stack.kind for stack in self.stacks]

    @property
    def _alone(self) -> bool:
        return len(self.places) == 1

    def _ask(self, question: Callable[[Game], Any]) -> Any:
        answers = [stack.ask(question) for stack in self.stacks]
        # What a single game says comes back as it is, to the bit; None stays None where one of the games has it.
        columns = zip(*answers, strict=True)
        places = np.asarray(self.places)
        joined: Any = [None if any(x is None for x in c) else jnp.concatenate(c)[places] for c in columns]
        return Readout(*joined)

    def _reduced(self, out: Readout) -> Readout:
        if self._alone:
            out = jax.tree.map(lambda x: x[0], out)
        else:
            least = {"min": jnp.min, "mean": jnp.mean, "max": jnp.max}[self.reduce]
            remainders = _reduced_remainders(out.values, self.reduce) if self.remainder else None
            leads = None if out.leads is None else jnp.sum(out.leads, axis=0)
            needed = {"min": len(self.places), "mean": len(self.places) // 2 + 1, "max": 1}[self.reduce]
            out = Readout(
                values=least(out.values, axis=0) if remainders is None else remainders,
                leads=None if leads is None else leads >= needed,
                probabilities=None if out.probabilities is None else least(out.probabilities, axis=0),
            )
        if self.agree is None:
            return out
        return out._replace(values=jnp.where(self.agree, out.values, jnp.nan))

    def _changed(self, change: Callable[[Game], Game | None], *, remainder: bool) -> RobustValueFn | None:
        stacks = [stack.changed(change) for stack in self.stacks]
        known = tuple(stack for stack in stacks if stack is not None)
        return dataclasses.replace(self, stacks=known, remainder=remainder) if len(known) == len(stacks) else None


def alike(games: Sequence[Game]) -> list[list[int]]:
    """The numbers of games, those of one structure and the same shapes together."""
    together: dict[Any, list[int]] = {}
    for i, game in enumerate(games):
        together.setdefault(signature(game), []).append(i)
    return list(together.values())


def borders_of(games: Sequence[Game], num_players: int) -> Int[Array, "P P"] | None:
    """The borders between players in the first game that has pixels, or else in the first that tells them."""
    told = (game.player_borders(num_players) for game in sorted(games, key=lambda game: not game.blends))
    return next((borders for borders in told if borders is not None), None)


def robust_value_fn(vs: Sequence[ValueFn], *, reduce: Reduce = "min") -> RobustValueFn:
    """Several games of the same players as one game, whose value is the least, the mean or the largest of theirs.

    vs:     value functions of the same P players, one payoff, one class and one link: other removals
            (`jm.games.removals`), other images, other models. Those of one structure and the same shapes are evaluated
            together, arrays that they share (the same objects: a model's weights) once; the others follow, in the same
            compiled program.
    reduce: "min", the value and probability in the worst game; the class leads where it leads in all of them. "mean",
            both on average; it leads where it does in more than half of the games: in just half of them it is lost as
            often as kept. "max", both in the best game; it leads where it does in one of them: groups that are
            necessary in all games are deletions in this one.

    A value is one forward pass in each of the games. The robust game of one game is that game. It answers `relaxed`,
    `blended`, leads, probabilities, other payoffs and remainders where all of its games do; `each` says what every game
    says, and `games` are the games. A NaN in one of them is a NaN in the whole.

    Raises ValueError for no game, for another `reduce`, and for games that differ in their number of players, payoff,
    class or link. Inside `jit` classes cannot be looked at: where they differ the values are NaN.
    """
    if callable(vs) or not isinstance(vs, Sequence):
        raise InputError(f"expected a list of value functions; got {type(vs).__name__}. Of a single one it is [v]")
    if reduce not in get_args(Reduce):
        raise InputError(f"expected reduce of {', '.join(get_args(Reduce))}; got {reduce!r}")
    games = [as_game(v) for v in vs]
    agree = check_together(games)
    together = alike(games)
    stacks = tuple(Stack.of([games[i] for i in numbers]) for numbers in together)
    places = np.argsort([i for numbers in together for i in numbers])
    return RobustValueFn(stacks, agree, tuple(int(p) for p in places), reduce)


def check_together(games: Sequence[Game]) -> Bool[Array, ""] | None:
    """Raises InputError for games that are not of the same players, payoff, link and class.

    Returns None, or, where classes are traced, whether they are one.
    """
    if not games:
        raise InputError("expected at least one value function; got none")
    first = games[0]
    counts = {i: game.num_players for i, game in enumerate(games) if game.num_players is not None}
    if len(set(counts.values())) > 1:
        raise InputError(f"expected games of the same players; their numbers of players are {list(counts.values())}")
    for i, game in enumerate(games):
        if first.payoff != game.payoff:
            raise InputError(
                f"expected games of one payoff, for their values to be compared; number 0 has {first.payoff!r} and "
                f"number {i} has {game.payoff!r}. A value function of your own says it by an attribute `payoff`"
            )
        if (first.target is None) != (game.target is None):
            raise InputError(
                f"expected games of one class; of numbers 0 and {i} one says which class it explains and one does not. "
                "A value function of your own says it by an attribute `target`"
            )
    links = sorted({game.link for game in games if game.link is not None})
    if len(links) > 1:
        raise InputError(f"expected games of one link, for their probabilities to be compared; got {', '.join(links)}")
    targets = [game.target for game in games if game.target is not None]
    if is_concrete(targets):
        classes = sorted({int(target) for target in targets})
        if len(classes) > 1:
            raise InputError(f"expected games of one class; they explain the classes {classes}")
        return None
    return jnp.all(jnp.stack(targets) == targets[0])


def _reduced_remainders(remainders: Float[Array, "G C"], reduce: Reduce) -> Float[Array, "C"]:
    """The remainders of the least, mean or largest of probabilities that are given by theirs.

    A remainder with its sign bit set is of a probability above a half.
    """
    above = jnp.signbit(remainders)
    broken = jnp.any(jnp.isnan(remainders), axis=0)
    if reduce == "mean":
        count, near, rest = len(remainders), jnp.sum(above, axis=0), jnp.sum(remainders, axis=0)
        whole = near * 2 > count
        far = jnp.where(whole, near - count, near)  # both are whole numbers: nothing is rounded
        mean = (far + rest) / count
        # Between the two ends the mean may cross a half, and then the other end is the nearer one.
        mean = jnp.where(~whole & (mean > 0.5), mean - 1, jnp.where(whole & (mean < -0.5), mean + 1, mean))
        out = jnp.where(whole & (mean == 0), -0.0, mean)
    elif reduce == "min":
        low = jnp.min(jnp.where(above, jnp.inf, remainders), axis=0)
        out = jnp.where(jnp.all(above, axis=0), jnp.min(remainders, axis=0), low)
    else:
        high = jnp.max(jnp.where(above, remainders, -jnp.inf), axis=0)
        out = jnp.where(jnp.any(above, axis=0), high, jnp.max(remainders, axis=0))
    return jnp.where(broken, jnp.nan, out)
