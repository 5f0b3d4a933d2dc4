"""The photos that a model classifies correctly, each as a game."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from PIL import Image

import jaxmoxi as jm


@dataclasses.dataclass
class Case:
    """One photo as a game."""

    model: Any
    image: Any
    target: int
    v: Any
    num_players: int
    regions: Any


def game(model: Any, image: Any, target: int, regions: Any, grid: tuple[int, int]) -> Any:
    if model.token_grid is None:
        return jm.pixel_value_fn(model.logits, image, target, regions, fill="mean")
    if model.token_grid == grid:
        return jm.token_value_fn(model, image, target)
    return jm.token_value_fn(model, image, target, regions)


def loaded(name: str) -> Any:
    """The model of a checkpoint folder, or efficientnet-lite0."""
    return jm.models.demo() if name == "efficientnet-lite0" else jm.models.load(name)


def cases(name: str, images: Path, *, count: int, grid: int, always: bool = False) -> Iterator[tuple[str, Case]]:
    """The first `count` photos that the model classifies correctly.

    name:   a checkpoint folder, or efficientnet-lite0. images: the folder of photos, with labels.csv.
    grid:   players along one side, where the model has no tokens; with `always`, of any model.
    """
    model = loaded(name)
    logits = jax.jit(lambda model, image: model.logits(image[None])[0])
    with open(images / "labels.csv", newline="") as f:
        labels = [(row["file"], int(row["index"])) for row in csv.DictReader(f)]
    found = 0
    for file, target in labels:
        if found >= count:
            return
        image = model.preprocess(Image.open(images / file))
        if int(jnp.argmax(logits(model, image))) != target:
            continue
        found += 1
        rows, cols = (grid, grid) if always else model.token_grid or (grid, grid)
        regions = jm.grid_regions(*image.shape[:2], rows=rows, cols=cols)
        yield file, Case(model, image, target, game(model, image, target, regions, (rows, cols)), rows * cols, regions)
