"""Curves along which players are corrupted: by hand, against the corrupted photos themselves, and in a study."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmoxi as jm
from jaxmoxi.metrics import METRICS, Explained, corrupt, corruption_curve
from support.study import tiny_classifier

KEY = jax.random.key(1)
MODEL = tiny_classifier()
PHOTO = np.random.default_rng(5).integers(0, 256, (16, 16, 3), np.uint8)
REGIONS = jm.grid_regions(16, 16, rows=2, cols=2)


def test_is_the_model_of_photos_whose_first_players_are_corrupted():
    orders = np.array([[2, 0, 3, 1], [1, 3, 0, 2]])
    kinds, severities, sizes = ("contrast", "jpeg"), (2, 5), [0, 1, 3, 4]
    found = corruption_curve(
        KEY, MODEL.logits, PHOTO, 1, REGIONS, orders, kinds=kinds, severities=severities, sizes=sizes
    )
    logits = jax.jit(MODEL.logits)
    for i, order in enumerate(orders):
        for c, kind in enumerate(kinds):
            for s, severity in enumerate(severities):
                photo = np.asarray(corrupt(KEY, PHOTO, kind, severity))  # neither of these kinds draws
                gone = np.stack([np.isin(REGIONS, order[:k]) for k in sizes])[..., None]
                images = jnp.stack([model_image(p) for p in np.where(gone, photo, PHOTO)])
                chances = jax.nn.softmax(logits(images))
                np.testing.assert_allclose(found.probabilities[i, c, s], chances[:, 1], rtol=2e-4, atol=1e-6)
                np.testing.assert_array_equal(found.leads[i, c, s], chances.argmax(1) == 1)
                area = np.trapezoid(chances[:, 1], [0, 0.25, 0.75, 1])
                np.testing.assert_allclose(found.probability_areas[i, c, s], area, rtol=2e-4)
    np.testing.assert_allclose(found.probability_area, found.probability_areas.mean((1, 2)), rtol=1e-6)
    np.testing.assert_allclose(found.shares, [[0, 0.25, 0.75, 1]] * 2)
    assert (found.kinds, found.severities) == (kinds, severities)
    one = corruption_curve(
        KEY, MODEL.logits, PHOTO, 1, REGIONS, orders[1], kinds=["jpeg"], severities=[5], sizes=sizes, payoff="prob"
    )
    np.testing.assert_allclose(one.values[0, 0], found.probabilities[1, 1, 1], rtol=1e-5)
    assert one.probability_area.shape == one.accuracy_area.shape == ()


def model_image(photo):
    from jaxmoxi.models.preprocess import normalize

    return normalize(photo, MODEL.preprocessing)


def test_all_orders_meet_the_same_draws_and_a_function_says_its_own_normalisation():
    def light(images):  # leads where the photo is bright
        return jnp.stack([images.mean((1, 2, 3)), jnp.full(len(images), 0.5)], 1)

    orders = [[0, 1, 2, 3], [3, 2, 1, 0]]
    regions = jm.grid_regions(12, 8, rows=2, cols=2)
    photo = np.float32(np.random.default_rng(0).uniform(0, 255, (12, 8, 1)))
    give = {"kinds": ["gaussian_noise"], "severities": [3], "normalize": lambda photo: photo / 255}
    found = corruption_curve(KEY, light, photo, 0, regions, np.array(orders), **give)
    assert found.values.shape == (2, 1, 1, 5)
    np.testing.assert_allclose(found.values[0, ..., [0, -1]], found.values[1, ..., [0, -1]], rtol=1e-5)
    assert (found.values[0, ..., 1] != found.values[1, ..., 1]).all()
    again = corruption_curve(jax.random.key(2), light, photo, 0, regions, np.array(orders), **give)
    assert (again.values[..., -1] != found.values[..., -1]).all()
    uneven = jnp.zeros((12, 8), jnp.int32).at[:3].set(1)
    for share, wanted in (("pixels", [0, 0.25, 1]), ("players", [0, 0.5, 1])):
        curve = corruption_curve(KEY, light, photo, 0, uneven, np.array([1, 0]), share=share, **give)
        np.testing.assert_allclose(curve.shares, wanted)


def test_the_metric_of_a_study():
    orders = np.tile(np.array([[[0, 1, 2, 3]], [[3, 1, 0, 2]]], np.int32), (1, 2, 1))
    explained = Explained(
        key=KEY, model=MODEL, image=jnp.asarray(model_image(PHOTO)), target=2, regions=REGIONS,
        methods=("moxi", "random"), scores=-orders.astype(np.float32), orders=orders, games={}, sizes=[0, 4],
        photo=PHOTO,
    )  # fmt: skip
    metric = METRICS["corruption"]
    found = list(metric.measure(explained))
    numbers = {(n.method, n.column): n.value for n in found if hasattr(n, "value")}
    assert {column for _, column in numbers} == {column.name for column in metric.columns}
    curves = corruption_curve(KEY, MODEL.logits, PHOTO, 2, REGIONS, orders[:, 1], sizes=[0, 1, 2, 3, 4])
    for i, method in enumerate(explained.methods):
        wanted = float(curves.probability_area[i])
        np.testing.assert_allclose(numbers[method, "corruption probability area"], wanted, rtol=1e-5)
        fog = float(curves.probability_areas[i, curves.kinds.index("fog")].mean())
        np.testing.assert_allclose(numbers[method, "fog"], fog, rtol=1e-5)
    lines = [line for line in found if hasattr(line, "values")]
    assert {(line.method, line.direction, line.quantity) for line in lines} == {
        (m, f"severity {s}", q) for m in explained.methods for s in (1, 3, 5) for q in ("leads", "probabilities")
    }
    assert not metric.by_default


@pytest.mark.usefixtures("unchecked")
def test_errors():
    order = np.arange(4)
    for given, told in (
        ({"kinds": ("snow",)}, "expected kinds among gaussian_noise"),
        ({"kinds": ()}, "expected kinds among"),
        ({"severities": (0,)}, "expected severities among 1, 2"),
        ({"severities": (2, 2)}, "each once"),
        ({"sizes": [2]}, "at least two ascending sizes"),
        ({"sizes": [0, 5]}, r"ascending sizes in 0 .. 4"),
        ({"order": np.array([0, 1, 2, 2])}, "permutation"),
        ({"photo": PHOTO[:12]}, r"of shape \[16, 16, 3\]; got \[12, 16, 3\]: model.crop\(photo\)"),
        ({"photo": model_image(PHOTO)}, "before it is normalised"),
        ({"logits_fn": lambda images: MODEL.logits(images)}, "give normalize="),
    ):
        full = {"logits_fn": MODEL.logits, "photo": PHOTO, "order": order, "kinds": ("contrast",), **given}
        with pytest.raises(ValueError, match=told):
            corruption_curve(KEY, full.pop("logits_fn"), full.pop("photo"), 0, REGIONS, full.pop("order"), **full)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        corruption_curve(
            KEY, MODEL.logits, PHOTO, 0, REGIONS, order, kinds=("contrast",), severities=(1,), sizes=[0, 4]
        )
