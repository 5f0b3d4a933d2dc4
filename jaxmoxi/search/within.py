"""The best order for a number of forward passes: what is cheap first, and every pass that is left spent on the area.

Three stages. *Ranking*: of tokens, a few gradients say, from the whole image on, which players to hide next, many at a
time; in an insertion those that it costs least to hide, which come last, in a deletion those that it costs most, which
come first. The model sees nearly whole images for most of it, where gradients tell most. Of pixels, and in games
without gradients, each player is hidden from the whole image once, and ranked by what that costs. *Front*: greedy
search from the other end, each step among a shortlist: the players that did best when they were last tried, and the
next of the ranking that were not tried yet. *Polish*: moves of single players that enlarge the area under the
probability, until the passes are spent or no move helps.

Where players are pixels, and there are passes enough, it searches from *both ends* instead of these first two stages:
everybody left is tried, the best goes to the front and one of the worst to the back, by the probability with the
players alone and that without them. A group that tells nothing alone may be missed already.

The search from both ends by both probabilities is LiMA's (Chen et al., arXiv 2504.00470), with two of its four terms. A
first ranking and a shortlist along it are also MDA's (Walker, Jha, Ewetz, ICLR 2025); the ranking of pixels by what
each player's absence costs is the first look of PhaseWin (Gu et al., arXiv 2511.10914) and of LiMA's collaboration
score. `benchmarks/search.py --budgets` measures all of them.
"""

from __future__ import annotations

import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from jaxmoxi.games.base import Game, ValueFn, as_game
from jaxmoxi.guards import deliberate
from jaxmoxi.search.device.found import CompletedOrder
from jaxmoxi.search.oracle import Oracle
from jaxmoxi.search.polish import polish, prefixes
from jaxmoxi.search.scorers import gate_gradient
from jaxmoxi.search.shared import check_budget, neighbours

# Forward passes that a forward and a backward pass take.
GRADIENT = 3
# The front's share of the evaluations, where there are so many for each player; else it takes all of them.
FRONT, POLISHED = 0.6, 4
# From so many evaluations for each player on, a second front has this part of them. Of pixels, both ends have `ENDS`.
TWICE, NARROW, ENDS = 12, 5, 0.6
# From both ends: what the probability without the players weighs beside that with them alone, and how many of the worst
# are asked who joins the back. Both are LiMA's.
WITHOUT, WORST = 0.25, 8
# A shortlist is as wide as lets the front reach this share of the players, and no narrower than LEAST.
DEPTH, LEAST = 0.4, 4


@deliberate
def order_within(
    v: ValueFn,
    num_players: int,
    *,
    budget: int | None = None,
    insertion: bool = True,
    batch_size: int | None = None,
) -> CompletedOrder:
    """The best order of all players that a number of forward passes finds, by the area under the probability.

    v, num_players, batch_size: as for `greedy_insertion`. The area is that of `insertion_curve` (`deletion_curve`),
               under the payoff where the game tells no probabilities.
    budget:    forward passes, at least 1; a gradient counts as three of them. None is P(P+1)/2, what greedy takes. It
               is spent in full unless no move helps any more.

    The result's `num_evaluations` + 3 `num_gradients` are within the budget. A budget too small for a look at every
    player leaves what was not looked at in the order of the players' numbers.

    It decides on the host, outside `jit`. Raises InputError for another budget; NaNValueError that names the group.
    """
    game = as_game(v)
    limit = check_budget(budget, num_players)
    oracle = Oracle(game, num_players, goal=None, insertion=insertion, batch_size=batch_size)
    without = Oracle(game, num_players, goal=None, insertion=not insertion, batch_size=batch_size)
    search = _Within(oracle, without, limit)
    order = search.run()
    return CompletedOrder(jnp.asarray(order, jnp.int32), jnp.int32(search.count), jnp.int32(search.gradients))


