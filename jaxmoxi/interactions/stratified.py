"""Estimates set by set: discrete derivatives where the sizes of the coalitions are spread evenly.

I(S) is the mean of D_S(T), T of a size t with probability p_s(t) C(n - s, t), and all of a size alike. The sizes of the
draws of a set are a van der Corput sequence, from a random start, through that distribution: whatever the number of
draws, each size comes as often as it should, as in stratified sampling (Maleki, Tran-Thanh, Hines, Rahwan and Rogers,
"Bounding the Estimation Error of Sampling-based Shapley Value Approximation", 2013; Castro, Gomez, Molina and Tejada,
"Improving polynomial estimation of the Shapley value by stratified random sampling", 2017). The estimate is unbiased.

The sets are served in turn, the smaller first, from a random one on. A set of s players takes 2^s coalitions a draw, of
which none serves another set: the method needs large budgets.
"""

from __future__ import annotations

import functools
from math import comb
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxmoxi.interactions.draws import van_der_corput
from jaxmoxi.interactions.indices import derivative_weights
from jaxmoxi.interactions.lattice import sets_up_to
from jaxmoxi.interactions.methods import Fit, Method, Request, register
from jaxmoxi.interactions.moments import moderated_variances


class Turns(NamedTuple):
    """What makes a coalition from its index.

    sets:       int32[M, order], as `sets_up_to` has them.
    chances:    float32[order, n + 1], by size of the set: the cumulative probability of the sizes of T.
    key:        what all is drawn from.
    """

    sets: Int[Array, "M order"]
    chances: Float[Array, "order sizes"]
    key: Array


def _blocks(num_players: int, order: int) -> list[tuple[int, int, int]]:
    """By size: where it begins in a turn, its sets, and the coalitions of a draw."""
    found, start = [], 0
    for size in range(1, order + 1):
        count = comb(num_players, size)
        found.append((start, count, 2**size))
        start += count * 2**size
    return found


def _turn(request: Request) -> int:
    start, count, each = _blocks(request.num_players, request.order)[-1]
    return start + count * each


def _least(request: Request) -> int:
    return 1 + 2 * _turn(request)


@functools.cache
def _chances(request: Request) -> Float[np.ndarray, "order sizes"]:
    n, order = request.num_players, request.order
    found = np.ones((order, n + 1))
    for size in range(1, order + 1):
        p = derivative_weights(request.index, n, size, order, request.p)
        found[size - 1, : len(p)] = np.cumsum([float(w * comb(n - size, t)) for t, w in enumerate(p)])
        found[size - 1, len(p) - 1 :] = 1
    return found


def _plan(key: Array, request: Request, budget: int) -> Turns:
    sets = jnp.asarray(sets_up_to(request.num_players, request.order))
    return Turns(sets, jnp.asarray(_chances(request), jnp.float32), key)


def _mask(turns: Turns, index: Array) -> Bool[Array, "P"]:
    sets, chances, key = turns
    n, order = chances.shape[1] - 1, chances.shape[0]
    blocks = _blocks(n, order)
    whole = blocks[-1][0] + blocks[-1][1] * blocks[-1][2]
    later = jnp.maximum(index - 1, 0)
    turn, place = later // whole, later % whole
    size = (place >= jnp.asarray([b[0] for b in blocks])).sum()  # 1 .. order
    start = jnp.asarray([b[0] for b in blocks])[size - 1]
    count = jnp.asarray([b[1] for b in blocks])[size - 1]
    first = jnp.asarray(np.cumsum([0, *(b[1] for b in blocks)])[:-1])[size - 1]
    draw, part = (place - start) >> size, (place - start) & ((1 << size) - 1)
    row = first + (draw + _offset(key, turn, size, count)) % count
    own = jax.random.fold_in(key, row)
    point = (van_der_corput(turn) + jax.random.uniform(own)) % 1.0
    target = (point >= chances[size - 1]).sum()
    members = sets[row]
    there = jnp.arange(n)[:, None] == members
    noise = jax.random.bits(jax.random.fold_in(own, turn), (n,)) >> 1
    noise = jnp.where(there.any(1), jnp.uint32(2**32 - 1), noise)
    ranks = jnp.argsort(jnp.argsort(noise))
    chosen = (there & ((part >> jnp.arange(order)) & 1 == 1)).any(1)
    return ((ranks < target) | chosen) & (index > 0)


def _offset(key: Array, turn: Array, size: Array, count: Array) -> Int[Array, ""]:
    """Which set a turn begins with."""
    apart = jnp.uint32(2**31) + size.astype(jnp.uint32)  # from the rows and turns that are folded in elsewhere
    start = jax.random.bits(jax.random.fold_in(jax.random.fold_in(key, turn), apart))
    return (start % count.astype(jnp.uint32)).astype(jnp.int32)


@functools.partial(jax.jit, static_argnums=2)
def _fit(turns: Turns, values: Array, request: Request) -> Fit:
    blocks, whole = _blocks(request.num_players, request.order), _turn(request)
    count = len(values) - 1
    rounds = -(-count // whole)
    table = jnp.pad(values[1:], (0, rounds * whole - count)).reshape(rounds, whole)
    means, errors = [], []
    for size, (start, sets, each) in enumerate(blocks, 1):
        signs = np.array([(-1) ** (size - bin(part).count("1")) for part in range(each)], np.float32)
        draws = (table[:, start : start + sets * each].reshape(rounds, sets, each) * signs).sum(2)
        done = np.arange(rounds)[:, None] * whole + start + (np.arange(sets) + 1) * each <= count
        offsets = jax.vmap(lambda turn: _offset(turns.key, turn, jnp.int32(size), jnp.int32(sets)))(jnp.arange(rounds))  # noqa: B023
        align = jax.vmap(jnp.roll)
        draws, there = align(draws, offsets), align(jnp.asarray(done, jnp.float32), offsets)
        m = there.sum(0)
        mean = (draws * there).sum(0) / m
        spread = moderated_variances((there * (draws - mean) ** 2).sum(0), m, jnp.mean(mean**2))
        means.append(mean)
        errors.append(jnp.sqrt(spread / m))
    return Fit(values[0], jnp.concatenate(means), jnp.concatenate(errors))


register(
    Method(
        name="stratified",
        source="Maleki, Tran-Thanh, Hines, Rahwan and Rogers, 2013; Castro, Gomez, Molina and Tejada, 2017",
        help="for each set its own derivatives, at sizes that are spread evenly; unbiased, and needs large budgets",
        indices=frozenset({"SV", "BV", "SII", "BII", "STII", "CHII"}),
        least=_least,
        plan=_plan,
        mask=_mask,
        fit=_fit,
        draws_for=lambda request: request,
    )
)
