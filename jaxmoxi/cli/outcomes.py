"""What each method of `jaxmoxi explain` makes of a task: it searches, then puts what it found into words and arrays."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from jaxmoxi.cli.discriminate import METHOD as DISCRIMINATE
from jaxmoxi.cli.discriminate import describe_rival, draw_rival, rival_arrays, rival_record, search_rival
from jaxmoxi.cli.groups import (
    GROUP_METHODS,
    describe_groups,
    describe_without,
    draw_groups,
    group_arrays,
    group_record,
    search_groups,
    search_without,
    without_arrays,
    without_record,
)
from jaxmoxi.cli.report import arrays, describe, greedy_record, group
from jaxmoxi.cli.robust import describe_robust, draw_robust, robust_arrays, robust_record, search_robust
from jaxmoxi.cli.task import Task, caption_of, search
from jaxmoxi.cli.ways import METHOD as ROBUST
from jaxmoxi.cli.ways import Ways, ways_record
from jaxmoxi.types import GreedyResult, Stop

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from jaxmoxi.cli.explain import Explain


class Outcome(NamedTuple):
    """What a search found: in a sentence for each group, for the JSON file, as arrays, and as a picture to be drawn.

    num_evaluations: its price. problem: the error that ended it early, if one did.
    """

    answers: list[str]
    record: dict[str, Any]
    arrays: dict[str, np.ndarray]
    draw: Callable[[], Figure]
    num_evaluations: int
    seconds: float
    problem: BaseException | None = None


def find(options: Explain, task: Task, ways: tuple[Ways, Ways] | None) -> Outcome:
    """The search. ways: of --method robust, those searched and those that judge."""
    if ways is not None:
        return _find_robust(options, task, *ways)
    if options.method in GROUP_METHODS:
        return _find_groups(options, task)
    if options.method == DISCRIMINATE:
        return _find_rival(options, task)
    return _find_order(options, task)


def _find_groups(options: Explain, task: Task) -> Outcome:
    started = time.perf_counter()
    given: dict[str, Any] = {"batch_size": options.batch_size, "bar": not options.quiet, "connected": options.connected}
    found = search_groups(task, options.method, **given)
    without = search_without(task, **given) if options.necessary else None
    seconds, count = time.perf_counter() - started, found.num_evaluations
    answers = [describe_groups(found, task.stop, task.name(task.target), task.place)]
    record, data = group_record(found), group_arrays(task, found)
    if without is not None:
        count += without.num_evaluations
        answers.append(describe_without(without, task))
        record |= {"necessary": {"answer": answers[1]} | without_record(without)}
        data |= without_arrays(without)
    caption = caption_of(options, task, options.method)
    return Outcome(answers, record, data, lambda: draw_groups(task, found, answers, caption, without), count, seconds)


def _find_robust(options: Explain, task: Task, seen: Ways, unseen: Ways) -> Outcome:
    started = time.perf_counter()
    found = [
        search_robust(
            task, seen, unseen, options.robust.hold, insertion=insertion, batch_size=options.batch_size,
            bar=not options.quiet, connected=options.connected,
        )
        for insertion in (True, False)[: 1 + options.necessary]
    ]  # fmt: skip
    seconds = time.perf_counter() - started
    told = [describe_robust(task, seen, unseen, robust) for robust in found]
    answers = [" ".join(filter(None, parts)) for parts in told]
    record = ways_record(options.robust, seen, unseen) | robust_record(found[0])
    data = robust_arrays(found[0]) | {"regions": np.asarray(task.regions), "photo": task.photo}
    data |= {"target": np.asarray(task.target), "kinds": np.asarray(seen.kinds)}
    data |= {"unseen_kinds": np.asarray(unseen.kinds, str)}
    if options.necessary:
        record |= {"necessary": {"answer": answers[1]} | robust_record(found[1])}
        data |= {f"necessary_{name}": value for name, value in robust_arrays(found[1]).items()}
    kinds = ", ".join(dict.fromkeys(seen.kinds))
    caption = caption_of(options, task, ROBUST, hidden=f"{len(seen.games)} way{'s'[: len(seen.games) > 1]} ({kinds})")
    count = sum(int(robust.found.num_evaluations) for robust in found if robust.found is not None)
    titles = [which for which, _ in told]
    return Outcome(
        answers, record, data, lambda: draw_robust(task, seen, unseen, found, titles, caption), count, seconds
    )


def _find_rival(options: Explain, task: Task) -> Outcome:
    started = time.perf_counter()
    rival = search_rival(task, batch_size=options.batch_size, bar=not options.quiet)
    seconds, answer = time.perf_counter() - started, describe_rival(task, rival)
    caption = caption_of(options, task, options.method)
    return Outcome(
        [answer], rival_record(rival), rival_arrays(task, rival), lambda: draw_rival(task, rival, answer, caption),
        int(rival.num_evaluations), seconds,
    )  # fmt: skip


def _find_order(options: Explain, task: Task) -> Outcome:
    started = time.perf_counter()
    result, problem = search(task, options.method, batch_size=options.batch_size, bar=not options.quiet)
    seconds = time.perf_counter() - started
    if problem is not None and not int(result.num_steps):
        raise problem
    answer = f"unfinished: {int(result.num_steps)} of {task.num_players} regions in order"
    if problem is None:
        answer = describe(result, task.stop, task.name(task.target), task.place)
    players = group(result, task.stop)
    data = arrays(result, regions=task.regions, photo=task.photo, group=players, target=task.target)
    return Outcome(
        [answer], greedy_record(result, task.stop), data, lambda: _draw(options, task, result, answer),
        int(result.num_evaluations), seconds, problem,
    )  # fmt: skip


def _draw(options: Explain, task: Task, result: GreedyResult, answer: str) -> Figure:
    import jaxmoxi as jm

    return jm.plot.explanation(
        task.photo,
        task.regions,
        result,
        target=task.name(task.target),
        upto="flip" if task.stop == Stop() else "all",
        heat_upto="all",
        title=answer[0].upper() + answer[1:],
        caption=caption_of(options, task, options.method),
        whole=float(task.whole[task.target]),
        place=task.place,
    )
