"""The searches that are compared, by name: from a photo's game to a line of JSON."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

import jaxmoxi as jm
from _search.cases import Case
from _search.rows import FEW, GRADIENT, group_row, order_row, ordered
from jaxmoxi import search


def screened(insertion: bool, scorer: Any) -> Callable[[Case], dict[str, Any]]:
    def run(case: Case) -> dict[str, Any]:
        guess = search.class_attention(case.model, case.image) if scorer == "attention" else scorer
        found = search.screened_greedy(case.v, case.num_players, insertion=insertion, scorer=guess)
        row = order_row(case, found.greedy, insertion, int(found.num_gradients))
        return row | {"audits": int(found.num_audits), "missed": int(found.num_missed), "regret": float(found.regret)}

    return run


def backward_forward(insertion: bool, group: bool = False) -> Callable[[Case], dict[str, Any]]:
    """With a group: one that is enough comes first."""

    def run(case: Case) -> dict[str, Any]:
        given = search.backward_elimination(case.v, case.num_players, insertion=insertion) if group else None
        found = search.backward_forward_order(
            case.v, case.num_players, insertion=insertion, first=None if given is None else given.group
        )
        forwards = int(found.num_evaluations) + GRADIENT * int(found.num_gradients)
        return ordered(case, found.order, insertion, forwards + (0 if given is None else int(given.num_evaluations)))

    return run


def two_ends(insertion: bool) -> Callable[[Case], dict[str, Any]]:
    """The front of the order by screened greedy (an eighth of an insertion, a third of a deletion, whose first players
    weigh most), the rest from the other end."""

    def run(case: Case) -> dict[str, Any]:
        stop = jm.Stop(size=max(1, case.num_players // (8 if insertion else 3)))
        found = search.screened_greedy(case.v, case.num_players, insertion=insertion, stop=stop)
        whole = search.complete_order(case.v, found.greedy)
        gradients = int(found.num_gradients) + int(whole.num_gradients)
        forwards = int(found.greedy.num_evaluations) + int(whole.num_evaluations) + GRADIENT * gradients
        row = ordered(case, whole.order, insertion, forwards)
        return row | {"audits": int(found.num_audits), "missed": int(found.num_missed), "regret": float(found.regret)}

    return run


def exact(insertion: bool) -> Callable[[Case], dict[str, Any]]:
    run = jm.greedy_insertion if insertion else jm.greedy_deletion
    return lambda case: order_row(case, run(case.v, case.num_players), insertion)


def blocks(choose: Any, count: int, insertion: bool) -> Callable[[Case], dict[str, Any]]:
    return lambda case: order_row(
        case,
        search.blockwise_greedy(case.v, case.num_players, players_per_step=count, choose=choose, insertion=insertion),
        insertion,
    )


def single(insertion: bool) -> Callable[[Case], dict[str, Any]]:
    def run(case: Case) -> dict[str, Any]:
        order = jm.single_player_order(case.v, case.num_players, insertion=insertion)
        return ordered(case, order, insertion, case.num_players + 1)

    return run


def greedy_group(insertion: bool) -> Callable[[Case], dict[str, Any]]:
    def run(case: Case) -> dict[str, Any]:
        search_ = jm.greedy_insertion if insertion else jm.greedy_deletion
        found = search_(case.v, case.num_players, stop=jm.Stop(flip=True))
        group = np.isin(np.arange(case.num_players), np.asarray(found.order[: int(found.num_steps)]))
        return group_row(case, group, found.num_evaluations, insertion)

    return run


def minimal(insertion: bool, share: float = 1.0) -> Callable[[Case], dict[str, Any]]:
    def run(case: Case) -> dict[str, Any]:
        budget = int(share * case.num_players * (case.num_players + 1) // 2)
        found = search.minimal_group(case.v, case.num_players, insertion=insertion, budget=budget)
        return group_row(case, found.group, found.num_evaluations, insertion)

    return run


def eliminated(case: Case) -> dict[str, Any]:
    found = search.backward_elimination(case.v, case.num_players)
    return group_row(case, found.group, found.num_evaluations)


def beam(case: Case) -> dict[str, Any]:
    found = search.beam_search(case.v, case.num_players, width=8)
    return group_row(case, found.minimal[0], found.num_evaluations)


def both(case: Case) -> dict[str, Any]:
    found = search.necessary_and_sufficient(case.v, case.num_players)
    return group_row(case, found.group, found.num_evaluations) | {"kind": "necessary and sufficient"}


def beam_few(case: Case) -> dict[str, Any]:
    """The best group of 4 % of the players, by the class's lead over the others."""
    at = max(1, round(FEW * case.num_players))
    found = search.beam_search(case.v.with_payoff("margin"), case.num_players, width=8, max_size=at)
    leads = bool(case.v.leads(found.groups[at : at + 1])[0])
    return {"kind": "4 % visible", "leads": leads, "forwards": int(found.num_evaluations)}


METHODS: dict[str, Callable[[Case], dict[str, Any]]] = {
    "greedy group": greedy_group(True),
    "backward elimination": eliminated,
    "minimal group": minimal(True),
    "minimal group, a quarter of the budget": minimal(True, 0.25),
    "beam of 8": beam,
    "best 4 %, beam of 8": beam_few,
    "greedy necessary group": greedy_group(False),
    "minimal necessary group": minimal(False),
    "minimal necessary group, a quarter of the budget": minimal(False, 0.25),
    "necessary and sufficient": both,
    **{
        f"{name} {'insertion' if insertion else 'deletion'}": make(insertion)
        for insertion in (True, False)
        for name, make in {
            "exact": exact,
            "single": single,
            "screened, completed": two_ends,
            "mixed": lambda i: screened(i, "mixed"),
            "backward, forward": backward_forward,
            "group, backward, forward": partial(backward_forward, group=True),
            "stale": lambda i: screened(i, "stale"),
            "gradient": lambda i: screened(i, "gradient"),
            "attention": lambda i: screened(i, "attention"),
            "two together": lambda i: blocks("together", 2, i),
            "top four": lambda i: blocks("top", 4, i),
            "both ends": lambda i: (
                lambda case: order_row(case, search.bidirectional_greedy(case.v, case.num_players, insertion=i), i)
            ),
        }.items()
    },
}
