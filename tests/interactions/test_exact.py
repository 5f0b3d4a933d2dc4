"""Exact indices against their definitions, written out set by set, and the identities that must hold."""

import functools
import itertools
from math import comb, factorial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmoxi as jm
from jaxmoxi.interactions import INDICES
from support.interactions import GAMES, game_of, table_of

interactions = jm.interactions
BERNOULLI = [1, -1 / 2, 1 / 6, 0, -1 / 30, 0, 1 / 42]


def subsets(members, up_to=None):
    most = len(members) if up_to is None else up_to
    return [c for k in range(most + 1) for c in itertools.combinations(members, k)]


def row(members):
    return sum(1 << i for i in members)


def derivative(table, s, t):
    return sum((-1) ** (len(s) - len(r)) * table[row(t + r)] for r in subsets(s))


def others(n, s):
    return [i for i in range(n) if i not in s]


def average(weight, generalised=False):
    """Sum over T outside S of weight(n, s, t) times the derivative."""

    def index(table, n, s, order):
        total = 0.0
        for t in subsets(others(n, s)):
            gain = table[row(t + s)] - table[row(t)] if generalised else derivative(table, s, t)
            total += weight(n, len(s), len(t)) * gain
        return total

    return index


def shapley(n, s, t):
    return factorial(t) * factorial(n - t - s) / factorial(n - s + 1)


def banzhaf(n, s, t):
    return 0.5 ** (n - s)


def chaining(n, s, t):
    return s * factorial(n - s - t) * factorial(s + t - 1) / factorial(n)


def n_shapley(table, n, s, order):
    """Bordt and von Luxburg's recursion, in its closed form."""
    sii = average(shapley)
    more = subsets(others(n, s), order - len(s))
    return sum(BERNOULLI[len(t)] * sii(table, n, tuple(sorted(s + t)), order) for t in more)


def taylor(table, n, s, order):
    if len(s) < order:
        return derivative(table, s, ())
    return order / n * sum(derivative(table, s, t) / comb(n - 1, len(t)) for t in subsets(others(n, s)))


def faithful(weight):
    """The additive game nearest to v by weighted least squares; sizes 0 and n weigh so much that they are met."""

    @functools.cache
    def fitted(table, n, order):
        sets = subsets(range(n), order)
        rows = np.array([[set(c) <= set(t) for c in sets] for t in subsets(range(n))], float)
        weights = np.sqrt([weight(n, len(t)) for t in subsets(range(n))])
        values = np.array([table[row(t)] for t in subsets(range(n))])
        return dict(zip(sets, np.linalg.lstsq(rows * weights[:, None], values * weights, rcond=None)[0], strict=True))

    return lambda table, n, s, order: fitted(tuple(table), n, order)[s]


def kernel(n, t):
    return 1e7 if t in (0, n) else factorial(t - 1) * factorial(n - t - 1) / factorial(n - 1)


DEFINITIONS = {
    "SV": average(shapley),
    "BV": average(banzhaf),
    "SII": average(shapley),
    "BII": average(banzhaf),
    "CHII": average(chaining),
    "k-SII": n_shapley,
    "STII": taylor,
    "FSII": faithful(kernel),
    "FBII": faithful(lambda n, t: 1.0),
    "Moebius": lambda table, n, s, order: derivative(table, s, ()),
    "Co-Moebius": lambda table, n, s, order: derivative(table, s, tuple(others(n, s))),
    "OR": lambda table, n, s, order: -sum((-1) ** (len(s) - len(t)) * table[row(others(n, t))] for t in subsets(s)),
    "SGV": average(shapley, generalised=True),
    "BGV": average(banzhaf, generalised=True),
}


@pytest.mark.parametrize("index", INDICES)
@pytest.mark.parametrize("n", [1, 3, 4, pytest.param(6, marks=pytest.mark.slow)])
def test_every_index_is_its_definition(index, n):
    table = table_of(n)
    for order in range(1, (1 if INDICES[index].largest == 1 else n) + 1):
        x = interactions.from_table(jnp.asarray(table, jnp.float32), index=index, order=order)
        assert len(x.values) == sum(comb(n, k) for k in range(1, order + 1))
        expected = [DEFINITIONS[index](table, n, tuple(int(i) for i in s if i >= 0), order) for s in np.asarray(x.sets)]
        np.testing.assert_allclose(x.values, expected, atol=2e-5 * 2 ** (order / 2), err_msg=f"order {order}")


