"""The arrays of models and runs on disk, by name: written with Orbax, each with a checksum, and checked when read.

Orbax compresses what it stores and keeps no checksum of it, so a bit that flips on a disk or in a copy would be read as
another weight. Beside the arrays stands one more, `checksums`: the UTF-8 text of a JSON object, name -> checksum of
name, dtype, shape and bytes. It is written in the same step as the arrays. Arrays of older versions have none, and are
read unchecked.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import hashlib
import importlib
import itertools
import json
import logging
import os
import re
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from orbax.checkpoint import v1 as ocp

from jaxmoxi.errors import InputError, is_lost
from jaxmoxi.models.checkpoints.tensors import check_shapes

_CHECKSUMS = "checksums"


class DamagedError(InputError):
    """Files that are not what was written. `reason` says what is wrong without naming the folder."""

    def __init__(self, place: Path, reason: str):
        super().__init__(f"{place} is damaged or no checkpoint ({reason}); copy it again, or use another one")
        self.reason = reason


def local_folder(directory: str | os.PathLike[str]) -> Path:
    """The absolute path of a folder. Raises ValueError for the address of a bucket: it is no path of this machine."""
    text = os.fspath(directory)
    if re.match(r"[A-Za-z][A-Za-z0-9+]+:/", text):
        raise InputError(f"expected a folder of this machine; got {text!r}: mount the bucket, or copy to it afterwards")
    return Path(text).absolute()


def flatten(tree: Any) -> dict[str, np.ndarray]:
    """The arrays of a pytree by their path, copied to the host, floats as float32."""
    return {name: np.array(array) for name, array in by_name(tree).items()}


def by_name(tree: Any) -> dict[str, np.ndarray | jax.Array]:
    """The arrays of a pytree by their path, where they are, floats as float32."""
    flat = {_name(path): leaf for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]}
    return {n: a.astype(np.float32) if jnp.issubdtype(a.dtype, jnp.floating) else a for n, a in flat.items()}


def unflatten(like: Any, arrays: Mapping[str, Any], source: str) -> Any:
    """The pytree that `flatten` turned into `arrays`; it has the structure of `like`.

    Raises ValueError that lists what is missing, extra and misshapen.
    """
    paths, structure = jax.tree_util.tree_flatten_with_path(like)
    check_shapes({_name(path): leaf.shape for path, leaf in paths}, arrays, source)
    return structure.unflatten([jnp.asarray(arrays[_name(path)], leaf.dtype) for path, leaf in paths])


def _name(path: tuple[Any, ...]) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/").removesuffix("/value")


def with_checksums(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What is written to disk for these arrays: themselves, and their checksums."""
    text = json.dumps({name: _checksum(name, array) for name, array in arrays.items()})
    return {**arrays, _CHECKSUMS: np.frombuffer(text.encode(), np.uint8)}


