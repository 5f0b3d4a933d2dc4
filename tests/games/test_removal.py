from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest

import jaxmoxi as jm
from jaxmoxi import search
from jaxmoxi.metrics import value_fns
from jaxmoxi.models.networks.vit import VisionTransformerConfig
from support.games import vit_classifier
from support.search import tiny_model


def mean_logits(images):
    means = images.mean((1, 2))
    return means @ jnp.array([[1.0, 0.0], [0.0, 2.0], [3.0, 0.5]])


def test_each_removal_is_its_game():
    config = VisionTransformerConfig(
        image_size=8, patch_size=4, hidden_size=8, num_layers=1, num_heads=2, mlp_dim=8, num_classes=3
    )
    model = vit_classifier(config)
    image = jnp.asarray(np.random.default_rng(0).normal(size=(8, 8, 3)), jnp.float32)
    regions = jm.grid_regions(8, 8, rows=2, cols=2)
    masks = np.array([[True, False, True, False], [False] * 4, [True] * 4])
    games = value_fns(model, image, 1, regions, payoff="log_prob")
    assert list(games) == ["tokens", "zero", "mean", "blur"]
    expected = {
        "tokens": jm.token_value_fn(model, image, 1, payoff="log_prob"),
        "zero": jm.pixel_value_fn(model.logits, image, 1, regions, payoff="log_prob"),
        "mean": jm.pixel_value_fn(model.logits, image, 1, regions, fill=image.mean((0, 1)), payoff="log_prob"),
        "blur": jm.pixel_value_fn(model.logits, image, 1, regions, fill=jm.blur_image(image), payoff="log_prob"),
    }
    values = {name: np.asarray(jm.evaluate(v, masks)) for name, v in games.items()}
    for name, v in expected.items():
        np.testing.assert_allclose(values[name], jm.evaluate(v, masks), rtol=1e-5)
    whole = [v[2] for v in values.values()]
    np.testing.assert_allclose(whole, whole[0], rtol=1e-4)  # nothing hidden, nothing to remove
    assert len({round(float(v[0]), 4) for v in values.values()}) == 4


def test_a_function_of_images_by_hand():
    image = jnp.zeros((2, 2, 3)).at[0].set(2.0)
    regions = jnp.array([[0, 0], [1, 1]])
    games = value_fns(mean_logits, image, 0, regions, removals=["mean", "zero"], payoff="logit")
    assert list(games) == ["mean", "zero"]
    below = jnp.array([[False, True]])
    assert float(jm.evaluate(games["zero"], below)[0]) == 0
    assert float(jm.evaluate(games["mean"], below)[0]) == 2  # half the pixels at the mean colour, 1; weights 1, 0, 3


@pytest.mark.usefixtures("unchecked")
def test_errors():
    image, regions = jnp.zeros((2, 2, 3)), jnp.array([[0, 0], [1, 1]])
    with pytest.raises(
        ValueError, match=r"this model has no tokens; leave it out: removals=\('zero', 'mean', 'blur'\)"
    ):
        value_fns(mean_logits, image, 0, regions)
    for wrong in (["grey"], [], "zero"):
        with pytest.raises(ValueError, match="a sequence of removals among tokens, zero, mean, blur; got"):
            value_fns(mean_logits, image, 0, regions, removals=wrong)
    with pytest.raises(ValueError, match="each of the removals once; got"):
        value_fns(mean_logits, image, 0, regions, removals=["zero", "zero"])


@pytest.fixture(scope="module")
def tiny():
    return tiny_model()


class Convolutional(NamedTuple):
    logits: Any
    token_grid: None = None


@pytest.mark.parametrize("tokens", [True, False])
def test_alternatives_are_other_fills_and_shifts(tokens, tiny):
    classifier, image = tiny
    model, regions = classifier if tokens else Convolutional(classifier.logits), jm.grid_regions(32, 32, rows=4, cols=4)
    games = search.alternatives(model, image, 1, regions, fills=("mean",), shift=2)
    mask = jnp.asarray(np.random.default_rng(0).random((1, 16)) < 0.5)
    want = [jm.pixel_value_fn(model.logits, image, 1, regions, fill="mean")]
    for axis in (0, 1):
        for step in (-2, 2):
            moved = jnp.roll(image, step, axis)
            pixels = jm.pixel_value_fn(model.logits, moved, 1, regions, fill="mean")
            want.append(jm.token_value_fn(model, moved, 1, regions) if tokens else pixels)
    np.testing.assert_allclose([float(g(mask)[0]) for g in games], [float(w(mask)[0]) for w in want], rtol=1e-5)
    assert len(search.alternatives(model, image, 1, regions, shift=0)) == 2
    raised = search.alternatives(model, image, 1, regions, fills=("mean",), shift=0, payoff="prob")
    want = jm.pixel_value_fn(model.logits, image, 1, regions, fill="mean", payoff="prob")
    np.testing.assert_allclose(raised[0](mask), want(mask), rtol=1e-5)
    with pytest.raises(ValueError, match="expected a shift of whole pixels, from 0 to less than 16; got 16"):
        search.alternatives(model, image, 1, regions, shift=16)
