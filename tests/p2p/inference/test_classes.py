"""What a model does with each class."""

import numpy as np
import pytest

from jaxmoxi import p2p
from support.sparse import PHOTOS, make_prediction


def part(result, rows):
    return type(result)(**{name: getattr(result, name)[rows] for name in result.__dataclass_fields__})


def test_true_classes_first_and_predicted_ones_where_the_truth_is_not_known():
    result = make_prediction()  # predicted: 1, 0, 1
    true, guessed = p2p.by_class(PHOTOS, result, labels=np.array([1, 1, -1]))
    assert (true.label, true.is_true, true.count, true.accuracy) == (1, True, 2, 0.5)
    assert (guessed.label, guessed.is_true, guessed.count, guessed.accuracy) == (1, False, 1, None)
    assert true.predicted.tolist() == [1, 0]
    masks = np.asarray(result.pixel_mask)
    np.testing.assert_allclose(true.kept_map, masks[:2].mean(0))
    np.testing.assert_allclose(true.shares, masks[:2].mean((1, 2)))
    np.testing.assert_allclose(true.quartiles, np.percentile([0.5, 0.25], (25, 50, 75)))
    np.testing.assert_array_equal(true.photos, PHOTOS[:2])
    np.testing.assert_array_equal(true.masks, masks[:2])
    assert [(s.label, s.is_true, s.count) for s in p2p.by_class(PHOTOS, result)] == [(0, False, 1), (1, False, 2)]


def test_batch_by_batch_is_all_at_once():
    result = make_prediction()
    whole = p2p.by_class(PHOTOS, result, labels=[1, 0, 1], num_examples=1)
    parts = ()
    for i in range(3):
        parts = p2p.by_class(
            PHOTOS[i : i + 1], part(result, slice(i, i + 1)), labels=[[1, 0, 1][i]], num_examples=1, before=parts
        )
    assert [(s.label, s.count) for s in parts] == [(s.label, s.count) for s in whole] == [(0, 1), (1, 2)]
    for one, other in zip(whole, parts, strict=True):
        for name in ("shares", "predicted", "kept_map", "photos", "masks"):
            np.testing.assert_allclose(getattr(one, name), getattr(other, name), rtol=1e-6)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (PHOTOS[:2], None, r"expected images uint8\[B, S, S, 3\] and their prediction"),
        (PHOTOS / 255.0, None, r"expected images uint8\[B, S, S, 3\]"),
        (PHOTOS, [0, 1], r"expected labels int\[3\]"),
        (PHOTOS, [0, 1, 2], "expected labels 0 .. 1, or -1; got 0 .. 2"),
        (PHOTOS, np.array([0.0, 1.0, 1.0]), r"expected labels int\[3\]; got float64"),
    ],
)
def test_what_does_not_fit(images, labels, message):
    with pytest.raises(ValueError, match=message):
        p2p.by_class(images, make_prediction(), labels=labels)
