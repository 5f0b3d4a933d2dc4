"""Estimates by a Gaussian process, and the door: what they are near to, how sure they are, how they go on."""

import dataclasses
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmoxi as jm
from jaxmoxi.interactions import gaussian, large
from jaxmoxi.interactions.design import coalition, draw
from jaxmoxi.interactions.methods import Request
from support.interactions import GAMES, game_of, table_of

interactions = jm.interactions
KEY = jax.random.key(0)


def estimate(v, n, budget, **options):
    return interactions.estimate(options.pop("key", KEY), v, n, budget=budget, **options)


def squared_error(found, table, **options):
    exact = interactions.from_table(table, **options)
    return float(jnp.mean((found.values - exact.values) ** 2))


def errors_of(found):
    return np.asarray(found.standard_errors)


def smooth(masks):
    """A game of any number of players with few strong pairs."""
    x = masks.astype(jnp.float32)
    weights = jnp.cos(jnp.arange(masks.shape[1]) * 1.7) / jnp.sqrt(masks.shape[1])
    return jax.nn.sigmoid(x @ weights + x[:, 0] * x[:, 1] * 2 - x[:, 2] * x[:, 3])


OTHERS = ("SII", "STII", "FSII", "FBII", "Moebius", "OR", "SGV")


@pytest.mark.parametrize("index", ["k-SII", *[pytest.param(i, marks=pytest.mark.slow) for i in OTHERS]])
def test_more_coalitions_are_nearer_to_the_exact_index(index):
    table, errors, start = GAMES[0], [], None
    for budget in (40, 200, 500):
        found = estimate(game_of(table), 9, budget, index=index, start=start)
        errors.append(squared_error(found, table, index=index, order=2))
        start = found
    assert errors[2] < errors[1] < errors[0]
    assert errors[2] < 0.05 * errors[0]


def test_all_coalitions_are_exact():
    table = GAMES[1]
    found = estimate(game_of(table), 9, 600, index="FSII", order=3)
    exact = interactions.from_table(table, index="FSII", order=3)
    np.testing.assert_array_equal(found.values, exact.values)
    assert found.num_evaluations == 512
    assert found.standard_errors is None


@pytest.mark.parametrize("index", ["k-SII", "STII", "FSII"])
def test_efficient_indices_sum_to_the_game(index):
    table = GAMES[0]
    found = estimate(game_of(table), 9, 60, index=index)
    assert float(found.baseline + found.values.sum()) == pytest.approx(float(table[-1]), abs=1e-5)


@pytest.mark.slow
def test_standard_errors_hold_most_truths():
    shares = []
    for i, table in enumerate(GAMES):
        start = None
        for budget in (50, 100, 200):
            for index in ("SII", "FBII"):
                found = start = estimate(game_of(table), 9, budget, index=index, start=start, key=jax.random.key(i))
                exact = interactions.from_table(table, index=index, order=2)
                shares.append(np.mean(np.abs(found.values - exact.values) <= 2 * errors_of(found)))
    assert 0.9 <= np.mean(shares) <= 0.995


def test_an_estimate_goes_on_where_it_stopped():
    v, counts = game_of(GAMES[2]), []

    def counted(masks):
        jax.debug.callback(lambda m: counts.append(len(m)), masks)
        return v(masks)

    first = estimate(counted, 9, 64, batch_size=16)
    jax.effects_barrier()
    before = sum(counts)
    more = estimate(counted, 9, 128, start=first, batch_size=16)
    jax.effects_barrier()
    assert sum(counts) - before == 64
    whole = estimate(v, 9, 128)
    np.testing.assert_array_equal(more.values, whole.values)
    np.testing.assert_array_equal(more.standard_errors, whole.standard_errors)
    assert np.asarray(more.faithfulness) == np.asarray(whole.faithfulness)
    other = estimate(v, 9, 128, start=more, index="FBII", order=3)  # no coalition more
    np.testing.assert_array_equal(other.values, estimate(v, 9, 128, index="FBII", order=3).values)


