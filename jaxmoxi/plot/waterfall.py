"""From the baseline to the value of all players, set by set; `jaxmoxi.plot.figures` says what all pictures share."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from jaxmoxi.errors import InputError
from jaxmoxi.interactions.indices import INDICES
from jaxmoxi.interactions.result import Interactions
from jaxmoxi.plot.sets import (
    LESS,
    MORE,
    bar_handles,
    below,
    check_count,
    checked,
    count_of_sets,
    members_of,
    number,
    numbers,
    set_name,
)
from jaxmoxi.plot.strokes import INK, draw_caption, drawn, new_figure, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["waterfall"]

_EXACT = 1e-4  # of the largest value: what float32 leaves over is no remainder


class Step(NamedTuple):
    """One bar: what it is called, by how much it moves the value, its standard error if known, what kind it is."""

    name: str
    change: float
    error: float | None
    kind: str  # "set", "rest" or "remainder"


def waterfall(
    x: Interactions,
    *,
    k: int = 10,
    total: float | None = None,
    unit: str = "payoff",
    title: str | None = None,
    caption: str | None = None,
) -> Figure:
    """From the baseline by the k strongest sets, and all others in one bar, to the value of all players.

    Efficient indices (`jm.interactions.INDICES[x.index].efficient`) sum to it. Others do not: the last level is then
    the sum of the values, and the picture says so; with `total` given, a hatched bar is what is left over, with the
    reason.

    x:       interactions of one image (`jm.interactions`), of any order.
    k:       how many sets have a bar of their own, >= 1, by their absolute value.
    total:   v of all players, if known. None draws no remainder.
    unit:    what the values are in, for the label of the axis.
    caption: a line below the picture, under the one on where the values come from.
    """
    x = checked(x)
    k = check_count("k", "sets", k)
    if total is not None and not np.isfinite(total):
        raise InputError(f"total is v of all players, a finite number; got {total}")
    start = float(x.baseline)
    steps = steps_of(x, k, total)
    levels = start + np.cumsum([0.0, *[step.change for step in steps]])
    row = INDICES.get(x.index)
    first = "intercept of the fit" if row is not None and row.intercept else "v of nobody"
    last, why = _end(x, steps, total)

    figure = new_figure(6.4, 0.27 * (len(steps) + 2) + 1.6, title)
    axes = figure.add_subplot()
    span = float(np.ptp(levels)) or 1.0
    texts = numbers([step.change for step in steps], like=[step.change for step in steps if step.kind == "set"])
    errors = numbers([step.error or 0.0 for step in steps], like=[step.change for step in steps if step.kind == "set"])
    for i, (step, level) in enumerate(zip(steps, levels[:-1], strict=True)):
        colour = MORE if step.change >= 0 else LESS
        look = {"set": {"color": colour}, "rest": {"color": colour, "alpha": 0.45},
                "remainder": {"facecolor": "white", "edgecolor": colour, "hatch": "////"}}[step.kind]  # fmt: skip
        axes.barh(i + 1, step.change, 0.68, left=level, gid=step.kind, **look)
        told = texts[i] + ("" if step.error is None else f" ± {errors[i][1:]}")
        right = step.change >= 0
        axes.annotate(told, (level + step.change, i + 1), (4 if right else -4, 0), textcoords="offset points",
                      ha="left" if right else "right", va="center", fontsize=8, color=INK)  # fmt: skip
    for i, level in enumerate(levels):  # from the end of each bar to the start of the next
        axes.plot([level, level], [i - 0.34, i + 1.34], color=INK, linewidth=0.7, linestyle=":", zorder=0)
    for place, level in ((0, start), (len(steps) + 1, levels[-1])):
        axes.plot(level, place, marker="D", markersize=5, color=INK)
        axes.annotate(number(level, sign=False), (level, place), (7, 0), textcoords="offset points", va="center",
                      fontsize=8, fontweight="bold", color=INK)  # fmt: skip
    names = [first, *[step.name for step in steps], last]
    axes.set_yticks(range(len(names)), labels=names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlim(levels.min() - 0.2 * span, levels.max() + 0.2 * span)
    style(axes, drawn(unit, width=5.0, size=9.0), "")
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    axes.legend(handles=bar_handles(), loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2, fontsize=8, frameon=False)
    draw_caption(figure, below(x, why, caption))
    return figure


def steps_of(x: Interactions, k: int, total: float | None) -> list[Step]:
    """The bars from the baseline on: k sets, the others together, and what is left over to `total` if that is known."""
    top = x.top(k)
    values, errors = np.asarray(top.values, np.float64), top.standard_errors
    steps = [
        Step(set_name(members), float(value), None if errors is None else float(errors[i]), "set")
        for i, (members, value) in enumerate(zip(members_of(top), values, strict=True))
    ]
    everything = float(np.asarray(x.values, np.float64).sum())
    others = len(x.values) - len(values)
    if others:
        name = f"the other {others:,} set{'s'[: others > 1]}"
        steps.append(Step(name, everything - float(values.sum()), None, "rest"))
    if total is not None:
        left = total - float(x.baseline) - everything
        if abs(left) > _EXACT * max(abs(total), abs(float(x.baseline)), float(np.abs(values).max())):
            steps.append(Step("left over", left, None, "remainder"))
    return steps


def _end(x: Interactions, steps: list[Step], total: float | None) -> tuple[str, str | None]:
    """(what the last level is called, what has to be told of it)."""
    row = INDICES.get(x.index)
    efficient = row is not None and row.efficient
    possible = count_of_sets(x)
    whole = len(x.values) == possible
    everybody = f"v of all {x.num_players} players"
    if whole and efficient:
        reason = "the error of the estimate"
    elif whole:
        reason = f"{x.index or 'the index'} of order {x.order} does not sum to v of all players"
        reason += ", and the error of the estimate" if x.estimated else ""
    else:
        reason = f"the {possible - len(x.values):,} sets without a value"
        reason += ", and the error of the estimate" if x.estimated else ""
        reason += "" if efficient else f"; {x.index or 'the index'} does not sum to v of all players either"
    if total is not None:
        return everybody, f"left over: {reason}" if steps[-1].kind == "remainder" else None
    if whole and efficient:
        return (f"{everybody}, estimated" if x.estimated else everybody), None
    if whole:
        return "sum of the values", f"{x.index or 'the index'} of order {x.order} does not sum to v of all players"
    return "sum of the values", f"{len(x.values):,} of {possible:,} sets have a value, so this is not v of all players"
