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
    logits_of = jax.jit(type(model).logits)
    logits = logits_of(model, images)
    features = jax.jit(type(model).features)(model, images)
    assert features.maps.shape == (3, 6, 5, 16)
    np.testing.assert_allclose(model.classify(features), logits, rtol=1e-5)
    alone = logits_of(model, images[1:2])[0]
    np.testing.assert_allclose(alone, logits[1], rtol=1e-4, atol=1e-5)
    gradient = jax.jit(jax.grad(lambda x: model.logits(x)[0, 1]))(images)
    assert (np.asarray(gradient[1:]) == 0).all()
    step = 1e-2 * gradient / jnp.linalg.norm(gradient)
    change = (logits_of(model, images + step) - logits_of(model, images - step))[0, 1] / 2
    np.testing.assert_allclose(change, 1e-2 * jnp.linalg.norm(gradient), rtol=0.05)
    half = model.astype("bfloat16")
    found = logits_of(half, images)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, logits, atol=0.1 * float(jnp.abs(logits).max()))


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


SMALL = {"layers": [1, 1, 1, 1]}  # what the next tests' weights are


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"architecture": "resnet50d"}, "expected a model_type of"),
        ({"architecture": "seresnet50"}, "expected a model_type of"),
        ({"architecture": "resnet18"}, r"layers is \(2, 2, 2, 2\) in the config and \(1, 1, 1, 1\) in the weights"),
        ({"architecture": "resnet18", "model_args": {"stem_type": "deep"}}, "expected stem_type"),
        ({"architecture": "resnet18", "model_args": {"gates": 3}}, "model_args gates may change the network"),
        ({"architecture": "resnet18", "model_args": SMALL | {"channels": 8}}, "channels must be a list"),
        (
            {"architecture": "resnet18", "model_args": SMALL | {"channels": [8, 8, 8, 16]}},
            r"channels is \(8, 8, 8, 16\)",
        ),
        ({"architecture": "resnet18", "model_args": SMALL | {"in_chans": 1}}, "in_chans is 1 in the config"),
        ({"architecture": "resnet18", "model_args": SMALL | {"avg_down": True}}, "expected avg_down false"),
        ({"architecture": "resnet18", "model_args": SMALL | {"norm_layer": "groupnorm"}}, "expected norm_layer"),
        ({"architecture": "tv_resnet99"}, "expected an architecture of resnet18"),
        ({"model_type": "resnet"}, "the config says 'resnet', the tensors are named as in timm"),
    ],
)
def test_settings_of_timm_that_are_refused(tmp_path, settings, message):
    config = resnet.ResNetConfig(depths=(1, 1, 1, 1), widths=(8, 8, 8, 8), inner=(), stem=8, num_classes=3)
    with pytest.raises(ValueError, match=message):
        load(tmp_path, settings, config, "timm")


@pytest.mark.parametrize(
    ("settings", "size", "text"),
    [
        ({"architecture": "resnet18.a3_in1k"}, (160, 160), "resize 168"),
        ({"architecture": "tv_resnet18"}, (224, 224), "resize 256"),
        ({"architecture": "ssl_resnet18", "input_size": [3, 192, 192]}, (192, 192), "resize 219"),
    ],
)
def test_a_tag_or_an_older_name_tells_how_photos_are_seen(tmp_path, settings, size, text):
    config = resnet.ResNetConfig(depths=(1, 1, 1, 1), widths=(8, 8, 8, 8), inner=(), stem=8, num_classes=3)
    # What changes nothing at inference, or speaks of other ResNets' stems, is not refused.
    args = {"model_args": SMALL | {"zero_init_last": False, "stem_width": 32, "drop_rate": 0.1, "aa_layer": None}}
    tensors = made_tensors(resnet.expected_tensors(config, "timm"))
    folder = write_folder(tmp_path, {"num_classes": 3, **settings, **args}, tensors, None)
    with pytest.warns(UserWarning, match=text):
        model = jm.models.load(folder)
    assert model.preprocessing.size == size


def test_a_name_that_several_weights_have_is_asked_about(tmp_path):
    tensors = made_tensors(resnet.expected_tensors(CONFIG, "huggingface"))
    for settings, weights in ((HUGGINGFACE, tensors), ({"architecture": "resnet18", "num_classes": 3}, None)):
        shapes = trainable_resnet.expected_tensors(trainable_resnet.ResidualNetConfig(18, 3))
        folder = write_folder(
            tmp_path / settings.get("model_type", "timm"), settings, weights or made_tensors(shapes), None
        )
        with pytest.raises(ValueError, match="does not say how a photo becomes the network's input"):
            jm.models.load(folder)


def test_the_way_a_stride_is_made_is_part_of_the_network(tmp_path):
    config = resnet.ResNetConfig(depths=(1, 2), widths=(16, 32), inner=(4, 8), stem=8, num_classes=3)
    settings = {**HUGGINGFACE, "layer_type": "bottleneck", "hidden_sizes": [16, 32]}
    images = jnp.asarray(made_images((48, 48)))
    late = load(tmp_path / "late", settings, config)
    early = load(tmp_path / "early", settings, config, downsample_in_bottleneck=True)
    assert np.abs(np.asarray(late.logits(images) - early.logits(images))).max() > 1e-2