def test_all_indices_are_defined_here():
    assert set(DEFINITIONS) == set(INDICES)


@pytest.mark.parametrize("index", [name for name, row in INDICES.items() if row.efficient])
@pytest.mark.parametrize("order", [1, 2, 3])
def test_efficient_indices_sum_to_the_game(index, order):
    for table in GAMES:
        x = interactions.from_table(table, index=index, order=order)
        np.testing.assert_allclose(x.baseline + x.values.sum(), table[-1], atol=2e-5)
        assert float(x.baseline) == table[0]


@pytest.mark.parametrize("index", INDICES)
def test_symmetry_and_null_players(index):
    """Players 0 and 1 are alike, player 3 adds nothing."""
    masks = np.array([[r >> i & 1 for i in range(5)] for r in range(32)])
    both, two, four = masks[:, 0] + masks[:, 1], masks[:, 2], masks[:, 4]
    table = jnp.asarray(np.sin(both + 2 * two * four) + both * two, jnp.float32)
    x = interactions.from_table(table, index=index, order=min(3, INDICES[index].largest or 3))
    np.testing.assert_allclose(x.of(0), x.of(1), atol=1e-6)
    assert abs(float(x.of(3))) < 1e-6
    if x.order > 1:
        np.testing.assert_allclose(x.of(0, 2), x.of(2, 1), atol=1e-6)
        if not INDICES[index].generalised:  # a group with a null player in it is worth what the rest is
            assert abs(float(x.of(3, 4))) < 1e-6


@pytest.mark.parametrize("index", ["Moebius", "STII", "k-SII", "FSII", "FBII", "OR"])
def test_the_whole_order_reconstructs_the_game(index):
    table = table_of(5)
    x = interactions.from_table(jnp.asarray(table, jnp.float32), index=index, order=5)
    masks = jnp.asarray([[bool(r >> i & 1) for i in range(5)] for r in range(32)])
    np.testing.assert_allclose(x.reconstruct(masks), table, atol=1e-4)


@pytest.mark.parametrize("p", [0.2, 0.5, 0.8])
def test_weighted_banzhaf_is_the_nearest_game_under_its_weights(p):
    table = table_of(5)
    x = interactions.from_table(jnp.asarray(table, jnp.float32), index="FBII", order=2, p=p)
    nearest = faithful(lambda n, t: p**t * (1 - p) ** (n - t))
    for s in [(), (0,), (4,), (1, 3)]:
        np.testing.assert_allclose(x.of(*s), nearest(table, 5, s, 2), atol=1e-5)
    v = interactions.from_table(jnp.asarray(table, jnp.float32), index="BII", order=2, p=p)
    direct = average(lambda n, s, t: p**t * (1 - p) ** (n - s - t))
    np.testing.assert_allclose(v.of(1, 3), direct(table, 5, (1, 3), 2), atol=1e-5)


def test_transforms():
    table = table_of(6)
    m = np.asarray(interactions.moebius(jnp.asarray(table, jnp.float32)))
    np.testing.assert_allclose(interactions.inverse_moebius(m), table, atol=1e-5)
    for s in [(), (2,), (0, 5), (1, 2, 3), (0, 1, 2, 3, 4, 5)]:
        np.testing.assert_allclose(m[row(s)], derivative(table, s, ()), atol=1e-5)
        above = sum(m[r] for r in range(64) if r & row(s) == row(s))
        np.testing.assert_allclose(interactions.co_moebius(jnp.asarray(table, jnp.float32))[row(s)], above, atol=1e-4)
        fourier = np.mean([(-1) ** (r & row(s)).bit_count() * table[r] for r in range(64)])
        np.testing.assert_allclose(interactions.walsh_hadamard(table.astype(np.float32))[row(s)], fourier, atol=1e-6)
    back = interactions.walsh_hadamard(interactions.walsh_hadamard(table.astype(np.float32))) * 64
    np.testing.assert_allclose(back, table, atol=1e-5)


