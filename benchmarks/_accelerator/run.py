"""A run: its parts in the order of their worth, the time that each may take, and the record, on disk as it grows."""

from __future__ import annotations

import dataclasses
import gc
import json
import os
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
from _common import summary

from _accelerator.measure import Compilations, PeakMemory, seconds
from _accelerator.sizes import Sizes
from _accelerator.subjects import Subjects
from _accelerator.table import as_markdown
from jaxmoxi.files import write_whole

MEASURED, FAILED, NO_TIME, CUT = "measured", "failed", "not run: time", "not finished: time"
_RESERVE = 8.0  # seconds of the budget that are kept for the end
# Before anything is known of a machine: floating-point operations a second, the share of the measured rate that a part
# reaches at the least, and seconds that a program takes to compile. `Run.expect` corrects the last by what it sees.
_RATE, _EFFICIENCY, _COMPILE = {"cpu": 5e10}, {"cpu": 0.5}, {"cpu": 2.5}
_OTHER_RATE, _OTHER_EFFICIENCY, _OTHER_COMPILE = 5e13, 0.15, 8.0


@dataclasses.dataclass(frozen=True)
class Part:
    """One part of a run.

    measure: fills the record by `Run.row`.
    share:   of the whole budget, the most that the part may use.
    least:   seconds that must be left for it to begin at all.
    """

    name: str
    title: str
    measure: Callable[[Run], None]
    share: float
    least: float = 1.0


