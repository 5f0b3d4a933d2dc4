"""One of several processes that share a run: it joins the others, and ends with them.

A process that ends for any reason (it refuses its settings, it fails, it is killed) leaves nothing for the others to
wait for. All ends are told through the key-value store of JAX's coordination service: each process writes a beat every
two seconds and reads those of the others, so that all end within a minute, each with one line that says which process
ended, and why. If the first process dies the service dies with it, and JAX ends the others at once; see `relay`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import platform
import re
import signal
import subprocess
import sys
import threading
import time
import traceback
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Annotated, Any, NoReturn

import tyro

from jaxmoxi.cli.shared import CommandError
from jaxmoxi.errors import InputError, is_lost

_BEAT = 2.0  # seconds
_SILENCE = 20.0  # seconds without a beat after which a process counts as dead
_HEARTBEAT = 50  # seconds after which, or half of which, the service itself ends all: later than `_SILENCE`
_SEEN, _COMES = 30, 120  # seconds that a file may take to be seen on another host, and a process to look for it
_FAREWELL = 10.0  # seconds that the first process, whose end takes the store with it, waits for the others to read
_KEYS = "jaxmoxi/"


@dataclasses.dataclass(frozen=True)
class Together:
    """Whether a command is one of several processes, and how it finds the others."""

    distributed: tyro.conf.FlagCreatePairsOff[bool] = False
    """One of several processes, started alike on every host, that share the work: jax.distributed.initialize finds the
    others on Cloud TPU, SLURM and the like; elsewhere the next three options name them."""
    coordinator: Annotated[str | None, tyro.conf.arg(metavar="HOST:PORT", help_behavior_hint="")] = None
    """Where process 0 is, and a port of it that is free and that the others can reach."""
    num_processes: Annotated[int | None, tyro.conf.arg(metavar="N", help_behavior_hint="")] = None
    process_id: Annotated[int | None, tyro.conf.arg(metavar="I", help_behavior_hint="")] = None
    """Which of them this one is, from 0."""
    join_seconds: Annotated[int, tyro.conf.arg(metavar="SECONDS")] = 50
    """With --distributed: how long to wait for the other processes to start. Once they have, all end within a minute of
    the end of one, each with a line that says which and why."""

    def joined(self) -> AbstractContextManager[Others | None]:
        """Makes this process one of several, if it is to be; before JAX has looked for its devices."""
        named = (self.coordinator, self.num_processes, self.process_id)
        if not self.distributed:
            if any(x is not None for x in named):
                raise CommandError("--coordinator, --num-processes and --process-id need --distributed")
            return contextlib.nullcontext()
        if any(x is not None for x in named) and any(x is None for x in named):
            raise CommandError("--coordinator, --num-processes and --process-id go together: give all three, or none")
        if self.coordinator is not None and not re.fullmatch(r".+:\d{1,5}", self.coordinator):
            raise CommandError(f"--coordinator: expected HOST:PORT, such as host0:8476; got {self.coordinator!r}")
        if self.process_id is not None and not 0 <= self.process_id < (self.num_processes or 0):
            raise CommandError(
                f"--process-id: expected a number from 0 to {(self.num_processes or 0) - 1}, as --num-processes is "
                f"{self.num_processes}; got {self.process_id}"
            )
        if self.join_seconds < 1:
            raise CommandError(f"--join-seconds: expected a number of at least 1; got {self.join_seconds}")
        return joined(*named, seconds=self.join_seconds)


ALONE = Together()


@contextlib.contextmanager
def joined(
    coordinator: str | None, num_processes: int | None, process_id: int | None, *, seconds: int
) -> Iterator[Others]:
    """This process is one of a run, from here to the end of the `with`; see `jax.distributed.initialize`.

    seconds: to wait for the others to come.
    An error inside ends this process and all others: it is printed here, and the process exits at once. A process that
    comes to its end in peace stays until the first one has. Raises CommandError where the processes cannot be found.
    """
    import jax
    from jax._src import distributed as runtime

    name = str(process_id) if process_id is not None else platform.node()
    stderr = _divert(name)
    try:
        jax.distributed.initialize(
            coordinator,
            num_processes,
            process_id,
            initialization_timeout=seconds,
            heartbeat_timeout_seconds=_HEARTBEAT,
            shutdown_timeout_seconds=60,
        )
    except (ValueError, RuntimeError) as error:
        raise CommandError(
            f"--distributed: {error}. Where JAX does not find its processes by itself, give --coordinator "
            "HOST:PORT --num-processes N --process-id I"
        ) from error
    state: Any = runtime.global_state  # no public function of JAX reads the store without waiting, or starts no device
    others = Others(state.client, state.process_id, state.num_processes)
    threading.Thread(target=others.watch, daemon=True).start()
    before = _exit_at_sigterm()
    try:
        yield others
        others.done()
    except BaseException as error:
        if is_lost(error):
            time.sleep(2 * _BEAT)  # another process may say which one has ended, and why; this one then ends with that
        code, line = _described(error)
        if line:
            print(line, file=stderr, flush=True)
        others.tell(line or "it was asked to end")
        others.leave(code)
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)


class Others:
    """The other processes of a run, as the store shows them.

    first: whether this process is the first. count: how many there are, with this one.
    """

    def __init__(self, client: Any, index: int, count: int):
        self._client, self._index = client, index
        self.first, self.count = index == 0, count
        self._ended = threading.Event()
        self._place = f"process {index} on {platform.node()}"

    def watch(self) -> None:
        """Beats and listens, until this process is done. Ends the process when another one has ended."""
        beats: dict[str, tuple[str, float]] = {}
        number = 0
        while not self._ended.is_set():
            number += 1
            try:
                self._set(f"beat/{self._index}", f"{number} {self._place}")
                ends, done, now = self._get("end/"), self._get("done/"), time.monotonic()
                for key, beat in self._get("beat/").items():
                    if beats.get(key, ("", 0.0))[0] != beat:
                        beats[key] = (beat, now)
                    elif key not in done and now - beats[key][1] > _SILENCE and not ends:
                        place = beat.partition(" ")[2]
                        ends = {key: f"{place} has not been heard of for {_SILENCE:.0f} s; it is dead or cut off"}
                        self._set(f"end/{key}", ends[key])
            except Exception:  # the service is gone, and JAX ends this process
                return
            ends.pop(str(self._index), None)
            if ends and not self._ended.is_set():
                text = next(iter(ends.values()))
                print(
                    f"jaxmoxi: error: {text}. This process ends too; what is written stays: start all processes again "
                    "to go on",
                    file=sys.stderr,
                    flush=True,
                )
                self.leave(2)
            self._ended.wait(_BEAT)

    def tell(self, reason: str) -> None:
        """Lets the others know that this process ends."""
        self._ended.set()
        with contextlib.suppress(Exception):
            text = reason.removeprefix("jaxmoxi: error: ").rstrip(". \n")
            self._set(f"end/{self._index}", f"{self._place} has ended: {text}")

    def leave(self, code: int) -> NoReturn:
        """Ends this process without JAX's own farewell, which would wait for processes that do not come."""
        with contextlib.suppress(Exception):
            self._set(f"seen/{self._index}", "")
            until = time.monotonic() + (_FAREWELL if self._index == 0 else 0)
            while time.monotonic() < until and len(self._get("seen/").keys() | self._get("end/").keys()) < self.count:
                time.sleep(0.1)
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()
        os._exit(code)

    def done(self) -> None:
        """Lets the others know that this process has come to its end in peace, and waits until the first one has."""
        with contextlib.suppress(Exception):
            self._set(f"done/{self._index}", "")
            while not self.first and "0" not in self._get("done/"):
                time.sleep(_BEAT / 4)
        self._ended.set()

    def check_folder(self, folder: Any) -> None:
        """Raises CommandError where a process does not see what the first one writes into the folder, a path."""
        if self.first:
            name = f".shared-{uuid.uuid4().hex[:12]}"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).touch()
            self._set("folder", name)
            wait = lambda: len(self._get("sees/")) < self.count - 1  # noqa: E731
        else:
            name = self._client.blocking_key_value_get(f"{_KEYS}folder", 1000 * _COMES)
            wait = lambda: not (folder / name).exists()  # noqa: E731
        until = time.monotonic() + (_COMES if self.first else _SEEN)
        while wait() and time.monotonic() < until:
            time.sleep(0.2)
        if self.first:
            (folder / name).unlink(missing_ok=True)
        elif wait():
            raise CommandError(
                f"--out {folder} is not the same folder here as in the first process: expected one that all hosts share"
            )
        else:
            self._set(f"sees/{self._index}", "")

    def _set(self, key: str, value: str) -> None:
        self._client.key_value_set(_KEYS + key, value, allow_overwrite=True)

    def _get(self, folder: str) -> dict[str, str]:
        return {key.rpartition("/")[2]: value for key, value in self._client.key_value_dir_get(_KEYS + folder)}


