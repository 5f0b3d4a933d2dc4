"""Vision transformers of Google's JAX code, in its names and layouts, as tensors in timm's names.

Source: github.com/google-research/vision_transformer (the `augreg` checkpoints), github.com/google-research/big_vision,
and `_load_weights` of timm 1.0, which reads both. Read are the networks with a class token and a linear head. Refused
by name are convolutional stems (R50+ViT), the hidden layer `pre_logits`, attention pooling, and means over tokens.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxmoxi.errors import InputError
from jaxmoxi.models.checkpoints.torch_pickle import brief

KIND = "vit_jax"  # stands in a `config.json`'s place for `architecture`, where there is none

_ROOTS = ("", "params/", "opt/target/", "target/", "optimizer/target/", "params/img/")
_BLOCK = re.compile(r"Transformer/encoderblock(?:_(\d+))?/(.+)")
_QUERY = re.compile(r"/MultiHeadDotProductAttention_\d+/query/kernel$")
# What the two code bases call the parts of a layer: they count the modules of a block in different ways.
_PARTS = {
    "LayerNorm_0": "norm1", "LayerNorm_1": "norm2", "LayerNorm_2": "norm2", "MlpBlock_0": "mlp", "MlpBlock_3": "mlp",
    "MultiHeadDotProductAttention_0": "attn", "MultiHeadDotProductAttention_1": "attn",
}  # fmt: skip
_UNREAD = {
    "conv_root/": "a convolutional stem (R+ViT)",
    "pre_logits/": "the hidden layer pre_logits before its head",
    "MAPHead_0/": "attention pooling (MAPHead_0)",
}


def flax_root(names: Mapping[str, object]) -> str | None:
    """What the network's names begin with, where other things stand beside it; None for no vision transformer."""
    return next((root for root in _ROOTS if f"{root}embedding/kernel" in names), None)


def flax_settings(shapes: Mapping[str, tuple[int, ...]], source: str) -> dict[str, Any]:
    """A `config.json` in timm's form for such weights: what the shapes tell, and how the JAX code computes.

    Its GELU is the tanh form; timm and Hugging Face take the exact one for the same weights.
    Raises ValueError for other arrays.
    """
    network = _network(shapes, source)
    query: tuple[int, ...] = next(
        (s for n, s in network.items() if re.search(r"/MultiHeadDotProductAttention_\d+/query/kernel$", n)), ()
    )
    if len(query) not in (3, 4):  # [width, heads, width / heads], or all layers stacked
        raise InputError(f"{source}: expected query kernels of three axes; got the shape {brief(query)}")
    return {"architecture": KIND, "model_args": {"num_heads": query[len(query) - 2], "act_layer": "gelu_tanh"}}


def from_flax(arrays: Mapping[str, np.ndarray], source: str) -> dict[str, np.ndarray]:
    """The tensors of such a checkpoint in timm's names and PyTorch's layouts.

    source: what to call the file in an error.

    Raises ValueError for networks that are not implemented, and for arrays of other names or numbers of axes.
    """
    network, tensors = _network(arrays, source), {}
    layers: dict[tuple[int, str], np.ndarray] = {}
    try:
        for name, array in network.items():
            if found := _BLOCK.fullmatch(name):
                stacked = enumerate(array) if found[1] is None else [(int(found[1]), array)]
                layers |= {(i, found[2]): part for i, part in stacked}
            else:
                tensors |= _outside(name, array)
        for i in sorted({i for i, _ in layers}):
            tensors |= _layer(f"blocks.{i}", {n: a for (j, n), a in layers.items() if j == i})
        tensors["pos_embed"] = _positions(tensors["pos_embed"], tensors["cls_token"])
    except InputError as error:
        raise InputError(f"{source}: {error}") from None
    except (KeyError, ValueError, IndexError, TypeError) as error:
        raise InputError(
            f"{source} is damaged, or no vision transformer of Google's JAX code: {brief(error)}; download it again"
        ) from None
    return tensors


