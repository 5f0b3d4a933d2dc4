"""The names that were published with a network's weights, from those that its tensors have in memory today.

transformers 5 calls the tensors of some networks otherwise in memory than in its files: it renames them when it saves
and loads. A `torch.save(model.state_dict(), ...)` therefore has names that no file on the hub has.

Source: `conversion_mapping.py` of transformers 5.24, whose renamings are undone here; the networks that it does not
mention (ConvNeXt, ResNet, RegNet, EfficientNet, MobileNet) have the same names in memory as in files.
`tests/test_strangers/test_checkpoints_memory_names.py` compares with transformers itself.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

_Rules = tuple[tuple[str, str], ...]

_LAYER = r"^(\w+)\.layers\.(\d+)\."  # of today's ViT; in files `encoder.layer`
_SELF = {"q_proj": "query", "k_proj": "key", "v_proj": "value"}
_MLP = {"fc1": "intermediate.dense", "fc2": "output.dense"}

_VIT: _Rules = (
    *((rf"{_LAYER}attention\.{n}\.", rf"\1.encoder.layer.\2.attention.attention.{o}.") for n, o in _SELF.items()),
    (rf"{_LAYER}attention\.o_proj\.", r"\1.encoder.layer.\2.attention.output.dense."),
    *((rf"{_LAYER}mlp\.{n}\.", rf"\1.encoder.layer.\2.{o}.") for n, o in _MLP.items()),
    (
        rf"{_LAYER}relative_position_bias\.",
        r"\1.encoder.layer.\2.attention.attention.relative_position_bias.",
    ),
    (_LAYER, r"\1.encoder.layer.\2."),
    (r"^beit\.shared_position_bias\.", "beit.encoder.relative_position_bias."),
)
_DINOV2: _Rules = (
    *((rf"(\.layer\.\d+\.attention)\.{n}\.", rf"\1.attention.{o}.") for n, o in _SELF.items()),
    (r"(\.layer\.\d+\.attention)\.o_proj\.", r"\1.output.dense."),
    (r"(\.layer\.\d+\.mlp)\.down_proj\.", r"\1.weights_out."),
)
_SWIN: _Rules = (
    *((rf"(\.blocks\.\d+\.attention)\.{n}\.", rf"\1.self.{o}.") for n, o in _SELF.items()),
    (r"(\.blocks\.\d+\.attention)\.relative_position_bias\.", r"\1.self."),
    (r"(\.blocks\.\d+\.attention)\.o_proj\.", r"\1.output.dense."),
    *((rf"(\.blocks\.\d+)\.mlp\.{n}\.", rf"\1.{o}.") for n, o in _MLP.items()),
)
RULES: dict[str, _Rules] = {
    "beit": _VIT,
    "deit": _VIT,
    "dinov2": _DINOV2,
    "dinov2_with_registers": _DINOV2,
    "swin": _SWIN,
    "timm_wrapper": ((r"^timm_model\.", ""),),  # timm's network in one of Hugging Face's
    "vit": _VIT,
    "vit_msn": _VIT,
}
# DINOv2's gated layers are two in memory and one, the gate first, in files.
_GATED = re.compile(r"(.*\.mlp)\.gate_proj\.(weight|bias)")


def published_names(tensors: Mapping[str, np.ndarray], model_type: object) -> dict[str, np.ndarray]:
    """A checkpoint's tensors in the names of the published weights.

    tensors:    by the names in a file or in memory; names that are published ones stay.
    model_type: Hugging Face's key in `config.json`; a network it does not name, or another one, keeps all its names.
    """
    rules = RULES.get(model_type, ()) if isinstance(model_type, str) else ()
    named = {_renamed(name, rules): tensor for name, tensor in tensors.items()}
    if rules is not _DINOV2:
        return named
    joined = {}
    for name, tensor in named.items():
        gate = _GATED.fullmatch(name)
        other = named.get(f"{gate[1]}.up_proj.{gate[2]}") if gate else None
        if gate and other is not None and tensor.ndim:
            joined[f"{gate[1]}.weights_in.{gate[2]}"] = np.concatenate([tensor, other])
        elif not re.fullmatch(r".*\.mlp\.up_proj\.(weight|bias)", name):
            joined[name] = tensor
    return joined


def _renamed(name: str, rules: _Rules) -> str:
    for pattern, published in rules:
        renamed = re.sub(pattern, published, name, count=1)
        if renamed != name:
            return renamed
    return name
