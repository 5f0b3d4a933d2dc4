"""The evaluation against its parts."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from jaxmoxi import p2p
from jaxmoxi.p2p import metrics
from jaxmoxi.p2p.data import Batch, Loader, scene_source
from jaxmoxi.p2p.inference.evaluation import evaluate
from support.p2p import LEVELS, SHARES, labelled_scenes, spread_model
from support.p2p import SMALL_CONFIG as CONFIG


@pytest.fixture(scope="module")
def model():
    return spread_model()


@pytest.fixture(scope="module")
def data():
    return labelled_scenes()


def split(data, *sizes, masks=True):
    start = 0
    for size in sizes:
        rows = slice(start, start + size)
        yield Batch(data.images[rows], data.regions[rows], data.labels[rows], data.masks[rows] if masks else None)
        start += size


@pytest.fixture(scope="module")
def found(model, data):
    return evaluate(model, split(data, 4, 4, 2), certainty=LEVELS, shares=SHARES, batch_size=4)


def test_the_evaluation_is_its_parts(model, data, found):
    out = p2p.predict(model, data.images, data.regions, certainty=LEVELS, batch_size=4)
    curves = p2p.fidelity(model, data.images, data.regions, out, shares=SHARES, batch_size=4)
    place = metrics.localisation(
        np.asarray(out.group_probs), np.asarray(out.group_mask), np.asarray(data.regions), data.masks
    )
    assert found.num_images == 10
    np.testing.assert_array_equal(found.certainty, LEVELS)
    for level in range(2):
        probabilities = np.asarray(out.probabilities[level])
        assert found.accuracy[level] == np.mean(out.classes[level] == data.labels)
        np.testing.assert_allclose(found.auroc[level], metrics.macro_auroc(probabilities, data.labels), rtol=1e-4)
        np.testing.assert_allclose(
            found.aupr[level], metrics.macro_average_precision(probabilities, data.labels), rtol=1e-4
        )
        np.testing.assert_allclose(found.brier[level], metrics.brier_score(probabilities, data.labels), rtol=1e-4)
        np.testing.assert_allclose(
            found.nll[level], metrics.negative_log_likelihood(probabilities, data.labels), rtol=1e-4
        )
        np.testing.assert_allclose(
            found.calibration_error[level], metrics.calibration_error(probabilities, data.labels), rtol=1e-3
        )
        np.testing.assert_allclose(found.hard_share[level], out.pixel_mask[level].mean(), rtol=1e-5)
        np.testing.assert_allclose(found.soft_share[level], out.soft_share[level].mean(), rtol=1e-5)
        np.testing.assert_allclose(found.threshold[level], out.threshold[level].mean(), rtol=1e-5)
        np.testing.assert_allclose(found.num_evaluations[level], out.num_evaluations[level].mean(), rtol=1e-5)
        for name in metrics.Localisation._fields:
            expected = np.nanmean(getattr(place, name)[level])
            np.testing.assert_allclose(getattr(found, name)[level], expected, rtol=1e-4, err_msg=name)
    assert found.soft_share[0] != found.hard_share[0]
    np.testing.assert_allclose(found.fidelity.deletion, curves.deletion, atol=1e-6)
    np.testing.assert_allclose(found.fidelity.insertion, curves.insertion, atol=1e-6)


@pytest.mark.parametrize("batch_size", [3, 32])
def test_batches_change_nothing(model, data, found, batch_size):
    other = evaluate(model, [data], certainty=LEVELS, shares=SHARES, batch_size=batch_size)
    ours, theirs = found.to_dict(), other.to_dict()
    for name in ours:
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4), ours[name], theirs[name])


def test_a_record_for_json_and_a_table(found):
    record = json.loads(json.dumps(found.to_dict()))
    assert record["certainty"] == [0.7, 0.97]
    assert record["num_images"] == 10
    assert record["accuracy"] == found.accuracy.tolist()
    assert record["fidelity"]["shares"] == list(SHARES)
    assert len(record["fidelity"]["deletion"]) == 2
    lines = found.table().splitlines()
    assert len(lines) == 4
    assert len({line.count("|") for line in lines}) == 1
    cells = dict(zip(*([c.strip() for c in line.split("|")[1:-1]] for line in (lines[0], lines[3])), strict=True))
    assert cells["certainty"] == "0.97"
    assert cells["accuracy %"] == f"{100 * found.accuracy[1]:.1f}"
    assert cells["pixels seen %"] == f"{100 * found.hard_share[1]:.1f}"
    assert cells["on object %"] == f"{100 * found.precision[1]:.1f}"
    missing = dataclasses.replace(found, auroc=np.array([np.nan, 0.5]))
    assert json.loads(json.dumps(missing.to_dict(), allow_nan=False))["auroc"] == [None, 0.5]


def test_without_masks_curves_or_certainties(data):
    fixed = spread_model(dataclasses.replace(CONFIG, dynamic_threshold=False, threshold=0.2), seed=1)
    out = evaluate(fixed, split(data, 4, 4, masks=False), shares=(), batch_size=4)
    assert out.certainty is None
    assert out.precision is None
    assert out.fidelity is None
    assert out.accuracy.shape == (1,)
    assert "object" not in out.table()
    np.testing.assert_allclose(out.threshold, [0.2], rtol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": np.full(4, 3)}, r"expected labels 0 .. 2; got 3 .. 3"),
        ({"labels": np.zeros(3, int)}, r"expected labels int\[4\]; got int64 of shape \[3\]"),
        ({"masks": np.zeros((4, 16, 32), bool)}, r"expected masks bool\[4, 32, 32\]; got bool of shape \[4, 16, 32\]"),
        ({"masks": np.zeros((4, 32, 32))}, r"expected masks bool\[4, 32, 32\]; got float64"),
        ({"images": np.zeros((4, 16, 16, 3), np.uint8)}, r"expected images \[B, 32, 32, 3\]"),
    ],
)
def test_batches_that_cannot_be(model, data, change, message):
    batch = next(split(data, 4))._replace(**change)
    with pytest.raises(ValueError, match=message):
        evaluate(model, [batch], batch_size=4)


def test_settings_that_cannot_be(model, data):
    with pytest.raises(ValueError, match="expected at least one batch to evaluate; got none"):
        evaluate(model, [])
    with pytest.raises(ValueError, match=r"certainty must lie in \(0, 1\]"):
        evaluate(model, [data], certainty=2.0)
    with pytest.raises(ValueError, match=r"expected shares of the area, numbers in \[0, 1\]"):
        evaluate(model, [data], shares=(0.5, 1.5))
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        evaluate(model, [data], batch_size=0)


@pytest.mark.usefixtures("unchecked")
def test_what_is_no_finite_number_of_batches_is_refused(model, data):
    source = scene_source(jax.random.key(0), 8, image_size=32)
    endless = Loader(source, image_size=32, num_groups=16, batch_size=4)
    with pytest.raises(ValueError, match="a Loader to train by goes on for ever"):
        evaluate(model, endless)
    with pytest.raises(ValueError, match="got a source of images: evaluate data.Loader"):
        evaluate(model, source)
    with pytest.raises(ValueError, match=r"expected several batches; got one: evaluate \[batch\]"):
        evaluate(model, data)


def test_masks_weights_and_batch_size_are_checked_of_soft_masks_too(model, data):
    config = dataclasses.replace(CONFIG, masking="soft", dynamic_threshold=False, embedding_size=0)
    soft = p2p.init(jax.random.key(0), config)
    with pytest.raises(ValueError, match=r"expected masks bool\[10, 32, 32\]; got uint8"):
        evaluate(soft, [data._replace(masks=data.masks.astype(np.uint8))])
    whole, parts = (evaluate(soft, [data], shares=(0.2,), batch_size=size) for size in (32, 3))
    assert whole.num_images == parts.num_images == 10
    np.testing.assert_allclose(parts.nll, whole.nll, rtol=1e-5)
    np.testing.assert_allclose(parts.pixel_ap, whole.pixel_ap, rtol=1e-5)
    broken = jax.tree.map(lambda a: a * np.nan, soft)
    with pytest.raises(FloatingPointError, match="answers NaN for image 0; are the model's weights finite"):
        evaluate(broken, [data])
    for whose, name in (("selector", "selector"), ("classifier", "classifier")):
        bad = dataclasses.replace(model, **{name: jax.tree.map(lambda a: a * np.nan, getattr(model, name))})
        with pytest.raises(FloatingPointError, match=f"the {whose} answers NaN for image"):
            p2p.predict(bad, data.images, data.regions)
