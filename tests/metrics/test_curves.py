from statistics import NormalDist

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmoxi as jm
from jaxmoxi.metrics import (
    aggregate_curves,
    bootstrap_curves,
    curve_at,
    highest_confidence,
    probability_area,
    smallest_flip,
)
from jaxmoxi.types import Readout
from support.games import ThresholdGame, table_game


def curve(leads=(False, True, True), probabilities=(0.2, 0.8, 0.6), values=(-1.0, 2.0, 1.0)):
    return jm.Curve(
        values=jnp.array(values),
        area=jnp.float32(0),
        leads=jnp.array(leads),
        accuracy_area=jnp.float32(0),
        probabilities=jnp.array(probabilities),
    )


def test_areas_and_readings_by_hand():
    found = curve()
    np.testing.assert_allclose(probability_area(found), ((0.2 + 0.8) / 2 + (0.8 + 0.6) / 2) / 2, rtol=1e-6)
    np.testing.assert_allclose(curve_at(found, 0.5), 0.8)
    # Two players: 0.24 is nearest to none of them, 0.25 rounds up to one, 1 is all.
    np.testing.assert_allclose(curve_at(found, (0.0, 0.24, 0.25, 0.74, 1.0)), np.float32([0.2, 0.2, 0.8, 0.8, 0.6]))
    assert curve_at(found, [0.0, 1.0], quantity="leads").tolist() == [False, True]
    assert curve_at(found, [0.0, 1.0], quantity="values").tolist() == [-1.0, 1.0]


def test_shares_typed_in_decimals_reach_their_size():
    found = curve(values=np.arange(11.0), leads=[True] * 11, probabilities=[0.5] * 11)
    shares = [k / 10 for k in range(11)]
    assert curve_at(found, shares, quantity="values").tolist() == list(range(11))
    assert curve_at(found, [0.15, 0.35, 0.55], quantity="values").tolist() == [2, 4, 6]


@pytest.mark.parametrize(
    ("leads", "insertion", "deletion"),
    [
        ([False, False, True], 2, 0),
        ([False, True, False], 1, 0),
        ([True, True, False], 0, 2),
        ([False, False, False], 3, 0),
        ([True, True, True], 0, 3),
    ],
)
def test_smallest_flip_by_hand(leads, insertion, deletion):
    assert int(smallest_flip(curve(leads))) == insertion
    assert int(smallest_flip(curve(leads), insertion=False)) == deletion


def test_smallest_flip_of_readings_at_some_sizes():
    """The size of the first reading that has flipped; one more than the largest where none has."""
    leads = jnp.array([[False, False, True, True], [False, False, False, False], [True, False, True, True]])
    read = Readout(jnp.zeros((3, 4)), leads)
    np.testing.assert_array_equal(smallest_flip(read, sizes=[0, 2, 5, 9]), [5, 10, 0])
    np.testing.assert_array_equal(smallest_flip(read, insertion=False, sizes=[0, 2, 5, 9]), [0, 0, 2])
    with pytest.raises(ValueError, match="expected a size for each of the 4 readings; got 3 sizes"):
        smallest_flip(read, sizes=[0, 2, 5])


def test_smallest_flip_is_where_the_search_stops():
    v = ThresholdGame(jnp.array([2.0, 1.0, -1.0, 0.5]), jnp.float32(-2.2))
    for insertion, search, follow in [
        (True, jm.greedy_insertion, jm.insertion_curve),
        (False, jm.greedy_deletion, jm.deletion_curve),
    ]:
        order = search(v, 4).order
        flipped = smallest_flip(follow(v, order), insertion=insertion)
        assert int(flipped) == int(search(v, 4, stop=jm.Stop(flip=True)).num_steps)


def test_highest_confidence_by_hand():
    found = highest_confidence(curve())
    assert (float(found.probability), int(found.size)) == (np.float32(0.8), 1)
    assert int(highest_confidence(curve(probabilities=(0.5, 0.9, 0.9))).size) == 1


def test_eager_is_jit_is_vmap():
    one, other = curve(), curve((True, False, False), (0.9, 0.1, 0.3))
    both = jax.tree.map(lambda *x: jnp.stack(x), one, other)
    for f in (probability_area, smallest_flip, highest_confidence, lambda c: curve_at(c, [0.1, 0.6])):
        eager = jax.tree.map(lambda *x: jnp.stack(x), f(one), f(other))
        for batched in (f(both), jax.jit(f)(both), jax.vmap(f)(both)):
            jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), eager, batched)


