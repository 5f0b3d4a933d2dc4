"""One of two processes that share a training: `python -m support.processes INDEX PORT FOLDER`; see its test."""

from __future__ import annotations

import dataclasses
import os
import sys
import time
from pathlib import Path

import numpy as np

from support.trainer import CONFIG, NAMES, TRAIN, scenes

TRAIN_ALIKE = dataclasses.replace(TRAIN, num_epochs=3, whole_epochs=0, batch_size=8, eval_every=3)


class Seen:
    """A source of scenes with the cells of a grid, which notes what is read of it; `bad` is an index that cannot be."""

    class_names = NAMES

    def __init__(self, count: int, *, first: int = 0, bad: int | None = None):
        self.count, self.first, self.bad, self.read = count, first, bad, []

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        from jaxmoxi.errors import InputError
        from jaxmoxi.p2p.data import Example

        if index == self.bad:
            raise InputError(f"photo {index} cannot be read")
        self.read.append(index)
        found = scenes()
        regions = np.repeat(np.repeat(np.arange(16, dtype=np.int32).reshape(4, 4), 8, 0), 8, 1)
        at = self.first + index
        return Example(np.asarray(found.images[at]), int(found.labels[at]), None, regions)


def loaders(train=TRAIN_ALIKE, *, bad=None):
    """What is trained and validated on: 4 batches an epoch, mirrored at random, and 13 images."""
    from jaxmoxi.p2p.data import Augmentation, Loader

    sizes = {"image_size": 32, "num_groups": 16, "batch_size": train.batch_size, "num_threads": 0}
    augment = Augmentation(crop=None, colour=0.0, turn=True)
    source, held = Seen(35, bad=bad), Seen(13, first=64)
    return Loader(source, augment=augment, **sizes), Loader(held, train=False, **sizes), source, held


class StopAt:
    """Asks to stop from a call on."""

    def __init__(self, call):
        self.left = call

    def __call__(self):
        self.left -= 1
        return self.left < 0


def _main(index: int, port: str, folder: Path) -> None:
    import jax

    jax.distributed.initialize(f"127.0.0.1:{port}", 2, index, initialization_timeout=60)
    from jaxmoxi import p2p
    from jaxmoxi.p2p import processes

    processes._PATIENCE = 1.0  # a folder that is not shared is found out at once

    def fit(stop=None, train=TRAIN_ALIKE, where="run", bad=None):
        data, validation, *sources = loaders(train, bad=bad)
        result = p2p.fit(
            CONFIG, data, validation=validation, train=train, directory=folder / where, progress=False,
            should_stop=stop, callback=lambda line: print("epoch", line["epoch"], flush=True),
        )  # fmt: skip
        return result, sources

    # Process 1 alone is asked to stop; the first one learns of it.
    result, (source, held) = fit(StopAt(2) if index == 1 else None)
    print("stopped", int(result.state.step), sorted(source.read), sorted(held.read), flush=True)
    (folder / f"first-{index}").touch()
    until = time.monotonic() + 120
    while not (folder / "one-has-gone-on").exists() and time.monotonic() < until:
        time.sleep(0.05)
    result, (source, held) = fit()
    print("ended", int(result.state.step), len(held.read), result.history[-1]["validation"], flush=True)
    again = p2p.load(folder / "run")
    same = all(np.array_equal(a, b) for a, b in zip(*map(jax.tree.leaves, (result.model, again)), strict=True))
    print("loads", same, flush=True)
    for kind, words in {
        "photo": {"where": "bad", "bad": 7},
        "settings": {"train": dataclasses.replace(TRAIN_ALIKE, seed=index)},
        "batch": {"train": dataclasses.replace(TRAIN_ALIKE, batch_size=6)},
        "folder": {"where": f"folder-{index}"},
    }.items():
        try:
            fit(**words)
        except ValueError as error:
            print(kind, type(error).__name__, error, flush=True)


if __name__ == "__main__":
    os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=2"
    _main(int(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
