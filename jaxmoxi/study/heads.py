"""Heads of few and many classes from one network: the models of a study of how explanations depend on that number."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from etils import epath

from jaxmoxi.errors import InputError, warn
from jaxmoxi.models.classifier import Classifier
from jaxmoxi.models.restriction import restrict
from jaxmoxi.study.classes import agreed_names
from jaxmoxi.study.config import StudyConfig
from jaxmoxi.study.photos import chosen_photos, find_listed


def restricted_heads(
    photos: epath.PathLike, models: Mapping[str, Classifier], counts: Sequence[int], config: StudyConfig
) -> dict[str, Classifier]:
    """Each model with its head restricted to so many classes, by names such as "deit, 10 classes"; for `run_study`.

    photos, config: of the study: its photos tell which classes come first, and its seed draws the others.
    models:         of the same classes, none of them restricted.
    counts:         of classes, each once, from 2 (1 for independent labels) to all K.

    The classes of a head are first those that the photos show, the most frequent first, then others drawn at random;
    a larger head has all classes of a smaller one. Photos of a class that a head does not have are left out under it,
    which a warning and the report tell.
    Raises ValueError for counts that cannot be, models of different classes, and photos without labels.
    """
    if any(model.restriction for model in models.values()):
        raise InputError("expected models with their whole heads, to restrict them alike")
    names = agreed_names(models)
    total = len(names)
    for count in counts:
        if isinstance(count, bool) or not 2 <= count <= total or list(counts).count(count) > 1:
            raise InputError(f"expected numbers of classes from 2 to the model's {total}, each once; got {count}")
    listed = chosen_photos(find_listed(photos, names, need_labels=True).photos, config.num_photos)
    labels = [photo.label for photo in listed if photo.label >= 0]
    if not labels:
        raise InputError(f"{photos} does not tell what its photos show, which decides the classes of a restricted head")
    shown = [label for label, _ in sorted(Counter(labels).items(), key=lambda c: (-c[1], c[0]))]
    others = sorted(set(range(total)) - set(shown))
    order = shown + np.random.default_rng(config.seed).permutation(others).astype(int).tolist()
    for count in sorted(counts):
        kept = set(order[:count])
        if lost := sum(label not in kept for label in labels):
            warn(
                f"heads of {count} classes leave out {lost} of {len(labels)} photos, which show {len(shown)} classes: "
                "those of the least frequent ones"
            )
    return {
        f"{name}, {count} classes": restrict(model, sorted(order[:count]))
        for name, model in models.items()
        for count in counts
    }
