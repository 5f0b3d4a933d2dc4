"""R^2 of reconstructions, and estimates against the truth, by hand."""

import itertools
from math import comb

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmoxi as jm
from jaxmoxi.interactions.lattice import sets_up_to
from support.interactions import GAMES, game_of, table_of

N = 5
TABLE = table_of(N, 2).astype(np.float32)
ALL = np.array([[r >> i & 1 == 1 for i in range(N)] for r in range(1 << N)])
exact_of = jm.interactions.from_table
r2 = jm.metrics.faithfulness_r2


def brute_r2(values, said, weights):
    mean = np.average(values, weights=weights)
    return 1 - np.sum(weights * (values - said) ** 2) / np.sum(weights * (values - mean) ** 2)


def kernel(n, t):
    return 0.0 if t in (0, n) else (n - 1) / (comb(n, t) * t * (n - t))


@pytest.mark.parametrize("index", ["FSII", "OR"])
def test_r2_over_all_and_over_given_coalitions(index):
    x = exact_of(jnp.asarray(TABLE), index=index, order=2)
    said = np.asarray(x.reconstruct(ALL), np.float64)
    values = TABLE.astype(np.float64)
    by_size = np.array([kernel(N, int(row.sum())) for row in ALL])
    for weights, w in (("uniform", np.ones(1 << N)), ("shapley", by_size)):
        want = brute_r2(values, said, w)
        np.testing.assert_allclose(r2(None, TABLE, x, weights=weights), want, rtol=1e-5)
        np.testing.assert_allclose(
            r2(None, game_of(jnp.asarray(TABLE)), x, masks=ALL, weights=weights), want, rtol=1e-5
        )
    some = np.random.default_rng(0).choice(1 << N, 9, replace=False)
    want = brute_r2(values[some], said[some], np.ones(9))
    np.testing.assert_allclose(r2(None, TABLE, x, masks=ALL[some]), want, rtol=1e-5)


@pytest.mark.parametrize("weights", ["uniform", "shapley"])
def test_r2_drawn_is_near_r2_of_all(weights):
    x, v = exact_of(GAMES[0], index="k-SII", order=2), game_of(GAMES[0])
    whole = float(r2(None, GAMES[0], x, weights=weights))
    drawn = r2(jax.random.key(0), v, x, num_samples=3000, weights=weights)
    np.testing.assert_allclose(1 - drawn, 1 - whole, rtol=0.15)
    assert drawn == r2(jax.random.key(0), v, x, num_samples=3000, weights=weights)
    assert drawn == r2(jax.random.key(0), GAMES[0], x, num_samples=3000, weights=weights)


def test_the_fitted_indices_have_the_best_r2_and_a_full_order_all():
    for table in GAMES[:2]:
        every = {i: exact_of(table, index=i, order=2) for i in ("k-SII", "STII", "FSII", "FBII", "Moebius")}
        uniform = {i: float(r2(None, table, x)) for i, x in every.items()}
        shapley = {i: float(r2(None, table, x, weights="shapley")) for i, x in every.items() if i != "FBII"}
        assert max(uniform, key=uniform.__getitem__) == "FBII"
        assert max(shapley, key=shapley.__getitem__) == "FSII"
    whole = exact_of(jnp.asarray(TABLE), index="Moebius", order=N)
    np.testing.assert_allclose(r2(None, TABLE, whole), 1, atol=1e-6)


def test_r2_is_undefined_where_nothing_varies():
    x = exact_of(jnp.full(8, 0.7), index="k-SII", order=2)
    assert np.isnan(r2(None, jnp.full(8, 0.7), x))
    assert np.isnan(r2(jax.random.key(0), lambda m: 0.7 + 1e-6 * m[:, 0], x, num_samples=5))


def test_r2_goes_under_jit():
    x = exact_of(jnp.asarray(TABLE), index="FSII", order=2)
    got = jax.jit(lambda table, x: r2(None, table, x))(TABLE, x)
    np.testing.assert_allclose(got, r2(None, TABLE, x), rtol=1e-6)


def test_r2_of_many_players():
    def v(masks):
        m = masks.astype(jnp.float32)
        return m.sum(1) + m[:, 3] * m[:, 115]

    n = 120
    sets = sets_up_to(n, 2)
    values = (sets[:, 1] < 0) + ((sets[:, 0] == 3) & (sets[:, 1] == 115)).astype(np.float32)
    x = jm.interactions.Interactions(jnp.asarray(sets), jnp.asarray(values), jnp.float32(0), order=2, num_players=n)
    assert r2(jax.random.key(1), v, x, num_samples=300, weights="shapley") > 0.99999


def shuffled(x, seed=0):
    """The same sets in another order of rows, and of players within each row."""
    rows = np.random.default_rng(seed).permutation(len(x.values))
    return x.replace(sets=x.sets[rows][:, ::-1], values=x.values[rows])


def as_dict(x):
    rows = zip(np.asarray(x.sets).tolist(), np.asarray(x.values).tolist(), strict=True)
    return {frozenset(i for i in s if i >= 0): value for s, value in rows}


def brute_precision(estimate, truth, k, size):
    def top(x):
        sets = {s: abs(v) for s, v in as_dict(x).items() if size in (None, len(s))}
        return set(sorted(sets, key=sets.__getitem__, reverse=True)[:k])

    return len(top(estimate) & top(truth)) / k


