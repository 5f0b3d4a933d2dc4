"""Few players of a real model, every coalition of them in four removals: is the group found the smallest there is?

All 2^P coalitions are evaluated in each removal, and `robust_group` then searches in these tables: with its own budget,
which tries all smaller groups of up to ten players, and with that of three greedy orders alone, which leaves it to the
search.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from _search.cases import cases

from _robust.judged import PHOTOS, drawn, kinds_of, lent
from jaxmoxi import search
from jaxmoxi.games.base import Game
from jaxmoxi.games.evaluation import readouts
from jaxmoxi.pytrees import record
from jaxmoxi.regions.spec import parse_regions
from jaxmoxi.types import Readout


@record
class TableGame(Game):
    """The answers of a game to all coalitions of its players: float32[2^P], bool[2^P]; bit i of the row is player i."""

    values: Any
    led: Any

    def readout(self, masks: Any, *, max_visible: int | None = None) -> Readout:
        rows = masks @ (1 << jnp.arange(masks.shape[1]))
        return Readout(self.values[rows], self.led[rows], None)


def coalitions(num_players: int) -> Any:
    """bool[2^P, P]; bit i of the row is player i."""
    return (np.arange(2**num_players)[:, None] >> np.arange(num_players)) & 1 == 1


def tabled(v: Any, num_players: int) -> TableGame:
    told = readouts(v, jnp.asarray(coalitions(num_players)))
    return TableGame(told.values, told.leads)


def found(games: list[TableGame], num_players: int, budget: int | None) -> dict[str, Any]:
    group = search.robust_group(games, num_players, budget=budget)
    return {"size": int(group.size), "forwards": int(group.num_evaluations)}


def measure(
    name: str, images: Path, regions: str, *, count: int, removals: int, seed: int, known: Collection[tuple[str, str]]
) -> Iterator[dict[str, Any]]:
    """A line for each of the first `count` photos: the size of the smallest group, and of those found."""
    spec = parse_regions(regions)
    for file, case in cases(name, images, count=count, grid=7, always=True):
        if (file, regions) in known:
            continue
        start = time.perf_counter()
        case.regions = jnp.asarray(spec.label_map(np.asarray(case.image)))
        case.num_players = int(case.regions.max()) + 1
        near, _ = kinds_of(case.model)
        key = jax.random.fold_in(jax.random.key(seed), int(file[:7], 16))
        able = drawn(key, case, near, 2 * removals, lent(case.model, images, file)[:PHOTOS])
        games = [v for _, v in able[:removals]]
        if len(games) < removals:
            continue  # the whole image is answered otherwise in too many
        tables = [tabled(v, case.num_players) for v in games]
        holds = np.logical_and.reduce([np.asarray(table.led) for table in tables])
        yield {
            "file": file,
            "regions": regions,
            "players": case.num_players,
            "removals": removals,
            "smallest": int(coalitions(case.num_players)[holds].sum(1).min()),
            "default": found(tables, case.num_players, None),
            "three orders": found(tables, case.num_players, 3 * case.num_players * (case.num_players + 1) // 2),
            "seconds": round(time.perf_counter() - start, 1),
        }


def table(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """By number of players and budget: in how many photos the group found is the smallest there is."""
    rows = []
    for players in sorted({line["players"] for line in lines}):
        of = [line for line in lines if line["players"] == players]
        for budget in ("default", "three orders"):
            hits = [line[budget]["size"] == line["smallest"] for line in of]
            rows.append(
                {
                    "players": players,
                    "photos": len(of),
                    "budget": budget,
                    "smallest found": sum(hits),
                    "larger by": float(np.mean([line[budget]["size"] - line["smallest"] for line in of])),
                    "mean smallest": float(np.mean([line["smallest"] for line in of])),
                    "forwards": float(np.mean([line[budget]["forwards"] for line in of])),
                    "all coalitions": of[0]["removals"] * 2**players,
                }
            )
    return rows


def markdown(rows: list[dict[str, Any]]) -> str:
    head = "| players | photos | budget | the smallest is found | mean size | larger by | forwards | all coalitions |"
    lines = [head, "|" + "---|" * 8]
    for row in rows:
        cells = [row["players"], row["photos"], row["budget"], row["smallest found"], f"{row['mean smallest']:.2f}"]
        cells += [f"{row['larger by']:.2f}", f"{row['forwards']:.0f}", row["all coalitions"]]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)
