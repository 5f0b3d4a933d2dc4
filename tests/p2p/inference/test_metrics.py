"""Measures on cases worked by hand and against brute force; the evaluation against its parts; leaking masks."""

import dataclasses
import importlib
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmoxi import p2p
from jaxmoxi.p2p import metrics
from jaxmoxi.p2p.data import Batch, synthetic_scenes
from jaxmoxi.p2p.inference.evaluation import evaluate
from jaxmoxi.p2p.inference.leakage import heldout_accuracy, mask_leakage
from support.p2p import SMALL_CONFIG as CONFIG
from support.p2p import spread_model

RNG = np.random.default_rng(0)
LEVELS = (0.7, 0.97)
SHARES = (0.0, 0.1, 0.3, 0.6, 1.0)


def brute_auroc(scores, positive):
    pairs = [(p > n) + 0.5 * (p == n) for p in scores[positive] for n in scores[~positive]]
    return np.mean(pairs)


def brute_average_precision(scores, positive):
    total, recall = 0.0, 0.0
    for cut in sorted(set(scores), reverse=True):
        chosen = scores >= cut
        now = (chosen & positive).sum() / positive.sum()
        total += (now - recall) * (chosen & positive).sum() / chosen.sum()
        recall = now
    return total


@pytest.mark.parametrize("distinct", [2, 5, 1000])
@pytest.mark.parametrize("seed", range(3))
def test_areas_by_brute_force(distinct, seed):
    rng = np.random.default_rng(seed)
    scores, positive = rng.integers(0, distinct, 40) / distinct, rng.random(40) < 0.3
    np.testing.assert_allclose(metrics.auroc(scores, positive), brute_auroc(scores, positive), rtol=1e-12)
    np.testing.assert_allclose(
        metrics.average_precision(scores, positive), brute_average_precision(scores, positive), rtol=1e-12
    )


def test_areas_by_hand():
    scores = np.array([0.9, 0.8, 0.7, 0.6])
    assert metrics.auroc(scores, np.array([True, False, True, False])) == 3 / 4
    np.testing.assert_allclose(
        metrics.average_precision(scores, np.array([True, False, True, False])), 1 / 2 + 1 / 2 * 2 / 3
    )
    assert metrics.auroc(np.ones(4), np.array([True, False, False, False])) == 0.5
    assert np.isnan(metrics.auroc(scores, np.zeros(4, bool)))
    assert np.isnan(metrics.average_precision(scores, np.zeros(4, bool)))


def test_counts_are_repeated_items():
    scores, positive, count = np.array([0.3, 0.9, 0.9, 0.1]), np.array([1, 2, 0, 3]), np.array([4, 3, 1, 3])
    each = [(s, i < p) for s, p, c in zip(scores, positive, count, strict=True) for i in range(c)]
    repeated = brute_average_precision(np.array([s for s, _ in each]), np.array([p for _, p in each]))
    np.testing.assert_allclose(metrics.average_precision(scores, positive, count=count), repeated)


def test_macro_leaves_out_what_does_not_occur():
    probabilities, labels = RNG.dirichlet(np.ones(4), 30), RNG.integers(0, 3, 30)  # class 3 never occurs
    for macro, brute in (
        (metrics.macro_auroc, brute_auroc),
        (metrics.macro_average_precision, brute_average_precision),
    ):
        expected = np.mean([brute(probabilities[:, k], labels == k) for k in range(3)])
        np.testing.assert_allclose(macro(probabilities, labels), expected, rtol=1e-12)
    assert np.isnan(metrics.macro_auroc(probabilities, np.zeros(30, int)))


def test_calibration_by_hand():
    # Confidences 0.6 and 0.62 (bin 9 of 15: 0.6 is its upper end in bin 8), 0.95, 0.96 (bin 14).
    probabilities = np.array([[0.62, 0.38], [0.64, 0.36], [0.05, 0.95], [0.04, 0.96]])
    labels = np.array([0, 1, 1, 1])
    expected = 0.5 * abs(0.5 - 0.63) + 0.5 * abs(1 - 0.955)
    np.testing.assert_allclose(metrics.calibration_error(probabilities, labels), expected)
    assert metrics.calibration_error(np.eye(3), np.arange(3)) == 0
    np.testing.assert_allclose(
        metrics.calibration_error(probabilities, labels, num_bins=1), abs(0.75 - np.mean([0.62, 0.64, 0.95, 0.96]))
    )


