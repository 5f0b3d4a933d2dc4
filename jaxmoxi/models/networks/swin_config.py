"""Shapes of Swin transformers, where their windows stand, and what three frameworks call each tensor.

The network is in `swin`; what a `config.json` says of it is read in `swin_settings`.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Literal, NamedTuple

from jaxmoxi.errors import InputError
from jaxmoxi.models.checkpoints.tensors import Place
from jaxmoxi.models.networks.base import ImageSize, checked_size, sides
from jaxmoxi.models.networks.hidden_act import ACTIVATIONS

Naming = Literal["huggingface", "timm", "torchvision"]
Pair = tuple[int, int]


@dataclasses.dataclass(frozen=True)
class SwinConfig:
    """The shape of a Swin transformer (v1). Sizes in pixels, positive; (height, width) where there are two.

    depths:     blocks of each stage; every second block shifts its windows.
    num_heads:  attention heads of each stage; `head_dims` their widths.
    windows:    (height, width) of each stage's windows, in positions of its map.
    mlp_dims:   the inner width of each stage's perceptrons.
    norm_eps:   of the blocks' norms and the final one; the patches' and the merges' is `merge_eps`.
    absolute:   position embeddings are added to the patches.
    rule:       whose rule holds where windows do not divide the map, or are larger than it:
                "huggingface": the map is padded, then shifted; windows must not be larger than the map.
                "torchvision": the same, and a map smaller than its windows is padded.
                "timm":        the map is shifted, then padded, and windows are cut to a smaller map.
    always_partition: timm's: windows are not cut, and are shifted even on a map of one window.
    built_size: timm's, where a network takes other images than it was built for: the windows are cut as for these.

    The classes' names and what they default to are those of Swin-T.
    """

    image_size: ImageSize = 224
    patch_size: int = 4
    embed_dim: int = 96
    depths: tuple[int, ...] = (2, 2, 6, 2)
    num_heads: tuple[int, ...] = (3, 6, 12, 24)
    head_dims: tuple[int, ...] = (32, 32, 32, 32)
    windows: tuple[Pair, ...] = ((7, 7),) * 4
    mlp_dims: tuple[int, ...] = (384, 768, 1536, 3072)
    num_classes: int = 1000
    num_channels: int = 3
    norm_eps: float = 1e-5
    merge_eps: float = 1e-5
    qkv_bias: bool = True
    activation: str = "gelu"
    absolute: bool = False
    rule: Naming = "huggingface"
    always_partition: bool = False
    built_size: ImageSize | None = None

    def __post_init__(self):
        object.__setattr__(self, "image_size", checked_size(self.image_size))
        if self.built_size is not None:
            object.__setattr__(self, "built_size", checked_size(self.built_size))
        lists = {n: getattr(self, n) for n in ("depths", "num_heads", "head_dims", "mlp_dims")}
        sizes = {n: (getattr(self, n),) for n in ("patch_size", "embed_dim", "num_classes", "num_channels")}
        for name, values in (lists | sizes | {"windows": sum(self.windows, ())}).items():
            if not values or any(isinstance(v, bool) or not isinstance(v, int) or v < 1 for v in values):
                raise InputError(f"{name} must be of whole numbers of at least 1; got {getattr(self, name)!r}")
        if any(len(values) != len(self.depths) for values in (*lists.values(), self.windows)):
            raise InputError(f"expected one number for each of {len(self.depths)} stages; got {lists}")
        if self.activation not in ACTIVATIONS:
            raise InputError(f"expected an activation of {', '.join(ACTIVATIONS)}; got {self.activation!r}")
        if self.rule not in ("huggingface", "timm", "torchvision"):
            raise InputError(f'expected rule "huggingface", "timm" or "torchvision"; got {self.rule!r}')
        self.stages()  # windows that a map has no place for

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each stage's map."""
        return tuple(self.embed_dim * 2**i for i in range(len(self.depths)))

    def grid(self, size: ImageSize | None = None) -> Pair:
        """Rows and columns of patches of an image. Hugging Face pads it to whole patches, the others cut it.

        Raises ValueError for an image without a patch.
        """
        height, width = sides(self.image_size if size is None else size)
        round_up = self.patch_size - 1 if self.rule == "huggingface" else 0
        grid = (height + round_up) // self.patch_size, (width + round_up) // self.patch_size
        if min(grid) < 1:
            raise InputError(
                f"images of {height} x {width} have no patch of {self.patch_size} pixels; take larger ones"
            )
        return grid

    def stages(self) -> tuple[Stage, ...]:
        """Map, windows and shift of every stage. Raises ValueError for windows that a map has no place for."""
        return _stages(self)