def test_mean_and_normal_band_by_hand():
    band = aggregate_curves(np.array([[0.0, 1.0], [1.0, 1.0], [2.0, 1.0]], np.float32))
    half = NormalDist().inv_cdf(0.975) * 1 / np.sqrt(3)  # sample standard deviation 1
    np.testing.assert_allclose(band.mean, [1, 1])
    np.testing.assert_allclose(band.low, [1 - half, 1], rtol=1e-6)
    np.testing.assert_allclose(band.high, [1 + half, 1], rtol=1e-6)


def test_shards_count_as_one_and_bools_as_accuracy():
    rows = np.random.default_rng(0).random((5, 4)) < 0.5
    whole, parts = aggregate_curves(rows), aggregate_curves([rows[:2], jnp.asarray(rows[2:])])
    jax.tree.map(np.testing.assert_array_equal, whole, parts)
    np.testing.assert_allclose(whole.mean, rows.mean(0), rtol=1e-6)
    assert whole.mean.dtype == jnp.float32


def test_a_single_image_has_no_spread():
    band = aggregate_curves(jnp.array([[0.0, 1.0]]))
    assert np.isnan(band.low).all()
    assert np.isnan(band.high).all()
    drawn = bootstrap_curves(jax.random.key(0), jnp.array([[0.0, 1.0]]), num_samples=3)
    assert drawn.low.tolist() == drawn.high.tolist() == [0.0, 1.0]


def test_bootstrap_is_deterministic_and_close_to_normal():
    rows = jnp.asarray(np.random.default_rng(1).normal(size=(200, 3)), jnp.float32)
    key = jax.random.key(7)
    band, again = bootstrap_curves(key, rows), bootstrap_curves(key, [rows[:50], rows[50:]])
    jax.tree.map(np.testing.assert_array_equal, band, again)
    normal = aggregate_curves(rows)
    np.testing.assert_array_equal(band.mean, normal.mean)
    # The ends of 1000 draws' percentiles scatter by about a tenth of the standard error, 0.07.
    np.testing.assert_allclose(band.low, normal.low, atol=0.03)
    np.testing.assert_allclose(band.high, normal.high, atol=0.03)
    assert (band.low < band.mean).all()
    narrow = bootstrap_curves(key, rows, level=0.5)
    assert (narrow.high - narrow.low < band.high - band.low).all()
    assert not np.array_equal(band.low, bootstrap_curves(jax.random.key(8), rows).low)


def test_bands_under_jit():
    rows, key = jnp.asarray(np.random.default_rng(2).random((6, 3)), jnp.float32), jax.random.key(0)
    for eager, jitted in [
        (aggregate_curves(rows), jax.jit(aggregate_curves)(rows)),
        (
            bootstrap_curves(key, rows, num_samples=9),
            jax.jit(lambda k, r: bootstrap_curves(k, r, num_samples=9))(key, rows),
        ),
    ]:
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), eager, jitted)


@pytest.mark.usefixtures("unchecked")
def test_errors():
    silent = jm.insertion_curve(table_game(3)[0], jnp.arange(3))
    with pytest.raises(
        ValueError, match="this curve has no probabilities, as its value function cannot tell them; make"
    ):
        probability_area(silent)
    with pytest.raises(ValueError, match="this curve has no leads"):
        smallest_flip(silent)
    with pytest.raises(ValueError, match=r"a share in \[0, 1\], or several; got 1.5"):
        curve_at(curve(), 1.5)
    with pytest.raises(ValueError, match="a quantity of 'probabilities', 'leads' or 'values'; got 'area'"):
        curve_at(curve(), 0.5, quantity="area")
    with pytest.raises(
        ValueError, match=r"curves \[B, P\+1\], or several such arrays of one P; got shapes \[\(2, 3\), \(2, 4\)"
    ):
        aggregate_curves([jnp.ones((2, 3)), jnp.ones((2, 4))])
    with pytest.raises(ValueError, match=r"got shapes \[\(3,\)\]"):
        aggregate_curves(jnp.ones(3))
    with pytest.raises(ValueError, match="curves of at least one image; got none"):
        aggregate_curves(jnp.ones((0, 3)))
    with pytest.raises(ValueError, match=r"level must lie in \(0, 1\), such as 0.95; got 95"):
        aggregate_curves(jnp.ones((2, 3)), level=95)
    with pytest.raises(ValueError, match="num_samples must be at least 1; got 0"):
        bootstrap_curves(jax.random.key(0), jnp.ones((2, 3)), num_samples=0)
