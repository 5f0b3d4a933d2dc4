"""`jaxmoxi predict --report`: for each class where a model looks and how much it needs, where it errs, and its parts.

Names come from outside, of photos and classes. What is written into the report is escaped.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from jaxmoxi.cli.predict_files import exact_percent
from jaxmoxi.cli.predict_model import Fields, Loaded, is_certain, join, pick
from jaxmoxi.cli.predict_photos import Given, Read
from jaxmoxi.escape import markdown, printable, shorten
from jaxmoxi.plot.strokes import short

if TYPE_CHECKING:  # flax and Matplotlib take seconds to import
    from matplotlib.figure import Figure

    from jaxmoxi.p2p import ClassSummary, Prediction

_DRAWN = 24  # photos in the picture of errors
_ROWS, _PAGES = 8, 6  # classes in a picture of maps, and such pictures
_BOXES = 40  # classes in the picture of shares
_CLUSTERED = 8  # photos whose parts are drawn
_PARTS = (2, 5)
_LISTED = 30  # lines of a list or a table of confusions


class _Kept(NamedTuple):
    """A photo that may be drawn. rank: which come first, the lowest. found: its part of the prediction."""

    rank: float
    read: Read
    regions: np.ndarray
    found: Fields


class Report:
    """Collects what a report needs from batch after batch, and no more: sums, and the photos that are drawn."""

    def __init__(self, loaded: Loaded, caption: str):
        self._loaded, self._caption = loaded, caption
        self._names = [short(name) for name in loaded.class_names]
        self._summaries: tuple[ClassSummary, ...] = ()
        self._confused: Counter[tuple[int, int]] = Counter()
        self._wrong: list[_Kept] = []  # the most certain first
        self._doubted: list[_Kept] = []  # the least certain first, of photos whose truth is not known
        self._examples: dict[int, list[_Kept]] = {}
        self._groups: dict[bool, list[float]] = {True: [], False: []}  # shares of pixels: right, wrong
        self._never = 0  # photos that are never as certain as asked for
        self._certain: Counter[tuple[bool, bool]] = Counter()  # (whether certain, whether right)

    def add(self, chunk: Sequence[Read], regions: np.ndarray, found: Prediction, fields: Fields) -> None:
        """Takes a chunk of photos. fields: of `found`, on the host."""
        from jaxmoxi import p2p

        labels = np.array([read.given.label for read in chunk])
        images = np.stack([read.image for read in chunk])
        many = len(self._names) > 100  # examples of a thousand classes would fill the memory
        self._summaries = p2p.by_class(
            images, found, labels=labels, num_examples=1 if many else 4, before=self._summaries
        )
        classes, chances = np.asarray(found.classes), np.asarray(found.probabilities).max(-1)
        shares = np.asarray(found.hard_share)
        for i, read in enumerate(chunk):
            label, top, chance = int(labels[i]), int(classes[i]), float(chances[i])
            certain = is_certain(chance, self._loaded.certainty) is not False
            self._never += not certain
            if label >= 0:
                right = label == top
                self._groups[right].append(float(shares[i]))
                self._certain[certain, right] += 1
                if not right:
                    self._confused[label, top] += 1
                    _keep(self._wrong, _Kept(-chance, read, regions[i], pick(fields, i)))
            else:
                _keep(self._doubted, _Kept(chance, read, regions[i], pick(fields, i)))
            own = self._examples.setdefault(top if label < 0 else label, [])
            if len(self._examples) <= _CLUSTERED and len(own) < 2:
                own.append(_Kept(0.0, read, regions[i], pick(fields, i)))

    def pages(self, base: str, answer: str, failed: Sequence[tuple[Given, str]]) -> tuple[str, dict[str, Figure]]:
        """(the report in Markdown, its figures by the paths that it names). base: what the files are called."""
        figures: dict[str, Figure] = {}
        folder = f"{base}-report"
        lines = self._head(answer, failed)
        lines += self._table()
        lines += self._looks(folder, figures)
        lines += self._needs(folder, figures)
        lines += self._errors(folder, figures)
        lines += self._parts(folder, figures)
        return "\n".join(lines) + "\n", figures

    def _head(self, answer: str, failed: Sequence[tuple[Given, str]]) -> list[str]:
        true = sum(s.count for s in self._summaries if s.is_true)
        guessed = sum(s.count for s in self._summaries if not s.is_true)
        if not guessed:
            by = "Photos are grouped by their **true** class."
        elif not true:
            by = "The true class of no photo is known, so photos are grouped by the class **predicted**."
        else:
            by = (
                f"The {true:,} photos whose true class is known are grouped by it, the other {guessed:,} by the class "
                "predicted, in groups of their own, marked *predicted*."
            )
        lines = ["# What the model looks at", "", f"{markdown(answer)}.", "", f"Model: {markdown(self._caption)}.", by]
        if self._loaded.black_box:
            lines += [
                "",
                "**The model is a black box**, trained on whole images: its selector learned nothing. What is kept is "
                "arbitrary, and its classifier never learned from parts of an image.",
            ]
        if failed:
            lines += ["", f"Photos that cannot be read ({len(failed):,}):", ""]
            lines += [f"- {_text(photo.name)}: {_text(reason, 200)}" for photo, reason in failed[:_LISTED]]
            lines += [f"- and {len(failed) - _LISTED:,} more"] * (len(failed) > _LISTED)
        return [*lines, ""]

    def _table(self) -> list[str]:
        lines = [
            "## Each class", "",
            "| class | photos | right | pixels needed: median | lower quartile | upper quartile | most |",
            "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
        ]  # fmt: skip
        for s in self._summaries:
            low, median, high = (_share(x) for x in s.quartiles)
            hits = int(np.sum(s.predicted == s.label))
            right = f"{hits:,} of {s.count:,} ({exact_percent(hits, s.count)})" if s.is_true else "not known"
            cells = [self._label(s), f"{s.count:,}", right, median, low, high, _share(s.shares.max())]
            lines.append(f"| {' | '.join(cells)} |")
        return [*lines, ""]

    def _looks(self, folder: str, figures: dict[str, Figure]) -> list[str]:
        from jaxmoxi.p2p import plot

        lines = [
            "## What it looks at", "",
            "On the left the share of the class's photos that kept each pixel: it tells where in the picture the model "
            "looks. Beside it are the first photos of the class; what was hidden of them is pale and grey.", "",
        ]  # fmt: skip
        shown = sorted(self._summaries, key=lambda s: -s.count)[: _ROWS * _PAGES]
        shown = [s for s in self._summaries if any(s is other for other in shown)]
        if len(shown) < len(self._summaries):
            lines += [f"Drawn are the {len(shown)} classes of {len(self._summaries):,} that have most photos.", ""]
        for start in range(0, len(shown), _ROWS):
            name = f"{folder}/looks-at-{start // _ROWS + 1}.png"
            figures[name] = plot.class_maps(shown[start : start + _ROWS], class_names=self._names)
            lines += [f"![what the model looks at]({_link(name)})", ""]
        return lines

    def _needs(self, folder: str, figures: dict[str, Figure]) -> list[str]:
        from jaxmoxi.p2p import plot

        lines = ["## How much it needs", ""]
        certainty = self._loaded.certainty
        if certainty is None:
            share = self._loaded.model.config.threshold
            lines += [f"The model has a fixed threshold, {share:g}: it does not look for the least that it needs.", ""]
        else:
            never = f"; {self._never:,} photos never are, and count with what they saw at the last" * (self._never > 0)
            lines += [f"A photo is shown more superpixels until the classifier is {certainty:g} certain{never}.", ""]
        ranked = sorted(self._summaries, key=lambda s: s.quartiles[1])
        if len(ranked) > _BOXES:
            half = _BOXES // 2
            lines += [f"Drawn are the {half} classes that need least and the {half} that need most.", ""]
            ranked = [*ranked[:half], *ranked[-half:]]
        name = f"{folder}/needs.png"
        figures[name] = plot.class_shares(ranked, class_names=self._names)
        return [*lines, f"![how much each class needs]({_link(name)})", ""]

    def _errors(self, folder: str, figures: dict[str, Figure]) -> list[str]:
        right, wrong = self._groups[True], self._groups[False]
        lines = ["## Where it errs", ""]
        if not right and not wrong:
            lines += ["The true class of no photo is known, so no error is. The least certain photos are drawn.", ""]
            return lines + self._sheet(self._doubted, folder, "least-certain", figures)
        if not wrong:
            return [*lines, f"Nowhere: all {len(right):,} photos whose true class is known are right.", ""]
        others = f", of the others {_share(np.median(right))}" if right else ""
        lines.append(
            f"{len(wrong):,} of {len(right) + len(wrong):,} photos are taken for another class. The classifier saw "
            f"{_share(np.median(wrong))} of the pixels of these (median){others}."
        )
        certain, doubted = (sum(self._certain[c, r] for r in (True, False)) for c in (True, False))
        if self._loaded.certainty is not None and certain and doubted:
            lines += [
                f"Of the {certain:,} photos that reached certainty {self._loaded.certainty:g}, "
                f"{exact_percent(self._certain[True, True], certain)} are right; of the {doubted:,} that never did, "
                f"{exact_percent(self._certain[False, True], doubted)}."
            ]
        lines += ["", "| true class | taken for | photos |", "| --- | --- | ---: |"]
        for (label, top), count in self._confused.most_common(_LISTED):
            lines.append(f"| {_text(self._names[label])} | {_text(self._names[top])} | {count:,} |")
        rest = len(self._confused) - _LISTED
        lines += [f"| and {rest:,} more pairs | | |"] * (rest > 0)
        lines += ["", f"What it had seen of {'them' if len(wrong) <= _DRAWN else f'the {_DRAWN} most certain'}, beside "
                  "the whole photo:", ""]  # fmt: skip
        return lines + self._sheet(self._wrong, folder, "errors", figures)

    def _sheet(self, kept: Sequence[_Kept], folder: str, name: str, figures: dict[str, Figure]) -> list[str]:
        from jaxmoxi.p2p import plot

        path = f"{folder}/{name}.png"
        labels = np.array([k.read.given.label for k in kept])
        figures[path] = plot.contact_sheet(
            np.stack([k.read.image for k in kept]),
            join([k.found for k in kept]),
            labels=labels,
            class_names=self._names,
            names=[k.read.given.name for k in kept],
            fill=self._loaded.model.config.fill,
            columns=3,
        )
        return [f"![{name}]({_link(path)})", ""]

    def _parts(self, folder: str, figures: dict[str, Figure]) -> list[str]:
        from jaxmoxi.p2p import plot

        lines = ["## Parts and wholes", ""]
        if self._loaded.model.config.embedding_size == 0:
            none = (
                "This model has no embedding: its superpixels are kept or dropped independently of one another, so it "
                "tells no parts. (REAL-X is such a method, and so is P2P with embedding_size=0.)"
            )
            return [*lines, none, ""]
        if self._loaded.black_box:
            return [*lines, "This model is a black box: its embedding was never trained, and tells no parts.", ""]
        first = [own[0] for own in self._examples.values() if own]
        second = [own[1] for own in self._examples.values() if len(own) > 1]
        kept = [*first, *second][:_CLUSTERED]
        lines += [
            "The selector gives each superpixel an embedding. Superpixels whose embeddings are close are kept or "
            "dropped together: their logits have a difference of small variance. Clustering the embeddings of a photo "
            f"(Ward; `p2p.part_clusters`) into {_PARTS[0]}, and further into {_PARTS[1]}, draws wholes and their "
            "parts. The colours of one photo have nothing to do with those of another; lines surround what was kept.",
            "",
        ]
        name = f"{folder}/parts.png"
        figures[name] = plot.parts(
            np.stack([k.read.image for k in kept]),
            np.stack([k.regions for k in kept]),
            join([k.found for k in kept]),
            num_parts=_PARTS,
            names=[k.read.given.name for k in kept],
        )
        return [*lines, f"![parts and wholes]({_link(name)})", ""]

    def _label(self, summary: ClassSummary) -> str:
        return _text(self._names[summary.label]) + ("" if summary.is_true else " *(predicted)*")


def _keep(kept: list[_Kept], one: _Kept) -> None:
    """Adds a photo to those that come first, `_DRAWN` of them at most."""
    kept.append(one)
    kept.sort(key=lambda k: k.rank)
    del kept[_DRAWN:]


def _share(value: float | np.floating) -> str:
    """A share of the pixels in percent, with a decimal: P2P's are small."""
    return f"{100 * value:.1f} %"


def _text(name: str, limit: int = 60) -> str:
    """A name as Markdown shows it."""
    return markdown(shorten(printable(name), limit))


def _link(path: str) -> str:
    """A path of our own making, as a link."""
    return path.replace(" ", "%20")
