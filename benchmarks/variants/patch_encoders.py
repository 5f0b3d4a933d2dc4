"""DINOv2, BEiT and data2vec's vision network."""

import dataclasses
from typing import Any

from variants import Variant, at, of_timm, of_transformers

_DINOV2 = {
    "S": dict(hidden_size=384, num_attention_heads=6),
    "B": {},
    "L": dict(hidden_size=1024, num_hidden_layers=24, num_attention_heads=16),
    "g": dict(hidden_size=1536, num_hidden_layers=40, num_attention_heads=24, use_swiglu_ffn=True),
}
_LARGE = dict(hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096)
_BEIT = dict(use_relative_position_bias=True)
_DATA2VEC = dict(use_relative_position_bias=True, use_shared_relative_position_bias=True)
_HEAD = dict(num_classes=1000)  # timm's DINOv2 have none of their own

_small = dict(hidden_size=24, num_hidden_layers=3, num_attention_heads=3, num_labels=5, image_size=32, patch_size=8)
_beit = _small | dict(intermediate_size=40)
_args: dict[str, Any] = dict(img_size=32, patch_size=8, embed_dim=24, depth=3, num_heads=3, num_classes=5)


def timm_at(variant: Variant, size: tuple[int, int]) -> Variant:
    """The same weights of timm's for images of another size, which its module is set to when it is called."""

    def make() -> Any:
        module = variant.make()

        def resize(module: Any, images: Any) -> None:
            module.set_input_size(img_size=size)

        module.register_forward_pre_hook(resize)
        return module

    return dataclasses.replace(at(variant, size), make=make)


VARIANTS = [
    *(of_transformers(f"DINOv2-{k}", "Dinov2", image_size=518, **v) for k, v in _DINOV2.items() if k != "g"),
    # Of the giant's 40 layers four are compared.
    of_transformers("DINOv2-g, 4 layers", "Dinov2", image_size=518, **_DINOV2["g"] | dict(num_hidden_layers=4)),
    of_transformers("DINOv2-S at 518", "Dinov2", 518, image_size=518, **_DINOV2["S"]),
    *(
        of_transformers(f"DINOv2-{k}, registers", "Dinov2WithRegisters", image_size=518, patch_size=14, **v)
        for k, v in _DINOV2.items()
        if k in "SB"
    ),
    of_timm("DINOv2-S", "vit_small_patch14_dinov2", 518, **_HEAD),
    of_timm("DINOv2-B, registers", "vit_base_patch14_reg4_dinov2", 224, img_size=224, **_HEAD),
    of_timm("DINOv2-g, registers, 4 layers", "vit_giant_patch14_reg4_dinov2", 224, img_size=224, depth=4, **_HEAD),
    of_transformers("BEiT-B/16", "Beit", **_BEIT),
    of_transformers("BEiT-B/16 of 384", "Beit", 384, image_size=384, **_BEIT),
    of_transformers("BEiT-L/16", "Beit", **_BEIT, **_LARGE),
    at(of_transformers("BEiT-B/16", "Beit", **_BEIT), (160, 288)),
    of_transformers("data2vec-B/16", "Data2VecVision", **_DATA2VEC),
    of_timm("BEiT-B/16", "beit_base_patch16_224"),
    of_timm("BEiT-L/16", "beit_large_patch16_224"),
    of_timm("BEiT v2-B/16", "beitv2_base_patch16_224"),
    timm_at(of_timm("BEiT-B/16", "beit_base_patch16_224"), (160, 288)),
]
# These read images of 224 pixels with weights for 518, as the preprocessing of the published folders makes them.
VARIANTS = [
    dataclasses.replace(v, image_size=v.size)
    if v.naming == "transformers" and v.architecture.startswith("DINOv2")
    else v
    for v in VARIANTS
]

TINY = [
    of_transformers("dinov2", "Dinov2", 32, **_small),
    of_transformers("dinov2-gated", "Dinov2", 32, **_small, use_swiglu_ffn=True, qkv_bias=False, use_mask_token=False),
    of_transformers("dinov2-registers", "Dinov2WithRegisters", 32, **_small, num_register_tokens=2, num_channels=4),
    at(of_transformers("dinov2-other-size", "Dinov2", **_small), (24, 56)),
    at(of_transformers("dinov2-registers-other-size", "Dinov2WithRegisters", **_small), (16, 24)),
    of_transformers(
        "beit-class-token", "Beit", 32, **_beit, use_mean_pooling=False, layer_scale_init_value=0.0,
        use_mask_token=True, use_shared_relative_position_bias=True, use_absolute_position_embeddings=True,
    ),
    of_transformers("data2vec", "Data2VecVision", 32, **_beit, **_DATA2VEC),
    at(of_transformers("beit-other-size", "Beit", **_beit, **_BEIT, use_absolute_position_embeddings=True), (24, 56)),
    of_transformers("beit-oblong", "Beit", (16, 40), **_beit | dict(image_size=(16, 40)), **_BEIT),
    of_timm("dinov2-registers", "vit_small_patch14_reg4_dinov2", 32, **_args, global_pool="avg"),
    of_timm("dinov2-gated", "vit_giant_patch14_reg4_dinov2", 32, **_args),
    timm_at(of_timm("dinov2-other-size", "vit_small_patch14_reg4_dinov2", 32, **_args), (16, 48)),
    of_timm("beit", "beit_base_patch16_224", 32, **_args),
    of_timm("beit-class-token", "beitv2_base_patch16_224", 32, **_args, global_pool="token", qkv_bias=False),
    timm_at(of_timm("beit-other-size", "beit_base_patch16_224", 32, **_args, use_abs_pos_emb=True), (24, 56)),
]  # fmt: skip
