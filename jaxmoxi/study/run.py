"""The study: shard after shard of photos under each model, then one report. Any part of it may be killed at any time.

What is done is what has a whole shard on disk, nothing else is remembered: the same call goes on where the last one
ended, loses at most the shards in flight, and finds nothing to do in a finished study. A photo's numbers follow from
the photo, the settings and the seed alone, so it makes no difference who computes which shard, or when.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from etils import epath
from jax.sharding import Mesh
from tqdm import tqdm

from jaxmoxi.errors import InputError, NaNValueError
from jaxmoxi.files import sweep_drafts
from jaxmoxi.study.config import StudyConfig, fingerprint
from jaxmoxi.study.measure import NotCorrectError, Setting, measure_photo, setting
from jaxmoxi.study.photos import (
    Photo,
    UnreadableError,
    as_text,
    box_array,
    list_photos,
    photo_folder,
    read_mask,
    read_photo,
)
from jaxmoxi.study.report import report_path, write_report
from jaxmoxi.study.store import claim, shard_path, write_shard

OK, UNREADABLE, INCORRECT, FAILED = "ok", "unreadable", "not classified correctly", "failed"


def run_study(
    photos: Any,
    models: Mapping[str, Any],
    out: Any,
    config: StudyConfig,
    *,
    shard_size: int = 4,
    mesh: Mesh | None = None,
    batch_size: int | None = None,
    process: tuple[int, int] = (0, 1),
    progress: bool = True,
    poll_seconds: float = 2.0,
) -> epath.Path:
    """Runs a study, or what is left of it, and returns the path of its report.

    photos:     see `photos.list_photos`.
    models:     classifiers (`jaxmoxi.models.load`) by the name they have in the report; of the same classes.
    out:        the study's folder, any `etils.epath` path.
    shard_size: photos a shard, the unit of work, of loss, and of sharing among processes; part of the settings.
    mesh:       the devices of this process that share coalitions (`jaxmoxi.local_mesh`); None: one.
    batch_size: coalitions per chunk, all devices together; None chooses. No part of the settings.
    process:    (index, count) of this process among those that share the work; they see the same photos and write to
                the same folder. Each takes every count-th shard; number 0 waits for all and writes the report, the
                others wait for the report.

    Photos that cannot be read, or whose computation fails, are listed in the report; none ends the study.
    Raises ValueError, before anything long starts, for settings that do not fit the models or the folder's study;
    OSError if something cannot be written (what is written stays); MemoryError with the batch size to try.
    """
    out = epath.Path(out)
    if shard_size < 1:
        raise InputError(f"shard_size must be at least 1; got {shard_size}")
    index, count = process
    if not 0 <= index < count:
        raise InputError(f"expected a process (index, count) with index in 0 .. count - 1; got {process}")
    if not models:
        raise InputError("expected at least one model; got none")
    names = {model.class_names for model in models.values()}
    if len(names) > 1:
        raise InputError("expected models of the same classes; their class names differ")
    listed = _chosen(list_photos(photos, names.pop()), config)
    if all(photo.label < 0 for photo in listed) and (config.only_correct or config.target == "label"):
        raise InputError(
            f"{photos} does not tell what its photos show, and the study asks for it: put them into class folders, "
            "name a CSV file with labels, or study the predictions (target prediction, only_correct False)"
        )
    settings = {name: setting(model, config, mesh=mesh, batch_size=batch_size) for name, model in models.items()}
    prints = {name: fingerprint(model, listed) for name, model in models.items()}
    record = {
        "config": {**vars(config)},
        "models": {name: {**prints[name], "methods": list(s.methods)} for name, s in settings.items()},
        "order of the models": list(models),  # shards are numbered by it
        "shard_size": shard_size,
        "num_photos": len(listed),
    }
    if index == 0:
        claim(out, record)
    else:
        _wait(lambda: (out / "study.json").exists(), poll_seconds, "the first process to make the folder", progress)
        claim(out, record)
    if report_path(out).exists():
        return report_path(out)
    (out / "shards").mkdir(parents=True, exist_ok=True)
    shards = [(m, s) for m in range(len(models)) for s in range(-(-len(listed) // shard_size))]
    mine = [pair for i, pair in enumerate(shards) if i % count == index and not shard_path(out, *pair).exists()]
    folder = photo_folder(photos)
    with tqdm(total=len(mine) * shard_size, unit="photo", disable=None if progress else True) as bar:
        for m, s in mine:
            name, task = list(settings.items())[m]
            bar.set_description(name)
            part = range(s * shard_size, min((s + 1) * shard_size, len(listed)))
            rows = [_one(task, folder, listed[i], bar) for i in part]
            write_shard(shard_path(out, m, s), _stacked(part, [listed[i] for i in part], rows))
    if index == 0:
        missing = [pair for pair in shards if not shard_path(out, *pair).exists()]
        _wait(
            lambda: all(shard_path(out, *pair).exists() for pair in missing),
            poll_seconds,
            "the other processes",
            progress,
        )
        sweep_drafts(out / "shards")
        write_report(out, listed, list(settings.items()), [shard_path(out, *p) for p in shards], folder)
    else:
        _wait(report_path(out).exists, poll_seconds, "the report", progress)
    return report_path(out)


def _chosen(photos: Sequence[Photo], config: StudyConfig) -> list[Photo]:
    if config.num_photos is None or config.num_photos >= len(photos):
        return list(photos)
    places = np.linspace(0, len(photos) - 1, config.num_photos).round().astype(int)
    return [photos[i] for i in sorted(set(places.tolist()))]


def _wait(done: Callable[[], bool], seconds: float, what: str, progress: bool) -> None:
    if done():
        return
    if progress:
        tqdm.write(f"waiting for {what}")
    while not done():
        time.sleep(seconds)


def _one(task: Setting, folder: Any, photo: Photo, bar: Any) -> dict[str, Any]:
    started = time.perf_counter()
    row: dict[str, Any] = {"status": OK, "reason": ""}
    try:
        picture = read_photo(folder / photo.name)
        own = zlib.crc32(photo.name.encode("utf-8", "surrogateescape"))
        key = jax.random.fold_in(jax.random.key(task.config.seed), own)
        wanted = photo.mask and "localisation" in task.config.metrics
        mask = read_mask(folder / photo.mask, picture.size) if wanted else None
        row |= measure_photo(key, task, picture, label=photo.label, boxes=box_array(photo), mask=mask)
    except UnreadableError as error:
        row |= {"status": UNREADABLE, "reason": error.reason}
    except NotCorrectError as error:
        row |= {"status": INCORRECT, "reason": f"seen as {error}"}
    except (ValueError, NaNValueError) as error:
        row |= {"status": FAILED, "reason": " ".join(str(error).split())}
    bar.update()
    return row | {"seconds": time.perf_counter() - started}


def _stacked(part: range, photos: Sequence[Photo], rows: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """The photos of a shard as arrays: `PLACE/name` of each photo that has it, and columns of what all have."""
    out = {
        "index": np.asarray(part, np.int32),
        "photo": np.asarray([as_text(photo.name) for photo in photos]),
        "status": np.asarray([row["status"] for row in rows]),
        "reason": np.asarray([row["reason"] for row in rows]),
        "seconds": np.asarray([row["seconds"] for row in rows], np.float32),
    }
    for index, row in zip(part, rows, strict=True):
        kept = {name: value for name, value in row.items() if name not in out}
        out |= {f"{index}/{name}": np.asarray(value) for name, value in kept.items()}
    return out
