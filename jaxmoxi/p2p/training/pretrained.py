"""Weights to start from: those of a vision transformer that was trained on whole images, or of another P2P model."""

from __future__ import annotations

import dataclasses
import os
import zlib
from collections.abc import Sequence

import jax

from jaxmoxi.errors import InputError
from jaxmoxi.models.checkpoints import folder as model_folder
from jaxmoxi.models.checkpoints.chosen import Asked
from jaxmoxi.models.networks import vit
from jaxmoxi.p2p.arrays import DamagedError, flatten, local_folder
from jaxmoxi.p2p.checkpoint import load, load_class_names, read_record
from jaxmoxi.p2p.config import Config, ResNetConfig, ViTConfig
from jaxmoxi.p2p.model import P2P, State, init
from jaxmoxi.p2p.ranges import other_classes

_OF_TEACHER, _TO_TEACH = ("classifier", "image_size", "mean", "std"), "classifier, to teach it"
_AS_IT_IS = "its answers are used as they are, so it has to be trained for these classes, in this order (--black-box)"


def pretrained_classifier(
    folder: str | os.PathLike[str],
    config: Config,
    *,
    seed: int = 0,
    preprocessing: Asked | None = None,
    answers: Sequence[str] | None = None,
) -> tuple[State, Config]:
    """`(classifier, config)` from a checkpoint folder of a ViT, as `models.load(folder, preprocessing=...)` reads them.

    The classifier is an NNX state for `fit(classifier=...)`; where the numbers of classes differ, it has a new head,
    drawn from `seed`. The returned configuration has the folder's normalisation. Where its image size is not the
    folder's, the position embedding is interpolated, as `models.load(folder, image_size=...)` does it.

    answers: the classes that it has to answer as it is, by their number (a folder may call them otherwise than the data
             does); None where a new head will do.
    Raises FileNotFoundError, and ValueError for a network that is not the configuration's, listing what differs, and
    for one that has another number of classes than it is to answer.
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
        if answers is not None:
            raise InputError(f"{folder} has {loaded.config.num_classes} classes, not {len(answers)}; {_AS_IT_IS}")
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


def classifier_of_run(
    folder: str | os.PathLike[str], config: Config, *, seed: int = 0, answers: Sequence[str] | None = None
) -> tuple[State, Config]:
    """`(classifier, config)` from the folder of a P2P model or of a training run, as `pretrained_classifier` has them.

    The returned configuration has that model's normalisation and colour of hidden pixels. For another number of classes
    the classifier has a new head, drawn from `seed`.

    answers: the classes that it has to answer as it is, in their order; None where a new head will do.
    Raises ValueError for a folder that `p2p.load` does not read, for another classifier, listing what differs, and for
    one of other classes than it is to answer.
    """
    model, config = _of_run(folder, config, ("classifier", "image_size"), "classifier", seed, answers)
    return model.classifier, config


def model_of_run(
    folder: str | os.PathLike[str], config: Config, *, seed: int = 0, answers: Sequence[str] | None = None
) -> tuple[P2P, Config]:
    """`(model, config)` as `classifier_of_run` has them, with the run's selector too.

    Raises ValueError as it does, and for another selector or another use of the threshold.
    """
    names = ("selector", "embedding_size", "dynamic_threshold", "threshold_input")
    return _of_run(folder, config, ("classifier", "image_size", *names), "networks", seed, answers)


def _of_run(
    folder: str | os.PathLike[str],
    config: Config,
    names: tuple[str, ...],
    called: str,
    seed: int,
    answers: Sequence[str] | None,
) -> tuple[P2P, Config]:
    """A run's model, and the configuration with its colours, if the two agree in the settings of these names."""
    model = load(folder)
    _check_alike(str(folder), model.config, config, names, called)
    if answers is not None:
        if model.config.num_classes != len(answers):
            raise InputError(f"{folder} has {model.config.num_classes} classes, not {len(answers)}; {_AS_IT_IS}")
        if differ := other_classes(answers, load_class_names(folder)):
            raise InputError(f"{folder} has other classes than the data, {differ}; {_AS_IT_IS}")
    if model.config.num_classes != config.num_classes:
        state = jax.tree.map(lambda a: a, model.classifier)  # a copy of the structure, to put the head into
        head = "fc" if isinstance(config.classifier, ResNetConfig) else "head"
        state[head] = init(jax.random.key(seed), config).classifier[head]
        model = P2P(model.selector, state, dataclasses.replace(model.config, num_classes=config.num_classes))
    same = {name: getattr(model.config, name) for name in ("mean", "std", "fill")}
    return model, dataclasses.replace(config, **same)


def _check_alike(whose: str, theirs: Config, ours: Config, names: Sequence[str], called: str) -> None:
    wrong = [
        f"{name} is {getattr(theirs, name)}, not {getattr(ours, name)}"
        for name in names
        if getattr(theirs, name) != getattr(ours, name)
    ]
    if wrong:
        raise InputError(f"{whose} has not the configuration's {called}: {', '.join(wrong)}")


def teacher_of_run(folder: str | os.PathLike[str], config: Config, answers: Sequence[str]) -> State:
    """The classifier of a run as a teacher of this configuration and these classes (`fit(teacher=...)`).

    Raises ValueError for a folder that `p2p.load` does not read, and for one that sees images of another size or
    normalisation, answers other classes or is another network, listing what differs.
    """
    if read_record(local_folder(folder)).get("train", {}).get("select", False):
        raise InputError(
            f"{folder}: expected a classifier that was trained on whole images (--black-box), to teach what they show; "
            "this run's was trained on parts of them"
        )
    model, _ = _of_run(folder, config, _OF_TEACHER, _TO_TEACH, 0, answers)
    return model.classifier


def check_teacher(teacher: P2P, config: Config) -> None:
    """Raises ValueError for a teacher that is another network, or sees or answers otherwise, listing what differs."""
    _check_alike("the teacher", teacher.config, config, (*_OF_TEACHER, "num_classes"), _TO_TEACH)


def check_kept_selector(model: P2P, config: Config) -> None:
    """Raises ValueError where a selector that stays as it is is asked for shares that it was not trained to keep."""
    was = model.config
    if was.dynamic_threshold != config.dynamic_threshold:
        return  # other networks, as `start_from` says
    if config.dynamic_threshold:
        low, high = was.min_threshold, was.max_threshold
        if not low <= config.min_threshold <= config.max_threshold <= high:
            raise InputError(
                f"the selector that stays as it is was trained to keep {low:g} to {high:g} of the pixels; got the "
                f"thresholds {config.min_threshold:g} to {config.max_threshold:g}: choose them within its own, or train"
                " it too"
            )
    elif config.threshold > was.threshold or (config.threshold < was.threshold and not config.exact_budget):
        raise InputError(
            f"the selector that stays as it is was trained to keep {was.threshold:g} of the pixels; got the threshold "
            f"{config.threshold:g}: choose its own (or, with exact_budget, a lower one), or train it too"
        )


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
