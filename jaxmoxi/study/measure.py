"""One photo of a study: every method's scores, and what every metric measures of them.

Pure; nothing is read or written here.
"""

from __future__ import annotations

import dataclasses
import warnings
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
from jaxmoxi.errors import InputError, NotConvergedWarning
from jaxmoxi.games.base import ValueFn, as_game
from jaxmoxi.games.payoff import Payoff, answers_class
from jaxmoxi.games.removal import Removal, image_game
from jaxmoxi.games.sharding import shard_coalitions
from jaxmoxi.metrics import METRICS, Explained, Line, Metric, Number, box_mask, crop_boxes
from jaxmoxi.metrics.registry import DIRECTIONS
from jaxmoxi.models.classifier import Classifier
from jaxmoxi.regions.spec import parse_regions
from jaxmoxi.study.config import StudyConfig
from jaxmoxi.study.plan import (
    Watch,
    evaluations_of_a_photo,
    evaluations_per_second,
    method_step,
    metric_step,
    unwatched,
)
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

    def evaluations(self) -> int:
        """About how many evaluations a photo takes; of superpixels, where a photo has as many as there may be."""
        players = parse_regions(self.config.regions).count
        names = tuple(metric.name for metric in self.metrics)
        return evaluations_of_a_photo(self.config, self.methods, names, len(self.removals), players)

    def price(self, method: str) -> int:
        """About how many evaluations one of the methods takes for a photo, in all its directions."""
        effort = self.config.effort(parse_regions(self.config.regions).count)
        directions = DIRECTIONS[: 1 + METHODS[method].directed]
        return sum(method_step(method, effort, direction).evaluations for direction in directions)

    def speed(self) -> float:
        """Evaluations a second, measured."""
        probe = _probe(self.model, self.masking, self.config)
        game = as_game(probe.v if self.mesh is None else shard_coalitions(probe.v, self.mesh))
        return evaluations_per_second(game, self.config, probe.num_players, self.batch_size)


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
    probe = _probe(model, masking, config)
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
    watch: Watch = unwatched,
) -> Measured:
    """All that a study keeps of one photo.

    key:   for this photo alone. Each method has its own part of the key, so that another list of methods changes
           nothing.
    photo: a PIL image or uint8[H, W, 3].
    label: its class, -1 if not known.
    boxes: float[N, 4] of x0, y0, x1, y1 in the photo's pixels, or None.
    mask:  the photo's objects, an image of its size, white on black, or None.
    watch: follows the work step by step.

    Raises NotCorrectError where the model does not see the label and the study asks for that; ValueError for a target
    that is not known; NaNValueError and MemoryError from inside.
    """
    model, config = task.model, task.config
    if label < 0 and (config.only_correct or config.target == "label"):
        raise InputError("its label is not known; study the prediction instead")
    image = model.preprocess(photo)
    logits = jax.jit(type(model).logits)(model, image[None])[0]
    top = int(jnp.argmax(logits))
    if config.only_correct and not answers_class(logits[None], label, model.link)[0]:
        raise NotCorrectError(model.class_names[top])
    target = label if config.target == "label" else top
    cropped = model.crop(photo)
    regions = parse_regions(config.regions).label_map(cropped)
    problem = _problem(model, image, target, regions, task.masking, config)
    if task.mesh is not None:
        problem = dataclasses.replace(problem, v=shard_coalitions(problem.v, task.mesh))
    scores, orders = _explain(key, task, problem, watch)
    sizes = config.curve_sizes(problem.num_players)
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
        sizes=sizes,
        objects=_objects(task, photo, boxes, mask),
        batch_size=task.batch_size,
        problem=problem,
        share=config.share,
        photo=cropped,
    )
    found: list[Number | Line] = []
    for metric in task.metrics:
        with watch(metric_step(metric.name, len(task.methods), len(sizes), len(task.removals))):
            found += metric.measure(explained)
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
    key: Key[Array, ""], task: Setting, problem: Problem, watch: Watch
) -> tuple[Float[np.ndarray, "M 2 P"], Int[np.ndarray, "M 2 P"]]:
    """The scores of all methods, for insertion and for deletion, and the orders that follow from them.

    Each method's ties are broken at random, by a key of its own: broken by index, they would favour a corner of the
    image, and the ties of two methods would be broken alike.
    """
    effort = task.config.effort(problem.num_players, batch_size=task.batch_size)
    scores = np.zeros((len(task.methods), 2, problem.num_players), np.float32)
    orders = np.zeros(scores.shape, np.int32)
    for i, name in enumerate(task.methods):
        method = METHODS[name]
        own = jax.random.fold_in(key, zlib.crc32(name.encode()))
        for d, direction in enumerate(DIRECTIONS):
            if d == 0 or method.directed:
                with watch(method_step(name, effort, direction)), warnings.catch_warnings():
                    keywords = method.keywords(effort, insertion=direction == "insertion")
                    warnings.simplefilter("ignore", NotConvergedWarning)  # the table has the gap of every photo
                    scores[i, d:] = method.explain(own, problem, **keywords)
            orders[i, d] = order_of(scores[i, d], ties=jax.random.fold_in(own, _TIES))
    return scores, orders


_TIES = 0x7135  # parts the key that breaks a method's ties from the key that the method draws with


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


def curve_game(task: Setting, photo: AnyPhoto, target: int) -> ValueFn:
    """The game of a photo that the model's methods play, on all devices of the setting, for any class."""
    model = task.model
    regions = parse_regions(task.config.regions).label_map(model.crop(photo))
    return _curve_game(task, model.preprocess(photo), target, regions, task.masking)


def _curve_game(task: Setting, image: Float[Array, "H W 3"], target: int, regions: Labels, removal: Removal) -> ValueFn:
    v = _game(task.model, image, target, regions, removal, task.config.payoff)
    return v if task.mesh is None else shard_coalitions(v, task.mesh)


def _probe(model: Classifier, masking: Removal, config: StudyConfig) -> Problem:
    """A problem of a blank photo."""
    size = model.preprocessing.size
    regions = parse_regions(config.regions).label_map(np.zeros((*size, 3), np.uint8))
    return _problem(model, jnp.zeros((*size, 3)), 0, regions, masking, config)


def _problem(
    model: Classifier, image: Float[Array, "H W 3"], target: int, regions: Labels, masking: Removal, config: StudyConfig
) -> Problem:
    return make_problem(model, image, target, regions, v=_game(model, image, target, regions, masking, config.payoff))


def _game(
    model: Classifier, image: Float[Array, "H W 3"], target: int, regions: Labels, removal: Removal, payoff: Payoff
) -> ValueFn:
    return image_game(model, image, target, regions, removal=removal, payoff=payoff)
