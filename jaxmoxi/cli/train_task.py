"""What `jaxmoxi train` is asked for: its options checked, and made into a model, its training and its data."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from jaxmoxi.cli.shared import CommandError, one_line
from jaxmoxi.cli.train_data import sources
from jaxmoxi.errors import warn

if TYPE_CHECKING:  # flax and its networks take seconds to import, and no other command needs them
    from jaxmoxi.cli.train import Train
    from jaxmoxi.p2p import P2P, Config, TrainConfig
    from jaxmoxi.p2p.data import Source
    from jaxmoxi.p2p.model import State


_TEACHER_WEIGHT = 0.5
_COMPARED_SHARE = 0.2  # of the pixels, of the methods that P2P is compared with; COMET's own


class Task(NamedTuple):
    """The checked inputs.

    config, train: what the model is, and how it is trained.
    data, test:    what it is trained on, and what the trained model is judged by.
    classifier:    the weights to start from, of the classifier or of both networks, or None.
    teacher:       the classifier of whole images that teaches the one that is trained, or None.
    """

    config: Config
    train: TrainConfig
    data: Source
    test: Source
    classifier: P2P | State | None
    teacher: State | None = None


def prepare(options: Train) -> Task:
    """What the options name, checked before anything long starts."""
    from jaxmoxi.p2p.arrays import local_folder
    from jaxmoxi.p2p.checkpoint import read_record
    from jaxmoxi.p2p.data import Subset
    from jaxmoxi.p2p.ranges import check_same_classes
    from jaxmoxi.p2p.training.methods import for_method
    from jaxmoxi.p2p.training.presets import CLASSIFIERS, PRESETS
    from jaxmoxi.p2p.training.pretrained import (
        classifier_of_run,
        is_run,
        model_of_run,
        pretrained_classifier,
        teacher_of_run,
    )

    _check(options)
    kind = options.data.partition(":")[0]
    preset = PRESETS[options.preset or (kind if kind in PRESETS else "imagenet")]
    config, train = preset()
    if options.epochs is not None:  # the same share of the epochs is on whole images
        whole = train.whole_epochs * options.epochs // train.num_epochs
        train = dataclasses.replace(train, num_epochs=options.epochs, whole_epochs=whole)
    changes = _typed(options, config)
    if options.classifier is not None:
        changes["classifier"] = CLASSIFIERS[options.classifier]
    if options.threshold is not None:
        changes["dynamic_threshold"] = False
    with one_line():
        config = dataclasses.replace(config, **changes)
        if options.black_box and options.method not in (None, "blackbox"):
            raise CommandError(f"--black-box is --method blackbox; --method is {options.method}: leave one out")
        method: dict[str, Any] = {"method": "blackbox"} if options.black_box else {}
        if options.freeze_selector and options.whole_epochs is None:
            method["whole_epochs"] = 0
        if options.teacher is not None and options.teacher_weight is None:
            method["teacher_weight"] = _TEACHER_WEIGHT
        if options.anneal is False:
            method["growth"] = "linear"  # a preset's growth is none without
        train = dataclasses.replace(train, **_typed(options, train) | method)
        if options.threshold is None and train.method not in ("p2p", "blackbox"):
            config = dataclasses.replace(config, threshold=_COMPARED_SHARE)
    with one_line("--data: "):
        data, test = sources(
            options.data, image_size=config.image_size, num_scenes=options.num_scenes, seed=options.seed
        )
        check_same_classes(data.class_names, test.class_names, "test")
    classifier = teacher = None
    with one_line():
        if len(data.class_names) < 2:
            raise CommandError(
                f"--data {options.data} has one class, {', '.join(data.class_names)}; expected two or more"
            )
        config = dataclasses.replace(config, num_classes=len(data.class_names))
        frozen = train.method in ("comet", "comet-inverse") and not train.whole_epochs
        answers = data.class_names if frozen else None
        if options.preprocessing is not None and options.init is None:
            raise CommandError("--preprocessing needs --init, whose images it describes")
        if options.init is not None and is_run(options.init):
            if options.preprocessing is not None:
                raise CommandError("--preprocessing is about a checkpoint folder; --init names a run: leave it out")
            take, config = (
                (model_of_run, for_method(config, train.method))
                if options.init_selector
                else (classifier_of_run, config)
            )
            was = read_record(local_folder(options.init)).get("train", {})
            if options.freeze_selector and was.get("select") is False:
                raise CommandError(f"--freeze-selector: {options.init} is a black box, whose selector learned nothing")
            if frozen and was.get("method") in ("comet", "comet-inverse"):
                warn(
                    f"--init {options.init}: what stays frozen is now the classifier that this run trained through its "
                    "masks; for one of whole images start from the black box that it started from"
                )
            classifier, config = take(options.init, config, seed=options.seed, answers=answers)
        elif options.init_selector:
            raise CommandError("--init-selector needs an --init that names a run, which has a selector")
        elif options.init is None and frozen:
            raise CommandError(
                f"--method {train.method} needs a trained classifier of whole images, which stays frozen: give --init, "
                "or train it first with --whole-epochs"
            )
        elif options.init is not None:
            classifier, config = pretrained_classifier(
                options.init, config, seed=options.seed, preprocessing=options.preprocessing, answers=answers
            )
        if options.teacher is not None:
            teacher = teacher_of_run(options.teacher, config, data.class_names)
    if options.test_images is not None:
        if not 0 < options.test_images <= len(test):
            raise CommandError(f"--test-images: expected 1 to {len(test)}, the test images; got {options.test_images}")
        test = Subset(test, np.linspace(0, len(test) - 1, options.test_images).round().astype(int))
    return Task(config, train, data, test, classifier, teacher)


def _typed(options: Train, settings: Config | TrainConfig) -> dict[str, Any]:
    """The options that were typed and are settings by the same name. (A classifier is typed as the name of one.)"""
    names = {field.name for field in dataclasses.fields(settings)} - {"classifier"}
    typed = {name: value for name, value in vars(options).items() if value is not None}
    return {name: typed[name] for name in names & typed.keys()}


_SELECTORS = ("p2p", "real-x", "comet", "comet-inverse")  # methods that train a selector
_MEANING = {  # what options are about, and the methods to which that means something
    "straight_through": ("how P2P samples its masks", ("p2p",)),
    **dict.fromkeys(
        ("threshold_input", "exact_budget", "certainties", "certainty", "max_threshold"), ("P2P's thresholds", ("p2p",))
    ),
    **dict.fromkeys(
        ("selector", "init_selector", "selector_rate", "anneal", "logit_weight", "regulariser_weight"),
        ("what a selector learns", _SELECTORS),
    ),
    **dict.fromkeys(
        ("threshold", "fidelity_shares", "goal_share"), ("what is selected", (*_SELECTORS, "blackbox-pixel-mask"))
    ),
    "freeze_selector": ("P2P's masks", ("p2p",)),
    **dict.fromkeys(("teacher", "teacher_weight"), ("what P2P's classifier learns", ("p2p",))),
    "whole_epochs": ("epochs before those that select", (*_SELECTORS, "blackbox-pixel-mask")),
}


_OF_SELECTING = ("straight_through", "selector_rate", "anneal", "logit_weight", "regulariser_weight")


def _check_used(options: Train) -> None:
    """Refuses an option that was typed and would change nothing."""
    method = "blackbox" if options.black_box else options.method or "p2p"
    typed = [name for name in _MEANING if getattr(options, name) != getattr(type(options), name)]
    for name in typed:
        about, methods = _MEANING[name]
        if method not in methods:
            raise CommandError(
                f"--{name.replace('_', '-')} is about {about}; --method {method} does nothing with it: leave one out"
            )
    for name in _OF_SELECTING if options.freeze_selector else ():
        if name in typed:
            raise CommandError(
                f"--{name.replace('_', '-')} is about what a selector learns; --freeze-selector leaves it as it is: "
                "leave one out"
            )
    if method == "p2p" and options.threshold is not None:
        for name in ("certainties", "certainty", "max_threshold"):
            if name in typed:
                raise CommandError(
                    f"--{name.replace('_', '-')} is about the share of the pixels that each image needs; --threshold "
                    f"{options.threshold:g} gives all the same: leave one out"
                )


def _check(options: Train) -> None:
    for name in ("epochs", "batch_size", "learning_rate", "num_scenes", "max_minutes"):
        value = getattr(options, name)
        if value is not None and not value > 0:
            raise CommandError(f"--{name.replace('_', '-')}: expected a number above 0; got {value}")
    levels = options.certainties
    if levels is not None and not (levels and all(0 < level <= 1 for level in levels)):
        raise CommandError(f"--certainties: expected probabilities in (0, 1], such as 0.9; got {levels}")
    _check_used(options)
    if options.freeze_selector and not options.init_selector:
        raise CommandError(
            "--freeze-selector keeps a selector that selects already: give --init RUN, whose it is, and --init-selector"
        )
    if options.teacher_weight is not None:
        if options.teacher is None:
            raise CommandError("--teacher-weight needs --teacher, the run whose answers are learned")
        if not 0 < options.teacher_weight <= 1:
            raise CommandError(f"--teacher-weight: expected a share above 0, up to 1; got {options.teacher_weight}")
    shares = options.fidelity_shares
    if shares is not None and not (shares and all(0 <= share <= 1 for share in shares)):
        raise CommandError(f"--fidelity-shares: expected shares of the pixels in [0, 1], such as 0.1; got {shares}")
    if options.num_scenes is not None and options.data != "scenes":
        raise CommandError(
            f"--num-scenes is about synthetic scenes; --data {options.data} brings its own images: leave one out"
        )
