"""Integrated gradients: as many steps as completeness asks for, and a word where they are too few."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmoxi as jm
from jaxmoxi.attribution import integrated_gradients, path_attribution, problem
from jaxmoxi.metrics import METRICS, Explained

IMAGE = jnp.asarray(np.random.default_rng(0).uniform(0.2, 1, (6, 6, 3)), jnp.float32)
GRID = jm.grid_regions(6, 6, rows=2, cols=3)


def steep(images):
    """A class that is decided within a hundredth of the line: what 50 steps cannot follow."""
    height = images.mean((1, 2, 3))
    step = 8 * jax.nn.sigmoid((height - 0.5 * IMAGE.mean()) * 400)
    return jnp.stack([step, jnp.zeros_like(step)], axis=1)


def make(logits_fn=steep):
    return problem(logits_fn, IMAGE, 0, GRID)


def test_fifty_steps_are_too_few_and_it_is_said():
    with pytest.warns(UserWarning, match=r"of 7 steps sum to .*, where the payoff changes by 8.*auto"):
        integrated_gradients(None, make(), num_steps=7, payoff="logit")
    found = path_attribution(make(), num_steps=7, payoff="logit")
    assert abs(float(found.gap)) > 0.2 * float(found.change)


@pytest.mark.parametrize("payoff", ["logit", "log_odds", "margin", "prob"])
def test_auto_takes_as_many_steps_as_completeness_asks_for(payoff):
    found = path_attribution(make(), payoff=payoff)
    ends = jm.payoff_values(steep(jnp.stack([0 * IMAGE, IMAGE])), 0, payoff)
    assert float(found.change) == pytest.approx(float(ends[1] - ends[0]), rel=1e-5)
    assert abs(float(found.gap)) <= 0.05 * abs(float(found.change))
    assert int(found.num_steps) > 32
    np.testing.assert_allclose(found.pixels.sum(), found.change + found.gap, rtol=1e-4)
    np.testing.assert_allclose((np.asarray(found.scores) * 6).sum(), found.pixels.sum(), rtol=1e-4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(integrated_gradients(None, make(), payoff=payoff), found.scores)


def test_smooth_networks_cost_few_steps_and_no_batch_changes_them():
    weights = jax.random.normal(jax.random.key(0), (3, 2))
    linear = make(lambda images: images.mean((1, 2)) @ weights)
    found = path_attribution(linear, payoff="logit")
    assert int(found.num_steps) == 32
    assert abs(float(found.gap)) < 1e-5
    expected = np.asarray(IMAGE) * np.asarray(weights)[:, 0] / 36
    np.testing.assert_allclose(found.pixels, expected.sum(-1), atol=1e-6)
    for batch_size in (1, 5, 64):
        again = path_attribution(make(), payoff="logit", batch_size=batch_size)
        np.testing.assert_allclose(again.pixels, path_attribution(make(), payoff="logit").pixels, rtol=1e-3, atol=1e-4)


def test_where_auto_does_not_get_there_it_says_so():
    def wall(images):
        step = 8.0 * (images.mean((1, 2, 3)) > 0.5 * IMAGE.mean())
        return jnp.stack([step + 0 * images.sum((1, 2, 3)), 0 * images.sum((1, 2, 3))], axis=1)

    with pytest.warns(UserWarning, match="of 1024 steps sum to 0, where the payoff changes by 8.*Raise max_steps"):
        integrated_gradients(None, make(wall), payoff="logit")
    assert int(path_attribution(make(wall), max_steps=64, payoff="logit").num_steps) == 64


def test_inside_jit_a_number_is_asked_for():
    explained = make()
    with pytest.raises(ValueError, match='num_steps="auto" decides on the host: inside jit and vmap give a number'):
        jax.jit(lambda p: integrated_gradients(None, p))(explained)
    got = jax.jit(lambda p: integrated_gradients(None, p, num_steps=64))(explained)
    np.testing.assert_allclose(got, path_attribution(explained, num_steps=64).scores, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="completeness gap: call it outside jit"):
        jax.jit(lambda p: path_attribution(p, num_steps=4).scores)(explained)


@pytest.mark.usefixtures("unchecked")
def test_what_is_refused():
    for options, words in (
        (dict(num_steps="many"), "at least 1, or \"auto\".*got 'many' and 8"),
        (dict(tolerance=0.0), "a tolerance above 0"),
        (dict(max_steps=8), "max_steps of at least 32; got 0.05 and 8"),
    ):
        with pytest.raises(ValueError, match=words):
            path_attribution(make(), **options)


@pytest.mark.usefixtures("unchecked")
def test_a_study_says_the_gap():
    explained = make()
    scores = np.stack([np.asarray(path_attribution(explained).scores), np.zeros(6), np.arange(6.0)]).astype(np.float32)
    names = ("integrated-gradients", "shapley", "rise")
    numbers = list(
        METRICS["completeness"].measure(
            Explained(
                key=jax.random.key(0), model=steep, image=IMAGE, target=0, regions=GRID, methods=names,
                scores=np.stack([scores, scores], 1), orders=np.zeros((3, 2, 6), np.int32), games={}, sizes=(0, 6),
                problem=explained,
            )
        )
    )  # fmt: skip
    assert [n.method for n in numbers] == ["integrated-gradients", "shapley"]  # the others promise no sum
    assert numbers[0].value < 0.05
    assert numbers[1].value == pytest.approx(1)
