"""`search.py --together`: the smallest groups of several images, in one loop and one after the other."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from _common import environment

from jaxmoxi import search
from jaxmoxi.search.device.found import group_on_device
from jaxmoxi.search.oracle import goal_of
from jaxmoxi.search.shared import check_budget

RUNS = 2  # the first compiles; each is written as soon as it is over


def compare(
    vs: list[Any], num_players: int, *, budget: int | None, forms: tuple[str, ...], out: Path | None, name: str
) -> None:
    """Measures each form of `minimal_group` of all games, and writes or completes the JSON.

    Seconds are of the wall clock and of the processor: on a machine with other work only the latter compare.
    """

    def in_loop(v: Any) -> search.GroupResult:
        game, goal = goal_of(v, num_players, None, probability=None, value=None)
        return group_on_device(game, goal, num_players, True, check_budget(budget, num_players), None, ())

    def one_by_one(find: Callable[[Any], search.GroupResult]) -> search.GroupResult:
        return jax.tree.map(lambda *x: jnp.stack(x), *[find(v) for v in vs])

    every: dict[str, Callable[[], search.GroupResult]] = {
        "in turn, on the host": lambda: one_by_one(lambda v: search.minimal_group(v, num_players, budget=budget)),
        "in turn, in one loop each": lambda: one_by_one(in_loop),
        "together": lambda: search.minimal_groups(vs, num_players, budget=budget),
    }
    unknown = [form for form in forms if form not in every]
    if unknown:
        raise SystemExit(f"unknown forms {unknown}; there are: {', '.join(every)}")
    key = (
        f"{name}, {len(vs)} images, {num_players} players, {f'a budget of {budget}' if budget else 'the whole budget'}"
    )
    known = json.loads(out.read_text()) if out is not None and out.exists() else {}
    rows = known.setdefault(key, {"environment": environment()})
    for form in forms or tuple(every):
        for run in range(RUNS):
            wall, cpu = time.perf_counter(), time.process_time()
            found = jax.block_until_ready(every[form]())
            took = {
                "seconds": round(time.perf_counter() - wall, 1),
                "processor seconds": round(time.process_time() - cpu, 1),
            }
            if run == 0:
                rows[form] = {
                    "sizes": np.asarray(found.size).tolist(),
                    "forwards": np.asarray(found.num_evaluations).tolist(),
                    "first run": took,
                }
            else:
                rows[form]["second run"] = took
            print(form, run, json.dumps(rows[form]), flush=True)
            if out is not None:
                out.parent.mkdir(parents=True, exist_ok=True)
                out.write_text(json.dumps(known, indent=1) + "\n")
