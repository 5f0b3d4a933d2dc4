"""What a `config.json` says of a Swin transformer: Hugging Face's, timm's, or one made by hand.

The tensors decide on every size that they show; what the file says must agree. Every setting that changes the network
is honoured or refused.
"""

from __future__ import annotations

import dataclasses
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
    input_size,
    number,
    pair,
    side,
    text,
    timm_arguments,
    whole,
)  # fmt: skip
from jaxmoxi.models.checkpoints.torch_pickle import brief
from jaxmoxi.models.networks.base import ImageSize, sides
from jaxmoxi.models.networks.registry import network_kind
from jaxmoxi.models.networks.swin_config import (
    ABSOLUTE,
    Naming,
    SwinConfig,
    block_name,
    detect_naming,
    head_name,
    part_name,
    patch_name,
    table_name,
)  # fmt: skip
from jaxmoxi.models.networks.timm_names import split_name

# Settings of Hugging Face's Swin that change the network, and the one value of each that is implemented.
_HUGGINGFACE_FIXED = FIXED
_HUGGINGFACE_READ = {
    "depths", "embed_dim", "hidden_act", "image_size", "layer_norm_eps", "mlp_ratio", "num_channels", "num_heads",
    "patch_size", "qkv_bias", "use_absolute_embeddings", "window_size",
}  # fmt: skip
# `path_norm` changes nothing in any version of transformers; `hidden_size` and the next follow from the others.
_HUGGINGFACE_HARMLESS = {
    "_out_features", "_out_indices", "drop_path_rate", "hidden_size", "num_hidden_layers", "num_layers",
    "out_features", "out_indices", "path_norm", "stage_names",
}  # fmt: skip

# Arguments of timm's and torchvision's SwinTransformer, and the one value of each that is implemented.
_FIXED = {
    "absolute_pos_embed": False, "ape": False, "block": None, "downsample_layer": None, "embed_layer": None,
    "fused_window_process": False, "global_pool": "avg", "norm_layer": LAYER_NORMS, "patch_norm": True,
    "qk_scale": None,
}  # fmt: skip
_READ = {
    "always_partition", "depths", "dynamic_img_size", "embed_dim", "head_dim", "image_size", "img_size", "in_chans",
    "mlp_ratio", "num_channels", "num_classes", "num_heads", "patch_size", "qkv_bias", "strict_img_size",
    "window_size",
}  # fmt: skip
_HARMLESS = {
    "attention_dropout", "attn_drop_rate", "drop_path_rate", "drop_rate", "dropout", "proj_drop_rate",
    "stochastic_depth_prob", "weight_init",
}  # fmt: skip
_SPEAKS_OF = {
    "architecture", "label_descriptions", "label_names", "model_args", "num_features", "pretrained_cfg",
}  # fmt: skip

# Windows that a search found, of each stage.
_SEARCHED = {
    "swin_s3_tiny_224": (7, 7, 14, 7),
    "swin_s3_small_224": (14, 14, 14, 7),
    "swin_s3_base_224": (7, 7, 14, 7),
}


