"""One photo of a study: every method's scores, and what the metrics need of them. Pure; nothing is read or written."""

from __future__ import annotations

import dataclasses
import inspect
import zlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Key

import jaxmoxi.metrics as metrics
from jaxmoxi.attribution import METHODS, Problem, order_of
from jaxmoxi.attribution import problem as make_problem
from jaxmoxi.errors import InputError
from jaxmoxi.games.sharding import shard_coalitions
from jaxmoxi.moxi.curves import curve_readouts
from jaxmoxi.pytrees import pack
from jaxmoxi.regions.spec import parse_regions
from jaxmoxi.study.config import Removal, StudyConfig

DIRECTIONS = ("insertion", "deletion")
ROAD_SHARES = (0.1, 0.3, 0.5, 0.7, 0.9)
LOCALISATION = ("pointing game", "energy inside", "IoU")


class Setting(NamedTuple):
    """What is the same for all photos of one model. methods, removals: those that apply to it."""

    model: Any
    config: StudyConfig
    methods: tuple[str, ...]
    masking: Removal
    removals: tuple[Removal, ...]
    mesh: Mesh | None
    batch_size: int | None


class NotCorrectError(Exception):
    """The model does not see the label in the photo, and only correct ones are asked for."""


def setting(model: Any, config: StudyConfig, *, mesh: Mesh | None = None, batch_size: int | None = None) -> Setting:
    """The part of a study that concerns one model.

    Raises ValueError where the model cannot play the game asked for, or none of the methods applies to it.
    """
    masking: Removal = config.masking or ("tokens" if model.token_grid else "zero")
    removals: tuple[Removal, ...] = config.removals or (masking,)
    if model.token_grid is None:
        removals = tuple(removal for removal in removals if removal != "tokens")
        if masking == "tokens" or not removals:
            raise InputError(f"{model.name} has no tokens to remove; ask for zero, mean or blur")
    size = model.preprocessing.size
    blank = jnp.zeros((*size, 3))
    probe = _problem(
        model, blank, 0, parse_regions(config.regions).label_map(np.zeros((*size, 3), np.uint8)), masking, config
    )
    methods = []
    for name in config.methods:
        try:
            METHODS[name].applies(probe)
        except ValueError:
            continue
        methods.append(name)
    if not methods:
        raise InputError(f"none of the methods {', '.join(config.methods)} applies to {model.name}")
    if mesh is not None:  # once, not with every photo
        model = jax.device_put(model, NamedSharding(mesh, PartitionSpec()))
    return Setting(model, config, tuple(methods), masking, removals, mesh, batch_size)


