"""The package's side of the benchmark of interactions, the overhead beside a model, and the printed tables."""

from __future__ import annotations

import dataclasses
import functools
import statistics
import sys
import time
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import _shapiq as peers
import jax
import jax.numpy as jnp
import numpy as np
from _common import seconds, summary
from PIL import Image

import jaxmoxi as jm
from jaxmoxi.interactions.methods import METHODS, Request


def exact(table: np.ndarray, index: str, order: int, repeats: int) -> tuple[Any, float, dict[str, Any]]:
    """The index, the seconds of the first call (compiling among them, where nothing was compiled yet) and of others."""
    given = jnp.asarray(table)
    run = functools.partial(jm.interactions.from_table, given, index=index, order=order)
    first = seconds(lambda: run().values, repeats=1)[0]
    return run(), first, summary(seconds(lambda: run().values, repeats=repeats))


def methods(which: str, players: int, index: str, order: int, budget: int) -> list[str]:
    """Those that can serve a request; "auto" first."""
    request = Request(players, index, order, Fraction(1, 2))
    able = [
        m.name
        for m in METHODS.values()
        if (m.indices is None or index in m.indices) and not m.refuse(request) and m.least(request) <= budget
    ]
    return ["auto", *able] if which == "all" else ["auto"]


def _look_up(table: jax.Array, masks: jax.Array) -> jax.Array:
    return table[masks.astype(jnp.int32) @ (1 << jnp.arange(masks.shape[1]))]


def estimate(key: jax.Array, table: np.ndarray, index: str, order: int, budget: int, method: str) -> Any:
    """One estimate of a table's game, evaluations among the seconds, as shapiq's are."""
    v = jax.tree_util.Partial(_look_up, jnp.asarray(table))
    players = len(table).bit_length() - 1
    found = jm.interactions.estimate(key, v, players, index=index, order=order, budget=budget, method=method)
    return jax.block_until_ready(found)


@dataclasses.dataclass
class Plain:
    """Values without stated errors."""

    values: np.ndarray
    standard_errors: Any = None


def permutations(key: jax.Array, table: np.ndarray, budget: int, seed: int) -> dict[str, Callable[[], Any]]:
    """Permutation sampling within the budget: the package's, and a plain one in NumPy that stays as it is."""
    players = len(table).bit_length() - 1
    samples = (budget - 2) // (players - 1)
    if samples < 2:
        return {}
    v = jax.tree_util.Partial(_look_up, jnp.asarray(table))

    def plain() -> Plain:
        order = np.argsort(np.random.default_rng(seed).random((samples, players)), 1)
        rows = np.concatenate([np.zeros((samples, 1), int), np.cumsum(1 << order, 1)], 1)
        gains = np.diff(np.asarray(table, np.float64)[rows], axis=1)
        return Plain(np.take_along_axis(gains, np.argsort(order, 1), 1).mean(0))

    return {
        "permutation sampling": plain,
        "jm.sampled_shapley": lambda: jm.sampled_shapley(key, v, players, num_samples=samples),
    }


def overhead(args: Any, with_peers: bool) -> dict[str, Any]:
    """Seconds of the forward passes of an estimate, and of the arithmetic beside them."""
    model = jm.models.load(args.model)
    if model.token_grid is None:
        sys.exit("the overhead is that of a vision transformer; this model has no tokens")
    image = model.preprocess(Image.open(args.photo))
    v = jm.token_value_fn(model, image, int(jnp.argmax(model.logits(image[None])[0])))
    players = int(np.prod(model.token_grid))
    key, chunk = jax.random.key(args.seed), 64
    masks = jax.random.bernoulli(key, 0.5, (chunk, players))
    run = jax.jit(lambda game, some: game(some))
    compiled = seconds(lambda: run(v, masks), repeats=1)[0]
    each = statistics.median(seconds(lambda: run(v, masks), repeats=max(1, args.forwards // chunk))) / chunk
    out: dict[str, Any] = {
        "players": players,
        "coalitions": args.coalitions,
        "forward passes timed": max(1, args.forwards // chunk) * chunk,
        "compiling the network": compiled,
        "seconds of a forward pass": each,
        "seconds of all forward passes": each * args.coalitions,
    }
    # The arithmetic alone: an estimate of a game whose values cost nothing, two parts smooth and one of a few sets.
    rng = np.random.default_rng(args.seed)
    alone, pairs = rng.normal(size=players) / players**0.5, rng.integers(0, players, (200, 2))
    stub = jax.tree_util.Partial(_stub, jnp.asarray(alone, jnp.float32), jnp.asarray(pairs))
    estimate_of_stub = functools.partial(
        jm.interactions.estimate, key, stub, players, index="k-SII", order=2, budget=args.coalitions
    )
    first = seconds(lambda: estimate_of_stub().values, repeats=1)[0]
    took = statistics.median(seconds(lambda: estimate_of_stub().values, repeats=1))
    out["jaxmoxi"] = {"first": first, "seconds": took, "beside the forward passes": took / (each * args.coalitions)}
    # On the network's own values, where there are fewer.
    fewer = min(args.forwards, args.coalitions)
    of_model = functools.partial(
        jm.interactions.estimate, key, v, players, index="k-SII", order=2, budget=fewer, batch_size=chunk
    )
    start = time.perf_counter()
    found = jax.block_until_ready(of_model())
    whole = time.perf_counter() - start
    first = seconds(lambda: of_model(start=found).values, repeats=1)[0]
    took = seconds(lambda: of_model(start=found).values, repeats=1)[0]
    out["on the network's values"] = {
        "coalitions": fewer,
        "first call in whole": whole,
        "seconds of the arithmetic": took,
        "beside the forward passes": took / (each * fewer),
        "faithfulness": None if found.faithfulness is None else float(found.faithfulness),
    }
    if with_peers:
        sets = np.asarray(found.sets)
        call = jax.jit(stub)
        for budget in sorted({fewer, args.coalitions}):
            for name in args.overhead_peers:
                game = peers.make_game(lambda some: np.asarray(call(jnp.asarray(some, bool)), np.float64), players)
                try:
                    took = peers.approximate(name, game, players, "k-SII", 2, budget, sets[:1], args.seed)[1]
                except Exception as error:
                    out[f"{name}, {budget}"] = f"{type(error).__name__}: {error}"[:200]
                    continue
                took -= game.seconds
                out[f"{name}, {budget}"] = {"seconds": took, "beside the forward passes": took / (each * budget)}
                print(name, budget, took, flush=True)
                if took > args.patience * 10:
                    break
    return out


def _stub(alone: jax.Array, pairs: jax.Array, masks: jax.Array) -> jax.Array:
    x = masks.astype(jnp.float32)
    return jax.nn.sigmoid(x @ alone + 0.05 * (x[:, pairs[:, 0]] * x[:, pairs[:, 1]]).sum(1) - 2)
