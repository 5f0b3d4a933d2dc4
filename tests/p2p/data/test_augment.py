"""The augmentations keep image, mask and regions together, and follow from their generator alone."""

import colorsys

import numpy as np
import pytest

from jaxmoxi.p2p.data import Augmentation, Example, augment, resize_and_crop
from jaxmoxi.p2p.data.augment import AREA, ASPECT, _random_box, _recolour, centre_geometry


def rng(seed=0):
    return np.random.default_rng(seed)


def scene(height=60, width=80):
    """A bright rectangle on a dark ground; mask and regions are the rectangle."""
    mask = np.zeros((height, width), bool)
    mask[10:40, 15:60] = True
    return Example(np.where(mask[..., None], 250, 5).repeat(3, -1).astype(np.uint8), 1, mask, mask.astype(np.int32))


@pytest.mark.parametrize("crop", ["resized", "shifted", None])
def test_the_mask_stays_on_the_object(crop):
    for seed in range(30):
        result = augment(rng(seed), scene(), image_size=48, augmentation=Augmentation(crop=crop, colour=0.0))
        assert result.image.shape == (48, 48, 3)
        bright = result.image[..., 0] > 127
        assert (bright != result.mask).mean() < 0.04  # the edge is blurred, the mask is not
        assert result.label == 1
        if crop is None:
            np.testing.assert_array_equal(result.regions, result.mask)
        else:
            assert result.regions is None


def test_all_of_it_varies_and_only_with_the_generator():
    results = [augment(rng(seed), scene(), image_size=32) for seed in range(8)]
    assert len({r.image.tobytes() for r in results}) == 8
    for seed, result in enumerate(results):
        again = augment(rng(seed), scene(), image_size=32)
        np.testing.assert_array_equal(again.image, result.image)
        np.testing.assert_array_equal(again.mask, result.mask)


def test_half_are_mirrored():
    image = np.zeros((8, 8, 3), np.uint8)
    image[:, :4] = 200
    only_flip = Augmentation(crop=None, colour=0.0)
    flipped = [
        augment(rng(i), Example(image, 0), image_size=8, augmentation=only_flip).image[0, 0, 0] == 0 for i in range(200)
    ]
    assert 75 < sum(flipped) < 125
    stays = Augmentation(crop=None, colour=0.0, flip=False)
    np.testing.assert_array_equal(augment(rng(), Example(image, 0), image_size=8, augmentation=stays).image, image)


def test_turns_are_all_four_and_take_the_labels_along():
    image = np.arange(16, dtype=np.uint8).reshape(4, 4, 1).repeat(3, -1)
    example = Example(image, 0, image[..., 0] == 0, image[..., 0].astype(np.int32))
    turning = Augmentation(crop=None, colour=0.0, flip=False, turn=True)
    seen = set()
    for seed in range(40):
        result = augment(rng(seed), example, image_size=4, augmentation=turning)
        np.testing.assert_array_equal(result.regions, result.image[..., 0])
        np.testing.assert_array_equal(result.mask, result.regions == 0)
        seen.add(result.image.tobytes())
    assert seen == {np.rot90(image, k).tobytes() for k in range(4)}


def test_random_boxes_have_the_published_areas_and_aspects():
    generator = rng()
    boxes = np.array([_random_box(generator, 400, 400) for _ in range(2000)])
    top, left, height, width = boxes.T
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (top + height <= 400).all()
    assert (left + width <= 400).all()
    area, aspect = height * width / 160_000, width / height
    assert area.min() == pytest.approx(AREA[0], abs=0.01)
    assert area.max() > 0.9
    assert aspect.min() == pytest.approx(ASPECT[0], abs=0.02)
    assert aspect.max() == pytest.approx(ASPECT[1], abs=0.02)
    assert np.median(np.log(aspect)) == pytest.approx(0, abs=0.04)
    assert _random_box(generator, 10, 1000) == (0, 493, 10, 13)  # no try fits: the centre


def test_evaluation_keeps_the_size_or_takes_the_centre():
    example = scene(48, 48)
    assert centre_geometry((48, 48), 48).size == (48, 48)
    np.testing.assert_array_equal(resize_and_crop(example, image_size=48).image, example.image)
    # 256 on the shorter side, then 224: of 320 x 400 pixels, 256 x 320, rows 16 .. 239 and columns 48 .. 271
    assert centre_geometry((320, 400), 224) == ((0, 0, 320, 400), (256, 320), (16, 48), False, 0)
    assert centre_geometry((32, 32), 224).size == (256, 256)
    result = resize_and_crop(scene(), image_size=48)
    assert ((result.image[..., 0] > 127) != result.mask).mean() < 0.04


COLOURS = np.array([[[255, 0, 0], [10, 200, 30], [90, 90, 90], [12, 34, 250]]], np.uint8)
KEEP = np.array([1, 1, 1, 0], np.float32)


def recoloured(kind, amount):
    amounts = KEEP.copy()
    amounts[kind] = amount
    return np.asarray(_recolour(COLOURS, np.arange(4, dtype=np.int32), amounts)).astype(int)


def test_each_colour_change_is_the_published_one():
    np.testing.assert_array_equal(recoloured(0, 1.0), COLOURS)
    image = COLOURS / 255
    grey = image @ [0.2989, 0.587, 0.114]
    for kind, other in ((0, 0), (1, grey.mean()), (2, grey[..., None])):
        for factor in (0.6, 1.4):
            wanted = np.round(255 * np.clip(factor * image + (1 - factor) * other, 0, 1))
            assert np.abs(recoloured(kind, factor) - wanted).max() <= 1

    def turned(pixel):
        hue, saturation, value = colorsys.rgb_to_hsv(*pixel)
        return colorsys.hsv_to_rgb((hue + 0.2) % 1, saturation, value)

    assert np.abs(recoloured(3, 0.2) - 255 * np.array([[turned(pixel) for pixel in image[0]]])).max() <= 1


def test_augmentations_that_cannot_be():
    with pytest.raises(ValueError, match=r"colour is a strength in \[0, 1\]; got 2"):
        Augmentation(colour=2.0)


@pytest.mark.usefixtures("unchecked")
def test_a_crop_that_is_none():
    with pytest.raises(ValueError, match='expected a crop of "resized", "shifted" or None; got \'centre\''):
        Augmentation(crop="centre")  # type: ignore[arg-type]
