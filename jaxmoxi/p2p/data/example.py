"""What P2P learns from: an example, a source of examples, a batch of them, and a maker of batches."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Int, UInt8


class Example(NamedTuple):
    """One labelled image.

    image:   uint8[H, W, 3].
    label:   the class, an integer.
    mask:    bool[H, W], the pixels of the object; None where nobody has marked it.
    regions: int32[H, W], superpixels 0 .. G-1; None to have them computed.
    """

    image: UInt8[np.ndarray, "H W 3"]
    label: int
    mask: Bool[np.ndarray, "H W"] | None = None
    regions: Int[np.ndarray, "H W"] | None = None


@runtime_checkable  # for the type checker of the tests
class Source(Protocol):
    """Labelled images by their index. `class_names[label]` is a class in words."""

    class_names: tuple[str, ...]

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Example: ...


class Batch(NamedTuple):
    """Examples of one size, side by side.

    images: uint8[B, H, W, 3]. regions: int32[B, H, W], superpixels. labels: int32[B].
    masks:  bool[B, H, W], the objects' pixels; None where they are not known.
    """

    images: Any
    regions: Any
    labels: Any
    masks: Any = None


@runtime_checkable
class Batches(Protocol):
    """What training asks of a `Loader`: any object with these two will do.

    steps_per_epoch: batches of an epoch.
    """

    steps_per_epoch: int

    def batch(self, step: int, /) -> Batch:
        """The batch of a step, counted from 0 over all epochs; a pure function of the step."""
        ...
