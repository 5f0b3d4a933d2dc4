"""shapiq's side of the benchmark of interactions: exact values and approximators, on games with known values."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import logging
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

AVAILABLE = importlib.util.find_spec("shapiq") is not None

_EITHER = ("SHAPIQ", "SVARMIQ", "ProxySHAP", "ProxySHAP adjusted", "ProxySPEX")
_SHAPLEY = ("KernelSHAPIQ", "KernelSHAPIQ paired", "InconsistentKernelSHAPIQ", "PermutationSamplingSII")
APPROXIMATORS: dict[str, tuple[str, ...]] = {
    "SII": (*_EITHER, *_SHAPLEY),
    "k-SII": (*_EITHER, *_SHAPLEY),
    "FSII": (*_EITHER, "RegressionFSII", "RegressionFSII paired"),
    "FBII": (*_EITHER, "RegressionFBII", "RegressionFBII paired"),
    "SV": (
        "KernelSHAP",
        "KernelSHAP paired",
        "LeverageSHAP",
        "PermutationSamplingSV",
        "OddSHAP",
        "RegressionMSR",
        "UnbiasedKernelSHAP",
        "kADDSHAP",
    ),
}
"""By index. "paired": with coalitions and their complements; "adjusted": with an estimate of what the proxy left."""

_SILENT = logging.getLogger("lightgbm of shapiq")
_SILENT.setLevel(logging.CRITICAL)
_VARIANTS = {"paired": {"pairing_trick": True}, "adjusted": {"adjustment": True}}


def version() -> str:
    return importlib.metadata.version("shapiq")


def make_game(values: Callable[[np.ndarray], np.ndarray], num_players: int) -> Any:
    """A game of shapiq; `values` takes bool[C, P] and gives float64[C]. `seconds` is what the values took."""
    import shapiq

    class Counted(shapiq.Game):
        seconds = 0.0
        coalitions = 0

        def __init__(self) -> None:
            super().__init__(num_players, normalize=False)

        def value_function(self, coalitions: np.ndarray) -> np.ndarray:
            start = time.perf_counter()
            out = values(np.asarray(coalitions))
            self.seconds += time.perf_counter() - start
            self.coalitions += len(out)
            return out

    return Counted()


def table_game(table: np.ndarray) -> Any:
    """The game of a table, float[2^P]: bit i of a row's number says whether player i is visible."""
    num_players = len(table).bit_length() - 1
    table, bits = np.asarray(table, np.float64), 1 << np.arange(num_players)
    return make_game(lambda coalitions: table[coalitions.astype(np.int64) @ bits], num_players)


def exact(table: np.ndarray, index: str, order: int, sets: np.ndarray) -> tuple[np.ndarray, float]:
    """The index of the sets, and the seconds. A new computer each time: it keeps what it has computed."""
    import shapiq

    computer = shapiq.ExactComputer(table_game(table), n_players=len(table).bit_length() - 1)
    start = time.perf_counter()
    name: Any = index
    found = computer(name, order=order)
    return _of(found, sets), time.perf_counter() - start


def approximate(
    name: str, game: Any, num_players: int, index: str, order: int, budget: int, sets: np.ndarray, seed: int
) -> tuple[np.ndarray, float]:
    """An approximator's values of the sets, and its seconds, those for the game's values among them."""
    import shapiq.approximator as approximators

    plain, _, variant = name.partition(" ")
    if importlib.util.find_spec("lightgbm") is not None:
        importlib.import_module("lightgbm").register_logger(_SILENT)
    options = {"n": num_players, "random_state": seed, **_VARIANTS.get(variant, {})}
    cls = getattr(approximators, plain)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        chosen = _made(cls, options, index, order)
        start = time.perf_counter()
        found = chosen.approximate(budget, game)
        took = time.perf_counter() - start
    return _of(found, sets), took


def _made(cls: Any, options: dict[str, Any], index: str, order: int) -> Any:
    """Approximators differ in whether they are told the index and the order."""
    if cls.__name__ == "kADDSHAP":
        return cls(max_order=2, **options)
    more: tuple[dict[str, Any], ...] = ({"index": index, "max_order": order}, {"max_order": order}, {"index": index})
    for extra in more:
        try:
            return cls(**options, **extra)
        except TypeError:
            continue
    return cls(**options)


def _of(found: Any, sets: np.ndarray) -> np.ndarray:
    return np.array([found[tuple(int(i) for i in row if i >= 0)] for row in sets], np.float64)
