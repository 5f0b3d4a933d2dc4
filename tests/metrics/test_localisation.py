import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmoxi as jm
from jaxmoxi.metrics import box_mask, crop_boxes, energy_inside, iou, pointing_game
from jaxmoxi.models.preprocess import Preprocessing, crop_photo
from jaxmoxi.p2p import metrics as p2p_metrics

QUARTERS = jm.grid_regions(4, 4, rows=2, cols=2)  # players 0 1 above 2 3, four pixels each
LEFT = box_mask(4, 4, np.array([[0.0, 0.0, 2.0, 4.0]]))  # players 0 and 2
CORNER = box_mask(4, 4, np.array([[0.0, 0.0, 1.0, 2.0]]))  # half of player 0


def test_pointing_game_by_hand():
    assert float(pointing_game(jnp.array([1.0, 3.0, 2.0, 0.0]), QUARTERS, LEFT)) == 0
    assert float(pointing_game(jnp.array([1.0, 0.0, 2.0, 0.0]), QUARTERS, LEFT)) == 1
    assert float(pointing_game(jnp.array([4.0, 3.0, 2.0, 0.0]), QUARTERS, CORNER)) == 0.5
    assert float(pointing_game(jnp.array([2.0, 2.0, 2.0, 2.0]), QUARTERS, CORNER)) == 2 / 16
    pixels = jnp.arange(16).reshape(4, 4)
    assert float(pointing_game(jnp.zeros(16).at[5].set(1), pixels, LEFT)) == 1


def test_energy_by_hand():
    np.testing.assert_allclose(energy_inside(jnp.array([3.0, 1.0, -5.0, 0.0]), QUARTERS, LEFT), 3 / 4, rtol=1e-6)
    np.testing.assert_allclose(energy_inside(jnp.array([3.0, 1.0, -5.0, 0.0]), QUARTERS, CORNER), 3 / 8, rtol=1e-6)
    np.testing.assert_allclose(energy_inside(jnp.full(4, 1e37), QUARTERS, LEFT), 1 / 2)
    # Regions of 2 and 14 pixels with equal scores: mass goes by area.
    regions = jnp.where(CORNER, 0, 1)
    np.testing.assert_allclose(energy_inside(jnp.array([1.0, 1.0]), regions, CORNER), 2 / 16)
    assert np.isnan(energy_inside(-jnp.ones(4), QUARTERS, LEFT))


def test_iou_by_hand():
    scores = jnp.array([4.0, 3.0, 2.0, 1.0])
    np.testing.assert_allclose(iou(scores, QUARTERS, LEFT), 4 / 12, rtol=1e-6)  # players 0, 1 against 0, 2
    assert float(iou(jnp.array([4.0, 1.0, 3.0, 2.0]), QUARTERS, LEFT)) == 1
    assert float(iou(scores, QUARTERS, LEFT, share=0.25)) == 0.5
    assert float(iou(scores, QUARTERS, LEFT, share=1.0)) == 0.5
    assert float(iou(scores, QUARTERS, LEFT, share=0.1)) == 0  # less than half a region: nothing
    # The object's two pixels are half of player 0, which half a player rounds up to.
    assert float(iou(scores, QUARTERS, CORNER)) == 0.5


def test_iou_is_p2ps():
    rng = np.random.default_rng(0)
    regions = rng.integers(0, 6, (9, 11)).astype(np.int32)
    mask = rng.random((9, 11)) < 0.3
    scores = rng.random(6).astype(np.float32)
    for count in range(1, 7):
        kept = np.argsort(np.argsort(-scores)) < count
        found = iou(scores, regions, mask, share=float(kept[regions].mean()))
        other = p2p_metrics.localisation(scores[None], kept[None], regions[None], mask[None])
        np.testing.assert_allclose(found, other.iou[0], rtol=1e-6)


@pytest.mark.parametrize("measure", [pointing_game, energy_inside, iou])
def test_eager_is_jit_is_vmap_and_nan_without_an_object(measure):
    scores = jnp.asarray(np.random.default_rng(3).normal(size=(3, 4)), jnp.float32).at[:, 0].set(1.0)
    masks = jnp.stack([LEFT, CORNER, jnp.zeros((4, 4), bool)])
    eager = jnp.stack([measure(s, QUARTERS, m) for s, m in zip(scores, masks, strict=True)])
    batched = jax.jit(jax.vmap(measure, in_axes=(0, None, 0)))(scores, QUARTERS, masks)
    np.testing.assert_allclose(eager, batched, rtol=1e-6)
    assert np.isnan(eager).tolist() == [False, False, True]
    assert eager.dtype == jnp.float32


def test_boxes_by_hand():
    mask = box_mask(3, 5, np.array([[0.4, 0.0, 2.6, 1.0], [3.5, 1.5, 5.0, 3.0]]))
    expected = [[1, 1, 1, 0, 0], [0, 0, 0, 1, 1], [0, 0, 0, 1, 1]]
    np.testing.assert_array_equal(mask, np.array(expected, bool))
    assert not box_mask(3, 5, np.zeros((0, 4))).any()
    boxes = jnp.array([[[0.0, 0.0, 1.0, 1.0]], [[1.0, 1.0, 5.0, 3.0]]])
    batched = jax.jit(jax.vmap(lambda b: box_mask(3, 5, b)))(boxes)
    np.testing.assert_array_equal(batched, jnp.stack([box_mask(3, 5, b) for b in boxes]))


