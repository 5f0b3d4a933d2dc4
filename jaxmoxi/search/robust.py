"""A smallest group that holds in several games at once: sufficient whatever stands in place of the rest.

Cheap first. Backward elimination ranks players in one game, and confirms in the others each group that it goes to; a
game in which such a group fails, a counterexample, joins the games searched, whose least margin ranks players from then
on (the value of `robust_value_fn`, game by game, so that nothing is evaluated twice). 24 players and more are ranked by
what random groups are worth in random games, neighbours alike (`likely`): what single players add to one group in a few
games is mostly odd to these, and a group made by it fails elsewhere. Exchanges then look for smaller groups for as long
as the budget lasts; where it pays for all smaller groups, they are tried. A group is read in the games searched first,
and in the others only where it may still be enough.

Sources: counterexample-guided search: Ignatiev, Narodytska and Marques-Silva, "Abduction-based explanations for machine
learning models", AAAI 2019. A share of what may stand in place of the rest: Wäldchen, Macdonald, Hauch and Kutyniok,
"The computational complexity of understanding binary classifier decisions", JAIR 2021; here the distribution is a
finite list of games. The interval: Wilson, "Probable inference, the law of succession, and statistical inference", JASA
1927.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxmoxi.errors import InputError
from jaxmoxi.games.base import Game, ValueFn, as_game
from jaxmoxi.games.evaluation import check_batch_size
from jaxmoxi.games.probe import check_players
from jaxmoxi.games.robust import check_together
from jaxmoxi.guards import deliberate
from jaxmoxi.pytrees import record
from jaxmoxi.search.asking import reader_of
from jaxmoxi.search.climb import Group
from jaxmoxi.search.connected import Connected, check_connected, connect, halves
from jaxmoxi.search.counterexamples import ShareOracle, search_together, warn_of
from jaxmoxi.search.holding import Stability, check_list, stability
from jaxmoxi.search.minimal import minimal_group
from jaxmoxi.search.oracle import Oracle, goal_of
from jaxmoxi.search.panel import Panel
from jaxmoxi.search.shared import check_budget, check_insertion
from jaxmoxi.types import Readout, Stop

_LEAST = 1024  # evaluations of a budget that nobody gave, for each game: all coalitions of up to ten players


@record
class RobustGroup:
    """A group of players that reaches the goal in a share of N games, as `robust_group` found it.

    group:           bool[P], True for its players.
    size:            int32[], how many they are.
    holds:           float32[] in [0, 1], the share of the N games in which the group reaches the goal.
    held:            bool[N], in which.
    searched:        bool[N], the games whose margins led the search; in the others groups were only confirmed.
    num_evaluations: int32[], forward passes of one image each, over all N games.
    unseen:          float32[] in [0, 1], the share of the unseen games in which it reaches the goal; None without any.
    interval:        float32[2], Wilson's 95 % confidence interval of that share, as if the unseen games were drawn
                     independently of each other and of the games searched; None without any.
    stability:       what the unseen games say of the group; None without any.
    pieces:          int32[], how many connected pieces it has; None where `connected` did not ask for few.
    """

    group: Bool[Array, "P"]
    size: Int[Array, ""]
    holds: Float[Array, ""]
    held: Bool[Array, "N"]
    searched: Bool[Array, "N"]
    num_evaluations: Int[Array, ""]
    unseen: Float[Array, ""] | None = None
    interval: Float[Array, "2"] | None = None
    stability: Stability | None = None
    pieces: Int[Array, ""] | None = None


@deliberate
def robust_group(
    vs: Sequence[ValueFn],
    num_players: int,
    *,
    insertion: bool = True,
    hold: float = 1.0,
    stop: Stop | None = None,
    probability: float | None = None,
    value: float | None = None,
    budget: int | None = None,
    batch_size: int | None = None,
    unseen: Sequence[ValueFn] = (),
    connected: Connected | bool = False,
    callback: Callable[[int], None] | None = None,
) -> RobustGroup:
    """A small group that reaches the goal in at least a share `hold` of the games; no single player can be taken away.

    vs:          N value functions of the same P players, one payoff, one class: `jm.games.removals` draws some.
    num_players: P, at least 1.
    insertion:   True: *sufficient*, the group alone reaches the goal. False: *necessary*, the goal is missed without.
    hold:        in (0, 1], of the games: 1 asks for all of them. The share is met by whole games, ceil(hold * N); below
                 1 it may be met by giving up all games of one kind, the hardest: `held` of the result tells.
    stop, probability, value: the goal in each game, as `minimal_group` takes it; the class on top where none is given.
    budget:      evaluations; a group costs one in each game that it is read in. It ends the exchanges; what finds a
                 group (of 24 players and more, 16 P evaluations of random groups among it), and takes single players
                 from it, is done whatever the budget. None is three full greedy orders, 3 P(P+1)/2, or 1,024 for each
                 game where this is more. Where it pays for all smaller groups (of up to ten players it does) they are
                 tried, and the result is the smallest there is. With one game it is that of `minimal_group`.
    batch_size:  coalitions per chunk; None chooses.
    unseen:      other games of the same players, which judge the group that was found: `unseen`, `interval` and
                 `stability` of the result. They are no part of the search, and do not count as evaluations.
    connected:   True prefers a group that lies together, as `minimal_group` takes it; neighbours are those of the first
                 game that tells them. It costs as much again: the default budget doubles, half of it is for the group
                 without this wish. `pieces` of the result says how many pieces the group has.
    callback:    called with the number of evaluations so far, after each question, for a progress bar.

    "Holds" is said of these games, not of every removal there is: the unseen ones tell how far it carries. With one
    game the group is that of `minimal_group`. Where not all groups can be tried it is not always the smallest.
    Deterministic. Decides on the host, and is called outside `jit`; in `jit`, search `jm.robust_value_fn(vs)` by
    `minimal_group`.

    A warning tells of games in which the goal is missed even by everybody together. Raises ValueError for games that
    cannot be compared (`robust_value_fn`), for a hold, goal or budget that cannot be, for a game that is both searched
    and unseen, and where no group along the way reaches the goal in the share; NaNValueError that names the game.
    """
    games = _checked(vs, unseen, num_players, hold)
    check_insertion(insertion)
    _, goal = goal_of(games[0], num_players, stop, probability=probability, value=value)
    for game in games[1:]:
        goal_of(game, num_players, stop, probability=probability, value=value)
    check_batch_size(batch_size)
    usual = usual_budget(num_players, len(vs))
    limit = usual if budget is None else check_budget(budget, num_players)
    wish, pieces = check_connected(connected, games[: len(vs)], num_players), None
    oracles = [
        Oracle(game, num_players, goal=goal, insertion=insertion, batch_size=batch_size, reader=reader_of(game, goal))
        for game in games[: len(vs)]
    ]
    for i, oracle in enumerate(oracles):
        oracle.whose = f"value function {i}"
        if callback is not None:
            oracle.callback = lambda _: callback(sum(one.count for one in oracles))
    panel = Panel(oracles)
    needed = max(1, math.ceil(hold * len(vs) - 1e-9))
    if len(vs) == 1:
        found = minimal_group(
            games[0], num_players, insertion=insertion, stop=goal, budget=budget, batch_size=batch_size,
            callback=callback, connected=connected,
        )  # fmt: skip
        group, searched, count = np.asarray(found.group), [0], int(found.num_evaluations)
        held, pieces = np.ones(1, bool), found.pieces
    else:
        half, whole = (limit, limit) if wish is None else halves(limit, budget)
        group, searched = search_together(panel, needed, half)
        if wish is not None:
            full = ShareOracle(panel, needed, searched)
            group, pieces = connect(full, group, wish, whole)
            searched = full.first
        held = panel.met(group)
        count = panel.count
    judged = _judge(games[len(vs) :], group, goal, insertion, batch_size)
    return RobustGroup(
        group=jnp.asarray(group),
        size=jnp.int32(group.sum()),
        holds=jnp.float32(held.mean()),
        held=jnp.asarray(held),
        searched=jnp.asarray(np.isin(np.arange(len(vs)), searched)),
        num_evaluations=jnp.int32(count),
        unseen=None if judged is None else judged[0],
        interval=None if judged is None else judged[1],
        stability=None if judged is None else judged[2],
        pieces=None if pieces is None else jnp.int32(pieces),
    )


def usual_budget(num_players: int, num_games: int) -> int:
    """The evaluations that end the exchanges of `robust_group` where it is given no budget."""
    greedy = check_budget(None, num_players)
    return greedy if num_games == 1 else max(3 * greedy, _LEAST * num_games)


def wilson_interval(count: int, trials: int) -> Float[Array, "2"]:
    """Wilson's 95 % confidence interval of a share that was met in `count` of `trials` independent trials, float32[2].

    Never empty, unlike that of the normal approximation, at 0 and at all of the trials.
    """
    z, share = 1.959963984540054, count / trials
    middle = share + z * z / (2 * trials)
    half = z * math.sqrt(share * (1 - share) / trials + (z / (2 * trials)) ** 2)
    ends = np.array([middle - half, middle + half]) / (1 + z * z / trials)
    return jnp.asarray(np.clip(ends, 0, 1), jnp.float32)


def _checked(vs: Sequence[ValueFn], unseen: Sequence[ValueFn], num_players: int, hold: float) -> list[Game]:
    """The games, those of `vs` first, if they can be compared and the others are others."""
    for name, given in (("vs", vs), ("unseen", unseen)):
        check_list(given, name)
    if not vs:
        raise InputError("expected at least one value function; got none")
    if isinstance(hold, bool) or not isinstance(hold, int | float | np.number) or not 0 < hold <= 1:
        raise InputError(f"hold is a share of the games, above 0 and at most 1; got {hold!r}")
    twice = [i for i, v in enumerate(unseen) if any(v is w for w in vs)]
    if twice:
        raise InputError(f"unseen games judge what a search never saw; numbers {twice} of unseen are among vs too")
    games = [as_game(v) for v in (*vs, *unseen)]
    check_together(games)
    for game in games:
        check_players(game, num_players)
    return games


def _judge(
    games: Sequence[Game], group: Group, goal: Stop, insertion: bool, batch_size: int | None
) -> tuple[Float[Array, ""], Float[Array, "2"], Stability] | None:
    """The share of games in which a group reaches the goal, its interval, and what they say; None without games."""
    if not games:
        return None
    rows = np.stack([group, np.ones(len(group), bool)])
    told = jax.device_get(stability(games, rows, insertion=insertion, batch_size=batch_size))
    met = np.asarray(goal.met(Readout(told.values, told.leads, told.probabilities), 0, insertion))
    unable = np.flatnonzero(~met[1]).tolist()
    if unable:
        warn_of(unable, "unseen", insertion)
    of_group = jax.tree.map(lambda x: jnp.asarray(x[0]), told)
    return jnp.float32(met[0].mean()), wilson_interval(int(met[0].sum()), len(games)), of_group
