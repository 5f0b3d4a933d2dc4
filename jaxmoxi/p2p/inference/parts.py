"""The parts that a selector sees in an image: superpixels that are kept or dropped together, by their embeddings.

Source: Vandenhirtz, Vogt, "From Pixels to Perception", ICML 2025, appendix C. The logits of the superpixels are jointly
normal with the covariance E E^T (see `distribution`), so superpixels of like embedding belong together for the
selector: those of one part of an object, or of the background.

The distance of two superpixels is |e_i - e_j|^2 = Var(l_i) + Var(l_j) - 2 Cov(l_i, l_j) = Var(l_i - l_j), the variance
of the difference of their logits: it is small where both always come together. A threshold adds the same numbers to
every embedding, which changes the covariance and leaves this distance as it is; so the parts do not depend on it.
Agglomerative clustering (Ward, JASA 1963; SciPy's) merges what is closest first, and one tree gives every number of
clusters: each part of a finer cut lies in one whole of a coarser cut.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Int

from jaxmoxi.errors import InputError


def part_clusters(
    embeddings: ArrayLike, areas: ArrayLike, *, num_parts: int | Sequence[int] = 5
) -> Int[np.ndarray, "*L B G"] | Int[np.ndarray, "*L G"]:
    """Which part of its image each superpixel belongs to, by agglomerative clustering of the embeddings.

    embeddings: float[B, G, E] or float[G, E], `Prediction.embeddings`. Only their distances matter.
    areas:      float[B, G] or float[G], `Prediction.areas`; superpixels of area 0 have no pixels and no part.
    num_parts:  the most parts of an image, at least 1; or several numbers, cuts of one tree, so that a part of a larger
                number lies inside one of a smaller number.

    Returns int32[B, G] or int32[G], led by [L] for L numbers: parts 0 .. C-1 of each image, the largest area first;
    -1 for superpixels without pixels. C is smaller than `num_parts` where there are not as many superpixels, or where
    embeddings are equal. Images are clustered one by one: part 0 of one image has nothing to do with part 0 of another.
    Raises ValueError for embeddings of no dimension (a model of independent superpixels has none), for shapes that do
    not fit, for numbers that are not finite, and for a number of parts below 1.
    """
    found, shares = np.asarray(embeddings, np.float64), np.asarray(areas)
    if found.ndim not in (2, 3) or not found.shape[-1] or shares.shape != found.shape[:-1]:
        raise InputError(
            "expected embeddings [G, E] of at least one dimension and areas [G], or both led by [B]; got "
            f"{list(found.shape)} and {list(shares.shape)}: a model of independent superpixels (embedding_size=0) has "
            "no embeddings"
        )
    if not np.isfinite(found).all():
        raise InputError("expected embeddings of finite numbers; got NaN or infinity: are the model's weights finite?")
    counts = (num_parts,) if isinstance(num_parts, int | np.integer) else tuple(num_parts)
    if not counts or min(counts) < 1:
        raise InputError(f"num_parts must be at least 1; got {num_parts}")
    groups = found.shape[-2]
    images = zip(found.reshape(-1, groups, found.shape[-1]), shares.reshape(-1, groups), strict=True)
    labels = np.stack([_cuts(*image, counts) for image in images], axis=1).reshape(len(counts), *shares.shape)
    return labels if np.iterable(num_parts) else labels[0]


def _cuts(embeddings: np.ndarray, areas: np.ndarray, counts: Sequence[int]) -> Int[np.ndarray, "L G"]:
    """The cuts of one image's tree."""
    from scipy.cluster.hierarchy import fcluster, linkage

    present = np.flatnonzero(areas > 0)
    found = np.full((len(counts), len(areas)), -1, np.int32)
    if len(present) < 2:
        found[:, present] = 0
        return found
    tree = linkage(embeddings[present], "ward")
    for row, count in zip(found, counts, strict=True):
        own = fcluster(tree, count, "maxclust") - 1
        _, first = np.unique(own, return_index=True)
        row[present] = np.argsort(np.lexsort((first, -np.bincount(own, areas[present]))))[own]
    return found
