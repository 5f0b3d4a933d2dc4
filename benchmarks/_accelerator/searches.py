"""Searches that ask again and again, and interactions: how long, and how much of it the coalitions take."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import jax

import jaxmoxi as jm
from _accelerator.measure import seconds, spread
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
        seconds=run.expect(3 * sizes.budget * flops, dtype, programs=8),
    )

    few, count = run.subjects.game(dtype, side=sizes.exact_side)
    run.row(
        f"all pairs of {count} players from all {1 << count:,} coalitions, {dtype}",
        lambda: _timed(run, lambda: jm.interactions.exact(few, count), lambda found: {"coalitions": 1 << count}),
        seconds=run.expect(3 * (1 << count) * flops, dtype, programs=3),
    )

    run.row(
        f"all pairs of {players} players from {sizes.estimated:,} coalitions, {dtype}",
        lambda: _timed(
            run,
            lambda: jm.interactions.estimate(jax.random.key(0), v, players, budget=sizes.estimated),
            lambda found: {"coalitions": sizes.estimated, "faithfulness": str(found.faithfulness)},
        ),
        seconds=run.expect(3 * sizes.estimated * flops, dtype, programs=4),
    )


def _timed(run: Run, find: Callable[[], Any], tell: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
    """The first run apart, then warm ones, where they fit."""
    start = time.perf_counter()
    found = jax.block_until_ready(find())
    first = time.perf_counter() - start
    row = {"first_seconds": first, **tell(found)}
    if run.left > 2.5 * first:
        times = seconds(find, repeats=run.sizes.searches, most=min(_MOST, run.left / 2))
        row |= {"seconds": spread(times), "rate": row["coalitions"] / statistics.median(times), "unit": "coalitions/s"}
    return row