def config_from_settings(settings: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> SwinConfig:
    """The shape of the network that a `config.json` describes.

    settings: the file's content. Of timm's file the architecture's name, `model_args` and the `input_size` of
              `pretrained_cfg` are read.
    tensors:  the checkpoint's, by name. They decide on depths, heads, widths, classes, and square windows.

    Raises ValueError for values that make no network, for settings that make a network which is not implemented (Swin
    v2 among them), and for settings that contradict the tensors. Warns of settings that are not known.
    """
    naming, kind = detect_naming(tensors), network_kind(settings)
    if kind.startswith("swin_v2"):
        raise InputError(f"expected a Swin transformer of version 1; got {brief(kind)!r}: version 2 is not implemented")
    if (kind == "swin") != (naming == "huggingface"):
        raise InputError(
            f"the config says {brief(kind)!r}, and the tensors are named as in {naming}; correct one of them: "
            '"model_type": "swin" is for Hugging Face\'s names, "architecture" for the others'
        )
    config = _of_tensors(naming, tensors)
    return _huggingface(settings, config) if naming == "huggingface" else _other(settings, config, kind, tensors)


def _of_tensors(naming: Naming, tensors: Mapping[str, np.ndarray]) -> SwinConfig:
    """What the tensors show. Windows are taken to be square; the image to be as large as these windows need."""
    depths = _depths(naming, tensors)
    stages = range(len(depths))
    try:
        patch = tensors[f"{patch_name(naming)}.weight"].shape
        tables = [tensors[table_name(naming, i, 0)].shape for i in stages]
        inner = [tensors[f"{block_name(naming, i, 0)}.{_qkv(naming)}.weight"].shape[0] for i in stages]
        inner = inner if naming == "huggingface" else [n // 3 for n in inner]
        config = dict(
            embed_dim=patch[0],
            num_channels=patch[1],
            patch_size=patch[2],
            depths=depths,
            num_heads=tuple(heads for _, heads in tables),
            head_dims=tuple(max(1, n // max(1, heads)) for n, (_, heads) in zip(inner, tables, strict=True)),
            windows=tuple((_window(length),) * 2 for length, _ in tables),
            mlp_dims=tuple(tensors[f"{part_name(naming, i, 'fc1')}.weight"].shape[0] for i in stages),
            num_classes=tensors[f"{head_name(naming, tensors)}.weight"].shape[0],
        )
        largest = max(w for w, _ in config["windows"])
    except (KeyError, ValueError, IndexError) as error:
        raise InputError(
            f"expected a Swin transformer's tensors in the names of {naming}; missing or misshapen: {error}"
        ) from None
    return SwinConfig(
        **config,
        qkv_bias=f"{block_name(naming, 0, 0)}.{_qkv(naming)}.bias" in tensors,
        absolute=ABSOLUTE in tensors,
        rule=naming,
        image_size=patch[2] * 2 ** len(depths) * largest,
    )


def _qkv(naming: Naming) -> str:
    return "attention.self.query" if naming == "huggingface" else "attn.qkv"


def _depths(naming: Naming, tensors: Mapping[str, object]) -> tuple[int, ...]:
    pattern = {
        "huggingface": r"swin\.encoder\.layers\.(\d+)\.blocks\.(\d+)\.",
        "timm": r"layers\.(\d+)\.blocks\.(\d+)\.",
        "torchvision": r"features\.(\d+)\.(\d+)\.attn\.",
    }[naming]
    blocks = {found.groups() for name in tensors if (found := re.match(pattern, name))}
    counts: dict[int, int] = {}
    for stage, _ in blocks:
        counts[int(stage)] = counts.get(int(stage), 0) + 1
    return tuple(counts[stage] for stage in sorted(counts))


def _window(length: int) -> int:
    """The side of the square windows that a table of this length is for; the nearest, where it is for others."""
    return max(1, (math.isqrt(max(length, 1)) + 1) // 2)


def _huggingface(settings: Mapping[str, Any], found: SwinConfig) -> SwinConfig:
    check_keys(settings, fixed=_HUGGINGFACE_FIXED, read=_HUGGINGFACE_READ | _HUGGINGFACE_HARMLESS)
    stages = len(found.depths)
    said = {
        "embed_dim": (whole(settings, "embed_dim", 96), found.embed_dim),
        "depths": (_each(settings, "depths", (2, 2, 6, 2)), found.depths),
        "num_heads": (_each(settings, "num_heads", (3, 6, 12, 24)), found.num_heads),
        "window_size": (((whole(settings, "window_size", 7),) * 2,) * stages, found.windows),
        "patch_size": (side(settings, "patch_size", 4), found.patch_size),
        "num_channels": (whole(settings, "num_channels", 3), found.num_channels),
        "qkv_bias": (flag(settings, "qkv_bias", True), found.qkv_bias),
        "use_absolute_embeddings": (flag(settings, "use_absolute_embeddings", False), found.absolute),
    }
    ratio = number(settings, "mlp_ratio", 4.0, least=0.0, most=1e4)
    said["mlp_ratio"] = _ratios((ratio,) * stages, found)
    _compare(said)
    return dataclasses.replace(
        found,
        image_size=pair(settings, "image_size", 224),
        norm_eps=number(settings, "layer_norm_eps", 1e-5, least=0.0, most=1.0),
        activation=text(settings, "hidden_act", "gelu"),
    )


def _other(settings: Mapping[str, Any], found: SwinConfig, kind: str, tensors: Mapping[str, np.ndarray]) -> SwinConfig:
    """What timm's file says, or one made by hand, whose arguments stand beside `architecture`."""
    args = timm_arguments(settings, fixed=_FIXED, read=_READ, harmless=_HARMLESS)
    check_keys(settings, fixed={}, read={*args, *_FIXED, *_READ, *_SPEAKS_OF, *_HARMLESS, *TIMM_CFG})
    size = _image_size(settings, args, kind)
    count = len(found.depths)
    timm = found.rule == "timm"
    strict = flag(args, "strict_img_size", True) and not flag(args, "dynamic_img_size", False)
    config = dataclasses.replace(
        found,
        image_size=size,
        windows=_windows(args, kind, count) or found.windows,
        always_partition=timm and flag(args, "always_partition", False),
        built_size=size if timm and not strict else None,
    )
    made, lengths = [stage.window for stage in config.stages()], _table_lengths(found, tensors)
    if [(2 * h - 1) * (2 * w - 1) for h, w in made] != lengths:
        raise InputError(
            f"images of {sides(size)} and window_size {config.windows} make windows of {made}, and the weights' tables "
            f"of relative position biases have {lengths} rows; say img_size and window_size in model_args as the "
            "network was built"
        )
    channels = whole(args, "in_chans", whole(args, "num_channels", found.num_channels))
    said: dict[str, tuple[Any, Any]] = {"in_chans": (channels, found.num_channels)}
    if "depths" in args:
        said["depths"] = (_each(args, "depths", ()), found.depths)
    if "num_heads" in args:
        said["num_heads"] = (_each(args, "num_heads", ()), found.num_heads)
    if "head_dim" in args:
        said["head_dim"] = (_spread(args, "head_dim", count), found.head_dims)
    if "mlp_ratio" in args:
        said["mlp_ratio"] = _ratios(_spread(args, "mlp_ratio", count), found)
    said |= {
        name: (whole(args, name, value), value)
        for name, value in (("embed_dim", found.embed_dim), ("num_classes", found.num_classes))
    }
    said["patch_size"] = (side(args, "patch_size", found.patch_size), found.patch_size)
    said["qkv_bias"] = (flag(args, "qkv_bias", found.qkv_bias), found.qkv_bias)
    _compare(said)
    return config


def _table_lengths(found: SwinConfig, tensors: Mapping[str, np.ndarray]) -> list[int]:
    return [tensors[table_name(found.rule, i, 0)].shape[0] for i in range(len(found.depths))]


def _windows(args: Mapping[str, Any], kind: str, count: int) -> tuple[tuple[int, int], ...] | None:
    """The windows that the arguments or the name ask for, of each stage; None where neither says."""
    value = args.get("window_size")
    if value is None:
        architecture = split_name(kind)[0]
        found = re.search(r"_window(\d+)_", architecture)
        if architecture in _SEARCHED:
            return tuple([(w, w) for w in _SEARCHED[architecture]])
        return None if found is None else ((int(found[1]), int(found[1])),) * count
    several = isinstance(value, list | tuple)
    if several and len(value) == 2 and not any(isinstance(v, list | tuple) for v in value):
        several = False  # timm takes two numbers for height and width
    windows = [pair({"window_size": v}, "window_size", 7) for v in (value if several else [value] * count)]
    if len(windows) != count:
        raise InputError(f"expected a window_size, or one for each of {count} stages; got {brief(repr(value))}")
    return tuple(sides(w) for w in windows)


def _image_size(settings: Mapping[str, Any], args: Mapping[str, Any], kind: str) -> ImageSize:
    """As the arguments say, else the file's `pretrained_cfg`, else the name."""
    for name in ("img_size", "image_size"):
        if name in args:
            return pair(args, name, 224)
    said = input_size(settings)
    if said is not None:
        return said
    found = re.search(r"_(\d{2,4})(?:_|$)", split_name(kind)[0])
    return pair({"img_size": int(found[1]) if found else 224}, "img_size", 224)


def _each(settings: Mapping[str, Any], name: str, default: tuple[int, ...]) -> tuple[int, ...]:
    """A list of whole numbers, one for each stage."""
    value = settings.get(name, default)
    if not isinstance(value, list | tuple) or not value:
        raise InputError(f"{name} must be a list of whole numbers, one for each stage; got {brief(repr(value))}")
    return tuple(whole({name: v}, name, 1) for v in value)


def _spread(args: Mapping[str, Any], name: str, count: int) -> tuple[float, ...]:
    """A number for each stage, where one may stand for all."""
    value = args[name]
    values = value if isinstance(value, list | tuple) else [value] * count
    return tuple(number({name: v}, name, 0.0, least=0.0, most=1e4) for v in values)


def _ratios(ratios: tuple[float, ...], found: SwinConfig) -> tuple[Any, Any]:
    """What the ratios and what the weights say of the perceptrons' widths. The product is rounded down, and a ratio
    such as 48/11 is rounded in the file."""
    if len(ratios) == len(found.widths) and all(
        math.isclose(r * w, m, abs_tol=1) for r, w, m in zip(ratios, found.widths, found.mlp_dims, strict=True)
    ):
        return None, None
    return ratios, tuple(m / w for m, w in zip(found.mlp_dims, found.widths, strict=True))


def _compare(said: Mapping[str, tuple[Any, Any]]) -> None:
    wrong = [f"{k} is {a} in the config and {b} in the weights" for k, (a, b) in said.items() if a != b]
    if wrong:
        raise InputError(f"the config describes other weights: {'; '.join(wrong)}; correct one of them")
