"""What a method is worth on one photo, as the numbers of a line of JSON."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

import jaxmoxi as jm
from _search.cases import Case
from jaxmoxi import search
from jaxmoxi.moxi.curves import trapezoid_area

GRADIENT = 3  # forward passes that a forward and a backward pass take
FEW, MANY = 0.04, 0.10  # the shares of players at which accuracy is read: visible, and removed


def order_row(case: Case, result: jm.GreedyResult, insertion: bool, gradients: int = 0) -> dict[str, Any]:
    assert result.probabilities is not None
    assert result.leads is not None
    curve = jnp.concatenate([jnp.atleast_1d(jnp.asarray(result.start_probability)), result.probabilities])
    leads = jnp.concatenate([jnp.atleast_1d(jnp.asarray(result.start_leads)), result.leads])
    return curve_row(case.num_players, curve, leads, insertion, int(result.num_evaluations) + GRADIENT * gradients)


def ordered(case: Case, order: Any, insertion: bool, forwards: int) -> dict[str, Any]:
    result = (jm.insertion_curve if insertion else jm.deletion_curve)(case.v, order)
    return curve_row(case.num_players, result.probabilities, result.leads, insertion, forwards)


def curve_row(num_players: int, curve: Any, leads: Any, insertion: bool, forwards: int) -> dict[str, Any]:
    """What an order is worth: the area under the class's probability, and whether the class leads at the shares."""
    return {
        "kind": "insertion" if insertion else "deletion",
        "area": float(trapezoid_area(curve)),
        "leads": bool(leads[max(1, round((FEW if insertion else MANY) * num_players))]),
        "forwards": forwards,
        "curve": [round(float(p), 4) for p in curve],
    }


def group_row(case: Case, group: Any, forwards: Any, insertion: bool = True) -> dict[str, Any]:
    """A group's size, in which share of other maskings and small shifts it holds, and whether the class leads at the
    shares: with no more players visible, by this group; or with no more removed, in spite of it."""
    fills = (0.0, "blur") if case.model.token_grid is None else (0.0, "mean", "blur")
    others = search.alternatives(case.model, case.image, case.target, case.regions, fills=fills)
    held = search.stability(others, jnp.asarray(group), insertion=insertion)
    assert held.leads is not None
    share = float(jnp.mean(held.leads == insertion))
    kind = "sufficient" if insertion else "necessary"
    size = int(np.sum(group))
    within = size <= max(1, round((FEW if insertion else MANY) * len(group)))
    return {"kind": kind, "size": size, "stable": share, "leads": within == insertion, "forwards": int(forwards)}
