"""The folder of a training run besides its checkpoints: whose it is, and the history."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import jaxmoxi.files as files
from jaxmoxi.errors import InputError
from jaxmoxi.files import write_whole
from jaxmoxi.p2p.arrays import seal
from jaxmoxi.p2p.checkpoint import RECORD, commit, read_record
from jaxmoxi.p2p.model import P2P
from jaxmoxi.p2p.processes import Team
from jaxmoxi.p2p.training.checkpoints import STEPS
from jaxmoxi.p2p.training.config import OBJECTIVE
from jaxmoxi.p2p.training.curves import FILE as CURVES

_HISTORY = "history.jsonl"
_TRAIN = {"train", "training"}  # what the settings are called in a record, today and in older ones


def claim(folder: Path, record: dict[str, Any], *, resume: bool) -> None:
    """Makes the folder this run's, or checks that it is.

    record: "config", "class_names" and "train", the settings that decide what the run computes.
    Raises ValueError for a folder that holds something else, or a run with other settings, which it lists.
    """
    if (folder / RECORD).exists():
        if not _TRAIN & read_record(folder).keys():
            raise InputError(f"{folder} already holds a saved model; train in another directory")
        if not resume:
            raise InputError(f"{folder} already holds a training run; resume it, or train in another directory")
    files.claim(folder, RECORD, seal({**record, "arrays": None}), kind="run", settings=_settings)


def give_up(folder: Path) -> None:
    """Makes a folder free again whose run failed before its first checkpoint: there is nothing to go on from."""
    kept = folder / STEPS
    checkpoints = kept.is_dir() and any(step.name.isdigit() for step in kept.iterdir())
    if checkpoints or read_record(folder).get("arrays") is not None:
        return
    shutil.rmtree(kept, ignore_errors=True)
    for name in (RECORD, CURVES, _HISTORY):
        (folder / name).unlink(missing_ok=True)


def _settings(record: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What decides what a run computes, nested, as `config` and `train` share the name `classifier`.

    Older records call the second "training" and have a part of it in the first.
    """
    config = dict(record["config"])
    moved = {name: config.pop(name) for name in OBJECTIVE if name in config}
    (train,) = (record[name] for name in _TRAIN & record.keys())
    return {"config": config, "train": {**moved, **train}}


def finish(folder: Path, record: dict[str, Any], model: P2P, team: Team) -> None:
    """Writes the model that the run ended with, unless it is there already."""
    if team.said_by_first(lambda: read_record(folder).get("arrays") is None):
        commit(folder, record, model, team)


def read_history(folder: Path, step: int | None = None) -> list[dict[str, Any]]:
    """The records of the epochs that had ended by this step; None for all.

    Raises ValueError that names the file and the line, if the file is damaged.
    """
    path = folder / _HISTORY
    if not path.exists():
        return []
    way_out = "remove the file; the run then goes on, without the records of the epochs before"
    try:
        lines = path.read_text("utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is damaged: it is no text from byte {error.start} on; {way_out}") from None
    history: list[dict[str, Any]] = []
    for number, text in enumerate(lines, 1):
        line: dict[str, Any] = {}
        try:
            line = json.loads(text)
            last = history[-1]["step"] if history else 0
            good = type(line["step"]) is int and type(line["epoch"]) is int and line["step"] > last
        except (ValueError, KeyError, TypeError, RecursionError):
            good = False
        if not good:
            raise InputError(
                f"{path} is damaged: line {number} is not the record of an epoch ({text[:60]!r}); {way_out}"
            )
        history.append(line)
    return [line for line in history if step is None or line["step"] <= step]


def write_history(folder: Path, history: list[dict[str, Any]]) -> None:
    """Writes the whole file at once, so that no line is ever there in part, or twice."""
    write_whole(folder / _HISTORY, "".join(json.dumps(line) + "\n" for line in history))
