"""From the tensors of DINOv2 and BEiT to the parameters of a `PatchEncoder`: what stands where, and its name."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from typing import TypeVar

import numpy as np

from jaxmoxi.models.checkpoints.tensors import Place, State, check_tensors, fill_state
from jaxmoxi.models.networks.base import ClassifierNetwork
from jaxmoxi.models.networks.patch_encoder import PatchEncoderConfig

Tensor = TypeVar("Tensor")
Shape = tuple[int, ...]

# What only other tasks need, and what follows from the sizes.
_IGNORED = re.compile(r"(^|\.)(mask_token|relative_position_index)$")

# A Hugging Face layer's tensors that both families call alike.
_HUGGINGFACE_ATTENTION = "attention.attention"


def needed(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors without mask tokens, which only pretraining needs, and without indices that follow from the sizes."""
    return {name: tensor for name, tensor in tensors.items() if not _IGNORED.search(name)}


class Table:
    """Every tensor that a checkpoint must hold, by name: its shape in PyTorch's layout, and our slot for it."""

    def __init__(self, config: PatchEncoderConfig):
        self.config = config
        self.rows: dict[str, tuple[Shape, Place]] = {}

    def add(self, name: str, slot: Place, *shape: int) -> None:
        """A tensor as it is."""
        self.rows[name] = (shape, slot)

    def linear(self, name: str, slot: Place, fan_out: int, fan_in: int, *, bias: bool = True) -> None:
        """A linear layer's weight and bias."""
        self.add(f"{name}.weight", (*slot, "kernel"), fan_out, fan_in)
        if bias:
            self.add(f"{name}.bias", (*slot, "bias"), fan_out)

    def norm(self, name: str, slot: Place) -> None:
        """A layer norm's scale and bias."""
        self.add(f"{name}.weight", (*slot, "scale"), self.config.hidden_size)
        self.add(f"{name}.bias", (*slot, "bias"), self.config.hidden_size)

    def patches(self, name: str) -> None:
        """The projection of patches."""
        config = self.config
        size = config.patch_size
        self.add(f"{name}.weight", ("patch", "kernel"), config.hidden_size, config.num_channels, size, size)
        self.add(f"{name}.bias", ("patch", "bias"), config.hidden_size)

    def layer(self, i: int, names: Mapping[str, str], root: str) -> None:
        """A layer's norms, its output projection and its perceptron; `names` says what each is called below `root`."""
        config, place = self.config, str(i)
        width, inner = config.hidden_size, config.mlp_dim
        self.norm(f"{root}.{names['norm1']}", (place, "norm1"))
        self.norm(f"{root}.{names['norm2']}", (place, "norm2"))
        self.linear(f"{root}.{names['proj']}", (place, "proj"), width, width)
        self.linear(f"{root}.{names['fc1']}", (place, "fc1"), 2 * inner if config.gated else inner, width)
        self.linear(f"{root}.{names['fc2']}", (place, "fc2"), width, inner)

    def huggingface_attention(self, i: int, root: str, *, key_bias: bool) -> None:
        """Query, key and value, which Hugging Face keeps apart."""
        config = self.config
        for part in ("query", "key", "value"):
            bias = config.qkv_bias and (key_bias or part != "key")
            name = f"{root}.{_HUGGINGFACE_ATTENTION}.{part}"
            self.linear(name, (str(i), part), config.hidden_size, config.hidden_size, bias=bias)

    def scales(self, i: int, first: str, second: str) -> None:
        """The factors of a layer's two residual branches."""
        self.add(first, (str(i), "scale1"), self.config.hidden_size)
        self.add(second, (str(i), "scale2"), self.config.hidden_size)

    def shapes(self) -> dict[str, Shape]:
        """The shape of every tensor, by name."""
        return {name: shape for name, (shape, _) in self.rows.items()}


def fill(
    network: Callable[..., ClassifierNetwork],
    table: Table,
    tensors: Mapping[str, np.ndarray],
    *,
    source: str,
    retable: Callable[[np.ndarray], np.ndarray] = lambda table: table,
) -> State:
    """The parameters of a network, as an NNX state.

    tensors: what the checkpoint holds; it must be what the table lists, but for what `needed` leaves out.
    source:  what to call the checkpoint in an error.
    retable: what is done to tables of relative position biases.

    Raises ValueError that lists every missing, extra and misshapen tensor.
    """
    config, tensors = table.config, needed(tensors)
    check_tensors(table.shapes(), tensors, source)
    slots = {slot: np.asarray(tensors[name], np.float32) for name, (_, slot) in table.rows.items()}

    def layer(i: int, module: str, leaf: str) -> np.ndarray:
        place = str(i)
        if module == "table":
            found = [slots[slot] for slot in ((place, "table"), ("table",)) if slot in slots]
            return retable(np.sum(found, axis=0))  # a layer's own, and the one that all layers share
        if module == "qkv" and (place, "qkv", leaf) not in slots:
            zeros = np.zeros(config.hidden_size, np.float32)  # BEiT's keys have no bias: the softmax ignores it
            return np.concatenate([slots.get((place, part, leaf), zeros) for part in ("query", "key", "value")])
        array, scale = slots[place, module, leaf], {"proj": "scale1", "fc2": "scale2"}.get(module, "")
        if (place, scale) in slots:
            factor = slots[place, scale]
            array = array * (factor[:, None] if leaf == "kernel" else factor)
        return array

    def convert(path: Place, shape: Shape) -> np.ndarray:
        if path[0] == "blocks":
            module, leaf = str(path[1]), str(path[-1])
            array = np.stack([layer(i, module, leaf) for i in range(config.num_layers)])
            return array.swapaxes(1, 2) if leaf == "kernel" else array
        if path in (("prefix",), ("position",)):
            return _positions(slots, config)[path[0] == "position"]
        if path == ("patch", "kernel"):  # [D, C, p, p] -> [p * p * C, D], the order in which `embed` flattens
            return slots[path].transpose(2, 3, 1, 0).reshape(shape)
        return slots[path].T if path[-1] == "kernel" else slots[path]

    return fill_state(functools.partial(network, config), convert)


def _positions(slots: Mapping[Place, np.ndarray], config: PatchEncoderConfig) -> tuple[np.ndarray, np.ndarray]:
    """The prefix tokens with their position embeddings, and those of the patches; zeros where there are none.

    The embeddings are those of all patches and, in front, of as many of the prefix tokens as there are more.
    """
    registers = slots.get(("registers",))
    prefix = np.concatenate([slots["cls",][0], *([] if registers is None else [registers[0]])])
    if ("position",) not in slots:
        return prefix, np.zeros((config.num_patches, config.hidden_size), np.float32)
    position = slots["position",][0]
    embedded = len(position) - config.num_patches
    prefix[:embedded] += position[:embedded]
    return prefix, position[embedded:]
