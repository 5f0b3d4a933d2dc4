import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import skimage.color
import skimage.data
import skimage.transform
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

import jaxmoxi as jm
from jaxmoxi.regions.colours import rgb_to_lab
from jaxmoxi.regions.slic import choose_grid, cluster, slic
from support.xla import same_bits

SHAPE = (25, 34)
OPTIONS = dict(num_segments=12, compactness=20.0)
FINE = dict(num_segments=30, num_iterations=10, enforce_connectivity=True)
REGIONS = jax.jit(lambda x: jm.slic_regions(x, **OPTIONS), compiler_options=same_bits())


@pytest.fixture(scope="module")
def photos():
    """uint8[4, 112, 112, 3]."""
    names = [skimage.data.astronaut, skimage.data.chelsea, skimage.data.coffee, skimage.data.rocket]
    sized = [skimage.transform.resize(name()[:300, :300], (112, 112), anti_aliasing=True) for name in names]
    return (np.stack(sized) * 255).astype(np.uint8)


@st.composite
def images(draw):
    """Constant, noise, a few flat patches, or a slope; any contrast."""
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    kind = draw(st.sampled_from(["constant", "noise", "patches", "slope"]))
    low, high = sorted(draw(st.tuples(st.integers(0, 255), st.integers(0, 255))))
    if kind == "constant":
        image = np.full((*SHAPE, 3), rng.random(3))
    elif kind == "noise":
        image = rng.random((*SHAPE, 3))
    elif kind == "patches":
        image = rng.random((4, 3))[rng.integers(0, 4, (5, 7))].repeat(5, 0).repeat(5, 1)[:, : SHAPE[1]]
    else:
        image = np.linspace(0, 1, SHAPE[0] * SHAPE[1] * 3).reshape(*SHAPE, 3)
    return (low + image * (high - low)).astype(np.uint8)


def check_partition(labels, most):
    labels = np.asarray(labels)
    assert labels.dtype == np.int32
    count = jm.count_regions(labels)
    assert 1 <= count <= most
    assert (np.diff(np.unique(labels, return_index=True)[1]) > 0).all()  # raster order
    for label in range(count):
        assert ndimage.label(labels == label)[1] == 1, f"region {label} is not connected"


@settings(max_examples=60, deadline=None, derandomize=True)
@given(image=images(), compactness=st.sampled_from([0.1, 5.0, 20.0, 1000.0]))
def test_any_image_gives_connected_numbered_regions(image, compactness):
    labels = jm.slic_regions(image, num_segments=12, compactness=compactness)
    check_partition(labels, 12)
    np.testing.assert_array_equal(labels, jm.slic_regions(image, num_segments=12, compactness=compactness))


@pytest.mark.parametrize(("height", "width", "num_segments"), [(1, 1, 5), (1, 9, 3), (7, 5, 200), (40, 23, 17)])
def test_any_size_and_number(height, width, num_segments):
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8)
    check_partition(jm.slic_regions(image, num_segments=num_segments), num_segments)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(batch=st.lists(images(), min_size=4, max_size=4), order=st.permutations(range(4)))
def test_an_image_does_not_depend_on_its_batch(batch, order):
    batch = np.stack(batch)
    labels = np.asarray(REGIONS(batch))
    np.testing.assert_array_equal(REGIONS(batch[list(order)]), labels[list(order)])
    for image, own in zip(batch, labels, strict=True):
        np.testing.assert_array_equal(REGIONS(image), own)


def test_eager_is_jit_is_vmap_is_shard_map(photos):
    labels = jm.slic_regions(photos, num_segments=30)
    assert jax.jit(jm.num_regions)(labels).tolist() == [jm.count_regions(x) for x in labels]
    jitted = jax.jit(lambda x, c: jm.slic_regions(x, num_segments=30, compactness=c))
    np.testing.assert_array_equal(jitted(photos, 20.0), labels)
    np.testing.assert_array_equal(jax.vmap(lambda x: jm.slic_regions(x, num_segments=30))(photos), labels)
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:2]), ("devices",))
    spec = jax.sharding.PartitionSpec("devices")
    spread = jax.shard_map(lambda x: jm.slic_regions(x, num_segments=30), mesh=mesh, in_specs=spec, out_specs=spec)
    np.testing.assert_array_equal(jax.jit(spread)(photos), labels)


def test_another_compactness_compiles_nothing(photos):
    square = jm.slic_regions(photos, num_segments=30, compactness=100.0)
    size = slic._cache_size()
    loose = jm.slic_regions(photos, num_segments=30, compactness=1.0)
    assert slic._cache_size() == size
    assert jnp.sum(jm.region_borders(loose)) > 1.5 * jnp.sum(jm.region_borders(square))


def test_floats_give_the_same_regions(photos):
    labels = jm.slic_regions(photos, num_segments=30)
    floats = jm.slic_regions(photos / np.float32(255), num_segments=30)
    assert np.mean(np.asarray(floats == labels)) > 0.999  # the same colours, rounded elsewhere
    narrow = jm.slic_regions(photos / np.float32(510) + np.float32(0.25), num_segments=30)  # stretched again
    assert np.mean(np.asarray(narrow == labels)) > 0.99
    # Undefined colours, which only a traced image gets past the checks, leave the grid.
    nans = slic(jnp.full(photos.shape, jnp.nan), jnp.float32(20.0), **FINE)
    np.testing.assert_array_equal(nans[0], jm.grid_regions(112, 112, rows=5, cols=6))


