"""Estimates from random orders of the players: permutation sampling.

SII. In a random order, the members of S follow one another with equal chance at every place. What came before them is
then a coalition of a random size, and all of a size are alike: the derivative there has mean SII(S). An order has a
window of s players at each of n - s + 1 places (Castro, Gomez and Tejada, "Polynomial calculation of the Shapley value
based on sampling", 2009, for players; Tsai, Yeh and Ravikumar, "Faith-Shap", JMLR 2023, for sets).

STII. Sets below the largest size have their derivative at nobody, exactly. A set of the largest size has the derivative
at what came before the first of its members (Sundararajan, Dhamdhere and Agarwal, ICML 2020): an order serves them all.

An order's coalitions are what came before a place and some of what follows. Those that windows share are evaluated
once, for n players and pairs 2 (n - 1) coalitions an order, where shapiq evaluates 6 n - 4. Every second order is the
reverse of the one before it (Mitchell, Cooper, Frank and Holmes, "Sampling Permutations for Shapley Value Estimation",
JMLR 2022). An order that the budget does not reach the end of is not used.
"""

from __future__ import annotations

import functools
import itertools
from math import comb
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxmoxi.interactions.indices import bernoulli
from jaxmoxi.interactions.lattice import sets_up_to
from jaxmoxi.interactions.methods import Fit, Method, Request, register
from jaxmoxi.interactions.moments import moderated_variances

_MOST_ENTRIES = 2**26  # of a lookup of sets by their players
Form = tuple[int, tuple[int, ...]]  # the places before the first number, and those of the tuple; never the first itself


class Orders(NamedTuple):
    """What makes a coalition from its index.

    known: bool[K, P], the coalitions that all orders share.
    forms: int32[R, 1 + tail], an order's own: the places before the first number, and those of the others (-1: none).
    key:   what the orders are drawn from.
    """

    known: Bool[Array, "K P"]
    forms: Int[Array, "R tail"]
    key: Array


def _taylor(request: Request) -> bool:
    return request.index == "STII" and request.order > 1


def _shared_size(request: Request) -> int:
    """Up to which size all coalitions are evaluated once for all orders."""
    return request.order - 1 if _taylor(request) else 0


def _form_count(request: Request) -> int:
    n, order, small = request.num_players, request.order, _shared_size(request)
    if _taylor(request):
        return sum(comb(n - 1 - i, k) for i in range(n) for k in range(order) if i + k > small)
    return sum(2 ** min(order - 1, n - 1 - i) for i in range(n)) - 1


@functools.cache
def _forms(request: Request) -> list[Form]:
    n, order, small = request.num_players, request.order, _shared_size(request)
    found = []
    for i in range(n):
        after = range(i + 1, n if _taylor(request) else min(i + order, n))
        tails = (tail for k in range(order) for tail in itertools.combinations(after, k))
        found += [(i, tail) for tail in tails if i + len(tail) > small]
    return found


@functools.cache
def _known(request: Request) -> Bool[np.ndarray, "K P"]:
    n, small = request.num_players, _shared_size(request)
    sets = sets_up_to(n, max(small, 1))[: _known_count(request) - 2]
    masks = np.zeros((len(sets) + 2, n + 1), bool)
    masks[np.arange(1, len(sets) + 1)[:, None], sets] = True
    masks[-1] = True
    return masks[:, :n]


def _known_count(request: Request) -> int:
    return sum(comb(request.num_players, k) for k in range(_shared_size(request) + 1)) + 1


def _least(request: Request) -> int:
    return _known_count(request) + 2 * _form_count(request)


def _refuse(request: Request) -> str | None:
    n, order = request.num_players, request.order
    if n**order <= _MOST_ENTRIES:
        return None
    return f"takes at most {int(_MOST_ENTRIES ** (1 / order))} players for order {order}; got {n}"


def _plan(key: Array, request: Request, budget: int) -> Orders:
    forms = np.full((_form_count(request), request.order), -1, np.int32)
    for row, (first, tail) in enumerate(_forms(request)):
        forms[row, : 1 + len(tail)] = (first, *tail)
    return Orders(jnp.asarray(_known(request)), jnp.asarray(forms), key)


