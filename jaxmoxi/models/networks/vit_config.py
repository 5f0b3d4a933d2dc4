"""Shapes of vision transformers, and what three frameworks call each tensor.

The network is in `vit`; what a `config.json` says of it is read in `vit_settings`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Literal, TypeVar

from jaxmoxi.errors import InputError
from jaxmoxi.kernels.attention import Form, check_form
from jaxmoxi.models.checkpoints.tensors import Place
from jaxmoxi.models.networks.base import ImageSize, checked_size, sides
from jaxmoxi.models.networks.hidden_act import ACTIVATIONS


@dataclasses.dataclass(frozen=True)
class VisionTransformerConfig:
    """The shape of a vision transformer. Sizes in pixels, positive.

    image_size: a side, or (height, width); multiples of `patch_size`, the side of the square patches.
    distilled:  a second class token behind the first (DeiT's distillation token).
    teacher:    a second head reads it, and the logits are the mean of both heads.
    attention:  the form in which it is computed (`jaxmoxi.kernels.attention`); None: what suits the platform.
    """

    image_size: ImageSize = 224
    patch_size: int = 16
    hidden_size: int = 768
    num_layers: int = 12
    num_heads: int = 12
    mlp_dim: int = 3072
    num_classes: int = 1000
    norm_eps: float = 1e-12
    qkv_bias: bool = True
    activation: str = "gelu"
    distilled: bool = False
    teacher: bool = False
    num_channels: int = 3
    attention: Form | None = None

    def __post_init__(self):
        object.__setattr__(self, "image_size", checked_size(self.image_size))
        for name in ("patch_size", "hidden_size", "num_layers", "num_heads", "mlp_dim", "num_classes", "num_channels"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise InputError(f"{name} must be a whole number of at least 1; got {value!r}")
        if any(side % self.patch_size for side in sides(self.image_size)):
            raise InputError(f"image_size {self.image_size} is not a multiple of patch_size {self.patch_size}")
        if self.hidden_size % self.num_heads:
            raise InputError(f"hidden_size {self.hidden_size} is not a multiple of num_heads {self.num_heads}")
        if self.activation not in ACTIVATIONS:
            raise InputError(f"expected an activation of {', '.join(ACTIVATIONS)}; got {self.activation!r}")
        check_form(self.attention)
        if self.teacher and not self.distilled:
            raise InputError("teacher=True needs the distillation token of distilled=True")

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        height, width = sides(self.image_size)
        return height // self.patch_size, width // self.patch_size

    @property
    def num_patches(self) -> int:
        """Patches of an image."""
        return math.prod(self.grid)

    @property
    def num_prefix(self) -> int:
        """Tokens that are always there: the class token, and the distillation token if there is one."""
        return 2 if self.distilled else 1


Naming = Literal["vit", "deit", "timm"]
Tensor = TypeVar("Tensor")

# What each naming calls a layer's tensors: (ours, theirs). Hugging Face keeps query, key and value apart.
_HUGGINGFACE_LAYER = {
    "norm1": "layernorm_before",
    "proj": "attention.output.dense",
    "norm2": "layernorm_after",
    "fc1": "intermediate.dense",
    "fc2": "output.dense",
}
_TIMM_LAYER = {"norm1": "norm1", "proj": "attn.proj", "norm2": "norm2", "fc1": "mlp.fc1", "fc2": "mlp.fc2"}


def detect_naming(tensors: Mapping[str, object]) -> Naming:
    """Which framework's names a checkpoint uses: Hugging Face's ViT or DeiT, or timm's."""
    for name, sign in (
        ("vit", "vit.embeddings.cls_token"),
        ("deit", "deit.embeddings.cls_token"),
        ("timm", "cls_token"),
    ):
        if sign in tensors:
            return name  # type: ignore[return-value]
    raise InputError(
        "expected a vision transformer's tensors in the names of Hugging Face (vit.embeddings.cls_token, "
        f"deit.embeddings.cls_token, ...) or timm (cls_token, ...); got {', '.join(sorted(tensors)[:4])}, ..."
    )


def canonical_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors in the names that were published: transformers 5 saves a ViTMSN's layers without the root "vit."."""
    rootless = "vit.embeddings.cls_token" in tensors
    return {f"vit.{n}" if rootless and n.startswith("encoder.layer.") else n: t for n, t in tensors.items()}


def expected_tensors(config: VisionTransformerConfig, naming: Naming) -> dict[str, tuple[int, ...]]:
    """Every tensor a checkpoint of this naming must hold, with its shape (PyTorch's layouts)."""
    return {name: shape for name, shape, _ in tensor_table(config, naming)}


def tensor_table(config: VisionTransformerConfig, naming: Naming) -> list[tuple[str, tuple[int, ...], Place]]:
    """(their name, their shape, our slot) of every tensor."""
    width, mlp, classes = config.hidden_size, config.mlp_dim, config.num_classes
    tokens = config.num_prefix + config.num_patches
    rows: list[tuple[str, tuple[int, ...], Place]] = []

    def linear(theirs: str, slot: Place, fan_out: int, fan_in: int, bias: bool = True) -> None:
        rows.append((f"{theirs}.weight", (fan_out, fan_in), (*slot, "kernel")))
        if bias:
            rows.append((f"{theirs}.bias", (fan_out,), (*slot, "bias")))

    def norm(theirs: str, slot: Place) -> None:
        rows.append((f"{theirs}.weight", (width,), (*slot, "scale")))
        rows.append((f"{theirs}.bias", (width,), (*slot, "bias")))

    timm = naming == "timm"
    root = "" if timm else f"{naming}.embeddings."
    rows.append((f"{root}cls_token", (1, 1, width), ("cls",)))
    if config.distilled:
        rows.append((f"{root}dist_token" if timm else f"{root}distillation_token", (1, 1, width), ("dist",)))
    rows.append((f"{root}pos_embed" if timm else f"{root}position_embeddings", (1, tokens, width), ("position",)))
    patch = "patch_embed.proj" if timm else f"{root}patch_embeddings.projection"
    rows.append(
        (f"{patch}.weight", (width, config.num_channels, config.patch_size, config.patch_size), ("patch", "kernel"))
    )
    rows.append((f"{patch}.bias", (width,), ("patch", "bias")))
    for i in range(config.num_layers):
        layer = f"blocks.{i}" if timm else f"{naming}.encoder.layer.{i}"
        if timm:
            linear(f"{layer}.attn.qkv", (str(i), "qkv"), 3 * width, width, config.qkv_bias)
        else:
            for part in ("query", "key", "value"):
                linear(f"{layer}.attention.attention.{part}", (str(i), part), width, width, config.qkv_bias)
        names = _TIMM_LAYER if timm else _HUGGINGFACE_LAYER
        norm(f"{layer}.{names['norm1']}", (str(i), "norm1"))
        norm(f"{layer}.{names['norm2']}", (str(i), "norm2"))
        linear(f"{layer}.{names['proj']}", (str(i), "proj"), width, width)
        linear(f"{layer}.{names['fc1']}", (str(i), "fc1"), mlp, width)
        linear(f"{layer}.{names['fc2']}", (str(i), "fc2"), width, mlp)
    norm("norm" if timm else f"{naming}.layernorm", ("norm",))
    if timm:
        heads = ("head", "head_dist")
    else:
        heads = ("cls_classifier", "distillation_classifier") if config.teacher else ("classifier", "")
    linear(heads[0], ("head",), classes, width)
    if config.teacher:
        linear(heads[1], ("teacher_head",), classes, width)
    return rows
