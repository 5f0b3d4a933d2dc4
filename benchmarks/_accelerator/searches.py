"""Searches that ask again and again, and interactions: how long, and how much of it the coalitions take."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

import jaxmoxi as jm
from _accelerator.run import Run

_MOST = 15.0  # seconds of the repeats of one row


def measure(run: Run) -> None:
    """Rows: a minimal group within a budget; all coalitions of few players; pairs of many from a sample."""
    sizes = run.sizes
    dtype, flops = sizes.search_dtype, run.subjects.flops()

    v, players = run.subjects.game(dtype, side=sizes.side)
    run.row(
        f"minimal group of {players} players within {sizes.budget} evaluations, {dtype}",
        lambda: _timed(
            run,
            lambda: jm.search.minimal_group(v, players, budget=sizes.budget),
            lambda found: {"size": int(found.group.sum()), "coalitions": int(found.num_evaluations)},
        ),
        expected=run.expect(sizes.budget * flops, dtype, programs=8),
    )

    few, count = run.subjects.game(dtype, side=sizes.exact_side)
    run.row(
        f"all pairs of {count} players from all {1 << count:,} coalitions, {dtype}",
        lambda: _timed(run, lambda: jm.interactions.exact(few, count), lambda found: {"coalitions": 1 << count}),
        expected=run.expect((1 << count) * flops, dtype, programs=3),
    )

    run.row(
        f"all pairs of {players} players from {sizes.estimated:,} coalitions, {dtype}",
        lambda: _timed(
            run,
            lambda: jm.interactions.estimate(jax.random.key(0), v, players, budget=sizes.estimated),
            lambda found: {"coalitions": sizes.estimated, "faithfulness": str(found.faithfulness)},
        ),
        expected=run.expect(sizes.estimated * flops, dtype, programs=4),
    )


def _timed(run: Run, find: Callable[[], Any], tell: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
    found, row = run.first_and_warm(find, most=_MOST)
    row |= tell(found)
    if "seconds" in row:
        row |= {"rate": row["coalitions"] / row["seconds"]["median"], "unit": "coalitions/s"}
    return row
