"""A value function as a game of shapiq, whose exact indices, approximators and plots then work on it.

Source: Muschalik et al., "shapiq: Shapley Interactions for Machine Learning", NeurIPS 2024, and its `shapiq.Game`.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from jaxmoxi.errors import nan_error
from jaxmoxi.games.base import ValueFn, as_game
from jaxmoxi.games.evaluation import check_batch_size, choose_batch_size, evaluate
from jaxmoxi.games.probe import check_players


def as_shapiq_game(v: ValueFn, num_players: int, *, batch_size: int | None = None, normalize: bool = True) -> Any:
    """The same game as a `shapiq.Game`: for shapiq's exact indices, approximators and plots.

    v:           a value function, masks bool[C, P] -> float32[C].
    num_players: P, at least 1.
    batch_size:  coalitions per chunk; None chooses one that fits the memory. What shapiq asks for goes in chunks of
                 this size, and the rest, or a smaller request, is padded to the next power of two: a few compilations
                 serve all, and a single coalition costs one evaluation.
    normalize:   subtract v(nobody), which is evaluated once here, so that the empty coalition is worth 0. False leaves
                 the payoff as it is.

    Returns a `shapiq.Game` of `num_players` players: called with coalitions bool[n, P] (or shapiq's tuples of players)
    it returns float64[n], float32 values widened. Raises ImportError without shapiq; ValueError for arguments that do
    not fit; NaNValueError, when it is called, that names the coalition whose value is NaN.
    """
    own = as_game(v)
    check_players(own, num_players)
    check_batch_size(batch_size)
    size = min(batch_size or choose_batch_size(own, num_players), 2**num_players)
    game = _game_class()(own, num_players, size)
    if normalize:
        game.normalization_value = float(game.value_function(game.empty_coalition[None])[0])
    return game


@functools.cache
def _game_class() -> Any:
    try:
        import shapiq
    except ImportError as error:
        raise ImportError(f"as_shapiq_game needs shapiq: pip install 'jaxmoxi[shapiq]' ({error})") from error

    class ValueFnGame(shapiq.Game):
        """A value function of jaxmoxi as a game of shapiq."""

        def __init__(self, v: Any, num_players: int, batch_size: int):
            super().__init__(num_players, normalize=False)
            self.v, self.batch_size = v, batch_size

        def value_function(self, coalitions: Any) -> Any:
            """The payoff of each coalition bool[n, P], float64[n], not normalised."""
            masks, size = np.asarray(coalitions, bool), self.batch_size
            values = np.empty(len(masks))
            for start in range(0, len(masks), size):
                width = min(size, 1 << (len(masks) - start - 1).bit_length())
                rows = masks[np.minimum(np.arange(start, start + width), len(masks) - 1)]  # the last repeats as padding
                chunk = evaluate(self.v, rows, batch_size=width)
                values[start : start + size] = np.asarray(chunk)[: len(masks) - start]
            if np.isnan(values).any():
                players = np.flatnonzero(masks[np.argmax(np.isnan(values))]).tolist()
                raise nan_error(f"for the coalition of players {players}")
            return values

    return ValueFnGame