def test_the_grid_it_begins_with(photos):
    grid = jm.grid_regions(112, 112, rows=5, cols=6)
    np.testing.assert_array_equal(jm.slic_regions(photos[0], num_segments=30, num_iterations=1), grid)
    np.testing.assert_array_equal(jm.slic_regions(np.zeros_like(photos), num_segments=30)[0], grid)


@pytest.mark.parametrize(
    ("height", "width", "asked", "expected"),
    [(224, 224, 100, (10, 10)), (224, 224, 60, (7, 8)), (100, 400, 16, (2, 8)), (3, 3, 100, (3, 3)), (5, 9, 1, (1, 1))],
)
def test_choose_grid(height, width, asked, expected):
    assert choose_grid(height, width, asked) == expected


def test_lab_is_scikit_images(photos):
    image = photos[1].astype(np.float64)
    expected = skimage.color.rgb2lab((image - image.min()) / (image.max() - image.min()))
    np.testing.assert_allclose(np.moveaxis(rgb_to_lab(jnp.asarray(photos[1])), 0, -1), expected, atol=2e-3)


def cluster_by_hand(lab, compactness, rows, cols, num_iterations, step):
    """SLIC over the nine cells around each pixel, in float64, one pixel list for each centre."""
    height, width = lab.shape[1:]
    y, x = np.mgrid[:height, :width].astype(float)
    features = np.stack([*lab / compactness, *np.stack([y, x]) * np.sqrt(rows * cols / (height * width))])
    cell = np.asarray(jm.grid_regions(height, width, rows=rows, cols=cols))
    row, col = cell // cols, cell % cols
    edges = [np.unique(cells, return_index=True)[1] for cells in (row[:, 0], col[0])]
    sampled = np.zeros((height, width), bool)
    inside_y, inside_x = (np.arange(n) - e[c] for n, e, c in ((height, edges[0], row[:, 0]), (width, edges[1], col[0])))
    sampled[np.ix_(inside_y % step == step // 2, inside_x % step == step // 2)] = True
    labels = cell
    for _ in range(num_iterations - 1):
        centres = np.full((rows * cols, 5), np.inf)
        for k in range(rows * cols):
            if (mine := (labels == k) & sampled).any():
                centres[k] = features[:, mine].mean(1)
        best, labels = np.full(cell.shape, np.inf), cell.copy()
        # Own cell first, then in order: the first of equals wins.
        for dy, dx in sorted(np.ndindex(3, 3), key=lambda d: d != (1, 1)):
            r, c = row + dy - 1, col + dx - 1
            there = (r >= 0) & (r < rows) & (c >= 0) & (c < cols)
            k = np.where(there, r * cols + c, 0)
            distance = ((features - np.moveaxis(centres[k], -1, 0)) ** 2).sum(0)
            closer = there & (distance < best)
            best, labels = np.where(closer, distance, best), np.where(closer, k, labels)
    return labels


@pytest.mark.parametrize(("rows", "cols", "step"), [(6, 5, 2), (16, 20, 1)])
def test_clusters_are_those_of_plain_slic(photos, rows, cols, step):
    lab = rgb_to_lab(jnp.asarray(photos[2])[:100])
    labels = jax.jit(functools.partial(cluster, rows=rows, cols=cols, num_iterations=4))(lab, jnp.float32(10.0))
    expected = cluster_by_hand(np.asarray(lab, np.float64), 10.0, rows, cols, 4, step)
    assert np.mean(np.asarray(labels) != expected) < 2e-4  # pixels as good as equally far from two centres


def explained(labels, lab):
    """The share of the colours' variance that is between regions."""
    sizes = np.bincount(labels.ravel())
    means = np.stack([np.bincount(labels.ravel(), lab[..., i].ravel()) / sizes for i in range(3)], -1)
    centred = lab - lab.mean((0, 1))
    return ((means[labels] - lab.mean((0, 1))) ** 2).sum() / (centred**2).sum()


def test_regions_are_as_good_as_scikit_images(photos):
    ours = np.asarray(jm.slic_regions(photos, num_segments=30))
    theirs = np.asarray(jm.slic_regions(photos, num_segments=30, backend="skimage"))
    shares = [
        [explained(labels, skimage.color.rgb2lab(photo)) for labels in pair]
        for photo, *pair in zip(photos, ours, theirs, strict=True)
    ]
    ours_mean, theirs_mean = np.mean(shares, axis=0)
    assert ours_mean > 0.95 * theirs_mean
    borders, others = (np.asarray(jm.region_borders(labels)) for labels in (ours, theirs))
    near = ndimage.binary_dilation(borders, np.ones((1, 5, 5)))
    assert (near & others).sum() > 0.75 * others.sum()
    assert np.max(np.abs(ours.max((1, 2)) + 1 - 30)) <= 0.15 * 30


def test_without_connectivity_every_label_is_a_centre(photos):
    loose = jm.slic_regions(photos[3], num_segments=30, compactness=2.0, enforce_connectivity=False)
    assert jm.count_regions(loose) <= 30
    assert any(ndimage.label(np.asarray(loose) == label)[1] > 1 for label in range(30))
