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
from typing import Any, Literal

import numpy as np

from jaxmoxi.errors import InputError
from jaxmoxi.models.checkpoints.settings import FIXED, check_keys, flag, number, pair, side, text, whole
from jaxmoxi.models.checkpoints.tensors import State
from jaxmoxi.models.checkpoints.torch_pickle import brief
from jaxmoxi.models.networks.base import ImageSize, checked_size
from jaxmoxi.models.networks.patch_encoder import PatchEncoder, PatchEncoderConfig
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
from jaxmoxi.models.networks.patch_tensors import Table, fill
from jaxmoxi.models.networks.positions import resize_grid
from jaxmoxi.models.networks.registry import Family, network_kind, register
from jaxmoxi.models.networks.relative import resize_huggingface, resize_timm, table_length
from jaxmoxi.models.preprocess import Preprocessing
from jaxmoxi.models.processors import HALF

__all__ = ["Beit", "BeitConfig", "config_from_settings", "expected_tensors", "from_tensors"]

Naming = Literal["beit", "data2vec_vision", "timm"]

_ROOTS: dict[str, Naming] = {"beit": "beit", "data2vec-vision": "data2vec_vision"}
_HUGGINGFACE_LAYER = {
    "norm1": "layernorm_before",
    "norm2": "layernorm_after",
    "proj": "attention.output.dense",
    "fc1": "intermediate.dense",
    "fc2": "output.dense",
}
_HUGGINGFACE_READ = {
    "hidden_act", "hidden_size", "image_size", "intermediate_size", "layer_norm_eps", "layer_scale_init_value",
    "num_attention_heads", "num_channels", "num_hidden_layers", "patch_size", "use_absolute_position_embeddings",
    "use_mean_pooling", "use_relative_position_bias", "use_shared_relative_position_bias",
}  # fmt: skip
_TIMM_LAYER = {"norm1": "norm1", "norm2": "norm2", "proj": "attn.proj", "fc1": "mlp.fc1", "fc2": "mlp.fc2"}
# Arguments of timm's Beit that change the network, and the one value of each that is implemented.
_TIMM_FIXED = {"norm_layer": None, "scale_mlp": False, "swiglu_mlp": False}
_TIMM_READ = {
    "depth", "embed_dim", "global_pool", "img_size", "in_chans", "init_values", "mlp_ratio", "num_classes", "num_heads",
    "patch_size", "qkv_bias", "use_abs_pos_emb", "use_fc_norm", "use_rel_pos_bias", "use_shared_rel_pos_bias",
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class BeitConfig(PatchEncoderConfig):
    """The shape of a BEiT; see `PatchEncoderConfig`.

    window: rows and columns of patches that the checkpoint's tables of relative position biases are for; None: those of
            the images.
    """

    norm_eps: float = 1e-12
    relative: bool = True
    reads: Literal["class", "mean", "class+mean"] = "mean"
    norm_last: bool = True
    window: tuple[int, int] | None = None


class Beit(PatchEncoder):
    """A BEiT with a linear head."""


class _Names:
    """What a naming calls the tensors that not every BEiT has."""

    def __init__(self, naming: Naming):
        timm, self.naming = naming == "timm", naming
        self.layer = "blocks.{}" if timm else f"{naming}.encoder.layer.{{}}"
        self.position = "pos_embed" if timm else f"{naming}.embeddings.position_embeddings"
        self.shared = ("rel_pos_bias" if timm else f"{naming}.encoder.relative_position_bias") + _TABLE
        self.own = self.layer + (".attn" if timm else ".attention.attention.relative_position_bias") + _TABLE
        self.scales = [f"{self.layer}.{'gamma' if timm else 'lambda'}_{i}" for i in (1, 2)]
        self.norms = ("norm", "fc_norm") if timm else (f"{naming}.layernorm", f"{naming}.pooler.layernorm")
        self.head = "head" if timm else "classifier"


_TABLE = ".relative_position_bias_table"


def detect_naming(tensors: Mapping[str, object]) -> Naming:
    """Which framework's names a checkpoint uses. Raises ValueError for others, and where there is no classifier."""
    for naming, sign in (
        ("beit", "beit.embeddings.cls_token"),
        ("data2vec_vision", "data2vec_vision.embeddings.cls_token"),
        ("timm", "cls_token"),
        ("beit", "embeddings.cls_token"),
    ):
        if sign in tensors:
            head = f"{_Names(naming).head}.weight"
            if head in tensors and sign != "embeddings.cls_token":
                return naming
            raise InputError(
                f"these weights have no classifier ({head}): they are of pretraining, or give features, not classes; "
                "take weights with a head, such as microsoft/beit-base-patch16-224"
            )
    raise InputError(
        "expected a BEiT's tensors in the names of Hugging Face (beit.embeddings.cls_token, ...) or timm "
        f"(cls_token, ...); got {', '.join(sorted(tensors)[:4])}, ..."
    )


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
    names = _Names(_ROOTS[kind])
    found = _optional(names, tensors)
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
    names = _Names("timm")
    absolute, own, shared, scaled = _optional(names, tensors)
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


def _optional(names: _Names, tensors: Mapping[str, object]) -> tuple[bool, bool, bool, bool]:
    """Whether there are position embeddings, biases for each layer, shared biases, and layer scales."""
    own, scale = names.own.format(0), names.scales[0].format(0)
    return names.position in tensors, own in tensors, names.shared in tensors, scale in tensors


def expected_tensors(config: BeitConfig, tensors: Mapping[str, np.ndarray]) -> dict[str, tuple[int, ...]]:
    """Every tensor that such a checkpoint must hold, with its shape (PyTorch's layouts)."""
    return _table(config, tensors).shapes()


def _table(config: BeitConfig, tensors: Mapping[str, np.ndarray]) -> Table:
    """What the checkpoint must hold. Its own tensors tell which positions it has, and whether it has layer scales."""
    naming, table, width = detect_naming(tensors), Table(config), config.hidden_size
    timm, names = naming == "timm", _Names(naming)
    absolute, own, shared, scaled = _optional(names, tensors)
    root = "" if timm else f"{naming}.embeddings."
    biases = table_length(config.window or config.grid), config.num_heads
    table.add(f"{root}cls_token", ("cls",), 1, 1, width)
    if absolute:
        table.add(names.position, ("position",), 1, 1 + config.num_patches, width)
    if shared:
        table.add(names.shared, ("table",), *biases)
    table.patches("patch_embed.proj" if timm else f"{root}patch_embeddings.projection")
    for i in range(config.num_layers):
        layer = names.layer.format(i)
        table.layer(i, _TIMM_LAYER if timm else _HUGGINGFACE_LAYER, layer)
        if timm:
            table.linear(f"{layer}.attn.qkv", (str(i), "qkv"), 3 * width, width, bias=False)
            for part in ("q", "v") if config.qkv_bias else ():
                table.add(f"{layer}.attn.{part}_bias", (str(i), {"q": "query", "v": "value"}[part], "bias"), width)
        else:
            table.huggingface_attention(i, layer, key_bias=False)
        if own:
            table.add(names.own.format(i), (str(i), "table"), *biases)
        if scaled:
            table.scales(i, names.scales[0].format(i), names.scales[1].format(i))
    table.norm(names.norms[config.norm_last], ("norm",))
    table.linear(names.head, ("head",), config.num_classes, width)
    return table


def from_tensors(config: BeitConfig, tensors: Mapping[str, np.ndarray], *, source: str) -> State:
    """The parameters of a `Beit`, as an NNX state, from a checkpoint's tensors; layer scales are multiplied in.

    Raises ValueError that lists every missing, extra and misshapen tensor.
    """
    resize = resize_timm if detect_naming(tensors) == "timm" else resize_huggingface
    window = config.window or config.grid

    def retable(table: np.ndarray) -> np.ndarray:
        return resize(table, window, config.grid)

    return fill(Beit, _table(config, tensors), tensors, source=source, retable=retable)


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
    names = _Names(detect_naming(tensors))
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