@pytest.mark.parametrize(("size", "k"), list(itertools.product([None, 1, 2, 3], [1, 5])))
def test_precision_and_error_match_sets_by_their_players(size, k):
    truth = exact_of(jnp.asarray(TABLE), index="STII", order=3)
    noise = np.random.default_rng(1).normal(size=len(truth.values)) * 0.5
    estimate = shuffled(truth.replace(values=truth.values + noise.astype(np.float32)))
    got = jm.metrics.precision_at_k(estimate, truth, k, size=size)
    np.testing.assert_allclose(got, brute_precision(estimate, truth, k, size), rtol=1e-6)
    assert jm.metrics.precision_at_k(shuffled(truth), truth, k, size=size) == 1
    ours, theirs = as_dict(estimate), as_dict(truth)
    want = np.mean([(ours[s] - theirs[s]) ** 2 for s in theirs if size in (None, len(s))])
    np.testing.assert_allclose(jm.metrics.interaction_mse(estimate, truth, size=size), want, rtol=1e-5)


def test_sets_that_one_lacks_are_0_there():
    truth = exact_of(jnp.asarray(TABLE), index="k-SII", order=2)
    few = shuffled(truth.top(4))
    left = sorted(float(v) ** 2 for v in truth.values)[:-4]
    np.testing.assert_allclose(jm.metrics.interaction_mse(few, truth), sum(left) / len(truth.values), rtol=1e-5)
    np.testing.assert_allclose(jm.metrics.interaction_mse(truth, few), sum(left) / len(truth.values), rtol=1e-5)
    assert jm.metrics.precision_at_k(few, truth, 4) == 1
    np.testing.assert_allclose(jm.metrics.precision_at_k(few, truth, 8), 0.5)
    wider = exact_of(jnp.asarray(TABLE), index="k-SII", order=3)
    singles = [float(a - b) ** 2 for a, b in zip(wider.values[:N], truth.values[:N], strict=True)]
    np.testing.assert_allclose(jm.metrics.interaction_mse(wider, truth, size=1), np.mean(singles), rtol=1e-4)


def test_estimates_are_judged_under_vmap():
    truth = exact_of(jnp.asarray(TABLE), index="k-SII", order=2)
    values = jnp.asarray(np.random.default_rng(2).normal(size=(3, len(truth.values))), jnp.float32)

    def judge(values):
        x = truth.replace(values=values)
        return jm.metrics.precision_at_k(x, truth, 4), jm.metrics.interaction_mse(x, truth)

    np.testing.assert_allclose(jax.vmap(judge)(values), np.array([judge(row) for row in values]).T, rtol=1e-6)


def test_ties_are_found_as_chance_finds_them():
    truth = exact_of(jnp.zeros(1 << N), index="k-SII", order=2)  # 15 sets, all of them 0
    np.testing.assert_allclose(jm.metrics.precision_at_k(truth, truth, 3), 3 / 15, rtol=1e-6)
    one = truth.replace(values=truth.values.at[4].set(2.0))
    np.testing.assert_allclose(jm.metrics.precision_at_k(one, one, 3), (1 + 14 * (2 / 14) ** 2) / 3, rtol=1e-6)
    assert jm.metrics.precision_at_k(one, one, 1) == 1


@pytest.mark.usefixtures("unchecked")
def test_errors():
    x = exact_of(jnp.asarray(TABLE), index="k-SII", order=2)
    other = exact_of(jnp.asarray(TABLE), index="FSII", order=2)
    small = exact_of(jnp.asarray(TABLE[:16]), index="k-SII", order=2)
    v = game_of(jnp.asarray(TABLE))
    for ask, message in (
        (lambda: r2(None, v, x), "expected a key that draws coalitions, or masks"),
        (lambda: r2(jax.random.key(0), v, x, masks=ALL), "expected coalitions once"),
        (lambda: r2(None, v, x, masks=ALL[:, :3]), r"expected masks bool\[C, 5\]"),
        (lambda: r2(None, v, x, masks=ALL[:1]), "of two coalitions or more"),
        (lambda: r2(None, TABLE[:16], x), "expected a table of the 32 values of 5 players"),
        (lambda: r2(jax.random.key(0), v, x, num_samples=1), "at least 2"),
        (lambda: r2(None, TABLE, x, weights="banzhaf"), "weights must be"),
        (lambda: jm.metrics.precision_at_k(x, other, 3), "expected values of one index; the estimate has k-SII"),
        (lambda: jm.metrics.precision_at_k(x, small, 3), "expected the same players; got 5 and 4"),
        (lambda: jm.metrics.precision_at_k(x, x, 16), "from 1 to the 15 sets of the truth; got 16"),
        (lambda: jm.metrics.precision_at_k(x, x, 6, size=1), "from 1 to the 5 sets"),
        (lambda: jm.metrics.precision_at_k(x, x, 2, size=3), "size must be a whole number from 1 to the order, 2"),
        (lambda: jm.metrics.interaction_mse(x, x.matrix()), "expected the truth of jaxmoxi.interactions"),
    ):
        with pytest.raises(jm.InputError, match=message):
            ask()
    assert jm.metrics.precision_at_k(x.replace(index=""), other, 15) == 1
    with pytest.raises(jm.NaNValueError, match=r"for the coalition of players \[0, 1\]"):
        r2(None, jnp.asarray(TABLE).at[3].set(jnp.nan), x)
