"""Images of another range than the model's are refused, with what came and what to do."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from jaxmoxi import p2p
from jaxmoxi.errors import InputError
from jaxmoxi.p2p.ranges import check_range, check_same_classes
from support.p2p import SMALL_CONFIG, labelled_scenes, spread_model

BATCH = labelled_scenes()
UNIT = (BATCH.images / 255).astype(np.float32)
MEAN, STD = (np.array(x, np.float32) for x in (SMALL_CONFIG.mean, SMALL_CONFIG.std))
ONE_NAN, ONE_INFINITE = UNIT.copy(), UNIT.copy()
ONE_NAN[3, 1, 2, 0], ONE_INFINITE[0, 0, 0, 0] = np.nan, np.inf

WRONG = {
    "pixels": (
        UNIT * 255,
        r"float32 from 0 to 25\d.*, with 0 of 30720 numbers NaN or infinite: convert pixels of 0 to 255",
    ),
    "normalised": ((UNIT - MEAN) / STD, "from -.* do not normalise them"),
    "of -1 to 1": (UNIT * 2 - 1, "do not normalise them"),
    "pixels as float16": ((UNIT * 255).astype(np.float16), "float16 from 0 to .* convert pixels"),
    "NaN": (ONE_NAN, ", with 1 of 30720 numbers NaN or infinite: find where"),
    "infinite": (ONE_INFINITE, ", with 1 of 30720 numbers NaN or infinite: find where"),
    "all NaN": (np.full_like(UNIT, np.nan), "from nan to nan, with 30720 of"),
    "resized with overshoot": (UNIT * 1.1 - 0.05, "clip them to"),
    "on the device": (jnp.asarray(UNIT * 255), "convert pixels"),
}


@pytest.fixture(scope="module")
def model():
    return spread_model()


@pytest.fixture(scope="module")
def prediction(model):
    return p2p.predict(model, BATCH.images, BATCH.regions)


@pytest.mark.parametrize(("images", "message"), WRONG.values(), ids=WRONG)
def test_every_door_refuses_them(model, prediction, images, message):
    good = BATCH._replace(images=images)
    doors = {
        "predict": lambda: p2p.predict(model, images, BATCH.regions),
        "evaluate": lambda: p2p.evaluate(model, [good]),
        "fidelity": lambda: p2p.fidelity(model, images, BATCH.regions, prediction),
        "normalize": lambda: model.normalize(images),
    }
    for name, door in doors.items():
        with pytest.raises(InputError, match=f"expected images as uint8, or as floats in .0, 1.; got .*{message}"):
            assert door() is name


@pytest.mark.usefixtures("unchecked")
def test_integers_are_refused(model):
    for dtype in (np.int32, np.int64, bool):
        with pytest.raises(InputError, match=f"uint8 images, or float ones in .0, 1.; got {np.dtype(dtype)} as images"):
            p2p.predict(model, BATCH.images.astype(dtype), BATCH.regions)


def test_what_is_right_passes_in_silence(recwarn):
    for dtype in (np.float16, np.float32, np.float64, ml_dtypes.bfloat16):
        check_range(UNIT.astype(dtype))
    check_range(np.ones((1, 2, 2, 3), ml_dtypes.bfloat16))
    check_range(BATCH.images)
    check_range(np.zeros((1, 8, 8, 3), np.uint8))  # a black image is one
    check_range(np.zeros((1, 8, 8, 3), np.float32))
    assert not recwarn.list


def test_images_that_are_almost_black_are_told():
    with pytest.warns(UserWarning, match="images are uint8 of 0 and 1 alone, which is almost black"):
        check_range((BATCH.images > 128).astype(np.uint8))
    with pytest.warns(UserWarning, match="images are at most 0.0039, which is almost black: .* divided by 255 twice"):
        check_range(UNIT / 255)


def test_under_jit_nothing_can_be_looked_at(model):
    pixels = UNIT[:1] * 255
    assert jax.jit(model.normalize)(pixels).shape == pixels.shape


def test_weights_that_are_not_finite_are_no_answer(model):
    broken = p2p.P2P(model.selector, jax.tree.map(lambda x: x * np.nan, model.classifier), model.config)
    with pytest.raises(
        FloatingPointError, match="the classifier answers NaN for image 0; are the model's weights finite"
    ):
        p2p.predict(broken, BATCH.images, BATCH.regions)


def test_an_answer_depends_on_no_other_row_and_moves_no_statistics():
    """BatchNorm stands in the selector: in training mode the answers would depend on the batch."""
    model = p2p.init(jax.random.key(0), SMALL_CONFIG)
    before = jax.tree.map(np.array, model)
    together = p2p.predict(model, BATCH.images, BATCH.regions)
    again = p2p.predict(model, BATCH.images, BATCH.regions)
    np.testing.assert_array_equal(together.logits, again.logits)
    for i in (0, 7):
        alone = p2p.predict(model, BATCH.images[i : i + 1], BATCH.regions[i : i + 1])
        np.testing.assert_allclose(alone.logits[0], together.logits[i], atol=1e-5)
        np.testing.assert_array_equal(alone.group_mask[0], together.group_mask[i])
    for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(model), strict=True):
        np.testing.assert_array_equal(a, b)


def test_other_classes_are_refused_by_name():
    check_same_classes(("a", "b"), ("a", "b"), "test")
    check_same_classes(None, ("a", "b"), "test")
    with pytest.raises(InputError, match="the test data has other classes than the data to train on, without b: its"):
        check_same_classes(("a", "b", "c"), ("a", "c"), "test")
    with pytest.raises(InputError, match="without b and with d"):
        check_same_classes(("a", "b"), ("a", "d"), "test")
    with pytest.raises(InputError, match="in another order"):
        check_same_classes(("a", "b"), ("b", "a"), "test")
