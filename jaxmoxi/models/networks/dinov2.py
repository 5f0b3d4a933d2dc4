"""DINOv2 with a classifier, with or without registers, run on some of its tokens.

Source: Oquab et al., "DINOv2: Learning Robust Visual Features without Supervision", TMLR 2024; Darcet et al., "Vision
Transformers Need Registers", ICLR 2024. Checkpoints: Hugging Face's `Dinov2ForImageClassification` and
`Dinov2WithRegistersForImageClassification`, whose head reads the class token and the mean of the patch tokens behind
the final norm, and timm's `vit_*dinov2` where it was given a head. The forward pass is in `patch_encoder`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxmoxi.errors import InputError
from jaxmoxi.models.checkpoints.settings import FIXED, LAYER_NORMS, check_keys, flag, number, pair, side, text, whole
from jaxmoxi.models.checkpoints.tensors import State
from jaxmoxi.models.checkpoints.torch_pickle import brief
from jaxmoxi.models.networks.base import ImageSize, checked_size
from jaxmoxi.models.networks.dinov2_config import (
    HUGGINGFACE,
    Dinov2Config,
    Naming,
    detect_naming,
    expected_tensors,
    position_name,
    tensor_table,
)
from jaxmoxi.models.networks.hidden_act import TIMM_ACTIVATIONS
from jaxmoxi.models.networks.patch_encoder import PatchEncoder
from jaxmoxi.models.networks.patch_settings import (
    BACKBONE,
    compare,
    count_layers,
    count_rows,
    need_layers,
    timm_arguments,
    timm_heads,
    timm_preprocessing,
    timm_sizes,
    width_fits,
)
from jaxmoxi.models.networks.patch_tensors import fill
from jaxmoxi.models.networks.positions import resize_grid
from jaxmoxi.models.networks.registry import Family, network_kind, register
from jaxmoxi.models.preprocess import Preprocessing
from jaxmoxi.models.processors import IMAGENET_MEAN, IMAGENET_STD

__all__ = ["Dinov2", "Dinov2Config", "config_from_settings", "expected_tensors", "from_tensors"]

_HUGGINGFACE_READ = {
    "hidden_act", "hidden_size", "image_size", "layer_norm_eps", "mlp_ratio", "num_attention_heads", "num_channels",
    "num_hidden_layers", "patch_size", "qkv_bias", "use_swiglu_ffn",
}  # fmt: skip
# Arguments of timm's VisionTransformer that change the network, and the one value of each that is implemented.
_TIMM_FIXED = {
    "attn_layer": None, "block_fn": None, "class_token": True, "embed_layer": None, "embed_norm_layer": None,
    "final_norm": True, "mlp_layer": None,
    "norm_layer": LAYER_NORMS, "pool_include_prefix": False,
    "pos_embed": "learn", "pre_norm": False, "proj_bias": True, "qk_norm": False, "scale_attn_norm": False,
    "scale_mlp_norm": False,
    "use_naflex": None,
}  # fmt: skip
_TIMM_READ = {
    "act_layer", "depth", "embed_dim", "fc_norm", "global_pool", "img_size", "in_chans", "init_values", "mlp_ratio",
    "no_embed_class", "num_classes", "num_heads", "patch_size", "qkv_bias", "reg_tokens",
}  # fmt: skip


class Dinov2(PatchEncoder):
    """A DINOv2 with a linear head."""


def config_from_settings(settings: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> Dinov2Config:
    """The shape of the network that a `config.json` describes, Hugging Face's or timm's.

    settings: the file's content. Of timm's file the architecture's name and `model_args` are read; the name decides on
              the number of heads where `model_args` does not.
    tensors:  the checkpoint's, by name. They decide on the number of classes and on all sizes of timm's networks.

    Raises ValueError for values that make no network, for settings that make a network which is not implemented, for
    settings that contradict the tensors, and for tensors without a classifier. Warns of settings that are not known.
    """
    kind, naming = network_kind(settings), detect_naming(tensors)
    if kind in HUGGINGFACE:
        if naming != kind:
            raise InputError(f"expected the tensors of a {kind} ({kind}.embeddings.cls_token, ...); got {naming}'s")
        return _huggingface(naming, settings, tensors)
    if naming != "timm":
        raise InputError(
            f'expected timm\'s tensors for {brief(kind)}; got Hugging Face\'s: say "model_type": "{naming}"'
        )
    return _timm(kind, settings, tensors)


def _huggingface(naming: Naming, settings: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> Dinov2Config:
    registers = naming == "dinov2_with_registers"
    fixed = FIXED | {"head_dim": None} | ({} if registers else {"num_register_tokens": 0})
    read = _HUGGINGFACE_READ | BACKBONE | {"layerscale_value", *(["num_register_tokens"] if registers else [])}
    check_keys(settings, fixed=fixed, read=read)
    size = pair(settings, "image_size", 224)
    if not isinstance(size, int):
        raise InputError(
            f"expected a square image_size, as DINOv2's position embeddings are of a square; got {size}: "
            "say the weights' own size here, and image_size= where the model is loaded"
        )
    width, gated = whole(settings, "hidden_size", 768), flag(settings, "use_swiglu_ffn", False)
    inner = int(width * number(settings, "mlp_ratio", 4.0, least=0.0, most=1e4))
    none = not registers or settings.get("num_register_tokens") == 0
    found = count_layers(tensors, rf"{naming}\.encoder\.layer\.(\d+)\.")
    return Dinov2Config(
        image_size=size,
        patch_size=side(settings, "patch_size", 16 if registers else 14),
        hidden_size=width,
        num_layers=need_layers(whole(settings, "num_hidden_layers", 12), found, "num_hidden_layers"),
        num_heads=whole(settings, "num_attention_heads", 12),
        mlp_dim=max(1, (int(inner * 2 / 3) + 7) // 8 * 8 if gated else inner),
        num_classes=count_rows(tensors["classifier.weight"]),
        num_channels=whole(settings, "num_channels", 3),
        norm_eps=number(settings, "layer_norm_eps", 1e-6, least=0.0, most=1.0),
        qkv_bias=flag(settings, "qkv_bias", True),
        activation="gelu" if gated else text(settings, "hidden_act", "gelu"),
        gated=gated,
        num_registers=0 if none else whole(settings, "num_register_tokens", 4),
    )


def _timm(kind: str, settings: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> Dinov2Config:
    args = timm_arguments(settings, fixed=_TIMM_FIXED, read=_TIMM_READ)
    try:
        width, channels, patch, _ = tensors["patch_embed.proj.weight"].shape
        inner, hidden = tensors["blocks.0.mlp.fc1.weight"].shape[0], tensors["blocks.0.mlp.fc2.weight"].shape[1]
        classes, count = tensors["head.weight"].shape[0], tensors["pos_embed"].shape[1]
        registers = tensors["reg_token"].shape[1] if "reg_token" in tensors else 0
    except (KeyError, ValueError, IndexError) as error:
        raise InputError(
            f"expected timm's tensors for {brief(kind)} (patch_embed.proj.weight, pos_embed, ...): {error}"
        ) from None
    gated = inner == 2 * hidden
    act = text(args, "act_layer", "silu" if gated else "gelu").lower()
    if (act != "silu") if gated else (act not in TIMM_ACTIVATIONS):
        expected = "silu" if gated else ", ".join(TIMM_ACTIVATIONS)
        raise InputError(f"expected act_layer {expected}; got {brief(args['act_layer'])!r}: not implemented")
    pool = text(args, "global_pool", "token")
    if pool not in ("token", "avg"):
        raise InputError(f"expected global_pool token or avg; got {brief(pool)!r}: not implemented")
    apart = flag(args, "no_embed_class", "_reg" in kind or kind.startswith("deit3_"))
    patches = count - (0 if apart else 1 + registers)
    config = Dinov2Config(
        image_size=_timm_size(timm_sizes(settings, args), patches, max(patch, 1)),
        patch_size=patch,
        hidden_size=width,
        num_layers=count_layers(tensors, r"blocks\.(\d+)\."),
        num_heads=timm_heads(kind, args),
        mlp_dim=hidden,
        num_classes=classes,
        num_channels=channels,
        qkv_bias="blocks.0.attn.qkv.bias" in tensors,
        activation="gelu" if gated else TIMM_ACTIVATIONS[act],
        gated=gated,
        num_registers=registers,
        reads="mean" if pool == "avg" else "class",
        norm_last="fc_norm.weight" in tensors,
    )
    found = {
        "img_size": config.image_size, "in_chans": channels, "patch_size": patch, "embed_dim": width,
        "depth": config.num_layers, "num_classes": classes, "qkv_bias": config.qkv_bias, "mlp_ratio": inner / width,
    }  # fmt: skip
    readers = {"img_size": pair, "patch_size": side, "qkv_bias": flag}
    said: dict[str, Any] = {
        k: readers.get(k, whole)(args, k, v) for k, v in found.items() if k in args.keys() - {"mlp_ratio"}
    }
    if not width_fits(args, "mlp_ratio", width, inner):
        said["mlp_ratio"] = args["mlp_ratio"]
    for name, value in (("reg_tokens", registers), ("fc_norm", config.norm_last)):
        if args.get(name) is not None:
            said[name], found[name] = args[name], value
    compare(said, found)
    return config


def _timm_size(said: list[tuple[int, int]], count: int, patch: int) -> ImageSize:
    """The size of the images that `count` patches make: as the file says, if that fits, else a square."""
    for height, width in said:
        if (height // patch) * (width // patch) == count:
            return checked_size((height // patch * patch, width // patch * patch))
    return max(1, round(max(count, 0) ** 0.5)) * patch


def from_tensors(config: Dinov2Config, tensors: Mapping[str, np.ndarray], *, source: str) -> State:
    """The parameters of a `Dinov2`, as an NNX state, from a checkpoint's tensors; layer scales are multiplied in.

    Raises ValueError that lists every missing, extra and misshapen tensor.
    """
    return fill(Dinov2, tensor_table(config, tensors), tensors, source=source)


def at_size(
    config: Dinov2Config, tensors: Mapping[str, np.ndarray], size: tuple[int, int]
) -> tuple[Dinov2Config, Mapping[str, np.ndarray]]:
    """The same network for images of another size, (height, width): its position embeddings are interpolated.

    As Hugging Face's networks do for tensors in their names: with antialiasing where there are registers, without
    otherwise. As timm's `resample_abs_pos_embed`, with antialiasing, for tensors in timm's.

    Raises ValueError for sides that are not multiples of the patches' side.
    """
    resized = dataclasses.replace(config, image_size=checked_size(size))
    naming = detect_naming(tensors)
    name = position_name(naming)
    found, expected = tensors.get(name), expected_tensors(config, tensors)[name]
    if found is None or tuple(found.shape) != expected:
        return resized, tensors  # reading them tells of it, with all that is missing or misshapen
    position = np.asarray(found, np.float32)[0]
    embedded = len(position) - config.num_patches
    patches = position[embedded:].reshape(*config.grid, -1)
    patches = resize_grid(patches, resized.grid, antialias=naming != "dinov2").reshape(resized.num_patches, -1)
    return resized, {**tensors, name: np.concatenate([position[:embedded], patches])[None]}


def published_preprocessing(
    settings: Mapping[str, Any], tensors: Mapping[str, np.ndarray], size: int
) -> Preprocessing | None:
    """How the published weights see a photo, for images of `size` pixels: all of facebook/dinov2-* and timm's."""
    kind = network_kind(settings)
    if kind not in HUGGINGFACE:
        return timm_preprocessing(kind, size)
    return Preprocessing.from_huggingface(
        {
            "image_processor_type": "BitImageProcessor",
            "size": {"shortest_edge": size * 8 // 7},
            "crop_size": size,
            "image_mean": IMAGENET_MEAN,
            "image_std": IMAGENET_STD,
        },
        size,
    )


register(
    Family(
        network=Dinov2,
        config=Dinov2Config,
        model_types=HUGGINGFACE,
        architectures=("vit_*dinov2*",),
        config_from_settings=config_from_settings,
        from_tensors=from_tensors,
        published=published_preprocessing,
        any_size=True,
        resize=at_size,
    )
)
