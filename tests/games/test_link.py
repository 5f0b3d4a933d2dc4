"""What makes probabilities of a model's answers: one class of K, independent labels, or nothing."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmoxi as jm
from jaxmoxi.games.payoff import answers_class, class_probabilities
from jaxmoxi.models import VisionTransformerConfig
from support.games import every_coalition, vit_classifier

P, K = 6, 5
CONFIG = VisionTransformerConfig(
    image_size=24, patch_size=8, hidden_size=32, num_layers=2, num_heads=2, mlp_dim=48, num_classes=5
)
IMAGE = jax.random.uniform(jax.random.key(0), (8, 8, 3))
REGIONS = jm.grid_regions(8, 8, rows=2, cols=3)
WEIGHTS = 6 * jax.random.normal(jax.random.key(1), (3, K))
MASKS = jnp.asarray(every_coalition(P))


def logits_fn(images):
    return images.mean((1, 2)) @ WEIGHTS - 0.7


def probabilities_fn(images):
    return jax.nn.softmax(logits_fn(images))


@pytest.mark.parametrize("payoff", ["log_odds", "log_prob", "prob", "margin"])
def test_probabilities_are_the_same_game_as_their_logits(payoff):
    ours = jm.pixel_value_fn(logits_fn, IMAGE, 2, REGIONS, payoff=payoff)
    told = jm.pixel_value_fn(probabilities_fn, IMAGE, 2, REGIONS, payoff=payoff, link="probabilities")
    for a, b in zip(ours.readout(MASKS), told.readout(MASKS), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(jm.greedy_insertion(ours, P).order, jm.greedy_insertion(told, P).order)


def test_a_stop_at_a_probability_is_met_by_probabilities():
    def sure(images):
        return jax.nn.softmax(9 * logits_fn(images))

    v = jm.pixel_value_fn(sure, IMAGE, None, REGIONS, link="probabilities")
    r = jm.greedy_insertion(v, P, stop=jm.Stop(probability=0.7))
    assert float(r.probabilities[int(r.num_steps) - 1]) >= 0.7
    whole = v.readout(jnp.ones((1, P), bool)).probabilities[0]
    np.testing.assert_allclose(float(whole), float(sure(IMAGE[None]).max()), rtol=1e-5)


def test_probabilities_that_are_exactly_nought_or_one_stay_finite():
    rows = jnp.asarray([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]])
    for payoff in ("log_odds", "log_prob", "prob", "margin"):
        values = np.asarray(jm.payoff_values(rows, 0, payoff, link="probabilities"))
        assert np.isfinite(values).all()
        assert values[0] > values[2] > values[1]


def test_independent_labels_by_definition():
    logits = np.random.default_rng(0).normal(0, 3, (40, K)).astype(np.float32)
    p = 1 / (1 + np.exp(-logits.astype(np.float64)))
    expected = {"log_odds": np.log(p / (1 - p)), "log_prob": np.log(p), "prob": p, "logit": logits, "margin": logits}
    for payoff, values in expected.items():
        got = jm.payoff_values(jnp.asarray(logits), 3, payoff, link="sigmoid")
        np.testing.assert_allclose(got, values[:, 3], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(answers_class(jnp.asarray(logits), 3, "sigmoid"), p[:, 3] > 0.5)
    np.testing.assert_allclose(class_probabilities(jnp.asarray(logits), "sigmoid"), p, rtol=1e-5)
    assert np.isnan(jm.payoff_values(jnp.asarray(logits), K, "prob", link="sigmoid")).all()


def test_labels_through_stops_curves_and_searches():
    v = jm.pixel_value_fn(logits_fn, IMAGE, None, REGIONS, link="sigmoid", fill=0.0)
    p = 1 / (1 + np.exp(-np.asarray(v.logits(MASKS), np.float64)[:, int(v.target)]))
    out = v.readout(MASKS)
    np.testing.assert_allclose(out.probabilities, p, rtol=1e-5)
    np.testing.assert_array_equal(out.leads, p > 0.5)
    r = jm.greedy_insertion(v, P, stop=jm.Stop(flip=True))
    steps = int(r.num_steps)
    assert bool(r.leads[steps - 1])
    assert float(r.probabilities[steps - 1]) > 0.5
    assert not np.asarray(r.leads[: steps - 1]).any()
    curve = jm.insertion_curve(v, jm.greedy_insertion(v, P).order)
    np.testing.assert_array_equal(curve.leads, np.asarray(curve.probabilities) > 0.5)
    g = jm.search.minimal_group(v, P)
    smallest = min(m.sum() for m, led in zip(np.asarray(MASKS), p > 0.5, strict=True) if led)
    assert int(g.size) == smallest


def test_one_logit_of_yes_or_no():
    def yes(images):
        return logits_fn(images)[:, :1]

    with pytest.raises(ValueError, match=r'got shape \[1, 1\].* yes or no has link="sigmoid"'):
        jm.pixel_value_fn(yes, IMAGE, 0, REGIONS)
    v = jm.pixel_value_fn(yes, IMAGE, 1, REGIONS, link="sigmoid")
    no = jm.pixel_value_fn(yes, IMAGE, 0, REGIONS, link="sigmoid")
    z = np.asarray(v.logits(MASKS)[:, 0], np.float64)
    np.testing.assert_allclose(v(MASKS), z, rtol=1e-6)
    np.testing.assert_allclose(no(MASKS), -z, rtol=1e-6)
    for game, p in ((v, 1 / (1 + np.exp(-z))), (no, 1 / (1 + np.exp(z)))):
        np.testing.assert_allclose(game.readout(MASKS).probabilities, p, rtol=1e-5)
        np.testing.assert_array_equal(game.readout(MASKS).leads, p > 0.5)
    whole = z[int(np.flatnonzero(np.asarray(MASKS).all(1))[0])]
    assert int(jm.pixel_value_fn(yes, IMAGE, None, REGIONS, link="sigmoid").target) == int(whole > 0)
    with pytest.raises(ValueError, match=r"among the 2 classes \(0 .. 1\); got 2"):
        jm.pixel_value_fn(yes, IMAGE, 2, REGIONS, link="sigmoid")


def test_a_classifier_brings_its_link():
    model = dataclasses.replace(vit_classifier(CONFIG), link="sigmoid")
    image = jax.random.uniform(jax.random.key(3), (model.config.image_size,) * 2 + (3,), minval=-1)
    regions = jm.grid_regions(*image.shape[:2], rows=2, cols=3)
    pixels = jm.pixel_value_fn(model.logits, image, 1, regions)
    tokens = jm.token_value_fn(model, image, 1)
    assert pixels.link == tokens.link == "sigmoid"
    assert jm.pixel_value_fn(model.logits, image, 1, regions, link="softmax").link == "softmax"
    whole = 1 / (1 + np.exp(-float(model.logits(image[None])[0, 1])))
    for v, count in ((pixels, 6), (tokens, tokens.num_players)):
        np.testing.assert_allclose(float(v.readout(jnp.ones((1, count), bool)).probabilities[0]), whole, rtol=1e-5)
    problem = jm.attribution.problem(model, image, 1, regions)
    assert problem.link == "sigmoid"
    road = jm.metrics.road_curve(jax.random.key(0), model.logits, image, 1, regions, jnp.arange(6), shares=(0.0,))
    np.testing.assert_allclose(float(road.probabilities[0]), whole, rtol=1e-4)


@pytest.mark.usefixtures("unchecked")
def test_what_is_refused():
    with pytest.raises(ValueError, match="expected a link of softmax, sigmoid, probabilities.*got 'identity'"):
        jm.pixel_value_fn(logits_fn, IMAGE, 0, REGIONS, link="identity")
    with pytest.raises(ValueError, match=r'the payoff "logit" is a model.s own number.*use "log_prob" or "log_odds"'):
        jm.pixel_value_fn(probabilities_fn, IMAGE, 0, REGIONS, link="probabilities", payoff="logit")
    v = jm.pixel_value_fn(probabilities_fn, IMAGE, 0, REGIONS, link="probabilities")
    with pytest.raises(ValueError, match='the payoff "logit"'):
        v.with_payoff("logit")