class _Within:
    """without: the same game, asked about everybody but a group (with an insertion; else about the group alone)."""

    def __init__(self, oracle: Oracle, without: Oracle, budget: int):
        self.oracle, self.without, self.budget, self.gradients = oracle, without, budget, 0
        self.at_whole: Int[np.ndarray, "P"] | None = None  # players by the gradient at the whole image, if it was asked

    @property
    def limit(self) -> int:
        """The evaluations of `oracle` that the others leave."""
        return self.budget - GRADIENT * self.gradients - self.without.count

    @property
    def count(self) -> int:
        return self.oracle.count + self.without.count

    @property
    def tokens(self) -> bool:
        """Whether gradients rank players. Where players are pixels, the first bit of a fill says little of a region."""
        return self.oracle.game.gated and not self.oracle.game.blends

    def run(self) -> Int[np.ndarray, "P"]:
        oracle = self.oracle
        if not self.tokens and self.budget >= TWICE * oracle.num_players:
            return polish(oracle, self.both_ends(round(ENDS * self.budget)), self.limit)
        ranking = self.ranked()
        spare = self.limit - oracle.count
        if self.at_whole is None or spare < TWICE * oracle.num_players:
            return polish(oracle, self.front(ranking, spare), self.limit)
        # A wide front need not be better than a narrow one. It follows the gradient at the whole image alone, which
        # ranks some high whom the descent ranks low.
        wide = self.front(self.at_whole, spare, plain=True)
        fronts = [wide, self.front(ranking, spare // NARROW)]
        curves = [prefixes(order) for order in fronts]
        if oracle.count + oracle.unknown(np.concatenate(curves)) > self.limit:
            return wide
        best = int(np.argmax([oracle.chances(groups).sum() for groups in curves]))
        return polish(oracle, fronts[best], self.limit)

    def ranked(self) -> Int[np.ndarray, "P"]:
        """A first order: by the gradients of a game whose players are tokens, else by what each one's absence costs."""
        num_players, game = self.oracle.num_players, self.oracle.game
        if self.tokens and self.budget >= GRADIENT:
            return self.descent(game, max(1, min(num_players // 12, self.budget // (8 * GRADIENT))))
        everybody = np.ones(num_players, bool)
        asked = np.arange(min(num_players, self.budget))
        start = everybody if self.oracle.insertion else ~everybody
        harm = np.full(num_players, -np.inf)
        harm[asked] = -self.oracle.ask(neighbours(start, asked))[0] * (1 if self.oracle.insertion else -1)
        return np.argsort(-harm, kind="stable")

    def descent(self, game: Game, rounds: int) -> Int[np.ndarray, "P"]:
        """Players in the order in which gradients hide them, one gradient a round."""
        visible = np.ones(self.oracle.num_players, bool)
        sign = 1 if self.oracle.insertion else -1
        gone: list[int] = []
        for left in range(rounds, 0, -1):
            slope: Float[np.ndarray, "P"] = np.asarray(gate_gradient(game, jnp.asarray(visible)))
            self.gradients += 1
            if self.at_whole is None:
                self.at_whole = np.argsort(-slope, kind="stable")
            players = np.flatnonzero(visible)
            taken = math.ceil(len(players) / left)
            chosen = players[np.argsort(sign * slope[players], kind="stable")][:taken]
            gone += chosen.tolist()
            visible[chosen] = False
        return np.array(gone[::-1] if self.oracle.insertion else gone)

    def front(self, order: Int[np.ndarray, "P"], spare: int, *, plain: bool = False) -> Int[np.ndarray, "P"]:
        """Greedy search along an order by shortlists, as far as its share of `spare` evaluations goes.

        plain: the shortlists are the next of the order, whatever is known of them.
        """
        num_players = len(order)
        # A small budget has nothing left for a polish that first has to ask for the whole curve.
        stop = self.oracle.count + (round(FRONT * spare) if spare >= POLISHED * num_players else spare)
        width = round((stop - self.oracle.count) / (DEPTH * num_players))
        width = min(num_players, max(LEAST, min(width, 2 * math.isqrt(num_players))))
        left, chosen = order.tolist(), []
        group: Bool[np.ndarray, "P"] = np.zeros(num_players, bool)
        latest = np.full(num_players, -np.inf)
        while len(left) > 1:
            listed = np.array(left[:width] if plain else _shortlist(left, latest, width))
            groups = neighbours(group, listed)
            if self.oracle.count + self.oracle.unknown(groups) > stop:
                break
            latest[listed] = self.oracle.ask(groups)[0]
            best = int(listed[np.argmax(latest[listed])])
            left.remove(best)
            chosen.append(best)
            group[best] = True
        return np.array(chosen + left)

    def both_ends(self, spare: int) -> Int[np.ndarray, "P"]:
        """Greedy search for the first and the last players, as far as `spare` evaluations go; the others between."""
        num_players, stop = self.oracle.num_players, self.count + spare
        left, front, back = list(range(num_players)), [], []
        shown: Bool[np.ndarray, "P"] = np.zeros(num_players, bool)
        hidden, latest = shown.copy(), np.zeros(num_players)
        while len(left) > 1:
            scores = self._worth(neighbours(shown, np.array(left)), stop)
            if scores is None:
                break
            latest[left] = scores
            best = left.pop(int(np.argmax(scores)))
            front.append(best)
            shown[best] = True
            if len(left) <= WORST:
                continue
            worst = sorted(left, key=lambda p: latest[p])[:WORST]
            scores = self._worth(neighbours(hidden, np.array(worst)), stop)
            if scores is None:
                break
            last = worst[int(np.argmin(scores))]
            left.remove(last)
            back.append(last)
            hidden[last] = True
        return np.array(front + sorted(left, key=lambda p: -latest[p]) + back[::-1])

    def _worth(self, groups: Bool[np.ndarray, "C P"], stop: int) -> Float[np.ndarray, "C"] | None:
        """What groups are worth by themselves and by their absence; None where evaluations up to `stop` do not pay."""
        if self.count + self.oracle.unknown(groups) + self.without.unknown(groups) > stop:
            return None
        return self.oracle.chances(groups) + WITHOUT * self.without.chances(groups)


def _shortlist(left: list[int], latest: Float[np.ndarray, "P"], width: int) -> list[int]:
    """Half of them those that did best when last tried, the others the next that were not tried; in their order."""
    tried = sorted((p for p in left if np.isfinite(latest[p])), key=lambda p: -latest[p])
    fresh = [p for p in left if not np.isfinite(latest[p])]
    new = fresh[: max(width // 2, width - len(tried))]
    return tried[: width - len(new)] + new
