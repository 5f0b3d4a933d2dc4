"""EfficientNet and MobileNetV3, the chains with gates; `test_cnn` has those without."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxmoxi as jm
from jaxmoxi.models.networks import cnn
from jaxmoxi.models.networks.cnn import InvertedResidualConfig
from jaxmoxi.models.networks.cnn_config import Row, network_shape
from support.checkpoints import write_folder
from support.networks import made_images, made_tensors

GOLDEN = Path(__file__).parents[2] / "golden" / "networks"
FILES = [path for path in sorted(GOLDEN.glob("*.json")) if "efficientnet" in path.stem or "mobilenet" in path.stem]
IMAGES = jnp.asarray(made_images((33, 32), count=3))
GATED = ((Row(1, 16, 1, 1, 3, True),), (Row(4, 24, 2, 2, 5, True),))
SMALL = {"num_classes": 5, "image_size": 32, "stages": GATED, "width": 0.5}


def network(config):
    tensors = made_tensors(cnn.expected_tensors(config, "timm"), 0.3)
    state = cnn.from_tensors(config, tensors, source="test")
    return nnx.merge(nnx.split(nnx.eval_shape(lambda: cnn.InvertedResidualNet(config, rngs=nnx.Rngs(0))))[0], state)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_names_and_shapes_are_those_of_pytorch(path):
    golden = json.loads(path.read_text())
    tensors = {n: np.broadcast_to(np.float32(0), shape) for n, shape in golden["shapes"].items()}  # of no memory
    config = cnn.config_from_settings(golden["settings"], tensors)
    naming = cnn.detect_naming(tensors)
    assert naming == path.stem.split("-")[0].replace("transformers", "huggingface")
    assert cnn.expected_tensors(config, naming) == {n: t.shape for n, t in tensors.items()}
    assert (config.num_channels, config.num_classes) == (golden["image"][2], len(golden["logits"][0]))


@pytest.mark.parametrize("arch", ["efficientnet", "mobilenet_v3_small"])
def test_both_forms_agree_and_images_are_apart(arch):
    net = network(InvertedResidualConfig(arch, **SMALL, padding="keras", symmetric_blocks=(1,)))

    def first(images):
        logits = net(images)
        return logits[0].sum(), logits

    (_, logits), gradient = jax.jit(jax.value_and_grad(first, has_aux=True))(IMAGES)
    assert np.abs(logits[0] - logits[1]).max() > 0.05
    native = jax.jit(lambda x: net._chain(x, depthwise=cnn._convolve, pointwise=cnn._convolve))(IMAGES)
    np.testing.assert_allclose(net.classify(cnn.Features(native)), logits, rtol=1e-4, atol=1e-5)
    assert jnp.abs(gradient[0]).max() > 1e-5
    assert not gradient[1:].any()


@pytest.mark.parametrize(
    ("name", "width", "depth", "blocks", "head"),
    [("efficientnet_b0", 1.0, 1.0, 16, 1280), ("tf_efficientnet_b3.ns_jft_in1k", 1.2, 1.4, 26, 1536),
     ("efficientnet-b4", 1.4, 1.8, 32, 1792), ("efficientnet_b7", 2.0, 3.1, 55, 2560)],
)  # fmt: skip
def test_the_sizes_of_efficientnet(name, width, depth, blocks, head):
    package = "-" in name
    stem, last = ("_conv_stem", "_fc") if package else ("conv_stem", "classifier")
    tensors = {f"{stem}.weight": np.zeros((8, 3, 3, 3)), f"{last}.weight": np.zeros((4, 1))}
    config = cnn.config_from_settings({"architecture": name}, tensors)
    shape = network_shape(config)
    assert (config.width, config.depth, len(shape.blocks), shape.head) == (width, depth, blocks, head)
    tensorflow = package or name.startswith("tf_")
    assert (config.padding, config.norm_eps) == (("tf_same", 1e-3) if tensorflow else ("symmetric", 1e-5))


HUGGINGFACE = {"model_type": "efficientnet", "width_coefficient": 1.0, "depth_coefficient": 1.0, "hidden_dim": 1280}
STEMS = {
    "huggingface": {"efficientnet.embeddings.convolution.weight": np.zeros((32, 3, 3, 3))},
    "timm": {"conv_stem.weight": np.zeros((16, 3, 3, 3))},
    "torchvision": {"features.0.0.weight": np.zeros((16, 3, 3, 3))},
}


@pytest.mark.parametrize(
    ("settings", "naming", "message"),
    [
        ({"architecture": "efficientnet_b1_pruned"}, "timm", "expected an architecture .*got 'efficientnet_b1_pruned'"),
        ({"architecture": "efficientnet_b0_gn"}, "timm", "not implemented"),
        ({"architecture": "mobilenetv3_large_150d"}, "timm", "not implemented"),
        ({"architecture": "mobilenetv3_rw"}, "timm", "not implemented"),
        ({"architecture": "mobilenetv3_small_100"}, "torchvision", "mobilenet_v3_large or mobilenet_v3_small; got"),
        ({"architecture": "efficientnet_b0"}, "huggingface", "the tensors are those of efficientnet"),
        ({"architecture": "mobilenet_v3_large", "reduced_tail": True}, "torchvision", "expected reduced_tail false"),
        ({"architecture": "efficientnet_b0", "model_args": {"aa_layer": "blur"}}, "timm", "expected aa_layer null"),
        ({"architecture": "mobilenetv3_large_100", "model_args": {"head_bias": False}}, "timm", "head_bias true"),
        (HUGGINGFACE | {"pooling_type": "max"}, "huggingface", "expected pooling_type mean"),
        (HUGGINGFACE | {"hidden_dim": 640}, "huggingface", "hidden_dim is 640 in the config and 1280"),
        (HUGGINGFACE | {"strides": [1, 2]}, "huggingface", "of the same number of stages"),
        (HUGGINGFACE | {"strides": [1, 2, 2, 2, 1, 3, 1]}, "huggingface", "strides of 1 or 2"),
        (HUGGINGFACE | {"in_channels": [16] * 7}, "huggingface", r"expected in_channels \[32, 16, 24"),
        (HUGGINGFACE | {"out_channels": "many"}, "huggingface", "out_channels must be a list"),
        (HUGGINGFACE | {"num_channels": 1}, "huggingface", "num_channels is 1 in the config and 3"),
        (HUGGINGFACE | {"hidden_act": "snake"}, "huggingface", "expected hidden_act to be one of"),
        (HUGGINGFACE | {"depthwise_padding": "all"}, "huggingface", "depthwise_padding must be a list"),
    ],
)
def test_settings_that_are_refused(settings, naming, message):
    with pytest.raises(jm.InputError, match=message):
        cnn.config_from_settings(settings, STEMS[naming])


def test_a_folder_of_torchvision_names_is_seen_as_published(tmp_path):
    config = InvertedResidualConfig("mobilenet_v3_small", 5, width=0.35, padding="symmetric", scaled="all")
    tensors = made_tensors(cnn.expected_tensors(config, "torchvision"))
    folder = write_folder(tmp_path, {"architecture": "mobilenet_v3_small", "width_mult": 0.35}, tensors, None)
    with pytest.warns(UserWarning, match="resize 256, crop"):
        model = jm.models.load(folder)
    assert model.config == config
    assert (model.preprocessing.crop, model.preprocessing.resample) == ((224, 224), 2)
    assert jm.models.load(folder, image_size=(64, 96), preprocessing="imagenet").config.image_size == (64, 96)