def test_scores_by_hand():
    probabilities, labels = np.array([[0.7, 0.2, 0.1], [0.5, 0.25, 0.25]]), np.array([0, 2])
    np.testing.assert_allclose(
        metrics.brier_score(probabilities, labels), ((0.09 + 0.04 + 0.01) + (0.25 + 0.0625 + 0.5625)) / 2
    )
    np.testing.assert_allclose(metrics.negative_log_likelihood(probabilities, labels), -np.log(0.7 * 0.25) / 2)
    assert metrics.accuracy(probabilities, labels) == 0.5


def test_localisation_by_hand():
    regions = np.array([[[0, 0, 1], [0, 2, 9]], [[0, 0, 0], [1, 1, 1]], [[0, 0, 0], [1, 1, 1]]])
    objects = np.array([[[1, 0, 1], [1, 0, 0]], [[0, 0, 0], [0, 0, 0]], [[0, 0, 1], [1, 1, 1]]]).astype(bool)
    probs = np.array([[0.9, 0.2, 0.4], [0.9, 0.1, 0.9], [0.3, 0.3, 0.9]], np.float32)
    kept = np.array([[1, 0, 0], [1, 0, 0], [0, 0, 0]]).astype(bool)
    out = metrics.localisation(probs, kept, regions, objects)
    np.testing.assert_allclose(out.precision, [2 / 3, 0, np.nan])
    np.testing.assert_allclose(out.recall, [2 / 3, np.nan, 0])
    np.testing.assert_allclose(out.iou, [2 / 4, 0, 0])
    painted = np.concatenate([probs, np.zeros((3, 7), np.float32)], 1)
    expected = [brute_average_precision(painted[i][regions[i]].ravel(), objects[i].ravel()) for i in (0, 2)]
    np.testing.assert_allclose(out.pixel_ap[[0, 2]], expected)
    assert np.isnan(out.pixel_ap[1])
    levels = metrics.localisation(np.stack([probs, probs]), np.stack([~kept, kept]), regions, objects)
    np.testing.assert_allclose(levels.precision[1], out.precision)
    np.testing.assert_allclose(levels.pixel_ap, [out.pixel_ap, out.pixel_ap])


@pytest.fixture(scope="module")
def model():
    return spread_model()


@pytest.fixture(scope="module")
def data():
    scenes = synthetic_scenes(jax.random.key(0), 10, image_size=32, num_classes=3)
    blocks = np.arange(16).reshape(4, 4).repeat(8, 0).repeat(8, 1).astype(np.int32)
    regions = np.broadcast_to(blocks, (10, 32, 32))
    return Batch(np.asarray(scenes.images), regions, np.asarray(scenes.labels), np.asarray(scenes.objects))


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


def test_fidelity_is_what_one_mask_at_a_time_says(model, data):
    """The published rule, in plain Python."""
    out = p2p.predict(model, data.images, data.regions, certainty=LEVELS, batch_size=4)
    curves = p2p.fidelity(model, data.images, data.regions, out, shares=SHARES, batch_size=4)
    pixels = model.normalize(jnp.asarray(data.images))
    classify = jax.jit(lambda m, x, g, r: m.classify(x, g, r))
    for level in range(2):
        for t, share in enumerate(SHARES):
            shown = {"deletion": np.array(out.group_mask[level]), "insertion": np.array(out.group_mask[level])}
            for i in range(10):
                covered, reached = np.float32(0), False
                for g in np.argsort(-np.asarray(out.group_probs[level, i]), kind="stable"):
                    covered = covered + np.asarray(out.areas)[i, g]
                    if share > 0 and not reached:
                        shown["deletion"][i, g] = False
                    reached = reached or covered >= np.float32(share)
                    if share < 1 and reached:
                        shown["insertion"][i, g] = False
            for name, masks in shown.items():
                answer = classify(model, pixels, jnp.asarray(masks), jnp.asarray(data.regions)).argmax(-1)
                expected = np.mean(answer == out.classes[level])
                np.testing.assert_allclose(getattr(curves, name)[level, t], expected, err_msg=f"{name} {share}")
    assert curves.deletion.min() < 1
    assert curves.insertion.min() < 1


