"""What a run is fed: batches made of sources, and a check of each batch before it is trained on.

Of several processes each makes its own rows of a batch: a `Loader` of its shard does that, and of any other `Batches`
each process makes the whole batch and keeps its rows. So the rows of all processes, one after the other, are the batch
that one process would train on.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from jaxmoxi.errors import InputError
from jaxmoxi.p2p.config import Config
from jaxmoxi.p2p.data import Arrays, Augmentation, Loader, Subset, presegment, split
from jaxmoxi.p2p.data.example import Batch, Batches, Source
from jaxmoxi.p2p.placement import Placement
from jaxmoxi.p2p.processes import Team
from jaxmoxi.p2p.ranges import check_labels, check_range
from jaxmoxi.p2p.training.config import TrainConfig

_CACHE_BYTES = 1 << 30
_GATHERED_BYTES = 1 << 26


def make_batches(
    config: Config,
    train: TrainConfig,
    data: Source | Batches,
    validation: Source | Batches | None,
    progress: bool,
    team: Team,
) -> tuple[Batches, Batches | None]:
    """This process's part of the batches to train on and to validate on, each a pure function of the step.

    Images that are not cropped at random are segmented once, where their superpixels fit into the memory set aside.
    """
    sizes: Any = {"image_size": config.image_size, "num_groups": config.num_groups, "batch_size": train.batch_size}

    def segmented(source: Source) -> Source:
        if 8 * config.image_size**2 * len(source) >= _CACHE_BYTES:
            return source
        return _presegmented(source, config, progress and team.first, team)

    if validation is None and not isinstance(data, Batches):
        data, validation = split(data, validation=train.validation_share, seed=train.seed)
    if validation is not None and not isinstance(validation, Batches):
        validation = Loader(segmented(validation), train=False, **sizes)
    if not isinstance(data, Batches):
        crops = train.augment.crop is not None if isinstance(train.augment, Augmentation) else train.augment
        source = data if crops else segmented(data)
        data = Loader(source, seed=train.seed, augment=train.augment, **sizes)
    if team.count == 1:
        return data, validation
    return _part(data, team), None if validation is None else _every_nth(validation, team)


def _presegmented(source: Source, config: Config, progress: bool, team: Team) -> Arrays:
    """`presegment`, of which each process makes a part that all then have."""
    sizes: Any = {"image_size": config.image_size, "num_groups": config.num_groups, "progress": progress}
    if team.count == 1:
        return presegment(source, **sizes)
    count = len(source)
    share = -(-count // team.count)
    with team.agreeing():
        rows = np.minimum(np.arange(team.index * share, (team.index + 1) * share), count - 1)
        part = presegment(Subset(source, rows), **sizes)

    def all_of(array: np.ndarray | None) -> np.ndarray | None:
        if array is None:
            return None
        some = max(_GATHERED_BYTES // max(array[:1].nbytes * team.count, 1), 1)  # at once: every device holds them all
        whole = np.empty((team.count, *array.shape), array.dtype)
        for start in range(0, share, some):
            rows = array[start : start + some]
            whole[:, start : start + some] = team.gather(rows).reshape(team.count, *rows.shape)
        return whole.reshape(-1, *array.shape[1:])[:count]

    images, labels, masks, regions = map(all_of, (part.images, part.labels, part.masks, part.regions))
    return Arrays(images, labels, masks=masks, regions=regions, class_names=source.class_names)  # type: ignore[arg-type]


def _part(batches: Batches, team: Team) -> Batches:
    """This process's rows of every batch."""
    shard = getattr(batches, "shard", None)
    if shard == team.shard:
        return batches
    if isinstance(batches, Loader):
        return batches.divided(*team.shard)
    if shard is not None:
        raise InputError(f"expected batches of the shard {team.shard}, or of all examples; got the shard {shard}")
    return _Rows(batches, team)


