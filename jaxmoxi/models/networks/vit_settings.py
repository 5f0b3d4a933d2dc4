"""What a `config.json` says of a vision transformer: Hugging Face's, which describes it, or timm's, which names it.

Every setting that changes the network is honoured or refused.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxmoxi.errors import InputError
from jaxmoxi.models.checkpoints.settings import (
    FIXED,
    LAYER_NORMS,
    TIMM_CFG,
    check_keys,
    flag,
    mapping,
    number,
    pair,
    side,
    text,
    timm_arguments,
    whole,
)
from jaxmoxi.models.checkpoints.torch_pickle import brief
from jaxmoxi.models.networks import dinov2
from jaxmoxi.models.networks.base import ImageSize, sides
from jaxmoxi.models.networks.flax_names import KIND as JAX_KIND
from jaxmoxi.models.networks.hidden_act import TIMM_ACTIVATIONS
from jaxmoxi.models.networks.registry import network_kind
from jaxmoxi.models.networks.timm_names import known_heads, published_cfg
from jaxmoxi.models.networks.vit_config import VisionTransformerConfig, canonical_names
from jaxmoxi.models.preprocess import Preprocessing
from jaxmoxi.models.processors import HALF

_HUGGINGFACE = ("vit", "deit", "vit_msn")

# Settings of Hugging Face's transformers for images, under this or another model_type, that change the network.
_HUGGINGFACE_FIXED = FIXED | {
    "layer_scale_init_value": None,
    "layerscale_value": None,
    "num_register_tokens": 0,
    "qk_norm": False,
    "use_absolute_position_embeddings": True,
    "use_mask_token": False,
    "use_mean_pooling": False,
    "use_qk_norm": False,
    "use_relative_position_bias": False,
    "use_shared_relative_position_bias": False,
    "use_swiglu_ffn": False,
}
_HUGGINGFACE_READ = {
    "hidden_act", "hidden_size", "image_size", "intermediate_size", "layer_norm_eps", "num_attention_heads",
    "num_channels", "num_hidden_layers", "patch_size", "qkv_bias",
}  # fmt: skip

# Arguments of timm's VisionTransformer that change the network, and the one value of each that is implemented.
_TIMM_FIXED = {
    "attn_layer": None,
    "block_fn": None,
    "class_token": True,
    "embed_layer": None,
    "embed_norm_layer": None,
    "fc_norm": None,
    "final_norm": True,
    "global_pool": "token",
    "init_values": None,
    "mlp_layer": None,
    "no_embed_class": False,
    "norm_layer": LAYER_NORMS,
    "pool_include_prefix": False,
    "pos_embed": "learn",
    "pre_norm": False,
    "proj_bias": True,
    "qk_norm": False,
    "reg_tokens": 0,
    "scale_attn_norm": False,
    "scale_mlp_norm": False,
    "use_naflex": None,
}
_TIMM_READ = {
    "act_layer", "depth", "embed_dim", "img_size", "in_chans", "mlp_ratio", "num_classes", "num_heads", "patch_size",
    "qkv_bias",
}  # fmt: skip
# Arguments that matter in training alone, or for images of other sizes than the network's own.
_TIMM_HARMLESS = {
    "attn_drop_rate", "drop_path_rate", "drop_rate", "dynamic_img_pad", "dynamic_img_size", "fix_init",
    "patch_drop_rate", "pos_drop_rate", "proj_drop_rate", "strict_img_size", "weight_init",
}  # fmt: skip
_TIMM_SPEAKS_OF = {
    "architecture", "fc_norm", "label_descriptions", "label_names", "model_args", "norm_layer", "num_features",
    "pretrained_cfg",
}  # fmt: skip


def config_from_settings(
    settings: Mapping[str, Any], tensors: Mapping[str, np.ndarray]
) -> VisionTransformerConfig | dinov2.Dinov2Config:
    """The shape of the network that a `config.json` describes, Hugging Face's or timm's. Of timm's variants that a
    plain ViT does not cover it is a `Dinov2Config`.

    settings: the file's content. Of timm's file the architecture's name and `model_args` are read; the name decides on
              the number of heads where `model_args` does not.
    tensors:  the checkpoint's, by name. They decide on the number of classes and on all sizes of timm's networks.

    Raises ValueError for values that make no network, for settings that make a network which is not implemented, for
    settings that contradict the tensors, and for tensors that are not timm's. Warns of settings that are not known.
    """
    kind, tensors = network_kind(settings), canonical_names(tensors)
    return (_huggingface if kind in _HUGGINGFACE else _timm)(kind, settings, tensors)


def _huggingface(kind: str, settings: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> VisionTransformerConfig:
    check_keys(settings, fixed=_HUGGINGFACE_FIXED, read=_HUGGINGFACE_READ)
    teacher = _has_teacher(settings)
    bias = tensors.get("cls_classifier.bias" if teacher else "classifier.bias")
    layers = whole(settings, "num_hidden_layers", 12)
    found = _count_layers(tensors, r"(?:vit|deit)\.encoder\.layer\.(\d+)\.")
    if layers != found:  # found out here, as listing the tensors of a billion layers takes all memory
        raise InputError(f"expected the tensors of {layers} layers (num_hidden_layers); the weights have {found}")
    return VisionTransformerConfig(
        image_size=pair(settings, "image_size", 224),
        patch_size=side(settings, "patch_size", 16),
        hidden_size=whole(settings, "hidden_size", 768),
        num_layers=layers,
        num_heads=whole(settings, "num_attention_heads", 12),
        mlp_dim=whole(settings, "intermediate_size", 3072),
        num_classes=_num_labels(settings) if bias is None or not bias.shape else bias.shape[0],
        norm_eps=number(settings, "layer_norm_eps", 1e-6 if kind == "vit_msn" else 1e-12, least=0.0, most=1.0),
        qkv_bias=flag(settings, "qkv_bias", True),
        activation=text(settings, "hidden_act", "gelu"),
        distilled=kind == "deit",
        teacher=teacher,
        num_channels=whole(settings, "num_channels", 3),
    )


def _has_teacher(settings: Mapping[str, Any]) -> bool:
    names = settings.get("architectures")
    if names is not None and not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        raise InputError(f"architectures must be a list of names; got {brief(repr(names))}: correct it")
    return bool(names) and "withteacher" in names[0].lower()


def _timm(
    kind: str, settings: Mapping[str, Any], tensors: Mapping[str, np.ndarray]
) -> VisionTransformerConfig | dinov2.Dinov2Config:
    if _is_patch_encoder(kind, {**settings, **mapping(settings, "model_args")}, tensors):
        return dinov2.config_from_settings(settings, tensors)
    args = timm_arguments(settings, fixed=_TIMM_FIXED, read=_TIMM_READ, harmless=_TIMM_HARMLESS)
    known = {*_TIMM_FIXED, *_TIMM_READ, *_TIMM_SPEAKS_OF, *_TIMM_HARMLESS, *TIMM_CFG}
    check_keys(settings, fixed={}, read=known)
    try:
        width, channels, patch, _ = tensors["patch_embed.proj.weight"].shape
        mlp = tensors["blocks.0.mlp.fc1.weight"].shape[0]
        classes = tensors["head.weight"].shape[0]
        tokens = tensors["pos_embed"].shape[1]
    except (KeyError, ValueError, IndexError) as error:
        raise InputError(
            f"expected timm's tensors for {brief(kind)} (patch_embed.proj.weight, head.weight, ...): {error}"
        ) from None
    distilled = "dist_token" in tensors
    activation = TIMM_ACTIVATIONS.get(text(args, "act_layer", "gelu").lower())
    if activation is None:
        expected = ", ".join(TIMM_ACTIVATIONS)
        raise InputError(f"expected act_layer {expected}; got {brief(args['act_layer'])!r}: not implemented")
    config = VisionTransformerConfig(
        image_size=_timm_size(settings, args, tokens - 1 - distilled, max(patch, 1)),
        patch_size=patch,
        hidden_size=width,
        num_layers=_count_layers(tensors, r"blocks\.(\d+)\."),
        num_heads=_timm_heads(kind, args),
        mlp_dim=mlp,
        num_classes=classes,
        norm_eps=1e-6,
        qkv_bias="blocks.0.attn.qkv.bias" in tensors,
        activation=activation,
        distilled=distilled,
        teacher="head_dist.weight" in tensors,
        num_channels=max(channels, 1),
    )
    _check_sizes(args, config)
    return config


def _timm_size(settings: Mapping[str, Any], args: Mapping[str, Any], count: int, patch: int) -> ImageSize:
    """The size of the images that `count` patches make: as the file says, if that fits, else a square."""
    sizes = mapping(settings, "pretrained_cfg").get("input_size", settings.get("input_size"))
    said = [args.get("img_size"), list(sizes[1:]) if isinstance(sizes, list | tuple) and len(sizes) == 3 else None]
    for size in said:
        if size is not None:
            height, width = sides(pair({"img_size": size}, "img_size", 1))
            if (height // patch) * (width // patch) == count:
                return pair({"img_size": [height // patch * patch, width // patch * patch]}, "img_size", 1)
    return max(1, round(max(count, 0) ** 0.5)) * patch


def _is_patch_encoder(kind: str, args: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> bool:
    """Whether a network of timm's has layer scales, registers, a norm behind the mean of its patches, or no position
    embedding of its class token (DeiT III): what `patch_encoder` implements, whatever the architecture is called."""
    if "cls_token" not in tensors:  # refused by name, as no network here lacks it
        return False
    signs = {"blocks.0.ls1.gamma", "reg_token", "fc_norm.weight"} & tensors.keys()
    averaged = args.get("global_pool") == "avg" and args.get("fc_norm") is False
    return bool(signs) or averaged or args.get("no_embed_class") is True or kind.startswith("deit3_")


def _timm_heads(kind: str, args: Mapping[str, Any]) -> int:
    if "num_heads" in args:
        return whole(args, "num_heads", 1)
    heads = known_heads(kind)
    if heads is None:
        raise InputError(
            f"expected an architecture whose number of attention heads is known; got {brief(kind)!r}, and weights do "
            'not tell it: add "model_args": {"num_heads": N} to config.json'
        )
    return heads


def _check_sizes(args: Mapping[str, Any], config: VisionTransformerConfig) -> None:
    """Raises ValueError where timm's arguments contradict the network that the tensors make."""
    found = {
        "img_size": config.image_size,
        "in_chans": config.num_channels,
        "patch_size": config.patch_size,
        "embed_dim": config.hidden_size,
        "depth": config.num_layers,
        "num_classes": config.num_classes,
    }
    readers = {"img_size": pair, "patch_size": side}
    said: dict[str, Any] = {name: readers.get(name, whole)(args, name, found[name]) for name in found}
    found |= {"qkv_bias": config.qkv_bias, "mlp width": config.mlp_dim}
    said["qkv_bias"] = flag(args, "qkv_bias", config.qkv_bias)
    ratio = number(args, "mlp_ratio", config.mlp_dim / config.hidden_size, least=0.0, most=1e4)
    # timm rounds the product down, and a ratio such as 48/11 is rounded in the file.
    said["mlp width"] = config.mlp_dim if math.isclose(ratio * config.hidden_size, config.mlp_dim, abs_tol=1) else ratio
    wrong = [f"{name} is {said[name]} in the config and {found[name]} in the weights" for name in found
             if said[name] != found[name]]  # fmt: skip
    if wrong:
        raise InputError(f"the config describes other weights: {'; '.join(wrong)}; correct one of them")


