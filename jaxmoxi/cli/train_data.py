"""What `jaxmoxi train --data` names: the images to train on, and those to test on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from jaxmoxi.errors import InputError

if TYPE_CHECKING:  # it takes seconds to import, and no other command needs it
    from jaxmoxi.p2p.data import Source

_KINDS = "scenes, imagenet:DIR, imagenet9:DIR, bam:DIR, bam-scene:DIR, coco10:DIR, cifar10:PATH or folder:DIR"
_NUM_SCENES = 12_000


def sources(named: str, *, image_size: int, num_scenes: int | None, seed: int) -> tuple[Source, Source]:
    """The images to train on, and those to test on.

    named:      KIND, or KIND:PATH.
    image_size: side of synthetic scenes, in pixels.
    num_scenes: how many to train on; None for 12000.
    Raises InputError for a kind that there is not, and for what the path holds.
    """
    import jax

    from jaxmoxi.p2p import data

    kind, _, place = named.partition(":")
    if kind == "scenes" and not place:
        keys = jax.random.split(jax.random.key(seed))
        count = _NUM_SCENES if num_scenes is None else num_scenes
        counts = (count, max(count // 5, 1))
        train, test = (
            data.scene_source(key, count, image_size=image_size) for key, count in zip(keys, counts, strict=True)
        )
        return train, test
    if not place:
        raise InputError(f"expected {_KINDS}; got {named!r}")
    folder = Path(place)
    if kind == "imagenet" or (kind == "folder" and (folder / "train").is_dir() and (folder / "val").is_dir()):
        return data.ImageFolder(folder / "train"), data.ImageFolder(folder / "val")
    if kind == "folder":
        return data.split(data.ImageFolder(folder), validation=0.2, seed=seed)
    if kind == "imagenet9":
        return data.ImageNet9(folder, split="train", masks=False), data.ImageNet9(folder)
    if kind in ("bam", "bam-scene"):
        labels = "object" if kind == "bam" else "scene"
        return data.BAM(folder, labels=labels), data.BAM(folder, labels=labels, split="val")
    if kind == "coco10":
        return data.COCO10(folder), data.COCO10(folder, split="val")
    if kind == "cifar10":
        return data.CIFAR10(folder), data.CIFAR10(folder, split="test")
    raise InputError(f"expected {_KINDS}; got {named!r}")
