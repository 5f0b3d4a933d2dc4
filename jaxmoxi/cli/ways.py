"""Ways of hiding the regions of a photo, for `jaxmoxi explain --method robust`: drawn by a seed, told, and recorded."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any, NamedTuple

import jax
import numpy as np
import tyro
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Bool

from jaxmoxi.cli.report import percent
from jaxmoxi.cli.shared import CommandError, one_line, say
from jaxmoxi.cli.task import Task
from jaxmoxi.games.base import ValueFn
from jaxmoxi.games.evaluation import readouts
from jaxmoxi.games.payoff import Payoff
from jaxmoxi.games.removals import RemovalKind
from jaxmoxi.games.sharding import shard_coalitions
from jaxmoxi.types import Readout, Stop

METHOD = "robust"
REMOVALS, UNSEEN = 24, 12
_OPTION = tyro.conf.arg
_PIXELS: tuple[RemovalKind, ...] = ("mean", "blur", "zero", "noise", "inpaint")
_NAMED = 6  # removals that a warning names


@dataclasses.dataclass(frozen=True)
class RobustOptions:
    """For --method robust, which hides regions in many ways: tokens removed (where the model has them), pixels filled
    with the mean colour, a blur, zero, noise, or what the visible ones suggest, each in a photo a little moved,
    mirrored, brighter or darker."""

    removals: Annotated[int | None, _OPTION(metavar="COUNT", help_behavior_hint="(default: 24)")] = None
    """How many ways of hiding regions the group is searched in. More of them make a larger group, which holds in more
    others."""
    unseen: Annotated[int | None, _OPTION(metavar="COUNT", help_behavior_hint="(default: 12)")] = None
    """How many other ways, drawn apart, judge the group that was found."""
    hold: Annotated[float | None, _OPTION(metavar="SHARE", help_behavior_hint="")] = None
    """In which share of the ways searched the group must hold, such as 0.75. Left out: in all of those in which the
    whole photo does."""
    seed: Annotated[int | None, _OPTION(metavar="N", help_behavior_hint="(default: 0)")] = None
    """The seed of the ways that are drawn. The same seed gives the same group."""

    def check(self, method: str, masking: str | None, fill: str | None) -> None:
        """Raises CommandError for what cannot be, or does not go together, before a model is loaded."""
        given = [name for name, value in vars(self).items() if value is not None]
        if method != METHOD:
            if given:
                raise CommandError(f"--{given[0]} is an option of --method {METHOD}; --method {method} has one removal")
            return
        for name, least in (("removals", 1), ("unseen", 0), ("seed", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise CommandError(f"--{name}: expected a whole number of at least {least}; got {value}")
        if (self.seed or 0) >= 2**32:
            raise CommandError(f"--seed: expected a number below 2**32; got {self.seed}")
        if self.hold is not None and not 0 < self.hold <= 1:
            raise CommandError(f"--hold: expected a share of the removals, above 0 and at most 1; got {self.hold:g}")
        for name, value in (("masking", masking), ("fill", fill)):
            if value is not None:
                raise CommandError(
                    f"--{name} names one way of hiding regions, and --method {METHOD} takes many; leave it out, or use "
                    "--method minimal"
                )


NO_ROBUST_OPTIONS = RobustOptions()


class Ways(NamedTuple):
    """Ways of removing regions.

    games, kinds: a game for each, and what becomes of hidden regions in it.
    whole, bare:  bool[N], the goal is met by the whole photo, and met (as a deletion's) with every region hidden.
    """

    games: list[ValueFn]
    kinds: list[str]
    whole: Bool[np.ndarray, "N"]
    bare: Bool[np.ndarray, "N"]

    def able(self, insertion: bool) -> Bool[np.ndarray, "N"]:
        """bool[N], in which everybody together is enough, or necessary."""
        return self.whole if insertion else self.bare


def draw_ways(task: Task, options: RobustOptions, payoff: Payoff) -> tuple[Ways, Ways]:
    """(ways to search in, ways that judge), drawn by the seed. They differ in what they draw, not in their kinds."""
    import jaxmoxi as jm

    kinds = _PIXELS if task.model.token_grid is None else ("tokens", *_PIXELS)
    # The weights are copied to the devices once, not with every game.
    model = task.model if task.mesh is None else jax.device_put(task.model, NamedSharding(task.mesh, PartitionSpec()))
    counts = (REMOVALS if options.removals is None else options.removals,
              UNSEEN if options.unseen is None else options.unseen)  # fmt: skip
    found = []
    for part, count in enumerate(counts):
        key = jax.random.fold_in(jax.random.key(options.seed or 0), part)
        named = kinds[:count]
        games: list[ValueFn] = []
        if count:
            with one_line():
                drawn = jm.games.removals(
                    key, model, task.image, task.target, task.regions, count=count, kinds=named, payoff=payoff
                )
            games = [game if task.mesh is None else shard_coalitions(game, task.mesh) for game in drawn]
        ends = _met_at_the_ends(games, task)
        found.append(Ways(games, [named[i % len(named)] for i in range(count)], ends[0], ends[1]))
    return found[0], found[1]


def tell_unable(task: Task, seen: Ways, unseen: Ways, *, necessary: bool) -> None:
    """Says on stderr in which ways no group can be judged: not even the whole photo reaches the goal."""
    name, level = task.name(task.target), task.stop.probability
    at = task.place if level is None else f"at {percent(level)}"
    whole = f"{name!r} is not {at} even in the whole photo"
    bare = f"{name!r} is {at} even with every region hidden"
    for ways, which in ((seen, "searched"), (unseen, "not seen by the search")):
        for insertion in (True, False)[: 1 + necessary]:
            left = np.flatnonzero(~ways.able(insertion))
            listed = ", ".join(f"{i + 1}: {ways.kinds[i]}" for i in left[:_NAMED]) + ", ..." * (len(left) > _NAMED)
            if len(left):
                say(
                    f"jaxmoxi: warning: in {len(left)} of the {len(ways.games)} removals {which} ({listed}) "
                    f"{whole if insertion else bare}; a group that fails there tells of the removal, not of the group"
                )


def ways_record(options: RobustOptions, seen: Ways, unseen: Ways) -> dict[str, Any]:
    """How regions were hidden, for the JSON file."""
    return {
        "masking": None,
        "fill": None,
        "hold": options.hold,
        "seed": options.seed or 0,
        "removals": {"kinds": seen.kinds, "whole_photo_enough": seen.whole, "all_hidden_loses_it": seen.bare},
        "unseen_removals": {
            "kinds": unseen.kinds,
            "whole_photo_enough": unseen.whole,
            "all_hidden_loses_it": unseen.bare,
        },
    }


def share(hold: float | None, able: Bool[np.ndarray, "N"]) -> float:
    """The share of the ways searched in which a group must hold; without any, of those in which it can."""
    return hold if hold is not None else (float(able.mean()) or 1.0)


def met(stop: Stop, told: Readout, insertion: bool) -> Bool[np.ndarray, "C"]:
    """Which coalitions reach the goal."""
    return np.asarray(stop.met(told, 0, insertion))


def _met_at_the_ends(games: list[ValueFn], task: Task) -> tuple[Bool[np.ndarray, "N"], Bool[np.ndarray, "N"]]:
    """In which games the goal is met by everybody, and, as a deletion's, with everybody hidden."""
    masks = np.array([[True], [False]]).repeat(task.num_players, 1)
    with one_line():
        outs = [jax.device_get(readouts(game, masks)) for game in games]
    whole = [met(task.stop, out, True)[0] for out in outs]
    bare = [met(task.stop, out, False)[1] for out in outs]
    return np.array(whole, bool), np.array(bare, bool)
