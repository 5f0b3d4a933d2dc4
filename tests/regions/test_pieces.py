"""The connected pieces of a group, against a search through the image by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxmoxi as jm
from jaxmoxi.regions.pieces import check_neighbours, count_pieces, neighbour_lists, piece_roots


def neighbours_by_hand(regions):
    """Who touches whom along rows and columns, pixel by pixel."""
    near = np.zeros((regions.max() + 1,) * 2, bool)
    height, width = regions.shape
    for y in range(height):
        for x in range(width):
            for other in ((y + 1, x), (y, x + 1)):
                if other[0] < height and other[1] < width and regions[other] != regions[y, x]:
                    near[regions[y, x], regions[other]] = near[regions[other], regions[y, x]] = True
    return near


def pieces_by_hand(group, near):
    left, pieces = set(np.flatnonzero(group).tolist()), []
    while left:
        piece, front = set(), [left.pop()]
        while front:
            player = front.pop()
            piece.add(player)
            following = [q for q in np.flatnonzero(near[player]).tolist() if q in left]
            left -= set(following)
            front += following
        pieces.append(sorted(piece))
    return sorted(pieces)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**6), st.sampled_from(["grid", "islands", "chain"]), st.floats(0.05, 0.95))
def test_pieces_are_those_found_by_hand(seed, kind, share):
    rng = np.random.default_rng(seed)
    if kind == "grid":
        near = neighbours_by_hand(np.asarray(jm.grid_regions(12, 15, rows=4, cols=5)))
    elif kind == "chain":
        near = np.zeros((23, 23), bool)
        order = rng.permutation(23)
        near[order[1:], order[:-1]] = near[order[:-1], order[1:]] = True
    else:
        near = np.triu(rng.random((17, 17)) < 0.1, 1)
        near |= near.T
    groups = rng.random((6, len(near))) < share
    groups[0], groups[1] = False, True
    lists = neighbour_lists(near)
    roots = piece_roots(groups, lists)
    for group, root, count in zip(groups, roots, count_pieces(groups, lists), strict=True):
        want = pieces_by_hand(group, near)
        assert sorted(np.flatnonzero(root == first).tolist() for first in np.unique(root[group])) == want
        assert count == len(want)
        assert (root[~group] == len(near)).all()


def test_superpixels_touch_where_their_pixels_do():
    rng = np.random.default_rng(0)
    photo = np.kron(rng.integers(0, 256, (6, 6, 3)), np.ones((5, 5, 1))).astype(np.uint8)
    regions = np.asarray(jm.slic_regions(photo, num_segments=14))
    near = neighbours_by_hand(regions)
    np.testing.assert_array_equal(np.asarray(jm.region_adjacency(regions, len(near))) > 0, near)
    group = rng.random(len(near)) < 0.4
    told = jm.group_pieces(group, regions)
    want = pieces_by_hand(group, near)
    assert told.count == len(want)
    assert sorted(np.flatnonzero(told.labels == i).tolist() for i in range(told.count)) == want
    assert told.share == pytest.approx(np.isin(regions, np.flatnonzero(group)).mean())
    assert list(told.shares) == sorted(told.shares, reverse=True)
    assert sum(told.shares) == pytest.approx(told.share)
    assert sum(told.sizes) == group.sum()


def test_a_group_in_words():
    regions = jm.grid_regions(20, 30, rows=2, cols=3)
    assert str(jm.group_pieces(jnp.array([1, 1, 0, 0, 0, 1], bool), regions)) == "2 pieces, 50 % of the image"
    assert str(jm.group_pieces(np.array([1, 0, 0, 1, 0, 0], bool), regions)) == "1 piece, 33 % of the image"
    assert str(jm.group_pieces(np.zeros(6, bool), regions)) == "0 pieces, 0 % of the image"
    told = jm.group_pieces(np.array([1, 0, 1, 0, 0, 1], bool), regions)
    assert told.labels.tolist() == [1, -1, 0, -1, -1, 0]
    assert told.sizes == (2, 1)
    fine = jm.grid_regions(60, 60, rows=15, cols=15)
    assert str(jm.group_pieces(np.arange(225) == 7, fine)) == "1 piece, 0.4 % of the image"


def test_a_region_in_several_parts_is_told_of():
    regions = np.array([[0, 1, 0], [2, 2, 2]])
    with pytest.warns(UserWarning, match="1 of the group's regions lie in several parts of the image .region 0 in 2"):
        told = jm.group_pieces(np.array([True, False, False]), regions)
    assert told.count == 1
    jm.group_pieces(np.array([False, True, True]), regions)  # a warning would be an error


def test_errors():
    regions = jm.grid_regions(4, 4, rows=2, cols=2)
    with pytest.raises(jm.InputError, match=r"a group bool\[4\], one entry for each region; got bool of shape"):
        jm.group_pieces(np.ones(3, bool), regions)
    with pytest.raises(jm.InputError, match="without a gap"):
        jm.group_pieces(np.ones(2, bool), np.array([[0, 2]]))
    for wrong, said in [
        (np.ones((3, 4)), r"expected neighbours \[4, 4\].*region_adjacency\(regions, 4\)"),
        (np.full((4, 4), "a"), "expected neighbours"),
        (np.full((4, 4), -1), "finite and at least 0"),
        (np.full((4, 4), np.nan), "finite and at least 0"),
        (np.arange(16).reshape(4, 4) == 1, "player 0 and player 1 are neighbours in one direction alone"),
    ]:
        with pytest.raises(jm.InputError, match=said):
            check_neighbours(wrong, 4)
    assert not check_neighbours(np.eye(4), 4).any()


def test_pieces_are_counted_outside_jit_and_of_images_with_pixels():
    group = jnp.ones(4, bool)
    with pytest.raises(ValueError, match="group_pieces counts pieces on the host .*; call it outside jit"):
        jax.jit(lambda g: jm.group_pieces(g, jnp.arange(4).reshape(2, 2)).count)(group)
    with pytest.raises(ValueError, match=r"expected regions of integers \[H, W\], with pixels; got int32 of shape"):
        jm.group_pieces(group, jnp.zeros((0, 5), jnp.int32))
