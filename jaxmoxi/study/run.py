"""The study: shard after shard of photos under each model, then one report. It may be killed at any time.

A shard is done when its whole file is on disk, and nothing else is remembered. The same call therefore goes on where
the last one ended, loses at most the shards in flight, and finds nothing to do in a finished study. A photo's numbers
follow from the photo, the settings and the seed alone, so it makes no difference who computes which shard, or when.
"""

from __future__ import annotations

import time
import warnings
import zlib
from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np
from etils import epath
from jax.sharding import Mesh
from tqdm import tqdm

from jaxmoxi.errors import InputError, NaNValueError
from jaxmoxi.files import PhotoWarning, sweep_drafts
from jaxmoxi.models.classifier import Classifier
from jaxmoxi.study.config import StudyConfig, fingerprint
from jaxmoxi.study.measure import NotCorrectError, Setting, measure_photo, setting
from jaxmoxi.study.photos import (
    Photo,
    UnreadableError,
    as_text,
    box_array,
    find_listed,
    photo_folder,
    read_mask,
    read_photo,
)
from jaxmoxi.study.records import FORMAT, Measured, Result, Status
from jaxmoxi.study.report import report_path, write_report
from jaxmoxi.study.store import check_format, claim, shard_path, write_shard


def run_study(
    photos: epath.PathLike,
    models: Mapping[str, Classifier],
    out: epath.PathLike,
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
    shard_size: photos in a shard, which is the unit of work, of loss, and of sharing among processes; part of the
                settings.
    mesh:       the devices of this process that share coalitions (`jaxmoxi.local_mesh`); None: one.
    batch_size: coalitions per chunk, all devices together; None chooses. No part of the settings.
    process:    (index, count) of this process among those that share the work; they see the same photos and write to
                the same folder. Each takes every count-th shard; number 0 waits for all and writes the report, the
                others wait for the report.

    The report lists photos that cannot be read, that do not fit the model, or for which the model returns NaN; none of
    them ends the study.
    Raises ValueError, before anything long starts, for settings that do not fit the models or the folder's study, and
    for a folder whose study another version wrote in another format; OSError if something cannot be written (what is
    written stays); MemoryError with the batch size to try.
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
    need_labels = config.only_correct or config.target == "label"
    found = find_listed(photos, names.pop(), need_labels=need_labels)
    if found.left_out:
        warnings.warn(f"{as_text(str(photos))}: {found.told}", PhotoWarning, stacklevel=2)
    listed = _chosen(found.photos, config)
    if all(photo.label < 0 for photo in listed) and need_labels:
        raise InputError(
            f"{photos} does not tell what its photos show, and the study asks for it: put them into class folders, "
            "name a CSV file with labels, or study the predictions (target prediction, only_correct False)"
        )
    settings = {name: setting(model, config, mesh=mesh, batch_size=batch_size) for name, model in models.items()}
    prints = {name: fingerprint(model, listed) for name, model in models.items()}
    record = {
        "format": FORMAT,
        "config": {**vars(config)},
        "models": {name: {**prints[name], "methods": list(s.methods)} for name, s in settings.items()},
        "order of the models": list(models),  # the number of a shard's model counts in this order
        "shard_size": shard_size,
        "num_photos": len(listed),
    }
    if index == 0:
        check_format(out)
        claim(out, record)
    else:
        _wait(lambda: (out / "study.json").exists(), poll_seconds, "the first process to make the folder", progress)
        check_format(out)
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
            write_shard(shard_path(out, m, s), [_one(task, folder, i, listed[i], bar) for i in part])
    if index == 0:
        missing = [pair for pair in shards if not shard_path(out, *pair).exists()]
        _wait(
            lambda: all(shard_path(out, *pair).exists() for pair in missing),
            poll_seconds,
            "the other processes",
            progress,
        )
        sweep_drafts(out / "shards")
        write_report(
            out, listed, list(settings.items()), [shard_path(out, *p) for p in shards], folder, files=found.told
        )
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


def _one(task: Setting, folder: epath.Path, index: int, photo: Photo, bar: tqdm) -> Result:
    """The result of one photo. An error that does not concern the photo ends the study."""
    started = time.perf_counter()
    status: Status = "ok"
    reason, measured = "", None
    try:
        measured = _measure(task, folder, photo)
    except UnreadableError as error:
        status, reason = "unreadable", error.reason
    except NotCorrectError as error:
        status, reason = "not classified correctly", f"seen as {error}"
    except (InputError, NaNValueError) as error:
        status, reason = "failed", " ".join(str(error).split())
    bar.update()
    return Result(index, as_text(photo.name), status, reason, time.perf_counter() - started, measured)


def _measure(task: Setting, folder: epath.Path, photo: Photo) -> Measured:
    picture = read_photo(folder / photo.name)
    own = zlib.crc32(photo.name.encode("utf-8", "surrogateescape"))
    key = jax.random.fold_in(jax.random.key(task.config.seed), own)
    wanted = photo.mask and any(metric.needs_objects for metric in task.metrics)
    mask = read_mask(folder / photo.mask, picture.size) if wanted else None
    return measure_photo(key, task, picture, label=photo.label, boxes=box_array(photo), mask=mask)
