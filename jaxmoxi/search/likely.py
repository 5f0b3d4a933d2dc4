"""Of many players, those that are likely to matter in all of several games, and a group made of them.

Close to the whole image, where nobody is missed, taking single players away says little of them; and a group that is
made as small as a few games allow depends on what is odd in these games. So what random groups are worth in random
games is explained by a sum over their players first, in which neighbours are expected to matter alike. That takes many
fewer groups than players on their own would, and what the sum says of players carries over to games that nobody asked.

1. *Draw*: `DRAWN` random groups for each player, each in one of the games, and with each group its complement.
2. *Fit*: Bayesian linear regression with the diffusion kernel of the players' borders as the prior's covariance. Games
   whose players have no borders take players for independent: ridge regression.
3. *Draw again*, as many groups of about the size that is enough by this order, of the players that it has first and
   others that the prior could have put there; and *fit* all of them.
4. *Cut* the order of the players where it is first enough; then take players away one by one, the least likely first,
   as long as the rest is enough. A game that refutes a group is asked before the others from then on.

Sources: attributions by regression on random coalitions: LIME (Ribeiro, Singh, Guestrin 2016) and KernelSHAP; the
kernel: Kondor and Lafferty, "Diffusion kernels on graphs and other discrete input spaces", ICML 2002. The prior over
neighbouring players, and the games drawn with the groups, are ours.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int, Num

from jaxmoxi.search.climb import Group
from jaxmoxi.search.oracle import Scores
from jaxmoxi.search.panel import Panel

DRAWN = 8
# The kernel's time for each player: on a square grid it reaches over a fifth of the side.
TIME = 1 / 50
# Of the second draw: sizes as shares of the size that is enough, and the most that the prior's noise weighs beside what
# players were found to be worth.
AROUND = (0.3, 1.3)
NOISE = 1.5
STEPS = 32  # in which the first players of the order are tried, from nobody to everybody


def likely_order(panel: Panel, needed: int, borders: Num[np.ndarray, "P P"] | None) -> Int[np.ndarray, "P"]:
    """The players, those first that matter most for groups that are enough in `needed` of the games.

    borders: above 0 where two players are neighbours.
    """
    players, games = panel.oracles[0].num_players, len(panel.oracles)
    rng = np.random.default_rng(0)
    root = np.eye(players) if borders is None else diffusion(borders, TIME * players / 2)
    root /= np.sqrt(np.mean(np.sum(root**2, axis=0)))  # players vary by 1 on average, whatever the kernel
    half = np.zeros((DRAWN * players // 2, players), bool)
    for row in half:
        row[rng.permutation(players)[: rng.integers(1, players)]] = True
    groups, numbers = np.concatenate([half, ~half]), np.tile(np.arange(len(half)) % games, 2)
    scores = panel.scores(numbers, groups)
    worth = _worth(groups, numbers, scores, root)
    # What players are worth in groups as they will be: of the likely ones, about as many as are enough.
    size = first_that_hold(panel, needed, _ranked(worth)).sum()
    near = np.zeros((DRAWN * players, players), bool)
    for row in near:
        other = worth / (worth.std() + 1e-12) + rng.uniform(0, NOISE) * (root @ rng.normal(size=players))
        row[_ranked(other)[: np.clip(round(size * rng.uniform(*AROUND)), 1, players - 1)]] = True
    again = np.arange(len(near)) % games
    scores = np.concatenate([scores, panel.scores(again, near)])
    return _ranked(_worth(np.concatenate([groups, near]), np.concatenate([numbers, again]), scores, root))


def _worth(
    groups: Bool[np.ndarray, "C P"], numbers: Int[np.ndarray, "C"], scores: Scores, root: Float[np.ndarray, "P P"]
) -> Float[np.ndarray, "P"]:
    """What each player adds to a group's score, as the regression of the module's head has it.

    numbers: of the game that each group was asked in. root: of the prior's covariance, its columns.
    """
    players, games = groups.shape[1], int(numbers.max()) + 1
    level = np.tanh(scores / (2 * np.median(np.abs(scores)) + 1e-6))  # far from the goal, how far does not matter
    columns = np.concatenate([(groups - 0.5) @ root, np.eye(games)[numbers]], axis=1)
    # The groups' sums vary as much as what they leave unexplained, and so do the games.
    noise = np.repeat([players / 4, 1.0], [players, games])
    return root @ np.linalg.solve(columns.T @ columns + np.diag(noise), columns.T @ level)[:players]


def _ranked(worth: Float[np.ndarray, "P"]) -> Int[np.ndarray, "P"]:
    return np.argsort(-worth, kind="stable")


def diffusion(borders: Num[np.ndarray, "P P"], time: float) -> Float[np.ndarray, "P P"]:
    """The diffusion kernel exp(-time L) of a graph, L its Laplacian, scaled as if players had four neighbours each."""
    near = (borders > 0).astype(float)
    np.fill_diagonal(near, 0)
    laplacian = (np.diag(near.sum(0)) - near) * 4 / max(near.sum(0).mean(), 1)
    rates, modes = np.linalg.eigh(laplacian)
    return (modes * np.exp(-time * rates)) @ modes.T


def first_that_hold(panel: Panel, needed: int, order: Int[np.ndarray, "P"]) -> Group:
    """The first players of an order: about as few as are enough in `needed` of the games. All are, and nobody is not.

    More of them may be too few again, so it goes up in steps, and then looks for the least within the last step.
    """

    def enough(size: int) -> bool:
        return bool(panel.met(_members(order[:size], len(order))).sum() >= needed)

    few, step = 0, max(1, len(order) // STEPS)
    while few + step < len(order) and not enough(few + step):
        few += step
    many = min(few + step, len(order))
    while many - few > 1:
        middle = (few + many) // 2
        few, many = (few, middle) if enough(middle) else (middle, many)
    return _members(order[:many], len(order))


def without_the_least(
    panel: Panel, needed: int, order: Int[np.ndarray, "P"], group: Group, first: int
) -> tuple[Group, list[int]]:
    """A part of a group that is enough, from which nobody can be taken away, and the games that were asked first.

    first: the number of one of them. Those last in the order are taken away first.
    """
    count = len(panel.oracles)
    spare, searched, shrunk = count - needed, [first], True
    while shrunk:
        shrunk = False
        for player in order[::-1][group[order[::-1]]]:
            trial = group & (np.arange(len(group)) != player)
            if (~panel.ask(searched, trial[None])[1]).sum() > spare:
                continue
            met = panel.met(trial)
            if (~met).sum() <= spare:
                group, shrunk = trial, True
            else:
                searched = searched + [i for i in np.flatnonzero(~met).tolist() if i not in searched][:1]
    return group, searched


def _members(players: Int[np.ndarray, "C"], num_players: int) -> Bool[np.ndarray, "P"]:
    return np.isin(np.arange(num_players), players)
