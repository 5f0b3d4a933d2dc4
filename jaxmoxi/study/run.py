"""The study: shard after shard of photos under each model, then one report. It may be killed at any time.

A shard is done when its whole file is on disk, and nothing else is remembered. The same call therefore goes on where
the last one ended, loses at most the shards in flight, and finds nothing to do in a finished study. A photo's numbers
follow from the photo, the settings and the seed alone, so it makes no difference who computes which shard, or when.
"""

from __future__ import annotations

import math
import sys
import time
import zlib
from collections.abc import Callable, Mapping, Sequence

import jax
from etils import epath
from jax.sharding import Mesh
from tqdm import tqdm

from jaxmoxi.attribution import METHODS
from jaxmoxi.errors import InputError, NaNValueError, warn
from jaxmoxi.escape import printable
from jaxmoxi.files import PhotoWarning, sweep_drafts
from jaxmoxi.models.classifier import Classifier
from jaxmoxi.study import across, contents
from jaxmoxi.study.classes import agreed_names
from jaxmoxi.study.config import StudyConfig, fingerprint
from jaxmoxi.study.measure import NotCorrectError, Setting, measure_photo, setting
from jaxmoxi.study.photos import (
    Photo,
    UnreadableError,
    as_text,
    box_array,
    chosen_photos,
    find_listed,
    photo_folder,
    read_mask,
    read_photo,
)
from jaxmoxi.study.progress import Progress, TimeUpError, duration
from jaxmoxi.study.records import FORMAT, Measured, Result, Status
from jaxmoxi.study.report import report_path, update_report
from jaxmoxi.study.store import Study, check_format, claim, study_name


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
    max_minutes: float | int | None = None,
    poll_seconds: float = 2.0,
) -> epath.Path:
    """Runs a study, or what is left of it, and returns the path of its report.

    photos:     see `photos.list_photos`.
    models:     classifiers (`jaxmoxi.models.load`) by the name they have in the report; of the same classes, or
                restricted to some of them (`jaxmoxi.models.restrict`): photos of a class that a restricted head does
                not have are left out under it. Of several the report tells how far they agree.
    out:        the study's folder, any `etils.epath` path.
    shard_size: photos in a shard, which is the unit of work, of loss, and of sharing among processes; part of the
                settings.
    mesh:       the devices of this process that share coalitions (`jaxmoxi.local_mesh`); None: one.
    batch_size: coalitions per chunk, all devices together; None chooses. No part of the settings.
    process:    (index, count) of this process among those that share the work; they see the same photos and write to
                the same folder. Each takes every count-th shard; number 0 waits for all and writes the report, the
                others wait for the report.
    progress:   tells on stderr how long it will take and how far it is.
    max_minutes: after about so many the run ends, between two steps of a photo, with a report of the photos that are
                measured; the same call goes on. None: when all are. With several processes, number 0 then reports what
                it finds, and waits for nobody.

    The report lists photos that cannot be read, that do not fit the model, or for which the model returns NaN; none of
    them ends the study. A photo whose file, or mask, has changed since it was measured is measured again, with a
    warning that names it. A report, table or figure that is missing, damaged or older than the shards is made anew.
    Raises ValueError, before anything long starts, for settings that do not fit the models or the folder's study, for
    a folder whose study another version wrote in another format, and for a shard that is damaged or another's, which it
    names; OSError if something cannot be written (what is written stays); MemoryError with the batch size to try.
    """
    started = time.monotonic()
    out = epath.Path(out)
    if max_minutes is not None and not (max_minutes > 0 and math.isfinite(max_minutes)):
        raise InputError(f"max_minutes must be a number above 0, or None for as long as it takes; got {max_minutes}")
    if shard_size < 1:
        raise InputError(f"shard_size must be at least 1; got {shard_size}")
    index, count = process
    if not 0 <= index < count:
        raise InputError(f"expected a process (index, count) with index in 0 .. count - 1; got {process}")
    class_names = agreed_names(models)
    need_labels = config.only_correct or config.target == "label"
    found = find_listed(photos, class_names, need_labels=need_labels)
    if found.left_out:
        warn(f"{as_text(str(photos))}: {found.told}", PhotoWarning)
    listed = chosen_photos(found.photos, config.num_photos)
    if all(photo.label < 0 for photo in listed) and need_labels:
        raise InputError(
            f"{photos} does not tell what its photos show, and the study asks for it: put them into class folders, "
            "name a CSV file with labels, or study the predictions (target prediction, only_correct False)"
        )
    settings = {name: setting(model, config, mesh=mesh, batch_size=batch_size) for name, model in models.items()}
    texts = {name: printable(name) for name in models}
    if len(set(texts.values())) < len(texts):
        raise InputError(f"expected models of different names; got {', '.join(texts.values())}")
    record = {
        "format": FORMAT,
        "config": {**vars(config)},
        "models": {
            texts[name]: {**fingerprint(models[name], listed), "methods": list(s.methods)}
            for name, s in settings.items()
        },
        "order of the models": list(texts.values()),  # a shard's model counts in this order
        "shard_size": shard_size,
        "num_photos": len(listed),
    }
    if index != 0:
        _wait((out / "study.json").exists, poll_seconds, "the first process to make the folder", progress)
    check_format(out)
    claim(out, record)
    (out / "shards").mkdir(parents=True, exist_ok=True)
    study = Study(
        out=out,
        name=study_name(record),
        photos=tuple(listed),
        folder=photo_folder(photos),
        settings=tuple((texts[name], task) for name, task in settings.items()),
        shard_size=shard_size,
        left_out=found.told,
    )
    mine = [pair for i, pair in enumerate(study.shards) if i % count == index]
    _drop_changed(study, mine)
    deadline = None if max_minutes is None else started + 60 * max_minutes
    finished = _measure_shards(study, [pair for pair in mine if not study.is_done(pair)], deadline, progress)
    if index == 0:
        missing = [pair for pair in study.shards if not study.is_done(pair)]
        if finished:
            done = lambda: all(map(study.is_done, missing)) or (deadline is not None and time.monotonic() > deadline)  # noqa: E731
            _wait(done, poll_seconds, "the other processes", progress)
        sweep_drafts(out / "shards")
        if finished and len(models) > 1 and all(map(study.is_done, study.shards)):
            photos_of_several = across.measured_photos(study)
            if progress and photos_of_several:
                tqdm.write("one model's orders under another's game", file=sys.stderr)
            in_time = lambda: deadline is None or time.monotonic() < deadline  # noqa: E731
            across.measure_across(study, photos_of_several, in_time)
        update_report(study)
    elif finished and deadline is None:
        _wait(report_path(out).exists, poll_seconds, "the report", progress)
    return report_path(out)


