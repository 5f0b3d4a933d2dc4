"""Estimates of moments and of derivatives: unbiased, with errors that hold, exact where everything is known."""

from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmoxi as jm
from jaxmoxi.interactions.estimate import estimate
from jaxmoxi.interactions.methods import METHODS, Request
from support.interactions import GAMES, game_of, table_of

from_table = jm.interactions.from_table
KEY = jax.random.key(7)


def slow(*values):
    return pytest.param(*values, marks=pytest.mark.slow)


ALL = ["shap-iq", "svarm-iq", "permutation", "stratified", "kernel-shap-iq", "regression"]
SERVED = {"regression": "FSII"}  # of the others, SII


def errors_of(method, index, order, budget, reps, *, p=0.5, table=GAMES[0]):
    """Errors and standard errors of as many estimates, float[reps, M]."""
    n = len(table).bit_length() - 1

    @jax.jit
    @jax.vmap
    def of(key):
        x = estimate(key, game_of(table), n, index=index, order=order, budget=budget, method=method, p=p)
        return x.values, x.standard_errors

    values, errors = of(jax.random.split(KEY, reps))
    return np.asarray(values - from_table(table, index=index, order=order, p=p).values), np.asarray(errors)


@pytest.mark.parametrize(
    ("method", "index", "order", "budget", "p"),
    [
        ("shap-iq", "SII", 2, 60, 0.5),
        slow("shap-iq", "SV", 1, 60, 0.5),
        slow("shap-iq", "BII", 2, 70, 0.3),
        slow("shap-iq", "FSII", 3, 120, 0.5),
        slow("shap-iq", "BGV", 2, 80, 0.5),
        slow("permutation", "SV", 1, 60, 0.5),
        ("permutation", "STII", 2, 120, 0.5),
        ("stratified", "SII", 2, 330, 0.5),
        slow("stratified", "BV", 1, 60, 0.3),
        slow("stratified", "CHII", 1, 60, 0.5),
    ],
)
def test_unbiased_with_errors_that_hold(method, index, order, budget, p):
    found, errors = errors_of(method, index, order, budget, 300, p=p)
    assert np.isfinite(found).all()
    spread = found.std(0)
    assert (np.abs(found.mean(0)) <= 4.5 * spread / np.sqrt(len(found)) + 1e-5).all()
    drawn = spread > 1e-4  # STII of single players is exact
    held = (np.abs(found) <= 2 * errors)[:, drawn].mean()
    assert 0.9 <= held <= 0.995, held
    np.testing.assert_allclose(errors[:, ~drawn], 0, atol=1e-4)


@pytest.mark.parametrize("budget", [102, slow(205)])
def test_strata_miss_little(budget):
    found, errors = errors_of("svarm-iq", "SII", 2, budget, 100)
    assert 0.9 <= (np.abs(found) <= 2 * errors).mean() <= 0.995
    assert (found.mean(0) ** 2).mean() < 0.75 * (found**2).mean()
    shap_iq, _ = errors_of("shap-iq", "SII", 2, budget, 100)
    assert (found**2).mean() < 0.6 * (shap_iq**2).mean()


@pytest.mark.parametrize(
    ("method", "index", "order", "p"),
    [
        slow("shap-iq", "FSII", 3, 0.5),
        ("shap-iq", "FBII", 2, 0.3),
        slow("shap-iq", "SGV", 2, 0.5),
        ("shap-iq", "SV", 1, 0.5),
        slow("svarm-iq", "k-SII", 3, 0.5),
        slow("svarm-iq", "OR", 2, 0.5),
        slow("svarm-iq", "BV", 1, 0.2),
        ("svarm-iq", "BGV", 2, 0.5),
    ],
)
def test_all_coalitions_give_the_index(method, index, order, p):
    table = jnp.asarray(table_of(6), jnp.float32)
    chosen, request = METHODS[method], Request(6, index, order, Fraction(p).limit_denominator(100))
    operands = chosen.plan(KEY, request, 64)
    rows = jax.vmap(lambda i: chosen.mask(operands, i))(jnp.arange(64)) @ (1 << jnp.arange(6))
    assert sorted(rows.tolist()) == list(range(64))
    fit, truth = chosen.fit(operands, table[rows], request), from_table(table, index=index, order=order, p=p)
    np.testing.assert_allclose(fit.values, truth.values, atol=3e-5)
    np.testing.assert_allclose(fit.baseline, truth.baseline, atol=3e-5)
    np.testing.assert_allclose(np.asarray(fit.standard_errors), 0, atol=1e-5)


@pytest.mark.parametrize("players", [9, slow(24)])
@pytest.mark.parametrize("method", ALL)
def test_the_first_coalitions_do_not_depend_on_the_budget(method, players):
    chosen, request = METHODS[method], Request(players, SERVED.get(method, "SII"), 2, Fraction(1, 2))
    masks = [
        jax.vmap(lambda i: chosen.mask(operands, i))(jnp.arange(90))  # noqa: B023
        for operands in (chosen.plan(KEY, request, budget) for budget in (90, 131, 300))
    ]
    np.testing.assert_array_equal(masks[0], masks[1])
    np.testing.assert_array_equal(masks[0], masks[2])
    assert len(np.unique(np.asarray(masks[0]), axis=0)) >= 20
    assert masks[0].any(1).min() == 0  # nobody is among them
    other = chosen.plan(jax.random.key(8), request, 90)
    assert (masks[0] != jax.vmap(lambda i: chosen.mask(other, i))(jnp.arange(90))).any()


