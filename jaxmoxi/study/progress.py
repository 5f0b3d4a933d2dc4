"""How far a study is, what it tells of it, and when its time is up."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tqdm import tqdm

from jaxmoxi.study.plan import Step


class TimeUpError(Exception):
    """The minutes that a run was given are over; what is measured is kept."""


class Progress:
    """Follows the photos of one run: a bar of evaluations, an estimate, and a deadline.

    evaluations: planned, of all photos that are left.
    photos:      how many are left.
    deadline:    when the run ends, as `time.monotonic` counts; None: never.
    show:        draws the bar. Where it goes to a file instead of a terminal, it is written every half minute.
    """

    def __init__(self, evaluations: int, photos: int, *, deadline: float | None, show: bool):
        self.deadline, self.photos, self.show = deadline, photos, show
        self.begun, self.name = 0, ""
        self.seconds: list[float] = []  # of the photos that were measured, in this run
        live = sys.stderr.isatty()
        self.bar = tqdm(
            total=evaluations, unit=" evaluations", disable=not show, mininterval=0.1 if live else 30.0,
            bar_format="{desc}: {percentage:3.0f}% |{bar:12}| {n_fmt} of {total_fmt} evaluations "
            "[{elapsed}<{remaining}, {rate_fmt}]",
        )  # fmt: skip
        self.live = live

    def say(self, text: str) -> None:
        """Prints a line beside the bar."""
        if self.show:
            self.bar.write(text, file=sys.stderr)

    @contextmanager
    def photo(self, name: str, planned: int) -> Iterator[None]:
        """The work on one photo, of so many planned evaluations. Raises TimeUpError where it would not be done in time.

        name: of the model, and of the photo where there is room.
        """
        self._check_time(self._usual())
        self.begun += 1
        self.name, before, started = f"{name} {self.begun}/{self.photos}", self.bar.n, time.monotonic()
        yield
        took = time.monotonic() - started
        done = self.bar.n - before
        # A photo that is left out, as one that cannot be read, was no work: the plan shrinks by it.
        if done or planned == 0:
            self.bar.update(planned - done)
            self.seconds.append(took)
            self._tell()
        else:
            self.bar.total -= planned

    @contextmanager
    def step(self, step: Step) -> Iterator[None]:
        """One step of the work on a photo. Raises TimeUpError instead of beginning it where the time is up."""
        self._check_time(0.0)
        self.bar.set_description_str(f"{self.name}, {step.name}", refresh=self.live)
        yield
        self.bar.update(step.evaluations)

    def close(self) -> None:
        """Leaves the bar as it stands."""
        self.bar.close()

    def _usual(self) -> float:
        """Seconds that a photo takes once everything is compiled; 0 where that is not known."""
        return min(self.seconds, default=0.0)

    def _check_time(self, needed: float) -> None:
        if self.deadline is not None and time.monotonic() + needed > self.deadline:
            raise TimeUpError

    def _tell(self) -> None:
        """What the first photos took, once each: the first compiles, the second does not."""
        left = self.photos - self.begun
        if len(self.seconds) <= 2 and left:
            compiling = ", compiling included" if len(self.seconds) == 1 else ""
            rest = f"{left} {'is' if left == 1 else 'are'} left"
            self.say(
                f"a photo took {duration(self.seconds[-1])}{compiling}; {rest}: at most about "
                f"{duration(left * self.seconds[-1])}"
            )


def duration(seconds: float) -> str:
    """A length of time in words: "41 s", "7 min", "3.4 h"."""
    if seconds < 90:
        return f"{max(seconds, 1):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