class Stage(NamedTuple):
    """Where the windows of a stage stand, in positions of its map: (rows, columns)."""

    map: Pair
    window: Pair
    shift: Pair


@functools.cache
def _stages(config: SwinConfig) -> tuple[Stage, ...]:
    grid, built = config.grid(), config.grid(config.built_size)
    if config.built_size is not None and any(side % config.patch_size for side in sides(config.image_size)):
        raise InputError(f"image_size {config.image_size} is not a multiple of patch_size {config.patch_size}")
    found = []
    for wanted in config.windows:
        window, shift = wanted, (wanted[0] // 2, wanted[1] // 2)
        if config.rule == "huggingface":
            if min(grid) < max(window):
                raise InputError(
                    f"images of {sides(config.image_size)} make a map of {grid} in a stage with windows of {window}: "
                    "Hugging Face's network takes no map smaller than its windows; take larger images"
                )
            if min(grid) == max(window):
                shift = (0, 0)
        elif config.rule == "torchvision":
            shift = _per_axis(lambda size, w, s: 0 if size <= w else s, grid, window, shift)
        elif not config.always_partition:
            window = _per_axis(lambda size, w, _: min(size, w), built, wanted, shift)
            shift = _per_axis(lambda size, w, s: 0 if size <= w else s, built, wanted, shift)
        found.append(Stage(grid, window, shift))
        grid, built = (((side[0] + 1) // 2, (side[1] + 1) // 2) for side in (grid, built))
    return tuple(found)


def _per_axis(rule: Callable[..., int], *pairs: Pair) -> Pair:
    rows, columns = zip(*pairs, strict=True)
    return rule(*rows), rule(*columns)


# What each naming calls a block's parts: ours, theirs.
_PARTS: dict[Naming, dict[str, str]] = {
    "huggingface": {
        "norm1": "layernorm_before",
        "table": "attention.self.relative_position_bias_table",
        "proj": "attention.output.dense",
        "norm2": "layernorm_after",
        "fc1": "intermediate.dense",
        "fc2": "output.dense",
    },
    "timm": {
        "norm1": "norm1",
        "table": "attn.relative_position_bias_table",
        "qkv": "attn.qkv",
        "proj": "attn.proj",
        "norm2": "norm2",
        "fc1": "mlp.fc1",
        "fc2": "mlp.fc2",
    },
}
_PARTS["torchvision"] = _PARTS["timm"] | {"fc1": "mlp.0", "fc2": "mlp.3"}
# Patches, their norm, the final norm.
_ENDS: dict[Naming, tuple[str, str, str]] = {
    "huggingface": ("swin.embeddings.patch_embeddings.projection", "swin.embeddings.norm", "swin.layernorm"),
    "timm": ("patch_embed.proj", "patch_embed.norm", "norm"),
    "torchvision": ("features.0.0", "features.0.2", "norm"),
}
ABSOLUTE = "swin.embeddings.position_embeddings"


def detect_naming(tensors: Mapping[str, object]) -> Naming:
    """Which framework's names a checkpoint uses, told by its patches. Raises ValueError if the names are unknown."""
    for naming, (patch, _, _) in _ENDS.items():
        if f"{patch}.weight" in tensors:
            return naming
    signs = ", ".join(f"{naming} ({patch}.weight, ...)" for naming, (patch, _, _) in _ENDS.items())
    raise InputError(
        f"expected the tensors of a Swin transformer in the names of {signs}; got "
        f"{', '.join(sorted(tensors)[:4]) or 'none'}, ...: rename them"
    )


def block_name(naming: Naming, stage: int, block: int) -> str:
    """What a block's tensors begin with."""
    if naming == "torchvision":
        return f"features.{2 * stage + 1}.{block}"
    return f"{'swin.encoder.' if naming == 'huggingface' else ''}layers.{stage}.blocks.{block}"


def table_name(naming: Naming, stage: int, block: int) -> str:
    """The name of a block's table of relative position biases."""
    return f"{block_name(naming, stage, block)}.{_PARTS[naming]['table']}"


def part_name(naming: Naming, stage: int, part: str) -> str:
    """The name of a part of a stage's first block."""
    return f"{block_name(naming, stage, 0)}.{_PARTS[naming][part]}"


def patch_name(naming: Naming) -> str:
    """The name of the patches' projection."""
    return _ENDS[naming][0]


def old_layout(tensors: Mapping[str, object]) -> bool:
    """Whether tensors in timm's names are as in its versions before 0.9, and in the original's: the merge behind a
    stage is the stage's own, and the head is called "head"."""
    return "layers.0.downsample.reduction.weight" in tensors and "patch_embed.proj.weight" in tensors


def head_name(naming: Naming, tensors: Mapping[str, object]) -> str:
    """The name of the classifier."""
    if naming == "timm":
        return "head" if "head.weight" in tensors else "head.fc"
    return "classifier" if naming == "huggingface" else "head"


def _merge_name(naming: Naming, stage: int, old: bool) -> str:
    """The name of the merge in front of a stage."""
    if naming == "torchvision":
        return f"features.{2 * stage}"
    if naming == "timm":
        return f"layers.{stage - 1 if old else stage}.downsample"
    return f"swin.encoder.layers.{stage - 1}.downsample"


def tensor_table(config: SwinConfig, tensors: Mapping[str, object]) -> Iterator[tuple[str, tuple[int, ...], Place]]:
    """(their name, their shape in PyTorch's layout, our slot) of every tensor; `tensors` tell the naming."""
    naming, old = detect_naming(tensors), old_layout(tensors)
    patch, patch_norm, final_norm = _ENDS[naming]

    def linear(theirs: str, slot: Place, fan_out: int, fan_in: int, bias: bool = True):
        yield f"{theirs}.weight", (fan_out, fan_in), (*slot, "kernel")
        if bias:
            yield f"{theirs}.bias", (fan_out,), (*slot, "bias")

    def norm(theirs: str, slot: Place, width: int):
        yield f"{theirs}.weight", (width,), (*slot, "scale")
        yield f"{theirs}.bias", (width,), (*slot, "bias")

    side = config.patch_size
    yield f"{patch}.weight", (config.embed_dim, config.num_channels, side, side), ("patch", "kernel")
    yield f"{patch}.bias", (config.embed_dim,), ("patch", "bias")
    yield from norm(patch_norm, ("patch_norm",), config.embed_dim)
    if config.absolute:
        rows, columns = config.grid()
        yield ABSOLUTE, (1, rows * columns, config.embed_dim), ("position",)
    for i, (stage, width, heads) in enumerate(zip(config.stages(), config.widths, config.num_heads, strict=True)):
        if i:
            merge = _merge_name(naming, i, old)
            yield from norm(f"{merge}.norm", ("merges", i - 1, "norm"), 2 * width)
            yield from linear(f"{merge}.reduction", ("merges", i - 1, "reduction"), width, 2 * width, bias=False)
        inner, mlp = heads * config.head_dims[i], config.mlp_dims[i]
        length = (2 * stage.window[0] - 1) * (2 * stage.window[1] - 1)
        for j in range(config.depths[i]):
            name, slot, parts = block_name(naming, i, j), (i, j), _PARTS[naming]
            yield f"{name}.{parts['table']}", (length, heads), (*slot, "table")
            if "qkv" in parts:
                yield from linear(f"{name}.{parts['qkv']}", (*slot, "qkv"), 3 * inner, width, config.qkv_bias)
            else:
                for part in ("query", "key", "value"):
                    yield from linear(
                        f"{name}.attention.self.{part}", (*slot, part), inner, width, config.qkv_bias
                    )  # fmt: skip
            yield from norm(f"{name}.{parts['norm1']}", (*slot, "norm1"), width)
            yield from linear(f"{name}.{parts['proj']}", (*slot, "proj"), width, inner)
            yield from norm(f"{name}.{parts['norm2']}", (*slot, "norm2"), width)
            yield from linear(f"{name}.{parts['fc1']}", (*slot, "fc1"), mlp, width)
            yield from linear(f"{name}.{parts['fc2']}", (*slot, "fc2"), width, mlp)
    yield from norm(final_norm, ("norm",), config.widths[-1])
    yield from linear(head_name(naming, tensors), ("head",), config.num_classes, config.widths[-1])