def _count_layers(tensors: Mapping[str, object], pattern: str) -> int:
    return len({found[1] for name in tensors if (found := re.match(pattern, name))})


def _num_labels(settings: Mapping[str, Any]) -> int:
    """The number of classes, for the error that a head is missing."""
    labels = settings.get("id2label")
    if isinstance(labels, Mapping) and labels:
        return len(labels)
    return whole({k: v for k, v in settings.items() if v is not None}, "num_labels", 1000)


def published_preprocessing(
    settings: Mapping[str, Any], tensors: Mapping[str, np.ndarray], size: int
) -> Preprocessing | None:
    """How the published weights of this name see a photo, for images of `size` pixels; None where nobody knows."""
    kind = network_kind(settings)
    if kind == "deit":  # all of facebook/deit-*
        return Preprocessing.from_huggingface(
            {
                "image_processor_type": "DeiTImageProcessor",
                "image_mean": (0.485, 0.456, 0.406),
                "image_std": (0.229, 0.224, 0.225),
            },
            size,
        )
    if kind == JAX_KIND:  # all of Google's: the whole photo, resized
        return Preprocessing((size, size), mean=HALF, std=HALF)
    if kind in _HUGGINGFACE:  # google/vit-* and facebook/dino-* are both "vit"
        return None
    cfg = published_cfg(kind)
    return None if cfg is None else Preprocessing.from_timm({**cfg, "input_size": (3, size, size)})
