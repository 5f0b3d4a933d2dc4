"""A classifier whose head knows some of its classes alone: how explanations depend on the number of classes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import numpy as np

from jaxmoxi.errors import InputError
from jaxmoxi.models.classifier import Classifier, Restriction


def restrict(model: Classifier, classes: Iterable[int | str]) -> Classifier:
    """The same classifier with its head restricted to some of its classes: their logits alone, in the order given.

    model:   a Classifier; one that is restricted already can be restricted further.
    classes: indices or names (`Classifier.find_class`) of `model`'s classes, each once; at least two, or one of a model
             of independent labels.

    Class i of the result is `classes[i]`, `class_names` are theirs, and probabilities are over them alone: an image of
    another class is given one of these. Weights are shared, not copied; `restriction` tells which classes of the
    network's own head there are. Nothing is trained: a network trained for these classes alone would differ.
    Source: MoXI's paper (Sumiyasu et al., CVPR 2024), section 5.4, compares networks of few and many classes.

    Raises ValueError for a class that is not the model's, one that is repeated, and too few.
    """
    if isinstance(classes, str):
        raise InputError(f"expected several classes; got {classes!r}")
    given = list(classes)
    if any(isinstance(c, bool) or not isinstance(c, int | np.integer | str) for c in given):
        raise InputError(f"expected classes by index or name; got {given!r}")
    found = [model.find_class(c) for c in given]
    if repeated := sorted({c for c in found if found.count(c) > 1}):
        raise InputError(f"expected each class once; got {repeated[0]} ({model.class_names[repeated[0]]}) again")
    least = 1 if model.link == "sigmoid" else 2
    if len(found) < least:
        raise InputError(f"expected at least {least} classes to choose between; got {len(found)}")
    if found == list(range(len(model.class_names))):
        return model
    before = model.restriction or Restriction(tuple(range(len(model.class_names))), model.class_names)
    return dataclasses.replace(
        model,
        class_names=tuple(model.class_names[c] for c in found),
        restriction=Restriction(tuple(before.classes[c] for c in found), before.class_names),
    )
