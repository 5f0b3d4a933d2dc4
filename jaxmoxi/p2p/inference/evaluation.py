"""How accurate a P2P model is, how few pixels it sees, and whether they are the object's: one pass for all certainties.

Source of the measures: Vandenhirtz, Vogt, "From Pixels to Perception", ICML 2025, section 4 (accuracy against the share
of pixels selected, fidelity, localisation); the rest as in `metrics`.

Deviation from their code: the *hard* share, of the pixels that the classifier sees, is reported beside the expected
(soft) share that the training penalises.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float

from jaxmoxi.errors import InputError
from jaxmoxi.p2p.data.example import Batch, Source
from jaxmoxi.p2p.data.loader import Loader
from jaxmoxi.p2p.inference import metrics
from jaxmoxi.p2p.inference.batches import check_batch_size, check_images, check_masks
from jaxmoxi.p2p.inference.comparison import judge_pixels
from jaxmoxi.p2p.inference.fidelity import SHARES, Fidelity, agreements, check_shares
from jaxmoxi.p2p.inference.predict import Prediction, check_certainty, predict_levels
from jaxmoxi.p2p.model import P2P
from jaxmoxi.p2p.ranges import check_labels

_Level = Float[np.ndarray, "L"]


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What `evaluate` found for each of L certainties: float64[L], means over the images where nothing else is said.

    certainty:        the certainties asked for, in (0, 1]; None for a model of a fixed threshold, where L = 1.
    num_images:       number of images.
    accuracy:         share of the images that are classified correctly.
    auroc, aupr:      areas in [0, 1] for one class against the rest, mean over the classes.
    calibration_error: expected calibration error over 15 bins of the confidence, in [0, 1].
    brier:            squared distance to the one-hot label, in [0, 2].
    nll:              negative log likelihood, in nats.
    hard_share, soft_share: shares of the pixels that are kept, and kept in expectation, in [0, 1].
    threshold:        threshold found, in (0, 1].
    num_evaluations:  runs of the classifier that an image needs.
    precision, recall, iou, pixel_ap: the selected pixels against the object's, see `metrics.Localisation`; means over
                      the images where each is defined. None where no image has a mask.
    fidelity:         curves float[L, T]; None where no shares were asked for.

    Of a model whose masks are over pixels (`Config.masking`), and of a black box, L = 1 and both shares are the mean of
    the mask.
    """

    certainty: _Level | None
    num_images: int
    accuracy: _Level
    auroc: _Level
    aupr: _Level
    calibration_error: _Level
    brier: _Level
    nll: _Level
    hard_share: _Level
    soft_share: _Level
    threshold: _Level
    num_evaluations: _Level
    precision: _Level | None
    recall: _Level | None
    iou: _Level | None
    pixel_ap: _Level | None
    fidelity: Fidelity | None

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and lists, as JSON can hold them; NaN, where a measure is undefined, becomes None."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        if self.fidelity is not None:
            curves = {name: getattr(self.fidelity, name) for name in ("shares", "deletion", "insertion")}
            fields["fidelity"] = {name: _plain(np.round(x.astype(float), 6)) for name, x in curves.items()}
        return {name: _plain(x) for name, x in fields.items()}

    def table(self) -> str:
        """A Markdown table with a row for each certainty. Shares and accuracies are in percent."""
        columns: list[tuple[str, np.ndarray, str]] = [
            ("accuracy %", 100 * self.accuracy, ".1f"),
            ("pixels seen %", 100 * self.hard_share, ".1f"),
            ("expected %", 100 * self.soft_share, ".1f"),
            ("threshold", self.threshold, ".2f"),
            ("runs", self.num_evaluations, ".1f"),
            ("AUROC", self.auroc, ".3f"),
            ("AUPR", self.aupr, ".3f"),
            ("ECE", self.calibration_error, ".3f"),
            ("Brier", self.brier, ".3f"),
            ("NLL", self.nll, ".3f"),
        ]
        if self.certainty is not None:
            columns.insert(0, ("certainty", self.certainty, "g"))
        if self.precision is not None and self.recall is not None:
            columns += [
                ("on object %", 100 * self.precision, ".1f"),
                ("object seen %", 100 * self.recall, ".1f"),
                ("IoU", self.iou, ".3f"),
                ("pixel AP", self.pixel_ap, ".3f"),
            ]
        if self.fidelity is not None:
            for share in (0.1, 0.2):  # what is recovered from the pixels that are ranked first
                here = np.flatnonzero(self.fidelity.shares == np.float32(share))
                if len(here):
                    columns.append((f"from top {100 * share:g} %", 100 * self.fidelity.insertion[:, here[0]], ".1f"))
            reaches = len(self.fidelity.shares) > 1 and self.fidelity.shares[0] == 0 and self.fidelity.shares[-1] == 1
            for name in ("deletion", "insertion") if reaches else ():
                area = np.trapezoid(getattr(self.fidelity, name), self.fidelity.shares, axis=-1)
                columns.append((f"{name} area", area, ".3f"))
        rows = [[name for name, _, _ in columns], ["---:"] * len(columns)]
        rows += [[_cell(x[i], form) for _, x, form in columns] for i in range(len(self.accuracy))]
        return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def evaluate(
    model: P2P,
    batches: Iterable[Batch],
    *,
    certainty: float | Sequence[float] = (0.8, 0.9, 0.95, 0.99),
    shares: tuple[float, ...] = SHARES,
    batch_size: int = 32,
    progress: bool = False,
    mesh: Mesh | None = None,
    whole: bool = False,
    inverse: bool = False,
) -> Evaluation:
    """Judges a model's answers to labelled images, for several certainties in one pass over the data.

    batches:    `data.Batch`es of any sizes, with superpixels; their masks may be None.
    certainty:  levels in (0, 1], see `predict`; a model of a fixed threshold ignores them.
    shares:     shares of the area at which to take the fidelity curves; () leaves the curves out, which saves time.
    batch_size: images that go through a network together.
    progress:   shows a bar.
    mesh:       shares every batch among its devices, see `predict`.
    whole:      True judges a black box on whole images: no fidelity, and nothing is localised.
    inverse:    True ranks the pixels of a soft mask the other way round (the method comet-inverse).

    Raises ValueError for no batch at all, a loader that trains (it has no end), and for impossible images (see
    `predict`), labels, masks, shapes or levels; FloatingPointError if a network answers NaN.
    """
    from tqdm import tqdm  # what needs no bar runs without the package

    levels = check_certainty(certainty if model.config.dynamic_threshold else 1.0)
    at = check_shares(shares)
    most = check_batch_size(batch_size, batch_size)
    batches = _checked(batches)
    if whole or model.config.masking != "groups":
        shown = tqdm(batches, desc="evaluation", unit="batch", leave=False, disable=not progress)
        rows, labels = judge_pixels(model, iter(shown), at, size=most, inverse=inverse, whole=whole, mesh=mesh)
        return _joined(rows, labels, None, at)
    if inverse:
        raise InputError("inverse=True is about the soft masks of comet; this model chooses groups")
    size = 0
    rows, labels = [], []  # of each batch, [L, B, ...] and [B]
    for batch in tqdm(batches, desc="evaluation", unit="batch", leave=False, disable=not progress):
        images, regions = check_images(batch.images, batch.regions, model)
        size = size or min(most, len(images))
        labels.append(check_labels(batch.labels, len(images), model.config.num_classes))
        masks = None if batch.masks is None else check_masks(batch.masks, regions.shape)
        found = predict_levels(model, images, regions, levels, size=size, mesh=mesh)
        row = _row(found, np.asarray(regions), masks)
        if len(at):
            deletion, insertion = agreements(model, images, regions, found, at, size=size, mesh=mesh)
            row |= {"deletion": deletion.swapaxes(1, 2), "insertion": insertion.swapaxes(1, 2)}
        rows.append(row)
    return _joined(rows, labels, levels if model.config.dynamic_threshold else None, at)


