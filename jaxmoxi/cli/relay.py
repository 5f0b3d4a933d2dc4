"""A process of its own, which passes on what the distributed runtime of JAX prints, and puts a fatal error in a line.

Where the first process of a run dies, the runtime of every other one ends it from C++, with a page of a stack that no
Python code can hold back. So file descriptors 1 and 2 of a process lead here: `python relay.py PROCESS < pipe`. What
the coordination service and Gloo say is dropped, the rest goes to stderr. Nothing is imported that takes time.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator

_LOGGED = re.compile(r"[IWEF]\d{4} \d\d:\d\d:\d\d\.\d+ +\d+ (\S+?):\d+\]")  # the head of a message of C++
_DROPPED = re.compile(r"coordination_|client\.h|distributed|preemption")
_GREETING = "peer ranks. Expected"  # by Gloo, of every connection; several threads print at once
_FATAL = "the JAX distributed service detected fatal errors"


def relayed(lines: Iterable[str], process: str) -> Iterator[str]:
    """What remains of lines that a process printed; a message of the coordination service ends at the next message."""
    dropping, fatal = False, None
    for line in lines:
        head = _LOGGED.match(line)
        if head is not None:
            dropping = _DROPPED.search(head[1]) is not None
        if _FATAL in line:
            fatal = line
        if fatal is not None and "RegisterTask" in line:
            fatal = line
        if not dropping and _GREETING not in line:
            yield line
    if fatal is not None:
        reason = (
            "not all processes of the run have come in time; start them together, or wait longer (--join-seconds)"
            if "RegisterTask" in fatal
            else f"{'another' if process == '0' else 'the first'} process of the run has ended, or cannot be reached; "
            "what is written stays: start all processes again to go on"
        )
        yield f"jaxmoxi: error: process {process}: {reason}\n"


if __name__ == "__main__":
    for text in relayed((raw.decode("utf-8", "replace") for raw in sys.stdin.buffer), sys.argv[1]):
        sys.stderr.write(text)
        sys.stderr.flush()
