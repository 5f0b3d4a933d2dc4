"""What a run is fed: batches made of sources, and a check of each batch before it is trained on."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from jaxmoxi.errors import InputError
from jaxmoxi.p2p.config import Config
from jaxmoxi.p2p.data import Augmentation, Loader, presegment, split
from jaxmoxi.p2p.data.example import Batch, Batches, Source
from jaxmoxi.p2p.ranges import check_labels, check_range
from jaxmoxi.p2p.training.config import TrainConfig

_CACHE_BYTES = 1 << 30


def make_batches(
    config: Config, train: TrainConfig, data: Source | Batches, validation: Source | Batches | None, progress: bool
) -> tuple[Batches, Batches | None]:
    """Batches to train on and to validate on, each a pure function of the step.

    Images that are not cropped at random are segmented once, where their superpixels fit into the memory set aside.
    """
    sizes: Any = {"image_size": config.image_size, "num_groups": config.num_groups, "batch_size": train.batch_size}

    def segmented(source: Source) -> Source:
        if 8 * config.image_size**2 * len(source) >= _CACHE_BYTES:
            return source
        return presegment(source, image_size=config.image_size, num_groups=config.num_groups, progress=progress)

    if validation is None and not isinstance(data, Batches):
        data, validation = split(data, validation=train.validation_share, seed=train.seed)
    if validation is not None and not isinstance(validation, Batches):
        validation = Loader(segmented(validation), train=False, **sizes)
    if not isinstance(data, Batches):
        crops = train.augment.crop is not None if isinstance(train.augment, Augmentation) else train.augment
        source = data if crops else segmented(data)
        data = Loader(source, seed=train.seed, augment=train.augment, **sizes)
    return data, validation


def iterate(loader: Batches, first: int, end: int) -> Iterable[Batch]:
    """The batches from step `first` on, up to `end` at least; prepared ahead where the loader can do that."""
    if first == end:
        return ()
    iterate = getattr(loader, "iterate", None)
    return map(loader.batch, range(first, end)) if iterate is None else iterate(first)


def size_of(data: Source | Batches) -> int:
    return data.steps_per_epoch if isinstance(data, Batches) else len(data)


def check_batch(batch: Batch, config: Config, *, step: int, first: bool, where: str = "training") -> None:
    """Raises ValueError for images, regions and labels that the model cannot learn from, naming the step.

    first: True looks at everything. False looks only at what is cheap to look at: images and labels on the host. (Of 64
           float images of 224 x 224 it takes 2.4 ms; what lies on a device would have to be waited for.)
    """
    name = f"the batch of step {step} of the {where}"
    count = len(batch.images)
    if first or isinstance(batch.images, np.ndarray):
        check_range(batch.images, name=f"the images of {name}")
    if first and (np.shape(batch.regions) != np.shape(batch.images)[:3] or np.min(np.asarray(batch.regions)) < 0):
        raise InputError(
            f"expected superpixels int{list(np.shape(batch.images)[:3])}, numbered from 0, in {name}; got shape "
            f"{list(np.shape(batch.regions))}"
        )
    if first or isinstance(batch.labels, np.ndarray):
        check_labels(batch.labels, count, config.num_classes, name=f"the labels of {name}")
