"""Coalitions a second of vision transformers, by tokens, batch and dtype, against the measured matmul rate."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from _common import summary

import jaxmoxi as jm
from _accelerator.measure import halving, seconds, temporary_bytes
from _accelerator.run import Run
from _accelerator.sizes import Forward
from _accelerator.subjects import coalition_flops, random_image, random_vit
from jaxmoxi.models.classifier import Classifier
from jaxmoxi.models.networks.vit import VisionTransformerConfig

_MOST = 6.0  # seconds of the repeats of one row


def measure_large(run: Run) -> None:
    """Rows of the large network of random weights."""
    _every_form(run, random_vit(run.sizes.large), run.sizes.large_forwards)


def measure_small(run: Run) -> None:
    """Rows of the given network."""
    _every_form(run, run.subjects.model, run.sizes.small_forwards)


def _every_form(run: Run, model: Classifier, forwards: Sequence[Forward]) -> None:
    """Rows in the form of attention that the platform takes by itself; the one worth most in the others too."""
    _rows(run, model, model.name, forwards)
    if isinstance(model.config, VisionTransformerConfig):
        for form in run.sizes.forms:
            if form == "pallas" and jax.default_backend() != "tpu":
                continue  # the kernel is for TPUs; elsewhere it is interpreted, to be tested
            config = dataclasses.replace(model.config, attention=form)
            name = f"{model.name}, attention in the form {form!r}"
            _rows(run, dataclasses.replace(model, config=config), name, forwards[:1])


def _rows(run: Run, model: Classifier, name: str, forwards: Sequence[Forward]) -> None:
    layout = model.token_layout
    assert layout is not None, "`subjects.load` takes networks with tokens alone"
    players = layout.grid[0] * layout.grid[1]
    image = random_image(model)
    games: dict[str, Any] = {}
    for dtype, tokens, batch in forwards:
        tokens = min(tokens, players + layout.num_prefix)
        visible = max(tokens - layout.num_prefix, 1)

        def once(batch: int, dtype: str = dtype, tokens: int = tokens, visible: int = visible) -> dict[str, Any]:
            if dtype not in games:
                games[dtype] = jm.token_value_fn(model.astype(dtype), image, 0)
            return coalitions(run, games[dtype], players, dtype, visible, batch, coalition_flops(model, tokens))

        expected = run.expect(10 * batch * coalition_flops(model, tokens), dtype)
        what = f"{name}, {dtype}, {tokens} tokens, batch {batch}"
        run.row(what, lambda n=batch, once=once: halving(n, once), expected=expected)


def coalitions(
    run: Run, v: Any, players: int, dtype: str, visible: int | None, batch: int, flops: float
) -> dict[str, Any]:
    """The figures of a batch of coalitions, compiled for so many visible players.

    visible: players of each coalition, of a game that removes tokens; None hides half of the players.
    flops:   of one coalition; 0 where nobody has counted.
    """
    rng = np.random.default_rng(0)
    shown = players // 2 if visible is None else visible
    masks = jnp.asarray(np.argsort(rng.random((batch, players)), axis=1) < shown)
    evaluate = jax.jit(lambda v, masks: v(masks, max_visible=visible))
    start = time.perf_counter()
    compiled = evaluate.lower(v, masks).compile()
    first = time.perf_counter() - start
    times = seconds(lambda: compiled(v, masks), repeats=run.sizes.repeats, most=_MOST)
    row: dict[str, Any] = {"seconds": summary(times), "trace_and_compile_seconds": first}
    row |= {"rate": batch / row["seconds"]["median"], "unit": "coalitions/s"}
    return row | temporary_bytes(compiled) | against_matmul(run, flops * row["rate"], dtype)


def against_matmul(run: Run, flops_per_second: float, dtype: str) -> dict[str, Any]:
    """The two columns of work: operations a second, and their share of the measured rate of that dtype's products."""
    if not flops_per_second:
        return {}
    row = {"flops_per_second": flops_per_second}
    return row | ({"matmul_share": flops_per_second / run.rates[dtype]} if run.rates.get(dtype) else {})