def test_the_same_key_gives_the_same_answer_whatever_the_chunk():
    v = game_of(GAMES[0])
    one, other = estimate(v, 9, 100, batch_size=7), estimate(v, 9, 100, batch_size=64)
    np.testing.assert_array_equal(one.values, other.values)
    assert not np.array_equal(one.values, estimate(v, 9, 100, key=jax.random.key(1)).values)


def test_jit_and_vmap_give_the_same_numbers():
    tables = jnp.stack(GAMES[:2])

    def ask(table):
        x = estimate(game_of(table), 9, 80, index="SII")
        return x.values, x.standard_errors, x.faithfulness

    together = jax.jit(jax.vmap(ask))(tables)
    for i in range(2):
        for alone, mapped in zip(ask(tables[i]), together, strict=True):
            np.testing.assert_allclose(np.asarray(mapped)[i], np.asarray(alone), rtol=2e-3, atol=2e-4)


def test_a_shift_and_a_scale_do_what_they_should():
    table = GAMES[0]
    plain, moved = estimate(game_of(table), 9, 100), estimate(game_of(table * 50 - 1000), 9, 100)
    np.testing.assert_allclose(moved.values / 50, plain.values, atol=2e-4)
    np.testing.assert_allclose(errors_of(moved) / 50, errors_of(plain), rtol=1e-2)


def test_a_game_that_is_one_number_has_no_interactions():
    found = estimate(lambda masks: jnp.full(len(masks), 0.25), 9, 60)
    np.testing.assert_allclose(found.values, 0, atol=1e-6)
    assert float(found.baseline) == pytest.approx(0.25)


@pytest.mark.slow
def test_the_fit_for_many_players_is_as_near_as_the_fit_on_the_table(monkeypatch):
    request = Request(9, "FSII", 2, Fraction(1, 2))
    operands = gaussian.plan(KEY, request, 102)
    rows = operands.design.rows
    values = GAMES[0][rows]
    on_table = gaussian.fit(operands, values, request)
    masks = jax.vmap(lambda i: coalition(operands.design, i))(jnp.arange(102))
    truth = interactions.from_table(GAMES[0], index="FSII", order=2).values
    error = float(jnp.sqrt(jnp.mean((on_table.values - truth) ** 2)))
    for most in (8192, 0):  # a matrix, and products of matrices
        monkeypatch.setattr(large, "MOST_DENSE", most)
        found = large.fit_large(masks, values, KEY, request)
        assert float(jnp.sqrt(jnp.mean((found.values - truth) ** 2))) < 1.5 * error
        assert float(found.values.sum() + found.baseline) == pytest.approx(float(GAMES[0][-1]), abs=1e-3)


def test_strong_pairs_of_many_players_are_found():
    found = estimate(smooth, 40, 3000, index="SII")
    assert [tuple(row) for row in np.asarray(found.top(2, size=2).sets)] == [(0, 1), (2, 3)]
    assert float(found.of(0, 1)) > 0 > float(found.of(2, 3))
    assert np.asarray(estimate(smooth, 40, 3000, index="FBII", start=found).faithfulness) > 0.7


@pytest.mark.slow
def test_triples_of_many_players():
    def game(masks):
        x = masks.astype(jnp.float32)
        return x[:, 4] * x[:, 7] * x[:, 9] + 0.1 * x[:, 0]

    found = estimate(game, 24, 1200, index="FSII", order=3)
    assert [tuple(row) for row in np.asarray(found.top(1, size=3).sets)] == [(4, 7, 9)]


@pytest.mark.slow
def test_single_players_of_stii_are_what_they_are_alone():
    found = estimate(smooth, 30, 200, index="STII")
    nobody, alone = smooth(jnp.zeros((1, 30), bool)), smooth(jnp.eye(30, dtype=bool))
    np.testing.assert_allclose(found.first_order(), alone - nobody, atol=1e-4)
    np.testing.assert_array_equal(errors_of(found)[:30], 0)