@pytest.mark.parametrize("method", ["shap-iq", *map(slow, ALL[1:])])
def test_continued_jitted_and_mapped_alike(method):
    budget = 400 if method == "stratified" else 120
    index = SERVED.get(method, "SII")
    asked = {"index": index, "order": 2, "method": method}
    whole = estimate(KEY, game_of(GAMES[0]), 9, budget=budget, **asked)
    start = whole.replace(evaluated=jax.tree.map(lambda x: x[:80], whole.evaluated))  # what a smaller budget has seen
    further = estimate(KEY, game_of(GAMES[0]), 9, budget=budget, start=start, batch_size=17, **asked)
    jax.tree.map(np.testing.assert_array_equal, further.evaluated, whole.evaluated)
    np.testing.assert_array_equal(further.values, whole.values)
    mapped = jax.jit(jax.vmap(lambda key, t: estimate(key, game_of(t), 9, budget=budget, **asked)))(
        jnp.stack([jax.random.key(3), KEY]), jnp.stack([GAMES[1], GAMES[0]])
    )
    np.testing.assert_allclose(mapped.values[1], whole.values, atol=2e-4)
    np.testing.assert_allclose(np.asarray(mapped.standard_errors)[1], np.asarray(whole.standard_errors), atol=2e-3)


def polynomial(masks):
    """Pairs of neighbours among many players."""
    x = masks.astype(jnp.float32)
    return 1 + x @ jnp.linspace(-1, 1, x.shape[1]) + 3 * (x[:, :-1] * x[:, 1:]).sum(1) / x.shape[1]


@pytest.mark.parametrize(
    ("method", "players", "index", "budget"),
    [slow("shap-iq", 80, "SII", 2000), slow("svarm-iq", 25, "STII", 1500), ("permutation", 80, "k-SII", 2000)],
)
def test_many_players(method, players, index, budget):
    x = estimate(KEY, polynomial, players, index=index, order=2, budget=budget, method=method)
    assert np.isfinite(x.values).all()
    single = np.asarray(x.first_order())
    truth = np.linspace(-1, 1, players)
    if index == "SII":
        truth = truth + 1.5 / players * (2 - np.isin(np.arange(players), [0, players - 1]))
    np.testing.assert_allclose(single, truth, atol=0.3)
    assert np.corrcoef(single, truth)[0, 1] > 0.97


def test_a_linear_game_is_exact():
    slopes = jnp.linspace(-2, 3, 40)
    x = estimate(KEY, lambda m: m.astype(jnp.float32) @ slopes, 40, index="FSII", order=2, budget=200, method="shap-iq")
    np.testing.assert_allclose(x.first_order(), slopes, atol=1e-4)
    np.testing.assert_allclose(x.values[40:], 0, atol=1e-4)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (
            {"method": "shap-iq", "budget": 31},
            r"shap-iq needs a budget of at least 32 coalitions for 9 pl.*got 31",
        ),
        ({"method": "svarm-iq", "budget": 20}, r"svarm-iq needs a budget of at least"),
        ({"method": "permutation", "budget": 33}, r"permutation needs a budget of at least 34"),
        ({"method": "stratified", "budget": 324}, r"stratified needs a budget of at least 325"),
        ({"method": "kernel-shap-iq", "budget": 48}, r"kernel-shap-iq needs a budget of at least 49"),
        ({"method": "regression", "index": "FSII", "budget": 47}, r"regression needs a budget of at least 48"),
        (
            {"method": "permutation", "index": "BII", "budget": 99},
            r"permutation estimates SII, STII, SV, k-SII; BII",
        ),
    ],
)
def test_what_is_refused(asked, message):
    asked = {"index": "SII", "order": 2, **asked}
    with pytest.raises(ValueError, match=message):
        estimate(KEY, game_of(GAMES[0]), 9, **asked)


def test_too_many_players_are_refused():
    for method, index, order, message in [
        ("svarm-iq", "SII", 2, r"a mean for every size.*at most 406 players for order 2; got 500"),
        ("regression", "FSII", 2, r"at most 4000; 500 players and order 2 have 125251"),
        ("kernel-shap-iq", "SII", 2, r"at most 4000; 500 players and order 2 have 124750"),
        ("permutation", "SII", 3, r"takes at most 406 players for order 3; got 500"),
    ]:
        with pytest.raises(ValueError, match=message):
            estimate(KEY, polynomial, 500, index=index, order=order, method=method, budget=10**5)


def test_an_estimate_goes_on_only_with_its_own_coalitions():
    start = estimate(KEY, game_of(GAMES[0]), 9, index="SII", order=2, budget=60, method="shap-iq")
    other = estimate(KEY, game_of(GAMES[0]), 9, index="FSII", order=2, budget=60, method="shap-iq", start=start)
    again = estimate(KEY, game_of(GAMES[0]), 9, index="FSII", order=2, budget=60, method="shap-iq")
    np.testing.assert_array_equal(other.values, again.values)
    for asked in ({"index": "BII", "order": 2}, {"index": "SII", "order": 1}):
        with pytest.raises(ValueError, match="shap-iq draws other coalitions for"):
            estimate(KEY, game_of(GAMES[0]), 9, budget=80, method="shap-iq", start=start, **asked)
