import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxmoxi.models.networks import trainable_resnet as resnet
from jaxmoxi.models.networks.trainable_resnet import ResidualNetConfig
from support.games import golden_tensor

CONFIG = ResidualNetConfig(depth=18, num_classes=5)
IMAGES = np.random.default_rng(0).normal(size=(2, 40, 32, 3)).astype(np.float32)


def tensors(config):
    """Variances around 1, means around 0: with other means no activation would survive its ReLU."""
    made = {name: golden_tensor("resnet", name, s, 1.0) for name, s in resnet.expected_tensors(config).items()}
    return {name: t - 1 if name.endswith("running_mean") else t for name, t in made.items()}


def reference(t, x):
    """Logits in inference, from torchvision's names, [B, C, H, W] throughout; blocks until there is no further one."""

    def conv_norm(x, conv, norm, stride):
        w = t[f"{conv}.weight"]
        margin = w.shape[-1] // 2
        x = jax.lax.conv_general_dilated(x, w, (stride, stride), [(margin, margin)] * 2)
        scale, shift, mean, var = (
            t[f"{norm}.{leaf}"][:, None, None] for leaf in ("weight", "bias", "running_mean", "running_var")
        )
        return (x - mean) / jnp.sqrt(var + 1e-5) * scale + shift

    x = jax.nn.relu(conv_norm(x, "conv1", "bn1", 2))
    padded = jnp.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=-jnp.inf)
    height, width = x.shape[2] // 2, x.shape[3] // 2
    x = jnp.max(
        jnp.stack([padded[:, :, i : i + 2 * height : 2, j : j + 2 * width : 2] for i in range(3) for j in range(3)]), 0
    )
    for stage in range(1, 5):
        block = 0
        while f"layer{stage}.{block}.conv1.weight" in t:
            at, stride = f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
            y = jax.nn.relu(conv_norm(x, f"{at}.conv1", f"{at}.bn1", stride))
            y = conv_norm(y, f"{at}.conv2", f"{at}.bn2", 1)
            if f"{at}.downsample.0.weight" in t:
                x = conv_norm(x, f"{at}.downsample.0", f"{at}.downsample.1", stride)
            x = jax.nn.relu(x + y)
            block += 1
    return x.mean((2, 3)) @ t["fc.weight"].T + t["fc.bias"]


def network(config, state):
    module = nnx.merge(nnx.split(nnx.eval_shape(lambda: resnet.ResNet(config, rngs=nnx.Rngs(0))))[0], state)
    module.eval()
    return module


def test_is_the_network():
    given = tensors(CONFIG)
    state = resnet.from_tensors(CONFIG, given, source="test")
    expected = jax.jit(reference)(given, IMAGES.transpose(0, 3, 1, 2))
    logits = jax.jit(lambda s, x: network(CONFIG, s)(x))(state, IMAGES)
    np.testing.assert_allclose(logits, expected, atol=1e-4 * np.abs(expected).max())
    assert np.abs(expected[0] - expected[1]).max() > 1e-2


@pytest.mark.parametrize(("depth", "count", "weights"), [(18, 102, 11689512), (34, 182, 21797672)])
def test_torchvisions_tensors(depth, count, weights):
    shapes = resnet.expected_tensors(ResidualNetConfig(depth))
    assert len(shapes) == count
    assert sum(np.prod(s) for name, s in shapes.items() if "running" not in name) == weights
    fresh = nnx.state(nnx.eval_shape(lambda: resnet.ResNet(ResidualNetConfig(depth), rngs=nnx.Rngs(0))))
    zeros = {name: np.broadcast_to(np.float32(0), shape) for name, shape in shapes.items()}
    loaded = resnet.from_tensors(ResidualNetConfig(depth), zeros, source="test")
    assert jax.tree.map(jnp.shape, fresh) == jax.tree.map(jnp.shape, loaded)


def test_a_state_dict_that_does_not_fit():
    given = tensors(CONFIG) | {"bn1.num_batches_tracked": np.array(3)}
    resnet.from_tensors(CONFIG, given, source="file")  # the counter is no fault
    del given["layer2.0.downsample.0.weight"]
    given["layer3.6.conv1.weight"] = np.zeros((2, 3), np.float32)
    given["fc.bias"] = np.zeros(1000, np.float32)
    with pytest.raises(
        ValueError,
        match=r"file does not hold the 102 tensors .* 1 missing: layer2.0.downsample.0.weight \[128, 64, 1, 1\]; "
        r"1 extra: layer3.6.conv1.weight \[2, 3\]; 1 misshapen: fc.bias \(expected \[5\], found \[1000\]\)",
    ):
        resnet.from_tensors(CONFIG, given, source="file")


def test_a_depth_that_is_not_offered(unchecked):
    with pytest.raises(ValueError, match="expected a ResNet depth of 18 or 34; got 50"):
        ResidualNetConfig(depth=50)  # type: ignore[arg-type]


def test_training_takes_the_statistics_of_the_batch():
    block = resnet.Block(3, 4, 2, rngs=nnx.Rngs(0))
    block.train()
    x = np.random.default_rng(1).normal(size=(4, 6, 6, 3)).astype(np.float32)
    w = np.asarray(block.conv1.kernel[...])
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    y = sum(
        padded[:, i : i + 6 : 2, j : j + 6 : 2] @ w[i, j] for i in range(3) for j in range(3)
    )  # the first convolution, by hand
    block(jnp.asarray(x))
    np.testing.assert_allclose(block.bn1.mean[...], 0.1 * y.mean((0, 1, 2)), atol=1e-5)
    np.testing.assert_allclose(block.bn1.var[...], 0.9 + 0.1 * y.var((0, 1, 2)), atol=1e-5)
    fixed = np.asarray(block.bn1.mean[...])
    block.eval()
    block(jnp.asarray(x) + 1)
    np.testing.assert_array_equal(block.bn1.mean[...], fixed)
