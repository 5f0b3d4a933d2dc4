"""The optimizer and the compiled step of a run. Another run with the same settings does not compile the step again."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Key

from jaxmoxi.p2p.data.example import Batch
from jaxmoxi.p2p.training.computing import Computing, faster_selector
from jaxmoxi.p2p.training.config import TrainConfig
from jaxmoxi.p2p.training.objectives import Metrics
from jaxmoxi.p2p.training.step import TrainState, learning_rates, train_step

# (state, sums, batch, key, select) -> (state, sums, loss); state and sums are donated.
Step = Callable[..., tuple[TrainState, Metrics, Float[Array, ""]]]


class Compiled(NamedTuple):
    """optimizer: Optax's. step: one step of the run, jitted, which also sums the metrics of its epoch."""

    optimizer: optax.GradientTransformation
    step: Step


def compiled(train: TrainConfig, *, total: int, per_epoch: int) -> Compiled:
    """The step of these settings. total: steps of the run. per_epoch: steps of an epoch."""
    default = TrainConfig(batch_size=train.batch_size)
    apart = {
        name: getattr(default, name)
        for name in (
            "augment", "seed", "certainty", "validation_share", "eval_every", "goal_accuracy", "goal_share",
            "save_every", "log_every",
        )
    }  # fmt: skip
    return _compiled(dataclasses.replace(train, **apart), total, per_epoch)


@functools.lru_cache(maxsize=16)
def _compiled(train: TrainConfig, total: int, per_epoch: int) -> Compiled:
    rates = learning_rates(train.learning_rate, train.schedule, train.warmup, total)
    optimizer = optax.adamw(rates, weight_decay=train.weight_decay)
    if train.selector_rate != 1:
        optimizer = optax.chain(optimizer, faster_selector(train.selector_rate))
    computing, objective = Computing(train.accumulate, train.precision, train.ema), train.objective

    @functools.partial(jax.jit, donate_argnums=(0, 1), static_argnames="select")
    def step_and_add(
        state: TrainState, sums: Metrics, batch: Batch, key: Key[Array, ""], *, select: bool
    ) -> tuple[TrainState, Metrics, Float[Array, ""]]:
        state, metrics = train_step(
            state, batch, key, objective=objective, optimizer=optimizer, steps_per_epoch=per_epoch, select=select,
            computing=computing, method=train.method, freeze_selector=train.freeze_selector,
        )  # fmt: skip
        return state, jax.tree.map(jnp.add, sums, metrics), metrics.loss

    return Compiled(optimizer, step_and_add)