def _checked(batches: Iterable[Batch]) -> Iterable[Batch]:
    """Raises ValueError for what is no finite number of batches."""
    if isinstance(batches, Loader) and batches.train:
        raise InputError(
            "a Loader to train by goes on for ever, and augments: evaluate data.Loader(source, train=False, ...)"
        )
    if isinstance(batches, Batch):
        raise InputError("expected several batches; got one: evaluate [batch]")
    if isinstance(batches, Source) and not isinstance(batches, Sequence):
        raise InputError("expected batches; got a source of images: evaluate data.Loader(source, train=False, ...)")
    return batches


def _joined(
    rows: list[dict[str, np.ndarray]], labels: list[np.ndarray], levels: np.ndarray | None, shares: np.ndarray
) -> Evaluation:
    """The rows of all batches as one evaluation."""
    if not rows:
        raise InputError("expected at least one batch to evaluate; got none")
    everything = {
        name: np.concatenate([row[name] for row in rows if name in row], axis=1)
        for name in {name: None for row in rows for name in row}
    }
    return _summary(everything, np.concatenate(labels), levels, shares)


def _row(found: Prediction, regions: np.ndarray, masks: np.ndarray | None) -> dict[str, np.ndarray]:
    names = ("probabilities", "hard_share", "soft_share", "threshold", "num_evaluations")
    row = {name: np.asarray(getattr(found, name)) for name in names}
    if masks is not None:
        probs, kept = np.asarray(found.group_probs), np.asarray(found.group_mask)
        row |= metrics.localisation(probs, kept, regions, masks)._asdict()
    return row


def _summary(
    found: dict[str, np.ndarray], labels: np.ndarray, levels: np.ndarray | None, shares: np.ndarray
) -> Evaluation:
    probabilities = found.pop("probabilities")

    def each(measure: Callable[[np.ndarray, np.ndarray], float]) -> np.ndarray:
        return np.array([measure(p, labels) for p in probabilities])

    curves = [found.pop(name).mean(1, dtype=np.float32) for name in ("deletion", "insertion") if name in found]
    means: dict[str, Any] = {name: _defined_mean(x) for name, x in found.items()}
    means = dict.fromkeys(metrics.Localisation._fields) | means  # None where there were no masks
    return Evaluation(
        # The float32 levels as they were typed: 0.8, not 0.800000012.
        certainty=None if levels is None else levels.astype(str).astype(np.float64),
        num_images=len(labels),
        accuracy=each(metrics.accuracy),
        auroc=each(metrics.macro_auroc),
        aupr=each(metrics.macro_average_precision),
        calibration_error=each(metrics.calibration_error),
        brier=each(metrics.brier_score),
        nll=each(metrics.negative_log_likelihood),
        fidelity=Fidelity(shares, *curves) if curves else None,
        **means,
    )


def _defined_mean(values: np.ndarray) -> np.ndarray:
    """The mean over axis 1 of the values that are not NaN; NaN if all are."""
    defined = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        return np.where(defined, values, 0.0).sum(1, dtype=np.float64) / defined.sum(1)


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return [_plain(x) for x in value.tolist()]
    if isinstance(value, list):
        return [_plain(x) for x in value]
    return None if isinstance(value, float) and np.isnan(value) else value


def _cell(value: float | np.floating, form: str) -> str:
    return "" if np.isnan(value) else format(value, form)
