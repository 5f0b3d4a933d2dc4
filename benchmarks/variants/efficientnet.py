# pyright: reportMissingImports=false
"""EfficientNet and MobileNet: chains of inverted residual blocks."""

import dataclasses
from typing import Any

from variants import Variant, of_timm, of_torchvision, of_transformers

_B = [(1.0, 1.0, 224, 1280), (1.0, 1.1, 240, 1280), (1.1, 1.2, 260, 1408), (1.2, 1.4, 300, 1536), (1.4, 1.8, 380, 1792)]


def _b(i: int, **config: Any) -> Variant:
    width, depth, size, hidden = _B[i]
    coefficients = dict(width_coefficient=width, depth_coefficient=depth, image_size=size, hidden_dim=hidden)
    return of_transformers(f"EfficientNet-B{i}", "EfficientNet", size, **coefficients, **config)


def _small_efficientnet() -> Any:
    from torchvision.models.efficientnet import EfficientNet, MBConvConfig

    rows = [
        (1, 3, 1, 32, 16, 1),
        (6, 3, 2, 16, 24, 2),
        (6, 5, 2, 24, 40, 2),
        (6, 3, 2, 40, 80, 3),
        (6, 5, 1, 80, 112, 3),
    ]
    rows += [(6, 5, 2, 112, 192, 4), (6, 3, 1, 192, 320, 1)]
    return EfficientNet([MBConvConfig(*row) for row in rows], 0.2, num_classes=5)


_timm_names = [f"efficientnet_b{i}" for i in range(5)] + [f"tf_efficientnet_b{i}" for i in range(5)]
_timm_names += [f"mobilenetv3_{name}" for name in ("large_075", "large_100", "small_050", "small_075", "small_100")]
_timm_names += [
    f"tf_mobilenetv3_{name}"
    for name in ("large_075", "large_100", "large_minimal_100", "small_075", "small_100", "small_minimal_100")
]
_timm_sizes = {f"{tf}efficientnet_b{i}": size[i] for tf, size in (
    ("", (224, 256, 288, 320, 384)), ("tf_", (224, 240, 260, 300, 380))) for i in range(5)}  # fmt: skip
_lists = dict(
    kernel_sizes=[3, 3, 5], in_channels=[32, 16, 24], out_channels=[16, 24, 24], strides=[1, 2, 2],
    expand_ratios=[1, 6, 2], num_block_repeats=[1, 1, 2], width_coefficient=0.25, depth_coefficient=1.1,
    hidden_dim=320, num_labels=5,
)  # fmt: skip

_variants = [
    *(_b(i) for i in range(5)),
    of_transformers("MobileNetV2", "MobileNetV2"),
    *(
        of_timm(name, name, _timm_sizes.get(name, 224))
        for name in (*_timm_names, "mobilenetv2_100", "tf_efficientnet_lite0")
    ),
    *(of_torchvision(f"EfficientNet-B{i}", f"efficientnet_b{i}", _B[i][2]) for i in range(5)),
    of_torchvision("MobileNetV2", "mobilenet_v2"),
    of_torchvision("MobileNetV3-Large", "mobilenet_v3_large"),
    of_torchvision("MobileNetV3-Small", "mobilenet_v3_small"),
]

_tiny = [
    of_transformers("efficientnet", "EfficientNet", 33, **_lists, image_size=33),
    of_transformers(
        "efficientnet-other", "EfficientNet", (40, 33),
        **_lists | dict(depthwise_padding=[1], hidden_act="relu", squeeze_expansion_ratio=0.4, num_channels=1,
                        batch_norm_eps=0.1, strides=[1, 2, 1], depth_divisor=4, out_channels=[32, 32, 24],
                        in_channels=[32, 32, 32]),
    ),
    of_timm("efficientnet", "efficientnet_b0", 32, num_classes=5),
    of_timm("efficientnet-tf", "tf_efficientnet_b0", 33, num_classes=5, in_chans=4, bn_eps=0.01, act_layer="relu"),
    dataclasses.replace(of_torchvision("efficientnet", "efficientnet_b0", 32), make=_small_efficientnet),
    of_timm("mobilenetv3-small", "mobilenetv3_small_050", 32, num_classes=5),
    of_timm("mobilenetv3-large", "tf_mobilenetv3_large_075", 45, num_classes=5),
    of_timm("mobilenetv3-minimal", "tf_mobilenetv3_small_minimal_100", 32, num_classes=5),
    of_torchvision("mobilenetv3-small", "mobilenet_v3_small", 45, num_classes=5),
    of_torchvision("mobilenetv3-large", "mobilenet_v3_large", 32, num_classes=5),
]  # fmt: skip

# Activations and gates damp what passes through a block. With running variances around these the logits of two images
# differ by a few units; around 1 they would be the classifier's bias and tell nothing. Found by bisection.
_VARIANCES = {
    "transformers efficientnet": 0.316,
    "transformers efficientnet-other": 0.237,
    "timm efficientnet": 0.392,
    "timm efficientnet-tf": 0.422,
    "torchvision efficientnet": 0.365,
    "timm mobilenetv3-small": 0.392,
    "timm mobilenetv3-large": 0.604,
    "timm mobilenetv3-minimal": 0.562,
    "torchvision mobilenetv3-small": 0.422,
    "torchvision mobilenetv3-large": 0.487,
    "transformers EfficientNet-B0": 0.453,
    "transformers EfficientNet-B1": 0.514,
    "transformers EfficientNet-B2": 0.496,
    "transformers EfficientNet-B3": 0.523,
    "transformers EfficientNet-B4": 0.533,
    "transformers MobileNetV2": 0.4,
    "timm efficientnet_b0": 0.487,
    "timm efficientnet_b1": 0.542,
    "timm efficientnet_b2": 0.538,
    "timm efficientnet_b3": 0.542,
    "timm efficientnet_b4": 0.542,
    "timm tf_efficientnet_b0": 0.487,
    "timm tf_efficientnet_b1": 0.542,
    "timm tf_efficientnet_b2": 0.542,
    "timm tf_efficientnet_b3": 0.533,
    "timm tf_efficientnet_b4": 0.542,
    "timm mobilenetv3_large_075": 0.649,
    "timm mobilenetv3_large_100": 0.604,
    "timm mobilenetv3_small_050": 0.487,
    "timm mobilenetv3_small_075": 0.487,
    "timm mobilenetv3_small_100": 0.487,
    "timm tf_mobilenetv3_large_075": 0.604,
    "timm tf_mobilenetv3_large_100": 0.604,
    "timm tf_mobilenetv3_large_minimal_100": 0.698,
    "timm tf_mobilenetv3_small_075": 0.487,
    "timm tf_mobilenetv3_small_100": 0.487,
    "timm tf_mobilenetv3_small_minimal_100": 0.649,
    "timm mobilenetv2_100": 0.4,
    "timm tf_efficientnet_lite0": 0.45,
    "torchvision EfficientNet-B0": 0.453,
    "torchvision EfficientNet-B1": 0.478,
    "torchvision EfficientNet-B2": 0.505,
    "torchvision EfficientNet-B3": 0.514,
    "torchvision EfficientNet-B4": 0.542,
    "torchvision MobileNetV2": 0.4,
    "torchvision MobileNetV3-Large": 0.562,
    "torchvision MobileNetV3-Small": 0.453,
}


def _scaled(variants: list[Variant]) -> list[Variant]:
    return [dataclasses.replace(v, variance=_VARIANCES[f"{v.naming} {v.architecture}"]) for v in variants]


VARIANTS = _scaled(_variants)
TINY = _scaled(_tiny)
