import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import skimage.data
from flax import nnx

from jaxmoxi.models.checkpoints.demo import DEMO_PREPROCESSING, demo_weights_path
from jaxmoxi.models.checkpoints.torch_file import read_torch
from jaxmoxi.models.networks import cnn
from jaxmoxi.models.networks.cnn import InvertedResidualConfig
from jaxmoxi.models.preprocess import preprocess

SMALL = {"num_classes": 5, "image_size": 32, "width": 0.35}
IMAGES = jnp.asarray(np.random.default_rng(0).normal(size=(3, 32, 32, 3)), jnp.float32)

# The reference: both networks as a flat list of convolutions, in the order in which they run, told by hand. Each is
# (input channels, output channels, kernel size, stride, depthwise, what follows it); the channels of MobileNetV2 are
# those of width 0.35.
MOBILENET = [(8, 1, 1), (8, 2, 2), (16, 3, 2), (24, 4, 2), (32, 3, 1), (56, 3, 2), (112, 1, 1)]
MOBILENET_STAGES = [(c, n, s, 3) for c, n, s in MOBILENET]
LITE_STAGES = [
    *[(16, 1, 1, 3), (24, 2, 2, 3), (40, 2, 2, 5), (80, 3, 2, 3)],
    *[(112, 3, 1, 5), (192, 4, 2, 5), (320, 1, 1, 3)],
]


def layers(stages, stem):
    rows, channels = [(3, stem, 3, 2, False, "relu6")], stem
    for stage, (out, count, first, size) in enumerate(stages):
        for place in range(count):
            stride = first if place == 0 else 1
            hidden = channels if stage == 0 else 6 * channels
            if stage:
                rows.append((channels, hidden, 1, 1, False, "relu6"))
            rows.append((hidden, hidden, size, stride, True, "relu6"))
            rows.append((hidden, out, 1, 1, False, "add" if stride == 1 and channels == out else "none"))
            channels = out
    return [*rows, (channels, 1280, 1, 1, False, "relu6")]


