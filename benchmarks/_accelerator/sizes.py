"""How much a run measures: on an accelerator, on a CPU, and in the tests."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

from jaxmoxi.cli.rates import SIZES as NETWORKS
from jaxmoxi.kernels.attention import Form
from jaxmoxi.models.networks.resnet_config import ResNetConfig
from jaxmoxi.models.networks.vit import VisionTransformerConfig
from jaxmoxi.p2p.config import CNNConfig, Config

BOTH = ("bfloat16", "float32")


class Forward(NamedTuple):
    """Coalitions to be timed. tokens: visible ones, class tokens included; cut to what the network has."""

    dtype: str
    tokens: int
    batch: int


class Search(NamedTuple):
    """An order to be searched. size: of its first players alone; None: of all."""

    insertion: bool
    dtype: str
    size: int | None = None


@dataclasses.dataclass(frozen=True)
class Sizes:
    """What a run measures; within a field the first entries are worth most.

    matmuls:     sides of the square matrix products whose best rate the rest is compared with, by dtype.
    copied:      bytes that go to the device and back.
    repeats:     timed runs of what is short; long searches are timed `searches` times.
    small:       the network in place of --model, where none is given.
    large:       the second network, of random weights.
    forms:       of attention, in which the first row of each network is measured beside the platform's own.
    side:        players along a side of the image, in the searches; None: every token is a player.
    images:      searched together, up to the flip.
    pixels:      the CNN, the regions along a side of its image, and batches of its coalitions.
    slic:        (photos together, side of a photo in pixels), each.
    p2p:         the model that is trained for a step, and the images of a batch.
    budget:      evaluations of the search for a minimal group.
    exact_side:  players along a side whose coalitions are all evaluated.
    estimated:   coalitions of which pairwise interactions are estimated.
    """

    matmuls: dict[str, tuple[int, ...]]
    copied: int
    repeats: int
    searches: int
    small: VisionTransformerConfig
    small_forwards: tuple[Forward, ...]
    large: VisionTransformerConfig
    large_forwards: tuple[Forward, ...]
    forms: tuple[Form, ...]
    side: int | None
    orders: tuple[Search, ...]
    images: int
    images_dtype: str
    pixels: tuple[ResNetConfig, int]
    pixel_forwards: tuple[tuple[str, int], ...]
    slic: tuple[tuple[int, int], ...]
    p2p: tuple[Config, int]
    budget: int
    search_dtype: str
    exact_side: int
    estimated: int


_RESNET_18 = ResNetConfig(depths=(2, 2, 2, 2), widths=(64, 128, 256, 512), inner=())
_ORDERS = (Search(True, "bfloat16"), Search(True, "float32"), Search(False, "bfloat16"), Search(False, "float32"))

ACCELERATOR = Sizes(
    matmuls={"bfloat16": (8192, 16384, 4096, 2048, 1024), "float32": (8192, 4096, 2048)},
    copied=1 << 28,
    repeats=7,
    searches=3,
    small=NETWORKS["tiny"],
    small_forwards=(
        Forward("bfloat16", 197, 1024), Forward("bfloat16", 65, 1024), Forward("bfloat16", 17, 1024),
        Forward("float32", 197, 1024), Forward("bfloat16", 197, 128),
    ),
    large=NETWORKS["base"],
    large_forwards=(
        Forward("bfloat16", 197, 256), Forward("bfloat16", 197, 64), Forward("bfloat16", 197, 1024),
        Forward("bfloat16", 65, 512), Forward("float32", 197, 256),
    ),
    forms=("heads", "batched", "pallas"),
    side=None,
    orders=_ORDERS,
    images=64,
    images_dtype="bfloat16",
    pixels=(_RESNET_18, 7),
    pixel_forwards=(("bfloat16", 256), ("float32", 256), ("bfloat16", 64)),
    slic=((64, 224), (1, 224)),
    p2p=(Config(num_classes=10), 64),
    budget=4096,
    search_dtype="float32",
    exact_side=4,
    estimated=20_000,
)  # fmt: skip

CPU = dataclasses.replace(
    ACCELERATOR,
    matmuls={"float32": (2048, 1024), "bfloat16": (512,)},
    copied=1 << 26,
    repeats=5,
    searches=1,
    small_forwards=(Forward("float32", 197, 8), Forward("float32", 65, 16), Forward("float32", 17, 16)),
    large_forwards=(Forward("float32", 197, 4),),
    forms=("batched",),
    orders=(Search(True, "float32", 8), Search(True, "bfloat16", 8), Search(True, "float32"), Search(False, "float32")),
    images=4,
    images_dtype="float32",
    pixel_forwards=(("float32", 16),),
    slic=((16, 224), (1, 224)),
    p2p=(Config(num_classes=10), 8),
    budget=500,
    side=None,
    exact_side=3,
    estimated=300,
)

TINY = Sizes(
    matmuls={"float32": (128,), "bfloat16": (64,)},
    copied=1 << 16,
    repeats=2,
    searches=1,
    small=VisionTransformerConfig(
        image_size=24, patch_size=8, hidden_size=32, num_layers=3, num_heads=2, mlp_dim=64, num_classes=5
    ),
    small_forwards=(Forward("float32", 6, 4), Forward("bfloat16", 6, 4)),
    large=VisionTransformerConfig(
        image_size=24, patch_size=8, hidden_size=48, num_layers=3, num_heads=3, mlp_dim=96, num_classes=5
    ),
    large_forwards=(Forward("float32", 10, 2),),
    forms=("batched",),
    side=3,
    orders=(Search(True, "bfloat16"), Search(True, "float32")),
    images=2,
    images_dtype="float32",
    pixels=(ResNetConfig(depths=(1, 1), widths=(8, 16), inner=(), stem=8, num_classes=4, image_size=32), 2),
    pixel_forwards=(("float32", 2),),
    slic=((2, 32),),
    p2p=(Config(num_classes=3, num_groups=9, image_size=16, classifier=CNNConfig((8,)), selector="small"), 2),
    budget=20,
    search_dtype="float32",
    exact_side=2,
    estimated=30,
)
