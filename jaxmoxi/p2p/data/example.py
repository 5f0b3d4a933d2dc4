"""What P2P learns from: an example, a source of examples, a batch of them, and a maker of batches."""

from __future__ import annotations

from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Array, Bool, Int, UInt8


class Example(NamedTuple):
    """One labelled image.

    image:   uint8[H, W, 3].
    label:   the class, an integer.
    mask:    bool[H, W], the pixels of the object; None if they are unknown.
    regions: int32[H, W], superpixels 0 .. G-1; None lets the loader make them.
    """

    image: UInt8[np.ndarray, "H W 3"]
    label: int
    mask: Bool[np.ndarray, "H W"] | None = None
    regions: Int[np.ndarray, "H W"] | None = None


@runtime_checkable  # for the type checker of the tests
class Source(Protocol):
    """Labelled images by their index. `class_names[label]` is the name of a class."""

    class_names: tuple[str, ...]

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Example: ...


class Batch(NamedTuple):
    """Examples of one size, side by side.

    images:  uint8[B, H, W, 3].
    regions: int32[B, H, W], superpixels 0 .. G-1.
    labels:  int32[B].
    masks:   bool[B, H, W], the objects' pixels; None if they are unknown.
    """

    images: UInt8[np.ndarray, "B H W 3"] | UInt8[Array, "B H W 3"]
    regions: Int[np.ndarray, "B H W"] | Int[Array, "B H W"]
    labels: Int[np.ndarray, "B"] | Int[Array, "B"]
    masks: Bool[np.ndarray, "B H W"] | Bool[Array, "B H W"] | None = None


@runtime_checkable
class Batches(Protocol):
    """What training asks of a `Loader`: any object with these two will do.

    steps_per_epoch: batches of an epoch.
    """

    steps_per_epoch: int

    def batch(self, step: int, /) -> Batch:
        """The batch of a step, counted from 0 over all epochs; a pure function of the step."""
        ...
