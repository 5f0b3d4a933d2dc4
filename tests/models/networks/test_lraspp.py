import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxmoxi import p2p
from jaxmoxi.models.networks import lraspp
from jaxmoxi.models.networks.depthwise import convolve, depthwise, pointwise
from jaxmoxi.p2p.placement import placement
from support.games import golden_tensor
from support.trainer import Grid

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


@pytest.mark.parametrize("widths", [(3, 5), (5, 3), (4, 4)])
def test_pointwise_and_its_gradients(widths):
    rng = np.random.default_rng(4)
    x, kernel = (jnp.asarray(rng.normal(size=s), jnp.float32) for s in ((2, 4, 5, widths[0]), widths))
    answers = []
    for form in (pointwise, lambda x, k: jnp.einsum("bhwc,cd->bhwd", x, k)):
        y, pull = jax.vjp(form, x, kernel)
        answers.append((y, *pull(jnp.cos(y))))
    for found, expected in zip(*answers, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5, rtol=1e-5)


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


@pytest.mark.parametrize("act", [None, jax.nn.relu, jax.nn.hard_swish])
def test_gradients_of_batch_norm(act):
    rng = np.random.default_rng(3)
    x = jnp.asarray(rng.normal(1.0, 2.0, size=(3, 4, 5, 6)), jnp.float32)
    scale, bias = jnp.asarray(rng.normal(size=(2, 6)), jnp.float32)
    weights = jnp.asarray(rng.normal(size=x.shape), jnp.float32)

    def plain(x, scale, bias):
        z = (x - x.mean((0, 1, 2))) / jnp.sqrt(x.var((0, 1, 2)) + 1e-3) * scale + bias
        return jnp.sum(weights * (z if act is None else act(z)))

    def ours(x, scale, bias):
        return jnp.sum(weights * lraspp.normalize(x, scale, bias, 1e-3, act)[0])

    for found, expected in zip(*(jax.grad(f, argnums=(0, 1, 2))(x, scale, bias) for f in (ours, plain)), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-4, rtol=1e-4)


def test_batch_norm_of_a_batch_that_devices_share():
    """A block's output, gradients and statistics on one device and on eight, two images each."""
    shape = lraspp.Shape(3, 8, 16, 8, True, jax.nn.hard_swish, 1)
    structure, state = nnx.split(lraspp.InvertedResidual(shape, rngs=nnx.Rngs(0)))
    params, statistics = nnx.split_state(state, nnx.Param, ...)
    images = np.random.default_rng(6).normal(size=(16, 5, 5, 8)).astype(np.float32)
    images *= np.arange(1, 17)[:, None, None, None]  # two images have not the statistics of sixteen

    @jax.jit
    def run(params, statistics, images):
        def loss(params):
            block = nnx.merge(structure, params, jax.tree.map(lambda x: x, statistics))
            block.train()
            y = block(images)
            return jnp.mean(jnp.sin(y)), (y, nnx.state(block, nnx.BatchStat))

        return jax.grad(loss, has_aux=True)(params)

    place = placement(jax.make_mesh((8,), ("images",)), len(images))
    one = run(params, statistics, images)
    many = run(*place.everywhere((params, statistics)), place.split(images))
    assert many[1][0].sharding.shard_shape(images.shape)[0] == 2
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(many), strict=True):
        np.testing.assert_allclose(b, a, atol=1e-4, rtol=1e-4)


@pytest.mark.slow
def test_training_on_devices_that_share_the_batches(monkeypatch):
    """A run on one device and on eight, two images each."""
    # Five of the fifteen blocks and small kernels compile in half a minute instead of minutes. Networks are cached by
    # configuration: no other test has this one.
    blocks = (*lraspp._LARGE[:4], lraspp._LARGE[4]._replace(fan_out=160, dilation=2))
    monkeypatch.setattr(lraspp, "_LARGE", tuple(b._replace(kernel=3) for b in blocks))
    config = p2p.Config(
        num_classes=3, num_groups=16, image_size=32, fill=0.0123,
        classifier=p2p.ViTConfig(hidden_size=16, num_layers=2, num_heads=2, mlp_dim=32, patch_size=8),
    )  # fmt: skip
    train = p2p.TrainConfig(num_epochs=1, batch_size=16, learning_rate=1e-3)
    one, many = (
        p2p.fit(config, Grid(), train=train, progress=False, mesh=mesh)
        for mesh in (None, jax.make_mesh((8,), ("images",)))
    )
    np.testing.assert_allclose(many.history[0]["loss"], one.history[0]["loss"], rtol=1e-3)
    pairs = zip(*(nnx.to_flat_state(r.model.selector) for r in (one, many)), strict=True)
    for (path, a), (_, b) in pairs:
        rounding = 1e-3 if isinstance(a, nnx.BatchStat) else 5e-3  # Adam makes whole steps of small differences
        np.testing.assert_allclose(b[...], a[...], atol=rounding, rtol=rounding, err_msg=str(path))
    means = [x[...] for path, x in nnx.to_flat_state(one.model.selector) if path[-1] == "mean"]
    assert len(means) == 17
    assert all(np.abs(mean).max() > 0 for mean in means)


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
