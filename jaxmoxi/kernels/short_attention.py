"""Attention of short rows as a Pallas kernel for TPUs: the scores never leave the chip's own memory (VMEM).

A coalition's row has at most some hundred tokens, so queries, keys and values of whole rows fit in VMEM, and so do a
head's scores. The kernel takes a few rows at a time and one head after the other; what it reads and writes in the
chip's main memory is `qkv` once and the outputs once. XLA's own form writes and reads all scores.

The kernel runs forward. Its derivatives are the plain form's, which computes the primal anew where they are asked for.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

# The bytes of queries, keys and values that one step of the kernel holds, beside its outputs and one head's scores.
# Both are held twice, as the next rows arrive while these are computed; the compiler allows 16 MiB in all.
_BLOCK_BYTES = 2 * 2**20
# Longer rows have scores that leave no room for the rest: 4 MiB of float32 a head.
_MAX_TOKENS = 1024
# A score of an absent token: exp of it is 0, and unlike -inf it makes no NaN with another.
_ABSENT = -1e30
# The width of a register: so many numbers of a row are computed at once.
_LANES = 128


def serves(shape: tuple[int, ...], dtype: Any, num_heads: int) -> bool:
    """Whether the kernel is for queries, keys and values of this shape [B, N, 3D] and kind."""
    _, count, wide = shape
    fits = count * wide * jnp.dtype(dtype).itemsize <= 2 * _BLOCK_BYTES
    return dtype in (jnp.bfloat16, jnp.float32) and count <= _MAX_TOKENS and fits and wide % (3 * num_heads) == 0


@partial(jax.custom_jvp, nondiff_argnums=(2, 3, 4))
def attend(
    qkv: Float[Array, "B N D3"],
    present: Bool[Array, "B N"],
    num_heads: int,
    plain: Callable[[Array, Array], Array],
    interpret: bool = False,
) -> Float[Array, "B N D"]:
    """Attention by the kernel; see `attention.attention`.

    plain:     the same function of `(qkv, present)` in plain JAX, of which derivatives are taken.
    interpret: runs the kernel in JAX's interpreter, on any machine.
    """
    from jax.experimental import pallas as pl

    batch, count, wide = qkv.shape
    rows = rows_of(batch, count * wide * qkv.dtype.itemsize)
    padded = -(-batch // rows) * rows
    if padded != batch:
        qkv, present = (jnp.pad(x, [(0, padded - batch), *[(0, 0)] * (x.ndim - 1)]) for x in (qkv, present))
    mask = jnp.where(present, 0, _ABSENT).astype(jnp.float32)[:, None]
    out = pl.pallas_call(
        partial(_kernel, num_heads=num_heads),
        grid=(padded // rows,),
        in_specs=[
            pl.BlockSpec((rows, count, wide), lambda i: (i, 0, 0)),
            pl.BlockSpec((rows, 1, count), lambda i: (i, 0, 0)),
        ],
        out_specs=pl.BlockSpec((rows, count, wide // 3), lambda i: (i, 0, 0)),
        out_shape=jax.ShapeDtypeStruct((padded, count, wide // 3), qkv.dtype),
        cost_estimate=pl.CostEstimate(**cost(padded, count, wide // 3, num_heads, qkv.dtype)),
        interpret=interpret,
        name="short_attention",
    )(qkv, mask)
    return out[:batch]


@attend.defjvp
def _tangent(num_heads: int, plain: Any, interpret: bool, primals: Any, tangents: Any) -> tuple[Array, Array]:
    (qkv, present), (moved, _) = primals, tangents
    return jax.jvp(lambda x: plain(x, present), (qkv,), (moved,))


def rows_of(batch: int, row_bytes: int) -> int:
    """How many rows a step of the kernel takes: as many as fit, none of them padding if that can be had."""
    most = max(1, min(batch, 8, _BLOCK_BYTES // row_bytes))
    return next((rows for rows in range(most, max(1, most // 2) - 1, -1) if batch % rows == 0), most)


def cost(batch: int, count: int, width: int, num_heads: int, dtype: Any) -> dict[str, int]:
    """What the kernel takes and moves, for the compiler's schedule and for whoever models a program's time.

    `flops` is time, at the rate of the matrix units: most of the kernel is vector work, beside which the products
    disappear. The cycles a head of a row are those of schedules that the compiler made for a v5e, heads of 64 (197
    tokens: 272; 33 tokens: 44).
    """
    tall, wide = -(-count // 8) * 8, -(-count // _LANES)
    cycles = batch * num_heads * tall * (0.26 * wide + 0.84)
    return dict(
        flops=int(cycles * 2 * 4 * _LANES**2),
        transcendentals=batch * num_heads * count * count,
        bytes_accessed=4 * batch * count * width * jnp.dtype(dtype).itemsize,
    )


def _kernel(qkv: Any, mask: Any, out: Any, *, num_heads: int) -> None:
    """One step of the grid: heads that share the lanes of a register are read together, and told apart by masks.

    A product with a head's lanes alone costs the matrix unit as much as one with all of them, of which the others are
    zeros, and a head by itself would have to be shifted into place.
    """
    from jax.experimental import pallas as pl

    rows, _, wide = qkv.shape
    width = wide // 3
    head = width // num_heads
    together = min(num_heads, max(1, _LANES // head))
    scale = head**-0.5 * math.log2(math.e)  # exp2 is what the machine has

    def attend_row(row: Any) -> None:
        absent = mask[row]
        for first in range(0, num_heads, together):
            heads = min(together, num_heads - first)
            lanes = heads * head
            query, key, value = (qkv[row, :, pl.ds(part * width + first * head, lanes)] for part in range(3))
            lane = jax.lax.broadcasted_iota(jnp.int32, (1, lanes), 1)
            whole = None
            for h in range(heads):
                own = (lane >= h * head) & (lane < (h + 1) * head)
                asked = query if heads == 1 else jnp.where(own, query, jnp.zeros_like(query))
                scores = jax.lax.dot_general(asked, key, (((1,), (1,)), ((), ())), preferred_element_type=jnp.float32)
                scores = scores * scale + absent
                weights = jnp.exp2(scores - jnp.max(scores, axis=-1, keepdims=True))
                total = jnp.sum(weights, axis=-1, keepdims=True)
                read = jax.lax.dot_general(
                    weights.astype(value.dtype), value, (((1,), (0,)), ((), ())), preferred_element_type=jnp.float32
                )
                read = read / total
                whole = read if whole is None else jnp.where(own, read, whole)
            out[row, :, pl.ds(first * head, lanes)] = whole.astype(out.dtype)

    # Several rows at once where the heads are few: the more there is, the better the compiler fills its schedule.
    unrolled = next(n for n in (4, 2, 1) if rows % n == 0 and (n == 1 or n * num_heads <= 12))

    def attend_rows(i: Any, _: None) -> None:
        for j in range(unrolled):
            attend_row(i * unrolled + j)

    jax.lax.fori_loop(0, rows // unrolled, attend_rows, None)
