import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import sparse
from scipy.sparse import linalg

from jaxmoxi.metrics import noisy_linear_imputation

KEY = jax.random.key(0)


def exact(image, hidden):
    """The system written down pixel by pixel and solved in float64."""
    height, width = hidden.shape
    place = np.cumsum(hidden).reshape(hidden.shape) - 1
    matrix, known = sparse.lil_matrix((hidden.sum(), hidden.sum())), np.zeros((hidden.sum(), 3))
    for y, x in np.argwhere(hidden):
        i = place[y, x]
        for dy, dx in [(-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1)]:
            weight = 1 / 12 if dy and dx else 1 / 6
            if 0 <= y + dy < height and 0 <= x + dx < width:
                matrix[i, i] += weight
                if hidden[y + dy, x + dx]:
                    matrix[i, place[y + dy, x + dx]] -= weight
                else:
                    known[i] += weight * image[y + dy, x + dx]
    out = np.array(image, np.float64)
    out[hidden] = linalg.spsolve(matrix.tocsc(), known)
    return out


def photo(height, width, seed=0):
    """Something smooth, something rough, and an offset."""
    rng = np.random.default_rng(seed)
    ramp = np.linspace(-1, 1, height)[:, None, None] * np.linspace(2, 3, width)[:, None]
    return (5 + ramp + rng.normal(size=(height, width, 3))).astype(np.float32)


def test_a_single_pixel_is_the_mean_of_its_neighbours():
    image = photo(3, 3)
    hidden = np.zeros((3, 3), bool)
    hidden[1, 1] = True
    beside = image[0, 1] + image[1, 0] + image[1, 2] + image[2, 1]
    across = image[0, 0] + image[0, 2] + image[2, 0] + image[2, 2]
    found = noisy_linear_imputation(KEY, image, hidden, noise=0.0)
    np.testing.assert_allclose(found[1, 1], beside / 6 + across / 12, rtol=1e-6)
    np.testing.assert_array_equal(np.asarray(found)[~hidden], image[~hidden])
    corner = np.zeros((3, 3), bool)
    corner[0, 0] = True  # two beside it, one across: weights 2/5, 2/5, 1/5
    found = noisy_linear_imputation(KEY, image, corner, noise=0.0)
    np.testing.assert_allclose(found[0, 0], 0.4 * (image[0, 1] + image[1, 0]) + 0.2 * image[1, 1], rtol=1e-6)


@pytest.mark.parametrize(("height", "width"), [(1, 7), (9, 14), (37, 23)])
@pytest.mark.parametrize("share", [0.3, 0.9])
def test_is_the_direct_solve(height, width, share):
    image = photo(height, width)
    hidden = np.random.default_rng(1).random((height, width)) < share
    hidden[0, 0] = False
    found = noisy_linear_imputation(KEY, image, hidden, noise=0.0)
    np.testing.assert_allclose(found, exact(image, hidden), atol=2e-3)


@pytest.mark.parametrize("shape", ["patches", "disc"])
def test_converges_where_nine_tenths_of_a_large_image_are_hidden(shape):
    image = photo(224, 224)
    rank = np.random.default_rng(2).permutation(196)
    if shape == "disc":  # the last patches stand in the corners: nowhere is farther from what is visible
        rank = np.argsort(np.argsort(np.hypot(*(np.mgrid[:14, :14] - 6.5)).ravel(), kind="stable"))
    hidden = np.kron((rank < 0.9 * 196).reshape(14, 14), np.ones((16, 16))).astype(bool)
    found = np.asarray(noisy_linear_imputation(KEY, image, hidden, noise=0.0), np.float64)
    padded, exists = np.pad(found, [(1, 1), (1, 1), (0, 0)]), np.pad(np.ones((224, 224, 1)), [(1, 1), (1, 1), (0, 0)])
    total, weight = 0, 0
    for y, x in np.ndindex(3, 3):
        w = [0, 1 / 6, 1 / 12][abs(y - 1) + abs(x - 1)]
        total = total + w * padded[y : y + 224, x : x + 224]
        weight = weight + w * exists[y : y + 224, x : x + 224]
    residual = (found - total / weight)[hidden]
    assert np.abs(residual).max() < 2e-4  # of an image of white noise, standard deviation 1
    if shape == "patches":
        np.testing.assert_allclose(found[hidden], exact(image, hidden)[hidden], atol=3e-3)


