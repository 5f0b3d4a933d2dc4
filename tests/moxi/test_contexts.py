import functools
import itertools
from fractions import Fraction
from math import comb

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmoxi as jm
from jaxmoxi.interactions.indices import derivative_weights
from support.games import SizedGame, exact_shapley, index, table_game
from support.interactions import GAMES, game_of


def brute_interaction(table, context, i, j):
    rest = context - {i, j}
    value = lambda *extra: float(table[index(rest | set(extra))])  # noqa: E731
    return value(i, j) - value(i) - value(j) + value()


@pytest.mark.parametrize("num_players", [1, 2, 5, 8])
def test_shapley_in_context(num_players):
    v, table = table_game(num_players, 4)
    everyone = set(range(num_players))
    alone = [table[index({i})] - table[0] for i in everyone]
    last = [table[-1] - table[index(everyone - {i})] for i in everyone]
    np.testing.assert_allclose(jm.self_context_shapley(v, num_players), alone, rtol=1e-6)
    np.testing.assert_allclose(jm.full_context_shapley(v, num_players), last, rtol=1e-6)


@pytest.mark.parametrize("num_players", [1, 2, 4, 7])
def test_pairwise_interactions_in_every_context(num_players):
    v, table = table_game(num_players, 5)
    everyone = range(num_players)
    contexts = [set(s) for k in range(num_players + 1) for s in itertools.combinations(everyone, k)][:40]
    for context in [None, *contexts]:
        mask = None if context is None else jnp.asarray([i in context for i in everyone])
        matrix = jm.pairwise_interactions(v, num_players, context=mask)
        expected = np.zeros((num_players, num_players))
        for i, j in itertools.permutations(everyone, 2):
            expected[i, j] = brute_interaction(table, context or set(), i, j)
        np.testing.assert_allclose(matrix, expected, atol=1e-5)


@pytest.mark.parametrize("num_players", [2, 5, 7])
@pytest.mark.parametrize(("context", "index"), [("self", "Moebius"), ("full", "Co-Moebius")])
def test_pairs_and_single_players_in_context_are_the_ends_of_the_lattice(context, index, num_players):
    v, _ = table_game(num_players, 11)
    x = jm.interactions.exact(v, num_players, index=index, order=2)
    mask = None if context == "self" else jnp.ones(num_players, bool)
    off_diagonal = np.asarray(x.matrix()) * (1 - np.eye(num_players))
    np.testing.assert_allclose(jm.pairwise_interactions(v, num_players, context=mask), off_diagonal, atol=2e-6)
    shapley = jm.self_context_shapley if context == "self" else jm.full_context_shapley
    np.testing.assert_allclose(shapley(v, num_players), x.first_order(), atol=2e-6)


def test_the_weights_of_sizes_that_the_head_of_the_file_states():
    n = 7
    sizes = np.arange(n - 1)
    stated = {
        "SII": np.full(n - 1, 1 / (n - 1)),
        "k-SII": np.full(n - 1, 1 / (n - 1)),
        "BII": [comb(n - 2, t) / 2 ** (n - 2) for t in sizes],
        "FBII": [comb(n - 2, t) / 2 ** (n - 2) for t in sizes],
        "STII": 2 * (n - 1 - sizes) / (n * (n - 1)),
        "FSII": 6 * (sizes + 1) * (n - 1 - sizes) / (n * (n**2 - 1)),
        "Moebius": 1.0 * (sizes == 0),
        "Co-Moebius": 1.0 * (sizes == n - 2),
    }
    for name, weights in stated.items():
        found = derivative_weights(name, n, 2, 2, Fraction(1, 2))
        np.testing.assert_allclose([float(w) * comb(n - 2, t) for t, w in enumerate(found)], weights, atol=1e-12)


def test_self_context_pairs_show_at_most_two_players():
    weights = jnp.asarray([1.0, 2.0, 4.0, 8.0])
    matrix = jm.pairwise_interactions(SizedGame(weights), 4)  # an error where a row breaks the promise
    np.testing.assert_allclose(matrix, np.zeros((4, 4)), atol=1e-6)


def test_interactions_do_not_depend_on_the_batch():
    v, _ = table_game(8, 6)
    expected = jm.pairwise_interactions(v, 8)
    for batch_size in (1, 5, 64):
        np.testing.assert_array_equal(jm.pairwise_interactions(v, 8, batch_size=batch_size), expected)
    np.testing.assert_array_equal(jax.jit(lambda v: jm.pairwise_interactions(v, 8))(v), expected)


def test_sampled_shapley_is_unbiased():
    v, table = table_game(6, 7)
    exact = exact_shapley(table, 6)
    estimate = jm.sampled_shapley(jax.random.key(0), v, 6, num_samples=4000, method="permutation")
    errors = np.abs(estimate.values - exact) / estimate.standard_errors
    assert np.max(errors) < 4
    assert np.min(estimate.standard_errors) > 0
    # The reported standard error is that of the mean: the spread of repeated estimates.
    keys = jax.random.split(jax.random.key(1), 200)
    repeats = jax.vmap(lambda k: jm.sampled_shapley(k, v, 6, num_samples=20, method="permutation"))(keys)
    spread = np.std(repeats.values, axis=0, ddof=1)
    np.testing.assert_allclose(np.sqrt(np.mean(repeats.standard_errors**2, axis=0)), spread, rtol=0.2)
    np.testing.assert_allclose(np.mean(repeats.values, axis=0), exact, atol=4 * spread.max() / np.sqrt(200))


