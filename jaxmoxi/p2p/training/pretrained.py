"""Weights to start from: those of a vision transformer that was trained on whole images, or of another P2P model."""

from __future__ import annotations

import dataclasses
import os
import zlib

import jax

from jaxmoxi.errors import InputError
from jaxmoxi.models.checkpoints import folder as model_folder
from jaxmoxi.models.checkpoints.chosen import Asked
from jaxmoxi.models.networks import vit
from jaxmoxi.p2p.arrays import DamagedError, flatten, local_folder
from jaxmoxi.p2p.checkpoint import load, read_record
from jaxmoxi.p2p.config import Config, ResNetConfig, ViTConfig
from jaxmoxi.p2p.model import P2P, State, init


def pretrained_classifier(
    folder: str | os.PathLike[str], config: Config, *, seed: int = 0, preprocessing: Asked | None = None
) -> tuple[State, Config]:
    """`(classifier, config)` from a checkpoint folder of a ViT, as `models.load(folder, preprocessing=...)` reads them.

    The classifier is an NNX state for `fit(classifier=...)`; where the numbers of classes differ, it has a new head,
    drawn from `seed`. The returned configuration has the folder's normalisation. Where its image size is not the
    folder's, the position embedding is interpolated, as `models.load(folder, image_size=...)` does it.
    Raises FileNotFoundError, and ValueError for a network that is not the configuration's, listing what differs.
    """
    size = config.image_size if isinstance(config.classifier, ViTConfig) else None
    loaded = model_folder.load(folder, preprocessing=preprocessing, image_size=size)
    if not isinstance(config.classifier, ViTConfig) or not isinstance(loaded.config, vit.VisionTransformerConfig):
        raise InputError(f"{folder}: expected a vision transformer, for a classifier that is one")
    ours, theirs = (
        dataclasses.asdict(c) for c in (config.classifier.full(config.image_size, config.num_classes), loaded.config)
    )
    # The epsilon of a layer norm hardly changes an answer, so it may differ.
    wrong = [n for n in ours if ours[n] != theirs[n] and n not in ("num_classes", "norm_eps")]
    if wrong:
        raise InputError(
            f"{folder} is not the configuration's classifier: "
            + ", ".join(f"{n} is {theirs[n]}, not {ours[n]}" for n in wrong)
        )
    fresh = init(jax.random.key(seed), config).classifier
    state = jax.tree.map(lambda a: a, loaded.params)  # a copy of the structure, to put the head into
    if loaded.config.num_classes != config.num_classes:
        state["head"] = fresh["head"]
    mean, std = (tuple(map(float, values)) for values in (loaded.preprocessing.mean, loaded.preprocessing.std))
    return state, dataclasses.replace(config, mean=mean, std=std)


def is_run(folder: str | os.PathLike[str]) -> bool:
    """Whether a folder is that of a P2P model or of a training run."""
    try:
        read_record(local_folder(folder))
    except DamagedError:
        raise
    except InputError:
        return False
    return True


def classifier_of_run(folder: str | os.PathLike[str], config: Config, *, seed: int = 0) -> tuple[State, Config]:
    """`(classifier, config)` from the folder of a P2P model or of a training run, as `pretrained_classifier` has them.

    The returned configuration has that model's normalisation and colour of hidden pixels. For another number of classes
    the classifier has a new head, drawn from `seed`.
    Raises ValueError for a folder that `p2p.load` does not read, and for another classifier, listing what differs.
    """
    model, config = _of_run(folder, config, ("classifier", "image_size"), "classifier", seed)
    return model.classifier, config


def model_of_run(folder: str | os.PathLike[str], config: Config, *, seed: int = 0) -> tuple[P2P, Config]:
    """`(model, config)` as `classifier_of_run` has them, with the run's selector too.

    Raises ValueError as it does, and for another selector or another use of the threshold.
    """
    names = ("selector", "embedding_size", "dynamic_threshold", "threshold_input")
    return _of_run(folder, config, ("classifier", "image_size", *names), "networks", seed)


def _of_run(
    folder: str | os.PathLike[str], config: Config, names: tuple[str, ...], called: str, seed: int
) -> tuple[P2P, Config]:
    """A run's model, and the configuration with its colours, if the two agree in the settings of these names."""
    model = load(folder)
    wrong = [
        f"{name} is {getattr(model.config, name)}, not {getattr(config, name)}"
        for name in names
        if getattr(model.config, name) != getattr(config, name)
    ]
    if wrong:
        raise InputError(f"{folder} has not the configuration's {called}: {', '.join(wrong)}")
    if model.config.num_classes != config.num_classes:
        state = jax.tree.map(lambda a: a, model.classifier)  # a copy of the structure, to put the head into
        head = "fc" if isinstance(config.classifier, ResNetConfig) else "head"
        state[head] = init(jax.random.key(seed), config).classifier[head]
        model = P2P(model.selector, state, config)
    same = {name: getattr(model.config, name) for name in ("mean", "std", "fill")}
    return model, dataclasses.replace(config, **same)


def teacher_of_run(folder: str | os.PathLike[str], config: Config) -> State:
    """The classifier of a run as a teacher of this configuration (`fit(teacher=...)`).

    Raises ValueError for a folder that `p2p.load` does not read, and for one that sees images of another size or
    normalisation, answers other classes or is another network, listing what differs.
    """
    model, _ = _of_run(
        folder, config, ("classifier", "image_size", "num_classes", "mean", "std"), "classifier, to teach it", 0
    )
    return model.classifier


def start_from(model: P2P, weights: P2P | State | None, *, called: str = "the weights to start from") -> P2P:
    """The fresh model with other weights in their place: those of a P2P, of a classifier alone, or (None) of neither.

    Raises ValueError for weights of another network.
    """
    if weights is None:
        return model
    start = weights if isinstance(weights, P2P) else P2P(model.selector, weights, model.config)
    shapes = [{n: a.shape for n, a in flatten(m).items()} for m in (model, start)]
    wrong = sorted(n for n in shapes[0].keys() | shapes[1].keys() if shapes[0].get(n) != shapes[1].get(n))
    if wrong:
        raise InputError(
            f"{called} are not those of the configuration: {len(wrong)} arrays differ, such as "
            f"{wrong[0]} (expected {shapes[0].get(wrong[0])}, got {shapes[1].get(wrong[0])})"
        )
    return P2P(start.selector, start.classifier, model.config)


def fingerprint(weights: P2P | State | None) -> int | None:
    """A checksum of weights, by which a run folder knows what its run started from; None without weights."""
    crc = 0
    for name, array in flatten(weights).items():
        crc = zlib.crc32(array.tobytes(), zlib.crc32(name.encode(), crc))
    return crc or None
