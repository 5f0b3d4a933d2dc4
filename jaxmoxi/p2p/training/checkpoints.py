"""The checkpoints of a training run: `checkpoints/STEP/` in the folder of the run, written by Orbax in the background.

A checkpoint that is damaged is noticed when it is read (`arrays.read_arrays`), and the run goes on from the last good
one. The damaged one is moved to `damaged-STEP/` in the folder of the run, as nobody but its owner knows what it is
still good for.

Several processes write one checkpoint together, each a part of the arrays, into a folder that all share. Nothing in it
tells how many they were, so any other number of processes can go on from it. What the first process finds in the folder
counts for all.
"""

from __future__ import annotations

import contextlib
import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

from jaxmoxi.errors import InputError, warn
from jaxmoxi.p2p.arrays import (
    DamagedError,
    by_name,
    check_space,
    clear_errors,
    flatten,
    read_arrays,
    unflatten,
    with_checksums,
)
from jaxmoxi.p2p.processes import Team

STEPS = "checkpoints"


class Checkpoints:
    """The checkpoints of a training run: written in the background, whole or not at all.

    folder: the folder of the run. Reading changes nothing in it; the first `save` removes what a killed run left
            half-written.
    keep:   how many of the last checkpoints stay, besides the one with the best score.
    team:   the processes that write together; all of them save and restore at once.
    """

    def __init__(self, folder: Path, *, keep: int = 2, team: Team = Team()):  # noqa: B008
        self._folder, self._keep, self._team = folder / STEPS, keep, team
        self._orbax: Any = None
        self._writing: tuple[int, Any] | None = None

    @property
    def steps(self) -> list[int]:
        """The steps that are kept, ascending."""
        if not self._folder.is_dir():
            return []
        return sorted(int(p.name) for p in self._folder.iterdir() if p.name.isdecimal() and p.is_dir())

    @property
    def latest(self) -> int | None:
        """The last step that is kept; None if there is none."""
        return max(self.steps, default=None)

    @property
    def best(self) -> int | None:
        """The step with the best score; of equals, the last. None if no checkpoint has a score.

        Raises ValueError for scores that are damaged.
        """
        scored = [(score, step) for step in self.steps if (score := self._score(step)) is not None]
        return max(scored)[1] if scored else None

    def save(self, step: int, tree: Any, *, score: float | None = None) -> None:
        """Starts to write a checkpoint. The tree may be donated as soon as this returns.

        Several processes wait for the end of it here: their writers meet in collectives, which must not get between
        those of the next step.

        Raises OSError if this or an earlier checkpoint could not be written.
        """
        self.wait()
        metrics: Any = None if score is None else {"score": score, "check": _score_check(step, score)}
        arrays: dict[str, Any] = with_checksums(flatten(tree))
        if self._team.count > 1:  # global arrays, as Orbax divides the writing of those among the processes
            arrays |= {name: array for name, array in by_name(tree).items() if isinstance(array, jax.Array)}
        with self._clear_errors(step):
            again = self._team.said_by_first(lambda: self._prepare(step, arrays))
            response = self._open().save_async(step, arrays, force=True, overwrite=again, metrics=metrics)
            self._writing = (step, response)
        if self._team.count > 1:
            self.wait()

    def wait(self) -> None:
        """Waits until a checkpoint that was started is on disk. Raises OSError if it could not be written."""
        if self._writing is None:
            return
        step, response = self._writing
        self._writing = None
        with self._clear_errors(step):
            response.result()

    def restore(self, step: int, like: Any) -> Any:
        """The tree of a step that is kept, with the structure of `like`. Raises ValueError as `load` does."""
        source = self._folder / str(step)
        return unflatten(like, read_arrays(source), str(source))

    def restore_last(self, like: Any) -> tuple[int, Any] | None:
        """The step and the tree of the last checkpoint that is good; None where there is none at all.

        Of several processes, the first calls this.

        Later ones, which are damaged, are moved out of the way, with one warning.
        Raises ValueError if all are damaged.
        """
        found = self.last_good()
        if found is None:
            return None
        step, arrays, damaged = found
        tree = unflatten(like, arrays, str(self._folder / str(step)))
        if damaged:
            places = [self._set_aside(bad) for bad, _ in damaged]
            warn(
                f"{describe_damaged(damaged)}: the run goes on from step {step}. What is damaged is now in "
                f"{', '.join(map(str, places))}, and can be removed",
            )
        return step, tree

    def last_good(self) -> tuple[int, dict[str, np.ndarray], list[tuple[int, str]]] | None:
        """(step, arrays, damaged) of the last good checkpoint; `damaged` lists later steps and what is wrong with each.

        None where there is no checkpoint. Raises ValueError if all are damaged.
        """
        damaged: list[tuple[int, str]] = []
        for step in reversed(self.steps):
            try:
                return step, read_arrays(self._folder / str(step)), damaged
            except DamagedError as error:
                damaged.append((step, error.reason))
        if damaged:
            raise InputError(
                f"{self._folder} holds no checkpoint that is good: {describe_damaged(damaged)}. Copy the folder again, "
                "or begin anew in another one"
            )
        return None

    def _score(self, step: int) -> float | None:
        path = self._folder / str(step) / "metrics" / "metrics"
        if not path.parent.exists():
            return None
        try:
            found = json.loads(path.read_text("utf-8"))
            score = float(found["score"])
            good = found.get("check") in (None, _score_check(step, score))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            good, score = False, 0.0
        if not good:
            raise DamagedError(path, "its score is not the one that was written")
        return score

    def _prepare(self, step: int, arrays: Mapping[str, Any]) -> bool:
        """Makes the folder ready for a checkpoint, and returns whether there is one of this step already."""
        if self._orbax is None:  # Orbax does not open the folder where a score cannot be read
            for old in self.steps:
                try:
                    self._score(old)
                except DamagedError as error:
                    place = self._set_aside(old)
                    warn(f"the checkpoint of step {old} is damaged ({error.reason}); it is now in {place}")
        self._folder.mkdir(parents=True, exist_ok=True)
        check_space(self._folder, arrays)
        return step in self.steps  # of a run that was stopped in its validation

    def _open(self) -> Any:
        """Orbax's own view of the folder."""
        if self._orbax is None:
            policies: Any = ocp.training.preservation_policies
            best = policies.BestN(get_metric_fn=lambda m: m["score"], n=1, keep_checkpoints_without_metrics=False)
            self._orbax = ocp.training.Checkpointer(
                str(self._folder),
                preservation_policy=policies.AnyPreservationPolicy([policies.LatestN(self._keep), best]),
                cleanup_tmp_directories=True,
            )
        return self._orbax

    def _set_aside(self, step: int) -> Path:
        """Moves a checkpoint out of the run's sight, and returns where it is now."""
        number, place = 1, self._folder.parent / f"damaged-{step}"
        while place.exists():
            number += 1
            place = place.with_name(f"damaged-{step}-{number}")
        return (self._folder / str(step)).rename(place)

    def _clear_errors(self, step: int) -> contextlib.AbstractContextManager[None]:
        good = [s for s in self.steps if s < step]
        kept = f"the checkpoint of step {good[-1]} is untouched" if good else "there is no earlier checkpoint"
        return clear_errors(self._folder / str(step), f"{kept}; start again to go on from there")

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, kind: Any, *_: Any) -> None:
        """Closes Orbax. After an error of several processes it does not: that would wait for those that are gone."""
        if kind is None:
            self.wait()
            if self._orbax is not None:
                self._orbax.close()
        elif self._team.count == 1:  # the error that is being raised says more than an error in closing would
            with contextlib.suppress(Exception):
                self.wait()
                if self._orbax is not None:
                    self._orbax.close()


def describe_damaged(damaged: list[tuple[int, str]]) -> str:
    """Which checkpoints are damaged, and how, in a part of a sentence."""
    steps = ", ".join(f"of step {step} ({reason})" for step, reason in damaged)
    return f"the checkpoint{'s' if len(damaged) > 1 else ''} {steps} {'are' if len(damaged) > 1 else 'is'} damaged"


def _score_check(step: int, score: float) -> int:
    """A checksum of a score, by which a changed one is noticed."""
    return zlib.crc32(f"{step} {score!r}".encode())
