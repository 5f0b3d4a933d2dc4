"""jaxmoxi: which regions of an image, together, make a classifier believe what it believes?"""

import importlib
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from jaxmoxi import attribution, games, interactions, metrics, models, plot, search
from jaxmoxi.bridges import (
    as_shapiq_game,
    from_callable,
    from_equinox,
    from_linen,
    from_nnx,
    from_shapiq,
    from_torch,
    to_shapiq,
)
from jaxmoxi.errors import InputError, NaNValueError, OutOfMemoryError
from jaxmoxi.games.base import ValueFn
from jaxmoxi.games.evaluation import choose_batch_size, evaluate, readouts
from jaxmoxi.games.fill import blur_image
from jaxmoxi.games.image import pixel_value_fn, token_value_fn
from jaxmoxi.games.payoff import payoff_values
from jaxmoxi.games.robust import robust_value_fn
from jaxmoxi.games.sharding import ShardedValueFn, local_mesh, shard_coalitions
from jaxmoxi.interactions.shapley import sampled_shapley
from jaxmoxi.moxi.batched import greedy_images
from jaxmoxi.moxi.compiling import compile_greedy
from jaxmoxi.moxi.contexts import (
    full_context_shapley,
    pairwise_interactions,
    self_context_shapley,
)
from jaxmoxi.moxi.curves import curve_readouts, deletion_curve, insertion_curve
from jaxmoxi.moxi.discriminate import discriminate
from jaxmoxi.moxi.greedy import (
    GreedyState,
    greedy_deletion,
    greedy_init,
    greedy_insertion,
    greedy_step,
    single_player_order,
)
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
from jaxmoxi.types import Curve, Discrimination, GreedyInfo, GreedyResult, Readout, ShapleyEstimate, Stop, TwoClasses

if TYPE_CHECKING:
    from jaxmoxi import p2p, study

try:
    __version__ = version("jaxmoxi")
except PackageNotFoundError:  # run from a source tree that was never installed
    __version__ = "0+unknown"

__all__ = [
    "Curve",
    "Discrimination",
    "GreedyInfo",
    "GreedyResult",
    "GreedyState",
    "InputError",
    "NaNValueError",
    "OutOfMemoryError",
    "Pieces",
    "Readout",
    "ShapleyEstimate",
    "ShardedValueFn",
    "Stop",
    "TwoClasses",
    "ValueFn",
    "as_shapiq_game",
    "attribution",
    "blur_image",
    "choose_batch_size",
    "compile_greedy",
    "count_regions",
    "curve_readouts",
    "deletion_curve",
    "discriminate",
    "evaluate",
    "from_callable",
    "from_equinox",
    "from_linen",
    "from_nnx",
    "from_shapiq",
    "from_torch",
    "full_context_shapley",
    "games",
    "greedy_deletion",
    "greedy_images",
    "greedy_init",
    "greedy_insertion",
    "greedy_step",
    "grid_regions",
    "group_pieces",
    "insertion_curve",
    "interactions",
    "local_mesh",
    "metrics",
    "models",
    "num_regions",
    "p2p",
    "pad_regions",
    "pairwise_interactions",
    "payoff_values",
    "pixel_value_fn",
    "plot",
    "pool_regions",
    "readouts",
    "region_adjacency",
    "region_borders",
    "region_sizes",
    "relabel",
    "robust_value_fn",
    "sampled_shapley",
    "search",
    "self_context_shapley",
    "shard_coalitions",
    "single_player_order",
    "slic_regions",
    "study",
    "to_shapiq",
    "token_value_fn",
    "visible_pixels",
    "watershed_regions",
]


def __getattr__(name: str) -> Any:
    if name in ("p2p", "study"):  # on first use: checkpoints, training and buckets bring what takes a while to import
        return importlib.import_module(f"jaxmoxi.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