def test_crop_boxes_by_hand():
    # 40 x 20 (height x width) becomes 20 x 10 by its short side, of which rows 5 .. 14 remain.
    p = Preprocessing(resize=10, crop=(10, 10))
    boxes = np.array([[2.0, 12.0, 8.0, 20.0], [0.0, 0.0, 20.0, 40.0], [0.0, 0.0, 4.0, 4.0]])
    found = crop_boxes(boxes, (40, 20), p)
    assert found.tolist() == [[1, 1, 4, 5], [0, 0, 10, 10], [0, 0, 2, 0]]
    assert found.dtype == np.float32
    squashed = crop_boxes(boxes[:1], (40, 20), Preprocessing(resize=(10, 40)))
    assert squashed.tolist() == [[4, 3, 16, 5]]


@pytest.mark.parametrize("crop_rounding", ["down", "even"])
@pytest.mark.parametrize(
    ("size", "resize", "crop"),
    [((91, 64), 37, (32, 32)), ((64, 91), 37, (32, 32)), ((64, 64), (50, 43), (32, 30)), ((47, 53), None, (40, 40)),
     ((30, 50), (33, 61), None)],
)  # fmt: skip
def test_boxes_move_as_the_photo_does(size, resize, crop, crop_rounding):
    p = Preprocessing(resize=resize, crop=crop, resample=4, crop_rounding=crop_rounding)
    box = np.array([[21.0, 13.0, 38.0, 29.0]])
    photo = np.zeros((*size, 3), np.uint8)
    photo[13:29, 21:38] = 255
    seen = crop_photo(photo, p)[..., 0] / 255
    x0, y0, x1, y1 = crop_boxes(box, size, p)[0]
    # The share of every pixel that the box covers is how bright a box filter leaves it.
    across = np.clip(np.minimum(x1, np.arange(p.size[1]) + 1) - np.maximum(x0, np.arange(p.size[1])), 0, 1)
    down = np.clip(np.minimum(y1, np.arange(p.size[0]) + 1) - np.maximum(y0, np.arange(p.size[0])), 0, 1)
    if resize is None or all(new <= old for new, old in zip(np.ravel(resize), size, strict=False)):
        shrunk = np.abs(seen - np.outer(down, across))
        assert np.quantile(shrunk, 0.95) < 0.01
    # A filter of a pixel's width takes pixels in whole, so its borders may be off by less than one; the middle not.
    total = seen.sum()
    ys, xs = np.indices(seen.shape) + 0.5
    np.testing.assert_allclose(
        [(seen * xs).sum() / total, (seen * ys).sum() / total], [(x0 + x1) / 2, (y0 + y1) / 2], atol=0.3
    )


@pytest.mark.usefixtures("unchecked")
def test_errors():
    scores = jnp.ones(4)
    with pytest.raises(ValueError, match="a score for each of the 4 regions; got 3 scores"):
        pointing_game(jnp.ones(3), QUARTERS, LEFT)
    with pytest.raises(ValueError, match=r"scores \[P\], one a region; got shape \[4, 4\]"):
        energy_inside(jnp.ones((4, 4)), QUARTERS, LEFT)
    with pytest.raises(ValueError, match=r"object_mask bool\[H, W\], True on the object; got int32 \[4, 4\]"):
        iou(scores, QUARTERS, LEFT.astype(jnp.int32))
    with pytest.raises(ValueError, match=r"expected regions of integers \[3, 4\]"):
        iou(scores, QUARTERS, LEFT[:3])
    with pytest.raises(ValueError, match="the score of player 2 is NaN"):
        iou(scores.at[2].set(jnp.nan), QUARTERS, LEFT)
    with pytest.raises(ValueError, match=r"share must lie in \(0, 1\], of the image's pixels; got 50"):
        iou(scores, QUARTERS, LEFT, share=50)
    with pytest.raises(ValueError, match=r"boxes \[N, 4\] of x0, y0, x1, y1; got shape \[4\]"):
        box_mask(4, 4, [0.0, 0.0, 1.0, 1.0])
    with pytest.raises(ValueError, match=r"x0 <= x1 and y0 <= y1; got \[3.0, 0.0, 1.0, 1.0\]: a box of width"):
        box_mask(4, 4, [[3.0, 0.0, 1.0, 1.0]])
    with pytest.raises(ValueError, match=r"at least 8 x 8 pixels, as it is cropped without being resized; got 4 x 9"):
        crop_boxes(np.zeros((1, 4)), (4, 9), Preprocessing(crop=(8, 8)))
    with pytest.raises(ValueError, match=r"photo_size must be \(height, width\) in pixels, at least 1; got \(0, 9\)"):
        crop_boxes(np.zeros((1, 4)), (0, 9), Preprocessing(resize=8, crop=(8, 8)))


def test_iou_of_a_tie_is_that_of_ties_broken_at_random():
    """136 of 196 zeros, in one corner or another: the answer does not depend on the labels."""
    rng = np.random.default_rng(0)
    regions = np.asarray(jm.grid_regions(28, 28, rows=14, cols=14))
    mask = rng.random((28, 28)) < 0.6
    scores = rng.random(196).astype(np.float32)
    scores[rng.permutation(196)[:136]] = 0
    found = float(iou(scores, regions, mask))
    broken = [iou(scores + 1e-4 * rng.random(196).astype(np.float32), regions, mask) for _ in range(60)]
    np.testing.assert_allclose(found, np.mean(broken), atol=0.01)
    relabelled = rng.permutation(196).astype(np.int32)
    moved = np.empty_like(scores)
    moved[relabelled] = scores
    np.testing.assert_allclose(iou(moved, relabelled[regions], mask), found, rtol=1e-6)
    # All equal: any eighth of the image, of which the object has its share.
    np.testing.assert_allclose(iou(jnp.ones(4), QUARTERS, LEFT, share=0.125), 1 / (2 + 8 - 1), rtol=1e-6)
