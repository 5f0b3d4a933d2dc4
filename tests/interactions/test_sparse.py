"""Estimates by a sparse polynomial."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmoxi as jm
from jaxmoxi.interactions.lattice import sets_up_to
from jaxmoxi.interactions.sparse import _rank

KEY = jax.random.key(0)


def estimate(v, n, budget, **options):
    return jm.interactions.estimate(KEY, v, n, budget=budget, method="sparse", **options)


def few_terms(masks):
    """A polynomial of three players' product, two pairs and some single players."""
    x = masks.astype(jnp.float32)
    return 2 * x[:, 3] * x[:, 7] * x[:, 11] + x[:, 0] * x[:, 1] - 1.5 * x[:, 2] * x[:, 5] + x[:, 4] - x[:, 9]


@pytest.mark.parametrize("index", ["SII", *[pytest.param(i, marks=pytest.mark.slow) for i in ("FBII", "k-SII")]])
def test_a_game_of_few_terms_is_found_whole(index):
    found = estimate(few_terms, 12, 500, index=index, order=3)
    exact = jm.interactions.exact(few_terms, 12, index=index, order=3)
    np.testing.assert_allclose(found.values, exact.values, atol=0.03)
    assert float(found.baseline) == pytest.approx(float(exact.baseline), abs=0.03)


@pytest.mark.slow
def test_pairs_among_many_players():
    found = estimate(few_terms, 60, 1500, index="FBII")
    pairs = {tuple(row) for row in np.asarray(found.top(5, size=2).sets).tolist()}
    assert pairs == {(0, 1), (2, 5), (3, 7), (3, 11), (7, 11)}
    assert np.asarray(found.faithfulness) > 0.9
    np.testing.assert_allclose(found.of(0, 1), 1.0, atol=0.1)


@pytest.mark.parametrize(("n", "size"), [(6, 1), (6, 2), (7, 3)])
def test_rank_is_the_place_among_all_sets_of_a_size(n, size):
    sets = sets_up_to(n, size)
    sets = sets[(sets >= 0).sum(1) == size]
    np.testing.assert_array_equal(_rank(jnp.asarray(sets), n), np.arange(len(sets)))


@pytest.mark.parametrize(
    ("options", "message"),
    [({"order": 4}, "sparse takes orders up to 3; got 4"), ({"index": "BGV"}, "sparse has no BGV")],
)
def test_what_it_does_not_take(options, message):
    with pytest.raises(ValueError, match=message):
        estimate(few_terms, 12, 200, **options)
