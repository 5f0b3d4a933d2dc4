"""Attacks within the first players of an order, on functions whose best attack is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmoxi as jm
from jaxmoxi.metrics import METRICS, Explained, adversarial_curve
from support.study import tiny_classifier

REGIONS = jm.grid_regions(4, 6, rows=2, cols=3)  # six players of four pixels
WEIGHTS = jnp.array([8.0, 1.0, 1.0, 1.0, 1.0, 1.0])[REGIONS][..., None] / 24
IMAGE = jnp.full((4, 6, 1), 0.7)


def light(images):
    """Logits 10 * (weighted light - 5 / 3), 0: at most 13 / 6 of light, and 1.52 in the image."""
    return jnp.stack([10 * ((images * WEIGHTS).sum((1, 2, 3)) - 1), jnp.zeros(len(images))], 1)


def test_a_linear_model_is_attacked_as_well_as_can_be():
    order = np.arange(6)
    found = adversarial_curve(light, IMAGE, 0, REGIONS, order, bounds=(0, 1))
    left = 0.7 * (13 - np.array([0, 8, 9, 10, 11, 12, 13])) / 6
    np.testing.assert_allclose(found.log_odds, 10 * (left - 1), atol=1e-4)  # the patch is black
    np.testing.assert_array_equal(found.leads, left > 1)
    np.testing.assert_allclose(found.probabilities, jax.nn.sigmoid(10 * (left - 1)), atol=1e-5)
    assert int(found.smallest) == 1
    np.testing.assert_allclose(found.area, 0.5 / 6, rtol=1e-5)
    both = adversarial_curve(light, IMAGE, 0, REGIONS, np.stack([order, order[::-1]]), bounds=(0, 1), batch_size=3)
    np.testing.assert_allclose(both.log_odds[0], found.log_odds, atol=1e-5)
    assert both.smallest.tolist() == [1, 5]
    assert both.area[0] < both.area[1]
    brief = adversarial_curve(light, IMAGE, 0, REGIONS, order, bounds=(0, 1), steps=2, step_size=0.1, sizes=[0, 6])
    np.testing.assert_allclose(brief.log_odds, [10 * (0.7 * 13 / 6 - 1), 10 * (0.5 * 13 / 6 - 1)], rtol=1e-4)
    none = adversarial_curve(light, IMAGE, 0, REGIONS, order[::-1], bounds=(0, 1), sizes=[0, 1, 2])
    assert int(none.smallest) == 3
    assert float(none.area) == 1


def test_the_best_step_counts_and_certain_models_are_attacked():
    def valley(images):  # certain of its class but in a narrow valley, which the last steps have left again
        level = images.mean((1, 2, 3))
        return jnp.stack([200 * jnp.abs(level - 0.45), jnp.zeros(len(images))], 1) + jnp.array([-5.0, 0.0])

    found = adversarial_curve(valley, IMAGE, 0, REGIONS, np.arange(6), bounds=(0, 1), sizes=[0, 6], step_size=0.25)
    np.testing.assert_allclose(found.log_odds, [200 * 0.25 - 5, -5], atol=1e-2)
    assert found.leads.tolist() == [True, False]


def test_a_classifier_knows_its_bounds_and_the_metric_measures():
    model = tiny_classifier()
    photo = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    image, regions = model.preprocess(photo), jm.grid_regions(16, 16, rows=2, cols=4)
    target = int(jax.jit(model.logits)(image[None]).argmax())
    orders = np.stack([np.arange(8), np.arange(8)[::-1]]).astype(np.int32)
    found = adversarial_curve(model.logits, image, target, regions, orders, sizes=[0, 1, 2, 4])
    assert (np.diff(np.asarray(found.log_odds[:, [0, 3]])) < 0).all()
    whole = jm.evaluate(jm.pixel_value_fn(model.logits, image, target, regions), jnp.ones((1, 8), bool))
    np.testing.assert_allclose(found.log_odds[:, 0], np.repeat(whole, 2), rtol=1e-4)
    explained = Explained(
        key=jax.random.key(0), model=model, image=image, target=target, regions=regions, methods=("moxi", "random"),
        scores=-orders[:, None].repeat(2, 1).astype(np.float32), orders=orders[:, None].repeat(2, 1), games={},
        sizes=[0, 8],
    )  # fmt: skip
    numbers = {(n.method, n.column): n.value for n in METRICS["adversarial"].measure(explained)}
    assert numbers["moxi", "accuracy under attack"] == pytest.approx(float(found.area[0]), abs=1e-5)
    assert set(numbers) == {(m, c.name) for m in explained.methods for c in METRICS["adversarial"].columns}


@pytest.mark.usefixtures("unchecked")
def test_errors():
    order = np.arange(6)
    for given, told in (
        ({"bounds": None}, r"give bounds=\(lowest, highest\)"),
        ({"bounds": (1, 0)}, "the first lower"),
        ({"bounds": (0, 0.5)}, "within the bounds; got values from 0.7"),
        ({"bounds": 3}, r"expected bounds="),
        ({"steps": 0}, "at least 1 step"),
        ({"step_size": 2.0}, r"a size in \(0, 1\]"),
        ({"sizes": [3, 1]}, "ascending sizes in 0 .. 6"),
        ({"batch_size": 0}, "batch_size"),
    ):
        with pytest.raises(ValueError, match=told):
            adversarial_curve(light, IMAGE, 0, REGIONS, order, **{"bounds": (0, 1), **given})
    with pytest.raises(ValueError, match="an order of the 6 regions; got one of 5"):
        adversarial_curve(light, IMAGE, 0, REGIONS, np.arange(5), bounds=(0, 1))
    with pytest.raises(ValueError, match="has no gradient"):
        adversarial_curve(light, jnp.ones((4, 6, 1), jnp.uint8), 0, REGIONS, order, bounds=(0, 255))
    host = jm.from_callable(lambda images: np.asarray(light(images)), 2, channels_first=False)
    with pytest.raises(ValueError, match="adversarial_curve needs the gradient"):
        adversarial_curve(host, IMAGE, 0, REGIONS, order, bounds=(0, 1))

    def broken(images):  # where a pixel is black
        return light(images) + jnp.where(images.min((1, 2, 3)) <= 0, jnp.nan, 0.0)[:, None]

    with pytest.raises(FloatingPointError, match="in an attack on 1 of the players"):
        adversarial_curve(broken, IMAGE, 0, REGIONS, order, bounds=(0, 1))
