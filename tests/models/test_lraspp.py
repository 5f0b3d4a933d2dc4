import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxmoxi.models import lraspp
from jaxmoxi.models.depthwise import convolve, depthwise
from support import golden_tensor

IMAGES = np.random.default_rng(0).normal(size=(2, 48, 32, 3)).astype(np.float32)
CHANNELS = 4

# The reference, told by hand: kernel, hidden and output channels, squeeze and excite, activation, stride, dilation.
BLOCKS = [
    (3, 16, 16, 0, "relu", 1, 1),
    (3, 64, 24, 0, "relu", 2, 1),
    (3, 72, 24, 0, "relu", 1, 1),
    (5, 72, 40, 1, "relu", 2, 1),
    (5, 120, 40, 1, "relu", 1, 1),
    (5, 120, 40, 1, "relu", 1, 1),
    (3, 240, 80, 0, "hard_swish", 2, 1),
    (3, 200, 80, 0, "hard_swish", 1, 1),
    (3, 184, 80, 0, "hard_swish", 1, 1),
    (3, 184, 80, 0, "hard_swish", 1, 1),
    (3, 480, 112, 1, "hard_swish", 1, 1),
    (3, 672, 112, 1, "hard_swish", 1, 1),
    (5, 672, 160, 1, "hard_swish", 1, 2),
    (5, 960, 160, 1, "hard_swish", 1, 2),
    (5, 960, 160, 1, "hard_swish", 1, 2),
]


def tensors():
    return {
        name: np.abs(t) + 0.5 if name.endswith("running_var") else t
        for name, shape in lraspp.expected_tensors(CHANNELS).items()
        for t in [golden_tensor("lraspp", name, shape, 1.4)]
    }


def reference(t, x):
    """(low, high, output) in inference, from torchvision's names, [B, C, H, W] throughout."""

    def conv(x, name, stride=1, dilation=1):
        w = t[f"{name}.weight"]
        margin = dilation * (w.shape[-1] - 1) // 2
        return jax.lax.conv_general_dilated(
            x, w, (stride, stride), [(margin, margin)] * 2, rhs_dilation=(dilation, dilation),
            feature_group_count=x.shape[1] // w.shape[1],
        ) + t.get(f"{name}.bias", np.zeros(len(w), np.float32))[:, None, None]  # fmt: skip

    def conv_norm(x, name, act=None, eps=1e-3, **kwargs):
        scale, shift, mean, var = (
            t[f"{name}.1.{leaf}"][:, None, None] for leaf in ("weight", "bias", "running_mean", "running_var")
        )
        x = (conv(x, f"{name}.0", **kwargs) - mean) / jnp.sqrt(var + eps) * scale + shift
        return x if act is None else getattr(jax.nn, act)(x)

    x = conv_norm(x, "backbone.0", "hard_swish", stride=2)
    maps = [x]
    for i, (size, hidden, out, squeeze, act, stride, dilation) in enumerate(BLOCKS, 1):
        at, start, j = f"backbone.{i}.block", x, 0
        if hidden != x.shape[1]:
            x, j = conv_norm(x, f"{at}.0", act), 1
        assert t[f"{at}.{j}.0.weight"].shape == (hidden, 1, size, size)
        x = conv_norm(x, f"{at}.{j}", act, stride=stride, dilation=dilation)
        if squeeze:
            j += 1
            y = jax.nn.relu(conv(x.mean((2, 3), keepdims=True), f"{at}.{j}.fc1"))
            x = x * jnp.clip(conv(y, f"{at}.{j}.fc2") / 6 + 0.5, 0, 1)
        x = conv_norm(x, f"{at}.{j + 1}")
        x = x + start if stride == 1 and start.shape[1] == out else x
        maps.append(x)
    x = conv_norm(x, "backbone.16", "hard_swish")
    scale = jax.nn.sigmoid(conv(x.mean((2, 3), keepdims=True), "classifier.scale.1"))
    x = conv_norm(x, "classifier.cbr", "relu", eps=1e-5) * scale
    low = maps[4]
    high = enlarged(x, low.shape[2:])
    return low, high, conv(low, "classifier.low_classifier") + conv(high, "classifier.high_classifier")


def enlarged(x, size):
    """Bilinear: a matrix along each axis, pixel centres at halves, the border repeated."""
    for axis, length in zip((2, 3), size, strict=True):
        old = x.shape[axis]
        at = np.clip((np.arange(length) + 0.5) * old / length - 0.5, 0, old - 1)
        weights = np.maximum(1 - np.abs(at[:, None] - np.arange(old)), 0).astype(np.float32)
        x = jnp.moveaxis(jnp.tensordot(weights, x, (1, axis)), 0, axis)
    return x


def network(state):
    """The module with the state, in inference."""
    module = nnx.merge(nnx.split(nnx.eval_shape(lambda: lraspp.LRASPP(CHANNELS, rngs=nnx.Rngs(0))))[0], state)
    module.eval()
    return module


@pytest.fixture(scope="module")
def state():
    return lraspp.from_tensors(CHANNELS, tensors(), source="test")