def _every_nth(batches: Batches, team: Team) -> Batches:
    """This process's share of the images to validate on. It makes no difference which batch an image is in."""
    if isinstance(batches, Loader) and batches.shard == (0, 1) and len(batches.source) >= team.count:
        return batches.divided(*team.shard) if batches.batch_size % team.count == 0 else _Nth(batches, team)
    return batches if getattr(batches, "shard", None) == team.shard else _Nth(batches, team)


class _Rows:
    """The rows of one process of batches that every process makes as a whole.

    whole: a checksum of the first batch that was made, as a whole.
    """

    def __init__(self, batches: Batches, team: Team):
        self._batches, self._team = batches, team
        self.steps_per_epoch = batches.steps_per_epoch
        self.whole: int | None = None

    def batch(self, step: int, /) -> Batch:
        batch = self._batches.batch(step)
        count, size = len(batch.images), len(batch.images) // self._team.count
        if size * self._team.count != count:
            raise InputError(f"expected batches that {self._team.count} processes can divide; got {count} images")
        if self.whole is None:
            parts = [np.ascontiguousarray(x).view(np.uint8) for x in (batch.images, batch.labels, batch.regions)]
            self.whole = zlib.crc32(b"".join(zlib.crc32(part.tobytes()).to_bytes(4, "big") for part in parts))
        rows = slice(self._team.index * size, (self._team.index + 1) * size)
        return Batch(*[None if array is None else array[rows] for array in batch])  # type: ignore[arg-type]


class _Nth:
    """Every count-th batch."""

    def __init__(self, batches: Batches, team: Team):
        self._batches, self._team = batches, team
        self.steps_per_epoch = len(range(team.index, batches.steps_per_epoch, team.count))

    def batch(self, step: int, /) -> Batch:
        return self._batches.batch(self._team.index + step * self._team.count)


def feed(
    batches: Batches, config: Config, place: Placement, team: Team, *, first: int, total: int, stop: Callable[[], bool]
) -> Iterator[Batch | None]:
    """The batches of the steps first + 1 .. total, checked and on their devices; None where the run is to stop.

    batches: this process's part. Several processes agree before every step that all of them have their rows and none
             is to stop. They do so a step ahead, so that no device waits for the answer.
    Raises ValueError for a batch that nothing can be learned from, in all processes.
    """
    ready = iter(iterate(batches, first, total))

    def fetch(done: int) -> Batch:
        batch = next(ready, None)
        if batch is None:
            raise InputError(f"the data ended after step {done - 1} of {total}; expected batches for all of them")
        check_batch(batch, config, step=done, first=done == first + 1)
        return batch._replace(masks=None)

    if team.count == 1:
        for done in range(first + 1, total + 1):
            if stop():
                yield None
                return
            yield place.split(fetch(done))
        return

    def prepare(done: int) -> tuple[Batch | None, Exception | None, Any]:
        error, batch, asked = None, None, False
        try:
            asked = stop()
            batch = fetch(done)
        except Exception as raised:
            error = raised
        return batch, error, place.settle(team.vote(error, asked))

    ahead = prepare(first + 1)
    for done in range(first + 1, total + 1):
        batch, error, answer = ahead
        if team.check(error, int(answer)) or batch is None:
            yield None
            return
        if done == first + 1:
            _check_alike(batches, batch, team, place)
        placed = place.split(batch)
        if done < total:
            ahead = prepare(done + 1)
        yield placed


def _check_alike(batches: Batches, batch: Batch, team: Team, place: Placement) -> None:
    """Raises InputError, in all processes, for rows that do not make one batch."""
    whole = str(batches.whole) if isinstance(batches, _Rows) else ""
    found = team.texts(f"{len(batch.images)} {batch.images.dtype} {whole}")
    if len(set(found)) > 1:
        raise InputError(
            "expected the same batches in all processes, each a function of the step alone; the first ones differ. (A "
            "process that loads its own rows says so by an attribute shard = (process_index, process_count).)"
        )
    if len(batch.images) * team.count % place.num_devices:
        raise InputError(
            f"expected batches that {place.num_devices} devices can divide; got {len(batch.images) * team.count} images"
        )


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
