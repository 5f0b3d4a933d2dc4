"""What a long command does when it is asked to end: by SIGTERM, as a preempted machine is, or by SIGINT (Ctrl-C)."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

_CODES = {signal.SIGTERM: 0, signal.SIGINT: 130}  # a command that was preempted, and saved its work, has not failed


class StoppedError(BaseException):
    """The command was asked to end while there was nothing to save. No `except Exception` on the way takes it."""


class Stopping:
    """Between `with` and its end, SIGTERM and SIGINT do not end the process at once.

    While something asks `requested` (a training asks before each step) the first signal is an answer to it, and the
    work is saved where it stands. At other times, and by a second signal, `StoppedError` is raised where the process
    is. Signals come to the main thread only; in another thread nothing changes.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._listened = False
        self._before: dict[signal.Signals, Any] = {}

    def requested(self) -> bool:
        """Whether a signal has come; from the first call on, somebody listens."""
        self._listened = True
        return self.signal is not None

    def work_is_saved(self) -> None:
        """From here on nobody asks `requested`. Raises StoppedError if a signal has come already."""
        self._listened = False
        if self.signal is not None:
            raise StoppedError

    def heard_by(self, largest: Callable[[int], int]) -> bool:
        """Whether a signal has come to any process of a run, which then counts as this one's too.

        largest: the largest of the numbers that all processes give.
        """
        self._listened = True
        number = largest(self.signal or 0)
        self.signal = self.signal or (signal.Signals(number) if number else None)
        return number > 0

    @property
    def code(self) -> int:
        """The exit code of the command: 0 after SIGTERM, 130 after SIGINT."""
        return 0 if self.signal is None else _CODES[self.signal]

    def _handle(self, number: int, frame: FrameType | None) -> None:
        first, self.signal = self.signal is None, self.signal or signal.Signals(number)
        if not (first and self._listened):
            raise StoppedError
        print("jaxmoxi: stopping after this step, and saving; a second signal stops at once", file=sys.stderr)

    def __enter__(self) -> Stopping:
        try:
            self._before = {number: signal.signal(number, self._handle) for number in _CODES}
        except ValueError:  # not the main thread
            self._before = {}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


class Budget:
    """The time that a command may take, from now on. over: whether `passed` has answered True.

    minutes: None for any time.
    """

    def __init__(self, minutes: float | None) -> None:
        self._end = None if minutes is None else time.monotonic() + 60 * minutes
        self.over = False

    def passed(self) -> bool:
        """Whether the time is over."""
        self.over = self.over or (self._end is not None and time.monotonic() >= self._end)
        return self.over
