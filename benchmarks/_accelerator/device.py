"""What the machine itself can do: matrix products, copies, and the price of a call."""

from __future__ import annotations

import contextlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from _common import summary

from _accelerator.measure import halving, seconds
from _accelerator.run import Run

_MOST = 6.0  # seconds of the repeats of one row


def measure(run: Run) -> None:
    """Rows: matrix products by dtype and size, copies to the device and back, a call that computes nothing.

    Fills `run.rates`, which all shares of the matmul rate refer to.
    """
    for dtype, sides in run.sizes.matmuls.items():
        for side in sides:
            row = run.row(f"matrix product, {dtype}, {side}", lambda d=dtype, n=side: _product(run, d, n))
            if row is not None:
                run.rates[dtype] = max(run.rates.get(dtype, 0.0), row["flops_per_second"])
        if dtype == "float32":  # by default an accelerator may round the factors; this is what exact ones cost
            name = f"matrix product, float32 of full precision, {sides[0]}"
            run.row(name, lambda n=sides[0]: _product(run, "float32", n, precision="highest"))
    run.record["matmul_flops_per_second"] = dict(run.rates)
    run.row("copy to the device", lambda: _copy(run, back=False))
    run.row("copy from the device", lambda: _copy(run, back=True))
    run.row("a call that adds 1 to one number", lambda: _call(run))


def _product(run: Run, dtype: str, side: int, *, precision: str | None = None) -> dict[str, Any]:
    """The rate of this row is that of its best run: it is a bound for the others."""

    def once(side: int) -> dict[str, Any]:
        a, b = jax.random.normal(jax.random.key(0), (2, side, side)).astype(dtype)
        with jax.default_matmul_precision(precision) if precision else contextlib.nullcontext():
            multiply = jax.jit(jnp.matmul)
            times = seconds(lambda: multiply(a, b), repeats=run.sizes.repeats, most=_MOST)
        flops = 2 * side**3 / min(times)
        return {"seconds": summary(times), "rate": flops / 1e12, "unit": "TFLOP/s", "flops_per_second": flops}

    return halving(side, once)


def _copy(run: Run, *, back: bool) -> dict[str, Any]:
    """On a CPU nothing may be copied at all."""
    count = run.sizes.copied // 4
    here = np.ones(count, np.float32)
    there = jnp.arange(count, dtype=jnp.float32)
    add = jax.jit(jnp.add)

    def once() -> Any:
        return np.asarray(fresh.pop()) if back else jax.device_put(here)

    # A copy is kept with the array that it is of, so every run needs an array of its own, made before the clock runs.
    fresh = [jax.block_until_ready(add(there, i)) for i in range(run.sizes.repeats + 1)] if back else []
    times = seconds(once, repeats=run.sizes.repeats, most=_MOST)
    return {"seconds": summary(times), "rate": run.sizes.copied / summary(times)["median"] / 1e9, "unit": "GB/s"}


def _call(run: Run) -> dict[str, Any]:
    add, one = jax.jit(lambda x: x + 1), jnp.float32(1)
    times = seconds(lambda: add(one), repeats=20 * run.sizes.repeats, most=_MOST)
    return {"seconds": summary(times), "rate": 1e6 * summary(times)["median"], "unit": "microseconds"}
