"""What prediction, fidelity and evaluation share: checked inputs, and batches of one size for the networks.

Every call of a network here has the same number of rows, so each network is compiled once, whatever the number of
images. A mesh shares the rows of a batch among its devices.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int, UInt8

from jaxmoxi.errors import InputError
from jaxmoxi.p2p.model import P2P, normalize
from jaxmoxi.p2p.placement import Placement, placement
from jaxmoxi.p2p.processes import is_shared
from jaxmoxi.p2p.ranges import check_range

Images = UInt8[np.ndarray, "B H W 3"] | Float[np.ndarray, "B H W 3"] | Array
Regions = Int[np.ndarray, "B H W"] | Int[Array, "B H W"]
Rows = np.ndarray | tuple[np.ndarray, np.ndarray]  # whatever picks rows of an array: their numbers, by axis


def check_images(images: ArrayLike, regions: ArrayLike, model: P2P) -> tuple[Images, Regions]:
    """Images and int32 regions as arrays. Raises ValueError that says what does not fit the model.

    images: uint8, or floats in [0, 1]; whatever lies outside is refused, as the answers would be quietly wrong.
    """
    images, regions = (x if isinstance(x, jax.Array) else np.asarray(x) for x in (images, regions))
    check_range(images)
    shape = jax.eval_shape(lambda x: normalize(x, model.config), images).shape[:3]
    if regions.shape != shape or not jnp.issubdtype(regions.dtype, jnp.integer):
        raise InputError(f"expected regions int{list(shape)}; got {regions.dtype} of shape {list(regions.shape)}")
    if not len(images):
        raise InputError("expected at least one image; got none")
    if regions.min() < 0:
        raise InputError(f"expected regions labelled from 0 on; got the label {regions.min()}")
    return images, regions.astype(np.int32)


def check_masks(masks: ArrayLike, shape: tuple[int, ...]) -> Bool[np.ndarray, "B H W"]:
    """Objects' masks as an array. Raises ValueError for another dtype than bool, and for another shape."""
    masks = np.asarray(masks)
    if masks.shape != shape or masks.dtype != bool:
        raise InputError(f"expected masks bool{list(shape)}; got {masks.dtype} of shape {list(masks.shape)}")
    return masks


def check_finite(answers: Array | np.ndarray, whose: str) -> None:
    """Raises FloatingPointError that names the first image for which somebody answers NaN. answers: [B, ...]."""
    wrong = np.isnan(np.asarray(answers)).reshape(len(answers), -1).any(1)
    if wrong.any():
        raise FloatingPointError(
            f"the {whose} answers NaN for image {np.argmax(wrong)}; are the model's weights finite?"
        )


def check_batch_size(batch_size: int, count: int) -> int:
    """The rows of a batch for so many images. Raises ValueError for a size below 1."""
    if isinstance(batch_size, bool) or not isinstance(batch_size, int | np.integer) or batch_size < 1:
        raise InputError(f"batch_size must be at least 1; got {batch_size!r}")
    return min(batch_size, count)


def place_batches(size: int, mesh: Mesh | None) -> tuple[int, Placement]:
    """A size that the devices of a mesh can share (rounded up), and where arrays go.

    Raises ValueError for a mesh with devices of other processes: each predicts for itself.
    """
    if mesh is not None and is_shared(mesh):
        raise InputError(
            "expected a mesh of this process's own devices, as jaxmoxi.local_mesh() makes it; got one with devices of "
            "other processes: let each process predict other images"
        )
    size = size if mesh is None else -(-size // mesh.size) * mesh.size
    return size, placement(mesh, size)


def run_batch(
    run: Callable[..., Any], model: P2P, size: int, place: Placement, *picked: tuple[np.ndarray | Array, Rows]
) -> Any:
    """`run(model, ...)` on some rows of arrays, as NumPy arrays.

    picked: (array, rows) for each argument of `run`, at most `size` rows each, the same number everywhere. The last row
            is repeated until there are `size` of them, and the answers to the repetitions are dropped.
    """

    def fill(rows: np.ndarray) -> np.ndarray:
        return np.concatenate([rows, np.repeat(rows[-1:], size - len(rows))])

    count = len(picked[0][1])
    inputs = [a[tuple(map(fill, rows)) if isinstance(rows, tuple) else fill(rows)] for a, rows in picked]
    return jax.tree.map(lambda x: np.asarray(x)[:count], run(model, *place.split(inputs)))


@jax.jit
def classify_kept(
    model: P2P, images: Array, groups: Bool[Array, "B G"], regions: Int[Array, "B H W"]
) -> Float[Array, "B K"]:
    """log(p + 1e-6) of each class, seeing the kept groups alone. images: as `check_images` gives them."""
    return model.classify(model.normalize(images), groups, regions)
