"""Images of other channels, dtypes and layouts in value functions: taken as they are, or refused in one line."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmoxi as jm
from jaxmoxi import attribution, metrics
from jaxmoxi.games.removal import alternatives

pytestmark = pytest.mark.usefixtures("unchecked")
H, W = 8, 10
REGIONS = jm.grid_regions(H, W, rows=2, cols=2)


def image_of(channels):
    return np.random.default_rng(channels).normal(size=(H, W, channels)).astype(np.float32)


def logits(scale, images):
    """The class 1 is the mean over the left half, in units of `scale`."""
    value = images.astype(jnp.float32)[:, :, :5].mean((1, 2, 3)) / scale
    return jnp.stack([0 * value, value], -1)


MODEL = jax.tree_util.Partial(logits, jnp.float32(1.0))


@pytest.mark.parametrize("channels", [1, 11])
def test_methods_and_metrics_take_any_number_of_channels(channels):
    image = image_of(channels)
    problem = attribution.problem(MODEL, image, 1, REGIONS)
    for name in ("gradient", "integrated-gradients", "occlusion", "shapley"):
        scores = attribution.METHODS[name].explain(jax.random.key(0), problem)
        np.testing.assert_allclose(scores[1::2], 0, atol=1e-6)  # the right half does nothing
        assert (np.abs(scores[::2]) > 1e-5).all()
    hidden = np.asarray(REGIONS) == 0
    filled = metrics.noisy_linear_imputation(jax.random.key(0), image, hidden, noise=0.0)
    alone = metrics.noisy_linear_imputation(jax.random.key(0), image[..., -1:], hidden, noise=0.0)
    np.testing.assert_allclose(filled[..., -1:], alone, atol=1e-5)
    np.testing.assert_array_equal(filled[~hidden], image[~hidden])
    assert len(alternatives(MODEL, image, 1, REGIONS, shift=1)) == 6


def test_integers_reach_a_function_that_wants_them_as_they_are():
    levels = np.random.default_rng(0).integers(0, 256, (H, W, 2)).astype(np.uint8)

    def of_bytes(images):
        assert images.dtype == jnp.uint8
        return logits(255.0, images)

    with pytest.warns(UserWarning, match=r"given this image as it is, uint8 from \d+ to \d+"):
        v = jm.pixel_value_fn(of_bytes, levels, 1, REGIONS, fill="mean", payoff="logit")
    mean = np.round(levels.mean((0, 1)))
    np.testing.assert_allclose(v(np.zeros((1, 4), bool))[0], mean.mean() / 255, rtol=1e-5)
    half = v.blended(jnp.full((1, H, W), 0.5)).values[0]
    np.testing.assert_allclose(half, (levels[:, :5] * 0.5 + mean * 0.5).mean() / 255, rtol=0.01)  # nothing overflows
    with pytest.raises(ValueError, match="uint8 has no gradient"):
        v.relaxed(jnp.ones((1, 4)))
    for fill in (7.5, -1, 256):
        with pytest.raises(ValueError, match="an image of uint8 can hold"), pytest.warns(UserWarning, match="as it is"):
            jm.pixel_value_fn(of_bytes, levels, 1, REGIONS, fill=fill)


@pytest.mark.parametrize(
    ("image", "options", "message"),
    [
        (image_of(2)[..., 0], {}, r"got shape \(8, 10\). A grey one is image\[..., None\]"),
        (image_of(2)[None], {}, r"Of a batch of one it is image\[0\]"),
        (image_of(2)[:0], {}, r"expected one image.*\(0, 10, 2\)"),
        (np.moveaxis(image_of(2), -1, 0), {}, r"channels come first: give jnp.moveaxis\(image, 0, -1\)"),
        (image_of(2) > 0, {}, "expected a float image.*got bool"),
        (image_of(2).astype(object), {}, "expected an image of numbers"),
        (image_of(2), dict(fill=np.nan), "fill of finite numbers"),
        (image_of(2), dict(fill=None), "got NoneType"),
        (image_of(2), dict(fill=[1, 2, 3]), r"shape \(\), \(2,\) or"),
    ],
)
def test_what_cannot_be_an_image_is_refused_by_name(image, options, message):
    with pytest.raises(ValueError, match=message):
        jm.pixel_value_fn(MODEL, image, 1, REGIONS, **options)


def test_a_squeezed_logit_is_named():
    with pytest.raises(ValueError, match=r"logits\[:, None\] and say link=.sigmoid"):
        jm.pixel_value_fn(lambda x: x.mean((1, 2, 3)), image_of(2), 1, REGIONS, link="sigmoid")
