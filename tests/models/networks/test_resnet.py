"""ResNets of every naming; the golden files hold PyTorch's logits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxmoxi as jm
from jaxmoxi.models.networks import resnet, trainable_resnet
from support.checkpoints import write_folder
from support.networks import made_images, made_tensors

HUGGINGFACE = {
    "model_type": "resnet", "architectures": ["ResNetForImageClassification"], "depths": [1, 2],
    "hidden_sizes": [8, 16], "embedding_size": 8, "layer_type": "basic", "hidden_act": "relu", "num_labels": 3,
}  # fmt: skip
CONFIG = resnet.ResNetConfig(depths=(1, 2), widths=(8, 16), inner=(), stem=8, num_classes=3)


def load(tmp_path, settings=HUGGINGFACE, config=CONFIG, naming="huggingface", **changes):
    tensors = made_tensors(resnet.expected_tensors(config, naming))
    return jm.models.load(write_folder(tmp_path, {**settings, **changes}, tensors, None), preprocessing="imagenet")


@pytest.mark.slow
def test_it_is_the_trainable_one_with_its_norms_folded(tmp_path):
    shapes = trainable_resnet.expected_tensors(trainable_resnet.ResidualNetConfig(18, 4))
    tensors = made_tensors(shapes)
    folder = write_folder(tmp_path, {"architecture": "resnet18.tv_in1k", "num_classes": 4}, tensors, None)
    with pytest.warns(UserWarning, match="assuming the preprocessing of the published weights .* resize 256"):
        model = jm.models.load(folder)
    config = trainable_resnet.ResidualNetConfig(18, 4)
    state = trainable_resnet.from_tensors(config, tensors, source="test")

    other = nnx.merge(nnx.split(nnx.eval_shape(lambda: trainable_resnet.ResNet(config, rngs=nnx.Rngs(0))))[0], state)
    other.eval()
    images = jnp.asarray(made_images((64, 48)))
    expected = np.asarray(other(images))
    np.testing.assert_allclose(model.logits(images), expected, atol=1e-4 * np.abs(expected).max())
    assert model.token_grid is None


def test_features_batches_and_gradients(tmp_path):
    model = load(tmp_path)
    images = jnp.asarray(made_images((48, 40), count=3))
    logits = model.logits(images)
    features = model.features(images)
    assert features.maps.shape == (3, 6, 5, 16)
    np.testing.assert_allclose(model.classify(features), logits, rtol=1e-5)
    np.testing.assert_allclose(jax.jit(type(model).logits)(model, images[1:2])[0], logits[1], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(jax.vmap(lambda x: model.logits(x[None])[0])(images), logits, rtol=1e-4, atol=1e-5)
    gradient = jax.grad(lambda x: model.logits(x)[0, 1])(images)
    assert (np.asarray(gradient[1:]) == 0).all()
    step = 1e-2 * gradient / jnp.linalg.norm(gradient)
    change = (model.logits(images + step) - model.logits(images - step))[0, 1] / 2
    np.testing.assert_allclose(change, 1e-2 * jnp.linalg.norm(gradient), rtol=0.05)
    half = model.astype("bfloat16")
    assert half.logits(images).dtype == jnp.float32
    np.testing.assert_allclose(half.logits(images), logits, atol=0.1 * float(jnp.abs(logits).max()))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layer_type": "preactivation"}, 'expected layer_type "basic" or "bottleneck"'),
        ({"depths": [2, 2]}, r"depths is \(2, 2\) in the config and \(1, 2\) in the weights"),
        ({"depths": 3}, "depths must be a list of whole numbers"),
        ({"hidden_sizes": [8]}, "expected a depth and a width for each stage"),
        ({"hidden_sizes": [8, 32]}, "misshapen: resnet.encoder.stages.1"),
        ({"num_channels": 1}, "num_channels is 1 in the config and 3 in the weights"),
        ({"hidden_act": "sinus"}, "expected hidden_act to be one of gelu"),
        ({"downsample_in_first_stage": "yes"}, "downsample_in_first_stage must be true or false"),
        ({"model_type": "vit"}, "expected"),
    ],
)
def test_settings_of_hugging_face_that_are_refused(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        load(tmp_path, **changes)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"architecture": "resnet50d"}, "expected a model_type of"),
        ({"architecture": "seresnet50"}, "expected a model_type of"),
        ({"architecture": "resnet18"}, r"layers is \(2, 2, 2, 2\) in the config and \(1, 1, 1, 1\) in the weights"),
        ({"architecture": "resnet18", "model_args": {"stem_type": "deep"}}, "expected stem_type"),
        ({"architecture": "resnet18", "model_args": {"gates": 3}}, "model_args gates may change the network"),
        ({"model_type": "resnet"}, "the config says 'resnet', the tensors are named as in timm"),
    ],
)
def test_settings_of_timm_that_are_refused(tmp_path, settings, message):
    config = resnet.ResNetConfig(depths=(1, 1, 1, 1), widths=(8, 8, 8, 8), inner=(), stem=8, num_classes=3)
    with pytest.raises(ValueError, match=message):
        load(tmp_path, settings, config, "timm")


def test_the_way_a_stride_is_made_is_part_of_the_network(tmp_path):
    config = resnet.ResNetConfig(depths=(1, 2), widths=(16, 32), inner=(4, 8), stem=8, num_classes=3)
    settings = {**HUGGINGFACE, "layer_type": "bottleneck", "hidden_sizes": [16, 32]}
    images = jnp.asarray(made_images((48, 48)))
    late = load(tmp_path / "late", settings, config)
    early = load(tmp_path / "early", settings, config, downsample_in_bottleneck=True)
    assert np.abs(np.asarray(late.logits(images) - early.logits(images))).max() > 1e-2