class Run:
    """What the parts share: sizes, subjects, rates, the clock and the record.

    rates:  the best measured floating-point operations a second of matrix products, by dtype; filled by the first part.
    record: what the JSON says.
    """

    def __init__(
        self, sizes: Sizes, subjects: Subjects, record: dict[str, Any], *, out: Path, started: float, minutes: float
    ):
        self.sizes, self.subjects, self.record, self.out = sizes, subjects, record, out
        self.rates: dict[str, float] = {}
        self.started, self.budget = started, 60 * minutes - _RESERVE
        self.deadline = started + self.budget
        self.compilations = Compilations()
        self._lock = threading.RLock()
        self._parts: list[dict[str, Any]] = record.setdefault("parts", [])
        self._part: dict[str, Any] = {}

    @property
    def left(self) -> float:
        """Seconds that the part in flight may still use."""
        return self.deadline - time.monotonic()

    def expect(self, flops: float, dtype: str, *, programs: int = 1) -> float:
        """Seconds that so much work takes at the most, and so many programs take to compile: a guess."""
        backend, seen = jax.default_backend(), self.compilations
        rate = self.rates.get(dtype) or _RATE.get(backend, _OTHER_RATE)
        compile_one = _COMPILE.get(backend, _OTHER_COMPILE)
        if seen.large >= 3:
            compile_one = 1.5 * seen.seconds / seen.large
        return programs * compile_one + flops / (_EFFICIENCY.get(backend, _OTHER_EFFICIENCY) * rate)

    def row(self, what: str, measure: Callable[[], dict[str, Any]], *, expected: float = 0.0) -> dict[str, Any] | None:
        """Measures one row of the part in flight and writes the record. None for a row that has no figures.

        measure:  returns the row's figures. What it raises becomes the row's `error`, and the part goes on.
        expected: seconds that it will take; a row that does not fit into what is left is not begun, and the record says
                  so.
        """
        if expected > self.left:
            self._add({"what": what, "status": NO_TIME, "expected_seconds": expected, "left_seconds": self.left})
            return None
        start, compiled = time.monotonic(), self.compilations.seconds
        try:
            row: dict[str, Any] = {"what": what, "status": MEASURED, **measure()}
        except Exception as error:
            row = {"what": what, "status": FAILED, "error": _described(error)}
        if row["status"] == FAILED:
            gc.collect()  # the error has let go of what the attempt had on the device
        row["compile_seconds"] = self.compilations.seconds - compiled
        row["wall_seconds"] = time.monotonic() - start
        self._add(row)
        return row if row["status"] == MEASURED else None

    def first_and_warm(self, once: Callable[[], Any], *, most: float) -> tuple[Any, dict[str, Any]]:
        """(what `once` returns, `first_seconds` with its compiling and `seconds` of warm runs), for what takes long.

        The warm runs are left out where one of them would not fit into what is left.
        most: seconds that the warm runs may take together.
        """
        start, compiled = time.perf_counter(), self.compilations.seconds
        result = jax.block_until_ready(once())
        first = time.perf_counter() - start
        again = first - (self.compilations.seconds - compiled)  # at the most: tracing is in it
        if again > self.left:
            return result, {"first_seconds": first, "warm runs": NO_TIME}
        times = seconds(once, repeats=self.sizes.searches, most=min(most, self.left), warm=True)
        return result, {"first_seconds": first, "seconds": summary(times)}

    def _add(self, row: dict[str, Any]) -> None:
        with self._lock:
            self._part["rows"].append(row)
        print(f"  {row['what']}: {_brief(row)}", flush=True)
        self.write()

    def all_parts(self, parts: Sequence[Part]) -> None:
        """Runs the parts one after the other. When the budget ends, the record is written and the process ends."""
        self._parts += [{"name": p.name, "title": p.title, "status": NO_TIME, "rows": []} for p in parts]
        self.write()
        end = self.started + self.budget
        watch = threading.Timer(max(0.0, end - time.monotonic()), self._cut)
        watch.daemon = True
        watch.start()
        for part, entry in zip(parts, self._parts, strict=True):
            self.deadline = min(end, time.monotonic() + part.share * self.budget)
            if end - time.monotonic() < part.least:
                print(f"{part.title}: {NO_TIME}", flush=True)
                continue
            self._one(part, entry)
        watch.cancel()
        with self._lock:
            self.record["wall_seconds"] = time.monotonic() - self.started
        self.write()

    def _one(self, part: Part, entry: dict[str, Any]) -> None:
        print(part.title, flush=True)
        start, compiled, programs = time.monotonic(), self.compilations.seconds, self.compilations.programs
        with self._lock:
            self._part = entry
            entry["status"] = "running"
        error = None
        with PeakMemory() as memory:
            try:
                part.measure(self)
            except Exception as raised:
                error = _described(raised)
        with self._lock:
            states = [row["status"] for row in entry["rows"]]
            entry["status"] = FAILED if error else _summed(states)
            entry |= {"error": error} if error else {}
            entry["seconds"] = time.monotonic() - start
            entry["compile_seconds"] = self.compilations.seconds - compiled
            entry["programs"] = self.compilations.programs - programs
            entry |= memory.record()
        if error:
            print(f"  {FAILED}: {error}", flush=True)
        self.write()
        gc.collect()

    def _cut(self) -> None:
        """The end of the budget: what is in flight is given up, since neither compiling nor running can be stopped."""
        code = 1  # where even this cannot be written
        try:
            with self._lock:
                for entry in self._parts:
                    if entry["status"] == "running":
                        entry["status"] = CUT
                self.record["wall_seconds"] = time.monotonic() - self.started
                self.write()
            print(f"the time is over; wrote {self.out}", flush=True)
            code = 0
        finally:
            os._exit(code)

    def write(self) -> None:
        """Writes the JSON and, beside it, the same as Markdown; each is there as a whole or as it was before."""
        with self._lock:
            write_whole(self.out, json.dumps(self.record, indent=1, default=str) + "\n")
            write_whole(self.out.with_suffix(".md"), as_markdown(self.record))


def _summed(states: list[str]) -> str:
    """The status of a part whose rows have these."""
    if FAILED in states:
        return "ran, but for rows that failed"
    if NO_TIME in states:
        return NO_TIME if set(states) == {NO_TIME} else "ran, but for rows without time"
    return "ran"


def _described(error: BaseException) -> str:
    """The error's kind, its first lines, and the place of this repository's code that it came from."""
    places = [f"{Path(f.filename).name}:{f.lineno}" for f in traceback.extract_tb(error.__traceback__)[-3:]]
    return f"{type(error).__name__}: {str(error)[:600]} (at {' > '.join(places)})"


def _brief(row: dict[str, Any]) -> str:
    if row["status"] != MEASURED:
        return row.get("error") or f"{row['status']} (would take {row['expected_seconds']:.0f} s)"
    rate = f"{row['rate']:,.4g} {row['unit']}" if "rate" in row else "measured"
    share = f", {row['matmul_share']:.0%} of the matmul rate" if "matmul_share" in row else ""
    return f"{rate}{share}, compiled {row['compile_seconds']:.1f} s"
