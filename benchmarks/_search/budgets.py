"""`search.py --budgets`: the published searches and those of the package, each with the same forward passes."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from _published.asking import Answers
from _published.lima import DELETION, INSERTION, lima
from _published.mda import mda
from _published.phasewin import Settings, phasewin

import jaxmoxi as jm
from _search.cases import Case
from _search.report import interval, read
from _search.rows import GRADIENT
from jaxmoxi import search
from jaxmoxi.moxi.curves import trapezoid_area
from jaxmoxi.search.polish import prefixes

BATCH = 8  # the searches of the package fill chunks of this size, so that small questions are not padded to 32
Found = tuple[np.ndarray, int]

# One order, which both areas judge, as the papers make it.
BOTH: dict[str, Callable[[Answers, int], Found]] = {
    "LiMA": lambda answers, budget: lima(answers, budget=budget),
    "PhaseWin": lambda answers, budget: phasewin(answers, budget=budget),
    "MDA": lambda answers, budget: mda(answers, budget=budget),
}
# An order for each area, from the terms of the score or the phase that this area judges: half of the forward passes.
EACH: dict[str, Callable[[Answers, int, bool], Found]] = {
    "LiMA, one area": lambda answers, budget, i: lima(answers, budget=budget, weights=INSERTION if i else DELETION),
    "PhaseWin, one area": lambda answers, budget, i: phasewin(
        answers, budget=budget, settings=Settings(deletion=0.0) if i else Settings(insertion=0.0)
    ),
    "MDA, one area": lambda answers, budget, i: mda(answers, budget=budget, cutoff=2.0 if i else 0.0),
}


def within(case: Case, budget: int, insertion: bool) -> Found:
    found = search.order_within(case.v, case.num_players, budget=budget, insertion=insertion, batch_size=BATCH)
    return np.asarray(found.order), int(found.num_evaluations) + GRADIENT * int(found.num_gradients)


def exact(case: Case, budget: int, insertion: bool) -> Found:
    run = jm.greedy_insertion if insertion else jm.greedy_deletion
    found = run(case.v, case.num_players, batch_size=BATCH)
    return np.asarray(found.order), int(found.num_evaluations)


OURS: dict[str, Callable[[Case, int, bool], Found]] = {"order_within": within, "greedy": exact}
WHOLE = ("greedy",)  # these take a whole order's forward passes, and are measured at that budget alone
NAMES = (*OURS, *EACH, *BOTH)


def measure_budgets(
    cases: Iterator[tuple[str, Case]], lines: Path, shares: tuple[float, ...], methods: tuple[str, ...]
) -> None:
    """Appends a line for each photo, method, budget and area that has none yet."""
    lines.parent.mkdir(parents=True, exist_ok=True)
    known = {(line["file"], line["method"], line["budget"], line["kind"]) for line in read(lines)}
    for file, case in cases:
        answers = Answers(case.v, case.num_players)
        for share in sorted(shares):
            for name in methods or NAMES:
                if name in WHOLE and share < 1:
                    continue
                kinds = [k for k in ("insertion", "deletion") if (file, name, share, k) not in known]
                for row in _rows(case, answers, name, share, kinds):
                    line = {"file": file, "method": name, "budget": share, **row}
                    with open(lines, "a") as f:
                        f.write(json.dumps(line) + "\n")
                    print(json.dumps(line), flush=True)


def _rows(case: Case, answers: Answers, name: str, share: float, kinds: list[str]) -> Iterator[dict[str, Any]]:
    budget = int(share * case.num_players * (case.num_players + 1) // 2)
    found: Found | None = None
    for kind in kinds:
        insertion, start = kind == "insertion", time.perf_counter()
        if name in BOTH:
            found = found or BOTH[name](answers, budget)
        elif name in EACH:
            found = EACH[name](answers, budget, insertion)
        else:
            found = OURS[name](case, budget, insertion)
        order, forwards = found
        if forwards > budget or sorted(order.tolist()) != list(range(case.num_players)):
            raise RuntimeError(f"{name} made {forwards} forward passes of {budget}, and the order {order.tolist()}")
        took = time.perf_counter() - start
        groups = prefixes(order)
        curve = answers.read(groups if insertion else ~groups).probability
        area = float(trapezoid_area(jnp.asarray(curve)))
        yield {"kind": kind, "area": area, "forwards": forwards, "seconds": round(took, 2)}


def budget_tables(lines: list[dict[str, Any]]) -> dict[str, Any]:
    """By area and budget, each method's mean area and forward passes, and how far `order_within` is ahead of it.

    Over the photos that all methods of an area and a budget have. Means have half the width of their 95 % confidence
    interval over photos, by the normal distribution: of few photos it is too narrow. A lead is positive where
    `order_within` is better: its area less the other's for insertion, the other's less its own for deletion.
    """
    found: dict[tuple[str, float], dict[str, dict[str, dict[str, Any]]]] = {}
    for line in lines:
        methods = found.setdefault((line["kind"], line["budget"]), {})
        methods.setdefault(line["method"], {})[line["file"]] = line
    result: dict[str, Any] = {}
    for (kind, share), methods in sorted(found.items()):
        files = sorted(set.intersection(*(set(rows) for rows in methods.values())))
        table: dict[str, Any] = {"photos": len(files)}
        for name, rows in methods.items() if files else ():
            table[name] = {
                "area": interval([rows[file]["area"] for file in files]),
                "forwards": interval([rows[file]["forwards"] for file in files]),
            }
            ours = methods.get("order_within")
            if ours is not None and name != "order_within":
                sign = 1 if kind == "insertion" else -1
                leads = [sign * (ours[file]["area"] - rows[file]["area"]) for file in files]
                table[name]["lead of order_within"] = interval(leads)
        result[f"{kind}, {share:.0%}"] = table
    return result
