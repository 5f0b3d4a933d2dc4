"""A head restricted to some of its classes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmoxi as jm
from support.study import CLASSES, tiny_classifier

MODEL = tiny_classifier()
LOGITS = jax.jit(jm.models.Classifier.logits)
IMAGE = jnp.asarray(np.random.default_rng(0).normal(size=(16, 16, 3)), jnp.float32)


def test_keeps_the_logits_of_its_classes_everywhere():
    few = jm.models.restrict(MODEL, ["blue", 0])
    assert few.class_names == ("blue", "red")
    assert few.restriction == jm.models.Restriction((2, 0), CLASSES)
    whole = LOGITS(MODEL, IMAGE[None])
    np.testing.assert_allclose(LOGITS(few, IMAGE[None]), whole[:, [2, 0]], rtol=1e-5)
    again = jax.jit(lambda model, images: model.classify(model.features(images)))(few, IMAGE[None])
    np.testing.assert_allclose(again, whole[:, [2, 0]], rtol=1e-5)
    regions = jm.grid_regions(16, 16, rows=2, cols=2)
    masks = jnp.asarray(np.random.default_rng(1).random((5, 4)) < 0.6)
    for few_game, game in (
        (jm.token_value_fn(few, IMAGE, "red", regions), jm.token_value_fn(MODEL, IMAGE, 0, regions)),
        (jm.pixel_value_fn(few.logits, IMAGE, 1, regions), jm.pixel_value_fn(MODEL.logits, IMAGE, 0, regions)),
    ):
        shown = jax.jit(type(game).logits)(game, masks)
        chances = jax.nn.softmax(shown[:, jnp.array([2, 0])])[:, 1]  # among the two
        np.testing.assert_allclose(jm.readouts(few_game, masks).probabilities, chances, rtol=1e-4)
    assert few.astype("bfloat16").class_names == few.class_names


def test_restricts_further_and_not_at_all():
    few = jm.models.restrict(jm.models.restrict(MODEL, [3, 1, 0]), [2, 0])
    assert few.restriction == jm.models.Restriction((0, 3), CLASSES)
    assert few.class_names == ("red", "grey")
    np.testing.assert_allclose(LOGITS(few, IMAGE[None]), LOGITS(MODEL, IMAGE[None])[:, [0, 3]], rtol=1e-5)
    assert jm.models.restrict(MODEL, range(4)) is MODEL
    with pytest.raises(ValueError, match="has no class 'blue' among its 2"):
        jm.models.restrict(few, ["blue"])


@pytest.mark.usefixtures("unchecked")
def test_errors():
    for classes, told in (
        ([1], "at least 2 classes to choose between; got 1"),
        ([], "at least 2"),
        ([1, "green"], r"each class once; got 1 \(green\) again"),
        ([0, 9], "class index from 0 to 3; got 9"),
        ([0, 1.5], "by index or name"),
        ([True, False], "by index or name"),
        ("red", "several classes; got 'red'"),
    ):
        with pytest.raises(ValueError, match=told):
            jm.models.restrict(MODEL, classes)
