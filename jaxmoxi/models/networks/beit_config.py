"""The shape of a BEiT, and what Hugging Face and timm call each tensor. The network is in `beit`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Literal

import numpy as np

from jaxmoxi.errors import InputError
from jaxmoxi.models.networks.patch_encoder import PatchEncoderConfig
from jaxmoxi.models.networks.patch_tensors import Table
from jaxmoxi.models.networks.relative import table_length

Naming = Literal["beit", "data2vec_vision", "timm"]

_TABLE = ".relative_position_bias_table"
_HUGGINGFACE_LAYER = {
    "norm1": "layernorm_before",
    "norm2": "layernorm_after",
    "proj": "attention.output.dense",
    "fc1": "intermediate.dense",
    "fc2": "output.dense",
}
_TIMM_LAYER = {"norm1": "norm1", "norm2": "norm2", "proj": "attn.proj", "fc1": "mlp.fc1", "fc2": "mlp.fc2"}


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


class Names:
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


def detect_naming(tensors: Mapping[str, object]) -> Naming:
    """Which framework's names a checkpoint uses. Raises ValueError for others, and where there is no classifier."""
    signs: tuple[tuple[Naming, str], ...] = (
        ("beit", "beit.embeddings.cls_token"),
        ("data2vec_vision", "data2vec_vision.embeddings.cls_token"),
        ("timm", "cls_token"),
        ("beit", "embeddings.cls_token"),
    )
    for naming, sign in signs:
        if sign in tensors:
            head = f"{Names(naming).head}.weight"
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


def optional_tensors(names: Names, tensors: Mapping[str, object]) -> tuple[bool, bool, bool, bool]:
    """Whether there are position embeddings, biases for each layer, shared biases, and layer scales."""
    own, scale = names.own.format(0), names.scales[0].format(0)
    return names.position in tensors, own in tensors, names.shared in tensors, scale in tensors


def expected_tensors(config: BeitConfig, tensors: Mapping[str, np.ndarray]) -> dict[str, tuple[int, ...]]:
    """Every tensor that such a checkpoint must hold, with its shape (PyTorch's layouts)."""
    return tensor_table(config, tensors).shapes()


def tensor_table(config: BeitConfig, tensors: Mapping[str, np.ndarray]) -> Table:
    """What the checkpoint must hold. Its own tensors tell which positions it has, and whether it has layer scales."""
    naming, table, width = detect_naming(tensors), Table(config), config.hidden_size
    timm, names = naming == "timm", Names(naming)
    absolute, own, shared, scaled = optional_tensors(names, tensors)
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