def _drop_changed(study: Study, pairs: Sequence[tuple[int, int]]) -> None:
    """Takes the photos that have changed out of the shards, so that they are measured again.

    Raises InputError, before anything long starts, for a shard that is damaged or another's.
    """
    dropped: list[str] = []
    for pair in pairs:
        results = study.read(pair)
        changed = contents.changed(study.folder, study.photos, results, with_mask=study.reads_masks)
        if changed:
            places = {result.index for result in changed}
            study.write_part(pair, [result for result in results if result.index not in places])
            dropped += [result.photo for result in changed]
    if dropped:
        dropped = list(dict.fromkeys(dropped))  # under several models
        warn(
            f"{len(dropped)} photo{'s have' if len(dropped) > 1 else ' has'} changed since the study measured "
            f"{'them' if len(dropped) > 1 else 'it'}, and {'are' if len(dropped) > 1 else 'is'} measured again: "
            f"{contents.names(dropped)}",
            UserWarning,
        )


def _measure_shards(study: Study, pairs: Sequence[tuple[int, int]], deadline: float | None, progress: bool) -> bool:
    """Measures what is missing of the shards, and returns whether nothing is.

    What is measured of a shard is kept where the time is up, or the user interrupts.
    """
    found = {pair: study.read(pair) for pair in pairs}
    left = {pair: len(study.places(pair)) - len(found[pair]) for pair in pairs}
    if not pairs:
        return True
    planned = [task.evaluations() for _, task in study.settings]
    total = sum(planned[m] * left[m, s] for m, s in pairs)
    bar = Progress(total, sum(left.values()), deadline=deadline, show=progress)
    try:
        if progress:
            _estimate(study, pairs, left, bar)
        for m, s in pairs:
            name, task = study.settings[m]
            results = {result.index: result for result in found.pop((m, s))}
            try:
                for i in study.places((m, s)):
                    if i not in results:
                        with bar.photo(name, planned[m]):
                            results[i] = _one(task, study, i, bar)
            except (TimeUpError, KeyboardInterrupt):
                study.write_part((m, s), [results[i] for i in sorted(results)])
                raise
            study.write((m, s), [results[i] for i in sorted(results)])
    except TimeUpError:
        return False
    finally:
        bar.close()
    return True


