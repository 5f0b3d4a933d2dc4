"""What a study asks: its methods, metrics and game, and how much work each part may take."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Collection, Sequence
from typing import Literal, get_args

import jax
import numpy as np

from jaxmoxi.attribution import METHODS, Effort
from jaxmoxi.errors import InputError
from jaxmoxi.games.payoff import Payoff
from jaxmoxi.games.removal import Removal
from jaxmoxi.metrics import METRICS
from jaxmoxi.models.classifier import Classifier
from jaxmoxi.regions.spec import parse_regions
from jaxmoxi.study.photos import Photo

Target = Literal["label", "prediction"]
Share = Literal["pixels", "players"]


@dataclasses.dataclass(frozen=True)
class StudyConfig:
    """The settings that decide what a study's tables hold. The study's folder keeps them, and every run compares.

    methods:    names of `jaxmoxi.attribution.METHODS`, by default all but "robust", whose price is told before a study
                begins. Methods that do not apply to a model are left out for it.
    metrics:    names of `jaxmoxi.metrics.METRICS`: "curves" (insertion, deletion, smallest group to flip, highest
                confidence), "agreement" (of each order with MoXI's), "localisation" (of photos with boxes or masks),
                "road" (imputation, which no method optimises), "corruption" (players corrupted instead of hidden),
                "adversarial" (patches found by PGD), and the others that are listed there.
    regions:    the players: "grid:RxC" or "slic:N".
    masking:    how the game that methods play hides players: "tokens", "zero", "mean", "blur"; None: "tokens" where the
                model has them, else "zero".
    removals:   how the curves' games hide players, "tokens" only for models that have them; None: as `masking`.
    payoff:     of `jaxmoxi.payoff_values`.
    target:     the class explained: "label" or "prediction".
    only_correct: leaves out photos whose label the model does not answer.
    steps:      how many players MoXI chooses one by one before the rest follow in eight rounds; None: all.
    samples:    evaluations that each sampling method may use for a photo, at least 2.
    sizes:      at about how many group sizes curves are measured; None: at all P + 1.
    share:      what the horizontal axis of curves counts, and so what their areas are over: "pixels" of the image, or
                "players". The two differ where players differ in size, as superpixels do; there an area over players
                rewards an order for naming large players first.
    seed:       of everything random. A photo's numbers do not depend on the other photos.
    num_photos: only so many photos, spread evenly over the list; None: all.

    Raises ValueError for settings that cannot be.
    """

    methods: tuple[str, ...] = dataclasses.field(default_factory=lambda: _default_methods())
    metrics: tuple[str, ...] = dataclasses.field(default_factory=lambda: _default_metrics())
    regions: str = "grid:14x14"
    masking: Removal | None = None
    removals: tuple[Removal, ...] | None = None
    payoff: Payoff = "log_odds"
    target: Target = "label"
    only_correct: bool = False
    steps: int | None = None
    samples: int = 2000
    sizes: int | None = None
    share: Share = "pixels"
    seed: int = 0
    num_photos: int | None = None

    def __post_init__(self):
        _among("methods", self.methods, METHODS)
        _among("metrics", self.metrics, METRICS)
        _among("removals", ("zero",) if self.removals is None else self.removals, get_args(Removal))
        _among("masking", (self.masking or "zero",), get_args(Removal))
        _among("target", (self.target,), get_args(Target))
        _among("share", (self.share,), get_args(Share))
        parse_regions(self.regions)
        for name, least in (("steps", 1), ("samples", 2), ("sizes", 2), ("num_photos", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise InputError(f"{name} must be at least {least}; got {value}")
        if not 0 <= self.seed < 2**32:
            raise InputError(f"expected a seed in 0 .. 2**32 - 1; got {self.seed}")
        for name in self.metrics:
            if missing := [method for method in METRICS[name].methods if method not in self.methods]:
                raise InputError(
                    f'the metric "{name}" needs the method "{missing[0]}"; add it, or leave the metric out'
                )

    def effort(self, num_players: int, *, batch_size: int | None = None) -> Effort:
        """How much work each method may do on a photo of so many players."""
        return Effort(num_players, self.samples, self.steps, batch_size)

    def curve_sizes(self, num_players: int) -> list[int]:
        """The group sizes at which curves are measured, ascending from 0 to P.

        Fewer sizes than all lie densely at both ends, where small groups decide, and evenly in between.
        """
        if self.sizes is None or self.sizes > num_players:
            return list(range(num_players + 1))
        t = np.linspace(-1, 1, self.sizes)
        places = 0.5 + 0.5 * np.sign(t) * (1 - (1 - np.abs(t)) ** 1.7)
        return sorted({round(p * num_players) for p in places} | {0, num_players})


def _among(name: str, values: Sequence[str], allowed: Collection[str]) -> None:
    if not values:
        raise InputError(f"expected at least one of {', '.join(allowed)} as {name}; got none")
    unknown = [value for value in values if value not in allowed]
    if unknown:
        raise InputError(f"expected {name} among {', '.join(allowed)}; got {', '.join(map(repr, unknown))}")
    if len(set(values)) < len(values):
        raise InputError(f"{name} names {', '.join(v for v in set(values) if values.count(v) > 1)} twice")


def fingerprint(model: Classifier, photos: Sequence[Photo]) -> dict[str, str]:
    """Hashes of what else a study's numbers depend on.

    These are the model (its weights, architecture, preprocessing and classes) and the list of photos.
    """
    known = (model.config, model.preprocessing, model.class_names)
    weights = hashlib.sha256(repr(known if model.restriction is None else (*known, model.restriction)).encode())
    for leaf in jax.tree.leaves(model):
        array = np.asarray(leaf)
        weights.update(f"{array.dtype}{array.shape}".encode())
        weights.update(array.tobytes())
    listed = hashlib.sha256(json.dumps(photos).encode())
    return {"weights": weights.hexdigest()[:16], "photos": listed.hexdigest()[:16]}


def _default_methods() -> tuple[str, ...]:
    return tuple(name for name, method in METHODS.items() if method.by_default)


def _default_metrics() -> tuple[str, ...]:
    return tuple(name for name, metric in METRICS.items() if metric.by_default)


def paper() -> StudyConfig:
    """The comparison of MoXI's paper: 14 x 14 players, insertion and deletion, all methods that apply, and ROAD.

    Command:  jaxmoxi study PHOTOS --preset paper --model DEIT --model EFFICIENTNET --out study
    A ViT has tokens removed, a CNN has pixels set to zero. The label is explained. Only photos that the model
    classifies correctly are used. A full MoXI order costs 19,306 evaluations for each photo and direction.
    """
    wanted = {*_default_metrics(), "road"}
    return StudyConfig(metrics=tuple(name for name in METRICS if name in wanted), only_correct=True)


def quick() -> StudyConfig:
    """The same question for two CPU cores, in at most about a minute a photo for a network as small as the demo's.

    7 x 7 players. MoXI chooses its first 5 one by one and takes the rest in rounds. Sampling methods have 150
    evaluations for each photo. Curves are measured at about 17 sizes. ROAD, whose imputation takes as long as all the
    curves, is left out. In all, about 1,900 evaluations a photo.

    Command:  jaxmoxi study PHOTOS --preset quick --model FOLDER --out study
    """
    return StudyConfig(
        metrics=_default_metrics(), regions="grid:7x7", only_correct=True, steps=5, samples=150, sizes=17
    )


PRESETS = {"paper": paper, "quick": quick}
