"""Parts and wholes: superpixels that are kept or dropped together."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from jaxmoxi import p2p
from jaxmoxi.p2p.distribution import covariance


@pytest.fixture
def embeddings():
    """Two images of nine groups, the last without pixels: two wholes, of which one has two parts."""
    rng = np.random.default_rng(0)
    centres = np.array([[0, 0], [10, 0], [10, 2]])
    own = np.array([[0, 0, 0, 0, 1, 1, 2, 2, 0], [1, 1, 2, 2, 0, 0, 0, 0, 0]])
    found = centres[own] + 0.1 * rng.normal(size=(2, 9, 2))
    found[:, 8] = 100
    return found.astype(np.float32)


AREAS = np.array([0.15, 0.15, 0.1, 0.1, 0.14, 0.14, 0.11, 0.11, 0.0])


def test_parts_lie_inside_wholes_and_the_largest_comes_first(embeddings):
    areas = np.stack([AREAS, AREAS])
    wholes, parts = p2p.part_clusters(embeddings, areas, num_parts=(2, 3))
    assert wholes.dtype == np.int32
    assert wholes.tolist() == [[0, 0, 0, 0, 1, 1, 1, 1, -1], [0, 0, 0, 0, 1, 1, 1, 1, -1]]
    assert parts.tolist() == [[0, 0, 0, 0, 1, 1, 2, 2, -1], [1, 1, 2, 2, 0, 0, 0, 0, -1]]
    many = p2p.part_clusters(embeddings, areas, num_parts=range(1, 9))
    for coarse, fine in itertools.pairwise(many):
        for i in (0, 1):
            assert len({(c, f) for c, f in zip(coarse[i], fine[i], strict=True)}) == len(set(fine[i]))
    assert many[:, :, :8].max((1, 2)).tolist() == list(range(8))


def test_images_are_clustered_one_by_one_and_thresholds_change_nothing(embeddings):
    areas = np.stack([AREAS, AREAS])
    both = p2p.part_clusters(embeddings, areas, num_parts=3)
    np.testing.assert_array_equal(both[1], p2p.part_clusters(embeddings[1], AREAS, num_parts=3))
    shifted = embeddings + np.float32([3, -7])  # what a threshold adds
    np.testing.assert_array_equal(both, p2p.part_clusters(shifted, areas, num_parts=3))
    cov = np.asarray(covariance(jnp.asarray(shifted)))
    variances = np.einsum("bgg->bg", cov)
    differences = variances[:, :, None] + variances[:, None] - 2 * cov
    distances = ((embeddings[:, :, None] - embeddings[:, None]) ** 2).sum(-1)
    np.testing.assert_allclose(differences, distances, atol=2e-2)  # the distance clustered by, whatever the threshold


def test_few_groups_and_what_cannot_be(embeddings):
    alone = np.zeros(9)
    alone[3] = 1
    assert p2p.part_clusters(embeddings[0], alone).tolist() == [-1, -1, -1, 0, -1, -1, -1, -1, -1]
    assert p2p.part_clusters(np.zeros((9, 2)), AREAS, num_parts=4).max() == 0  # equal embeddings are one part
    for wrong, areas, count, message in (
        (np.zeros((9, 0)), AREAS, 2, r"expected embeddings \[G, E\].*embedding_size=0"),
        (embeddings, AREAS, 2, "or both led by"),
        (embeddings[0], AREAS, 0, "num_parts must be at least 1; got 0"),
        (embeddings[0], AREAS, (), "num_parts must be at least 1"),
        (np.full((9, 2), np.nan), AREAS, 2, "expected embeddings of finite numbers"),
    ):
        with pytest.raises(ValueError, match=message):
            p2p.part_clusters(wrong, areas, num_parts=count)