def test_from_a_value_function_under_jit_and_vmap():
    tables = jnp.stack(GAMES)
    one_by_one = [interactions.from_table(t, index="FSII", order=2) for t in GAMES]

    def of(table):
        return interactions.exact(game_of(table), 9, index="FSII", order=2, batch_size=100)

    for found in (jax.vmap(of)(tables), jax.jit(jax.vmap(of))(tables)):
        for i, x in enumerate(one_by_one):
            np.testing.assert_allclose(found.values[i], x.values, atol=1e-6)
    np.testing.assert_array_equal(interactions.values_table(game_of(GAMES[0]), 9, batch_size=37), GAMES[0])
    gradient = jax.grad(lambda t: of(t).of(0, 1))(GAMES[0])
    np.testing.assert_allclose(gradient @ GAMES[0], one_by_one[0].of(0, 1), atol=1e-6)  # it is linear in the game


def test_float64_where_it_is_on():
    with jax.enable_x64(True):
        table = jnp.asarray(table_of(6))
        x = interactions.from_table(table, index="k-SII", order=3)
        assert x.values.dtype == jnp.float64
        expected = [n_shapley(np.asarray(table), 6, tuple(int(i) for i in s if i >= 0), 3) for s in np.asarray(x.sets)]
        np.testing.assert_allclose(x.values, expected, atol=1e-13)


def test_a_result_answers():
    x = interactions.from_table(GAMES[0], index="k-SII", order=3)
    matrix = np.asarray(x.matrix())
    assert matrix.shape == (9, 9)
    np.testing.assert_array_equal(matrix, matrix.T)
    assert matrix[2, 5] == x.of(5, 2)
    np.testing.assert_array_equal(np.diag(matrix), x.first_order())
    strongest = x.top(4)
    assert len(strongest.sets) == 4
    assert abs(strongest.values[0]) == np.abs(x.values).max()
    pairs = x.top(3, size=2)
    assert ((np.asarray(pairs.sets) >= 0).sum(1) == 2).all()
    assert abs(pairs.values[0]) == np.abs(np.triu(matrix, 1)).max()
    assert int(x.num_evaluations) == 512


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: interactions.exact(game_of(GAMES[0]), 21), "at most 20 players; got 21: interactions.estimate takes"),
        (lambda: interactions.exact(game_of(GAMES[0]), 0), "num_players must be a whole number of at least 1; got 0"),
        (lambda: interactions.exact(game_of(GAMES[0]), 9, index="KSII"), "expected an index of SV, BV, SII, .*'KSII'"),
        (lambda: interactions.exact(game_of(GAMES[0]), 9, order=10), "order must be a whole number from 1 to the 9 pl"),
        (lambda: interactions.exact(game_of(GAMES[0]), 9, order=0), "order must be a whole number from 1 to the 9 pla"),
        (lambda: interactions.exact(game_of(GAMES[0]), 9, index="SV"), "SV explains single players: order must be 1"),
        (lambda: interactions.exact(game_of(GAMES[0]), 9, index="FBII", p=1.0), "p, the probability .* 0 and 1; got 1"),
        (lambda: interactions.from_table(np.zeros(12, np.float32)), r"a table of 2\^P values.*got \[12\]"),
        (lambda: interactions.from_table(np.zeros(8, int), order=2), "floating-point values; got int"),
        (lambda: interactions.from_table(GAMES[0], order=1, index="SV").matrix(), "it needs order 2 or more"),
        (lambda: interactions.from_table(GAMES[0]).of(1, 2, 3), r"k-SII of order 2 has no value for the set \[1, 2, 3"),
        (lambda: interactions.from_table(GAMES[0]).of(1, 1), "expected different players from 0 to 8; got"),
        (lambda: interactions.from_table(GAMES[0]).top(0), "expected k of at least 1"),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_nan_names_the_coalition():
    table = np.asarray(GAMES[0]).copy()
    table[0b101] = np.nan
    with pytest.raises(jm.NaNValueError, match=r"coalition of players \[0, 2\]"):
        interactions.exact(game_of(jnp.asarray(table)), 9)
