"""ResNets."""

import dataclasses

from variants import at, of_timm, of_torchvision, of_transformers

_HUGGINGFACE = {
    "18": dict(depths=[2, 2, 2, 2], hidden_sizes=[64, 128, 256, 512], layer_type="basic"),
    "34": dict(depths=[3, 4, 6, 3], hidden_sizes=[64, 128, 256, 512], layer_type="basic"),
    "50": dict(depths=[3, 4, 6, 3]),
    "101": dict(depths=[3, 4, 23, 3]),
    "152": dict(depths=[3, 8, 36, 3]),
}
_small = dict(num_labels=5, embedding_size=8, depths=[1, 2])

VARIANTS = [
    *(of_transformers(f"ResNet-{name}", "ResNet", **config) for name, config in _HUGGINGFACE.items()),
    of_transformers("ResNet-50 v1", "ResNet", **_HUGGINGFACE["50"], downsample_in_bottleneck=True),
    *(of_timm(f"ResNet-{name}", f"resnet{name}") for name in _HUGGINGFACE),
    *(of_timm(f"Wide ResNet-{name}", f"wide_resnet{name.replace('-', '_')}") for name in ("50-2", "101-2")),
    *(of_torchvision(f"ResNet-{name}", f"resnet{name}") for name in _HUGGINGFACE),
    *(of_torchvision(f"Wide ResNet-{name}", f"wide_resnet{name.replace('-', '_')}") for name in ("50-2", "101-2")),
    at(of_torchvision("ResNet-18", "resnet18"), (160, 288)),
]

TINY = [
    of_transformers("resnet-basic", "ResNet", 48, **_small, hidden_sizes=[8, 16], layer_type="basic"),
    of_transformers(
        "resnet-v1", "ResNet", (64, 48), **_small, hidden_sizes=[16, 32], downsample_in_bottleneck=True,
        downsample_in_first_stage=True, hidden_act="gelu",
    ),
    # SiLU damps: with a variance of 1 the two images' logits would hardly differ.
    dataclasses.replace(
        of_timm(
            "resnet-wide", "resnet50", 64, num_classes=5, layers=[1, 2, 1, 1], channels=[4, 8, 8, 16], base_width=128,
            in_chans=1, act_layer="silu",
        ),
        variance=0.55,
    ),
    of_timm("resnet-basic", "resnet18", (40, 72), num_classes=5, layers=[2, 1, 1, 1], channels=[4, 8, 8, 16]),
    of_transformers("resnet-bottleneck", "ResNet", 64, **_small, hidden_sizes=[16, 32], num_channels=2),
]  # fmt: skip
