"""Interaction indices from a budget of coalitions: the door to all methods."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, UInt32

from jaxmoxi.errors import InputError, nan_error
from jaxmoxi.games.base import Game, ValueFn, as_game
from jaxmoxi.games.differences import Parts, read_parts
from jaxmoxi.guards import deliberate
from jaxmoxi.interactions import (  # they register their methods
    gaussian,  # noqa: F401
    kernel_shap_iq,  # noqa: F401
    orders,  # noqa: F401
    regression,  # noqa: F401
    sampled,  # noqa: F401
    sparse,  # noqa: F401
    strata,  # noqa: F401
    stratified,  # noqa: F401
)
from jaxmoxi.interactions.exact import MOST_PLAYERS, exact
from jaxmoxi.interactions.indices import IndexName, check_request
from jaxmoxi.interactions.lattice import sets_up_to
from jaxmoxi.interactions.methods import METHODS, Fit, Method, Request, find_method
from jaxmoxi.interactions.moments import chunked
from jaxmoxi.interactions.result import Interactions
from jaxmoxi.pytrees import is_concrete

_HELD_OUT = 10  # one of so many coalitions measures the faithfulness
_LEAST_HELD_OUT = 8
_CHUNK = 64


@deliberate
def estimate(
    key: Key[Array, ""] | UInt32[Array, "2"],
    v: ValueFn,
    num_players: int,
    *,
    index: IndexName | str = "k-SII",
    order: int = 2,
    budget: int,
    method: str = "auto",
    p: float = 0.5,
    start: Interactions | None = None,
    batch_size: int | None = None,
) -> Interactions:
    """An interaction index of all sets of up to `order` players, from the values of `budget` coalitions.

    key:         the same key gives the same answer, whatever the batch size.
    v:           a value function, masks bool[C, P] -> float32[C].
    num_players: P, at least 2; up to 1,000 for order 2 and 60 for order 3.
    index:       which index; `jaxmoxi.interactions.INDICES` says what each averages over, and where it comes from.
    order:       the largest set that is explained, from 1 to P.
    budget:      coalitions to evaluate. From 2^P on, up to 20 players, the answer is the exact one.
    method:      a name of `jaxmoxi.interactions.METHODS`, which says what each does and where it comes from. "auto"
                 takes "gaussian-process": on games of nine and fourteen players with all values known it has less
                 error than the best of shapiq's estimators for every index and budget (`benchmarks/README.md`). For
                 many players of whom few interact "sparse" can be nearer: it takes the same coalitions, and
                 `faithfulness` compares the two.
    p:           for Banzhaf's indices (BV, BII, FBII, BGV): the probability of every other player to be there.
    start:       an earlier estimate of this game, by the same method and with the same key, to be continued: only
                 the coalitions are evaluated that it has not seen, and the values are those of one call with the whole
                 budget. The index, the order and p may be others where the method draws the same coalitions for them.
    batch_size:  coalitions per chunk; None chooses one that fits the memory.

    `standard_errors` are of the values, where the method has them; `faithfulness` is R^2 of `reconstruct` on the last
    tenth of the coalitions (at least 8), of a fit that has seen only the others, in units of all values' variance; None
    where that would be more than a quarter of them. Beside four bytes a coalition the memory does not depend on the
    budget, but for "gaussian-process" above 20 players, which keeps the coalitions as bits.

    Works inside `jit` and `vmap`. Raises ValueError for an unknown index or method, an order, a probability, a budget
    or a number of players that the method does not take, and an estimate to start from that does not belong; all of
    it before anything is evaluated. Raises NaNValueError that names a coalition whose value is NaN.

    Source: that of the method, `METHODS[method].source`; of the index, `INDICES[index].source`.
    """
    request, chosen = _check(num_players, index, order, p, budget, method)
    game = as_game(v)
    if num_players <= MOST_PLAYERS and budget >= 1 << num_players:
        return exact(game, num_players, index=index, order=order, p=p, batch_size=batch_size)
    operands = chosen.plan(key, request, budget)
    parts = _evaluated(game, chosen, operands, request, budget, batch_size, _seen(start, key, chosen, request, budget))
    values, shared = _common(parts)
    found = _result(chosen.fit(operands, values, request), request, budget)
    return found.replace(
        baseline=found.baseline + shared,
        faithfulness=_faithfulness(chosen, operands, values, request),
        method=chosen.name,
        evaluated=parts,
        key=jax.random.key_data(key),
    )


def _check(num_players: int, index: str, order: int, p: float, budget: int, method: str) -> tuple[Request, Method]:
    if isinstance(num_players, bool) or not isinstance(num_players, int | np.integer) or num_players < 2:
        raise InputError(f"num_players must be a whole number of at least 2; got {num_players!r}")
    check_request(index, num_players, order, p)
    request = Request(int(num_players), index, order, Fraction(p).limit_denominator(10**6))
    chosen = find_method("gaussian-process" if method == "auto" else method)
    if chosen.indices is not None and index not in chosen.indices:
        able = [name for name, other in METHODS.items() if other.indices is None or index in other.indices]
        raise InputError(f"{chosen.name} estimates {', '.join(sorted(chosen.indices))}; {index} is estimated by "
                         f"{', '.join(able)}")  # fmt: skip
    reason = chosen.refuse(request)
    if reason:
        raise InputError(f"{chosen.name} {reason}")
    least = chosen.least(request)
    if isinstance(budget, bool) or not isinstance(budget, int | np.integer) or budget < least:
        raise InputError(f"{chosen.name} needs a budget of at least {least} coalitions for {num_players} players and "
                         f"order {order}; got {budget!r}")  # fmt: skip
    return request, chosen


def _seen(start: Interactions | None, key: Array, method: Method, request: Request, budget: int) -> Parts | None:
    if start is None:
        return None
    if start.evaluated is None or start.method != method.name or start.num_players != request.num_players:
        raise InputError(f"start must be an estimate by {method.name} for {request.num_players} players; got "
                         f"{start.method or 'exact values'} for {start.num_players}")  # fmt: skip
    before = Request(start.num_players, start.index, start.order, Fraction(start.p).limit_denominator(10**6))
    if method.draws_for(before) != method.draws_for(request):
        raise InputError(f"{method.name} draws other coalitions for {request.index} of order {request.order} (p "
                         f"{float(request.p):g}) than for {start.index} of order {start.order} (p {start.p:g}): it can "
                         "only go on with what start was asked for")  # fmt: skip
    asked, used = jax.random.key_data(key), start.key
    if used is None or (is_concrete((asked, used)) and not np.array_equal(asked, used)):
        raise InputError("start was made with another key, which draws other coalitions: give the same key to go on")
    seen = start.evaluated
    if len(seen.rest) > budget:
        raise InputError(f"the budget counts all coalitions, those of start too: it has {len(seen.rest)}; got {budget}")
    return seen


def _evaluated(
    game: Game,
    method: Method,
    operands: Any,
    request: Request,
    budget: int,
    batch_size: int | None,
    seen: Parts | None,
) -> Parts:
    first = 0 if seen is None else len(seen.rest)
    parts = read_parts(
        game,
        _from(method.mask),
        (operands, jnp.int32(first)),
        count=budget - first,
        num_players=request.num_players,
        batch_size=batch_size,
    )
    if is_concrete(parts) and bool(jnp.isnan(parts.rest).any()):
        row = first + int(jnp.argmax(jnp.isnan(parts.rest)))
        members = np.flatnonzero(np.asarray(method.mask(operands, jnp.int32(row))))
        raise nan_error(f"for the coalition of players {members.tolist()}")
    return parts if seen is None else jax.tree.map(lambda *x: jnp.concatenate(x), seen, parts)


def _common(parts: Parts) -> tuple[Float[Array, "budget"], Float[Array, ""]]:
    """The values less a number that all share, 0 or 1: near-certain probabilities then keep their digits."""
    if parts.whole is None:
        return parts.rest, jnp.zeros((), parts.rest.dtype)
    first = parts.whole[0]
    shared = jnp.all(parts.whole == first)
    return jnp.where(shared, parts.rest, parts.whole + parts.rest), jnp.where(shared, first, 0)


@functools.cache
def _from(mask: Callable[[Any, Any], Array]) -> Callable[[Any, Any], Array]:
    """`mask` with the first index among the operands; one function for each method, so that it is compiled once."""

    def shifted(operands: Any, index: Any) -> Array:
        inner, first = operands
        return mask(inner, first + index)

    return shifted


def _result(fit: Fit, request: Request, num_evaluations: int) -> Interactions:
    return Interactions(
        sets=jnp.asarray(sets_up_to(request.num_players, request.order)),
        values=fit.values,
        baseline=fit.baseline,
        standard_errors=fit.standard_errors,
        num_evaluations=num_evaluations,
        index=request.index,
        order=request.order,
        num_players=request.num_players,
        p=float(request.p),
    )


def _faithfulness(method: Method, operands: Any, values: Array, request: Request) -> Float[Array, ""] | None:
    """R^2, on the last coalitions, of what a fit to the others says of them."""
    count = len(values)
    held_out = max(count // _HELD_OUT, _LEAST_HELD_OUT)
    fitted = count - held_out
    if held_out > count // 4 or fitted < method.least(request):
        return None
    quick = dataclasses.replace(request, errors=False)
    partial = _result(method.fit(operands, values[:fitted], quick), request, fitted)
    return 1 - _unexplained(method.mask, held_out, operands, values, partial) / held_out


@functools.partial(jax.jit, static_argnums=(0, 1))
def _unexplained(
    mask: Callable[[Any, Any], Array], held_out: int, operands: Any, values: Array, partial: Interactions
) -> Float[Array, ""]:
    """The squared errors of a reconstruction on the last coalitions, in units of all values' variance."""
    first = len(values) - held_out

    def squares(indices: Array, there: Array) -> list[Array]:
        masks = jax.vmap(functools.partial(mask, operands))(first + indices)
        errors = partial.reconstruct(masks) - values[first + indices]
        return [jnp.sum(jnp.where(there, errors, 0) ** 2)]

    (total,) = chunked(squares, held_out, size=_CHUNK)
    spread = jnp.var(values)
    return total / jnp.where(spread > 0, spread, jnp.nan)
