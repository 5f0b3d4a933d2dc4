"""The value of many coalitions: chunking, padding, the size of a chunk, and what happens when memory runs out.

Every algorithm of this package evaluates coalitions through this module. Two `jit` boundaries stand between a caller
and a game: the chunks here, behind `evaluate`, `readouts`, `read_generated` and `read_rows`, and the stage and step of
a greedy search (`jaxmoxi.moxi.greedy`). They are compiled once for a game's structure and shapes, whatever its image,
weights or target; called from inside somebody's own `jit` or `vmap` they are traced along.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import contextmanager
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from jaxmoxi.errors import InputError, OutOfMemoryError
from jaxmoxi.games.base import Game, ValueFn, as_game, read
from jaxmoxi.games.hardware import hardware, platform
from jaxmoxi.games.probe import check_players
from jaxmoxi.guards import deliberate
from jaxmoxi.pytrees import is_concrete, output_shapes
from jaxmoxi.types import AnyArray, Readout

# A larger chunk gains nothing: on an accelerator the cores are full; on a CPU a chunk should stay in the
# last-level cache (of 32 MiB on common servers): a DeiT-Tiny on two cores runs 74, 77, 78, 58
# and 48 forwards/s in chunks of 4, 8, 16, 32 and 64 at 197 tokens, and 517, 695, 826, 931 and 1003 at 17. A coalition
# that needs more still goes in a chunk of up to four, as long as that is little memory.
_MAX_CHUNK = {"cpu": 64, "default": 2048}
_CPU_BUDGET = 32 * 2**20
_CPU_MEMORY, _CPU_FEW = 2**30, 4
# A TPU's compiler keeps what a chunk computes in the chip's vector memory (128 MiB of a v5e) where it fits, which is
# far less than all that is alive in the traced program, most of it fused. By the compiler's own figures for 197 tokens,
# a DeiT-Tiny reaches 29, 30, 24 and 19 % of a v5e's peak in chunks of 128, 256, 512 and 1024, where 128 take 270 MB of
# the traced program; a ViT-B 68, 70 and 60 % in chunks of 32, 64 and 128, where 32 take 240 MB. (105 tokens of a
# DeiT-Tiny leave the memory at 512 rows, 560 MB: 17 %.)
_TPU_BUDGET = 300 * 2**20


@deliberate
def evaluate(
    v: ValueFn,
    masks: Bool[AnyArray, "C P"],
    *,
    batch_size: int | None = None,
    max_visible: int | None = None,
) -> Float[Array, "C"]:
    """The values of many coalitions, float32[C], a chunk of `batch_size` at a time.

    v:           a value function (see `jaxmoxi.games.base`).
    masks:       bool[C, P], True where a player is visible.
    batch_size:  coalitions per chunk; None chooses one that fits the memory (`choose_batch_size`). The last chunk is
                 padded, so every coalition meets the same compiled code, and a chunk changes no value beyond rounding.
    max_visible: a promise that no row shows more players than this, for value functions that can use it.

    Raises ValueError for masks that are not bool[C, P], OutOfMemoryError with the size to try.
    """
    return readouts(v, masks, batch_size=batch_size, max_visible=max_visible).values


@deliberate
def readouts(
    v: ValueFn,
    masks: Bool[AnyArray, "C P"],
    *,
    batch_size: int | None = None,
    max_visible: int | None = None,
) -> Readout:
    """As `evaluate`, with the lead and the probability of each coalition where the value function can tell."""
    masks = jnp.asarray(masks)
    if masks.ndim != 2 or masks.dtype != bool:
        raise InputError(f"expected masks bool[C, P], True = visible; got {masks.dtype} of shape {masks.shape}")
    return read_generated(
        as_game(v),
        _row,
        masks,
        count=len(masks),
        num_players=masks.shape[1],
        batch_size=batch_size,
        max_visible=max_visible,
    )


def _row(masks: Bool[Array, "C P"], index: Any) -> Bool[Array, "P"]:
    return masks[index]


def read_generated(
    game: Game,
    make_mask: Callable[..., Any],
    operands: Any,
    *,
    count: int,
    num_players: int,
    batch_size: int | None = None,
    max_visible: int | None = None,
) -> Readout:
    """Readouts of `count` coalitions that are made one by one, where all of them together would not fit.

    make_mask: `(operands, index) -> bool[P]`, traceable; a module-level function, so that it is compiled once.
    """
    check_players(game, num_players)
    check_batch_size(batch_size)
    max_visible = max_visible if game.sized else None  # another promise is not another program for games that ignore it
    if count == 0:
        told = tells(game, num_players)
        return jax.tree.map(lambda x: jnp.zeros((0, *x.shape[1:]), x.dtype), told)
    with memory_advice(game, num_players, max_visible, batch_size):
        out = _read_chunks(game, make_mask, operands, count, num_players, batch_size, max_visible)
        return jax.block_until_ready(out) if is_concrete(out) else out


@partial(jax.jit, static_argnums=(1, 3, 4, 5, 6))
def _read_chunks(
    game: Game,
    make_mask: Callable[..., Any],
    operands: Any,
    count: int,
    num_players: int,
    batch_size: int | None,
    max_visible: int | None,
) -> Readout:
    size = min(batch_size or choose_batch_size(game, num_players, max_visible=max_visible), count)
    chunks = math.ceil(count / size)

    def chunk(start: Any) -> Readout:
        # The last chunk's surplus rows repeat its last coalition: every chunk has the same shape.
        indices = jnp.minimum(start + jnp.arange(size), count - 1)
        return read(game, jax.vmap(partial(make_mask, operands))(indices), max_visible)

    out = jax.lax.map(chunk, jnp.arange(chunks) * size)
    return jax.tree.map(lambda x: x.reshape(chunks * size)[:count], out)


def read_rows(
    game: Game,
    masks: Bool[np.ndarray, "C P"],
    *,
    size: int,
    max_visible: int | None,
    reader: Callable[[Game, Array, int | None], Any] = read,
) -> Any:
    """Readouts of coalitions that the host chose, NumPy arrays [C], in chunks of one compiled shape.

    size:   rows a chunk; the last is padded. The device is given all chunks before the first is waited for.
    reader: (game, masks, max_visible) -> a tree of arrays [C], traceable and hashable; `read` gives a `Readout`.
    Raises TracedError for a game of traced arrays.
    """
    count, num_players = masks.shape
    with memory_advice(game, num_players, max_visible, size):
        rows = masks[np.minimum(np.arange(-(-count // size) * size), count - 1)].reshape(-1, size, num_players)
        outs = [_read_chunk(game, chunk, max_visible, reader) for chunk in rows]
        if not is_concrete(outs):
            raise TracedError(OUTSIDE)
        outs = jax.device_get(outs)
    return jax.tree.map(lambda *chunks: np.concatenate(chunks)[:count], *outs)


OUTSIDE = (
    "this search decides on the host what to evaluate next: call it outside jit, vmap and grad. Its result is a "
    "choice, which has no gradient: differentiate v(masks) of the group that it finds"
)


class TracedError(InputError):
    """A search that decides on the host met numbers that are being traced, and cannot be looked at."""


@partial(jax.jit, static_argnums=(2, 3))
def _read_chunk(
    game: Game, masks: Bool[Array, "C P"], max_visible: int | None, reader: Callable[[Game, Array, int | None], Any]
) -> Any:
    return reader(game, masks, max_visible)


def tells(game: Game, num_players: int) -> Readout:
    """What the game can tell of one coalition, as shapes (None where it cannot)."""
    return output_shapes(_read_one, game, num_players)


def _read_one(game: Game, num_players: int) -> Readout:
    return read(game, jnp.ones((1, num_players), bool), None)


def check_batch_size(batch_size: int | None) -> None:
    """Raises ValueError unless `batch_size` is None or at least 1."""
    whole = isinstance(batch_size, int | np.integer) and not isinstance(batch_size, bool)
    if batch_size is not None and not (whole and batch_size >= 1):
        raise InputError(f"batch_size must be at least 1, or None to have it chosen; got {batch_size!r}")


def choose_batch_size(v: ValueFn, num_players: int, *, max_visible: int | None = None) -> int:
    """A chunk that fits the memory: a power of two between 1 and what the device can use, times the number of devices.

    The arrays one chunk of coalitions needs at once are read off the traced program (largest sum of live
    intermediates, fused or not, so on the safe side) and divided into a quarter of the free memory the device
    reports; on a TPU into 300 MiB at most and on the CPU into 32 MiB (four coalitions may take 1 GiB), because larger
    chunks only leave the vector memory and the caches.
    """
    game = as_game(v)
    shards = game.num_shards
    machine = hardware()
    rows = shards * (8 if machine.platform == "cpu" else 64)  # more, so that weights weigh little in a row's share
    masks = jax.ShapeDtypeStruct((rows, num_players), bool)
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(jnp.shape(x), jnp.result_type(x)), game)
    program = jax.make_jaxpr(lambda game, masks: read(game, masks, max_visible))(shapes, masks)
    per_row = max(1, _live_bytes(program.jaxpr) // (rows // shards))  # of one device, where several share the rows
    limit = _MAX_CHUNK.get(machine.platform, _MAX_CHUNK["default"])
    budget = _CPU_BUDGET if machine.free_bytes is None else machine.free_bytes // 4
    fits = (min(budget, _TPU_BUDGET) if machine.platform == "tpu" else budget) // per_row
    if machine.platform == "cpu":
        fits = max(fits, min(_CPU_FEW, _CPU_MEMORY // per_row))
    return shards * max(1, min(limit, 2 ** int(math.log2(max(1, fits)))))


def _live_bytes(jaxpr: Any) -> int:
    """The largest total of intermediates alive at once while a jaxpr runs in order, in bytes."""
    last_use = {v: i for i, eqn in enumerate(jaxpr.eqns) for v in eqn.invars if not hasattr(v, "val")}
    last_use |= {v: len(jaxpr.eqns) for v in jaxpr.outvars if not hasattr(v, "val")}
    own = set(jaxpr.invars) | set(jaxpr.constvars)
    live, peak, dying = 0, 0, {}
    for variable, index in last_use.items():
        dying.setdefault(index, []).append(variable)
    for i, eqn in enumerate(jaxpr.eqns):
        inner = max((_live_bytes(j) for j in _inner_jaxprs(eqn.params)), default=0)
        live += sum(_nbytes(v) for v in eqn.outvars)
        peak = max(peak, live + inner)
        live -= sum(_nbytes(v) for v in dying.get(i, ()) if v not in own)
        live -= sum(_nbytes(v) for v in eqn.outvars if v not in last_use)
    return peak


def _inner_jaxprs(params: dict[str, Any]) -> list[Any]:
    """The bodies of a loop, branch or call; of branches that are for platforms, that of the machine."""
    platforms = params.get("branches_platforms")
    if platforms:
        own = (i for i, names in enumerate(platforms) if names is None or platform() in names)
        params = {"branch": params["branches"][next(own)]}
    values = [v for p in params.values() for v in (p if isinstance(p, tuple | list) else (p,))]
    bodies = [getattr(v, "jaxpr", v) for v in values]
    return [b for b in bodies if hasattr(b, "eqns")]


def _nbytes(variable: Any) -> int:
    aval = variable.aval
    return math.prod(aval.shape) * aval.dtype.itemsize if hasattr(aval, "dtype") else 0


@contextmanager
def memory_advice(game: Game, num_players: int, max_visible: int | None, batch_size: int | None):
    """Turns the runtime's out-of-memory error into one that names the batch size to try."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error) and "out of memory" not in str(error).lower():
            raise
        used = batch_size or choose_batch_size(game, num_players, max_visible=max_visible)
        advice = f"try batch_size={used // 2}" if used > 1 else "a single coalition does not fit on this device"
        first_line = str(error).splitlines()[0]
        raise OutOfMemoryError(f"out of memory with batch_size={used}: {advice} ({first_line})") from error
