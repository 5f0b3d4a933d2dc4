"""A network's tensors out of what wraps them: Lightning's modules, DataParallel, torch.compile, averages of weights.

A wrapper puts the name of its attribute before every name. Where the network begins is told by its first tensors, whose
names are known (`STEMS`), so that an attribute may have any name. Nothing is taken that is not alone in being possible.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from jaxmoxi.errors import InputError
from jaxmoxi.models.checkpoints.entries import under
from jaxmoxi.models.checkpoints.torch_pickle import brief

# A tensor of each naming that stands at the network's beginning and nowhere else in it but in its own blocks.
STEMS = (
    # Hugging Face
    "vit.embeddings.cls_token", "deit.embeddings.cls_token", "beit.embeddings.cls_token",
    "dinov2.embeddings.cls_token", "dinov2_with_registers.embeddings.cls_token",
    "swin.embeddings.patch_embeddings.projection.weight", "swinv2.embeddings.patch_embeddings.projection.weight",
    "convnext.embeddings.patch_embeddings.weight", "convnextv2.embeddings.patch_embeddings.weight",
    "resnet.embedder.embedder.convolution.weight", "regnet.embedder.embedder.convolution.weight",
    "efficientnet.embeddings.convolution.weight", "mobilenet_v1.conv_stem.convolution.weight",
    "mobilenet_v2.conv_stem.first_conv.convolution.weight",
    # timm, facebookresearch
    "cls_token", "patch_embed.proj.weight", "conv_stem.weight", "stem.0.weight", "stem.conv.weight",
    "downsample_layers.0.0.weight",
    # torchvision, efficientnet_pytorch
    "class_token", "conv_proj.weight", "conv1.weight", "features.0.0.weight", "_conv_stem.weight",
)  # fmt: skip
# torch.compile, FSDP and activation checkpoints put these anywhere between a module and its parts.
_SHELLS = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
# Prefixes of networks whose stem is not listed above, where all tensors share one.
_WRAPPERS = ("module", "model", "net", "network", "backbone")
# Modules that change no logits: losses, metrics, counters.
_BESIDE = re.compile(
    r"(criterion|criteria|loss(es)?|loss_\w+|\w+_loss(es)?|metrics?|\w+_metrics?|(\w+_)?(acc|accuracy|auroc|auc|f1|"
    r"precision|recall|confusion_matrix)(_\w+)?|class_weights?|pos_weight|n_averaged|num_updates|decay)(\.|\d|$)",
    re.IGNORECASE,
)
_AVERAGED = re.compile(r"(^|_)(ema|averaged?|swa|shadow)(_|$)", re.IGNORECASE)
_LEAST = 0.2  # of all tensors stand under a wrapper's prefix; fewer are a part of the network and not a copy of it


class Unwrapped(NamedTuple):
    """The network's tensors, the prefix that their names had, and what was left out.

    averaged: the prefixes of averaged copies that stand beside.
    left_out: the names of losses, metrics and counters beside the network.
    """

    tensors: dict[str, np.ndarray]
    prefix: str = ""
    averaged: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()


def unwrap(tensors: Mapping[str, np.ndarray], source: str, entry: str = "") -> Unwrapped:
    """A checkpoint's tensors by the names that they have without wrappers.

    source: what to call the checkpoint in an error.
    entry:  where in it the tensors stood, for the errors that name an entry.

    Names that no wrapper's prefix precedes are kept. Raises ValueError where several networks could be meant, and for
    tensors beside the network that might be a part of it.
    """
    bare = {_bare(name): tensor for name, tensor in tensors.items()}
    if len(bare) < len(tensors):
        raise InputError(f"{source} holds tensors twice, with and without _orig_mod. in their names; save it again")
    shells = next((part for name in tensors if name not in bare for part in name.split(".") if part in _SHELLS), "")
    prefixes = _prefixes(bare)
    if not prefixes or "" in prefixes:
        return Unwrapped(bare, f"{shells}." if shells else "")
    plain = [prefix for prefix in prefixes if not any(map(_AVERAGED.search, prefix.split(".")))] or prefixes
    if len(plain) > 1:
        names = [_join(entry, _written(tensors, prefix)) for prefix in plain]
        raise InputError(
            f"{source} holds {len(plain)} networks, under {' and '.join(names)}, and nothing tells which to take: name "
            f"one with entry={names[0]!r}"
        )
    taken = plain[0]
    averaged = tuple(prefix for prefix in prefixes if prefix != taken)
    beside = [name for name in bare if not name.startswith((taken, *averaged))]
    unknown = [name for name in beside if not _BESIDE.match(name)]
    if unknown:
        shown = ", ".join(f"{brief(name)} {list(bare[name].shape)}" for name in unknown[:4])
        raise InputError(
            f"{source} holds a network under {taken} and beside it {len(unknown)} tensors that may belong to it: "
            f"{shown}; where they do not, entry={_join(entry, _written(tensors, taken))!r} takes the network alone"
        )
    return Unwrapped(under(bare, taken), _written(tensors, taken), averaged, tuple(beside))


def _prefixes(names: Mapping[str, object]) -> list[str]:
    """What may stand before the names of whole networks, in order; "" for a network that nothing wraps."""
    ordered = sorted(names)
    found: list[str] = []
    for prefix in sorted({n[: len(n) - len(stem)] for n in names for stem in STEMS if f".{n}".endswith(f".{stem}")}):
        count = bisect_left(ordered, f"{prefix}\U0010ffff") - bisect_left(ordered, prefix)
        # Blocks have convolutions of the stem's name: what stands within another prefix is a part of that network.
        if count >= _LEAST * len(names) and not (found and prefix.startswith(found[-1])):
            found.append(prefix)
    shared = {n.partition(".")[0] for n in names if not _BESIDE.match(n)}
    if not found and len(shared) == 1 and shared <= {*_WRAPPERS}:
        prefix = f"{shared.pop()}."
        return [prefix + rest for rest in _prefixes(under(names, prefix)) or [""]]
    return found


def _bare(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in _SHELLS)


def _written(names: Mapping[str, object], prefix: str) -> str:
    """The prefix as the file has it, with the parts that torch.compile put in."""
    for name in names:
        kept, written = "", ""
        for part in name.split("."):
            kept += "" if part in _SHELLS else f"{part}."
            if len(kept) > len(prefix):
                break
            written += f"{part}."
        if written and _bare(written) == prefix:
            return written
    return prefix


def _join(entry: str, prefix: str) -> str:
    return ".".join(part for part in (entry, prefix.removesuffix(".")) if part)
