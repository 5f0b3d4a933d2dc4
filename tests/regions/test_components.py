import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from jaxmoxi.regions.components import connected_components, join_small, number_regions
from jaxmoxi.regions.label_maps import relabel

SHAPE = (9, 12)
components = jax.jit(connected_components)


def first_pixels(labels):
    """The components by SciPy, each pixel with the index of its component's first one."""
    roots = np.empty(labels.shape, int)
    index = np.arange(labels.size).reshape(labels.shape)
    for label in np.unique(labels):
        parts, count = ndimage.label(labels == label)
        for part in range(1, count + 1):
            roots[parts == part] = index[parts == part].min()
    return roots


def pixels(seed, high, shape=SHAPE):
    return np.random.default_rng(seed).integers(0, high, shape)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10**6), high=st.integers(1, 5))
def test_components_are_scipys(seed, high):
    labels = pixels(seed, high)
    np.testing.assert_array_equal(components(jnp.asarray(labels)), first_pixels(labels))


def test_components_that_wind():
    snake = np.zeros((31, 41), int)
    snake[1::2] = 1  # comb: walls between rows, each open at another end
    snake[1::4, -1] = snake[3::4, 0] = 0
    spiral = np.zeros((33, 33), int)
    for ring in range(0, 16, 2):
        spiral[ring : 33 - ring, ring : 33 - ring] = 1
        spiral[ring + 1 : 32 - ring, ring + 1 : 32 - ring] = 0
        spiral[ring + 1, ring] = 0
    for labels in (snake, snake[::-1, ::-1], spiral, spiral.T, np.zeros_like(snake)):
        np.testing.assert_array_equal(components(jnp.asarray(labels)), first_pixels(labels))


def join_by_hand(roots, colours, min_size, max_regions):
    """`join_small` in plain Python, one set of pixels for a region."""
    height, width = roots.shape
    regions = {}
    for i, root in enumerate(roots.ravel()):
        regions.setdefault(int(root), set()).add(i)
    flat = colours.reshape(3, -1)
    means = {r: flat[:, sorted(p)].mean(1) for r, p in regions.items()}

    def touching(one):
        found = set()
        for i in regions[one]:
            y, x = divmod(i, width)
            for other, inside in ((i - width, y), (i + width, y < height - 1), (i - 1, x), (i + 1, x < width - 1)):
                found |= {r for r, p in regions.items() if inside and other in p}
        return found - {one}

    while True:
        sizes = {r: len(p) for r, p in regions.items()}
        least = next(s for s in range(min_size, roots.size + 1) if sum(v >= s for v in sizes.values()) <= max_regions)
        small = [r for r in regions if sizes[r] < least]
        if not small:
            return {frozenset(p) for p in regions.values()}
        parent = {}
        for r in small:
            larger = [o for o in touching(r) if (sizes[o], -o) > (sizes[r], -r)]
            if larger:
                parent[r] = min(larger, key=lambda o, r=r: (round(float(((means[o] - means[r]) ** 2).sum()), 3), o))
        for r in parent:
            top = r
            while top in parent:
                top = parent[top]
            regions[top] |= regions[r]
        regions = {r: p for r, p in regions.items() if r not in parent}


@pytest.mark.parametrize(("min_size", "max_regions"), [(1, 200), (4, 200), (12, 200), (1, 6), (9, 3), (1, 1)])
def test_joining_is_what_it_says(min_size, max_regions):
    join = jax.jit(functools.partial(join_small, min_size=min_size, max_regions=max_regions))
    for seed in range(6):
        labels = pixels(seed, 3)
        roots = first_pixels(labels)
        # Whole colours, unequal differences: no two neighbours are equally close but by equal colours.
        colours = np.random.default_rng(seed).integers(-100, 100, (3, 108))[:, roots].astype(np.float32)
        joined = np.asarray(join(jnp.asarray(roots), jnp.asarray(colours)))
        sets = {frozenset(np.flatnonzero(joined.ravel() == r).tolist()) for r in np.unique(joined)}
        assert sets == join_by_hand(roots, colours, min_size, max_regions)
        assert len(sets) <= max_regions
        assert all(len(s) >= min_size for s in sets)


def test_equal_regions_that_are_too_many_join_until_they_are_few():
    roots = jnp.arange(64).reshape(8, 8)  # every pixel a region of its own, all of one size and colour
    joined = join_small(roots, jnp.zeros((3, 8, 8)), min_size=1, max_regions=10)
    assert 1 <= len(np.unique(joined)) <= 10


def test_numbers_are_those_of_relabel():
    for seed in range(5):
        labels = pixels(seed, 108)
        np.testing.assert_array_equal(number_regions(jnp.asarray(labels)), relabel(labels))
