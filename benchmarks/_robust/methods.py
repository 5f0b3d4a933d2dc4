"""What is compared: smallest groups of one game and of several, and the orders of rivals."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxmoxi as jm
from _robust.judged import Judged
from jaxmoxi import attribution, search
from jaxmoxi.attribution import METHODS as RIVALS
from jaxmoxi.attribution import Effort

SIZES = (0.02, 0.04, 0.06, 0.09, 0.12, 0.16, 0.2, 0.25, 0.3, 0.36, 0.43, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)  # of the players
ONE_BY_ONE = 0.2  # the share of the players that MoXI chooses one by one; it ranks the rest in rounds


def group_line(case: Judged, group: Any, forwards: Any) -> dict[str, Any]:
    group = np.asarray(group)
    leads = case.leads(group[None])
    told = case.shares(leads) | case.inside(group[None])
    shares = {name: values[0] for name, values in told.items()}
    pieces = jm.group_pieces(group, case.regions).count
    told = {"kind": "group", "size": int(group.sum()), **shares, "forwards": int(forwards), "pieces": pieces}
    return told | {"by_kind": case.by_kind(leads[0]), "group": np.flatnonzero(group).tolist()}


def order_line(case: Judged, order: Any, forwards: Any) -> dict[str, Any]:
    order, players = np.asarray(order), case.num_players
    sizes = sorted({max(1, round(share * players)) for share in SIZES})
    groups = np.zeros((len(sizes), players), bool)
    for row, size in zip(groups, sizes, strict=True):
        row[order[:size]] = True
    return {
        "kind": "order",
        "forwards": int(forwards),
        "sizes": sizes,
        **case.shares(case.leads(groups)),
        **case.inside(groups),
        "share_searched": case.held_searched(groups),
        "order": order.tolist(),
    }


def robust(case: Judged, *, count: int | None = None, hold: float = 1.0, share: float = 0.1, **options: Any) -> Any:
    """count: how many of the searched removals are given. share: of three greedy orders' evaluations, for exchanges."""
    budget = max(1, int(share * 3 * case.num_players * (case.num_players + 1) / 2))
    games = case.searched[:count]
    found = search.robust_group(games, case.num_players, hold=hold, budget=budget, **options)
    told = {"searched": int(np.sum(np.asarray(found.searched))), "removals": len(games)}
    return group_line(case, found.group, found.num_evaluations) | told


def minimal(case: Judged) -> dict[str, Any]:
    found = search.minimal_group(case.v, case.num_players, budget=case.num_players * (case.num_players + 1) // 8)
    return group_line(case, found.group, found.num_evaluations)


def greedy(case: Judged) -> dict[str, Any]:
    found = jm.greedy_insertion(case.v, case.num_players, stop=jm.Stop(flip=True))
    group = np.isin(np.arange(case.num_players), np.asarray(found.order[: int(found.num_steps)]))
    return group_line(case, group, found.num_evaluations)


def beam(case: Judged) -> dict[str, Any]:
    found = search.beam_search(case.v, case.num_players, width=8)
    return group_line(case, found.minimal[0], found.num_evaluations)


def rival(name: str, case: Judged) -> dict[str, Any]:
    """The order of an attribution method, by the game of the photo itself."""
    method = RIVALS[name]
    given = attribution.problem(case.model, case.image, case.target, case.regions, v=case.v)
    steps = max(1, round(ONE_BY_ONE * case.num_players))
    effort = Effort(case.num_players, steps=steps, samples=min(2000, 20 * case.num_players))
    scores = method.explain(jax.random.key(0) if method.draws else None, given, **method.keywords(effort))
    order = attribution.order_of(scores, ties=jax.random.key(1))
    return order_line(case, order, method.cost(effort) if method.cost else 0)


def middle(case: Judged) -> dict[str, Any]:
    """The players from the image's centre outwards: what any method must beat."""
    rows, cols = jnp.indices(case.regions.shape)
    height, width = case.regions.shape
    away = (rows - (height - 1) / 2) ** 2 + (cols - (width - 1) / 2) ** 2
    sums = jnp.zeros(case.num_players).at[case.regions].add(away)
    sizes = jnp.zeros(case.num_players).at[case.regions].add(1.0)
    return order_line(case, np.argsort(np.asarray(sums / sizes), kind="stable"), 0)


METHODS: dict[str, Callable[[Judged], dict[str, Any]]] = {
    "robust": robust,
    "robust, hold 0.9": partial(robust, hold=0.9),
    "robust, hold 0.8": partial(robust, hold=0.8),
    "robust, 8 removals": partial(robust, count=8),
    "robust, 12 removals": partial(robust, count=12),
    "robust, connected": partial(robust, connected=True),
    "robust, hold 0.8, connected": partial(robust, hold=0.8, connected=True),
    "robust, no exchanges": partial(robust, share=0.0),
    "minimal": minimal,
    "greedy": greedy,
    "beam": beam,
    **{name: partial(rival, name) for name in ("rise", "shapley", "grad-cam", "attention-rollout", "moxi", "random")},
    "centre": middle,
}
