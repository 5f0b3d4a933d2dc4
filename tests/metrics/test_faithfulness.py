"""Scores against what hiding players does: by the definitions in NumPy, on games where the answer is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmoxi as jm
from jaxmoxi import metrics
from support.games import table_game

KEY = jax.random.key(3)
P = 7
WEIGHTS = jnp.asarray([3.0, -1, 4, 1, -5, 9, 2])
SCORES = jnp.asarray([0.3, -0.2, 1.0, 0.1, -0.7, 0.4, 0.9])


def additive(masks):
    return masks @ WEIGHTS + 11


def recorded(call):
    """(what `call` returned, every coalition it asked about, their values) for a game with no symmetry."""
    v, table = table_game(P, seed=4)
    asked = []

    def watched(masks):
        jax.debug.callback(lambda rows: asked.append(np.asarray(rows)), masks)
        return v(masks)

    out = call(watched)
    jax.effects_barrier()
    rows = np.concatenate(asked[3:])  # after the three batches by which a function is tried
    return out, rows, table[rows @ (2 ** np.arange(P))].astype(np.float64)


def test_an_additive_game_is_explained_by_its_weights():
    assert float(metrics.faithfulness_correlation(KEY, additive, WEIGHTS)) == pytest.approx(1, abs=1e-5)
    assert float(metrics.faithfulness_correlation(KEY, additive, -2 * WEIGHTS)) == pytest.approx(-1, abs=1e-5)
    sizes = metrics.sensitivity_n(KEY, additive, 3 * WEIGHTS, sizes=(1, 3, 6, 7))
    np.testing.assert_allclose(sizes, [1, 1, 1, np.nan], atol=1e-5)  # of everybody there is one set
    assert float(metrics.infidelity(KEY, additive, WEIGHTS)) == pytest.approx(0, abs=1e-8)
    assert float(metrics.infidelity(KEY, additive, 5 * WEIGHTS)) > 10
    assert float(metrics.infidelity(KEY, additive, 5 * WEIGHTS, scaled=True)) == pytest.approx(0, abs=1e-8)
    found = metrics.completeness(additive, WEIGHTS + 1)
    assert (float(found.total), float(found.change), float(found.gap)) == (20, 13, 7)


@pytest.mark.parametrize("size", [1, 3, 6])
def test_correlation_by_the_definition(size):
    got, rows, values = recorded(
        lambda v: metrics.faithfulness_correlation(KEY, v, SCORES, subset_size=size, num_samples=40, batch_size=41)
    )
    assert rows[0].all()
    hidden, done = ~rows[1:], values[0] - values[1:]
    assert (hidden.sum(1) == size).all()
    assert len(np.unique(hidden, axis=0)) > 4
    said = hidden @ np.asarray(SCORES, np.float64)
    np.testing.assert_allclose(got, np.corrcoef(said, done)[0, 1], atol=1e-5)


def test_sensitivity_n_by_the_definition():
    got, rows, values = recorded(
        lambda v: metrics.sensitivity_n(KEY, v, SCORES, sizes=(2, 5), num_samples=30, batch_size=61)
    )
    hidden, done = (~rows[1:]).reshape(2, 30, P), (values[0] - values[1:]).reshape(2, 30)
    expected = [np.corrcoef(h @ np.asarray(SCORES), d)[0, 1] for h, d in zip(hidden, done, strict=True)]
    np.testing.assert_allclose(got, expected, atol=1e-5)


@pytest.mark.parametrize("scaled", [False, True])
def test_infidelity_by_the_definition(scaled):
    got, rows, values = recorded(
        lambda v: metrics.infidelity(KEY, v, SCORES, num_samples=50, share=0.3, scaled=scaled, batch_size=51)
    )
    hidden, done = ~rows[1:], values[0] - values[1:]
    assert 0.2 < hidden.mean() < 0.4
    said = hidden @ np.asarray(SCORES, np.float64)
    if scaled:
        said = said * np.linalg.lstsq(said[:, None], done, rcond=None)[0]  # the best factor is that of least squares
    np.testing.assert_allclose(got, np.mean((said - done) ** 2), rtol=1e-4)


def test_scaling_never_hurts_and_scores_of_nought_have_no_factor():
    v, table = table_game(P, seed=5)
    assert float(metrics.infidelity(KEY, v, SCORES, scaled=True)) <= float(metrics.infidelity(KEY, v, SCORES))
    nothing = metrics.infidelity(KEY, v, jnp.zeros(P), scaled=True)
    np.testing.assert_allclose(nothing, metrics.infidelity(KEY, v, jnp.zeros(P)))
    found = metrics.completeness(v, jm.sampled_shapley(KEY, v, P, num_samples=2).values)
    assert abs(float(found.gap)) < 1e-5
    assert float(found.change) == pytest.approx(table[-1] - table[0], abs=1e-6)


def test_where_nothing_varies_there_is_no_correlation():
    assert np.isnan(metrics.faithfulness_correlation(KEY, additive, jnp.full(P, 0.1)))
    assert np.isnan(metrics.faithfulness_correlation(KEY, lambda masks: 3.0 + 0 * masks.sum(1), SCORES))
    assert np.isnan(metrics.faithfulness_correlation(KEY, lambda masks: masks[:, 0] * 1.0, jnp.ones(1)))


def test_eager_is_jit_and_no_batch_changes_it():
    v, _ = table_game(P, seed=6)
    for call in (
        lambda scores, size=None: metrics.faithfulness_correlation(KEY, v, scores, batch_size=size),
        lambda scores, size=None: metrics.sensitivity_n(KEY, v, scores, sizes=(2, 3), batch_size=size),
        lambda scores, size=None: metrics.infidelity(KEY, v, scores, batch_size=size),
    ):
        expected = call(SCORES)
        np.testing.assert_allclose(jax.jit(call)(SCORES), expected, rtol=1e-5)
        np.testing.assert_allclose(call(SCORES, 7), expected, rtol=1e-5)


@pytest.mark.usefixtures("unchecked")
def test_what_is_refused():
    for call, words in (
        (lambda: metrics.faithfulness_correlation(KEY, additive, SCORES, subset_size=8), "sets of 1 to 7 players"),
        (lambda: metrics.faithfulness_correlation(KEY, additive, SCORES, num_samples=2), "num_samples of at least 3"),
        (lambda: metrics.sensitivity_n(KEY, additive, SCORES, sizes=()), "sets of 1 to 7 players; got sizes"),
        (lambda: metrics.sensitivity_n(KEY, additive, SCORES, sizes=(0.5,)), "sets of 1 to 7 players"),
        (lambda: metrics.infidelity(KEY, additive, SCORES, share=1.0), r"a share in \(0, 1\); got"),
        (lambda: metrics.infidelity(KEY, additive, SCORES.at[2].set(np.nan)), "that of player 2 is nan"),
        (lambda: metrics.completeness(additive, SCORES[None]), r"scores float32\[P\] of one explanation; got shape"),
    ):
        with pytest.raises(ValueError, match=words):
            call()
    broken = lambda masks: jnp.where(masks.all(1), jnp.nan, 1.0)  # noqa: E731
    with pytest.raises(jm.NaNValueError, match=r"with the players \[\] hidden"):
        metrics.infidelity(KEY, broken, SCORES)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", ["faithfulness", "sensitivity-n", "infidelity"])
def test_a_study_asks_about_the_sets_once_and_counts_pixels(name):
    """Of exact scores the numbers are perfect, whether a method gives them as they are or as means over pixels."""
    regions = jm.relabel(jnp.asarray([[0, 0, 0, 1], [2, 2, 3, 1], [4, 2, 5, 6]]))
    asked = []

    def watched(masks):
        jax.debug.callback(lambda rows: asked.append(len(rows)), masks)
        return additive(masks)

    means = WEIGHTS / jnp.bincount(regions.ravel(), length=P)
    scores = np.stack([[WEIGHTS] * 2, [means] * 2, [WEIGHTS[::-1]] * 2]).astype(np.float32)
    explained = metrics.Explained(
        key=KEY, model=None, image=jnp.zeros((3, 4, 3)), target=0, regions=regions,
        methods=("shapley", "gradient", "rise"), scores=scores, orders=np.zeros((3, 2, P), np.int32),
        games={"zero": watched}, sizes=(0, P),
    )  # fmt: skip
    numbers = list(metrics.METRICS[name].measure(explained))
    jax.effects_barrier()
    once = sum(asked)
    assert [n.method for n in numbers] == ["shapley", "gradient", "rise"]
    right, wrong = (1.0, 0.9) if name != "infidelity" else (0.0, 1.0)
    assert numbers[0].value == pytest.approx(right, abs=1e-4)
    assert numbers[1].value == pytest.approx(right, abs=1e-4)
    assert numbers[2].value < wrong if name != "infidelity" else numbers[2].value > wrong
    assert once <= metrics.METRICS[name].cost(3, 2, 1) + 7 + 64  # not three times as many: chunks are padded