def _network(arrays: Mapping[str, Any], source: str) -> dict[str, Any]:
    """The arrays of the network without their root. Raises ValueError for those of a network that is not read."""
    root = flax_root(arrays)
    if root is None:
        raise InputError(
            f"{source}: expected a vision transformer of Google's JAX code (embedding/kernel, "
            f"Transformer/encoderblock_0/..., with or without params/ or opt/target/ before it); got the arrays "
            f"{brief(', '.join(sorted(arrays)[:4]))}, ..."
        )
    network = {name[len(root) :]: array for name, array in arrays.items() if name.startswith(root)}
    for start, what in _UNREAD.items():
        if any(name.startswith(start) for name in network):
            raise InputError(f"{source} has {what}, which is not implemented: take weights of a plain ViT")
    if "cls" not in network:
        raise InputError(f"{source} has no class token (cls): it averages over its tokens, which is not implemented")
    if not {"pos_embedding", "Transformer/posembed_input/pos_embedding"} & network.keys():
        raise InputError(f"{source} has no pos_embedding: fixed position embeddings are not implemented")
    if "head/kernel" not in network:
        raise InputError(f"{source} has no head/kernel: expected a classifier, with the head it was trained with")
    return network


def _outside(name: str, array: np.ndarray) -> dict[str, np.ndarray]:
    """A tensor outside the layers, by timm's name."""
    match name:
        case "embedding/kernel":  # [p, p, 3, D]
            return {"patch_embed.proj.weight": array.transpose(3, 2, 0, 1)}
        case "embedding/bias":
            return {"patch_embed.proj.bias": array}
        case "cls":
            return {"cls_token": array.reshape(1, 1, -1)}
        case "pos_embedding" | "Transformer/posembed_input/pos_embedding":
            return {"pos_embed": array.reshape(1, -1, array.shape[-1])}
        case "Transformer/encoder_norm/scale" | "Transformer/encoder_norm/bias":
            return {f"norm.{'weight' if name.endswith('scale') else 'bias'}": array}
        case "head/kernel":
            return {"head.weight": array.T}
        case "head/bias":
            return {"head.bias": array}
    raise InputError(f"the array {brief(name)} {list(array.shape)} is no part of a vision transformer that is read")


def _layer(root: str, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The tensors of one layer by timm's names, from the arrays in it by the names that follow the layer's."""
    found: dict[str, np.ndarray] = {}
    for name, array in arrays.items():
        module, *rest = name.split("/")
        match _PARTS.get(module), *rest:
            case ("norm1" | "norm2") as norm, ("scale" | "bias") as leaf:
                found[f"{root}.{norm}.{'weight' if leaf == 'scale' else 'bias'}"] = array
            case "mlp", ("Dense_0" | "Dense_1") as dense, ("kernel" | "bias") as leaf:
                place = f"{root}.mlp.fc{int(dense[-1]) + 1}"
                found[f"{place}.weight" if leaf == "kernel" else f"{place}.bias"] = array.T
            case "attn", ("query" | "key" | "value") as part, ("kernel" | "bias") as leaf:
                flat = array.reshape(-1) if leaf == "bias" else array.reshape(len(array), -1).T  # heads side by side
                found[f"{part}.{leaf}"] = flat
            case "attn", "out", "kernel":
                found[f"{root}.attn.proj.weight"] = array.reshape(-1, array.shape[-1]).T
            case "attn", "out", "bias":
                found[f"{root}.attn.proj.bias"] = array
            case _:
                raise InputError(f"the array {brief(name)} of a layer is no part of a vision transformer that is read")
    for leaf, theirs in (("kernel", "weight"), ("bias", "bias")):
        parts = [found.pop(f"{part}.{leaf}") for part in ("query", "key", "value")]
        found[f"{root}.attn.qkv.{theirs}"] = np.concatenate(parts)
    return found


def _positions(positions: np.ndarray, token: np.ndarray) -> np.ndarray:
    """The position embeddings with one for the class token: big_vision puts the token in front after they are added."""
    if round(positions.shape[1] ** 0.5) ** 2 != positions.shape[1]:
        return positions
    return np.concatenate([np.zeros_like(token, positions.dtype), positions], axis=1)