def test_efficiency():
    v, table = table_game(7, 8)
    for method in ("gaussian-process", "permutation"):
        estimate = jm.sampled_shapley(jax.random.key(2), v, 7, num_samples=5, method=method)
        np.testing.assert_allclose(estimate.values.sum(), table[-1] - table[0], rtol=1e-4)
        assert estimate.num_evaluations == 5 * 6 + 2


def test_null_player_and_symmetry():
    # Player 4 changes nothing; players 0 and 1 are interchangeable.
    def v(masks):
        m = masks.astype(jnp.float32)
        return 3 * m[:, 0] * m[:, 1] + m[:, 0] + m[:, 1] + m[:, 2] * m[:, 3] - 2 * m[:, 3]

    exact = jm.sampled_shapley(jax.random.key(3), v, 5, num_samples=3000)
    np.testing.assert_allclose(exact.values, [2.5, 2.5, 0.5, -1.5, 0], atol=1e-6)
    assert exact.num_evaluations == 32
    assert not exact.standard_errors.any()
    estimate = jm.sampled_shapley(jax.random.key(3), v, 5, num_samples=3000, method="permutation")
    assert estimate.values[4] == 0
    assert estimate.standard_errors[4] == 0
    np.testing.assert_allclose(estimate.values, [2.5, 2.5, 0.5, -1.5, 0], atol=0.12)
    matrix = jm.pairwise_interactions(v, 5)
    assert matrix[0, 1] == 3
    assert matrix[2, 3] == 1
    assert not matrix[4].any()
    for shapley in (jm.self_context_shapley, jm.full_context_shapley):
        values = shapley(v, 5)
        assert values[4] == 0
        assert values[0] == values[1]


def test_sampling_depends_on_the_key_alone():
    v, _ = table_game(5, 9)
    for method in ("gaussian-process", "permutation"):
        ask = functools.partial(jm.sampled_shapley, v=v, num_players=5, num_samples=5, method=method)
        one, again, other = ask(jax.random.key(4)), ask(jax.random.key(4), batch_size=3), ask(jax.random.key(5))
        np.testing.assert_array_equal(one.values, again.values)
        assert not np.array_equal(one.values, other.values)


@pytest.mark.slow
def test_the_gaussian_process_has_less_error_than_orders():
    errors = {"gaussian-process": [], "permutation": []}
    for table in GAMES:
        exact = jm.interactions.from_table(table, index="SV", order=1).values
        for method, squares in errors.items():
            for i in range(4):
                found = jm.sampled_shapley(jax.random.key(i), game_of(table), 9, num_samples=12, method=method)
                squares.append(np.mean((found.values - exact) ** 2))
    assert np.mean(errors["gaussian-process"]) < 0.5 * np.mean(errors["permutation"])


def test_one_player():
    estimate = jm.sampled_shapley(jax.random.key(0), lambda m: 2.0 * m[:, 0] + 1, 1, num_samples=2)
    assert estimate.values.tolist() == [2.0]


@pytest.mark.usefixtures("unchecked")
def test_errors():
    v, _ = table_game(4)
    with pytest.raises(ValueError, match="num_samples must be at least 2"):
        jm.sampled_shapley(jax.random.key(0), v, 4, num_samples=1)
    with pytest.raises(ValueError, match=r"expected a context bool\[4\]; got bool of shape \(3,\)"):
        jm.pairwise_interactions(v, 4, context=jnp.ones(3, bool))
    broken = lambda m: jnp.where(m[:, 1] & m[:, 3], jnp.nan, 0.0)  # noqa: E731
    with pytest.raises(jm.NaNValueError, match=r"NaN with the players \[1, 3\] toggled"):
        jm.pairwise_interactions(broken, 4)
    with pytest.raises(jm.NaNValueError, match="NaN of the context itself"):
        jm.full_context_shapley(broken, 4)
    with pytest.raises(jm.NaNValueError, match="NaN with only player 2 toggled"):
        jm.self_context_shapley(lambda m: jnp.where(m[:, 2], jnp.nan, 0.0), 4)
    with pytest.raises(jm.NaNValueError, match="of a sampled order"):
        jm.sampled_shapley(jax.random.key(0), broken, 4, num_samples=9, method="permutation")
    with pytest.raises(jm.NaNValueError, match=r"for the coalition of players \[(.*, )?1, (.*, )?3"):
        jm.sampled_shapley(jax.random.key(0), broken, 4, num_samples=9)
    with pytest.raises(ValueError, match="expected a method of gaussian-process, permutation; got 'magic'"):
        jm.sampled_shapley(jax.random.key(0), v, 4, num_samples=9, method="magic")
