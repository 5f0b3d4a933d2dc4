"""P2P at full size: a step of training, and predictions that find their own threshold."""

from __future__ import annotations

import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from _common import summary

import jaxmoxi as jm
from _accelerator.measure import halving, seconds, temporary_bytes
from _accelerator.run import Run
from _accelerator.subjects import batch_of
from jaxmoxi import p2p
from jaxmoxi.p2p.data.example import Batch
from jaxmoxi.p2p.training.step import init_state, train_step

_MOST = 10.0  # seconds of the repeats of one row


def measure(run: Run) -> None:
    """Rows: a step, a prediction."""
    config, size = run.sizes.p2p
    what = f"{config.image_size} pixels, {config.num_groups} groups, batch {size}"
    dtype = "float32"
    run.row(f"training step, {what}", lambda: halving(size, lambda n: _step(run, n)), expected=4 * run.expect(0, dtype))
    name = f"prediction at certainty 0.99, {what}"
    run.row(name, lambda: halving(size, lambda n: _predict(run, n)), expected=3 * run.expect(0, dtype))


def _batch(run: Run, count: int) -> Batch:
    config = run.sizes.p2p[0]
    side, cells = config.image_size, int(config.num_groups**0.5)
    images = batch_of(run.subjects.photos, count, side)
    regions = np.broadcast_to(jm.grid_regions(side, side, rows=cells, cols=cells), (count, side, side))
    return Batch(images, np.asarray(regions, np.int32), np.arange(count, dtype=np.int32) % config.num_classes)


def _step(run: Run, count: int) -> dict[str, Any]:
    config = run.sizes.p2p[0]
    optimizer, settings = optax.adam(1e-4), p2p.TrainConfig(batch_size=count)
    begin = jax.jit(lambda model: init_state(jax.tree.map(jnp.copy, model), optimizer))  # a step donates its state
    state = begin(p2p.init(jax.random.key(0), config))
    batch = jax.tree.map(jnp.asarray, _batch(run, count))

    def step(state: Any, batch: Batch) -> Any:
        return train_step(
            state, batch, jax.random.key(1), objective=settings.objective, optimizer=optimizer, steps_per_epoch=100
        )

    start = time.perf_counter()
    compiled = jax.jit(step, donate_argnums=0).lower(state, batch).compile()
    first = time.perf_counter() - start
    losses: list[Any] = []

    def once() -> Any:
        nonlocal state
        state, metrics = compiled(state, batch)
        losses.append(metrics.loss)
        return metrics.loss

    times = seconds(once, repeats=run.sizes.repeats, most=_MOST)
    row: dict[str, Any] = {"seconds": summary(times), "trace_and_compile_seconds": first}
    row |= temporary_bytes(compiled) | {"rate": count / row["seconds"]["median"], "unit": "images/s"}
    return row | {"loss of the first step": float(losses[0]), "of the last": float(losses[-1])}


def _predict(run: Run, count: int) -> dict[str, Any]:
    """Random weights are hardly ever certain, so that nearly every threshold is tried."""
    model, batch = p2p.init(jax.random.key(0), run.sizes.p2p[0]), _batch(run, count)
    runs: list[int] = []

    def once() -> Any:
        found = p2p.predict(model, batch.images, batch.regions, certainty=0.99, batch_size=count)
        runs.append(int(found.num_evaluations.sum()))
        return found.logits

    times = seconds(once, repeats=run.sizes.repeats, most=_MOST)
    row: dict[str, Any] = {"seconds": summary(times), "rate": count / summary(times)["median"], "unit": "images/s"}
    return row | {"images through the classifier": runs[-1]}
