"""Compiling the next stage of a search while one runs.

A stage compiles in seconds on a CPU and in tens of seconds for a TPU. Where a search runs on an accelerator, the host
has nothing else to do meanwhile; on a CPU the compiler would take the cores from the search.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from jaxmoxi.games.hardware import platform
from jaxmoxi.moxi.stages import Stage


@contextlib.contextmanager
def ahead(stages: Sequence[Stage], prepare: Callable[[Stage], Any]) -> Iterator[Callable[[int], None]]:
    """Gives `reach(i)`, to be called before stage i runs: it waits for that stage and starts to compile the next.

    prepare: compiles a stage so that running it compiles nothing more. An error is left to the run, which meets it too.

    On a CPU nothing is compiled ahead. A stage that is being compiled when the search ends is compiled to its end, in a
    thread that nobody waits for but the end of the process.
    """
    if platform() == "cpu" or len(stages) < 2:
        yield lambda _: None
        return
    pool = ThreadPoolExecutor(1, thread_name_prefix="jaxmoxi-compile")
    waiting: dict[int, Future[Any]] = {}

    def reach(i: int) -> None:
        if i in waiting:
            waiting.pop(i).exception()
        if i + 1 < len(stages):
            waiting[i + 1] = pool.submit(prepare, stages[i + 1])

    try:
        yield reach
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
