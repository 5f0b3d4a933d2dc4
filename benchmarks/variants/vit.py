"""ViT and DeiT."""

from variants import at, of_timm, of_transformers

_SIZES = {
    "Ti": dict(hidden_size=192, num_attention_heads=3, intermediate_size=768),
    "S": dict(hidden_size=384, num_attention_heads=6, intermediate_size=1536),
    "B": {},
    "L": dict(hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096),
}
_small = dict(hidden_size=24, num_hidden_layers=3, num_attention_heads=3, intermediate_size=40, num_labels=5)
_small |= dict(image_size=32, patch_size=8)
_args = dict(img_size=32, patch_size=8, embed_dim=24, depth=3, num_heads=3, num_classes=5)

VARIANTS = [
    *(of_transformers(f"ViT-{size}/16", "ViT", **config) for size, config in _SIZES.items()),
    of_transformers("ViT-B/32", "ViT", patch_size=32),
    of_transformers("DeiT-Ti", "DeiTWithTeacher", **_SIZES["Ti"]),
    at(of_transformers("ViT-Ti/16", "ViT", **_SIZES["Ti"]), (160, 288), interpolate_pos_encoding=True),
    of_timm("ViT-Ti/16", "vit_tiny_patch16_224"),
    of_timm("ViT-S/32", "vit_small_patch32_224"),
    of_timm("ViT-B/16", "vit_base_patch16_224"),
    of_timm("DeiT-S", "deit_small_distilled_patch16_224"),
    of_timm("ViT-Ti/16 of 160 x 288", "vit_tiny_patch16_224", (160, 288), img_size=[160, 288]),
    of_timm("DeiT III-S", "deit3_small_patch16_224"),
]

TINY = [
    of_transformers("vit", "ViT", 32, **_small),
    of_transformers("vit-grey", "ViT", 32, **_small, num_channels=1, hidden_act="gelu_new", qkv_bias=False),
    at(of_transformers("vit-other-size", "ViT", **_small), (40, 24), interpolate_pos_encoding=True),
    of_transformers("deit-teacher", "DeiTWithTeacher", 32, **_small),
    of_timm("vit", "vit_tiny_patch16_224", 32, **_args),
    of_timm("vit-oblong", "vit_tiny_patch16_224", (48, 16), **_args | dict(img_size=[48, 16], in_chans=4)),
    of_timm("vit-mean", "vit_tiny_patch16_224", 32, **_args, global_pool="avg"),
    of_timm("vit-scaled-mean", "vit_tiny_patch16_224", 32, **_args, global_pool="avg", fc_norm=False, init_values=0.1),
    of_timm("vit-registers", "vit_tiny_patch16_224", 32, **_args, reg_tokens=2, act_layer="silu"),
    of_timm("deit3", "deit3_small_patch16_224", 32, **_args),
]
