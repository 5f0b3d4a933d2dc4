"""How a P2P model and a training run are kept on disk, with Orbax.

A folder holds `config.json` (the configuration, the classes' names, a run's settings) and the arrays beside it:

    config.json      names the folder of the arrays; replacing this file is what commits a `save`
    arrays-XXXX/     the model, float32, by name
    checkpoints/N/   of a training run: everything needed to continue after step N
    history.jsonl    of a training run: a line for each epoch

Arrays are kept flat, by their path in the model, so names and shapes show whether a checkpoint is of another
architecture. Nothing is pickled. A write that is cut short, by SIGKILL or by a full disk, leaves what was there before.
The record and every array have a checksum, so that a bit that flipped on the disk or in a copy is noticed at reading.
"""

from __future__ import annotations

import json
import os
import shutil
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
from orbax.checkpoint import v1 as ocp

from jaxmoxi.errors import InputError, warn
from jaxmoxi.files import write_whole
from jaxmoxi.p2p.arrays import (
    DamagedError,
    check_space,
    clear_errors,
    flatten,
    is_intact,
    local_folder,
    read_arrays,
    seal,
    unflatten,
    with_checksums,
)
from jaxmoxi.p2p.config import Config
from jaxmoxi.p2p.model import P2P, init
from jaxmoxi.p2p.processes import Team
from jaxmoxi.p2p.training.checkpoints import STEPS, Checkpoints, describe_damaged

RECORD = "config.json"


def save(directory: str | os.PathLike[str], model: P2P, *, class_names: tuple[str, ...] | None = None) -> None:
    """Writes a model into a folder, which is made if it is missing. An earlier model there is replaced as a whole.

    class_names: names of the K classes, kept beside the model.
    Under `jax.distributed` all processes call this, with the same folder and the same model.
    Raises ValueError for a wrong number of names, and for a folder that holds a training run or another program's
    config.json; OSError if the folder cannot be written.
    """
    if class_names is not None and len(class_names) != model.config.num_classes:
        raise InputError(f"expected {model.config.num_classes} class names; got {len(class_names)}")
    record = {"config": json.loads(model.config.to_json()), "class_names": class_names and list(class_names)}
    folder = local_folder(directory)
    _check_replaceable(folder)
    commit(folder, record, model, Team(jax.process_index(), jax.process_count()))


def _check_replaceable(folder: Path) -> None:
    """Raises ValueError where saving a model would destroy something else."""
    for place in (folder, *folder.parents):
        if place.exists() and not place.is_dir():
            raise InputError(f"expected a folder to save the model in; {place} is a file")
    if not (folder / RECORD).exists():
        return
    try:
        found = read_record(folder)
    except DamagedError:
        return  # an earlier model, damaged
    except InputError:
        raise InputError(
            f"{folder} holds a {RECORD} that is not jaxmoxi's, which would be lost: save the model in another folder"
        ) from None
    if {"train", "training"} & found.keys():
        raise InputError(
            f"{folder} holds a training run, whose settings and checkpoints would be lost: save the model in another "
            "folder"
        )


def commit(folder: Path, record: Mapping[str, Any], model: P2P, team: Team) -> None:
    """Writes the arrays, then the record that names them, then removes the arrays it named before.

    team: all processes, as Orbax waits for all of them. The first one writes.
    """
    with clear_errors(folder, "what was there before is untouched"):
        flat = flatten(model)

        def prepare() -> str:
            folder.mkdir(parents=True, exist_ok=True)
            check_space(folder, flat)
            return f"arrays-{uuid.uuid4().hex[:8]}"

        arrays = team.said_by_first(prepare)
        try:
            ocp.save(str(folder / arrays), with_checksums(flat))
            # This file names the folder written to, which a model that is passed on should not. Nothing reads it.
            (folder / arrays / "commit_success.txt").unlink(missing_ok=True)
        except BaseException:
            _discard(folder, arrays)
            raise
        team.said_by_first(
            lambda: write_whole(folder / RECORD, json.dumps(seal({**record, "arrays": arrays}), indent=1))
        )
    for old in folder.glob("arrays-*") if team.first else ():
        if old.name != arrays:
            shutil.rmtree(old, ignore_errors=True)


