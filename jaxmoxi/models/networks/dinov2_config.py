"""The shape of a DINOv2, and what Hugging Face and timm call each tensor. The network is in `dinov2`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Literal

import numpy as np

from jaxmoxi.errors import InputError
from jaxmoxi.models.networks.patch_encoder import PatchEncoderConfig
from jaxmoxi.models.networks.patch_tensors import Table

Naming = Literal["dinov2", "dinov2_with_registers", "timm"]

HUGGINGFACE = ("dinov2", "dinov2_with_registers")
_HUGGINGFACE_LAYER = {"norm1": "norm1", "norm2": "norm2", "proj": "attention.output.dense"}
_TIMM_LAYER = {"norm1": "norm1", "norm2": "norm2", "proj": "attn.proj", "fc1": "mlp.fc1", "fc2": "mlp.fc2"}


@dataclasses.dataclass(frozen=True)
class Dinov2Config(PatchEncoderConfig):
    """The shape of a DINOv2; see `PatchEncoderConfig`."""

    patch_size: int = 14
    reads: Literal["class", "mean", "class+mean"] = "class+mean"


def detect_naming(tensors: Mapping[str, object]) -> Naming:
    """Which framework's names a checkpoint uses. Raises ValueError for others, and where there is no classifier."""
    for name in HUGGINGFACE:
        if f"{name}.embeddings.cls_token" in tensors:
            found, head = name, "classifier.weight"
            break
    else:
        if "cls_token" not in tensors and "embeddings.cls_token" not in tensors:
            raise InputError(
                "expected a DINOv2's tensors in the names of Hugging Face (dinov2.embeddings.cls_token, ...) or timm "
                f"(cls_token, ...); got {', '.join(sorted(tensors)[:4])}, ..."
            )
        found, head = "timm", "head.weight" if "cls_token" in tensors else "classifier.weight"
    if head not in tensors:
        raise InputError(
            f"these weights have no classifier ({head}): they give features, not classes; take weights with a head, "
            "such as facebook/dinov2-small-imagenet1k-1-layer, or train one"
        )
    return found  # type: ignore[return-value]


def expected_tensors(config: Dinov2Config, tensors: Mapping[str, np.ndarray]) -> dict[str, tuple[int, ...]]:
    """Every tensor that such a checkpoint must hold, with its shape (PyTorch's layouts)."""
    return tensor_table(config, tensors).shapes()


def tensor_table(config: Dinov2Config, tensors: Mapping[str, np.ndarray]) -> Table:
    """What the checkpoint must hold. Its own tensors tell whether it has layer scales, and what has positions."""
    naming, table, width = detect_naming(tensors), Table(config), config.hidden_size
    timm = naming == "timm"
    root = "" if timm else f"{naming}.embeddings."
    table.add(f"{root}cls_token", ("cls",), 1, 1, width)
    if naming == "dinov2_with_registers" or config.num_registers:
        table.add(
            f"{root}reg_token" if timm else f"{root}register_tokens", ("registers",), 1, config.num_registers, width
        )
    name = position_name(naming)
    embedded = embedded_tokens(config, tensors.get(name)) if timm else 1
    table.add(name, ("position",), 1, embedded + config.num_patches, width)
    table.patches("patch_embed.proj" if timm else f"{root}patch_embeddings.projection")
    scaled = not timm or any(name.endswith((".ls1.gamma", ".ls2.gamma")) for name in tensors)
    for i in range(config.num_layers):
        if timm:
            table.linear(f"blocks.{i}.attn.qkv", (str(i), "qkv"), 3 * width, width, bias=config.qkv_bias)
            table.layer(i, _TIMM_LAYER, f"blocks.{i}")
            if scaled:
                table.scales(i, f"blocks.{i}.ls1.gamma", f"blocks.{i}.ls2.gamma")
            continue
        layer, inner = f"{naming}.encoder.layer.{i}", ("weights_in", "weights_out") if config.gated else ("fc1", "fc2")
        table.huggingface_attention(i, layer, key_bias=True)
        table.layer(i, _HUGGINGFACE_LAYER | {"fc1": f"mlp.{inner[0]}", "fc2": f"mlp.{inner[1]}"}, layer)
        table.scales(i, f"{layer}.layer_scale1.lambda1", f"{layer}.layer_scale2.lambda1")
    table.norm(("fc_norm" if config.norm_last else "norm") if timm else f"{naming}.layernorm", ("norm",))
    read = 2 * width if config.reads == "class+mean" else width
    table.linear("head" if timm else "classifier", ("head",), config.num_classes, read)
    return table


def position_name(naming: Naming) -> str:
    return "pos_embed" if naming == "timm" else f"{naming}.embeddings.position_embeddings"


def embedded_tokens(config: Dinov2Config, position: np.ndarray | None) -> int:
    """How many of the prefix tokens have position embeddings: none, the class token alone, or all."""
    more = 1 if position is None or position.ndim != 3 else position.shape[1] - config.num_patches
    return more if more in (0, config.num_prefix) else config.num_prefix
