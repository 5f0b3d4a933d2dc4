"""What a `config.json` says of a network's logits: the names of the classes, and what the logits were trained for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from jaxmoxi.errors import InputError, warn
from jaxmoxi.models.checkpoints.torch_pickle import brief
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
            f"{path}: expected problem_type single_label_classification or multi_label_classification; got "
            f"{brief(repr(problem))}"
        )
    if count == 1:
        raise InputError(
            f"{path}: expected at least two classes, or the problem_type multi_label_classification; got one logit, "
            "whose softmax is always 1. If a sigmoid of it is the probability of the one class, set problem_type to "
            "multi_label_classification"
        )
    return "softmax"


def read_class_names(settings: Mapping[str, Any], count: int, path: Path) -> tuple[str, ...]:
    """A name for each of `count` classes, from Hugging Face's `id2label` or timm's `label_names`.

    A thousand classes without names get ImageNet's, with a warning where nothing says that they are ImageNet's.
    Raises ValueError for names that are not one for each class.
    """
    cfg = settings.get("pretrained_cfg")
    cfg = cfg if isinstance(cfg, Mapping) else {}
    keys = ("id2label", "label_names", "labels")
    key, labels = next(((k, s[k]) for s in (settings, cfg) for k in keys if s.get(k) is not None), ("", None))
    if labels is not None:
        names = _names(labels, key, path)
        if len(names) != count:
            raise InputError(f"{path}: {key} names {len(names)} classes, the weights have {count}; correct one of them")
        return names
    if count == 1000:
        architecture = str(settings.get("architecture") or "")
        tags = (architecture.partition(".")[2], str(cfg.get("tag") or ""))
        if not any("in1k" in tag for tag in tags):
            warn(
                f"{path} names none of the 1000 classes, which are taken for those of ImageNet-1k in their usual "
                "order; if they are others, add id2label to it",
                UserWarning,
            )
        return imagenet_classes()
    return tuple(f"class {i}" for i in range(count))


def _names(labels: Any, key: str, path: Path) -> tuple[str, ...]:
    if isinstance(labels, Mapping):
        try:
            by_index = {int(k): name for k, name in labels.items()}
        except (TypeError, ValueError):
            raise InputError(
                f"{path}: expected {key} to have whole numbers as keys; got {brief(list(labels))}"
            ) from None
        if by_index.keys() != set(range(len(labels))):
            raise InputError(f"{path}: expected {key} to name the classes 0 .. {len(labels) - 1}")
        labels = [by_index[i] for i in range(len(by_index))]
    if not isinstance(labels, list | tuple):
        raise InputError(f"{path}: expected {key} to be names by class; got {brief(repr(labels))}")
    for name in labels:
        if isinstance(name, bool) or not isinstance(name, str | int | float):
            raise InputError(f"{path}: expected a name for every class in {key}; got {brief(repr(name))}")
    return tuple(_as_text(str(name)) for name in labels)


def _as_text(name: str) -> str:
    """The name as text that can be encoded: halves of characters, which JSON's escapes can spell, are spelt out."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")