def test_fidelity_classifies_no_mask_twice(model, data, monkeypatch):
    fidelity_module = importlib.import_module("jaxmoxi.p2p.fidelity")  # its function has the same name
    calls = []
    run = fidelity_module._full_batch

    def counting(function, model, size, place, images, masks, regions):
        calls.extend((int(i), masks[0][j].tobytes()) for i, j in zip(images[1], masks[1], strict=True))
        return run(function, model, size, place, images, masks, regions)

    monkeypatch.setattr(fidelity_module, "_full_batch", counting)
    out = p2p.predict(model, data.images, data.regions, certainty=LEVELS, batch_size=4)
    p2p.fidelity(model, data.images, data.regions, out, batch_size=4)
    assert len(calls) == len(set(calls)) > 0
    assert len(calls) < 10 * 2 * 19


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
    out = p2p.predict(model, data.images[:4], data.regions[:4], certainty=LEVELS, batch_size=4)
    with pytest.raises(ValueError, match=r"expected the prediction of these images, pixel_mask bool\[10, 32, 32\]"):
        p2p.fidelity(model, data.images, data.regions, out)


def test_a_planted_leak_is_found():
    labels = RNG.integers(0, 3, 300)
    masks = RNG.random((300, 8, 8)).repeat(4, 1).repeat(4, 2) < 0.3
    blank = mask_leakage(jax.random.key(0), masks, labels, 3, num_steps=150)
    assert abs(blank.accuracy - 1 / 3) < 4 * np.sqrt(2 / 9 / 150)
    assert blank.num_test == 150
    assert 0.2 < blank.majority < 0.45
    for i, label in enumerate(labels):  # the place of one superpixel tells the class
        masks[i, :4, :12] = False
        masks[i, :4, 4 * label : 4 * label + 4] = True
    leak = mask_leakage(jax.random.key(0), masks, labels, 3, num_steps=150)
    assert leak.accuracy > 0.9
    assert leak == mask_leakage(jax.random.key(0), masks, labels, 3, num_steps=150)
    np.testing.assert_allclose(leak.standard_error, np.sqrt(leak.accuracy * (1 - leak.accuracy) / 150))


def test_the_majority_is_of_the_first_half():
    labels = np.repeat([0, 1], [270, 30])
    blank = mask_leakage(jax.random.key(1), RNG.random((300, 16, 16)) < 0.5, labels, 2, num_steps=20)
    assert abs(blank.majority - 0.9) < 0.1


@pytest.mark.usefixtures("unchecked")
def test_masks_that_cannot_be():
    masks, labels = np.zeros((6, 8, 8), bool), np.array([0, 1, 0, 1, 0, 1])
    for change, message in (
        ((masks.astype(float), labels), r"expected masks bool\[N, H, W\] and labels int\[N\], N >= 4; got float64"),
        ((masks[:3], labels[:3]), "N >= 4"),
        ((masks, labels[:5]), "expected masks bool"),
        ((masks, labels + 1), r"expected labels 0 .. 1; got int64 1 .. 2"),
    ):
        with pytest.raises(ValueError, match=message):
            mask_leakage(jax.random.key(0), *change, 2)
    with pytest.raises(ValueError, match="expected num_steps >= 1 and learning_rate > 0; got 0"):
        mask_leakage(jax.random.key(0), masks, labels, 2, num_steps=0)


def test_an_independent_classifier_on_what_was_kept():
    """It compares the mean of the left and of the right half."""

    def logits(images):
        return jnp.stack([images[:, :, :4].mean((1, 2, 3)), images[:, :, 4:].mean((1, 2, 3))], axis=-1)

    labels = np.array([0, 1, 0, 1, 0])
    images = np.zeros((5, 8, 8, 3), np.float32)
    for i, label in enumerate(labels):
        images[i, :, 4 * label : 4 * label + 4] = 1
    whole = np.ones((5, 8, 8), bool)
    assert heldout_accuracy(logits, images, whole, labels, batch_size=2) == 1
    assert heldout_accuracy(logits, images, ~whole, labels) == 0.6  # a draw goes to class 0
    left = whole.copy()
    left[:, :, 4:] = False
    assert heldout_accuracy(logits, images, left, labels, fill=0.5) == 1
    assert heldout_accuracy(logits, images, left, labels, fill=np.array([2.0, 2.0, 2.0])) == 0.4
    for change, message in (
        ({"pixel_mask": whole[:, :4]}, "expected images"),
        ({"labels": labels[:4]}, "expected images"),
        ({"fill": np.zeros(2)}, "expected a fill of one number or three"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
    ):
        arguments = {"images": images, "pixel_mask": whole, "labels": labels} | change
        with pytest.raises(ValueError, match=message):
            heldout_accuracy(logits, **arguments)