@pytest.mark.slow
def test_near_certain_probabilities_keep_their_digits():
    shift = jnp.asarray([18.0, -18.0])

    def logits(images):
        return images.mean((1, 2))[:, :2] * jnp.asarray([3.0, -1.0]) + shift

    image = jax.random.uniform(KEY, (6, 6, 3))
    regions = jm.grid_regions(6, 6, rows=3, cols=3)
    v = jm.pixel_value_fn(logits, image, 0, regions, fill=0.0, payoff="prob")
    exact = interactions.exact(v, 9, index="SII")
    found = estimate(v, 9, 400, index="SII")
    assert 0 < float(jnp.abs(exact.values).max()) < 1e-9
    assert float(jnp.corrcoef(exact.values, found.values)[0, 1]) > 0.99


def test_the_design_never_repeats_and_comes_in_pairs():
    design = draw(KEY, 8, 256, np.full(9, 1 / 9))
    assert len(set(np.asarray(design.rows).tolist())) == 256
    for n in (8, 30):
        design = draw(KEY, n, 200, np.full(n + 1, 1 / (n + 1)))
        masks = np.asarray(jax.vmap(lambda i, d=design: coalition(d, i))(jnp.arange(200)))
        assert not masks[0].any()
        assert masks[1].all()
        np.testing.assert_array_equal(masks[0::2], ~masks[1::2])
        assert sorted(masks[2 : 2 + 2 * n].sum(1).tolist()) == [1] * n + [n - 1] * n


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"index": "SHAP"}, "expected an index of SV, BV, SII"),
        ({"method": "magic"}, "expected a method of auto, gaussian-process"),
        ({"order": 12}, "order must be a whole number from 1 to the 9 players; got 12"),
        ({"budget": 10}, "gaussian-process needs a budget of at least 20 coalitions for 9 players and order 2; got 10"),
        ({"num_players": 1}, "num_players must be a whole number of at least 2; got 1"),
        ({"num_players": 70, "order": 3, "budget": 400}, "takes at most 60 players for order 3; got 70"),
        ({"num_players": 30, "index": "SGV", "budget": 400}, "takes at most 20 players for SGV; got 30"),
        ({"p": 1.5}, "p, the probability that a player is there, must lie between 0 and 1; got 1.5"),
    ],
)
def test_what_cannot_be_estimated_is_refused_before_anything_is_evaluated(options, message):
    def never(masks):
        raise AssertionError("evaluated")

    with pytest.raises(ValueError, match=message):
        interactions.estimate(KEY, never, **({"num_players": 9, "budget": 100} | options))


def test_what_an_estimate_cannot_start_from_is_refused():
    v = game_of(GAMES[0])
    first = estimate(v, 9, 100)
    with pytest.raises(ValueError, match="the budget counts all coalitions, those of start too: it has 100; got 60"):
        estimate(v, 9, 60, start=first)
    with pytest.raises(ValueError, match="start must be an estimate by gaussian-process for 9 players; got exact"):
        estimate(v, 9, 60, start=interactions.exact(v, 9))
    with pytest.raises(ValueError, match="start was made with another key, which draws other coalitions"):
        estimate(v, 9, 200, start=first, key=jax.random.key(1))
    other = dataclasses.replace(first, method="shap-iq")
    with pytest.raises(ValueError, match="start must be an estimate by gaussian-process for 9 players; got shap-iq"):
        estimate(v, 9, 200, start=other)


def test_a_nan_is_named():
    table = jnp.asarray(table_of(5), jnp.float32).at[31].set(jnp.nan)
    with pytest.raises(FloatingPointError, match=r"for the coalition of players \[0, 1, 2, 3, 4\]"):
        estimate(game_of(table), 5, 14)