def read_arrays(folder: Path) -> dict[str, np.ndarray]:
    """The arrays under a folder, by name, checked against their checksums where they have some.

    Raises DamagedError that names the folder, and the first array that is not the one written.
    """
    reason, arrays = "", {}
    with _silent():  # Orbax and its storage print pages about what one line says here
        try:
            with _alone():
                found = ocp.metadata(str(folder)).metadata
                if not isinstance(found, dict) or not all(hasattr(a, "shape") for a in found.values()):
                    raise TypeError("no arrays by name")
                # As NumPy's: a run on other devices wrote them, and where they lay there is written beside them.
                arrays = {
                    name: np.asarray(a) for name, a in ocp.load(str(folder), dict.fromkeys(found, np.ndarray)).items()
                }
        except Exception as error:  # the storage raises a dozen kinds of errors, which are one to a user
            reason = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:200]}"
        if reason:
            _let_fade()
    if reason:
        raise DamagedError(folder, reason)
    if _CHECKSUMS not in arrays:
        return arrays
    try:
        expected = json.loads(arrays.pop(_CHECKSUMS).tobytes().decode())
        expected = {str(name): str(value) for name, value in expected.items()}
    except (ValueError, AttributeError):
        raise DamagedError(folder, "its checksums cannot be read") from None
    for name in sorted(expected.keys() | arrays.keys()):
        if name not in arrays or _checksum(name, arrays[name]) != expected.get(name):
            raise DamagedError(folder, f"the array {name!r} is not the one that was written: its checksum differs")
    return arrays


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Reading is for this process alone. Orbax would else wait for all processes of a run to read the same.

    Orbax counts what it does, and in a save the processes wait for each other by that number. So what one does alone
    must not count; no public function says so.
    """
    if jax.process_count() == 1:
        yield
        return
    try:
        numbers: Any = importlib.import_module("orbax.checkpoint._src.futures.synchronization").OperationIdGenerator
        before = int(numbers.get_current_operation_id())
    except (ImportError, AttributeError):
        numbers, before = None, 0
    context: Any = ocp.Context()
    context.multiprocessing.primary_host = jax.process_index()
    context.multiprocessing.active_processes = {jax.process_index()}
    try:
        with context:
            yield
    finally:
        if numbers is not None:
            numbers._operation_id, numbers._operation_id_counter = before, itertools.count(before + 1)


def _checksum(name: str, array: np.ndarray) -> str:
    made = hashlib.blake2b(f"{name} {array.dtype.str} {list(array.shape)} ".encode(), digest_size=8)
    made.update(np.ascontiguousarray(array).data)
    return made.hexdigest()


def seal(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record that JSON can hold, with a checksum of its content under the name "checksum"."""
    content = json.loads(json.dumps(record))
    content.pop("checksum", None)
    return {**content, "checksum": _record_checksum(content)}


def is_intact(record: Mapping[str, Any]) -> bool:
    """Whether a record is what `seal` made; True for one without a checksum, as older versions wrote."""
    content = {name: value for name, value in record.items() if name != "checksum"}
    return "checksum" not in record or record["checksum"] == _record_checksum(content)


def _record_checksum(content: Mapping[str, Any]) -> str:
    return hashlib.blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=8).hexdigest()


def check_space(folder: Path, arrays: Mapping[str, np.ndarray | jax.Array]) -> None:
    """Raises OSError if the arrays do not fit. The storage would find out too, and print a page of tracebacks."""
    if shutil.disk_usage(folder).free < sum(a.nbytes for a in arrays.values()):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@contextlib.contextmanager
def clear_errors(place: Path, state: str) -> Iterator[None]:
    """Turns errors in writing into one OSError that says where, why, and what is still intact."""
    with _silent():
        try:
            yield
            return
        except Exception as error:  # the storage reports the system's errors in a dozen kinds of its own
            if is_lost(error):
                raise
            full = getattr(error, "errno", None) == errno.ENOSPC or os.strerror(errno.ENOSPC) in str(error)
            reason = "the disk is full" if full else str(error).strip().partition("\n")[0][:200] or type(error).__name__
            number = errno.ENOSPC if full else getattr(error, "errno", None) or errno.EIO
        _let_fade()
    raise OSError(number, f"{reason}: could not write {place}; {state}")


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Nothing is printed by those who read and write: Orbax (as absl and at the root), asyncio and the storage."""
    loggers, usual = [logging.getLogger(name) for name in ("absl", "asyncio", "")], sys.unraisablehook

    def none(record: logging.LogRecord) -> bool:
        return False

    def hook(error: Any) -> None:  # the storage answers an event loop that Orbax has closed after another's error
        if str(error.exc_value) != "Event loop is closed":
            usual(error)

    for logger in loggers:
        logger.addFilter(none)
    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = usual
        for logger in loggers:
            logger.removeFilter(none)


def _let_fade() -> None:
    """Lets the threads of the storage and the tasks that failed say what they have to say, while nobody listens."""
    gc.collect()
    time.sleep(0.2)
