"""One photo of a study: every method's scores, and what every metric measures of them.

Pure; nothing is read or written here.
"""

from __future__ import annotations

import dataclasses
import zlib
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int, Key
from PIL import Image

from jaxmoxi.attribution import METHODS, Problem, order_of
from jaxmoxi.attribution import problem as make_problem
from jaxmoxi.errors import InputError
from jaxmoxi.games.base import ValueFn
from jaxmoxi.games.payoff import Payoff
from jaxmoxi.games.removal import Removal, image_game
from jaxmoxi.games.sharding import shard_coalitions
from jaxmoxi.metrics import METRICS, Explained, Line, Metric, Number, box_mask, crop_boxes
from jaxmoxi.models.classifier import Classifier
from jaxmoxi.regions.spec import parse_regions
from jaxmoxi.study.config import StudyConfig
from jaxmoxi.study.records import Measured

AnyPhoto = Image.Image | np.ndarray
Labels = Int[Array | np.ndarray, "H W"]


class Setting(NamedTuple):
    """What is the same for all photos of one model.

    methods, removals: those that apply to the model.
    metrics:           those that are asked for, in the order in which tables show them.
    """

    model: Classifier
    config: StudyConfig
    methods: tuple[str, ...]
    metrics: tuple[Metric, ...]
    masking: Removal
    removals: tuple[Removal, ...]
    mesh: Mesh | None
    batch_size: int | None


class NotCorrectError(Exception):
    """The model does not see the label in the photo, and only correct ones are asked for."""


def setting(
    model: Classifier, config: StudyConfig, *, mesh: Mesh | None = None, batch_size: int | None = None
) -> Setting:
    """The part of a study that concerns one model.

    Raises ValueError for a batch size below 1, and where the model cannot play the game asked for or none of the
    methods applies to it.
    """
    if batch_size is not None and batch_size < 1:
        raise InputError(f"batch_size must be at least 1; got {batch_size}")
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
        except InputError:
            continue
        methods.append(name)
    if not methods:
        raise InputError(f"none of the methods {', '.join(config.methods)} applies to {model.name}")
    if mesh is not None:  # once, not with every photo
        model = jax.device_put(model, NamedSharding(mesh, PartitionSpec()))
    metrics = tuple(metric for name, metric in METRICS.items() if name in config.metrics)
    return Setting(model, config, tuple(methods), metrics, masking, removals, mesh, batch_size)


def measure_photo(
    key: Key[Array, ""],
    task: Setting,
    photo: AnyPhoto,
    *,
    label: int = -1,
    boxes: Float[np.ndarray, "N 4"] | None = None,
    mask: AnyPhoto | None = None,
) -> Measured:
    """All that a study keeps of one photo.

    key:   for this photo alone. Each method has its own part of the key, so that another list of methods changes
           nothing.
    photo: a PIL image or uint8[H, W, 3].
    label: its class, -1 if not known.
    boxes: float[N, 4] of x0, y0, x1, y1 in the photo's pixels, or None.
    mask:  the photo's objects, an image of its size, white on black, or None.

    Raises NotCorrectError where the model does not see the label and the study asks for that; ValueError for a target
    that is not known; NaNValueError and MemoryError from inside.
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
        problem = dataclasses.replace(problem, v=shard_coalitions(problem.v, task.mesh))
    scores, orders = _explain(key, task, problem)
    explained = Explained(
        key=key,
        model=model,
        image=image,
        target=target,
        regions=regions,
        methods=task.methods,
        scores=scores,
        orders=orders,
        games={removal: _curve_game(task, image, target, regions, removal) for removal in task.removals},
        sizes=config.curve_sizes(problem.num_players),
        objects=_objects(task, photo, boxes, mask),
        batch_size=task.batch_size,
        problem=problem,
    )
    found = [record for metric in task.metrics for record in metric.measure(explained)]
    return Measured(
        target=target,
        top=top,
        methods=task.methods,
        regions=np.asarray(regions, np.int32),
        scores=scores,
        orders=orders,
        numbers=tuple(record for record in found if isinstance(record, Number)),
        lines=tuple(record for record in found if isinstance(record, Line)),
    )


def _explain(
    key: Key[Array, ""], task: Setting, problem: Problem
) -> tuple[Float[np.ndarray, "M 2 P"], Int[np.ndarray, "M 2 P"]]:
    """The scores of all methods, for insertion and for deletion, and the orders that follow from them."""
    effort = task.config.effort(problem.num_players, batch_size=task.batch_size)
    scores = np.zeros((len(task.methods), 2, problem.num_players), np.float32)
    for i, name in enumerate(task.methods):
        method = METHODS[name]
        own = jax.random.fold_in(key, zlib.crc32(name.encode()))
        scores[i, 0] = method.explain(own, problem, **method.keywords(effort, insertion=True))
        scores[i, 1] = scores[i, 0]
        if method.directed:
            scores[i, 1] = method.explain(own, problem, **method.keywords(effort, insertion=False))
    orders = np.stack([np.stack([np.asarray(order_of(s)) for s in both]) for both in scores])
    return scores, orders.astype(np.int32)


def _objects(
    task: Setting, photo: AnyPhoto, boxes: Float[np.ndarray, "N 4"] | None, mask: AnyPhoto | None
) -> np.ndarray | Array | None:
    """bool[H, W], True on the photo's objects in the image that the model sees; None where no metric asks for them."""
    if not any(metric.needs_objects for metric in task.metrics):
        return None
    if mask is not None:
        return task.model.crop(mask)[..., 0] > 127
    if boxes is None or not len(boxes):
        return None
    width, height = photo.size if isinstance(photo, Image.Image) else (photo.shape[1], photo.shape[0])
    inside = crop_boxes(boxes, (height, width), task.model.preprocessing)
    height, width = task.model.preprocessing.size
    return box_mask(height, width, inside)


def _curve_game(task: Setting, image: Float[Array, "H W 3"], target: int, regions: Labels, removal: Removal) -> ValueFn:
    v = _game(task.model, image, target, regions, removal, task.config.payoff)
    return v if task.mesh is None else shard_coalitions(v, task.mesh)


def _problem(
    model: Classifier, image: Float[Array, "H W 3"], target: int, regions: Labels, masking: Removal, config: StudyConfig
) -> Problem:
    return make_problem(model, image, target, regions, v=_game(model, image, target, regions, masking, config.payoff))


def _game(
    model: Classifier, image: Float[Array, "H W 3"], target: int, regions: Labels, removal: Removal, payoff: Payoff
) -> ValueFn:
    return image_game(model, image, target, regions, removal=removal, payoff=payoff)