def _described(error: BaseException) -> tuple[int, str]:
    """The exit code for an error, and its line. What is a mistake in the code is printed with its traceback."""
    if isinstance(error, SystemExit):
        return (error.code if isinstance(error.code, int) else 0), ""
    if isinstance(error, KeyboardInterrupt):
        return 130, "jaxmoxi: interrupted"
    if is_lost(error):
        return 2, (
            "jaxmoxi: error: another process of the run has ended, or cannot be reached; what is written stays: start "
            "all processes again to go on"
        )
    if not isinstance(error, CommandError | InputError):
        traceback.print_exception(error)
        return 1, f"jaxmoxi: error: {type(error).__name__}: {' '.join(str(error).split())[:300]}"
    return 2, f"jaxmoxi: error: {' '.join(str(error).split())}"


def _exit_at_sigterm() -> Any:
    """SIGTERM ends the `with` from inside, with exit code 0. JAX itself would only take note of it."""

    def leave(number: int, frame: Any) -> None:
        print("jaxmoxi: stopped; what is written stays: start all processes again to go on", file=sys.stderr)
        raise SystemExit(0)

    try:
        return signal.signal(signal.SIGTERM, leave)
    except ValueError:  # not the main thread
        return None


def _divert(name: str) -> Any:
    """Leads what C++ prints through `relay`; Python's stdout and stderr stay what they are. Returns Python's stderr."""
    try:
        usual = os.dup(2)
        relay = subprocess.Popen(
            [sys.executable, "-I", str(Path(__file__).with_name("relay.py")), name],
            stdin=subprocess.PIPE, stdout=usual, stderr=usual, start_new_session=True,
        )  # fmt: skip
        if relay.stdin is not None:
            if sys.stderr.fileno() == 2:
                sys.stderr = os.fdopen(usual, "w", buffering=1, errors="backslashreplace")
            if sys.stdout.fileno() == 1:
                sys.stdout.flush()
                sys.stdout = os.fdopen(
                    os.dup(1), "w", buffering=1, encoding=sys.stdout.encoding, errors=sys.stdout.errors
                )
            for descriptor in (1, 2):
                os.dup2(relay.stdin.fileno(), descriptor)
            relay.stdin.close()
    except (OSError, ValueError):  # no such descriptor: then it is printed as it comes
        pass
    return sys.stderr
