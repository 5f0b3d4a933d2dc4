"""Players in pixel space: label maps, and the algorithms that make them."""

from jaxmoxi.regions.label_maps import (
    count_regions,
    grid_regions,
    num_regions,
    pad_regions,
    pool_regions,
    region_adjacency,
    region_borders,
    region_sizes,
    relabel,
    visible_pixels,
)
from jaxmoxi.regions.pieces import Pieces, group_pieces
from jaxmoxi.regions.superpixels import slic_regions, watershed_regions

__all__ = [
    "Pieces",
    "count_regions",
    "grid_regions",
    "group_pieces",
    "num_regions",
    "pad_regions",
    "pool_regions",
    "region_adjacency",
    "region_borders",
    "region_sizes",
    "relabel",
    "slic_regions",
    "visible_pixels",
    "watershed_regions",
]
