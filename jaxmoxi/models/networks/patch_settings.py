"""What the readers of DINOv2's and BEiT's `config.json` share, and what timm's names of both stand for."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from jaxmoxi.errors import InputError
from jaxmoxi.models.checkpoints.settings import TIMM_CFG, check_keys, mapping, number, pair, whole
from jaxmoxi.models.checkpoints.settings import timm_arguments as settings_of_timm
from jaxmoxi.models.checkpoints.torch_pickle import brief
from jaxmoxi.models.networks import timm_names
from jaxmoxi.models.networks.base import sides
from jaxmoxi.models.networks.timm_names import split_name
from jaxmoxi.models.preprocess import Preprocessing
from jaxmoxi.models.processors import HALF, IMAGENET_MEAN, IMAGENET_STD

# Attention heads of timm's networks, by the word of their names that tells the size.
_HEADS = {"small": 6, "base": 12, "large": 16, "giant": 24}
_KNOWN = re.compile(
    r"(beit_(?:base|large)_patch16_(?:224|384)|beit_large_patch16_512|beitv2_(?:base|large)_patch16_224"
    r"|vit_(?:small|base|large|giant)_patch14_(?:reg4_)?dinov2)"
)

# What Hugging Face's configs say of other uses of a network, and of training.
BACKBONE = {
    "add_fpn", "apply_layernorm", "auxiliary_channels", "auxiliary_concat_input", "auxiliary_loss_weight",
    "auxiliary_num_convs", "drop_path_rate", "gradient_checkpointing", "out_features", "out_indices", "pool_scales",
    "reshape_hidden_states", "segmentation_indices", "stage_names", "use_auxiliary_head", "use_mask_token",
    "vocab_size",
}  # fmt: skip
# What timm's files say beside `model_args`.
TIMM_BESIDE = {"architecture", "label_descriptions", "label_names", "model_args", "num_features", "pretrained_cfg"}
# Arguments of timm's networks that matter in training alone, or for images of other sizes than the network's own.
TIMM_HARMLESS = {
    "attn_drop_rate", "drop_path_rate", "drop_rate", "dynamic_img_pad", "dynamic_img_size", "fix_init",
    "head_init_scale", "patch_drop_rate", "pos_drop_rate", "proj_drop_rate", "strict_img_size", "weight_init",
}  # fmt: skip


def known_heads(name: str) -> int | None:
    """The attention heads of a DINOv2 or BEiT that timm names; None for other names."""
    architecture = split_name(name)[0]
    return _HEADS[architecture.split("_")[1]] if _KNOWN.fullmatch(architecture) else None


def published_cfg(name: str) -> dict[str, Any] | None:
    """The part of timm's `pretrained_cfg` about photos, of a DINOv2 or BEiT that timm names; None for other names."""
    architecture, tag = split_name(name)
    if not _KNOWN.fullmatch(architecture):
        return None
    half = architecture.startswith("beit_")
    crop = 0.9 if architecture.endswith("_224") else 1.0
    if architecture.startswith("beitv2_large") and tag != "in1k_ft_in22k":
        crop = 0.95
    mean, std = (HALF, HALF) if half else (IMAGENET_MEAN, IMAGENET_STD)
    return {"mean": mean, "std": std, "crop_pct": crop, "interpolation": "bicubic"}


def timm_preprocessing(name: str, size: int) -> Preprocessing | None:
    """How timm's published weights of this name see a photo, for images of `size` pixels; None for other names."""
    cfg = published_cfg(name) or timm_names.published_cfg(name)
    return None if cfg is None else Preprocessing.from_timm({**cfg, "input_size": (3, size, size)})


def timm_arguments(
    settings: Mapping[str, Any], *, fixed: Mapping[str, Any], read: Collection[str], ours: Collection[str] = ()
) -> dict[str, Any]:
    """What a file of timm's says of the network: `model_args`, and the arguments beside it.

    fixed, read: as `check_keys` takes them.
    ours:        keys beside `model_args` that mean the file's own things there.

    Raises ValueError for arguments that are not known or not implemented. Warns of other keys that are not known.
    """
    args = settings_of_timm(settings, fixed=fixed, read=read, harmless=TIMM_HARMLESS, ours=ours)
    check_keys(settings, fixed={}, read={*fixed, *read, *TIMM_BESIDE, *TIMM_HARMLESS, *TIMM_CFG, *ours, "norm_layer"})
    return args


def timm_heads(kind: str, args: Mapping[str, Any]) -> int:
    """The attention heads, as `model_args` says or as the name tells. Raises ValueError where neither does."""
    if "num_heads" in args:
        return whole(args, "num_heads", 1)
    heads = known_heads(kind) or timm_names.known_heads(kind)
    if heads is None:
        raise InputError(
            f"expected an architecture whose number of attention heads is known; got {brief(kind)!r}, and weights do "
            'not tell it: add "model_args": {"num_heads": N} to config.json'
        )
    return heads


def timm_sizes(settings: Mapping[str, Any], args: Mapping[str, Any]) -> list[tuple[int, int]]:
    """(height, width) of the images, as timm's file says: `img_size`, then `input_size`; perhaps neither."""
    sizes = mapping(settings, "pretrained_cfg").get("input_size", settings.get("input_size"))
    said = [args.get("img_size"), list(sizes[1:]) if isinstance(sizes, list | tuple) and len(sizes) == 3 else None]
    return [sides(pair({"img_size": size}, "img_size", 1)) for size in said if size is not None]


def width_fits(args: Mapping[str, Any], name: str, width: int, inner: int) -> bool:
    """Whether a ratio is that of a perceptron's width; the product is rounded down, and a ratio rounded in the file."""
    ratio = number(args, name, inner / width, least=0.0, most=1e4)
    return math.isclose(ratio * width, inner, abs_tol=1)


def compare(said: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    """Raises ValueError where a config contradicts the network that the tensors make."""
    wrong = [f"{k} is {said[k]} in the config and {found[k]} in the weights" for k in said if said[k] != found[k]]
    if wrong:
        raise InputError(f"the config describes other weights: {'; '.join(wrong)}; correct one of them")


def count_layers(tensors: Mapping[str, object], pattern: str) -> int:
    """How many layers have tensors of these names."""
    return len({found[1] for name in tensors if (found := re.match(pattern, name))})


def count_rows(tensor: np.ndarray) -> int:
    """The classes of a classifier's weight; 1 where it is none, of which reading it tells."""
    return tensor.shape[0] if tensor.ndim and tensor.shape[0] else 1


def need_layers(said: int, found: int, name: str) -> int:
    """The layers of both; listing the tensors of a billion layers would take all memory. Raises ValueError."""
    if said != found:
        raise InputError(f"expected the tensors of {said} layers ({name}); the weights have {found}")
    return said
