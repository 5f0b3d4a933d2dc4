"""Masks that give the label away are found, and an independent classifier judges what was kept."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmoxi.p2p.inference.leakage import heldout_accuracy, mask_leakage

RNG = np.random.default_rng(0)


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
    with pytest.raises(ValueError, match="num_steps must be at least 1; got 0"):
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
