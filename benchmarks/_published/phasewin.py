"""PhaseWin: greedy selection in phases, each with one look at everybody and then a window of candidates.

Gu, Chen, Zhang, Hu, Zhang, Cao, "PhaseWin Search Framework Enable Efficient Object-Level Interpretation", arXiv
2511.10914 (2025), and Gu, Chen, Zhang, Liu, Cao, Zhang, "PhaseWin: An Efficient Search Algorithm for Faithful Visual
Attribution", arXiv 2606.18008 (2026). Their abstracts and the authors' code (github.com/Qihuai27/phasewin-va) were
read; the pseudo-code of the papers was not at hand. Nothing is copied.

A set's score is the class's probability with the set alone visible, plus 1 less that with it hidden. A phase:
- scores everybody left with what is chosen, and takes the best;
- scores everybody left again. Those below `prune` of the best are set aside until the end; those above `select` of it
  are the candidates, best first. The first of them fill a window of `window` of all regions;
- scores the window again and again. Those within `accept` of its best, and above `select` of the phase's, are taken
  in turn. The window is filled up from the candidates, each of which is put off once in a phase by a coin's toss
  (the papers' annealing, which comes to even odds with the authors' settings);
- ends when nobody in the window is good enough, or when the gains change pace: with ratios r_t = g_(t-1) / g_t of
  successive scores, as soon as r_t - r_(t-1) exceeds `pace` (the last one is still taken if it is above `protect` of
  the one before).
In the end those set aside follow by their score.

Assumed: numbers and the meaning of "gain" (the score of the set with the candidate, not a difference) are those of the
authors' code for classifiers. The coin is drawn from a fixed seed. Cut off, the rest follows by its last known score.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from _published.asking import Answers, Meter, by_score, masks_with


@dataclasses.dataclass(frozen=True)
class Settings:
    """The two weights of the score, where 0 saves its forward passes, and the numbers of the search."""

    insertion: float = 1.0
    deletion: float = 1.0
    window: float = 0.3
    prune: float = 0.05
    select: float = 0.6
    accept: float = 0.99
    pace: float = 0.02
    protect: float = 0.98


class _Phases:
    def __init__(self, meter: Meter, settings: Settings):
        self.meter, self.s = meter, settings
        self.order: list[int] = []
        self.left = list(range(meter.num_players))
        self.aside: list[int] = []
        self.latest = np.full(meter.num_players, np.nan)
        self.size = max(1, int(meter.num_players * settings.window))
        self.coin = np.random.default_rng(0)

    def scores(self, players: list[int]) -> np.ndarray:
        """The score of the chosen with each player; NaN where the budget is spent."""
        shown = masks_with(self.order, players, self.meter.num_players)
        result = np.zeros(len(players))
        if self.s.insertion:
            result += self.s.insertion * self.meter.probabilities(shown)
        if self.s.deletion:
            result += self.s.deletion * (1 - self.meter.probabilities(~shown))
        self.latest[players] = np.where(np.isnan(result), self.latest[players], result)
        return result

    def take(self, player: int) -> None:
        self.order.append(player)
        self.left.remove(player)

    def phase(self) -> bool:
        """One phase; False where the search is over."""
        scores = self.scores(self.left)
        if self.meter.spent or scores.max() <= 0:
            return False
        gains = [float(scores.max())]
        self.take(self.left[int(np.argmax(scores))])
        if not self.left:
            return False
        scores = self.scores(self.left)
        if self.meter.spent:
            return False
        best = float(scores.max())
        if best <= 0:
            return True
        low = [p for p, g in zip(self.left, scores, strict=True) if g < self.s.prune * best]
        ranked = [self.left[i] for i in np.argsort(-scores, kind="stable") if scores[i] >= self.s.select * best]
        self.aside += low
        self.left = [p for p in self.left if p not in low]
        self.windows(ranked, self.s.select * best, gains)
        return not self.meter.spent

    def windows(self, ranked: list[int], enough: float, gains: list[float]) -> None:
        window, tail = ranked[: self.size], ranked[self.size :]
        put_off: set[int] = set()
        while window:
            while len(window) < self.size and tail:
                player = tail.pop(0)
                if player not in put_off and self.coin.random() < 0.5:
                    put_off.add(player)
                    tail.append(player)
                else:
                    window.append(player)
            scores = self.scores(window)
            if self.meter.spent or scores.max() < enough:
                return
            bar = max(enough, self.s.accept * float(scores.max()))
            taken = [i for i in range(len(window)) if scores[i] >= bar]
            for i in taken:
                ends = self.changes_pace(gains, float(scores[i]))
                if ends and scores[i] < self.s.protect * gains[-1]:
                    return
                self.take(window[i])
                gains.append(float(scores[i]))
                if ends:
                    return
            window = [p for i, p in enumerate(window) if i not in taken]

    def changes_pace(self, gains: list[float], gain: float) -> bool:
        if len(gains) < 2:
            return False
        return gains[-1] / max(1e-12, gain) - gains[-2] / max(1e-12, gains[-1]) > self.s.pace


def phasewin(answers: Answers, *, budget: int, settings: Settings | None = None) -> tuple[np.ndarray, int]:
    """(order int[P], forward passes)."""
    meter = Meter(answers, budget)
    phases = _Phases(meter, settings or Settings())
    while phases.left and phases.phase():
        pass
    for rest in (phases.left, phases.aside):
        if rest and not meter.spent:
            phases.scores(rest)
        phases.order += by_score(rest, phases.latest)
    return np.array(phases.order), meter.count