def _mask(orders: Orders, index: Array) -> Bool[Array, "P"]:
    known, forms, _ = orders
    later = jnp.maximum(index - len(known), 0)
    form = forms[later % len(forms)]
    places = _places(orders, later // len(forms))
    drawn = (places < form[0]) | (places[:, None] == form[1:]).any(1)
    return jnp.where(index < len(known), known[jnp.minimum(index, len(known) - 1)], drawn)


def _places(orders: Orders, order: Array) -> Int[Array, "P"]:
    """The place of every player in an order."""
    n = orders.known.shape[1]
    places = jax.random.permutation(jax.random.fold_in(orders.key, order // 2), n)
    return jnp.where(order % 2 == 0, places, n - 1 - places)


class _Windows(NamedTuple):
    """The sets of one size that an order says something of.

    places:  int32[W, s], their members' places.
    sources: int32[W, 2^s], where the values of the derivative's terms stand: an order's own, everybody, `shared`.
    signs:   float32[2^s].
    """

    places: Int[np.ndarray, "W s"]
    sources: Int[np.ndarray, "W terms"]
    signs: Float[np.ndarray, "terms"]


@functools.cache
def _windows(request: Request) -> tuple[tuple[_Windows, ...], tuple[tuple[int, ...], ...]]:
    """The windows by size, and the places of coalitions that all orders share."""
    n, order = request.num_players, request.order
    slots: dict[Form, int] = {form: row for row, form in enumerate(_forms(request))}
    slots[(n, ())] = len(slots)
    own, shared = len(slots), []

    def source(first: int, chosen: tuple[int, ...]) -> int:
        while chosen and chosen[0] == first:
            first, chosen = first + 1, chosen[1:]
        if (first, chosen) not in slots:
            slots[(first, chosen)] = own + len(shared)
            shared.append((*range(first), *chosen))
        return slots[(first, chosen)]

    found = []
    for size in [order] if _taylor(request) else range(1, order + 1):
        parts = [part for k in range(size + 1) for part in itertools.combinations(range(size), k)]
        if _taylor(request):
            places = list(itertools.combinations(range(n), size))
        else:
            places = [tuple(range(i, i + size)) for i in range(n - size + 1)]
        sources = [[source(s[0], tuple(s[i] for i in part)) for part in parts] for s in places]
        signs = np.array([(-1) ** (size - len(part)) for part in parts], np.float32)
        found.append(_Windows(np.array(places, np.int32), np.array(sources, np.int32), signs))
    return tuple(found), tuple(shared)


@functools.cache
def set_rows(num_players: int, size: int) -> Int[np.ndarray, "..."]:
    """int32[P, ..., P]: the row of `sets_up_to` of a set of this size, by its players in ascending order."""
    sets = sets_up_to(num_players, size)
    rows = np.flatnonzero((sets >= 0).sum(1) == size)
    table = np.zeros((num_players,) * size, np.int32)
    table[tuple(sets[rows].T)] = rows
    return table


@functools.partial(jax.jit, static_argnums=2)
def _fit(orders: Orders, values: Array, request: Request) -> Fit:
    n = request.num_players
    known, own = len(orders.known), len(orders.forms)
    count = (len(values) - known) // own
    pairs = -(-count // 2)
    by_order = jnp.pad(values[known : known + count * own], (0, (2 * pairs - count) * own)).reshape(pairs, 2, own)
    windows, shared = _windows(request)
    size = len(sets_up_to(n, request.order))

    def one(order: Array, drawn: Array) -> tuple[Array, Array]:
        """Rows of sets, and the derivatives that this order has of them."""
        players = jnp.argsort(_places(orders, order))
        common = [values[_known_row(players, places, n)] for places in shared]
        all_values = jnp.concatenate([drawn, values[known - 1 : known], *[v[None] for v in common]])
        rows, derivatives = [], []
        for w in windows:
            members = jnp.sort(players[w.places], axis=1)
            rows.append(jnp.asarray(set_rows(n, w.places.shape[1]))[tuple(members.T)])
            derivatives.append((all_values[w.sources] * w.signs).sum(1))
        return jnp.concatenate(rows), jnp.concatenate(derivatives)

    def add(sums: list[Array], operands: tuple[Array, Array]) -> tuple[list[Array], None]:
        pair, drawn = operands
        total, seen = jnp.zeros(size), jnp.zeros(size)
        for side in range(2):
            order = 2 * pair + side
            rows, derivatives = one(order, drawn[side])
            there = jnp.where(order < count, 1.0, 0.0)
            total, seen = total.at[rows].add(derivatives * there), seen.at[rows].add(there)
        mean = total / jnp.maximum(seen, 1)
        parts = [total, seen, jnp.where(seen > 0, 1.0, 0.0), mean, mean**2]
        return [a + b for a, b in zip(sums, parts, strict=True)], None

    sums, _ = jax.lax.scan(add, [jnp.zeros(size)] * 5, (jnp.arange(pairs), by_order))
    means, errors = _settle(sums, request)
    if _taylor(request):
        means, errors = _exact_below(means, errors, values, request)
    if request.index == "k-SII":
        means, errors = aggregated(means, n, request.order), jnp.sqrt(aggregated(errors**2, n, request.order, power=2))
    return Fit(values[0], means, errors)


def _known_row(players: Array, places: tuple[int, ...], n: int) -> Array:
    if not places:
        return jnp.int32(0)
    members = jnp.sort(players[np.array(places)])
    return 1 + jnp.asarray(set_rows(n, len(places)))[tuple(members)]


def _settle(sums: list[Array], request: Request) -> tuple[Array, Array]:
    """Means and standard errors.

    A set that no order has shown is estimated by the mean of its size, and the mean square of all stands for its error.
    """
    total, seen, units, first, second = sums
    sizes = (sets_up_to(request.num_players, request.order) >= 0).sum(1)
    mean = total / jnp.maximum(seen, 1)
    squares = jnp.maximum(second - first**2 / jnp.maximum(units, 1), 0)
    means, variances = [], []
    for size in range(1, request.order + 1):
        at = np.flatnonzero(sizes == size)
        m, u, s = mean[at], units[at], squares[at]
        shown = u > 0
        fill = jnp.sum(jnp.where(shown, m, 0)) / jnp.maximum(shown.sum(), 1)
        square = jnp.sum(jnp.where(shown, m**2, 0)) / jnp.maximum(shown.sum(), 1)
        freedom = jnp.maximum(u - 1, 0) + 4
        spread = moderated_variances(s, u, square) * freedom / (freedom - 2)  # as wide as Student's t
        means.append(jnp.where(shown, m, fill))
        variances.append(jnp.where(shown, spread / jnp.maximum(u, 1), spread + square))
    return jnp.concatenate(means), jnp.sqrt(jnp.concatenate(variances))


def _exact_below(means: Array, errors: Array, values: Array, request: Request) -> tuple[Array, Array]:
    """With the derivatives at nobody of the sets below the largest size, whose errors are 0."""
    n = request.num_players
    sets = sets_up_to(n, request.order)
    sizes = (sets >= 0).sum(1)
    for size in range(1, request.order):
        at = np.flatnonzero(sizes == size)
        exact = jnp.zeros(len(at))
        for k in range(size + 1):
            for part in itertools.combinations(range(size), k):
                rows = 1 + set_rows(n, k)[tuple(sets[at][:, i] for i in part)] if part else np.zeros(len(at), int)
                exact = exact + (-1) ** (size - k) * values[rows]
        means, errors = means.at[at].set(exact), errors.at[at].set(0)
    return means, errors


def aggregated(values: Array, num_players: int, order: int, *, power: int = 1) -> Array:
    """float[M, ...]: k-SII from SII, the sum over what contains S of Bernoulli's number of (t - s) times SII.

    With a power, the factors' powers: of variances, as if the errors were independent.
    """
    into, of, factors = _above(num_players, order)
    scaled = values[of] * jnp.asarray(factors**power, jnp.float32).reshape(-1, *[1] * (values.ndim - 1))
    return jnp.zeros_like(values).at[into].add(scaled)


@functools.cache
def _above(n: int, order: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows of sets, rows of what contains them, and k-SII's factor of each."""
    sets = sets_up_to(n, order)
    sizes = (sets >= 0).sum(1)
    into, of, factors = [], [], []
    for size in range(1, order + 1):
        at = np.flatnonzero(sizes == size)
        for k in range(1, size + 1):
            for part in itertools.combinations(range(size), k):
                into.append(set_rows(n, k)[tuple(sets[at][:, i] for i in part)])
                of.append(at)
                factors.append(np.full(len(at), float(bernoulli(size - k))))
    return np.concatenate(into), np.concatenate(of), np.concatenate(factors)


register(
    Method(
        name="permutation",
        source="Castro, Gomez and Tejada, 'Polynomial calculation of the Shapley value based on sampling', 2009; for "
        "sets Tsai, Yeh and Ravikumar, JMLR 2023, and Sundararajan, Dhamdhere and Agarwal, ICML 2020",
        help="derivatives along random orders, each with its reverse; unbiased for the sets that an order has shown",
        indices=frozenset({"SV", "SII", "k-SII", "STII"}),
        least=_least,
        plan=_plan,
        mask=_mask,
        fit=_fit,
        draws_for=lambda request: (_taylor(request), request.order),
        refuse=_refuse,
    )
)
