"""How fast a training runs, and what share of its time the device waits for data.

A device works on a step while the host prepares the next batch, so the time that the host spends on data is no measure.
A thread of its own therefore notes when each batch is ready (superpixels included, which the device itself may make)
and when each step is done. From the end of a step to the readiness of the next batch, the device waits for data.
"""

from __future__ import annotations

import queue
import threading
import time
from typing import Any, NamedTuple

import jax

_AHEAD = 2  # steps that may be under way: more would only hold memory


class Measured(NamedTuple):
    """Of some steps: how many images they took, their seconds, and how many of these the device waited for data."""

    images: int = 0
    seconds: float = 0.0
    waited: float = 0.0

    def __add__(self, other: tuple[Any, ...], /) -> Measured:  # type: ignore[override]
        return Measured(*(a + b for a, b in zip(self, other, strict=True)))

    def record(self) -> dict[str, float]:
        """`images_per_second` and `data_wait`, a share of the time in [0, 1]; nothing where nothing was measured."""
        if not self.seconds > 0:
            return {}
        return {
            "images_per_second": round(self.images / self.seconds, 2),
            "data_wait": round(self.waited / self.seconds, 4),
        }


class Throughput:
    """Between `with` and its end, measures the steps that it is told of."""

    def __init__(self) -> None:
        self._told: queue.Queue[Any] = queue.Queue(_AHEAD)
        self._sum, self._last = Measured(), 0.0
        self._thread = threading.Thread(target=self._watch, name="jaxmoxi-throughput", daemon=True)

    def step(self, batch: Any, answer: Any, count: int) -> None:
        """A step has begun. batch: its arrays. answer: an array that it makes, donated to nobody. count: its images."""
        self._told.put((batch, answer, count))

    def pause(self) -> None:
        """What comes before the end of the next step does not count: a compilation, a validation."""
        self._told.put(None)

    def take(self) -> Measured:
        """What was measured since the last `take`; waits for the steps that are under way."""
        self._told.join()
        found, self._sum = self._sum, Measured()
        return found

    def _watch(self) -> None:
        while (told := self._told.get()) is not _END:
            if told is None:
                self._last = 0.0
            else:
                try:
                    self._note(*told)
                except Exception:  # whoever reads the step's answer meets the error itself
                    self._last = 0.0
            del told  # holds no memory while it waits
            self._told.task_done()

    def _note(self, batch: Any, answer: Any, count: int) -> None:
        jax.block_until_ready(batch)
        ready = time.perf_counter()
        jax.block_until_ready(answer)
        done = time.perf_counter()
        if self._last:
            self._sum += (count, done - self._last, ready - self._last)
        self._last = done

    def __enter__(self) -> Throughput:
        self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._told.put(_END)
        self._thread.join()


_END = object()
