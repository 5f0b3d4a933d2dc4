"""Batches from a source, by Grain: the examples are shuffled, augmented and segmented into superpixels.

The batch of a step is a pure function of the settings and the number of the step. The order of an epoch follows from
(seed, epoch), and the augmentation of an example from (seed, epoch, its index in the source). A resumed run therefore
sees the batches that it would have seen, and the number of threads that prepare batches changes nothing.

Superpixels are made after the augmentation, as published: SLIC with `num_groups` segments and compactness 20.
Deviation: the authors' fast-slic runs on the host and starts from the previous image's centres, so its result depends
on the order of the images. Ours (`slic_regions`) segments each image independently, a batch at a time, on the device
that trains. Neither makes more segments than asked for. Fewer are no problem, because a group without pixels is inert.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jaxtyping import Int

from jaxmoxi.errors import InputError
from jaxmoxi.p2p.data.augment import Augmentation, augment, host, resize_and_crop
from jaxmoxi.p2p.data.example import Batch, Example, Source
from jaxmoxi.p2p.data.sources import Arrays
from jaxmoxi.regions.label_maps import relabel
from jaxmoxi.regions.superpixels import slic_regions


class Loader:
    """Batches of a source's examples, as the model takes them. Iterating gives `iterate()`.

    source:      where the examples come from.
    image_size:  side of the images, in pixels.
    num_groups:  the most superpixels of an image.
    batch_size:  examples per batch.
    seed:        decides the order and the augmentations, in 0 .. 2**32 - 1.
    train:       True shuffles every epoch anew, drops the examples that do not fill a batch (other ones each time), and
                 never ends. False goes through the source once, in order; the last batch may be smaller.
    augment:     an `Augmentation`; True for the published one of ImageNet; False for the geometry of evaluation. None
                 is the same as `train`.
    segment:     a function on the host, image uint8[S, S, 3] -> superpixels, integers[S, S]. If it makes more than
                 `num_groups`, the smallest join their neighbours (`merge_regions`). None for SLIC on the device. Where
                 the source has regions and the crop is not random, the loader uses those instead, mirrored and turned
                 with the image.
    compactness: compactness of SLIC, > 0; higher gives squarer superpixels.
    num_threads: threads that prepare examples ahead; 0 prepares them when they are asked for.
    shard:       (index, count): this process's part of every epoch. In training it is the index-th part of every batch
                 of `count * batch_size` examples: the shards' batches of a step, one after the other, are the batch of
                 a loader without shards. Otherwise it is every count-th example, and the sizes differ by at most one.

    steps_per_epoch: batches of an epoch, of this shard.
    shard:           as it was given.
    Raises ValueError for impossible settings. Reading raises ValueError for a broken example.
    """

    def __init__(
        self,
        source: Source,
        *,
        image_size: int,
        num_groups: int,
        batch_size: int,
        seed: int = 0,
        train: bool = True,
        augment: bool | Augmentation | None = None,
        segment: Callable[[np.ndarray], Any] | None = None,
        compactness: float = 20.0,
        num_threads: int = 4,
        shard: tuple[int, int] = (0, 1),
    ):
        counts = {"image_size": image_size, "num_groups": num_groups, "batch_size": batch_size}
        if any(value < 1 for value in counts.values()):
            raise InputError(f"expected whole numbers of at least 1; got {counts}")
        if not 0 <= seed < 2**32:
            raise InputError(f"expected a seed in 0 .. 2**32 - 1; got {seed}")
        if num_threads < 0:
            raise InputError(f"num_threads must be at least 0; got {num_threads}")
        if not compactness > 0:
            raise InputError(f"compactness must be positive; got {compactness}")
        if not 0 <= shard[0] < shard[1]:
            raise InputError(f"expected a shard (index, count) with index in 0 .. count - 1; got {shard}")
        share = len(source) // shard[1]
        if share < (batch_size if train else 1):
            raise InputError(
                f"the source has {len(source)} examples, {share} for each of {shard[1]} shards; expected at least "
                + (f"{batch_size}, a batch: choose a smaller batch_size" if train else "one")
            )
        self.source, self.train, self.batch_size = source, train, batch_size
        self.class_names: tuple[str, ...] = source.class_names
        self.steps_per_epoch: int = share // batch_size if train else -(-_share(len(source), shard) // batch_size)
        self._image_size, self._num_groups, self._seed, self._num_threads = image_size, num_groups, seed, num_threads
        augment = train if augment is None else augment
        self._augmentation = (Augmentation() if augment else None) if isinstance(augment, bool) else augment
        self._segment, self._compactness = segment, compactness
        self.shard = shard
        self._examples = self._dataset(shard)

    def divided(self, index: int, count: int) -> Loader:
        """The part of this loader that the index-th of so many processes loads: its rows of every batch, in training.

        Raises ValueError for a loader that is a shard already, and for batches that do not divide.
        """
        if self.shard != (0, 1) or self.batch_size % count:
            raise InputError(
                f"expected a loader of all examples, with a batch_size that {count} processes can divide, or the shard "
                f"({index}, {count}); got batch_size {self.batch_size} and shard {self.shard}"
            )
        return Loader(
            self.source,
            image_size=self._image_size,
            num_groups=self._num_groups,
            batch_size=self.batch_size // count,
            seed=self._seed,
            train=self.train,
            augment=False if self._augmentation is None else self._augmentation,
            segment=self._segment,
            compactness=self._compactness,
            num_threads=self._num_threads,
            shard=(index, count),
        )

    def batch(self, step: int) -> Batch:
        """The batch of a step, prepared now. Arrays are NumPy's, except for regions that SLIC made on the device.

        step: counted from 0 over all epochs.
        Raises ValueError for a step that does not exist.
        """
        self._check_step(step)
        return self._segmented(self._examples.batch(self.batch_size, batch_fn=_collate)[step])

    def iterate(self, start_step: int = 0) -> Iterator[Batch]:
        """`batch(start_step)`, `batch(start_step + 1)`, ..., prepared ahead by threads. In training it never ends.

        Raises ValueError for a step that does not exist.
        """
        import grain

        if start_step != self.steps_per_epoch or self.train:
            self._check_step(start_step)
        examples = self._examples.repeat() if self.train else self._examples
        ahead = 2 * self.batch_size if self._num_threads else 0
        options = grain.ReadOptions(num_threads=min(self._num_threads, ahead), prefetch_buffer_size=ahead)
        rest = examples.slice(slice(start_step * self.batch_size, None))
        return map(self._segmented, rest.to_iter_dataset(options).batch(self.batch_size, batch_fn=_collate))

    def __iter__(self) -> Iterator[Batch]:
        return self.iterate()

    def _check_step(self, step: int) -> None:
        if step < 0 or (not self.train and step >= self.steps_per_epoch):
            last = "" if self.train else f" to {self.steps_per_epoch - 1}"
            raise InputError(f"expected a step from 0{last}; got {step}")

    def _dataset(self, shard: tuple[int, int]) -> Any:
        """The examples by their place in the order; places past the first epoch belong to later epochs."""
        import grain  # takes a second to import, and only a loader needs it

        (index, count), size = shard, self.batch_size
        order = grain.MapDataset.range(len(self.source))
        if not self.train:
            return order.slice(slice(index, None, count)).map(lambda example: self._prepare(example, epoch=0))
        # Grain adds the epoch to this seed, so the seeds are spread: seed 1 must not be seed 0 an epoch later.
        order = order.shuffle(seed=int(np.random.SeedSequence(self._seed).generate_state(1)[0]))
        length = size * self.steps_per_epoch
        order = order.slice(slice(0, count * length))

        def prepare(place: int, _: int) -> Example:
            step, row = divmod(place, size)
            at: Any = order[(step * count + index) * size + row]
            return self._prepare(at, epoch=place // length)

        return grain.MapDataset.range(length).map_with_index(prepare)

    def _prepare(self, index: int, *, epoch: int) -> Example:
        example = _checked(self.source[index], index, len(self.class_names))
        if self._augmentation is None:
            example = resize_and_crop(example, image_size=self._image_size)
        else:
            rng = np.random.default_rng([self._seed, epoch, index])
            example = augment(rng, example, image_size=self._image_size, augmentation=self._augmentation)
        if example.regions is not None:
            low, high = int(example.regions.min()), int(example.regions.max())
            if low < 0 or high >= self._num_groups:
                raise InputError(
                    f"the regions of example {index} are numbered {low} to {high}; expected 0 to "
                    f"{self._num_groups - 1}, as num_groups is {self._num_groups}"
                )
            return example._replace(regions=example.regions.astype(np.int32))
        if self._segment is None:  # SLIC segments whole batches, later
            return example
        with jax.default_device(host()):
            regions = np.asarray(relabel(self._segment(example.image)))
        if regions.shape != example.image.shape[:2]:
            raise InputError(
                f"segment must answer integers {list(example.image.shape[:2])} for example {index}; got shape "
                f"{list(regions.shape)}"
            )
        return example._replace(regions=merge_regions(regions, self._num_groups))

    def _segmented(self, batch: Batch) -> Batch:
        """The batch, with regions by SLIC if it has none yet."""
        if batch.regions is not None:
            return batch
        images = batch.images
        missing = self.batch_size - len(images)  # the last batch is filled up, as another size would compile anew
        full = np.concatenate([images, np.repeat(images[-1:], missing, 0)])
        regions = slic_regions(full, num_segments=self._num_groups, compactness=self._compactness)
        return batch._replace(regions=regions[: len(images)])


def merge_regions(regions: Int[np.ndarray, "H W"], num_groups: int) -> Int[np.ndarray, "H W"]:
    """Merges regions, labelled 0 .. P-1, until there are at most `num_groups`.

    The smallest region joins the neighbour with which it shares the longest border (of equals, the one with the lowest
    label), until there are few enough. Returns int32[H, W], numbered in raster order of each region's first pixel. A
    map with few enough regions is returned as it is.
    """
    count = int(regions.max()) + 1
    if count <= num_groups:
        return regions.astype(np.int32)
    borders = np.zeros((count, count), np.int64)  # in NumPy, as `region_adjacency` would compile for every count
    for a, b in ((regions[1:], regions[:-1]), (regions[:, 1:], regions[:, :-1])):
        np.add.at(borders, (a.ravel(), b.ravel()), 1)
    borders += borders.T
    np.fill_diagonal(borders, -1)
    sizes = np.bincount(regions.ravel(), minlength=count).astype(float)
    target = np.arange(count)
    for _ in range(count - num_groups):
        small = int(np.argmin(sizes))
        into = int(np.argmax(borders[small]))
        borders[into] += borders[small]
        borders[:, into] += borders[:, small]
        borders[into, into] = borders[small] = borders[:, small] = -1
        sizes[into], sizes[small] = sizes[into] + sizes[small], np.inf
        target[target == small] = into
    with jax.default_device(host()):
        return np.asarray(relabel(target[regions]))


def presegment(source: Source, *, image_size: int, num_groups: int, progress: bool = True) -> Arrays:
    """Every example at `image_size` with its superpixels by SLIC, in memory, so that no later epoch makes them again.

    For training without random crops, and for evaluating many times. Takes 8 bytes per pixel and example.

    image_size: side of the images, in pixels.
    num_groups: the most superpixels of an image.
    progress:   shows a bar.
    """
    from tqdm import tqdm

    loader = Loader(source, image_size=image_size, num_groups=num_groups, batch_size=16, train=False)
    with tqdm(total=len(source), desc="superpixels", unit="image", disable=not progress) as bar:
        batches = []
        for batch in loader:
            batches.append(batch)
            bar.update(len(batch.labels))
    images, regions, labels = (np.concatenate(parts) for parts in list(zip(*batches, strict=True))[:3])
    masks = None if batches[0].masks is None else np.concatenate([batch.masks for batch in batches])
    return Arrays(images, labels, masks=masks, regions=regions, class_names=source.class_names)


def _share(length: int, shard: tuple[int, int]) -> int:
    return len(range(shard[0], length, shard[1]))


def _checked(example: Example, index: int, num_classes: int) -> Example:
    """The example, after checks of what a user's own source may get wrong."""
    label = example.label
    if np.ndim(label) or np.asarray(label).dtype.kind not in "iu" or not 0 <= label < num_classes:
        raise InputError(
            f"expected the label of example {index} as an integer in 0 .. {num_classes - 1}, as the source names "
            f"{num_classes} classes; got {label!r}"
        )
    shape = example.image.shape
    if example.image.dtype != np.uint8 or len(shape) != 3 or shape[-1] != 3:
        raise InputError(
            f"expected the image of example {index} as uint8[H, W, 3]; got {example.image.dtype} {shape}: multiply "
            "floats in [0, 1] by 255, round and convert"
        )
    for name, labels in (("mask", example.mask), ("regions", example.regions)):
        if labels is not None and labels.shape != shape[:2]:
            raise InputError(
                f"the {name} of example {index} has shape {labels.shape}, its image {shape[:2]}: they must be the same"
            )
    return example


def _collate(examples: list[Example]) -> Batch:
    images, labels, masks, regions = zip(*examples, strict=True)
    for name, maps in (("a mask", masks), ("regions", regions)):
        known = sum(x is not None for x in maps)
        if 0 < known < len(maps):
            raise InputError(
                f"{known} of {len(maps)} examples of a batch have {name}; expected all of a source or none"
            )
    masks, regions = (None if maps[0] is None else np.stack(maps) for maps in (masks, regions))
    # Regions that are still missing here are made by `Loader._segmented`, before anybody sees the batch.
    return Batch(np.stack(images), regions, np.array(labels, np.int32), masks)  # type: ignore[arg-type]
