"""How the published searches ask a game: answers that are kept for all methods, and a meter for each."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmoxi.games.base import Game, ValueFn, as_game
from jaxmoxi.search.oracle import visible_size
from jaxmoxi.search.scorers import gate_gradient

CHUNK = 8  # coalitions of one call; questions are padded to it, so that few shapes are compiled
GRADIENT = 3  # forward passes that a forward and a backward pass take


class Answer(NamedTuple):
    """What is known of coalitions: probability float[C], confidence float[C], features float[C, K].

    confidence: 1 less the entropy of the classes' probabilities over the largest there is.
    features:   the logits, of unit length.
    Of a game without logits the last two are None.
    """

    probability: Any
    confidence: Any
    features: Any


class Answers:
    """The game's answers, each evaluated once however many methods ask."""

    def __init__(self, v: ValueFn, num_players: int):
        self.game, self.num_players = as_game(v), num_players
        self.evaluated = 0
        self._known: dict[bytes, tuple[Any, ...]] = {}
        self._slopes: dict[bytes, np.ndarray] = {}

    def read(self, masks: np.ndarray) -> Answer:
        """The answers for coalitions bool[C, P]."""
        keys = [row.tobytes() for row in masks]
        new = {key: row for key, row in zip(keys, masks, strict=True) if key not in self._known}
        for limit, rows in _by_size(self.game, list(new.values()), self.num_players).items():
            for start in range(0, len(rows), CHUNK):
                part = np.stack(rows[start : start + CHUNK])
                padded = np.concatenate([part, np.zeros((CHUNK - len(part), self.num_players), bool)])
                out = [np.asarray(x)[: len(part)] for x in _read(self.game, jnp.asarray(padded), limit)]
                self._known.update(zip([row.tobytes() for row in part], zip(*out, strict=True), strict=True))
                self.evaluated += len(part)
        columns = [np.stack(column) for column in zip(*[self._known[key] for key in keys], strict=True)]
        return Answer(*columns, *[None] * (3 - len(columns)))

    def slope(self, mask: np.ndarray) -> np.ndarray:
        """The gradient of the payoff in how much of each player is there, float[P]."""
        key = mask.tobytes()
        if key not in self._slopes:
            self._slopes[key] = np.asarray(gate_gradient(self.game, jnp.asarray(mask)))
        return self._slopes[key]


def _by_size(game: Game, rows: list[np.ndarray], num_players: int) -> dict[int | None, list[np.ndarray]]:
    """Coalitions by the compiled size that serves them."""
    groups: dict[int | None, list[np.ndarray]] = {}
    for row in rows:
        groups.setdefault(visible_size(int(row.sum()), num_players) if game.sized else None, []).append(row)
    return groups


@functools.partial(jax.jit, static_argnums=2)
def _read(game: Game, masks: jax.Array, limit: int | None) -> tuple[jax.Array, ...]:
    if game.link is None:  # no logits to be had
        told = game.readout(masks, max_visible=limit)
        return (told.values if told.probabilities is None else told.probabilities,)
    logits = game.logits(masks, max_visible=limit)
    shares = jax.nn.softmax(logits)
    entropy = -jnp.sum(shares * jnp.log(shares + 1e-7), -1)
    told = game.read(logits)
    probability = game.probabilities(masks, max_visible=limit) if told is None else told.probabilities
    features = logits / jnp.linalg.norm(logits, axis=-1, keepdims=True)
    return jnp.asarray(probability), 1 - entropy / jnp.log(logits.shape[-1]), features


class Meter:
    """One method's questions: counts the coalitions it asked about, and answers NaN past its budget."""

    def __init__(self, answers: Answers, budget: int):
        self.answers, self.budget = answers, budget
        self.num_players = answers.num_players
        self.count, self.spent = 0, False
        self._asked: set[bytes] = set()

    def afford(self, forwards: int) -> bool:
        """Whether so many more forward passes are left; if not, the budget counts as spent."""
        if self.count + forwards > self.budget:
            self.spent = True
        return not self.spent

    def answers_for(self, masks: np.ndarray) -> tuple[Answer, np.ndarray]:
        """(answers for the coalitions that the budget affords, which those are bool[C])."""
        known = np.zeros(len(masks), bool)
        for i, row in enumerate(masks):
            key = row.tobytes()
            if key not in self._asked:
                if self.count >= self.budget:
                    self.spent = True
                    continue
                self._asked.add(key)
                self.count += 1
            known[i] = True
        return self.answers.read(masks[known]) if known.any() else Answer(np.zeros(0), None, None), known

    def probabilities(self, masks: np.ndarray) -> np.ndarray:
        """The class's probability for each coalition, NaN where the budget is spent; float[C]."""
        told, known = self.answers_for(masks)
        result = np.full(len(masks), np.nan)
        result[known] = told.probability
        return result

    def slope(self, mask: np.ndarray) -> np.ndarray | None:
        """A gradient, for the price of three forward passes; None where the budget is spent."""
        if not self.afford(GRADIENT):
            return None
        self.count += GRADIENT
        return self.answers.slope(mask)


def masks_with(players: list[int], candidates: list[int], num_players: int) -> np.ndarray:
    """The coalitions of `players` and each of the candidates, bool[C, P]."""
    rows = np.zeros((len(candidates), num_players), bool)
    rows[:, players] = True
    rows[np.arange(len(candidates)), candidates] = True
    return rows


def by_score(candidates: list[int], scores: np.ndarray) -> list[int]:
    """Candidates by what is known of each, float[P], the highest first; those that are not known come last."""
    known = np.nan_to_num(np.asarray(scores, float)[candidates], nan=-np.inf)
    return [candidates[i] for i in np.argsort(-known, kind="stable")]
