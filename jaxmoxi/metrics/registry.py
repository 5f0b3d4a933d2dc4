"""The registry of what a study measures: all that the rest of the package knows about a metric stands in its entry.

A metric is a function and an entry, in one file of this folder:

    def measure(explained: Explained) -> Iterator[Number]:
        for method, order in zip(explained.methods, explained.orders[:, 0], strict=True):
            yield Number("first player", method, "", float(order[0]))

    register(Metric("first", measure, columns=(Column("first player", higher=True),), help="the first player's index"))

`jaxmoxi.metrics` imports every file of its folder. A study's table, report and figures, and the command's help then
take the metric from `METRICS`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key, Num, UInt8

from jaxmoxi.attribution.game import Problem
from jaxmoxi.errors import InputError
from jaxmoxi.games.base import ValueFn
from jaxmoxi.models.classifier import Classifier

Direction = Literal["insertion", "deletion"]
DIRECTIONS: tuple[Direction, Direction] = ("insertion", "deletion")


@dataclasses.dataclass(frozen=True)
class Explained:
    """One photo under one model, explained by M methods: what a metric measures.

    key:        of this photo; a metric that draws at random gives every method the same draws.
    model:      the classifier.
    image:      float32[H, W, 3], as the model wants it (normalised).
    target:     the class explained.
    regions:    int32[H, W], labels 0 .. P-1: the players.
    methods:    M names of `jaxmoxi.attribution.METHODS`.
    scores:     float32[M, 2, P], higher is more important, for insertion and for deletion.
    orders:     int32[M, 2, P], the same as orders, most important first.
    games:      the game of these players for each way of removing them, by its name.
    sizes:      ascending group sizes in 0 .. P at which curves are to be measured, 0 and P among them.
    objects:    bool[H, W], True on the photo's objects; None where it has no boxes and no mask.
    batch_size: coalitions in one forward pass, all devices together; None chooses.
    share:      what the horizontal axis of curves counts: "pixels" of the image, or "players".
    problem:    what the methods explained; None: not told, and nothing that needs it is measured.
    photo:      uint8[H, W, channels], what the model sees of the photo, before it was normalised; None: not told.
    """

    key: Key[Array, ""]
    model: Classifier
    image: Num[Array, "H W channels"]
    target: int
    regions: Int[Array | np.ndarray, "H W"]
    methods: tuple[str, ...]
    scores: Float[np.ndarray, "M 2 P"]
    orders: Int[np.ndarray, "M 2 P"]
    games: Mapping[str, ValueFn]
    sizes: Sequence[int]
    objects: Bool[Array | np.ndarray, "H W"] | None = None
    batch_size: int | None = None
    share: Literal["players", "pixels"] = "pixels"
    problem: Problem | None = None
    photo: UInt8[np.ndarray, "H W channels"] | None = None


class Number(NamedTuple):
    """One number that was measured: a row of a study's table.

    column:  the name of one of the metric's columns.
    method:  which of the methods it is of.
    removal: how players were hidden, as `Explained.games` or the metric's own `removals` call it; "" if none were.
    value:   NaN where it is not defined; means over photos leave it out.
    """

    column: str
    method: str
    removal: str
    value: float


class Line(NamedTuple):
    """One curve that was measured; figures show its mean over photos.

    metric, method, removal: as in `Metric` and `Number`.
    direction: along which order, such as "insertion".
    quantity:  what was measured, such as "probabilities".
    shares:    float64[S], ascending in [0, 1]: how much was inserted (removed).
    values:    float32[S].
    """

    metric: str
    method: str
    removal: str
    direction: str
    quantity: str
    shares: Float[np.ndarray, "S"]
    values: Float[np.ndarray, "S"]


class Column(NamedTuple):
    """One kind of number.

    name:   as in the table; no other column has it.
    higher: whether more of it is better.
    digits: how many decimals the report shows.
    """

    name: str
    higher: bool
    digits: int = 3


class Panels(NamedTuple):
    """The figure of a metric's lines, of values in [0, 1]: a row of panels for each quantity, a column for each
    direction.

    quantities: (quantity, label of the vertical axis) of each row.
    directions: (direction, title, label of the horizontal axis, in percent) of each column.
    """

    quantities: tuple[tuple[str, str], ...]
    directions: tuple[tuple[str, str, str], ...]


@dataclasses.dataclass(frozen=True)
class Metric:
    """One thing that a study measures.

    name:          as in `METRICS`.
    measure:       what is measured of one photo, for all its methods.
    columns:       the kinds of numbers that `measure` yields, in the order in which tables show them.
    help:          what the metric asks, in a few words.
    methods:       those without which there is nothing to measure.
    needs_objects: the metric compares with boxes or masks; photos without them are not measured.
    by_default:    measured where a study names no metrics.
    removals:      (name, title in the report) of ways of hiding players that are the metric's own.
    panels:        the figure of the metric's lines; None: no figure.
    cost:          about how many evaluations of the model it takes for so many (methods, sizes of curves, ways of
                   removing players); studies tell from it how long they will take. None: next to nothing.
    note:          what the report says of curves that are measured at these sizes instead of all; None: nothing.
    place:         metrics are measured and listed in ascending order of their place, by name where two share one.
    """

    name: str
    measure: Callable[[Explained], Iterable[Number | Line]]
    _: dataclasses.KW_ONLY
    columns: tuple[Column, ...]
    help: str
    methods: tuple[str, ...] = ()
    needs_objects: bool = False
    by_default: bool = True
    removals: tuple[tuple[str, str], ...] = ()
    panels: Panels | None = None
    cost: Callable[[int, int, int], int] | None = None
    note: Callable[[Sequence[int]], str] | None = None
    place: int = 500


_metrics: dict[str, Metric] = {}
METRICS: Mapping[str, Metric] = MappingProxyType(_metrics)


def register(metric: Metric) -> Metric:
    """Adds a metric to `METRICS` and returns it.

    Raises ValueError for a name, a column or a removal that another metric has.
    """
    others = list(_metrics.values())
    for what, own, taken in (
        ("name", [metric.name], [m.name for m in others]),
        ("column", [c.name for c in metric.columns], [c.name for m in others for c in m.columns]),
        ("removal", [r for r, _ in metric.removals], [r for m in others for r, _ in m.removals]),
    ):
        if repeated := sorted(set(own) & set(taken)):
            raise InputError(f"expected a {what} that no other metric has; got {repeated[0]!r}, which is taken")
    listed = sorted([*others, metric], key=lambda m: (m.place, m.name))
    _metrics.clear()
    _metrics.update({m.name: m for m in listed})
    return metric


def all_columns() -> dict[str, Column]:
    """The columns of all metrics by their names, in the order in which tables show them."""
    return {column.name: column for metric in METRICS.values() for column in metric.columns}
