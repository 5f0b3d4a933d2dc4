"""Whether models answer the same classes, whatever their publishers call them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from jaxmoxi.errors import InputError, warn
from jaxmoxi.models.classifier import Classifier
from jaxmoxi.study.photos import folded


def agreed_names(models: Mapping[str, Classifier]) -> tuple[str, ...]:
    """The names of the classes of several models, K, with every synonym that one of them has: "tench, Tinca tinca".

    Models are of the same classes where each class shares a synonym, whatever its case, or has no name ("class 3",
    "LABEL_3", "3") in one of them; of those without names a warning tells that they are taken by their numbers.
    Of a restricted head it is the names of the whole one.
    Raises ValueError that names the first class that differs, and two of the models.
    """
    if not models:
        raise InputError("expected at least one model; got none")
    lists = {name: (model.restriction or model).class_names for name, model in models.items()}
    (first, count), *others = ((name, len(of)) for name, of in lists.items())
    for other, found in others:
        if found != count:
            raise InputError(
                f"expected models of the same classes; {first} has {count} and {other} {found}. To compare them "
                "on some of their classes, restrict both to those (jaxmoxi.models.restrict)"
            )
    by_class = zip(*lists.values(), strict=True)
    names = tuple(_agreed(i, dict(zip(lists, of, strict=True))) for i, of in enumerate(by_class))
    nameless = [name for name, of in lists.items() if not any(map(_said, range(len(of)), of))]
    if 0 < len(nameless) < len(models):
        named = next(name for name in models if name not in nameless)
        warn(f"{', '.join(nameless)}: classes without names, taken by their numbers for those of {named}")
    return names


def _agreed(number: int, of: Mapping[str, str]) -> str:
    """What models call one class, with all synonyms. of: each model's name of it."""
    said = {model: name for model, name in of.items() if _said(number, name)}
    different = list(dict.fromkeys(said.values()))
    if len(different) < 2:
        return different[0] if different else next(iter(of.values()))
    known, *left = [(name, _synonyms(name)) for name in different]
    all_of = known[1]
    while near := [(name, synonyms) for name, synonyms in left if synonyms.keys() & all_of.keys()]:
        all_of = {**all_of, **{k: v for _, synonyms in near for k, v in synonyms.items() if k not in all_of}}
        left = [one for one in left if one not in near]
    if left:
        a, b = (next(model for model, name in said.items() if name == one) for one in (known[0], left[0][0]))
        raise InputError(
            f"expected models of the same classes; class {number} is {said[a][:80]!r} of {a} and {said[b][:80]!r} of "
            f"{b}. If they are the same, give both one set of names (id2label in config.json)"
        )
    return ", ".join(all_of.values())


def _said(number: int, name: str) -> bool:
    """Whether a class's name is more than its number."""
    return re.fullmatch(rf"((class|label)[ _]?)?0*{number}", name.strip().lower()) is None


def _synonyms(name: str) -> dict[str, str]:
    """A name's synonyms, by what they are compared by; without a WordNet identifier in front."""
    texts: Sequence[str] = (re.sub(r"^n[0-9]{8}[ _]+", "", name.strip())).split(",")
    return {folded(text): text.strip() for text in texts if text.strip()}
