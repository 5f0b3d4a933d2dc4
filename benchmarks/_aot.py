"""Chips by name, and what a program compiled for one of them costs."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import _hlo
import jax
import jax.numpy as jnp
from jax.sharding import SingleDeviceSharding

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
    """One device, by its maker's figures. peak: bfloat16 FLOP/s; hbm: bytes; bandwidth: bytes/s; topology: of four.

    per_cycle: FLOP a cycle of all matrix units together, by which cycles become a share of the peak.
    """

    name: str
    topology: str
    peak: float
    per_cycle: int
    hbm: int
    bandwidth: float

    @property
    def clock(self) -> float:
        """Cycles a second."""
        return self.peak / self.per_cycle


CHIPS = {
    chip.name: chip
    for chip in (
        Chip("v5e", "v5e:2x2", 197e12, 4 * 2 * 128**2, 16 * GIB, 819e9),
        Chip("v6e", "v6e:2x2", 918e12, 4 * 2 * 256**2, 32 * GIB, 1640e9),
        Chip("v5p", "v5p:2x2x1", 459e12, 8 * 2 * 128**2, 95 * GIB, 2765e9),
    )
}


@dataclasses.dataclass(frozen=True)
class Program:
    """Something to compile.

    name:   of the entry point, and of the size.
    lower:  makes the lowered program; all of its arrays are shapes on the chip.
    flops:  of the model's matrix products in one run, without padding; None where there is no model.
    rounds: how often loops run whose number the program decides, by their depth.
    note:   what to know about the row.
    """

    name: str
    lower: Any
    flops: float | None = None
    rounds: tuple[float, ...] = ()
    note: str = ""


def shapes(tree: Any, sharding: Any) -> Any:
    """The same tree with shapes for arrays, laid out as told."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(jnp.shape(x), jnp.result_type(x), sharding=sharding), tree)


def on(device: Any) -> SingleDeviceSharding:
    return SingleDeviceSharding(device)


def measure(program: Program, chip: Chip) -> dict[str, Any]:
    """Compiles a program, and reads off what it needs and takes."""
    wall, cpu = time.perf_counter(), time.process_time()
    lowered = program.lower()
    traced = time.process_time() - cpu
    compiled = lowered.compile()
    row: dict[str, Any] = {
        "program": program.name,
        "trace CPU-seconds": traced,
        "compile CPU-seconds": time.process_time() - cpu - traced,
        "wall seconds": time.perf_counter() - wall,
    }
    memory, text = compiled.memory_analysis(), compiled.as_text()
    found = compiled.cost_analysis() or {}
    needed = sum(
        getattr(memory, f"{part}_size_in_bytes") for part in ("argument", "output", "temp", "generated_code")
    ) - memory.alias_size_in_bytes  # fmt: skip
    cost = _hlo.cost(text)
    cycles = cost.total(program.rounds)
    seconds = cycles / chip.clock
    return row | {
        "HBM GiB": needed / GIB,
        "fits": needed <= chip.hbm,
        "modelled seconds": seconds,
        "optimal_seconds": found.get("optimal_seconds"),
        "share of peak": None if program.flops is None else program.flops / chip.per_cycle / cycles,
        "HBM bytes of one round": found.get("bytes accessed"),
        "FLOP of one round": found.get("flops"),
        "collectives": _hlo.collectives(text),
        "kernels": text.count('custom_call_target="tpu_custom_call"'),
        "note": program.note,
    }
