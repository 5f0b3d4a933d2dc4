import numpy as np
import pytest

from jaxmoxi.models.networks import cnn
from jaxmoxi.models.networks.cnn import InvertedResidualConfig

CLASSIFIERS = {
    "huggingface": {
        "mobilenet_v2.conv_stem.first_conv.convolution.weight": np.zeros(1),
        "classifier.weight": np.zeros((1001, 1)),
    },
    "torchvision": {"features.0.0.weight": np.zeros(1), "classifier.1.weight": np.zeros((10, 1))},
    "timm": {"conv_stem.weight": np.zeros(1), "classifier.weight": np.zeros((10, 1))},
    "efficientnet_pytorch": {"_conv_stem.weight": np.zeros(1), "_fc.weight": np.zeros((1000, 1))},
}
HUGGINGFACE = {"model_type": "mobilenet_v2", "depth_multiplier": 0.5, "image_size": 160, "expand_ratio": 6.0}
TIMM = {"num_classes": 10, "pretrained_cfg": {"input_size": [3, 192, 192]}}
TF, TORCH = ("tf_same", 1e-3), ("symmetric", 1e-5)


@pytest.mark.parametrize(
    ("naming", "settings", "expected"),
    [
        ("huggingface", HUGGINGFACE, InvertedResidualConfig("mobilenet_v2", 1001, 160, 0.5, *TF)),
        (
            "huggingface",
            HUGGINGFACE | {"tf_padding": False, "layer_norm_eps": 1e-4},
            InvertedResidualConfig("mobilenet_v2", 1001, 160, 0.5, "symmetric", 1e-4),
        ),
        ("torchvision", {"model_type": "mobilenet_v2"}, InvertedResidualConfig("mobilenet_v2", 10, 224, 1.0, *TORCH)),
        (
            "timm",
            TIMM | {"architecture": "mobilenetv2_140"},
            InvertedResidualConfig("mobilenet_v2", 10, 192, 1.4, *TORCH),
        ),
        (
            "timm",
            TIMM | {"architecture": "mobilenetv2_050.lamb"},
            InvertedResidualConfig("mobilenet_v2", 10, 192, 0.5, *TORCH),
        ),
        (
            "timm",
            TIMM | {"architecture": "efficientnet_lite0"},
            InvertedResidualConfig("efficientnet_lite0", 10, 192, 1.0, *TORCH),
        ),
        (
            "timm",
            TIMM | {"architecture": "tf_efficientnet_lite0"},
            InvertedResidualConfig("efficientnet_lite0", 10, 192, 1.0, *TF),
        ),
        (
            "efficientnet_pytorch",
            {"architecture": "efficientnet_lite0"},
            InvertedResidualConfig("efficientnet_lite0", 1000),
        ),
    ],
)
def test_configs(naming, settings, expected):
    assert cnn.config_from_settings(settings, CLASSIFIERS[naming]) == expected


@pytest.mark.parametrize(
    ("naming", "settings", "message"),
    [
        ("huggingface", HUGGINGFACE | {"output_stride": 16}, "expected output_stride 32; got .*16"),
        ("huggingface", HUGGINGFACE | {"hidden_act": "swish"}, "expected hidden_act relu6"),
        ("timm", {"architecture": "mobilenetv2_110d"}, "got 'mobilenetv2_110d'"),
        ("torchvision", {"architecture": "efficientnet_lite0"}, "named as in torchvision"),
        ("efficientnet_pytorch", {"model_type": "mobilenet_v2"}, "named as in efficientnet_pytorch"),
    ],
)
def test_configs_that_are_refused(naming, settings, message):
    with pytest.raises(ValueError, match=message):
        cnn.config_from_settings(settings, CLASSIFIERS[naming])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arch": "resnet50"}, "expected arch to be one of efficientnet, efficientnet_lite0, mobilenet_v2, "),
        ({"padding": "valid"}, 'expected padding "tf_same", "symmetric" or "keras"'),
        ({"num_classes": 0}, "num_classes must be a whole number"),
        ({"arch": "efficientnet_lite0", "width": 0.5}, "1 for EfficientNet-Lite0"),
        ({"norm_eps": -1.0}, "norm_eps must not be negative"),
    ],
)
def test_shapes_that_are_refused(changes, message, unchecked):
    with pytest.raises(ValueError, match=message):
        InvertedResidualConfig(**{"arch": "mobilenet_v2", **changes})
