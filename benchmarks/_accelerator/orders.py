"""Full orders of one photo, what bfloat16 changes about them, and many photos searched together."""

from __future__ import annotations

import statistics
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxmoxi as jm
from _accelerator.forwards import against_matmul
from _accelerator.measure import is_out_of_memory, seconds, spread
from _accelerator.run import Run
from _accelerator.sizes import Search

# The share of P(P+1)/2 full-length coalitions that an order costs, at the most, where the compiled sizes are few.
_WORK = {True: 0.5, False: 0.85}
_MOST = 30.0  # seconds of the repeats of one row


def measure(run: Run) -> None:
    """Rows: each order, then what the orders in bfloat16 are worth in float32."""
    found: dict[Search, Any] = {}
    for search in run.sizes.orders:
        direction = "insertion" if search.insertion else "deletion"
        expected = run.expect(2 * _flops(run, search.insertion), search.dtype, programs=6 if _coarse() else 15)
        run.row(f"full {direction} order, {search.dtype}", lambda s=search: _order(run, s, found), seconds=expected)
    for insertion in (True, False):
        half, whole = found.get(Search(insertion, "bfloat16")), found.get(Search(insertion, "float32"))
        if half is None or whole is None:
            continue
        direction = "insertion" if insertion else "deletion"
        players = len(half.order)
        expected = run.expect(2 * players * run.subjects.flops(), "float32", programs=2)
        name = f"{direction} in bfloat16 against float32"
        run.row(name, lambda h=half, w=whole, i=insertion: _agreement(run, h, w, i), seconds=expected)


def _coarse() -> bool:
    """Whether a search takes few compiled sizes, as it does on accelerators."""
    return jax.default_backend() != "cpu"


def _flops(run: Run, insertion: bool) -> float:
    """Operations of a full order at full length, of which a search does a share."""
    _, players = run.subjects.game("float32", side=run.sizes.side)
    return _WORK[insertion] * players * (players + 1) / 2 * run.subjects.flops()


