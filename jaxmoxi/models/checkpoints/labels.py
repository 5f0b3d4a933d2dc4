"""What a `config.json` says of a network's logits: the names of the classes, and what the logits were trained for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from jaxmoxi.errors import InputError
from jaxmoxi.models.classifier import imagenet_classes


def read_link(settings: Mapping[str, Any], count: int, path: Path) -> Literal["softmax", "sigmoid"]:
    """What the logits were trained for, by Hugging Face's `problem_type`: "softmax" where the file is silent.

    count: the number of logits. path: the `config.json`, for errors.
    Raises ValueError for a regression, for a problem that is not known, and for a single logit whose softmax would
    always be 1.
    """
    problem = settings.get("problem_type")
    if problem == "multi_label_classification":
        return "sigmoid"
    if problem == "regression":
        raise InputError(
            f"{path}: expected a classifier; got problem_type 'regression', whose outputs are numbers and not classes: "
            "give a function of your own to pixel_value_fn"
        )
    if problem not in (None, "single_label_classification"):
        raise InputError(
            f"{path}: expected problem_type single_label_classification or multi_label_classification; got {problem!r}"
        )
    if count == 1:
        raise InputError(
            f"{path}: expected at least two classes, or the problem_type multi_label_classification; got one logit, "
            "whose softmax is always 1. If a sigmoid of it is the probability of the one class, set problem_type to "
            "multi_label_classification"
        )
    return "softmax"


def read_class_names(settings: Mapping[str, Any], count: int, path: Path) -> tuple[str, ...]:
    """A name for each of `count` classes, from Hugging Face's `id2label` or timm's `label_names`."""
    labels = settings.get("id2label")
    if labels is None:
        labels = settings.get("label_names")
    if isinstance(labels, Mapping) and len(labels) == count:
        names = {int(k): str(v) for k, v in labels.items()}
        if set(names) != set(range(count)):
            raise InputError(f"{path}: expected id2label to name the classes 0 .. {count - 1}")
        return tuple(names[i] for i in range(count))
    if isinstance(labels, list) and len(labels) == count:
        return tuple(map(str, labels))
    if count == 1000:
        return imagenet_classes()
    return tuple(f"class {i}" for i in range(count))
