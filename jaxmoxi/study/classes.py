"""Whether models answer the same classes, whatever their publishers call them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

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
    (first, names), *others = [(n, (m.restriction or m).class_names) for n, m in models.items()]
    nameless = [name for name, model in models.items() if not any(map(_said, _numbered(model)))]
    for other, theirs in others:
        if len(theirs) != len(names):
            raise InputError(
                f"expected models of the same classes; {first} has {len(names)} and {other} {len(theirs)}. To compare "
                "them on some of their classes, restrict both to those (jaxmoxi.models.restrict)"
            )
        for i, (a, b) in enumerate(zip(names, theirs, strict=True)):
            if _said((i, a)) and _said((i, b)) and not _synonyms(a).keys() & _synonyms(b).keys():
                raise InputError(
                    f"expected models of the same classes; class {i} is {a[:80]!r} of {first} and {b[:80]!r} of "
                    f"{other}. If they are the same, give both one set of names (id2label in config.json)"
                )
        names = tuple(_merged(i, a, b) for i, (a, b) in enumerate(zip(names, theirs, strict=True)))
    if 0 < len(nameless) < len(models):
        named = next(name for name in models if name not in nameless)
        warn(f"{', '.join(nameless)}: classes without names, taken by their numbers for those of {named}")
    return names


def _numbered(model: Classifier) -> Iterator[tuple[int, str]]:
    return enumerate((model.restriction or model).class_names)


def _said(numbered: tuple[int, str]) -> bool:
    """Whether a class's name is more than its number."""
    number, name = numbered
    return re.fullmatch(rf"((class|label)[ _]?)?0*{number}", name.strip().lower()) is None


def _merged(number: int, a: str, b: str) -> str:
    """One name with the synonyms of both; the first one's come first."""
    if a == b or not _said((number, b)):
        return a
    if not _said((number, a)):
        return b
    return ", ".join((_synonyms(a) | {k: v for k, v in _synonyms(b).items() if k not in _synonyms(a)}).values())


def _synonyms(name: str) -> dict[str, str]:
    """A name's synonyms, by what they are compared by; without a WordNet identifier in front."""
    texts: Sequence[str] = (re.sub(r"^n[0-9]{8}[ _]+", "", name.strip())).split(",")
    return {folded(text): text.strip() for text in texts if text.strip()}