def test_is_the_network(state):
    low, high, out = jax.jit(reference)(tensors(), IMAGES.transpose(0, 3, 1, 2))
    maps = jax.jit(lambda s, x: (*network(s).features(x), network(s)(x)))(state, IMAGES)
    expected = (low, high, enlarged(out, IMAGES.shape[1:3]))
    assert [m.shape for m in maps] == [(2, 6, 4, 40), (2, 6, 4, 128), (2, 48, 32, CHANNELS)]
    for found, theirs in zip(maps, expected, strict=True):
        theirs = np.moveaxis(np.asarray(theirs), 1, -1)
        np.testing.assert_allclose(found, theirs, atol=2e-5 * np.abs(theirs).max(), rtol=1e-3)


def test_a_threshold_shifts_every_pixel_alike(state):
    module = network(state)
    low, high = np.random.default_rng(1).normal(size=(2, 1, 3, 3, 128)).astype(np.float32)
    low = low[..., :40]

    def heads(tau):
        return module.low_head(jnp.asarray(low) + tau) + module.high_head(jnp.asarray(high) + tau)

    shift = np.asarray(heads(0.35) - heads(0.0)).reshape(-1, CHANNELS)
    np.testing.assert_allclose(shift, np.tile(0.35 * module.threshold_shift(), (9, 1)), atol=1e-4)
    assert np.abs(shift).min() > 1e-2


CASES = [(3, 1, 1, (7, 5)), (3, 2, 1, (8, 6)), (3, 2, 1, (7, 9)), (5, 1, 1, (6, 8)), (5, 2, 1, (10, 7))]
CASES += [(5, 2, 1, (9, 12)), (5, 1, 2, (7, 6)), (3, 1, 2, (5, 9))]


@pytest.mark.parametrize(("size", "stride", "dilation", "shape"), CASES)
def test_depthwise_and_its_gradients(size, stride, dilation, shape):
    rng = np.random.default_rng(size)
    x = jnp.asarray(rng.normal(size=(2, *shape, 6)), jnp.float32)
    kernel = jnp.asarray(rng.normal(size=(size, size, 1, 6)), jnp.float32)
    margin = dilation * (size - 1) // 2
    answers = []
    for form in (depthwise, convolve):
        y, pull = jax.vjp(lambda x, k, form=form: form(x, k, stride, dilation, margin), x, kernel)
        answers.append((y, *pull(jnp.cos(jnp.arange(y.size, dtype=jnp.float32)).reshape(y.shape))))
    assert answers[0][0].shape == (2, *(-(-n // stride) for n in shape), 6)
    for found, expected in zip(*answers, strict=True):
        np.testing.assert_allclose(found, expected, atol=2e-5, rtol=1e-4)


def test_batch_norm_in_training():
    layer = lraspp.ConvNorm(3, 8, 1, None, rngs=nnx.Rngs(0))
    layer.norm.scale[...], layer.norm.bias[...] = jnp.linspace(0.5, 2, 8), jnp.linspace(-1, 1, 8)
    layer.norm.mean[...] = jnp.full(8, 0.3)
    layer.train()
    x = np.random.default_rng(2).normal(1.0, 2.0, size=(4, 5, 3, 3)).astype(np.float32)
    y = x @ np.asarray(layer.kernel[...])[0, 0]
    mean, var = y.mean((0, 1, 2)), y.var((0, 1, 2))
    expected = (y - mean) / np.sqrt(var + 1e-3) * np.linspace(0.5, 2, 8) + np.linspace(-1, 1, 8)
    np.testing.assert_allclose(layer(jnp.asarray(x)), expected, atol=1e-4)
    np.testing.assert_allclose(layer.norm.mean[...], 0.99 * 0.3 + 0.01 * mean, atol=1e-5)
    np.testing.assert_allclose(layer.norm.var[...], 0.99 + 0.01 * var, atol=1e-5)


def test_a_state_dict_that_does_not_fit():
    given = tensors() | {"backbone.0.1.num_batches_tracked": np.array(3)}
    lraspp.from_tensors(CHANNELS, given, source="file")  # the counter is no fault
    del given["classifier.cbr.0.weight"]
    given["classifier.extra.weight"] = np.zeros((2, 3), np.float32)
    given["classifier.low_classifier.bias"] = np.zeros(21, np.float32)
    with pytest.raises(
        ValueError,
        match=r"file does not hold the 2\d\d tensors .* 1 missing: classifier.cbr.0.weight \[128, 960, 1, 1\]; "
        r"1 extra: classifier.extra.weight \[2, 3\]; "
        r"1 misshapen: classifier.low_classifier.bias \(expected \[4\], found \[21\]\)",
    ):
        lraspp.from_tensors(CHANNELS, given, source="file")


def test_a_fresh_network_has_the_tensors_of_a_loaded_one(state):
    fresh = nnx.state(nnx.eval_shape(lambda: lraspp.LRASPP(CHANNELS, rngs=nnx.Rngs(0))))
    assert jax.tree.map(jnp.shape, fresh) == jax.tree.map(jnp.shape, state)
    weights = sum(np.prod(s) for n, s in lraspp.expected_tensors(21).items() if "running" not in n)
    assert weights == 3221538  # torchvision's count for 21 classes
