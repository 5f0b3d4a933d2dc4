"""What a compiled TPU program costs, read off its text: XLA's own estimate of each operation, times how often it runs.

`compiled.cost_analysis()["optimal_seconds"]` counts a loop's body once and takes 1 s off for what it has no figure of,
so that it is negative for most programs. The estimates of single operations stand in the program's text, as
`estimated_cycles`; here they are added up along the calls, and bodies of loops are multiplied by their trips.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence

COLLECTIVES = ("all-reduce", "all-gather", "all-to-all", "collective-permute", "reduce-scatter")

_HEAD = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{\s*$")
_CYCLES = re.compile(r'"estimated_cycles":"?(\d+)')
_WHILE = re.compile(r" while\(.*condition=%?([\w.\-]+), body=%?([\w.\-]+)")
_CALLED = re.compile(r"(?:to_apply=|true_computation=|false_computation=|branch_computations=\{|, %)%?([\w.\-]+)")
_CONSTANT = re.compile(r"%([\w.\-]+) = s32\[\]\S* constant\((-?\d+)\)")
_BOUND = re.compile(r"ROOT .* compare\(%[\w.\-]+, %([\w.\-]+)\), direction=LT")
_COLLECTIVE = re.compile(rf"= (\S+|\(.*?\)) ({'|'.join(COLLECTIVES)})(?:-start)?\(")


@dataclasses.dataclass(frozen=True)
class Loop:
    """A loop: how often it runs, None where the program decides, and what one round costs."""

    trips: int | None
    body: Cost


@dataclasses.dataclass(frozen=True)
class Cost:
    """Cycles of a computation by itself, and the loops in it."""

    cycles: int
    loops: tuple[Loop, ...] = ()

    def total(self, rounds: Sequence[float] = ()) -> float:
        """All cycles. `rounds`: the trips of loops whose number the program decides, by their depth; else 1."""
        inner = 0.0
        for loop in self.loops:
            trips, rest = (loop.trips, rounds) if loop.trips is not None else (rounds[0] if rounds else 1, rounds[1:])
            inner += trips * loop.body.total(rest)
        return self.cycles + inner


def cost(text: str) -> Cost:
    """The cost of a compiled program's entry."""
    bodies, entry = _computations(text)
    return _cost(entry, bodies)


def collectives(text: str) -> dict[str, int]:
    """How often each kind of collective stands in a program."""
    found = [match.group(2) for match in _COLLECTIVE.finditer(text)]
    return {kind: found.count(kind) for kind in COLLECTIVES if kind in found}


def _computations(text: str) -> tuple[dict[str, list[str]], str]:
    bodies: dict[str, list[str]] = {}
    name = entry = ""
    for line in text.splitlines():
        head = None if line.startswith(" ") else _HEAD.match(line)
        if head:
            name = head.group(2)
            bodies[name] = []
            entry = name if head.group(1) else entry
        elif name and line.startswith("  "):
            bodies[name].append(line)
    return bodies, entry


def _cost(name: str, bodies: dict[str, list[str]]) -> Cost:
    cycles, loops = 0, []
    for line in bodies.get(name, ()):
        found = _CYCLES.search(line)
        cycles += int(found.group(1)) if found else 0
        loop = _WHILE.search(line)
        if loop:
            loops.append(Loop(_trips(loop.group(1), bodies), _cost(loop.group(2), bodies)))
        elif " call(" in line or " conditional(" in line:
            # Of a branch the dearest counts.
            branches = [_cost(called, bodies) for called in _CALLED.findall(line) if called in bodies]
            if branches:
                dearest = max(branches, key=Cost.total)
                cycles += dearest.cycles
                loops += dearest.loops
    return Cost(cycles, tuple(loops))


def _trips(condition: str, bodies: dict[str, list[str]]) -> int | None:
    """How often a loop runs whose condition compares a counter from 0 with a constant; None where it does not."""
    lines = bodies.get(condition, ())
    constants = {match.group(1): int(match.group(2)) for line in lines if (match := _CONSTANT.search(line))}
    for line in lines:
        bound = _BOUND.search(line)
        if bound and bound.group(1) in constants:
            return constants[bound.group(1)]
    return None
