"""The errors that are made for users, each in one place.

What is wrong with an input is an `InputError`: a ValueError whose message says what was expected, what came and what to
do. The command prints such an error as one line. Any other ValueError comes from a mistake inside this package, and
keeps its traceback.
"""

from __future__ import annotations

import re
import sys
import warnings
from typing import Any


class InputError(ValueError):
    """An argument or a file that cannot be used; the message says what was expected, what came and what to do."""


class NoGroupError(InputError):
    """No group that a search came to reaches the goal."""


class OutOfMemoryError(MemoryError):
    """A chunk of coalitions did not fit; the message gives the `batch_size` that failed and the one to try."""


class NaNValueError(FloatingPointError):
    """A value function returned NaN; `result` holds what was computed before (a GreedyResult, or None)."""

    def __init__(self, message: str, result: Any = None):
        super().__init__(message)
        self.result = result


class NotConvergedWarning(UserWarning):
    """A result is further from what it approximates than it should be; the message says by how much."""


class RoundingWarning(UserWarning):
    """The numbers of a result are no larger than the rounding of the values from which they were computed."""


def nan_error(where: str, *, result: Any = None, whose: str = "the value function") -> NaNValueError:
    """The one error for a NaN value.

    where:  which coalition it was of: "at step 3, for player 7", "of the group [1, 2]".
    result: what was computed before.
    whose:  the value function, where there are several.
    """
    return NaNValueError(
        f"{whose} returned NaN {where}; check the model's logits for this coalition, and the fill", result
    )


_LOST = re.compile(
    r"gloo|connection (closed|reset|refused)|socket closed|broken pipe|heartbeat|barrier|UNAVAILABLE|remote process",
    re.IGNORECASE,
)


def is_lost(error: BaseException) -> bool:
    """Whether an error is the runtime's, and says that another process of a run cannot be reached any more.

    JAX has one class for all errors of its runtime, so the text decides.
    """
    runtimes = type(error).__name__ in ("JaxRuntimeError", "XlaRuntimeError") or isinstance(error, TimeoutError)
    return runtimes and _LOST.search(str(error)) is not None


_INSIDE = ("jaxmoxi", "jaxtyping")  # the frames of a checker of shapes stand between a function and its caller


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """A warning that points at the line outside this package from which the call came."""
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in _INSIDE:
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)
