"""Full orders of one photo, what bfloat16 changes about them, and many photos searched together."""

from __future__ import annotations

import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxmoxi as jm
from _accelerator.forwards import against_matmul
from _accelerator.measure import halving, is_out_of_memory
from _accelerator.run import Run
from _accelerator.sizes import Search

_MOST = 30.0  # seconds of the repeats of one row


def measure(run: Run) -> None:
    """Rows: each order, then what the orders in bfloat16 are worth in float32."""
    found: dict[Search, Any] = {}
    for search in run.sizes.orders:
        direction = "insertion" if search.insertion else "deletion"
        extent = "full" if search.size is None else f"first {search.size} players of the"
        what = f"{extent} {direction} order, {search.dtype}"
        run.row(what, lambda s=search: _order(run, s, found), expected=_expected(run, search))
    for insertion in (True, False):
        half, whole = found.get(Search(insertion, "bfloat16")), found.get(Search(insertion, "float32"))
        if half is None or whole is None:
            continue
        direction = "insertion" if insertion else "deletion"
        players = len(half.order)
        expected = run.expect(2 * players * run.subjects.flops(), "float32", programs=2)
        name = f"{direction} in bfloat16 against float32"
        run.row(name, lambda h=half, w=whole, i=insertion: _agreement(run, h, w, i), expected=expected)


def _expected(run: Run, search: Search) -> float:
    """Seconds of the first search with its compiling; its stages pad what is computed by less than a third."""
    _, players = run.subjects.game("float32", side=run.sizes.side)
    flops = _least_flops(run, players, search)
    programs = 2 if search.size else 6 if jax.default_backend() != "cpu" else 15
    return run.expect(1.3 * flops, search.dtype, programs=programs)


def _order(run: Run, search: Search, found: dict[Search, Any]) -> dict[str, Any]:
    v, players = run.subjects.game(search.dtype, side=run.sizes.side)
    find = jm.greedy_insertion if search.insertion else jm.greedy_deletion
    stop = None if search.size is None else jm.Stop(size=search.size)
    chunks: list[int | None] = [None]

    def once() -> Any:
        return find(v, players, stop=stop, batch_size=chunks[-1])

    while True:
        try:
            result, times = run.first_and_warm(once, most=_MOST)
            break
        except Exception as error:
            if not is_out_of_memory(error) or chunks[-1] == 1:
                raise
        chunks.append((chunks[-1] or jm.choose_batch_size(v, players)) // 2)
    found[search] = result = jax.tree.map(np.asarray, result)
    coalitions = int(result.num_evaluations)
    row: dict[str, Any] = {"players": players, "coalitions": coalitions, **times}
    if "seconds" in times:
        middle, least = times["seconds"]["median"], _least_flops(run, players, search)
        row |= {"rate": coalitions / middle, "unit": "coalitions/s", "least_flops": least}
        row |= against_matmul(run, least / middle, search.dtype)
    if len(chunks) > 1:
        row["out of memory, so halved"] = f"to chunks of {chunks[-1]}"
    return row | {"order": " ".join(str(player) for player in result.order if player >= 0)}


def _least_flops(run: Run, players: int, search: Search) -> float:
    """Operations of an order in which each coalition costs its visible tokens alone."""
    rows, cols = run.subjects.model.token_grid or (0, 0)
    total = 0.0
    for step in range(search.size or players):
        shown = step + 1 if search.insertion else players - step - 1
        total += (players - step) * run.subjects.flops(tokens=round(shown * rows * cols / players) + 1)
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

    run.row(f"preparing {run.sizes.images} photos, {dtype}", make, expected=run.expect(0, dtype))
    if not games:
        return
    _, players = run.subjects.game(dtype, side=side)
    first_steps = 12 * players * run.subjects.flops(tokens=17)  # that many players flip a photo, as a rule
    expected = run.expect(len(games) * first_steps, dtype, programs=2)
    what = f"{len(games)} photos together, up to the flip, {dtype}"
    run.row(what, lambda: _together(run, games, players), expected=expected)


def _together(run: Run, games: list[Any], players: int) -> dict[str, Any]:
    def once(count: int) -> dict[str, Any]:
        stop = jm.Stop(flip=True)
        result, row = run.first_and_warm(lambda: jm.greedy_images(games[:count], players, stop=stop), most=_MOST)
        steps = np.asarray(result.num_steps)
        row |= {"players chosen, median": float(np.median(steps)), "most players chosen": int(steps.max())}
        row["coalitions"] = int(np.asarray(result.num_evaluations).sum())
        return row | ({"rate": count / row["seconds"]["median"], "unit": "photos/s"} if "seconds" in row else {})

    return halving(len(games), once)
