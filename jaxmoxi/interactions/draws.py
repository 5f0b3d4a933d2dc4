"""The coalitions that the estimators of moments and the regressions draw: by size, in pairs, always in the same order.

A *unit* is a coalition together with its complement (Covert and Lee, "Improving KernelSHAP", AISTATS 2021), or one
coalition. Units fall into *groups*: pairs by the size of the smaller coalition, single coalitions by their size. The
border, the groups nearest to nobody and everybody, is enumerated first. Of the others a group is served as often as its
weight says, and all units of a group are alike.

Up to `MOST_PLAYERS` players a unit is drawn once at most: every group has a random order, and a schedule that the key
does not touch says whose turn it is. A sample is then stratified, and with the whole budget it is everything. Above,
coalitions are so many that none of them is looked up: those of a size are drawn one by one, and the sizes follow the
schedule, or a van der Corput sequence through the weights, which starts at a random point ("shifted"): then a unit's
chance is known, whatever the budget.

The first units are the same for every budget.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from math import comb, exp, lgamma, log, log1p
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxmoxi.interactions.exact import MOST_PLAYERS


@dataclasses.dataclass(frozen=True)
class Design:
    """Which units are drawn, and how often those of each group.

    num_players: P.
    weights:     a number for each group: how often it is served. Border groups are enumerated whatever it says.
    border:      how many sizes from either end are enumerated: 1: nobody and everybody, 2: single players too, ...
    paired:      whether a unit is a coalition and its complement.
    first:       how often each group is served before the weights decide: twice gives each a mean and a spread.
    shifted:     whether the sizes of more than `MOST_PLAYERS` players are drawn by a shifted sequence.
    """

    num_players: int
    weights: tuple[float, ...]
    border: int = 2
    paired: bool = True
    first: int = 2
    shifted: bool = False

    @property
    def per_unit(self) -> int:
        """Coalitions of a unit."""
        return 2 if self.paired else 1

    @property
    def listed(self) -> bool:
        """Whether the units are drawn from a list of all."""
        return self.num_players <= MOST_PLAYERS

    def size(self, group: int) -> int:
        """How many units a group has."""
        n = self.num_players
        return comb(n, group) // (2 if self.paired and 2 * group == n else 1)

    def is_border(self, group: int) -> bool:
        """Whether all units of a group are enumerated."""
        return min(group, self.num_players - group) < self.border

    def inner(self) -> list[int]:
        """The groups that are drawn from."""
        return [g for g, w in enumerate(self.weights) if not self.is_border(g) and w > 0]

    def border_units(self) -> int:
        """How many units the border has."""
        return sum(self.size(g) for g in range(len(self.weights)) if self.is_border(g))


class Draws(NamedTuple):
    """What makes a coalition from its index: a pytree.

    border: bool[units, P], the border's units, pairs by their smaller coalition.
    rows:   int32[units], the others as bits, from a list of all; None above `MOST_PLAYERS` players.
    groups: int32[units], the groups of the others, and `key`, which draws them; None where there are rows.
    bits:   int32[P].
    paired: something where a unit is two coalitions, None where it is one: a static choice.
    """

    border: Bool[Array, "border P"]
    rows: Int[Array, "units"] | None
    groups: Int[Array, "units"] | None
    key: Array | None
    bits: Int[Array, "P"]
    paired: tuple[()] | None


def uniform_sizes(num_players: int, *, paired: bool = True) -> tuple[float, ...]:
    """Weights of groups under which all sizes are as frequent.

    So are the leverage scores of Shapley's regression: Musco and Witter, "Provably Accurate Shapley Value Estimation
    via Leverage Score Sampling", ICLR 2025.
    """
    n = num_players
    return tuple(0.5 if paired and 2 * g == n else 1.0 for g in range(n // 2 + 1 if paired else n + 1))


def binomial_sizes(num_players: int, p: float, *, paired: bool = True) -> tuple[float, ...]:
    """Weights of groups under which sizes are as frequent as where every player comes with chance p."""
    n = num_players
    logs = [log_binom(n, t) + t * log(p) + (n - t) * log1p(-p) for t in range(n + 1)]
    sizes = [exp(x) for x in logs]
    if not paired:
        return tuple(sizes)
    return tuple(sizes[g] + (sizes[n - g] if 2 * g < n else 0.0) for g in range(n // 2 + 1))


def log_binom(n: int, k: int) -> float:
    """log of n over k."""
    return lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1)


def draw(key: Array, design: Design, budget: int) -> Draws:
    """The plan of the first `budget` coalitions."""
    n, border = design.num_players, border_masks(design)
    units = max(0, -(-budget // design.per_unit) - len(border))
    bits = jnp.arange(n, dtype=jnp.int32)
    paired = () if design.paired else None
    if design.listed:
        return Draws(jnp.asarray(border), _listed(key, design, units), None, None, bits, paired)
    return Draws(jnp.asarray(border), None, _groups(key, design, units), jax.random.fold_in(key, 1), bits, paired)


def mask_of(draws: Draws, index: Array) -> Bool[Array, "P"]:
    """The coalition of an index: of unit 0, its complement, of unit 1, its complement, ...; or a unit each."""
    if draws.paired is None:
        return _unit(draws, index)
    return _unit(draws, index // 2) ^ (index % 2 == 1)


def _unit(draws: Draws, unit: Array) -> Bool[Array, "P"]:
    first = len(draws.border)
    inner = jnp.maximum(unit - first, 0)
    border = draws.border[jnp.minimum(unit, first - 1)]
    if draws.rows is not None:
        drawn = (draws.rows[inner] >> draws.bits) & 1 == 1 if len(draws.rows) else border
    else:
        assert draws.groups is not None  # the two come together
        assert draws.key is not None
        ranks = jax.random.permutation(jax.random.fold_in(draws.key, inner), draws.bits)
        drawn = ranks < draws.groups[inner] if len(draws.groups) else border
    return jnp.where(unit < first, border, drawn)


def group_of(design: Design, masks: Bool[Array, "C P"]) -> Int[Array, "C"]:
    """The groups of units, by their (smaller) coalitions."""
    sizes = masks.sum(1)
    return jnp.minimum(sizes, design.num_players - sizes) if design.paired else sizes


@functools.cache
def border_masks(design: Design) -> Bool[np.ndarray, "border P"]:
    """The units of the border, which come first; pairs by their smaller coalition."""
    n = design.num_players
    groups = [g for g in range(len(design.weights)) if design.is_border(g)]
    units = [chosen for g in groups for chosen in itertools.combinations(range(n), g)]
    if design.paired and n % 2 == 0 and n // 2 in groups:  # of a pair of halves, the one without the last player
        units = [chosen for chosen in units if 2 * len(chosen) < n or n - 1 not in chosen]
    masks = np.zeros((len(units), n), bool)
    for row, chosen in enumerate(units):
        masks[row, list(chosen)] = True
    return masks


@functools.cache
def schedule(design: Design, units: int) -> Int[np.ndarray, "units"]:
    """The groups of the first units after the border.

    Every group is served `first` times, then whichever is furthest behind its share. There are fewer than asked for
    where the list is at its end.
    """
    turns, groups = [], []
    for g in design.inner():
        count = min(design.size(g), units) if design.listed else units
        turn = (np.arange(count) + 0.5) / design.weights[g]
        first = min(design.first, count)
        turn[:first] = np.arange(first) - first
        turns.append(turn)
        groups.append(np.full(count, g, np.int32))
    if not turns:
        return np.zeros(0, np.int32)
    return np.concatenate(groups)[np.argsort(np.concatenate(turns), kind="stable")[:units]]


@functools.cache
def _inner_rows(design: Design) -> tuple[Int[np.ndarray, "R"], Int[np.ndarray, "R"]]:
    """All units of the inner groups as bits, group by group; and their groups."""
    n = design.num_players
    rows = np.arange(1 << (n - 1 if design.paired else n), dtype=np.int32)
    sizes = np.bitwise_count(rows).astype(np.int32)
    if design.paired:
        rows = np.where(2 * sizes > n, rows ^ ((1 << n) - 1), rows)
        sizes = np.minimum(sizes, n - sizes)
    kept = np.isin(sizes, design.inner())
    order = np.argsort(sizes[kept], kind="stable")
    return rows[kept][order], sizes[kept][order]


def _listed(key: Array, design: Design, units: int) -> Int[Array, "units"]:
    rows, groups = _inner_rows(design)
    served = schedule(design, units)
    if not len(served):
        return jnp.zeros(0, jnp.int32)
    noise = jax.random.bits(key, (len(rows),))
    _, _, shuffled = jax.lax.sort((jnp.asarray(groups), noise, jnp.asarray(rows)), num_keys=2)
    starts = np.searchsorted(groups, np.arange(len(design.weights)))
    places = np.zeros(len(served), np.int32)
    for g in design.inner():
        at = np.flatnonzero(served == g)
        places[at] = starts[g] + np.arange(len(at))
    return shuffled[jnp.asarray(places)]


def _groups(key: Array, design: Design, units: int) -> Int[Array, "units"]:
    if not design.shifted:
        return jnp.asarray(schedule(design, units))
    cumulative = jnp.asarray(np.cumsum(shares(design)), jnp.float32)
    points = (van_der_corput(jnp.arange(units)) + jax.random.uniform(key)) % 1.0
    return jnp.asarray(design.inner(), jnp.int32)[jnp.searchsorted(cumulative[:-1], points, side="right")]


def shares(design: Design) -> Float[np.ndarray, "inner"]:
    """The weights of the inner groups, which sum to 1."""
    weights = np.array([design.weights[g] for g in design.inner()])
    return weights / weights.sum()


def van_der_corput(index: Array) -> Float[Array, "..."]:
    """Numbers of [0, 1): the bits of the index in reverse. However many there are, they lie evenly."""
    x = jnp.asarray(index).astype(jnp.uint32)
    for shift, mask in ((1, 0x55555555), (2, 0x33333333), (4, 0x0F0F0F0F), (8, 0x00FF00FF)):
        x = ((x >> shift) & jnp.uint32(mask)) | ((x & jnp.uint32(mask)) << shift)
    x = (x >> 16) | (x << 16)
    return (x >> 8).astype(jnp.float32) * 2.0**-24


@functools.cache
def stands_for(design: Design, units: int) -> Float[np.ndarray, "groups"]:
    """By group: what a unit weighs where the mean over its group is meant, of the first `units` units.

    The border's units are all there: each weighs 1 / (units of the group). So is every unit of a group of which m were
    drawn by schedule: 1 / m. By a shifted sequence each of m units weighs 1 / (m share), over all groups.
    """
    found = np.zeros(len(design.weights))
    for g in range(len(design.weights)):
        if design.is_border(g):
            found[g] = 1 / design.size(g)
    drawn = units - design.border_units()
    if drawn <= 0:
        return found
    if design.listed or not design.shifted:
        counts = np.bincount(schedule(design, drawn), minlength=len(design.weights))
        found += np.where(counts > 0, 1 / np.maximum(counts, 1), 0)
    else:
        found[design.inner()] = 1 / (drawn * shares(design))
    return found


@functools.cache
def missed(design: Design, units: int) -> Float[np.ndarray, "groups"]:
    """By group: the share of its units that were not drawn, by which the variance of a mean is less."""
    if not design.listed:
        return np.array([0.0 if design.is_border(g) else 1.0 for g in range(len(design.weights))])
    counts = np.bincount(schedule(design, max(0, units - design.border_units())), minlength=len(design.weights))
    return np.array([0.0 if design.is_border(g) else 1 - m / design.size(g) for g, m in enumerate(counts)])


def indices_by(groups: Int[np.ndarray, "N"], labels: list[int]) -> Int[np.ndarray, "G L"]:
    """For each label, where it stands in `groups`; -1 fills up."""
    places = [np.flatnonzero(groups == label) for label in labels]
    found = np.full((len(labels), max([1, *map(len, places)])), -1, np.int32)
    for row, at in zip(found, places, strict=True):
        row[: len(at)] = at
    return found


__all__ = [
    "Design",
    "Draws",
    "binomial_sizes",
    "border_masks",
    "draw",
    "group_of",
    "indices_by",
    "mask_of",
    "missed",
    "schedule",
    "shares",
    "stands_for",
    "uniform_sizes",
    "van_der_corput",
]
