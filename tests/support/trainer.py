"""A tiny model, its training, and a loader of scenes whose groups are the cells of a grid, so nothing is segmented."""

from __future__ import annotations

import functools

import jax
import numpy as np

from jaxmoxi import p2p
from jaxmoxi.p2p.data import Batch, synthetic_scenes

CONFIG = p2p.Config(
    num_classes=3,
    num_groups=16,
    image_size=32,
    classifier=p2p.ViTConfig(hidden_size=16, num_layers=2, num_heads=2, mlp_dim=32, patch_size=8),
    selector="small",
    embedding_size=2,
)
NAMES = ("disc", "square", "triangle")
TRAIN = p2p.TrainConfig(num_epochs=3, whole_epochs=1, batch_size=16, learning_rate=1e-3)


@functools.cache
def scenes():
    return jax.device_get(synthetic_scenes(jax.random.key(0), 128, image_size=32, num_classes=3))


class Grid:
    """Batches of scenes as a pure function of the step; `fail_at` raises KeyboardInterrupt there."""

    def __init__(self, count=64, *, first=0, batch_size=16, fail_at=None):
        self.images, self.labels = (x[first : first + count] for x in (scenes().images, scenes().labels))
        self.regions = np.repeat(np.repeat(np.arange(16, dtype=np.int32).reshape(4, 4), 8, 0), 8, 1)
        self.batch_size, self.fail_at = batch_size, fail_at
        self.steps_per_epoch = count // batch_size

    def batch(self, step):
        if step == self.fail_at:
            raise KeyboardInterrupt
        epoch, at = divmod(step, self.steps_per_epoch)
        order = np.random.default_rng(epoch).permutation(len(self.images))
        rows = order[at * self.batch_size :][: self.batch_size]
        regions = np.broadcast_to(self.regions, (len(rows), *self.regions.shape))
        return Batch(self.images[rows], regions, self.labels[rows])


class After:
    """Answers True from the call of this number on."""

    def __init__(self, calls):
        self.left = calls

    def __call__(self):
        self.left -= 1
        return self.left < 0


def equal(a, b):
    """Whether two trees have the same bits."""
    return all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def timeless(history):
    """The records of a history without what depends on the clock."""
    return [{name: value for name, value in line.items() if name not in ("seconds", "throughput")} for line in history]
