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
    *(of_timm(name, name, _timm_sizes.get(name, 224)) for name in (*_timm_names, "mobilenetv2_100")),
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

# Gates and activations leave a fifth of what enters a block.
VARIANTS = [dataclasses.replace(variant, variance=0.2) for variant in _variants]
TINY = [dataclasses.replace(variant, variance=0.2) for variant in _tiny]
