"""Sources in memory, parts of sources, and a hold-out."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Int, Key

from jaxmoxi.errors import InputError
from jaxmoxi.p2p.data.example import Example, Source
from jaxmoxi.p2p.data.scenes import CLASSES, Scenes, synthetic_scenes


class Arrays:
    """Examples in memory.

    images:      uint8[N, H, W, 3].
    labels:      integers[N], 0 .. K-1.
    masks:       bool[N, H, W], the objects' pixels; None if they are unknown.
    regions:     integers[N, H, W], superpixels numbered from 0; None lets the loader make them.
    class_names: K names; None takes the numbers.

    Raises ValueError for arrays that do not fit together.
    """

    def __init__(
        self,
        images: ArrayLike,
        labels: ArrayLike | Sequence[int],
        *,
        masks: ArrayLike | None = None,
        regions: ArrayLike | None = None,
        class_names: Sequence[str] | None = None,
    ):
        images, labels = np.asarray(images), np.asarray(labels)
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3:
            raise InputError(
                f"expected images uint8[N, H, W, 3]; got {images.dtype} of shape {images.shape}: multiply floats in "
                "[0, 1] by 255, round and convert"
            )
        if labels.dtype.kind not in "iu" or labels.shape != images.shape[:1]:
            raise InputError(
                f"expected integer labels [{len(images)}], one per image; got {labels.dtype} of shape {labels.shape}"
            )
        if not len(images):
            raise InputError("expected at least one image; got none")
        if class_names is None:
            class_names = [str(i) for i in range(int(labels.max()) + 1)]
        if labels.min() < 0 or labels.max() >= len(class_names):
            raise InputError(
                f"expected labels in 0 .. {len(class_names) - 1}, one of {len(class_names)} classes; got "
                f"{labels.min()} to {labels.max()}"
            )
        for name, maps, kinds in (("masks of booleans", masks, "b"), ("regions of integers", regions, "iu")):
            if maps is not None and (np.shape(maps) != images.shape[:3] or np.asarray(maps).dtype.kind not in kinds):
                raise InputError(
                    f"expected {name} {list(images.shape[:3])}, of the images' size; got {np.asarray(maps).dtype} of "
                    f"shape {np.shape(maps)}"
                )
        self.images, self.labels = images, labels.astype(np.int32)
        self.masks = None if masks is None else np.asarray(masks)
        self.regions = None if regions is None else np.asarray(regions).astype(np.int32)
        self.class_names: tuple[str, ...] = tuple(class_names)

    @classmethod
    def from_scenes(cls, scenes: Scenes) -> Arrays:
        """A source of the scenes, with the masks of their objects."""
        return cls(scenes.images, scenes.labels, masks=scenes.objects, class_names=CLASSES)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int, /) -> Example:
        mask, regions = (None if maps is None else maps[index] for maps in (self.masks, self.regions))
        return Example(self.images[index], int(self.labels[index]), mask, regions)


def scene_source(
    key: Key[Array, ""], count: int, *, image_size: int = 64, num_classes: int = 6, num_distractors: int = 4
) -> Arrays:
    """`synthetic_scenes` as a source, with the masks of the objects; its classes are the first `num_classes`."""
    scenes = synthetic_scenes(
        key, count, image_size=image_size, num_classes=num_classes, num_distractors=num_distractors
    )
    scenes = jax.device_get(scenes)
    return Arrays(scenes.images, scenes.labels, masks=scenes.objects, class_names=CLASSES[:num_classes])


class Subset:
    """Some examples of a source, in the order of `indices`.

    indices: integers[M], each in 0 .. N-1.
    Raises ValueError for an index out of range, or none.
    """

    def __init__(self, source: Source, indices: Sequence[int] | Int[np.ndarray, "M"]):
        self._source, self._indices = source, np.asarray(indices)
        if self._indices.ndim != 1 or not len(self._indices) or self._indices.dtype.kind not in "iu":
            raise InputError("expected a list of at least one index; got none, or no whole numbers")
        low, high = int(self._indices.min()), int(self._indices.max())
        if low < 0 or high >= len(source):
            raise InputError(f"expected indices in 0 .. {len(source) - 1}; got {low} to {high}")
        self.class_names: tuple[str, ...] = source.class_names

    @property
    def labels(self) -> Int[np.ndarray, "M"]:
        """The label of every example, int32[M]."""
        return read_labels(self._source)[self._indices]

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int, /) -> Example:
        return self._source[int(self._indices[index])]


def read_labels(source: Source) -> Int[np.ndarray, "N"]:
    """int32[N], the label of every example: the source's `labels` if it has them, else every example is read."""
    labels = getattr(source, "labels", None)
    if labels is None:
        labels = [source[i].label for i in range(len(source))]
    labels = np.asarray(labels)
    if labels.dtype.kind not in "iu" or labels.shape != (len(source),):
        raise InputError(
            f"expected integer labels [{len(source)}], one per example; got {labels.dtype} of shape {labels.shape}"
        )
    return labels.astype(np.int32)


def split(source: Source, *, validation: float, seed: int) -> tuple[Subset, Subset]:
    """(training, validation): disjoint parts of a source with the same shares of every class.

    validation: share of each class's examples that is held out, in (0, 1); at least one example, and never all.
    seed:       decides which examples; the same seed gives the same parts. Both parts keep the source's order.
    Raises ValueError for a share outside (0, 1), and for a class with a single example.
    """
    if not 0 < validation < 1:
        raise InputError(f"validation is a share in (0, 1); got {validation!r}")
    labels = read_labels(source)
    rng = np.random.default_rng(seed)
    held_out = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        own = np.flatnonzero(labels == label)
        if len(own) < 2:
            raise InputError(
                f"class {source.class_names[label]!r} has a single example; a hold-out needs two of every class"
            )
        count = min(max(round(validation * len(own)), 1), len(own) - 1)
        held_out[rng.permutation(own)[:count]] = True
    return Subset(source, np.flatnonzero(~held_out)), Subset(source, np.flatnonzero(held_out))
