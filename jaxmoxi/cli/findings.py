"""What `jaxmoxi interactions` found, in words: the answer, the table, and how far it is to be believed."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from jaxmoxi.escape import printable
from jaxmoxi.interactions.indices import INDICES
from jaxmoxi.interactions.result import Interactions
from jaxmoxi.plot.sets import members_of, numbers, set_name

_PRINTED = 10  # sets in the table
_FAITHFUL = 0.5  # R^2 below which an estimate is doubted aloud


class Found(NamedTuple):
    """The interactions, v of all players, and R^2 of the reconstruction over all coalitions if those are known."""

    x: Interactions
    total: float
    r2: float | None


def is_model(index: str) -> bool:
    """Whether the sum of an index over the sets in a coalition is meant to be the coalition's value."""
    row = INDICES[index]
    return row.efficient or row.intercept or index in ("Moebius", "OR", "SV")


def describe(x: Interactions, name: str) -> str:
    """The answer in one sentence. name: of the class explained."""
    size = (np.asarray(x.sets) >= 0).sum(1)
    largest = [x.top(1, size=int(s)) for s in sorted(set(size.tolist()))]
    told = [f"{_noun(members_of(top)[0])} ({numbers(top.values)[0]})" for top in largest]
    return f"strongest for {name!r}: {', '.join(told)}"


def _noun(members: list[int]) -> str:
    return f"{'region' if len(members) == 1 else 'regions'} {set_name(members)}"


def table(x: Interactions, unit: str) -> str:
    """The strongest sets, one a line, with their standard errors where they are known."""
    top = x.top(_PRINTED)
    names, values = [set_name(members) for members in members_of(top)], numbers(top.values)
    wide = max(len(name) for name in [*names, "regions"])
    errors = [""] * len(names)
    if top.standard_errors is not None:
        told = numbers(top.standard_errors, like=top.values)
        errors = [f"  ± {error[1:]}" for error in told]
    head = f"{'regions':<{wide}}  {x.index} of order {x.order}, {unit}{' (± 1 standard error)' if errors[0] else ''}"
    lines = [f"{a:<{wide}}  {b:>8}{c}" for a, b, c in zip(names, values, errors, strict=True)]
    return "\n".join([printable(head), *lines])


def fit(found: Found) -> str:
    """How faithful the values are, in a line."""
    x = found.x
    if found.r2 is not None:
        return f"faithfulness: the sets up to order {x.order} give all coalitions with R² {found.r2:.3f}"
    none = f"{x.index} of order {x.order} is no model of the value"
    if x.faithfulness is not None:
        told = f"faithfulness: R² {float(x.faithfulness):.3f} on coalitions that no value was fitted to"
        return told if is_model(x.index) else f"{told}; {none}"
    return f"faithfulness: not measured{'' if is_model(x.index) else f', for {none}'}"


def doubt(x: Interactions) -> str | None:
    """What has to be told of an estimate whose sets sum to little of the value."""
    if x.faithfulness is None or not is_model(x.index) or float(x.faithfulness) >= _FAITHFUL:
        return None
    told = f"the sets sum to little of the value (R² {float(x.faithfulness):.2f} on coalitions not used in the fit)"
    if x.index in ("FSII", "FBII"):  # which are fitted to it
        return f"{told}: give a larger --budget, fewer regions or another order before they are believed"
    return (
        f"{told}: give a larger --budget or fewer regions; or take FSII or FBII, which are fitted to the value, as "
        f"{x.index} can be far from it even where it is exact"
    )
