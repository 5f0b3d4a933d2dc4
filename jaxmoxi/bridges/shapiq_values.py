"""Interaction values as shapiq's `InteractionValues`, on which its plots work, and back.

shapiq's names of the indices are those of `jaxmoxi.interactions.INDICES`; of those here it has all but OR. Its own rule
renames what an order of 1 makes the same: such values are called SV or BV there, whatever index they came from.

Source: Muschalik et al., "shapiq: Shapley Interactions for Machine Learning", NeurIPS 2024, and its
`shapiq.InteractionValues`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np

from jaxmoxi.errors import InputError
from jaxmoxi.interactions.indices import INDICES
from jaxmoxi.interactions.result import Interactions

if TYPE_CHECKING:
    from shapiq import InteractionValues

# The value that these give to the empty set is an index of it, not v of nobody, and `Interactions` does not hold it.
_EMPTY_IS_ANOTHER = ("SII", "BII", "BV")


def to_shapiq(x: Interactions) -> InteractionValues:
    """The values as a `shapiq.InteractionValues`: for its plots (`network_plot`, `upset_plot`, ...) and its explainers.

    x: of one image. An index of an order of 1 is called SV or BV there, as shapiq does with its own.

    `estimated` is False where all 2^P coalitions were evaluated and no standard error is stated; `estimation_budget` is
    then None, and the number of evaluations otherwise (None where that is 0, which means not known). The empty set has
    the baseline (`min_order` 0), but for SII, BII and BV, whose own value of the empty set is not known here
    (`min_order` 1). Standard errors and the faithfulness have no place in shapiq and are left out.

    Raises ImportError without shapiq; ValueError for an index that shapiq does not know (OR), and for several images.
    """
    shapiq = _shapiq("to_shapiq")
    from shapiq.game_theory.indices import get_index_from_computation_index, is_index_valid

    if not isinstance(x, Interactions):
        raise InputError(f"expected interactions of jm.interactions; got {type(x).__name__}")
    if x.values.ndim != 1:
        raise InputError(
            f"expected the interactions of one image, values [M]; got values {list(x.values.shape)}: take one of them, "
            "such as jax.tree.map(lambda leaf: leaf[0], x)"
        )
    if not is_index_valid(x.index):
        known = ", ".join(name for name in INDICES if is_index_valid(name))
        raise InputError(f"shapiq has no index {x.index!r}; of those here it has {known}")
    sets, values, baseline = np.asarray(x.sets), np.asarray(x.values, np.float64), float(x.baseline)
    named = get_index_from_computation_index(x.index, x.order)
    least = 1 if named in _EMPTY_IS_ANOTHER and not INDICES[x.index].intercept else 0
    scores = {tuple(int(i) for i in row if i >= 0): float(value) for row, value in zip(sets, values, strict=True)}
    count = int(x.num_evaluations)
    return shapiq.InteractionValues(
        scores if least else {(): baseline} | scores,
        index=x.index,
        max_order=x.order,
        n_players=x.num_players,
        min_order=least,
        estimated=x.estimated,
        estimation_budget=(count or None) if x.estimated else None,
        baseline_value=baseline,
    )


def from_shapiq(values: InteractionValues) -> Interactions:
    """A `shapiq.InteractionValues` as interactions, which `jm.plot` draws.

    Sets that shapiq left out, because they are 0 or were never estimated, have no value here either. `num_evaluations`
    is its budget, 0 where it states none; of exact values 2^P. There are no standard errors, for shapiq has none.

    Raises ImportError without shapiq; ValueError for an index that is not one of `jm.interactions.INDICES` (kADD-SHAP,
    JointSV, ...), and for sets that do not fit the number of players and the order.
    """
    shapiq = _shapiq("from_shapiq")
    if not isinstance(values, shapiq.InteractionValues):
        raise InputError(f"expected a shapiq.InteractionValues; got {type(values).__name__}")
    if values.index not in INDICES:
        raise InputError(f"jaxmoxi has no index {values.index!r}; of shapiq's it has {', '.join(INDICES)}")
    players, order = int(values.n_players), int(values.max_order)
    scores = {tuple(sorted(map(int, members))): float(value) for members, value in values.interactions.items()}
    baseline = float(values.baseline_value)
    empty = scores.pop((), baseline)
    if INDICES[values.index].intercept:  # of a fitted game, which shapiq's estimates keep there alone
        baseline = empty
    ordered = sorted(scores, key=lambda members: (len(members), members))
    wrong = [s for s in ordered if len(s) > order or len(set(s)) < len(s) or s[0] < 0 or s[-1] >= players]
    if wrong or not ordered:
        what = f"the set {wrong[0]}" if wrong else "none"
        raise InputError(
            f"expected values of sets of up to {order} different players of 0 .. {players - 1}; got {what}"
        )
    rows = np.full((len(ordered), order), -1, np.int32)
    for row, members in zip(rows, ordered, strict=True):
        row[: len(members)] = members
    exact = 0 if players > 30 else 2**players
    return Interactions(
        sets=jnp.asarray(rows),
        values=_floats([scores[members] for members in ordered]),
        baseline=_floats(baseline),
        num_evaluations=int(values.estimation_budget or 0) if values.estimated else exact,
        index=values.index,
        order=order,
        num_players=players,
    )


def _floats(numbers: Any) -> Any:
    return jnp.asarray(np.asarray(numbers, np.float64), dtype=jnp.result_type(float))


def _shapiq(name: str) -> Any:
    try:
        import shapiq
    except ImportError as error:
        raise ImportError(f"{name} needs shapiq: pip install 'jaxmoxi[shapiq]' ({error})") from error
    return shapiq
