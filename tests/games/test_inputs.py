"""What users give for a game of an image: ranges, targets by name, outputs in other things."""

import types
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmoxi as jm
from jaxmoxi.games.outputs import logits_of
from jaxmoxi.models import VisionTransformerConfig
from support.games import vit_classifier

CONFIG = VisionTransformerConfig(
    image_size=24, patch_size=8, hidden_size=32, num_layers=2, num_heads=2, mlp_dim=48, num_classes=5
)
MODEL = vit_classifier(CONFIG)  # its preprocessing makes values from -1 to 1
PHOTO = np.random.default_rng(0).integers(0, 256, (24, 24, 3), np.uint8)
IMAGE = MODEL.preprocess(PHOTO)
REGIONS = jm.grid_regions(24, 24, rows=2, cols=3)
GAME = jm.pixel_value_fn(MODEL.logits, IMAGE, 1, REGIONS)
MAKERS = {
    "pixels": lambda image: jm.pixel_value_fn(MODEL.logits, image, 1, REGIONS),
    "tokens": lambda image: jm.token_value_fn(MODEL, image, 1),
    "value_fns": lambda image: jm.metrics.value_fns(MODEL, image, 1, REGIONS, removals=("mean",)),
    "problem": lambda image: jm.attribution.problem(MODEL, image, 1, REGIONS),
    "problem of a game": lambda image: jm.attribution.problem(MODEL, image, 1, REGIONS, v=GAME),
}


@pytest.mark.parametrize("make", MAKERS)
def test_an_image_of_the_wrong_range_is_warned_of(make):
    for image, words in (
        (
            jnp.asarray(PHOTO, jnp.float32),
            r"values from 0 to 255; this classifier's preprocessing makes values from -1",
        ),
        (jnp.asarray(PHOTO / 255, jnp.float32), r"looks like a photo from 0 to 1 that was not normalised"),
        (
            (jnp.asarray(PHOTO / 255, jnp.float32) - 0.45) / 0.225,
            r"from -2 to 2.444; .* from -1 to 1. Make the image by",
        ),
    ):
        with pytest.warns(UserWarning, match=words) as caught:
            MAKERS[make](image)
        assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        MAKERS[make](IMAGE)
        MAKERS[make](jnp.clip(IMAGE * 1.04, -1.05, 1.05))  # resampling overshoots
        MAKERS[make](jnp.full_like(IMAGE, -1))  # a black photo is one


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_numbers_that_are_none_are_refused(make, value):
    with pytest.raises(ValueError, match="expected an image of finite numbers; 2 of its 1728 are NaN or infinite"):
        MAKERS[make](IMAGE.at[3, 4, :2].set(value))


def test_targets_by_name_and_by_the_models_own_answer():
    top = int(jnp.argmax(MODEL.logits(IMAGE[None])))
    for make in (
        lambda target: jm.pixel_value_fn(MODEL.logits, IMAGE, target, REGIONS),
        lambda target: jm.token_value_fn(MODEL, IMAGE, target),
        lambda target: jm.attribution.problem(MODEL, IMAGE, target, REGIONS),
    ):
        assert int(make("class 3").target) == 3
        assert int(make(None).target) == top
        assert int(make(np.int64(2)).target) == 2
        with pytest.raises(ValueError, match="has no class 'klass 3'.*did you mean 'class 3'"):
            make("klass 3")
    with pytest.raises(ValueError, match="a function of images has no class names; got 'cat'"):
        jm.pixel_value_fn(lambda x: x.mean((1, 2)), IMAGE, "cat", REGIONS)
    traced = jax.jit(lambda image: jm.pixel_value_fn(MODEL.logits, image, None, REGIONS).target)(IMAGE)
    assert int(traced) == top


def test_images_of_any_number_of_channels():
    for channels in (1, 11):
        image = jax.random.normal(jax.random.key(channels), (12, 12, channels))
        weights = jax.random.normal(jax.random.key(7), (channels, 3))
        regions = jm.grid_regions(12, 12, rows=2, cols=2)
        for fill in (0.0, "mean", "blur", list(range(channels)), image[::-1]):
            v = jm.pixel_value_fn(lambda x, w=weights: x.mean((1, 2)) @ w, image, 1, regions, fill=fill)
            assert np.isfinite(v(jnp.ones((1, 4), bool))).all()


LOGITS = jnp.arange(8.0).reshape(2, 4)
HIDDEN = jnp.zeros((2, 5, 4))


@pytest.mark.parametrize(
    "out",
    [
        LOGITS,
        np.asarray(LOGITS),
        {"logits": LOGITS, "probabilities": LOGITS},
        {"last": LOGITS, "hidden": HIDDEN},
        (LOGITS,),
        [HIDDEN, LOGITS],
        types.SimpleNamespace(logits=LOGITS, hidden_states=None),
    ],
)
def test_logits_are_found_in_what_models_return(out):
    np.testing.assert_array_equal(logits_of(out, 2), LOGITS)


@pytest.mark.parametrize(
    ("out", "words"),
    [
        ((LOGITS, LOGITS), r"a tuple of shape \[2, 4\], shape \[2, 4\]"),
        ({"a": LOGITS, "b": LOGITS}, r"a dictionary of 'a': shape \[2, 4\], 'b': shape \[2, 4\]"),
        (LOGITS[0], r"shape \[4\]"),
        (LOGITS[:1], r"shape \[1, 4\]"),
        (HIDDEN, r"shape \[2, 5, 4\]"),
        (None, "NoneType"),
        ("cat", "str"),
        ({}, "a dictionary of nothing"),
        (types.SimpleNamespace(logits=HIDDEN), "SimpleNamespace"),
    ],
)
def test_what_holds_no_logits_is_described(out, words):
    with pytest.raises(
        ValueError, match=rf"returns logits \[B, K\] for 2 images.*; got {words}. Return the logits alone"
    ):
        logits_of(out, 2)


def test_a_model_that_returns_more_than_logits_is_explained():
    weights = jax.random.normal(jax.random.key(1), (3, 4))
    plain = jm.pixel_value_fn(lambda x: x.mean((1, 2)) @ weights, IMAGE, 2, REGIONS)
    wrapped = jm.pixel_value_fn(lambda x: {"logits": x.mean((1, 2)) @ weights, "x": x}, IMAGE, 2, REGIONS)
    np.testing.assert_array_equal(jm.greedy_insertion(plain, 6).values, jm.greedy_insertion(wrapped, 6).values)
    problem = jm.attribution.problem(lambda x: (x.mean((1, 2)) @ weights, x), IMAGE, 2, REGIONS)
    gradient = jm.attribution.METHODS["gradient"].explain(None, problem)
    assert np.isfinite(gradient).all()
