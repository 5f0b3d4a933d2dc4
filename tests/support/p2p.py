"""The published model on weights made from their names; see golden/README.md."""

from __future__ import annotations

import functools
import json
import zlib

import jax
import numpy as np

from jaxmoxi import p2p
from jaxmoxi.models.networks import lraspp, vit
from jaxmoxi.p2p.data import Batch, synthetic_scenes
from support.games import GOLDEN


@functools.cache
def golden():
    return json.loads((GOLDEN / "p2p.json").read_text())


def golden_config(**changes):
    entry = golden()
    sizes = entry["vit"]
    classifier = p2p.ViTConfig(
        hidden_size=sizes["hidden_size"],
        num_layers=sizes["num_hidden_layers"],
        num_heads=sizes["num_attention_heads"],
        mlp_dim=sizes["intermediate_size"],
        patch_size=sizes["patch_size"],
    )
    settings = dict(num_classes=entry["classes"], num_groups=entry["n_segments"], image_size=entry["size"])
    return p2p.Config(**settings | dict(classifier=classifier, embedding_size=3) | changes)


def golden_tensor(name, shape):
    entry = golden()
    z = np.random.Generator(np.random.PCG64(zlib.crc32(f"{entry['tag']}:{name}".encode()))).standard_normal(shape)
    z = z.astype(np.float32)
    leaf = name.split(".")[-1]
    if leaf == "running_var":
        return 1 + np.float32(0.2) * np.abs(z)
    if leaf in ("running_mean", "bias"):
        shift = entry["mean_head_bias_shift"] if name.endswith("high_classifier.bias") else 0.0
        return np.float32(0.1) * z + np.float32(shift) * (np.arange(len(z)) == 0)
    if leaf in ("cls_token", "position_embeddings"):
        return np.float32(0.5) * z
    if len(shape) == 1:
        return 1 + np.float32(0.1) * z
    part = "head" if "low_classifier" in name or "high_classifier" in name else name.split(".")[0]
    return np.float32(entry[f"gain_{part}"]) * z / np.float32(np.sqrt(np.prod(shape[1:])))


@functools.cache
def golden_state_dict():
    config = golden_config()
    selector = lraspp.expected_tensors(config.channels)
    classifier = vit.expected_tensors(config.classifier.full(config.image_size, config.num_classes), "vit")
    names = {f"selector.importance_predictor.model.{n}": s for n, s in selector.items()}
    names |= {f"classifier.model.{n}": s for n, s in classifier.items()}
    return {name: golden_tensor(name, shape) for name, shape in names.items()}


def golden_batch():
    """(uint8 images, superpixels, labels)."""
    entry = golden()
    return np.array(entry["images"], np.uint8), np.array(entry["groups"], np.int32), np.array(entry["labels"], np.int32)


# Small enough to predict in seconds; `spread_model` fills it.
SMALL_CONFIG = p2p.Config(
    num_classes=3,
    num_groups=18,
    image_size=32,
    classifier=p2p.ViTConfig(hidden_size=16, num_layers=1, num_heads=2, mlp_dim=32, patch_size=8),
    selector="small",
    embedding_size=2,
)


def spread_model(config=SMALL_CONFIG, seed=5):
    """A model whose thresholds vary from image to image: larger heads than fresh weights have, and a larger shift."""
    model = p2p.init(jax.random.key(seed), config)

    def selector(path, x):
        if "head" not in jax.tree_util.keystr(path):
            return x
        return 8 * x - (8 * x.sum(0) - 3) / len(x) if x.ndim == 2 else x - 1.5  # a unit of threshold adds 3

    def classifier(path, x):
        return 8 * x if "head" in jax.tree_util.keystr(path) else x

    trees = (
        jax.tree_util.tree_map_with_path(f, t)
        for f, t in zip((selector, classifier), (model.selector, model.classifier), strict=True)
    )
    return p2p.P2P(*trees, config)


LEVELS = (0.7, 0.97)
SHARES = (0.0, 0.1, 0.3, 0.6, 1.0)


def labelled_scenes():
    """Ten scenes with the cells of a grid as superpixels, with labels and the objects' masks."""
    scenes = synthetic_scenes(jax.random.key(0), 10, image_size=32, num_classes=3)
    blocks = np.arange(16).reshape(4, 4).repeat(8, 0).repeat(8, 1).astype(np.int32)
    regions = np.broadcast_to(blocks, (10, 32, 32))
    return Batch(np.asarray(scenes.images), regions, np.asarray(scenes.labels), np.asarray(scenes.objects))
