"""Measures on cases worked by hand and against brute force."""

import numpy as np
import pytest

from jaxmoxi.p2p import metrics

RNG = np.random.default_rng(0)


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
