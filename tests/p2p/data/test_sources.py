"""Arrays, subsets and the hold-out."""

import jax
import numpy as np
import pytest

from jaxmoxi.p2p.data import CLASSES, Arrays, Subset, scene_source, split, synthetic_scenes

IMAGES = np.arange(4 * 2 * 3 * 3, dtype=np.uint8).reshape(4, 2, 3, 3)


def test_arrays():
    masks, regions = IMAGES[..., 0] > 20, IMAGES[..., 0] // 9
    source = Arrays(IMAGES, [0, 2, 1, 1], masks=masks, regions=regions)
    assert source.class_names == ("0", "1", "2")
    example = source[1]
    assert example.label == 2
    for got, wanted in zip(example[::2], (IMAGES[1], masks[1]), strict=False):
        np.testing.assert_array_equal(got, wanted)
    np.testing.assert_array_equal(example.regions, regions[1])
    assert example.regions.dtype == np.int32
    bare = Arrays(IMAGES, [0, 2, 1, 1], class_names=["a", "b", "c", "d"])[0]
    assert (bare.mask, bare.regions) == (None, None)


def test_arrays_that_do_not_fit():
    with pytest.raises(ValueError, match=r"expected images uint8\[N, H, W, 3\]; got float64 of shape \(4, 2, 3, 3\)"):
        Arrays(IMAGES / 255, [0] * 4)
    with pytest.raises(ValueError, match=r"expected integer labels \[4\], one per image; got int64 of shape \(3,\)"):
        Arrays(IMAGES, [0] * 3)
    with pytest.raises(ValueError, match="expected labels in 0 .. 1, one of 2 classes; got 0 to 2"):
        Arrays(IMAGES, [0, 1, 2, 0], class_names=["a", "b"])
    with pytest.raises(ValueError, match=r"expected masks of booleans \[4, 2, 3\], of the images' size; got uint8 of"):
        Arrays(IMAGES, [0] * 4, masks=IMAGES[..., 0])
    with pytest.raises(ValueError, match=r"expected regions of integers \[4, 2, 3\].*of shape \(4, 2, 2\)"):
        Arrays(IMAGES, [0] * 4, regions=np.zeros((4, 2, 2), int))
    with pytest.raises(ValueError, match="expected at least one image; got none"):
        Arrays(IMAGES[:0], np.zeros(0, int))


def test_scenes_as_a_source():
    settings = dict(image_size=16, num_classes=2, num_distractors=0)
    scenes = synthetic_scenes(jax.random.key(3), 5, **settings)
    whole, own = Arrays.from_scenes(scenes), scene_source(jax.random.key(3), 5, **settings)
    assert (whole.class_names, own.class_names) == (CLASSES, CLASSES[:2])
    for source in (whole, own):
        for i in range(5):
            np.testing.assert_array_equal(source[i].image, scenes.images[i])
            np.testing.assert_array_equal(source[i].mask, scenes.objects[i])
            assert source[i].label == scenes.labels[i]


class Bare:
    """A source of the user's own, with nothing but what it must have."""

    class_names = ("many", "few")

    def __len__(self):
        return 30

    def __getitem__(self, index):
        return Arrays(IMAGES, [0, 1, 0, 1])[0]._replace(label=int(index % 5 == 0))


def test_split_is_stratified_seeded_and_disjoint():
    numbers = np.broadcast_to(np.arange(30, dtype=np.uint8)[:, None, None, None], (30, 1, 1, 3))
    source = Arrays(numbers, (np.arange(30) % 5 == 0).astype(int), class_names=["many", "few"])

    def members(part):
        return [int(part[i].image[0, 0, 0]) for i in range(len(part))]

    train, validation = split(source, validation=0.25, seed=1)
    assert sorted(members(train) + members(validation)) == list(range(30))
    assert members(train) == sorted(members(train))
    assert np.bincount(validation.labels).tolist() == [6, 2]  # of 24 and 6, a quarter each (1.5 rounds to even)
    assert np.bincount(train.labels).tolist() == [18, 4]
    assert validation.labels.tolist() == [validation[i].label for i in range(len(validation))]
    assert members(split(source, validation=0.25, seed=1)[1]) == members(validation)
    assert members(split(source, validation=0.25, seed=2)[1]) != members(validation)
    assert np.bincount(split(source, validation=0.01, seed=1)[1].labels).tolist() == [1, 1]
    assert split(Bare(), validation=0.25, seed=1)[1].labels.tolist() == validation.labels.tolist()


def test_split_and_subset_say_what_cannot_be():
    source = Arrays(IMAGES, [0, 0, 0, 1], class_names=["a", "b"])
    with pytest.raises(ValueError, match="class 'b' has a single example"):
        split(source, validation=0.5, seed=0)
    with pytest.raises(ValueError, match=r"validation is a share in \(0, 1\); got 1.0"):
        split(source, validation=1.0, seed=0)
    with pytest.raises(ValueError, match="expected indices in 0 .. 3; got 1 to 4"):
        Subset(source, [1, 4])
    with pytest.raises(ValueError, match="expected a list of at least one index"):
        Subset(source, [])
    assert [Subset(source, [3, 1])[i].label for i in range(2)] == [1, 0]
