"""BEiT, its second version, and data2vec's vision network, run on some of their tokens.

Source: Bao et al., "BEiT: BERT Pre-Training of Image Transformers", ICLR 2022; Peng et al., "BEiT v2: Masked Image
Modeling with Vector-Quantized Visual Tokenizers", 2022; Baevski et al., "data2vec: A General Framework for
Self-supervised Learning in Speech, Vision and Language", ICML 2022. Checkpoints: Hugging Face's
`BeitForImageClassification` and `Data2VecVisionForImageClassification`, and timm's `beit_*` and `beitv2_*`. The forward
pass is in `patch_encoder`. The relative position biases that all layers share are added to each layer's own, where a
checkpoint is read.
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
from jaxmoxi.models.networks.beit_config import (
    BeitConfig,
    Names,
    Naming,
    detect_naming,
    expected_tensors,
    optional_tensors,
    tensor_table,
)
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
from jaxmoxi.models.networks.relative import resize_huggingface, resize_timm, table_length
from jaxmoxi.models.preprocess import Preprocessing
from jaxmoxi.models.processors import HALF

__all__ = ["Beit", "BeitConfig", "config_from_settings", "expected_tensors", "from_tensors"]

_ROOTS: dict[str, Naming] = {"beit": "beit", "data2vec-vision": "data2vec_vision"}
_HUGGINGFACE_READ = {
    "hidden_act", "hidden_size", "image_size", "intermediate_size", "layer_norm_eps", "layer_scale_init_value",
    "num_attention_heads", "num_channels", "num_hidden_layers", "patch_size", "use_absolute_position_embeddings",
    "use_mean_pooling", "use_relative_position_bias", "use_shared_relative_position_bias",
}  # fmt: skip
# Arguments of timm's Beit that change the network, and the one value of each that is implemented.
_TIMM_FIXED = {"norm_layer": LAYER_NORMS, "scale_mlp": False, "swiglu_mlp": False}
_TIMM_READ = {
    "depth", "embed_dim", "global_pool", "img_size", "in_chans", "init_values", "mlp_ratio", "num_classes", "num_heads",
    "patch_size", "qkv_bias", "use_abs_pos_emb", "use_fc_norm", "use_rel_pos_bias", "use_shared_rel_pos_bias",
}  # fmt: skip


class Beit(PatchEncoder):
    """A BEiT with a linear head."""


def config_from_settings(settings: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> BeitConfig:
    """The shape of the network that a `config.json` describes, Hugging Face's or timm's.

    settings: the file's content. Of timm's file the architecture's name and `model_args` are read; the name decides on
              the number of heads where `model_args` does not.
    tensors:  the checkpoint's, by name. They decide on the number of classes and on all sizes of timm's networks.

    Raises ValueError for values that make no network, for settings that make a network which is not implemented, for
    settings that contradict the tensors, and for tensors without a classifier. Warns of settings that are not known.
    """
    kind, naming = network_kind(settings), detect_naming(tensors)
    expected = _ROOTS.get(kind, "timm")
    if naming != expected:
        raise InputError(f"expected a {brief(kind)}'s tensors in the names of {expected}; got those of {naming}")
    return (_timm if naming == "timm" else _huggingface)(kind, settings, tensors)


def _huggingface(kind: str, settings: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> BeitConfig:
    check_keys(settings, fixed=FIXED | {"head_dim": None, "qkv_bias": True}, read=_HUGGINGFACE_READ | BACKBONE)
    names = Names(_ROOTS[kind])
    found = optional_tensors(names, tensors)
    absolute = flag(settings, "use_absolute_position_embeddings", False)
    said = {
        "use_absolute_position_embeddings": absolute,
        "use_relative_position_bias": flag(settings, "use_relative_position_bias", False),
        "use_shared_relative_position_bias": flag(settings, "use_shared_relative_position_bias", False),
        "layer_scale_init_value": number(settings, "layer_scale_init_value", 0.1, least=-1e9, most=1e9) > 0,
    }
    for (name, value), there in zip(said.items(), found, strict=True):
        if value != there:
            raise InputError(
                f"{name} {'asks for' if value else 'forbids'} tensors that the weights {'have' if there else 'lack'}: "
                "correct it"
            )
    size = pair(settings, "image_size", 224)
    if absolute and not isinstance(size, int):
        raise InputError(
            f"expected a square image_size, as BEiT's position embeddings are of a square; got {size}: "
            "say the weights' own size here, and image_size= where the model is loaded"
        )
    mean = flag(settings, "use_mean_pooling", True)
    layers = count_layers(tensors, rf"{names.naming}\.encoder\.layer\.(\d+)\.")
    return BeitConfig(
        image_size=size,
        patch_size=side(settings, "patch_size", 16),
        hidden_size=whole(settings, "hidden_size", 768),
        num_layers=need_layers(whole(settings, "num_hidden_layers", 12), layers, "num_hidden_layers"),
        num_heads=whole(settings, "num_attention_heads", 12),
        mlp_dim=whole(settings, "intermediate_size", 3072),
        num_classes=count_rows(tensors["classifier.weight"]),
        num_channels=whole(settings, "num_channels", 3),
        norm_eps=number(settings, "layer_norm_eps", 1e-12, least=0.0, most=1.0),
        activation=text(settings, "hidden_act", "gelu"),
        relative=found[1] or found[2],
        reads="mean" if mean else "class",
        norm_last=mean,
    )


def _timm(kind: str, settings: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> BeitConfig:
    args = timm_arguments(settings, fixed=_TIMM_FIXED, read=_TIMM_READ)
    names = Names("timm")
    absolute, own, shared, scaled = optional_tensors(names, tensors)
    try:
        width, channels, patch, _ = tensors["patch_embed.proj.weight"].shape
        inner, classes = tensors["blocks.0.mlp.fc1.weight"].shape[0], tensors["head.weight"].shape[0]
        patches = tensors[names.position].shape[1] - 1 if absolute else None
        rows = tensors[names.own.format(0) if own else names.shared].shape[0] if own or shared else None
    except (KeyError, ValueError, IndexError) as error:
        raise InputError(
            f"expected timm's tensors for {brief(kind)} (patch_embed.proj.weight, head.weight, ...): {error}"
        ) from None
    pool = text(args, "global_pool", "avg")
    if pool not in ("avg", "token"):
        raise InputError(f"expected global_pool avg or token; got {brief(pool)!r}: not implemented")
    config = BeitConfig(
        image_size=_timm_size(timm_sizes(settings, args), patches, rows, max(patch, 1)),
        patch_size=patch,
        hidden_size=width,
        num_layers=count_layers(tensors, r"blocks\.(\d+)\."),
        num_heads=timm_heads(kind, args),
        mlp_dim=inner,
        num_classes=classes,
        num_channels=channels,
        norm_eps=1e-6,
        qkv_bias="blocks.0.attn.q_bias" in tensors,
        relative=own or shared,
        reads="mean" if pool == "avg" else "class",
        norm_last="fc_norm.weight" in tensors,
    )
    found = {
        "img_size": config.image_size, "in_chans": channels, "patch_size": patch, "embed_dim": width,
        "depth": config.num_layers, "num_classes": classes, "qkv_bias": config.qkv_bias, "use_abs_pos_emb": absolute,
        "use_rel_pos_bias": own, "use_shared_rel_pos_bias": shared, "use_fc_norm": config.norm_last,
        "init_values": scaled, "mlp_ratio": inner / width,
    }  # fmt: skip
    readers = {"img_size": pair, "patch_size": side, "init_values": lambda args, k, v: bool(args[k])}
    said: dict[str, Any] = {}
    for name, value in found.items():
        if args.get(name) is not None and name != "mlp_ratio":
            reader = readers.get(name, flag if isinstance(value, bool) else whole)
            said[name] = reader(args, name, value)
    if not width_fits(args, "mlp_ratio", width, inner):
        said["mlp_ratio"] = args["mlp_ratio"]
    compare(said, found)
    return config


def _timm_size(said: list[tuple[int, int]], patches: int | None, rows: int | None, patch: int) -> ImageSize:
    """The size of the images that so many position embeddings or biases are for: as the file says, else a square."""
    for height, width in said:
        grid = height // patch, width // patch
        if patches in (None, grid[0] * grid[1]) and rows in (None, table_length(grid)):
            return checked_size((grid[0] * patch, grid[1] * patch))
    if rows is not None:
        return max(1, (round(max(rows - 3, 0) ** 0.5) + 1) // 2) * patch
    return 224 if patches is None else max(1, round(max(patches, 0) ** 0.5)) * patch


def from_tensors(config: BeitConfig, tensors: Mapping[str, np.ndarray], *, source: str) -> State:
    """The parameters of a `Beit`, as an NNX state, from a checkpoint's tensors; layer scales are multiplied in.

    Raises ValueError that lists every missing, extra and misshapen tensor.
    """
    resize = resize_timm if detect_naming(tensors) == "timm" else resize_huggingface
    window = config.window or config.grid

    def retable(table: np.ndarray) -> np.ndarray:
        return resize(table, window, config.grid)

    return fill(Beit, tensor_table(config, tensors), tensors, source=source, retable=retable)


def at_size(
    config: BeitConfig, tensors: Mapping[str, np.ndarray], size: tuple[int, int]
) -> tuple[BeitConfig, Mapping[str, np.ndarray]]:
    """The same network for images of another size, (height, width).

    Position embeddings and tables of position biases are interpolated as Hugging Face's networks do for tensors in
    their names, and as timm does when it loads weights, for tensors in timm's; the tables where they are read.

    Raises ValueError for sides that are not multiples of the patches' side.
    """
    window = config.window or config.grid if config.relative else None
    resized = dataclasses.replace(config, image_size=checked_size(size), window=window)
    names = Names(detect_naming(tensors))
    found = tensors.get(names.position)
    if found is None or tuple(found.shape) != (1, 1 + config.num_patches, config.hidden_size):
        return resized, tensors  # reading them tells of what is misshapen
    position = np.asarray(found, np.float32)[0]
    patches = resize_grid(
        position[1:].reshape(*config.grid, -1), resized.grid, antialias=names.naming == "timm"
    ).reshape(resized.num_patches, -1)
    return resized, {**tensors, names.position: np.concatenate([position[:1], patches])[None]}


def published_preprocessing(
    settings: Mapping[str, Any], tensors: Mapping[str, np.ndarray], size: int
) -> Preprocessing | None:
    """How the published weights see a photo, for images of `size` pixels: all of microsoft/beit-* and timm's."""
    kind = network_kind(settings)
    if kind != "beit":
        return None if kind in _ROOTS else timm_preprocessing(kind, size)
    return Preprocessing((size, size), mean=HALF, std=HALF)


register(
    Family(
        network=Beit,
        config=BeitConfig,
        model_types=tuple(_ROOTS),
        architectures=("beit_*", "beitv2_*"),
        config_from_settings=config_from_settings,
        from_tensors=from_tensors,
        published=published_preprocessing,
        resize=at_size,
    )
)
