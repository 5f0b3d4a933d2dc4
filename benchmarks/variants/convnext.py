# pyright: reportMissingImports=false
"""ConvNeXt of both versions."""

from typing import Any

from variants import Variant, of_timm, of_torchvision, of_transformers

_SIZES = {
    "T": {},
    "S": dict(depths=[3, 3, 27, 3]),
    "B": dict(depths=[3, 3, 27, 3], hidden_sizes=[128, 256, 512, 1024]),
    "L": dict(depths=[3, 3, 27, 3], hidden_sizes=[192, 384, 768, 1536]),
}
_small = dict(depths=[1, 2, 1], hidden_sizes=[8, 12, 16], num_stages=3, num_labels=5, image_size=32)
_args = dict(depths=[1, 2, 1, 1], dims=[8, 12, 16, 16], num_classes=5)


def _small_torchvision() -> Any:
    from torchvision.models.convnext import CNBlockConfig, ConvNeXt

    stages = [CNBlockConfig(8, 12, 1), CNBlockConfig(12, 16, 2), CNBlockConfig(16, None, 1)]
    return ConvNeXt(stages, num_classes=5)


VARIANTS = [
    *(of_transformers(f"ConvNeXt-{size}", "ConvNext", **config) for size, config in _SIZES.items()),
    of_transformers("ConvNeXt V2-T", "ConvNextV2"),
    *(
        of_timm(f"ConvNeXt-{name}", f"convnext_{name.lower()}")
        for name in ("Atto", "Atto_ols", "Femto", "Pico", "Nano", "Nano_ols", "Tiny", "Tiny_hnf", "Small", "Base")
    ),
    of_timm("ConvNeXt-Large", "convnext_large"),
    of_timm("ConvNeXt-Large MLP", "convnext_large_mlp", 256),
    of_timm("ConvNeXt V2-Atto", "convnextv2_atto"),
    *(of_torchvision(f"ConvNeXt-{name}", f"convnext_{name.lower()}") for name in ("Tiny", "Small", "Base", "Large")),
]

TINY = [
    of_transformers("convnext", "ConvNext", 32, **_small),
    of_transformers(
        "convnext-other", "ConvNext", (48, 40),
        **_small | dict(layer_scale_init_value=0.0, hidden_act="gelu_new", patch_size=2, num_channels=2, num_labels=1,
                        problem_type="multi_label_classification", layer_norm_eps=0.1),
    ),
    of_transformers("convnextv2", "ConvNextV2", 32, **_small),
    of_timm("convnext", "convnext_tiny", 32, **_args, norm_eps=1e-2, act_layer="silu"),
    of_timm("convnext-mlp", "convnext_atto_ols", (64, 45), **_args, head_hidden_size=6, kernel_sizes=[7, 5, 3, 3]),
    of_timm("convnext-norm-first", "convnext_tiny_hnf", 32, **_args, stem_type="overlap"),
    of_timm("convnextv2", "convnextv2_atto", 32, **_args),
    Variant("convnext", "torchvision", _small_torchvision, {"architecture": "convnext_tiny"}, (32, 48)),
]  # fmt: skip