def measure_photo(
    key: Key[Array, ""], task: Setting, photo: Any, *, label: int = -1, boxes: Any = None, mask: Any = None
) -> dict[str, np.ndarray]:
    """All that a study keeps of one photo.

    key:   for this photo alone; each method has its own part of it, so that another list of methods changes nothing.
    photo: a PIL image or uint8[H, W, 3]. label: its class, -1 if not known. boxes: float[N, 4] x0, y0, x1, y1 in its
           pixels, or None. mask: its objects, an image of its size, white on black, or None.

    Returns arrays by name, M methods: `target`, `top` int; `regions` [H, W]; `scores` float32[M, 2, P] and `orders`
    int32[M, 2, P], for insertion and for deletion; `sizes` int32[S], and for each removal r and direction d
    `r/d/probabilities` float32[M, S] and `r/d/leads` bool[M, S]; `localisation` float32[M, 3]; `road/most`,
    `road/least` float32[M, shares], of the deletion order, most or least important first; the last three only where
    asked for. Localisation is of the insertion's scores.
    Raises NotCorrectError; ValueError for a target that is not known; NaNValueError and MemoryError from inside.
    """
    model, config = task.model, task.config
    if label < 0 and (config.only_correct or config.target == "label"):
        raise InputError("its label is not known; study the prediction instead")
    image = model.preprocess(photo)
    logits = jax.jit(type(model).logits)(model, image[None])[0]
    top = int(jnp.argmax(logits))
    if config.only_correct and label != top:
        raise NotCorrectError(model.class_names[top])
    target = label if config.target == "label" else top
    regions = parse_regions(config.regions).label_map(model.crop(photo))
    problem = _problem(model, image, target, regions, task.masking, config)
    if task.mesh is not None:
        problem = dataclasses.replace(problem, v=pack(shard_coalitions(problem.v, task.mesh)))
    num_players = problem.num_players

    scores = np.zeros((len(task.methods), 2, num_players), np.float32)
    for i, name in enumerate(task.methods):
        own = jax.random.fold_in(key, zlib.crc32(name.encode()))
        for d, direction in enumerate(DIRECTIONS):
            if d and not METHODS[name].directed:
                scores[i, 1] = scores[i, 0]
            else:
                options = method_options(name, direction, num_players, config, batch_size=task.batch_size)
                scores[i, d] = METHODS[name].explain(own, problem, **options)
    orders = np.stack([np.stack([np.asarray(order_of(s)) for s in both]) for both in scores])
    out = {
        "target": np.asarray(target, np.int32),
        "top": np.asarray(top, np.int32),
        "regions": np.asarray(regions, np.int32),
        "scores": scores,
        "orders": orders.astype(np.int32),
    }
    if "curves" in config.metrics:
        out |= _curves(task, image, target, regions, orders)
    if "localisation" in config.metrics and (mask is not None or (boxes is not None and len(boxes))):
        inside = _box_mask(model, photo, boxes) if mask is None else model.crop(mask)[..., 0] > 127
        asked = (metrics.pointing_game, metrics.energy_inside, metrics.iou)
        found = [[float(f(row, regions, inside)) for f in asked] for row in scores[:, 0]]
        out["localisation"] = np.asarray(found, np.float32)
    if "road" in config.metrics:
        for name, first in (("most", True), ("least", False)):
            curves = [
                metrics.road_curve(
                    key, model.logits, image, target, regions, order, shares=ROAD_SHARES, most_relevant_first=first
                ).probabilities
                for order in orders[:, 1]
            ]
            out[f"road/{name}"] = np.asarray(jnp.stack(curves), np.float32)
    return out


def method_options(
    name: str, direction: str, num_players: int, config: StudyConfig, *, batch_size: int | None = None
) -> dict[str, Any]:
    """What a study's settings mean for one method."""
    options: dict[str, Any] = {}
    if batch_size is not None and "batch_size" in inspect.signature(METHODS[name].explain).parameters:
        options["batch_size"] = batch_size
    if name in ("rise", "hsic"):
        options["num_samples"] = config.samples
    if name == "shapley":
        options["num_samples"] = max(2, config.samples // num_players)
    if METHODS[name].directed:
        options["insertion"] = direction == "insertion"
    if name == "moxi" and config.steps is not None:
        options["num_steps"] = min(config.steps, num_players)
    return options


def _curves(task: Setting, image: Any, target: int, regions: Any, orders: np.ndarray) -> dict[str, np.ndarray]:
    out = {}
    sizes = task.config.curve_sizes(orders.shape[-1])
    for removal in task.removals:
        v = _game(task.model, image, target, regions, removal, task.config.payoff)
        if task.mesh is not None:
            v = shard_coalitions(v, task.mesh)
        for d, direction in enumerate(DIRECTIONS):
            read = curve_readouts(v, orders[:, d], insertion=d == 0, sizes=sizes, batch_size=task.batch_size)
            out[f"{removal}/{direction}/probabilities"] = np.asarray(read.probabilities)
            out[f"{removal}/{direction}/leads"] = np.asarray(read.leads)
    return out | {"sizes": np.asarray(sizes, np.int32)}


def _box_mask(model: Any, photo: Any, boxes: Any) -> Any:
    """The boxes of a photo in the image that the model sees."""
    photo_size = photo.shape[:2] if hasattr(photo, "shape") else photo.size[::-1]
    inside = metrics.crop_boxes(boxes, photo_size, model.preprocessing)
    height, width = model.preprocessing.size
    return metrics.box_mask(height, width, inside)


def _problem(model: Any, image: Any, target: int, regions: Any, masking: Removal, config: StudyConfig) -> Problem:
    return make_problem(model, image, target, regions, v=_game(model, image, target, regions, masking, config.payoff))


def _game(model: Any, image: Any, target: int, regions: Any, removal: Removal, payoff: Any) -> Any:
    return metrics.value_fns(model, image, target, regions, removals=(removal,), payoff=payoff)[removal]