def _order(run: Run, search: Search, found: dict[Search, Any]) -> dict[str, Any]:
    v, players = run.subjects.game(search.dtype, side=run.sizes.side)
    find = jm.greedy_insertion if search.insertion else jm.greedy_deletion
    chunks: list[int | None] = [None]

    def once() -> Any:
        return find(v, players, batch_size=chunks[-1])

    start = time.perf_counter()
    while True:
        try:
            result = jax.block_until_ready(once())
            break
        except Exception as error:
            if not is_out_of_memory(error) or chunks[-1] == 1:
                raise
        chunks.append((chunks[-1] or jm.choose_batch_size(v, players)) // 2)
    first = time.perf_counter() - start
    times = seconds(once, repeats=run.sizes.searches, most=min(_MOST, run.left / 2)) if _warm(run, first) else []
    found[search] = jax.tree.map(np.asarray, result)
    evaluations = players * (players + 1) // 2
    row: dict[str, Any] = {"first_seconds": first, "players": players, "coalitions": evaluations}
    if times:
        row |= {"seconds": spread(times), "rate": evaluations / statistics.median(times), "unit": "coalitions/s"}
        # What would have to be computed at the least: of every coalition its own tokens alone.
        row |= {"least_flops": _least_flops(run, players, search.insertion)}
        row |= against_matmul(run, row["least_flops"] / row["seconds"]["median"], search.dtype)
    if len(chunks) > 1:
        row["out of memory, so halved"] = f"to chunks of {chunks[-1]}"
    return row | {"order": " ".join(map(str, found[search].order))}


def _warm(run: Run, first: float) -> bool:
    """Whether a warm-up and a timed run still fit, when the first took so long with all its compiling."""
    return run.left > 2 * first or run.left > 2 * _MOST


def _least_flops(run: Run, players: int, insertion: bool) -> float:
    """Operations of an order in which each coalition costs its visible tokens alone."""
    rows, cols = run.subjects.model.token_grid or (0, 0)
    per_player = rows * cols / players
    total = 0.0
    for step in range(players):
        shown = step + 1 if insertion else players - step - 1
        total += (players - step) * run.subjects.flops(tokens=round(shown * per_player) + 1)
    return total


def _agreement(run: Run, half: Any, whole: Any, insertion: bool) -> dict[str, Any]:
    """Both orders' curves are measured in float32, by the same program."""
    v, players = run.subjects.game("float32", side=run.sizes.side)
    masks = np.zeros((2, players + 1, players), bool)
    for rows, order in zip(masks, (half.order, whole.order), strict=True):
        rows[:, order] = np.arange(players + 1)[:, None] > np.arange(players)
    masks = masks if insertion else ~masks
    told = jm.readouts(v, jnp.asarray(masks.reshape(-1, players)))
    assert told.probabilities is not None
    curves = np.asarray(told.probabilities, np.float64).reshape(2, -1)
    areas = (curves[:, 1:] + curves[:, :-1]).mean(1) / 2
    same = half.order == whole.order
    return {
        "first difference at place": int(np.argmin(same)) + 1 if not same.all() else "none",
        "places that agree": f"{same.mean():.0%}",
        "players in common": {f"of the first {k}": _in_common(half, whole, k) for k in (8, 32) if k < players},
        "area under the probability of the bfloat16 order": float(areas[0]),
        "area under the probability of the float32 order": float(areas[1]),
    }


def _in_common(half: Any, whole: Any, count: int) -> int:
    return len({*half.order[:count]} & {*whole.order[:count]})


def measure_images(run: Run) -> None:
    """Rows: making the games of many photos, and searching them together up to the flip; fewer where memory ends."""
    dtype, side = run.sizes.images_dtype, run.sizes.side
    games: list[Any] = []

    def make() -> dict[str, Any]:
        run.subjects.game(dtype, side=side)  # what is compiled for the first is not timed
        start = time.perf_counter()
        games.extend(run.subjects.game(dtype, side=side, index=i)[0] for i in range(run.sizes.images))
        jax.block_until_ready(games)
        spent = time.perf_counter() - start
        note = f"{min(len(run.subjects.photos), len(games))} different ones"
        return {"rate": len(games) / spent, "unit": "games/s", "wall": f"{spent:.2f} s", "photos": note}

    run.row(f"preparing {run.sizes.images} photos, {dtype}", make, seconds=run.expect(0, dtype))
    if not games:
        return
    _, players = run.subjects.game(dtype, side=side)
    first_steps = 12 * players * run.subjects.flops(tokens=33)  # that many players flip a photo, as a rule
    expected = run.expect(2 * len(games) * first_steps, dtype, programs=2)
    what = f"{len(games)} photos together, up to the flip, {dtype}"
    run.row(what, lambda: _together(run, games, players), seconds=expected)


def _together(run: Run, games: list[Any], players: int) -> dict[str, Any]:
    count, stop = len(games), jm.Stop(flip=True)
    while True:
        start = time.perf_counter()
        try:
            result = jax.block_until_ready(jm.greedy_images(games[:count], players, stop=stop))
            break
        except Exception as error:
            if count <= 1 or not is_out_of_memory(error):
                raise
        count //= 2
    first = time.perf_counter() - start
    steps = np.asarray(result.num_steps)
    row: dict[str, Any] = {"first_seconds": first, "players chosen, median": float(np.median(steps))}
    row |= {"most players chosen": int(steps.max()), "coalitions": int(np.asarray(result.num_evaluations).sum())}
    if _warm(run, first):
        times = seconds(
            lambda: jm.greedy_images(games[:count], players, stop=stop),
            repeats=run.sizes.searches,
            most=min(_MOST, run.left / 2),
        )
        row |= {"seconds": spread(times), "rate": count / statistics.median(times), "unit": "photos/s"}
    return row | ({"out of memory, so halved": f"to {count} photos"} if count < len(games) else {})