def test_a_flat_image_stays_flat():
    hidden = np.random.default_rng(3).random((12, 12)) < 0.8
    image = np.full((12, 12, 3), 7.25, np.float32)
    np.testing.assert_array_equal(noisy_linear_imputation(KEY, image, hidden, noise=0.0), image)


def test_noise_is_on_hidden_pixels_alone():
    image = photo(40, 40)
    hidden = np.arange(1600).reshape(40, 40) % 2 == 0
    clean, noisy = (np.asarray(noisy_linear_imputation(KEY, image, hidden, noise=n)) for n in (0.0, 0.5))
    np.testing.assert_array_equal(noisy[~hidden], image[~hidden])
    added = (noisy - clean)[hidden]  # 2400 numbers
    assert abs(added.mean()) < 0.04
    assert abs(added.std() - 0.5) < 0.03
    other = noisy_linear_imputation(jax.random.key(1), image, hidden, noise=0.5)
    assert not np.array_equal(other, noisy)


def test_nothing_and_everything_hidden():
    image = photo(6, 5)
    np.testing.assert_array_equal(noisy_linear_imputation(KEY, image, np.zeros((6, 5), bool)), image)
    np.testing.assert_array_equal(noisy_linear_imputation(KEY, image, np.ones((6, 5), bool), noise=0.0), 0 * image)
    lone = noisy_linear_imputation(KEY, image[:1, :1], np.ones((1, 1), bool), noise=0.0)
    np.testing.assert_array_equal(lone, np.zeros((1, 1, 3)))


def test_what_is_hidden_is_not_looked_at():
    image = photo(6, 5)
    hidden = np.random.default_rng(4).random((6, 5)) < 0.5
    spoiled = np.where(hidden[..., None], np.float32(np.nan), image)
    np.testing.assert_array_equal(
        noisy_linear_imputation(KEY, spoiled, hidden), noisy_linear_imputation(KEY, image, hidden)
    )


def test_eager_is_jit_is_vmap():
    images = jnp.stack([photo(10, 9, seed) for seed in (0, 1)])
    hidden = jnp.asarray(np.random.default_rng(5).random((2, 10, 9)) < 0.6)
    keys = jax.random.split(KEY, 2)
    eager = jnp.stack([noisy_linear_imputation(*args) for args in zip(keys, images, hidden, strict=True)])
    batched = jax.jit(jax.vmap(noisy_linear_imputation))(keys, images, hidden)
    np.testing.assert_allclose(eager, batched, atol=1e-5)
    assert eager.dtype == jnp.float32


@pytest.mark.usefixtures("unchecked")
def test_errors():
    image, hidden = photo(4, 4), np.zeros((4, 4), bool)
    with pytest.raises(ValueError, match=r"an image float\[H, W, channels\]; got uint8 of shape \[4, 4, 3\]"):
        noisy_linear_imputation(KEY, image.astype(np.uint8), hidden)
    with pytest.raises(
        ValueError, match=r"hidden bool\[4, 4\], True where a pixel is to be guessed; got bool of shape"
    ):
        noisy_linear_imputation(KEY, image, hidden[:3])
    with pytest.raises(ValueError, match=r"noise must be at least 0, .*; got -1"):
        noisy_linear_imputation(KEY, image, hidden, noise=-1)
    with pytest.raises(ValueError, match="num_iterations must be at least 1; got 0"):
        noisy_linear_imputation(KEY, image, hidden, num_iterations=0)
