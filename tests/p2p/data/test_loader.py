"""Batches are a pure function of the step; threads, resuming and shards change nothing."""

import itertools
import subprocess
import sys

import numpy as np
import pytest

from jaxmoxi.p2p.data import Arrays, Augmentation, Example, Loader, Subset, merge_regions, presegment
from jaxmoxi.regions.label_maps import count_regions

SIZE = 16


def numbered(count=11, **changes):
    """Images that carry their own number in every pixel, and a mask and stored regions that show a mirror."""
    images = np.broadcast_to(np.arange(count, dtype=np.uint8)[:, None, None, None], (count, SIZE, SIZE, 3))
    masks = np.zeros((count, SIZE, SIZE), bool)
    masks[:, 2:5, 3:7] = True
    regions = np.broadcast_to(np.arange(SIZE) // 4, (count, SIZE, SIZE))
    return Arrays(images, np.arange(count) % 3, **{"masks": masks, "regions": regions} | changes)


def loader(source=None, **changes):
    settings = dict(image_size=SIZE, num_groups=4, batch_size=2, augment=Augmentation(crop=None, colour=0.0))
    return Loader(numbered() if source is None else source, **settings | changes)


def numbers(batch):
    return batch.images[:, 0, 0, 0].tolist()


def same(a, b):
    for x, y in zip(a, b, strict=True):
        np.testing.assert_array_equal(x, y)


def test_each_epoch_shows_each_example_at_most_once_in_an_order_of_its_own():
    data = loader(seed=3)
    assert data.steps_per_epoch == 5
    epochs = [[n for step in range(5) for n in numbers(data.batch(5 * epoch + step))] for epoch in range(12)]
    for epoch in epochs:
        assert len(set(epoch)) == len(epoch) == 10
    assert len(set(map(tuple, epochs))) == 12
    assert len({(set(range(11)) - set(epoch)).pop() for epoch in epochs}) > 1  # another one is left out
    other = [[n for step in range(5) for n in numbers(loader(seed=4).batch(5 * epoch + step))] for epoch in range(3)]
    assert not {tuple(e) for e in other} & {tuple(e) for e in epochs}


def test_iterating_from_any_step_is_what_batch_answers():
    for threads in (0, 3):
        data = loader(seed=1, augment=True, num_threads=threads)
        for start in (0, 4, 13):
            for step, batch in enumerate(itertools.islice(data.iterate(start), 4), start):
                same(batch, loader(seed=1, augment=True).batch(step))


def test_what_a_batch_is():
    batch = loader().batch(0)
    assert [x.dtype for x in batch] == [np.uint8, np.int32, np.int32, bool]
    assert [x.shape for x in batch] == [(2, SIZE, SIZE, 3), (2, SIZE, SIZE), (2,), (2, SIZE, SIZE)]
    assert batch.labels.tolist() == [n % 3 for n in numbers(batch)]
    assert loader(numbered(masks=None)).batch(0).masks is None


def test_stored_regions_are_mirrored_with_the_image():
    seen = set()
    for step in range(10):
        batch = loader().batch(step)
        for regions, mask in zip(batch.regions, batch.masks, strict=True):
            mirrored = bool(regions[0, 0])
            seen.add(mirrored)
            np.testing.assert_array_equal(regions[0], (np.arange(SIZE) // 4)[:: -1 if mirrored else 1])
            assert mask[3, -4 if mirrored else 3]
    assert seen == {True, False}


def test_an_example_is_augmented_anew_each_epoch_and_alike_in_any_batch():
    noisy = Arrays(np.random.default_rng(0).integers(0, 256, (4, 20, 20, 3), np.uint8), [0, 1, 0, 1])
    singly = loader(Subset(noisy, [2]), batch_size=1, augment=True)
    assert len({singly.batch(epoch).images.tobytes() for epoch in range(4)}) == 4
    whole, halves = (loader(noisy, batch_size=size, augment=True, seed=5) for size in (4, 2))
    same([np.concatenate([halves.batch(i)[k] for i in (2, 3)]) for k in range(3)], whole.batch(1)[:3])


def test_evaluation_goes_through_once_in_order():
    data = loader(train=False, batch_size=4, augment=None)
    assert data.steps_per_epoch == 3
    batches = list(data)
    assert [numbers(batch) for batch in batches] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10]]
    for step, batch in enumerate(batches):
        same(batch, data.batch(step))
    assert [numbers(batch) for batch in data.iterate(2)] == [[8, 9, 10]]
    assert list(data.iterate(3)) == []
    with pytest.raises(ValueError, match="expected a step from 0 to 2; got 3"):
        data.batch(3)
    with pytest.raises(ValueError, match="expected a step from 0; got -1"):
        loader().iterate(-1)


def test_shards_share_every_epoch():
    for epoch in range(3):
        parts = [
            [n for step in range(2) for n in numbers(loader(shard=(i, 2), seed=7).batch(2 * epoch + step))]
            for i in range(2)
        ]
        assert len(parts[0]) == len(parts[1]) == 4
        assert len({*parts[0], *parts[1]}) == 8
    assert loader(shard=(1, 2)).steps_per_epoch == 2
    for step in range(5):
        whole = loader(batch_size=4, seed=7, augment=True).batch(step)
        for parts in (
            [loader(shard=(i, 2), seed=7, augment=True).batch(step) for i in range(2)],
            [next(loader(batch_size=4, seed=7, augment=True).divided(i, 2).iterate(step)) for i in range(2)],
        ):
            assert np.array_equal(np.concatenate([part.images for part in parts]), whole.images)
            assert np.array_equal(np.concatenate([part.labels for part in parts]), whole.labels)
    with pytest.raises(ValueError, match="a batch_size that 3 processes can divide"):
        loader().divided(0, 3)
    parts = [list(loader(shard=(i, 2), train=False)) for i in range(2)]
    assert [[n for batch in part for n in numbers(batch)] for part in parts] == [[*range(0, 11, 2)], [*range(1, 11, 2)]]


def textured(count=3):
    return Arrays(np.random.default_rng(1).integers(0, 256, (count, 40, 40, 3), np.uint8), [0] * count)


def test_superpixels_are_made_after_the_augmentation_and_never_too_many():
    seen = []

    def segment(image):
        seen.append(image)
        return (np.arange(SIZE * SIZE) // 13).reshape(SIZE, SIZE)  # twenty

    batch = loader(textured(), augment=True, segment=segment, num_groups=7, batch_size=3).batch(0)
    for image, regions, own in zip(batch.images, batch.regions, seen, strict=True):
        np.testing.assert_array_equal(image, own)
        assert count_regions(regions) == 7
    by_slic = loader(textured(), augment=True, num_groups=9, batch_size=3).batch(0)
    assert all(2 <= count_regions(regions) <= 9 for regions in by_slic.regions)


def test_merging_takes_the_smallest_into_its_closest_neighbour():
    regions = np.array([[0, 0, 1, 1], [0, 0, 2, 1], [3, 3, 3, 3]])
    # 2 is smallest: it has one border with 0 and two with 1
    np.testing.assert_array_equal(merge_regions(regions, 3), [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 2, 2]])
    np.testing.assert_array_equal(merge_regions(regions, 4), regions)
    assert merge_regions(regions, 1).tolist() == np.zeros((3, 4), int).tolist()
    np.testing.assert_array_equal(merge_regions(regions, 2), [[0, 0, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1]])


def test_presegmented_examples_are_those_of_the_loader(capfd):
    source = textured(5)
    stored = presegment(source, image_size=SIZE, num_groups=6, progress=False)
    direct = next(iter(loader(source, train=False, batch_size=5, augment=False, num_groups=6)))
    same((stored.images, stored.regions, stored.labels), direct[:3])
    assert stored.masks is None
    assert capfd.readouterr().err == ""
    assert presegment(numbered(3), image_size=SIZE, num_groups=4).masks.shape == (3, SIZE, SIZE)
    assert "superpixels: 100%" in capfd.readouterr().err


def test_settings_that_cannot_be():
    for changes, message in (
        ({"batch_size": 12}, "the source has 11 examples, 11 for each of 1 shards; expected at least 12, a batch"),
        ({"batch_size": 3, "shard": (0, 4)}, "2 for each of 4 shards; expected at least 3, a batch"),
        ({"train": False, "shard": (0, 12)}, "0 for each of 12 shards; expected at least one"),
        ({"batch_size": 0}, "expected whole numbers of at least 1; got .*'batch_size': 0"),
        ({"seed": -1}, r"expected a seed in 0 .. 2\*\*32 - 1; got -1"),
        ({"num_threads": -1}, "num_threads must be at least 0; got -1"),
        ({"compactness": 0.0}, "compactness must be positive; got 0.0"),
        ({"shard": (2, 2)}, r"expected a shard \(index, count\) with index in 0 .. count - 1; got \(2, 2\)"),
    ):
        with pytest.raises(ValueError, match=message):
            loader(**changes)


class Broken:
    class_names = ("a",)

    def __init__(self, example):
        self.example = example

    def __len__(self):
        return 2

    def __getitem__(self, index):
        return self.example if index else numbered()[0]


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("threads", [0, 2])
def test_examples_that_are_broken_are_named(threads):
    image = np.zeros((8, 8, 3), np.uint8)
    for example, message in (
        (Example(image / 255, 0), r"the image of example 1 as uint8\[H, W, 3\]; got float64"),
        (Example(image, 0, np.ones((8, 7), bool)), r"mask of example 1 has shape \(8, 7\), its image \(8, 8\)"),
        (
            Example(image, 0, image[..., 0] > 0, np.full((8, 8), 4)),
            "regions of example 1 are numbered 4 to 4; expected 0",
        ),
        (Example(image, 0), "1 of 2 examples of a batch have a mask; expected all of a source or none"),
    ):
        with pytest.raises(ValueError, match=message):
            next(loader(Broken(example), num_threads=threads).iterate())
    with pytest.raises(ValueError, match=r"segment must answer integers \[16, 16\] for example .*got shape \[2, 2\]"):
        loader(textured(), segment=lambda image: np.zeros((2, 2), int)).batch(0)


def test_grain_is_imported_by_a_loader_only():
    code = "import sys, jaxmoxi.p2p.data; sys.exit(bool({'grain', 'dm_pix', 'skimage'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