def _discard(folder: Path, arrays: str) -> None:
    """Removes what a failed write left. Its other threads may still be writing, so until nothing more appears."""
    unseen = 0
    for _ in range(100):
        drafts = list(folder.glob(f"{arrays}*"))
        for draft in drafts:
            shutil.rmtree(draft, ignore_errors=True)
        unseen = 0 if drafts else unseen + 1
        if unseen == 5:
            return
        time.sleep(0.02)


def load(directory: str | os.PathLike[str], *, best: bool = False) -> P2P:
    """Reads a model from a folder of `save` or of a training run. An unfinished run gives its last checkpoint.

    best: True takes, of a training run, the checkpoint with the best score in validation (see `fit`).
    Warns where the last checkpoint of an unfinished run is damaged, and an earlier one takes its place.
    Raises ValueError for a folder that is missing or damaged (one bit is enough, if it changes an array), and for
    arrays that do not fit the configuration beside them; the message lists what is missing, extra and misshapen.
    """
    folder = local_folder(directory)
    record = read_record(folder)
    config = Config.from_json(json.dumps(record["config"]))
    expected = jax.eval_shape(lambda: init(jax.random.key(0), config))
    if record.get("arrays") and not best:
        source = folder / record["arrays"]
        return unflatten(expected, read_arrays(source), str(source))
    if not (folder / STEPS).is_dir():
        raise InputError(f"{folder} holds no checkpoints; expected a folder of a training run")
    source, arrays = _of_run(folder, best=best)
    averaged = any(name.startswith("state/average/") for name in arrays)  # which is then the run's model
    prefix = "state/average/" if averaged else "state/model/"
    model = {n.removeprefix(prefix): a for n, a in arrays.items() if n.startswith(prefix)}
    return unflatten(expected, model, str(source))


def _of_run(folder: Path, *, best: bool) -> tuple[Path, Mapping[str, Any]]:
    """Where the best or the last checkpoint of a training run is, and its arrays. Warns if the last one is damaged."""
    checkpoints = Checkpoints(folder)
    if best:
        step = checkpoints.best
        if step is not None:
            return folder / STEPS / str(step), read_arrays(folder / STEPS / str(step))
    elif found := checkpoints.last_good():
        step, arrays, damaged = found
        if damaged:
            warn(f"{describe_damaged(damaged)}: {folder} gives the model of step {step}")
        return folder / STEPS / str(step), arrays
    kind = "validated checkpoint" if best else "checkpoint"
    raise InputError(f"{folder} holds no {kind} yet; expected one under {STEPS}/, which training writes")


def load_class_names(directory: str | os.PathLike[str]) -> tuple[str, ...] | None:
    """The names of the classes of a saved model; None if it was saved without. Raises ValueError as `load` does."""
    names = read_record(local_folder(directory)).get("class_names")
    return None if names is None else tuple(names)


def read_record(folder: Path) -> dict[str, Any]:
    """The content of `config.json`. Raises ValueError if there is none, or none of ours."""
    path = folder / RECORD
    if not path.is_file():
        found = "a folder without it" if folder.is_dir() else "no such folder"
        raise InputError(f"expected a P2P checkpoint, a folder with {RECORD}; {folder} is {found}")
    try:
        record = json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError):  # no JSON, or no text at all
        record = None
    if not isinstance(record, dict) or not isinstance(record.get("config"), dict):
        raise InputError(f"{path} is not the record of a P2P checkpoint; is it damaged, or another program's?")
    arrays, names = record.get("arrays"), record.get("class_names")
    if not (arrays is None or (isinstance(arrays, str) and Path(arrays).name == arrays)):
        raise InputError(f"{path} names the folder of its arrays as {arrays!r}; expected a name, or null")
    if not (names is None or (isinstance(names, list) and all(isinstance(name, str) for name in names))):
        raise InputError(f"{path} does not hold the classes' names as a list of texts: it is damaged")
    if not is_intact(record):
        raise DamagedError(
            path, 'it does not fit its checksum; if it was changed by hand and on purpose, remove its entry "checksum"'
        )
    return record
