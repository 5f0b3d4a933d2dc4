"""What timm's names stand for: the attention heads of an architecture, and how its published weights see a photo.

Source: timm 1.0 (Apache 2.0), `vision_transformer.py`, `deit.py`, `swin_transformer.py` and `efficientnet.py`: all
architectures whose networks are implemented here. `tests/models/networks/test_timm_names.py` compares the tables with
timm itself.
"""

from __future__ import annotations

import re
from typing import Any

_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
_CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
_UNIT = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))

# Attention heads. They do not follow from the weights' shapes.
HEADS = {
    "deit3_base_patch16_224": 12,
    "deit3_base_patch16_384": 12,
    "deit3_huge_patch14_224": 16,
    "deit3_large_patch16_224": 16,
    "deit3_large_patch16_384": 16,
    "deit3_medium_patch16_224": 8,
    "deit3_small_patch16_224": 6,
    "deit3_small_patch16_384": 6,
    "deit_base_distilled_patch16_224": 12,
    "deit_base_distilled_patch16_384": 12,
    "deit_base_patch16_224": 12,
    "deit_base_patch16_384": 12,
    "deit_small_distilled_patch16_224": 6,
    "deit_small_patch16_224": 6,
    "deit_tiny_distilled_patch16_224": 3,
    "deit_tiny_patch16_224": 3,
    "vit_base_patch16_224": 12,
    "vit_base_patch16_224_miil": 12,
    "vit_base_patch16_384": 12,
    "vit_base_patch32_224": 12,
    "vit_base_patch32_384": 12,
    "vit_base_patch8_224": 12,
    "vit_giant_patch14_224": 16,
    "vit_gigantic_patch14_224": 16,
    "vit_huge_patch14_224": 16,
    "vit_large_patch14_224": 16,
    "vit_large_patch16_224": 16,
    "vit_large_patch16_384": 16,
    "vit_large_patch32_224": 16,
    "vit_large_patch32_384": 16,
    "vit_small_patch16_224": 6,
    "vit_small_patch16_384": 6,
    "vit_small_patch32_224": 6,
    "vit_small_patch32_384": 6,
    "vit_small_patch8_224": 6,
    "vit_tiny_patch16_224": 3,
    "vit_tiny_patch16_384": 3,
}

_CNNS = {
    "efficientnet_lite0": _IMAGENET,
    "mobilenetv2_035": _IMAGENET,
    "mobilenetv2_050": _IMAGENET,
    "mobilenetv2_075": _IMAGENET,
    "mobilenetv2_100": _IMAGENET,
    "mobilenetv2_140": _IMAGENET,
    "tf_efficientnet_lite0": _HALF,
}

_SWIN = r"swin_(tiny|small|base|large)_patch4_window(7_224|12_384)|swin_s3_(tiny|small|base)_224"

# Weights that see photos as no others of their architecture do, by the tag behind the dot: mean and std, crop_pct.
_TAGS = {
    ("vit_base_patch16_224", "bamboo"): (_CLIP, 1.0),
    ("vit_base_patch16_224", "dino"): (_IMAGENET, 0.9),
    ("vit_base_patch16_224", "mae"): (_IMAGENET, 0.9),
    ("vit_base_patch8_224", "dino"): (_IMAGENET, 0.9),
    ("vit_huge_patch14_224", "mae"): (_IMAGENET, 0.9),
    ("vit_large_patch16_224", "mae"): (_IMAGENET, 0.9),
    ("vit_small_patch16_224", "dino"): (_IMAGENET, 0.9),
}


def split_name(name: str) -> tuple[str, str]:
    """Architecture and tag of a name: "vit_tiny_patch16_224.augreg_in21k_ft_in1k"."""
    architecture, _, tag = name.partition(".")
    return architecture, tag


def known_heads(name: str) -> int | None:
    """The attention heads of a vision transformer that timm names; None for other names."""
    return HEADS.get(split_name(name)[0])


def published_cfg(name: str) -> dict[str, Any] | None:
    """The part of timm's `pretrained_cfg` about photos: mean, std, crop_pct, interpolation. None for other names.

    A name without a tag stands for timm's own choice of weights, as it does there.
    """
    architecture, tag = split_name(name)
    interpolation = "bicubic"
    if (architecture, tag) in _TAGS:
        numbers, crop_pct = _TAGS[architecture, tag]
    elif architecture in _CNNS:
        numbers, crop_pct = _CNNS[architecture], 0.875
    elif re.fullmatch(_SWIN, architecture):
        numbers, crop_pct = _IMAGENET, 1.0 if architecture.endswith("_384") else 0.9
    elif architecture == "vit_base_patch16_224_miil":
        numbers, crop_pct, interpolation = _UNIT, 0.875, "bilinear"
    elif architecture in HEADS:
        trained_as_deit = (
            architecture.startswith(("deit_", "deit3_")) or architecture == "vit_small_patch8_224"
        )  # DINO's alone
        numbers = _IMAGENET if trained_as_deit else _HALF
        of_22k = architecture.startswith("deit3_") and tag == "fb_in22k_ft_in1k"
        crop_pct = 1.0 if of_22k or architecture.endswith("_384") else 0.9
    else:
        return None
    mean, std = numbers
    return {"mean": mean, "std": std, "crop_pct": crop_pct, "interpolation": interpolation}
