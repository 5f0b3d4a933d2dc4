"""One photo with removals that are searched, and removals that judge what was found.

`boxes.csv` has boxes of the objects in some of the photos, marked by eye as shares of the photo's width and height:
those whose class is one thing, or a few, in a part of the photo.
"""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from _search.cases import Case, cases
from PIL import Image

import jaxmoxi as jm
from jaxmoxi import search
from jaxmoxi.metrics import box_mask, crop_boxes

# Judges are other draws of the kinds that were searched, and kinds that no search saw. Four are searched of any model:
# where there are no tokens that can be absent, blur takes their place.
TOKENS = ("tokens", "mean", "noise", "photo"), ("zero", "blur", "inpaint")
PIXELS = ("mean", "noise", "photo", "blur"), ("zero", "inpaint")
PHOTOS = 4  # whose pixels the kind "photo" takes: so many for the search, others for the judges


@dataclasses.dataclass
class Judged(Case):
    """A photo as a game, with the games that are searched and those that judge; in each the whole image is answered.

    draws, strange: (kind, game) of other draws of the kinds searched, and of kinds that were not.
    """

    searched: list[Any]
    draws: list[tuple[str, Any]]
    strange: list[tuple[str, Any]]
    object: Any  # bool[H, W], the pixels in its boxes; None where nobody marked any

    def leads(self, groups: Any) -> Any:
        """bool[G, J], in which of the judges, the draws first, each of some groups [G, P] keeps the class."""
        held = search.stability([v for _, v in self.draws + self.strange], jnp.asarray(groups))
        assert held.leads is not None
        return np.asarray(held.leads)

    def shares(self, leads: Any) -> dict[str, Any]:
        """In which share of the judges the groups of `leads` keep the class: all, other draws, other kinds."""
        near, far = leads[:, : len(self.draws)], leads[:, len(self.draws) :]
        means = {"share": leads, "share_draws": near, "share_kinds": far}
        return {name: [round(float(x), 4) for x in told.mean(1)] for name, told in means.items() if told.size}

    def by_kind(self, leads: Any) -> dict[str, float]:
        """In which share of the judges of each kind one group, bool[J] of `leads`, keeps the class."""
        names = np.array([name for name, _ in self.draws + self.strange])
        return {str(name): round(float(leads[names == name].mean()), 4) for name in dict.fromkeys(names)}

    def held_searched(self, groups: Any) -> list[float]:
        """In which share of the removals searched each of some groups [G, P] keeps the class."""
        held = search.stability(self.searched, jnp.asarray(groups)).share
        return [round(float(x), 4) for x in np.asarray(held)]

    def inside(self, groups: Any) -> dict[str, Any]:
        """Which share of the pixels of each of some groups [G, P] lies on the object, where somebody marked it."""
        if self.object is None:
            return {}
        regions, groups = np.asarray(self.regions), np.asarray(groups, bool)
        of_player = np.bincount(regions.ravel(), np.asarray(self.object).ravel(), minlength=self.num_players)
        sizes = np.bincount(regions.ravel(), minlength=self.num_players)
        return {"inside": [round(float((g @ of_player) / max(g @ sizes, 1)), 4) for g in groups]}


def judged(
    name: str, images: Path, *, count: int, grid: int, always: bool, searched: int, unseen: int, seed: int
) -> Iterator[tuple[str, Judged]]:
    """The first `count` photos that the model classifies correctly, each with its games.

    searched: how many removals are searched. unseen: how many of either sort judge.
    A removal in which the model does not answer the class even for the whole image is left out.
    """
    for file, case in cases(name, images, count=count, grid=grid, always=always):
        lenders = lent(case.model, images, file)
        near, far = kinds_of(case.model)
        keys = jax.random.split(jax.random.fold_in(jax.random.key(seed), int(file[:7], 16)), 3)
        yield (
            file,
            Judged(
                **{field.name: getattr(case, field.name) for field in dataclasses.fields(case)},
                searched=[v for _, v in drawn(keys[0], case, near, searched, lenders[:PHOTOS])],
                draws=drawn(keys[1], case, near, unseen, lenders[PHOTOS:]),
                strange=drawn(keys[2], case, far, unseen, []),
                object=_object(case, images / file),
            ),
        )


def kinds_of(model: Any) -> tuple[Any, Any]:
    """(kinds that are searched, kinds that only judge)."""
    return PIXELS if model.token_grid is None else TOKENS


def lent(model: Any, images: Path, file: str) -> list[Any]:
    """Photos of other classes, drawn by a photo's name, whose pixels the kind "photo" takes."""
    with open(images / "labels.csv", newline="") as f:
        rows = list(csv.DictReader(f))
    own = {row["index"] for row in rows if row["file"] == file}
    others = [row["file"] for row in rows if row["index"] not in own]
    chosen = np.random.default_rng(int(file[:7], 16)).choice(others, 2 * PHOTOS, replace=False)
    return [model.preprocess(Image.open(images / other)) for other in chosen]


def drawn(key: Any, case: Case, kinds: Sequence[Any], count: int, lenders: Sequence[Any]) -> list[tuple[str, Any]]:
    """(kind, game) of the removals in which the whole image is answered as it should be."""
    photos = lenders if "photo" in kinds else None
    games = jm.games.removals(
        key, case.model, case.image, case.target, case.regions, count=count, kinds=kinds, photos=photos
    )
    whole = jnp.ones((1, case.num_players), bool)
    return [(kinds[i % len(kinds)], v) for i, v in enumerate(games) if bool(v.leads(whole)[0])]


def _object(case: Case, photo: Path) -> Any:
    """bool[H, W], the pixels of the image that lie in the boxes of a photo; None where nobody marked any."""
    with open(Path(__file__).with_name("boxes.csv"), newline="") as f:
        found = [
            [float(row[x]) for x in ("x0", "y0", "x1", "y1")] for row in csv.DictReader(f) if row["file"] == photo.name
        ]
    if not found:
        return None
    with Image.open(photo) as opened:
        width, height = opened.size
    boxes = np.array(found) * [width, height, width, height]
    seen = crop_boxes(boxes, (height, width), case.model.preprocessing)
    return box_mask(case.image.shape[0], case.image.shape[1], seen)
