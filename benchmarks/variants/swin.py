"""Swin transformers."""

import dataclasses
from typing import Any

from variants import Variant, at, of_timm, of_torchvision, of_transformers

_B: dict[str, Any] = dict(embed_dim=128, depths=[2, 2, 18, 2], num_heads=[4, 8, 16, 32])
_small: dict[str, Any] = dict(
    embed_dim=12, depths=[2, 3], num_heads=[2, 3], window_size=4, mlp_ratio=2.0, image_size=36, num_labels=5
)
_args: dict[str, Any] = dict(img_size=36, embed_dim=12, depths=[2, 3], num_heads=[2, 3], window_size=4, num_classes=5)


def timm_at(variant: Variant, size: tuple[int, int], windows: Any = 7) -> Variant:
    """The same weights of timm's for images of another size, as `create_model(img_size=size)` makes its windows."""

    def make() -> Any:
        module = variant.make()

        def resize(module: Any, images: Any) -> None:
            module.set_input_size(img_size=size, window_size=windows)

        module.register_forward_pre_hook(resize)
        return module

    return dataclasses.replace(at(variant, size), make=make)


def small_torchvision(architecture: str, size: tuple[int, int], **args: Any) -> Variant:
    """A small network of torchvision's class."""

    def make() -> Any:
        from torchvision.models import SwinTransformer

        shape: dict[str, Any] = dict(embed_dim=12, depths=[2, 3], num_heads=[2, 3], window_size=[4, 4], num_classes=5)
        return SwinTransformer(patch_size=[4, 4], **shape | args)

    settings = {"architecture": "swin_t", "image_size": list(size)}
    return Variant(architecture, "torchvision", make, settings | args, size)


VARIANTS = [
    of_transformers("Swin-T", "Swin"),
    of_transformers("Swin-S", "Swin", depths=[2, 2, 18, 2]),
    of_transformers("Swin-B", "Swin", **_B),
    of_transformers("Swin-B of 384", "Swin", 384, **_B, image_size=384, window_size=12),
    at(of_transformers("Swin-T", "Swin"), (230, 301)),
    of_timm("Swin-T", "swin_tiny_patch4_window7_224"),
    of_timm("Swin-S", "swin_small_patch4_window7_224"),
    of_timm("Swin-B", "swin_base_patch4_window7_224"),
    of_timm("Swin-B of 384", "swin_base_patch4_window12_384", 384),
    of_timm("Swin-S3-T", "swin_s3_tiny_224"),
    timm_at(of_timm("Swin-T", "swin_tiny_patch4_window7_224"), (160, 288)),
    *(of_torchvision(f"Swin-{size.upper()}", f"swin_{size}") for size in "tsb"),
    at(of_torchvision("Swin-T", "swin_t"), (160, 301)),
]

TINY = [
    of_transformers("swin", "Swin", 36, **_small),
    of_transformers("swin-relu", "Swin", 32, **_small | dict(image_size=32), qkv_bias=False, hidden_act="relu"),
    at(of_transformers("swin-other-size", "Swin", **_small, num_channels=1), (34, 63)),
    at(
        of_transformers("swin-absolute", "Swin", **_small, use_absolute_embeddings=True, layer_norm_eps=1e-3),
        (32, 56),
        interpolate_pos_encoding=True,
    ),
    of_timm("swin-oblong", "swin_tiny_patch4_window7_224", (20, 50), **_args | dict(img_size=[20, 50], in_chans=4)),
    of_timm("swin-partition", "swin_tiny_patch4_window7_224", 28, **_args | dict(img_size=28, always_partition=True)),
    of_timm("swin-windows", "swin_tiny_patch4_window7_224", 36, **_args | dict(window_size=[[4, 3], [2, 5]])),
    timm_at(of_timm("swin-other-size", "swin_tiny_patch4_window7_224", 36, **_args), (20, 60), 4),
    at(
        of_timm("swin-any-size", "swin_tiny_patch4_window7_224", 36, **_args, strict_img_size=False, head_dim=5),
        (20, 64),
    ),
    small_torchvision("swin-oblong", (30, 17), window_size=[4, 3], mlp_ratio=3.0),
]
