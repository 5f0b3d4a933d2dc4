"""Attention of short rows as a Pallas kernel for TPUs: the scores never leave the chip's own memory (VMEM).

A coalition's row has at most some hundred tokens, so queries, keys and values of whole rows fit in VMEM, and so do a
head's scores; longer rows are not this kernel's (`serves`). The kernel takes a few rows at a time and one head after
the other; what it reads and writes in the chip's main memory is `qkv` once and the outputs once. XLA's own form writes
and reads all scores.

The kernel runs forward. Its derivatives are the plain form's, which computes the primal anew where they are asked for.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import batching, mlir
from jaxtyping import Array, Bool, Float

from jaxmoxi.kernels.plain_attention import attend_batched

# The bytes of queries, keys and values that one step of the kernel holds, where one row has no more.
_BLOCK_BYTES = 2 * 2**20
# What the compiler allows a kernel is 16 MiB. By its own reports a kernel needs its operands and outputs twice, as the
# next rows arrive while these are computed, and the scores of at most all heads that are computed without a loop
# between them. Of the shapes compiled for a v5e (1 to 1,500 tokens, widths 96 to 1,280, both kinds of numbers), none of
# which this is more failed.
_MEMORY = 15 * 2**20
# A score of an absent token: exp of it is 0, and unlike -inf it makes no NaN with another.
_ABSENT = -1e30
# The width of a register: so many numbers of a row are computed at once.
_LANES = 128


class Plan(NamedTuple):
    """How the kernel goes through its rows: `rows` a step, `unrolled` of them at once, heads one after the other or
    strip by strip in a loop (`looped`)."""

    rows: int
    unrolled: int
    looped: bool


def serves(shape: tuple[int, ...], dtype: Any, num_heads: int) -> bool:
    """Whether the kernel is for queries, keys and values of this shape [B, N, 3D] and kind."""
    if dtype not in (jnp.bfloat16, jnp.float32) or shape[-1] % (3 * num_heads):
        return False
    return plan_of(shape, dtype, num_heads) is not None


def plan_of(shape: tuple[int, ...], dtype: Any, num_heads: int) -> Plan | None:
    """The fastest way through rows of this shape [B, N, 3D] that fits the memory; None where none does."""
    batch, count, wide = shape
    size, width = jnp.dtype(dtype).itemsize, wide // 3
    most = rows_of(batch, count * wide * size)
    tall, lanes = -(-count // 8) * 8, -(-count // _LANES) * _LANES
    strip = _heads_together(width, num_heads)
    # A loop reads lanes at places that only it knows, which must be whole registers.
    loops = num_heads % strip == 0 and strip * width // num_heads == _LANES
    for rows in sorted({most, 1}, reverse=True):
        unrolled = next(n for n in (4, 2, 1) if rows % n == 0 and (n == 1 or n * num_heads <= 12))
        for plan in (Plan(rows, unrolled, False), Plan(rows, 1, False), Plan(rows, 1, True)):
            heads = strip if plan.looped else num_heads * plan.unrolled
            if (loops or not plan.looped) and 8 * rows * tall * width * size + 4 * heads * tall * lanes <= _MEMORY:
                return plan
    return None


def _heads_together(width: int, num_heads: int) -> int:
    """How many heads share the lanes of a register."""
    return min(num_heads, max(1, _LANES * num_heads // width))


@partial(jax.custom_jvp, nondiff_argnums=(2, 3))
def attend(
    qkv: Float[Array, "B N D3"], present: Bool[Array, "B N"], num_heads: int, interpret: bool = False
) -> Float[Array, "B N D"]:
    """Attention by the kernel; see `attention.attention`.

    interpret: runs the kernel in JAX's interpreter, on any machine.
    """
    # The kernel knows two precisions; whoever asks for one between them gets the finer.
    precise = jax.config.jax_default_matmul_precision not in (None, "default", "bfloat16", "fastest")  # type: ignore
    if interpret:
        return _call(qkv, present, num_heads=num_heads, precise=precise, interpret=True)
    return _short_attention.bind(qkv, present, num_heads=num_heads, precise=precise)


@attend.defjvp
def _tangent(num_heads: int, interpret: bool, primals: Any, tangents: Any) -> tuple[Array, Array]:
    (qkv, present), (moved, _) = primals, tangents
    return jax.jvp(lambda x: attend_batched(x, present, num_heads=num_heads), (qkv,), (moved,))


def _lower(context: Any, *operands: Any, num_heads: int, precise: bool) -> Any:
    """The kernel, or the plain form in a program that the compiler divides among devices by itself.

    No compiler can divide a kernel: it would refuse the program, or gather all rows on every device. Inside
    `jax.shard_map`, where each device has rows of its own, there is nothing to divide; with `check_vma=True` it would
    have to be told how the kernel's output varies, so the plain form is taken there too.
    """
    around = context.module_context.axis_context
    if hasattr(around, "manual_axes"):
        alone = set(around.manual_axes) == set(around.mesh.axis_names) or around.mesh.size == 1
        varying = getattr(getattr(context.avals_in[0], "mat", None), "varying", None)
        alone = alone and not varying
    else:
        alone = getattr(around, "num_devices", None) == 1
    form = partial(_call, precise=precise, interpret=False) if alone else attend_batched
    return mlir.lower_fun(partial(form, num_heads=num_heads), multiple_results=False)(context, *operands)


def _map(operands: Any, axes: Any, **params: Any) -> tuple[Array, int]:
    """`vmap` makes more rows of its axis."""
    size = next(x.shape[axis] for x, axis in zip(operands, axes, strict=True) if axis is not None)
    moved = [
        jnp.broadcast_to(x, (size, *x.shape)) if axis is None else jnp.moveaxis(x, axis, 0)
        for x, axis in zip(operands, axes, strict=True)
    ]
    out = _short_attention.bind(*(x.reshape(-1, *x.shape[2:]) for x in moved), **params)
    return out.reshape(size, -1, *out.shape[1:]), 0


_short_attention = Primitive("short_attention")
_short_attention.def_impl(lambda *operands, **params: _call(*operands, interpret=False, **params))
_short_attention.def_abstract_eval(lambda qkv, present, **_: qkv.update(shape=(*qkv.shape[:2], qkv.shape[2] // 3)))
batching.primitive_batchers[_short_attention] = _map
mlir.register_lowering(_short_attention, _lower, platform="tpu")
# A program for several platforms holds every form for each of them, and takes its own when it runs.
mlir.register_lowering(
    _short_attention,
    mlir.lower_fun(
        lambda *operands, num_heads, precise: attend_batched(*operands, num_heads=num_heads), multiple_results=False
    ),
)


def _call(
    qkv: Float[Array, "B N D3"], present: Bool[Array, "B N"], *, num_heads: int, precise: bool, interpret: bool
) -> Float[Array, "B N D"]:
    """The kernel over all rows. precise: products of float32 in float32."""
    from jax.experimental import pallas as pl

    mask = jnp.where(present, 0, _ABSENT).astype(jnp.float32)[:, None]
    batch, count, wide = qkv.shape
    # Products of bfloat16 are exact in what they are added up in: there is nothing to ask for.
    precision = jax.lax.Precision.HIGHEST if precise and qkv.dtype == jnp.float32 else jax.lax.Precision.DEFAULT
    plan = plan_of(qkv.shape, qkv.dtype, num_heads) or Plan(1, 1, False)  # `serves` is asked before
    rows = plan.rows
    padded = -(-batch // rows) * rows
    if padded != batch:
        qkv, mask = (jnp.pad(x, [(0, padded - batch), (0, 0), (0, 0)]) for x in (qkv, mask))
    out = pl.pallas_call(
        partial(_kernel, num_heads=num_heads, plan=plan, precision=precision),
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


def _kernel(qkv: Any, mask: Any, out: Any, *, num_heads: int, plan: Plan, precision: jax.lax.Precision) -> None:
    """One step of the grid: heads that share the lanes of a register are read together, and told apart by masks.

    A product with a head's lanes alone costs the matrix unit as much as one with all of them, of which the others are
    zeros, and a head by itself would have to be shifted into place.
    """
    from jax.experimental import pallas as pl

    width = qkv.shape[2] // 3
    head = width // num_heads
    together = _heads_together(width, num_heads)
    scale = head**-0.5 * math.log2(math.e)  # exp2 is what the machine has

    def product(a: Any, b: Any, axes: tuple[int, int]) -> Any:
        numbers = (((axes[0],), (axes[1],)), ((), ()))
        return jax.lax.dot_general(a, b, numbers, precision=precision, preferred_element_type=jnp.float32)

    def attend_strip(row: Any, start: Any, heads: int) -> None:
        """The heads whose lanes begin at `start`."""
        lanes = heads * head
        query, key, value = (qkv[row, :, pl.ds(part * width + start, lanes)] for part in range(3))
        lane = jax.lax.broadcasted_iota(jnp.int32, (1, lanes), 1)
        whole: Any = None
        for h in range(heads):
            own = (lane >= h * head) & (lane < (h + 1) * head)
            asked = query if heads == 1 else jnp.where(own, query, jnp.zeros_like(query))
            scores = product(asked, key, (1, 1)) * scale + mask[row]
            weights = jnp.exp2(scores - jnp.max(scores, axis=-1, keepdims=True))
            total = jnp.sum(weights, axis=-1, keepdims=True)
            read = product(weights.astype(value.dtype), value, (1, 0)) / total
            whole = read if whole is None else jnp.where(own, read, whole)
        out[row, :, pl.ds(start, lanes)] = whole.astype(out.dtype)

    def attend_row(row: Any) -> None:
        if plan.looped:

            def step(i: Any, _: None) -> None:
                attend_strip(row, pl.multiple_of(i * _LANES, _LANES), together)

            jax.lax.fori_loop(0, num_heads // together, step, None)
            return
        for first in range(0, num_heads, together):
            attend_strip(row, first * head, min(together, num_heads - first))

    # Several rows at once where the heads are few: the more there is, the better the compiler fills its schedule.
    def attend_rows(i: Any, _: None) -> None:
        for j in range(plan.unrolled):
            attend_row(i * plan.unrolled + j)

    jax.lax.fori_loop(0, plan.rows // plan.unrolled, attend_rows, None)
