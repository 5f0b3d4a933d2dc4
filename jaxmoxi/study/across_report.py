"""What a report says of several models: agreement of their orders, and one model's orders under another's game."""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxmoxi.escape import markdown, printable, shorten
from jaxmoxi.study import across
from jaxmoxi.study.records import Measured
from jaxmoxi.study.store import Study

Rows = Sequence[tuple[str, Mapping[str, Sequence[float]]]]  # (name of the row, method -> numbers of the photos)


def made_of(study: Study) -> str:
    """A hash of what the section follows from, beside the shards."""
    return across.contents_hash(study.out)


def section(study: Study, unfinished: str) -> list[str]:
    """The section of the report, as Markdown; nothing for one model. unfinished: what marks what is not done."""
    if len(study.settings) < 2:
        return []
    photos = across.measured_photos(study)
    lines = ["## Across models", ""]
    if not photos:
        return ["\n".join([*lines, "No photo is measured under two of the models.", ""])]
    names = [markdown(shorten(printable(name), 80)) for name, _ in study.settings]
    methods = list(dict.fromkeys(m for models in photos.values() for of in models.values() for m in of.methods))
    lines += [
        f"{len(photos)} photos are measured under two models or more. Each row compares two models' orders of the same "
        "photos, by the same method: the mean over photos, and over insertion and deletion.",
        "",
        *_caveats(study, names),
        *_agreement(study, photos, names, methods),
        *_transfer(study, photos, names, methods, unfinished),
    ]
    return ["\n".join(lines)]


def _caveats(study: Study, names: Sequence[str]) -> list[str]:
    """What keeps models from being compared, or makes the comparison less than it seems."""
    settings = [setting for _, setting in study.settings]
    lines = []
    seen = _alike(names, [across.geometry(setting) for setting in settings])
    if len(seen) > 1:
        pairs = itertools.combinations(settings, 2)
        lines.append(
            f"Photos are cut or resized in {len(seen)} ways: for {'; for '.join(seen)}. "
            + (
                "A player is the same place of what each model sees, not quite the same part of the photo."
                if all(across.same_players(a, b) for a, b in pairs)
                else "Where that makes other superpixels, models are not compared."
            )
        )
    hidden = _alike(names, [setting.masking for setting in settings])
    if len(hidden) > 1:
        told = "; ".join(f"{masking} of {who}" for who, masking in hidden.items())
        lines.append(f"What stands for hidden players differs: {told}.")
    return [text for line in lines for text in (line, "")]


def _alike(names: Sequence[str], of: Sequence[Hashable]) -> dict[str, Any]:
    """Who has the same, in the order of the models: "A and B" -> what they have."""
    whose: dict[Hashable, list[str]] = {}
    for name, has in zip(names, of, strict=True):
        whose.setdefault(has, []).append(name)
    return {" and ".join(who): has for has, who in whose.items()}


def _agreement(
    study: Study, photos: Mapping[int, Mapping[int, Measured]], names: Sequence[str], methods: Sequence[str]
) -> list[str]:
    quantities = ["Rank correlation (Spearman)"]
    quantities += [f"First {share:.0%} of the players, intersection over union" for share in across.TOPS]
    rows: list[list[tuple[str, dict[str, list[float]]]]] = [[] for _ in quantities]
    sizes: set[int] = set()
    for a, b in itertools.combinations(range(len(names)), 2):
        found: list[dict[str, list[float]]] = [{} for _ in quantities]
        if across.same_players(study.settings[a][1], study.settings[b][1]):
            for models in photos.values():
                if a in models and b in models and models[a].orders.shape[-1] == models[b].orders.shape[-1]:
                    sizes.add(models[a].orders.shape[-1])
                    for method, one, other in across.common_methods(models[a], models[b]):
                        alike = across.agreement(one, other)
                        for at, number in zip(found, (alike.correlation, *alike.overlaps), strict=True):
                            at.setdefault(method, []).append(number)
        for at, of in zip(rows, found, strict=True):
            at.append((f"{names[a]} and {names[b]}", of))
    lines = []
    for i, (title, of) in enumerate(zip(quantities, rows, strict=True)):
        chance = "0"
        if i and sizes:
            shares = [_chance(across.top_count(across.TOPS[i - 1], players), players) for players in sizes]
            chance = f"{np.mean(shares):.2f}"
        lines += _table(f"{title}; unrelated orders: {chance}", "models", of, methods)
    return lines


def _chance(count: int, players: int) -> float:
    """The expected intersection over union of two random groups of so many players, nearly."""
    both = count * count / players
    return both / (2 * count - both)


def _transfer(
    study: Study,
    photos: Mapping[int, Mapping[int, Measured]],
    names: Sequence[str],
    methods: Sequence[str],
    unfinished: str,
) -> list[str]:
    found = across.transfers(study, photos)
    lines = []
    if len(found) < len(photos):
        lines = [
            f"{unfinished}: of {len(found)} of these photos one model's orders are evaluated under another's game. The "
            "same command goes on.",
            "",
        ]
    lines += [
        f"One model's orders under another's game, at {across.POINTS} sizes each, which may be fewer than in the "
        "tables above: areas over the same axis, but coarser.",
        "",
    ]
    for d, title in ((0, "Insertion (higher is better)"), (1, "Deletion (lower is better)")):
        rows: dict[tuple[int, int], dict[str, list[float]]] = {}
        for row in itertools.chain.from_iterable(found.values()):
            if row.direction == d:
                rows.setdefault((row.game, row.order), {}).setdefault(row.method, []).append(row.area)
        named = [
            (f"{names[game]}, its own order" if game == order else f"{names[game]}, order of {names[order]}", of)
            for (game, order), of in sorted(rows.items(), key=lambda r: (r[0][0], r[0][0] != r[0][1], r[0][1]))
        ]
        lines += _table(
            f"{title}: area under the probability of one model's order under a game", "game", named, methods
        )
    return lines


def _table(title: str, first: str, rows: Rows, methods: Sequence[str]) -> list[str]:
    """A table of means over photos, a column for each method, a row for each pair."""
    lines = [
        f"### {title}",
        "",
        f"| {first} | photos | {' | '.join(methods)} |",
        f"| --- | ---: |{' ---: |' * len(methods)}",
    ]
    for name, of in rows:
        count = max(map(len, of.values()), default=0)
        cells = [_mean(of.get(method, ())) for method in methods]
        lines.append(f"| {name} | {count} | {' | '.join(cells)} |")
    return [*lines, ""]


def _mean(values: Sequence[float]) -> str:
    known = [value for value in values if not np.isnan(value)]
    if not known:
        return ""
    if len(known) == 1:  # no interval of one
        return f"{known[0]:.3f}"
    half = 1.96 * np.std(known, ddof=1) / np.sqrt(len(known))
    return f"{np.mean(known):.3f} ± {half:.3f}"