def _estimate(
    study: Study, pairs: Sequence[tuple[int, int]], left: Mapping[tuple[int, int], int], bar: Progress
) -> None:
    """Tells how long it will take, by a chunk of coalitions that is timed under each model."""
    seconds = 0.0
    for m, (name, task) in enumerate(study.settings):
        count = sum(left[pair] for pair in pairs if pair[0] == m)
        if count:
            evaluations, speed = task.evaluations(), task.speed()
            seconds += count * evaluations / speed
            bar.say(
                f"{name}: {count} photo{'s' if count > 1 else ''}, about {evaluations:,.0f} evaluations each, of which "
                f"{speed:,.0f} take a second: {duration(evaluations / speed)} a photo"
            )
            for method in task.methods:
                if not METHODS[method].by_default:
                    bar.say(f"{name}: {task.price(method):,} of them are those of {method}")
    bar.say(f"about {duration(seconds)} in all, and compiling once")


def _wait(done: Callable[[], bool], seconds: float, what: str, progress: bool) -> None:
    if done():
        return
    if progress:
        tqdm.write(f"waiting for {what}")
    while not done():
        time.sleep(seconds)


def _one(task: Setting, study: Study, index: int, bar: Progress) -> Result:
    """The result of one photo. An error that does not concern the photo ends the study."""
    started = time.perf_counter()
    photo = study.photos[index]
    status: Status = "ok"
    reason, measured = "", None
    content = contents.content_of(study.folder, photo, with_mask=study.reads_masks)
    try:
        measured = _measure(task, study, photo, bar)
    except UnreadableError as error:
        status, reason = "unreadable", error.reason
    except _AnotherClassError as error:
        status, reason = "of another class", str(error)
    except NotCorrectError as error:
        status, reason = "not classified correctly", f"seen as {error}"
    except (InputError, NaNValueError) as error:
        status, reason = "failed", " ".join(str(error).split())
    return Result(index, as_text(photo.name), status, reason, time.perf_counter() - started, measured, content)


class _AnotherClassError(Exception):
    """A restricted head does not have the photo's class."""


def _own_label(task: Setting, label: int) -> int:
    """A photo's label among the classes of the model's own head; -1 where it is not known."""
    restriction = task.model.restriction
    if restriction is None or label < 0:
        return label
    if label not in restriction.classes:
        raise _AnotherClassError(f"{restriction.class_names[label]} is none of the {len(restriction.classes)} classes")
    return restriction.classes.index(label)


def _measure(task: Setting, study: Study, photo: Photo, bar: Progress) -> Measured:
    label = _own_label(task, photo.label)
    picture = read_photo(study.folder / photo.name)
    own = zlib.crc32(photo.name.encode("utf-8", "surrogateescape"))
    key = jax.random.fold_in(jax.random.key(task.config.seed), own)
    mask = read_mask(study.folder / photo.mask, picture.size) if photo.mask and study.reads_masks else None
    return measure_photo(key, task, picture, label=label, boxes=box_array(photo), mask=mask, watch=bar.step)
