"""Parity with the authors' released code on stored vectors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmoxi as jm
from support.games import golden_classifier, golden_image, golden_models

PAYOFFS = {"modified": "log_odds", "normal": "log_prob", "yi": "logit"}
MODELS = {entry["tag"]: entry for entry in golden_models()}
CASES = [(tag, i) for tag, entry in MODELS.items() for i in range(len(entry["cases"]))]


def game(entry, case):
    model, image = golden_classifier(entry), golden_image(entry)
    payoff = PAYOFFS[case["reward"]]
    if case["masking"] == "vit_embedding":
        return jm.token_value_fn(model, image, entry["label"], payoff=payoff)
    regions = jm.grid_regions(*image.shape[:2], rows=entry["grid"], cols=entry["grid"])
    return jm.pixel_value_fn(model.logits, image, entry["label"], regions, payoff=payoff)


@pytest.mark.parametrize("tag", MODELS)
def test_logits(tag):
    entry = MODELS[tag]
    logits = jax.jit(golden_classifier(entry).logits)(golden_image(entry)[None])[0]
    np.testing.assert_allclose(logits, entry["clean_logits"], atol=1e-4)


@pytest.mark.parametrize(("tag", "index"), CASES)
def test_order_and_values(tag, index):
    entry = MODELS[tag]
    case = entry["cases"][index]
    num_players = entry["grid"] ** 2
    search = jm.greedy_insertion if case["curve"] == "insertion" else jm.greedy_deletion
    result = search(game(entry, case), num_players)
    np.testing.assert_allclose(result.values, case["values"], atol=1e-3)
    np.testing.assert_array_equal(result.order, case["order"])
    assert result.num_evaluations == num_players * (num_players + 1) // 2


@pytest.mark.parametrize("tag", MODELS)
def test_single_players(tag):
    entry = MODELS[tag]
    for case in entry["cases"][:4]:
        v = game(entry, case)
        eye = jnp.eye(entry["grid"] ** 2, dtype=bool)
        masks = eye if case["curve"] == "insertion" else ~eye
        np.testing.assert_allclose(jm.evaluate(v, masks), case["singles"], atol=1e-3)
