"""How a P2P model and a training run are kept on disk, with Orbax.

A folder holds `config.json` (the configuration, the classes' names, a run's settings) and the arrays beside it:

    config.json      names the folder of the arrays; replacing this file is what commits a `save`
    arrays-XXXX/     the model, float32, by name
    checkpoints/N/   of a training run: everything needed to continue after step N
    history.jsonl    of a training run: a line for each epoch

Arrays are kept flat, by their path in the model, so names and shapes show whether a checkpoint is of another
architecture. Nothing is pickled. A write that is cut short, by SIGKILL or by a full disk, leaves what was there before.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from orbax.checkpoint import v1 as ocp

from jaxmoxi.errors import InputError
from jaxmoxi.files import write_whole
from jaxmoxi.models.checkpoints.tensors import check_tensors
from jaxmoxi.p2p.config import Config
from jaxmoxi.p2p.model import P2P, init

RECORD = "config.json"
_STEPS = "checkpoints"


def save(directory: str | os.PathLike[str], model: P2P, *, class_names: tuple[str, ...] | None = None) -> None:
    """Writes a model into a folder, which is made if it is missing. An earlier model there is replaced as a whole.

    class_names: names of the K classes, kept beside the model.
    Raises ValueError for a wrong number of names, and OSError if the folder cannot be written.
    """
    if class_names is not None and len(class_names) != model.config.num_classes:
        raise InputError(f"expected {model.config.num_classes} class names; got {len(class_names)}")
    record = {"config": json.loads(model.config.to_json()), "class_names": class_names and list(class_names)}
    commit(Path(directory), record, model)


def commit(folder: Path, record: Mapping[str, Any], model: P2P | None) -> None:
    """Writes the arrays, then the record that names them, then removes the arrays it named before."""
    folder = folder.absolute()
    arrays = None
    with _clear_errors(folder, "what was there before is untouched"):
        folder.mkdir(parents=True, exist_ok=True)
        if model is not None:
            arrays = f"arrays-{uuid.uuid4().hex[:8]}"
            flat = flatten(model)
            _check_space(folder, flat)
            try:
                ocp.save(str(folder / arrays), flat)
                # This file names the folder written to, which a model that is passed on should not. Nothing reads it.
                (folder / arrays / "commit_success.txt").unlink(missing_ok=True)
            except BaseException:
                for draft in folder.glob(f"{arrays}*"):
                    shutil.rmtree(draft, ignore_errors=True)
                raise
        write_whole(folder / RECORD, json.dumps({**record, "arrays": arrays}, indent=1))
    for old in folder.glob("arrays-*"):
        if old.name != arrays:
            shutil.rmtree(old, ignore_errors=True)


def load(directory: str | os.PathLike[str], *, best: bool = False) -> P2P:
    """Reads a model from a folder of `save` or of a training run. An unfinished run gives its last checkpoint.

    best: True takes, of a training run, the checkpoint with the best score in validation (see `fit`).
    Raises ValueError for a folder that is missing or damaged, and for arrays that do not fit the configuration beside
    them; the message lists what is missing, extra and misshapen.
    """
    folder = Path(directory).absolute()
    record = read_record(folder)
    config = Config.from_json(json.dumps(record["config"]))
    expected = jax.eval_shape(lambda: init(jax.random.key(0), config))
    if record.get("arrays") and not best:
        return unflatten(expected, _read(folder / record["arrays"]), str(folder))
    if not (folder / _STEPS).is_dir():
        raise InputError(f"{folder} holds no checkpoints; expected a folder of a training run")
    with Checkpoints(folder, writes=False) as checkpoints:
        step = checkpoints.best if best else checkpoints.latest
    if step is None:
        kind = "validated checkpoint" if best else "checkpoint"
        raise InputError(f"{folder} holds no {kind} yet; expected one under {_STEPS}/, which training writes")
    source = folder / _STEPS / str(step)
    prefix = "state/model/"
    arrays = {n.removeprefix(prefix): a for n, a in _read(source).items() if n.startswith(prefix)}
    return unflatten(expected, arrays, str(source))


def load_class_names(directory: str | os.PathLike[str]) -> tuple[str, ...] | None:
    """The names of the classes of a saved model; None if it was saved without. Raises ValueError as `load` does."""
    names = read_record(Path(directory).absolute()).get("class_names")
    return None if names is None else tuple(names)


def read_record(folder: Path) -> dict[str, Any]:
    """The content of `config.json`. Raises ValueError if there is none, or none of ours."""
    path = folder / RECORD
    if not path.is_file():
        found = "a folder without it" if folder.is_dir() else "no such folder"
        raise InputError(f"expected a P2P checkpoint, a folder with {RECORD}; {folder} is {found}")
    try:
        record = json.loads(path.read_text("utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError):
        record = None
    if not isinstance(record, dict) or not isinstance(record.get("config"), dict):
        raise InputError(f"{path} is not the record of a P2P checkpoint; is it damaged, or another program's?")
    return record


class Checkpoints:
    """The checkpoints of a training run: written in the background, whole or not at all.

    folder: the folder of the run.
    keep:   how many of the last checkpoints stay, besides the one with the best score.
    writes: True removes what a killed run left half-written. False leaves it alone, as a run may be writing it.
    """

    def __init__(self, folder: Path, *, keep: int = 2, writes: bool = True):
        policies: Any = ocp.training.preservation_policies
        self._folder = folder / _STEPS
        best = policies.BestN(get_metric_fn=lambda m: m["score"], n=1, keep_checkpoints_without_metrics=False)
        self._orbax = ocp.training.Checkpointer(
            str(self._folder),
            preservation_policy=policies.AnyPreservationPolicy([policies.LatestN(keep), best]),
            cleanup_tmp_directories=writes,
        )
        self._writing: tuple[int, Any] | None = None

    @property
    def latest(self) -> int | None:
        """The last step that is kept; None if there is none."""
        steps = self._orbax.checkpoints
        return steps[-1].step if steps else None

    @property
    def best(self) -> int | None:
        """The step with the best score; of equals, the last. None if no checkpoint has a score."""
        scored = [(c.metrics["score"], c.step) for c in self._orbax.checkpoints if c.metrics]  # type: ignore[index]
        return max(scored)[1] if scored else None

    def save(self, step: int, tree: Any, *, score: float | None = None) -> None:
        """Starts to write a checkpoint. The tree may be donated as soon as this returns.

        Raises OSError if this or an earlier checkpoint could not be written.
        """
        self.wait()
        metrics: Any = None if score is None else {"score": score}
        flat = flatten(tree)
        with self._clear_errors(step):
            _check_space(self._folder, flat)
            self._writing = step, self._orbax.save_async(step, flat, force=True, metrics=metrics)

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
        return unflatten(like, _read(source), str(source))

    def _clear_errors(self, step: int) -> contextlib.AbstractContextManager[None]:
        good = [c.step for c in self._orbax.checkpoints if c.step < step]
        kept = f"the checkpoint of step {good[-1]} is untouched" if good else "there is no earlier checkpoint"
        return _clear_errors(self._folder / str(step), f"{kept}; start again to go on from there")

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, kind: Any, *_: Any) -> None:
        if kind is None:
            self.wait()
            self._orbax.close()
        else:  # the error that is being raised says more than an error in closing would
            with contextlib.suppress(Exception):
                self.wait()
                self._orbax.close()


def flatten(tree: Any) -> dict[str, np.ndarray]:
    """The arrays of a pytree by their path, copied to the host, floats as float32."""
    flat = {_name(path): np.array(leaf) for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]}
    return {n: a.astype(np.float32) if jnp.issubdtype(a.dtype, jnp.floating) else a for n, a in flat.items()}


def unflatten(like: Any, arrays: Mapping[str, Any], source: str) -> Any:
    """The pytree that `flatten` turned into `arrays`; it has the structure of `like`.

    Raises ValueError that lists what is missing, extra and misshapen.
    """
    paths, structure = jax.tree_util.tree_flatten_with_path(like)
    check_tensors({_name(path): leaf.shape for path, leaf in paths}, arrays, source)
    return structure.unflatten([jnp.asarray(arrays[_name(path)], leaf.dtype) for path, leaf in paths])


def _check_space(folder: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Raises OSError if the arrays do not fit. The storage would find out too, and print a page of tracebacks."""
    if shutil.disk_usage(folder).free < sum(a.nbytes for a in arrays.values()):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _name(path: tuple[Any, ...]) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/").removesuffix("/value")


def _read(folder: Path) -> dict[str, Any]:
    """The arrays under a folder, by name."""
    try:
        arrays = ocp.load(str(folder))
        if not isinstance(arrays, dict) or not all(hasattr(a, "shape") for a in arrays.values()):
            raise TypeError("no arrays by name")
        return arrays
    except Exception as error:  # Orbax and its storage raise a dozen kinds of errors, which are one to a user
        reason = str(error).strip().partition("\n")[0][:200]
        raise InputError(f"{folder} is damaged or no checkpoint ({type(error).__name__}: {reason})") from error


@contextlib.contextmanager
def _clear_errors(place: Path, state: str) -> Iterator[None]:
    """Turns errors in writing into one OSError that says where, why, and what is still intact."""
    try:
        yield
    except Exception as error:  # the storage reports the system's errors in a dozen kinds of its own
        full = getattr(error, "errno", None) == errno.ENOSPC or os.strerror(errno.ENOSPC) in str(error)
        reason = "the disk is full" if full else str(error).strip().partition("\n")[0][:200] or type(error).__name__
        number = errno.ENOSPC if full else getattr(error, "errno", None) or errno.EIO
        raise OSError(number, f"{reason}: could not write {place}; {state}") from error
