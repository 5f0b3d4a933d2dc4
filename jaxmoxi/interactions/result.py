"""What an interaction index says of a game: sets of players and their values."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt32

from jaxmoxi.errors import InputError
from jaxmoxi.games.differences import Parts
from jaxmoxi.pytrees import record, static


@record
class Interactions:
    """The values of an index for all sets of up to `order` players, or for those that an estimate kept.

    sets:            int32[M, order], the players of each set, ascending; -1 stands for no player.
    values:          float32[M], the index of each set.
    baseline:        float32[], the value of the empty set: v of nobody, or the intercept of a fitted game.
    standard_errors: float32[M], of the values; None if not known. Exact values have none.
    faithfulness:    float32[], R^2 of `reconstruct` on coalitions that no value was fitted to; None if not measured.
    num_evaluations: int32[], coalitions that were evaluated.
    evaluated:       the values of an estimate's coalitions (`games.differences.Parts`), from which it is continued.
    key:             uint32[words], the data of the key of an estimate's coalitions; else None.
    index:           static; the name of the index.
    order:           static; the largest set that was asked for.
    num_players:     static; P.
    p:               static; the probability of a player to be there, for Banzhaf's indices.
    method:          static; the method of an estimate; "" for exact values.
    """

    sets: Int[Array, "*batch M order"]
    values: Float[Array, "*batch M"]
    baseline: Float[Array, "*batch"]
    standard_errors: Float[Array, "*batch M"] | None = None
    faithfulness: Float[Array, "*batch"] | None = None
    num_evaluations: Int[Array, "*batch"] | int = 0
    evaluated: Parts | None = None
    key: UInt32[Array, "*batch words"] | None = None
    index: str = static(default="")
    order: int = static(default=1)
    num_players: int = static(default=1)
    p: float = static(default=0.5)
    method: str = static(default="")

    @property
    def estimated(self) -> bool:
        """Whether the values are an estimate: not all coalitions were evaluated, or a standard error is stated."""
        return self.standard_errors is not None or int(self.num_evaluations) < 2**self.num_players

    def of(self, *players: int) -> Float[Array, ""]:
        """The value of one set of players, in whatever order they are given; of none, the baseline.

        Raises ValueError for a player that is none, one given twice, and a set that has no value here.
        """
        wanted = sorted(int(i) for i in players)
        if any(not 0 <= i < self.num_players for i in wanted) or len(set(wanted)) < len(wanted):
            raise InputError(f"expected different players from 0 to {self.num_players - 1}; got {list(players)}")
        if not wanted:
            return self.baseline
        row = np.array(wanted + [-1] * (self.order - len(wanted)))
        found = np.flatnonzero((np.asarray(self.sets) == row).all(1)) if len(wanted) <= self.order else []
        if len(found) == 0:
            raise InputError(f"{self.index} of order {self.order} has no value for the set {wanted}")
        return self.values[int(found[0])]

    def first_order(self) -> Float[Array, "P"]:
        """float32[P], the values of single players; 0 where there is none."""
        alone = jnp.ones(len(self.sets), bool) if self.order == 1 else self.sets[:, 1] < 0
        at = jnp.where(alone, self.sets[:, 0], self.num_players)
        return jnp.zeros(self.num_players, self.values.dtype).at[at].set(self.values, mode="drop")

    def matrix(self) -> Float[Array, "P P"]:
        """float32[P, P], symmetric: the values of pairs, and on the diagonal those of single players.

        0 where a set has no value here. Raises ValueError for an order below 2.
        """
        if self.order < 2:
            raise InputError("a matrix shows pairs: it needs order 2 or more")
        size = (self.sets >= 0).sum(1)
        i = jnp.where(size <= 2, self.sets[:, 0], self.num_players)
        j = jnp.where(size == 2, self.sets[:, 1], i)
        blank = jnp.zeros((self.num_players, self.num_players), self.values.dtype)
        return blank.at[i, j].set(self.values, mode="drop").at[j, i].set(self.values, mode="drop")

    def top(self, k: int, *, size: int | None = None) -> Interactions:
        """The k sets of the largest values in absolute terms, the largest first; only those of `size` players if given.

        Fewer where there are no more. Raises ValueError for k below 1 and a size that is none.
        """
        if k < 1 or (size is not None and not 1 <= size <= self.order):
            raise InputError(f"expected k of at least 1 and a size from 1 to {self.order}; got {k} and {size}")
        strength = np.abs(np.asarray(self.values, np.float64))
        fits = np.ones(len(strength), bool) if size is None else (np.asarray(self.sets) >= 0).sum(1) == size
        rows = np.flatnonzero(fits)
        return self.select(rows[np.argsort(-strength[rows], kind="stable")][:k])

    def select(self, rows: Any) -> Interactions:
        """The same for some of the sets, by their rows."""
        rows = jnp.asarray(rows)
        errors = None if self.standard_errors is None else self.standard_errors[rows]
        return self.replace(sets=self.sets[rows], values=self.values[rows], standard_errors=errors)

    def replace(self, **changes: Any) -> Interactions:
        """The same with other fields."""
        import dataclasses

        return dataclasses.replace(self, **changes)

    def reconstruct(self, masks: Any) -> Float[Array, "C"]:
        """float32[C], what the values say coalitions bool[C, P] are worth: the baseline and all sets within each.

        For k-SII, STII, FSII, FBII and the Moebius transform this is the game of the order nearest in their sense; for
        "OR", all sets that a coalition meets. Raises ValueError for masks of another shape.
        """
        masks = jnp.asarray(masks)
        if masks.ndim != 2 or masks.shape[1] != self.num_players or masks.dtype != bool:
            raise InputError(f"expected masks bool[C, {self.num_players}]; got {masks.dtype}{list(masks.shape)}")
        if self.order <= 2 and self.index != "OR":
            x = masks.astype(self.values.dtype)
            singles, pairs = self.first_order(), jnp.triu(self.matrix(), 1) if self.order == 2 else None
            sums = jnp.matmul(x, singles, precision="highest")
            return self.baseline + sums if pairs is None else self.baseline + sums + _pair_sums(x, pairs)
        present = self.sets >= 0
        there = masks[:, jnp.maximum(self.sets, 0)]  # [C, M, order]
        counts = (there & present).any(2) if self.index == "OR" else (there | ~present).all(2)
        return self.baseline + counts.astype(self.values.dtype) @ self.values


def _pair_sums(x: Array, pairs: Array) -> Array:
    """The sum over pairs within each row."""
    return jnp.sum(jnp.matmul(x, pairs, precision="highest") * x, axis=1)
