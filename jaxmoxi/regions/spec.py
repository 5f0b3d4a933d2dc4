"""The players of a photo in a few letters, as options and settings give them: `grid:ROWSxCOLUMNS` or `slic:COUNT`."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import numpy as np
from jaxtyping import Array, Int

from jaxmoxi.errors import InputError
from jaxmoxi.regions.label_maps import grid_regions
from jaxmoxi.regions.superpixels import slic_regions


@dataclasses.dataclass(frozen=True)
class RegionSpec:
    """The players of a photo before there is a photo. `str(spec)` is the text that `parse_regions` reads.

    rows, cols: of a grid; None for superpixels.
    count:      the number of players: exact for a grid, the most that there will be for superpixels.
    """

    rows: int | None
    cols: int | None
    count: int

    def __str__(self) -> str:
        return f"slic:{self.count}" if self.rows is None else f"grid:{self.rows}x{self.cols}"

    def label_map(self, photo: Any) -> Int[Array, "H W"]:
        """The label map of a photo, labels 0 .. P-1.

        photo: uint8[H, W, 3], or what else `jaxmoxi.slic_regions` takes for one image: [H, W] or [H, W, C].
        Raises ValueError for a grid with more rows or columns than the photo has pixels, and as `slic_regions` does.
        """
        if self.rows is None or self.cols is None:
            if np.ndim(photo) == 4:
                raise InputError(f"expected one image [H, W] or [H, W, C]; got shape {np.shape(photo)}")
            return slic_regions(photo, num_segments=self.count)
        return grid_regions(*np.shape(photo)[:2], rows=self.rows, cols=self.cols)


def parse_regions(text: str) -> RegionSpec:
    """What a text such as "grid:14x14" or "slic:60" asks for. Raises ValueError for any other text, and for zeros."""
    if found := re.fullmatch(r"grid:0*([1-9]\d*)x0*([1-9]\d*)", text):
        rows, cols = int(found[1]), int(found[2])
        return RegionSpec(rows, cols, rows * cols)
    if found := re.fullmatch(r"slic:0*([1-9]\d*)", text):
        return RegionSpec(None, None, int(found[1]))
    raise InputError(
        f"expected regions of grid:ROWSxCOLUMNS or slic:COUNT; got {text!r}: write for example grid:14x14 or slic:60"
    )
