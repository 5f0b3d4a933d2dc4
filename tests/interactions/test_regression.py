"""Least squares over drawn coalitions: exact where all are given, and where the game is of the order that is fitted."""

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
KEY = jax.random.key(5)


def slow(*values):
    return pytest.param(*values, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    ("method", "index", "order", "p"),
    [
        slow("regression", "FSII", 1, 0.5),
        slow("regression", "FSII", 2, 0.5),
        ("regression", "FSII", 3, 0.5),
        ("regression", "FBII", 2, 0.3),
        slow("regression", "FBII", 3, 0.5),
        ("regression", "SV", 1, 0.5),
        slow("regression", "BV", 1, 0.7),
        slow("kernel-shap-iq", "SV", 1, 0.5),
        slow("kernel-shap-iq", "SII", 2, 0.5),
        slow("kernel-shap-iq", "SII", 3, 0.5),
        ("kernel-shap-iq", "k-SII", 3, 0.5),
    ],
)
@pytest.mark.parametrize("n", [6, pytest.param(8, marks=pytest.mark.slow)])
def test_all_coalitions_give_the_index(method, index, order, p, n):
    table = jnp.asarray(table_of(n), jnp.float32)
    chosen, request = METHODS[method], Request(n, index, order, Fraction(p).limit_denominator(100))
    operands = chosen.plan(KEY, request, 1 << n)
    rows = jax.vmap(lambda i: chosen.mask(operands, i))(jnp.arange(1 << n)) @ (1 << jnp.arange(n))
    assert sorted(rows.tolist()) == list(range(1 << n))
    fit, truth = chosen.fit(operands, table[rows], request), from_table(table, index=index, order=order, p=p)
    np.testing.assert_allclose(fit.values, truth.values, atol=2e-5)
    np.testing.assert_allclose(fit.baseline, truth.baseline, atol=2e-5)
    np.testing.assert_allclose(np.asarray(fit.standard_errors), 0, atol=1e-5)


def pairs(masks):
    """A game of order 2."""
    x = masks.astype(jnp.float32)
    return 0.5 + x @ jnp.linspace(-1, 1, x.shape[1]) + 2 * x[:, 0] * x[:, 1] - x[:, 2] * x[:, 5]


@pytest.mark.parametrize(("players", "budget"), [(9, 70), slow(24, 700)])
@pytest.mark.parametrize("index", ["FSII", "FBII"])
def test_a_game_of_the_order_is_found(index, players, budget):
    x = estimate(KEY, pairs, players, index=index, order=2, budget=budget, method="regression", p=0.4)
    truth = np.zeros((players, players))
    truth[0, 1] = truth[1, 0] = 2
    truth[2, 5] = truth[5, 2] = -1
    np.fill_diagonal(truth, np.linspace(-1, 1, players))
    np.testing.assert_allclose(x.matrix(), truth, atol=2e-3)
    np.testing.assert_allclose(x.baseline, 0.5, atol=1e-3)
    np.testing.assert_allclose(np.asarray(x.faithfulness), 1, atol=1e-3)


@pytest.mark.parametrize(
    ("method", "index", "order", "budget", "p"),
    [
        slow("regression", "SV", 1, 80, 0.5),
        slow("regression", "BV", 1, 80, 0.3),
        slow("regression", "FSII", 2, 150, 0.5),
        slow("regression", "FBII", 2, 150, 0.5),
        ("kernel-shap-iq", "SII", 2, 150, 0.5),
        slow("kernel-shap-iq", "k-SII", 3, 250, 0.5),
    ],
)
def test_errors_hold_and_fall(method, index, order, budget, p):
    def errors(budget, reps=100):
        def of(key):
            x = estimate(key, game_of(GAMES[0]), 9, index=index, order=order, budget=budget, method=method, p=p)
            return x.values, x.standard_errors

        values, errors = jax.jit(jax.vmap(of))(jax.random.split(KEY, reps))
        return np.asarray(values - from_table(GAMES[0], index=index, order=order, p=p).values), np.asarray(errors)

    found, stated = errors(budget)
    assert 0.9 <= (np.abs(found) <= 2 * stated).mean() <= 0.99
    more, _ = errors(2 * budget)
    assert (more**2).mean() < 0.5 * (found**2).mean()


@pytest.mark.parametrize("index", ["FSII", slow("SV")])
def test_nobody_and_everybody_are_met(index):
    order = 1 if index == "SV" else 2
    x = estimate(KEY, game_of(GAMES[2]), 9, index=index, order=order, budget=60, method="regression")
    assert float(x.baseline) == float(GAMES[2][0])
    np.testing.assert_allclose(x.baseline + x.values.sum(), GAMES[2][-1], atol=1e-4)


def test_as_few_coalitions_as_are_taken():
    for method, index, budget in [
        ("regression", "FSII", 48),
        ("regression", "FBII", 48),
        ("kernel-shap-iq", "SII", 49),
    ]:

        def of(key):
            x = estimate(key, game_of(GAMES[0]), 9, index=index, order=2, budget=budget, method=method)  # noqa: B023
            return x.values, x.standard_errors

        for numbers in jax.jit(jax.vmap(of))(jax.random.split(KEY, 20)):
            assert np.isfinite(numbers).all()