def reference(rows, padding, eps, arrays, x):
    """Convolution and BatchNorm apart, by the textbook, from PyTorch's layouts."""
    *convolutions, (weight, bias) = arrays
    for (_, _, size, stride, depthwise, follows), (w, scale, shift, mean, variance) in zip(
        rows, convolutions, strict=True
    ):
        if size == 1 and follows == "relu6":  # an expansion: what a block starts from
            start = x
        pads = "SAME" if padding == "tf_same" else [(size // 2, size // 2)] * 2
        numbers = ("NHWC", "OIHW", "NHWC")
        groups = w.shape[0] if depthwise else 1
        x = jax.lax.conv_general_dilated(
            x, w, (stride, stride), pads, dimension_numbers=numbers, feature_group_count=groups
        )
        x = (x - mean) / jnp.sqrt(variance + eps) * scale + shift
        x = jnp.clip(x, 0, 6) if follows == "relu6" else x + start if follows == "add" else x
    return x, x.mean((1, 2)) @ weight.T + bias


def torchvision_names():
    rest = [
        (f"features.{i}.conv.{c}", f"features.{i}.conv.{n}")
        for i in range(2, 18)
        for c, n in (("0.0", "0.1"), ("1.0", "1.1"), ("2", "3"))
    ]
    first = [("features.1.conv.0.0", "features.1.conv.0.1"), ("features.1.conv.1", "features.1.conv.2")]
    ends = ("features.0.0", "features.0.1"), ("features.18.0", "features.18.1")
    return [ends[0], *first, *rest, ends[1]], "classifier.1"


def timm_names(counts):
    first = [(f"blocks.0.0.{c}", f"blocks.0.0.{n}") for c, n in (("conv_dw", "bn1"), ("conv_pw", "bn2"))]
    rest = [
        (f"blocks.{stage}.{place}.{c}", f"blocks.{stage}.{place}.{n}")
        for stage, count in enumerate(counts, start=1)
        for place in range(count)
        for c, n in (("conv_pw", "bn1"), ("conv_dw", "bn2"), ("conv_pwl", "bn3"))
    ]
    return [("conv_stem", "bn1"), *first, *rest, ("conv_head", "bn2")], "classifier"


def huggingface_names():
    names = ["conv_stem.first_conv", "conv_stem.conv_3x3", "conv_stem.reduce_1x1"]
    names += [f"layer.{i}.{part}" for i in range(16) for part in ("expand_1x1", "conv_3x3", "reduce_1x1")]
    names = [f"mobilenet_v2.{name}" for name in [*names, "conv_1x1"]]
    return [(f"{name}.convolution", f"{name}.normalization") for name in names], "classifier"


def package_names():
    rest = [
        (f"_blocks.{i}._{c}_conv", f"_blocks.{i}._bn{n}")
        for i in range(1, 16)
        for n, c in enumerate(("expand", "depthwise", "project"))
    ]
    first = [("_blocks.0._depthwise_conv", "_blocks.0._bn1"), ("_blocks.0._project_conv", "_blocks.0._bn2")]
    return [("_conv_stem", "_bn0"), *first, *rest, ("_conv_head", "_bn1")], "_fc"


MOBILENET_NAMES = {
    "torchvision": torchvision_names(),
    "timm": timm_names([2, 3, 4, 3, 3, 1]),
    "huggingface": huggingface_names(),
}
LEAVES = ("weight", "bias", "running_mean", "running_var")


def named(names, arrays):
    """A checkpoint: the arrays of `reference` under one framework's names."""
    pairs, linear = names
    tensors = {f"{linear}.weight": arrays[-1][0], f"{linear}.bias": arrays[-1][1]}
    for (conv, norm), (weight, *others) in zip(pairs, arrays[:-1], strict=True):
        tensors[f"{conv}.weight"] = weight
        tensors |= {f"{norm}.{leaf}": array for leaf, array in zip(LEAVES, others, strict=True)}
        tensors[f"{norm}.num_batches_tracked"] = np.array(3)
    return tensors


def random_arrays(rows, classes):
    def draw(name, *shape):
        return np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape).astype(np.float32)

    arrays = []
    for i, (fan_in, out, size, _, depthwise, _) in enumerate(rows):
        shape = (out, 1 if depthwise else fan_in, size, size)
        weight = draw(f"{i}.weight", *shape) / np.float32(np.sqrt(np.prod(shape[1:])))
        # Variances as small as the epsilons, so that a wrong epsilon shows.
        variance = 0.005 + 0.05 * np.abs(draw(f"{i}.variance", out))
        norm = 0.2 + 0.05 * draw(f"{i}.scale", out), 0.5 * draw(f"{i}.shift", out), 0.1 * draw(f"{i}.mean", out)
        arrays.append((weight, *norm, variance))
    return [*arrays, (draw("classifier", classes, 1280) / 16, draw("bias", classes))]


MOBILENET_ROWS = layers(MOBILENET_STAGES, 16)
MOBILENET_ARRAYS = random_arrays(MOBILENET_ROWS, 5)


def network(config, tensors):
    state = cnn.from_tensors(config, tensors, source="test")
    return nnx.merge(nnx.split(nnx.eval_shape(lambda: cnn.InvertedResidualNet(config, rngs=nnx.Rngs(0))))[0], state)


def assert_same_state(a, b):
    a, b = nnx.to_flat_state(a), nnx.to_flat_state(b)
    assert [path for path, _ in a] == [path for path, _ in b]
    for (path, left), (_, right) in zip(a, b, strict=True):
        np.testing.assert_array_equal(left[...], right[...], err_msg=str(path))


@pytest.mark.parametrize(("padding", "eps", "size"), [("symmetric", 1e-5, 32), ("tf_same", 1e-3, 27)])
def test_mobilenet_agrees_with_a_plain_reference(padding, eps, size):
    config = InvertedResidualConfig(arch="mobilenet_v2", padding=padding, norm_eps=eps, **SMALL)
    net = network(config, named(MOBILENET_NAMES["torchvision"], MOBILENET_ARRAYS))
    images = IMAGES[:2, :size, :size]
    features, logits = jax.jit(lambda x: reference(MOBILENET_ROWS, padding, eps, MOBILENET_ARRAYS, x))(images)
    assert 0.05 < np.mean(np.asarray(features) > 0) < 0.95  # neither dead nor saturated: a difference would show
    np.testing.assert_allclose(jax.jit(net)(images), logits, rtol=1e-4, atol=1e-4)
    # The form for accelerators, which nothing else runs on a CPU.
    native = jax.jit(lambda x: net._chain(x, depthwise=cnn._convolve, pointwise=cnn._convolve))(images)
    np.testing.assert_allclose(native, features, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("naming", ["timm", "huggingface"])
def test_all_namings_of_mobilenet_give_the_same_parameters(naming):
    config = InvertedResidualConfig(arch="mobilenet_v2", **SMALL)
    tensors = named(MOBILENET_NAMES[naming], MOBILENET_ARRAYS)
    assert cnn.detect_naming(tensors) == naming
    shapes = {name: array.shape for name, array in tensors.items() if "num_batches" not in name}
    assert cnn.expected_tensors(config, naming) == shapes
    state = cnn.from_tensors(config, tensors, source="test")
    other = cnn.from_tensors(config, named(MOBILENET_NAMES["torchvision"], MOBILENET_ARRAYS), source="test")
    assert_same_state(state, other)


@pytest.fixture(scope="module")
def demo_tensors():
    return read_torch(demo_weights_path())


def test_demo_weights_classify_a_cat_as_pytorch_does(demo_tensors):
    net = network(InvertedResidualConfig(arch="efficientnet_lite0"), demo_tensors)
    image = preprocess(skimage.data.chelsea(), DEMO_PREPROCESSING)
    logits = np.asarray(jax.jit(net)(image[None]))[0]
    # From an implementation of its own in PyTorch 2.13, float64, on the same pixels.
    pinned = {
        282: 9.24740,
        285: 9.14198,
        281: 8.40360,
        287: 5.91972,
        904: 3.41470,
        0: -0.56181,
        111: -0.74204,
        500: -0.77321,
        777: -0.24179,
        999: 1.63028,
    }
    assert logits.argmax() == 282  # tiger cat
    np.testing.assert_allclose(logits[list(pinned)], list(pinned.values()), atol=1e-3)
    np.testing.assert_allclose([logits.mean(), logits.std()], [-0.060730, 1.222359], atol=1e-4)


def test_timm_names_of_efficientnet_give_the_same_parameters(demo_tensors):
    pairs, linear = package_names()
    arrays = [(demo_tensors[f"{c}.weight"], *(demo_tensors[f"{n}.{leaf}"] for leaf in LEAVES)) for c, n in pairs]
    arrays.append((demo_tensors[f"{linear}.weight"], demo_tensors[f"{linear}.bias"]))
    shapes = [array[0].shape for array in arrays[:-1]]
    assert shapes == [(out, 1 if dw else fan_in, k, k) for fan_in, out, k, _, dw, _ in layers(LITE_STAGES, 32)]
    config = InvertedResidualConfig(arch="efficientnet_lite0")
    tensors = named(timm_names([2, 2, 3, 3, 4, 1]), arrays)
    state = cnn.from_tensors(config, tensors, source="timm")
    assert_same_state(state, cnn.from_tensors(config, demo_tensors, source="package"))


def test_features_batches_and_gradients():
    config = InvertedResidualConfig(arch="mobilenet_v2", **SMALL)
    net = network(config, named(MOBILENET_NAMES["timm"], MOBILENET_ARRAYS))

    def first(images):
        features = net.features(images)
        logits = net.classify(features)
        return logits[0].sum(), features.maps

    # The gradient goes through the loop over images, and finds that none's logits depend on another.
    gradient, three = jax.jit(jax.grad(first, has_aux=True))(IMAGES)
    assert jnp.abs(gradient[0]).max() > 1e-4
    assert not gradient[1:].any()
    assert three.shape == (3, 1, 1, 1280)
    assert three.min() >= 0
    assert three.max() <= 6
    # Three images go one by one, two together.
    np.testing.assert_allclose(jax.jit(net.features)(IMAGES[1:]).maps, three[1:], rtol=1e-5, atol=1e-5)


def test_platforms_get_their_own_form():
    config = InvertedResidualConfig(arch="mobilenet_v2", **SMALL)
    net = network(config, named(MOBILENET_NAMES["timm"], MOBILENET_ARRAYS))
    traced = jax.jit(net).trace(IMAGES)
    counts = [
        traced.lower(lowering_platforms=(p,)).as_text().count("stablehlo.convolution") for p in ("cpu", "cuda", "tpu")
    ]
    assert counts == [1, 52, 52]


def test_wrong_tensors_are_listed():
    config = InvertedResidualConfig(arch="mobilenet_v2", **SMALL)
    tensors = named(MOBILENET_NAMES["timm"], MOBILENET_ARRAYS)
    del tensors["bn1.running_var"]
    tensors["fc.bias"] = np.zeros(3)
    tensors["classifier.bias"] = np.zeros(7)
    with pytest.raises(ValueError, match="somewhere") as caught:
        cnn.from_tensors(config, tensors, source="somewhere")
    for part in ("bn1.running_var [16]", "fc.bias [3]", "classifier.bias (expected [5], found [7])"):
        assert part in str(caught.value)
    with pytest.raises(ValueError, match=r"conv_stem.weight.*got stem.kernel, ...: rename"):
        cnn.detect_naming({"stem.kernel": 0})


def test_images_of_another_shape_are_refused(unchecked):
    net = network(
        InvertedResidualConfig(arch="mobilenet_v2", **SMALL), named(MOBILENET_NAMES["timm"], MOBILENET_ARRAYS)
    )
    for shape in ((32, 32, 3), (1, 3, 32, 32)):
        with pytest.raises(ValueError, match=r"\[B, H, W, 3\]; got"):
            net(jnp.zeros(shape))
