"""`jaxmoxi explain --method discriminate`: a class against the one that the model sees, in words and files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from jaxmoxi.cli.report import TOP, percent
from jaxmoxi.cli.shared import CommandError, one_line
from jaxmoxi.cli.task import Task
from jaxmoxi.errors import NaNValueError
from jaxmoxi.types import Discrimination, GreedyInfo, TwoClasses

if TYPE_CHECKING:
    from matplotlib.figure import Figure

METHOD = "discriminate"


def check_named(target: str | None) -> None:
    """Raises CommandError where no class is named; before a model is loaded."""
    if target is None:
        raise CommandError(
            f"--method {METHOD} asks about a class that the model does not see in the photo: name it with --target"
        )


def check_rival(task: Task) -> None:
    """Raises CommandError for a class that the model sees, and for a goal that the method has not."""

    def seen(index: int) -> bool:
        return index == task.top or (task.place != TOP and task.whole[index] > 0.5)

    if seen(task.target):
        others = [int(k) for k in np.argsort(-task.whole) if not seen(int(k))]
        such = f", such as {task.name(others[0])!r} ({percent(task.whole[others[0]])})" if others else ""
        raise CommandError(
            f"--target: the model sees {task.name(task.target)!r} in the photo ({percent(task.whole[task.target])}); "
            f"--method {METHOD} asks about a class that it does not see{such}. For this one use --method insertion"
        )
    if task.stop.size is not None or not (task.stop.flip or task.stop.probability is not None):
        raise CommandError(
            f"--until: --method {METHOD} removes regions until the class leads; give class, or a probability for it to "
            "reach, such as 0.5"
        )


def search_rival(task: Task, *, batch_size: int | None, bar: bool) -> Discrimination:
    """The search under a bar of regions. Raises CommandError for what the library says is wrong."""
    from tqdm import tqdm

    import jaxmoxi as jm

    with tqdm(desc=METHOD, unit=" regions", leave=False, disable=None if bar else True) as shown:

        def follow(info: GreedyInfo) -> None:
            shown.set_postfix_str(f"{task.name(task.target)}: {percent(info.probability)}", refresh=False)
            shown.update()

        try:
            with one_line():
                return jm.discriminate(
                    task.v,
                    task.game(task.top),
                    task.num_players,
                    stop=task.stop,
                    insertion=True,
                    batch_size=batch_size,
                    callback=follow,
                )
        except NaNValueError as error:
            raise CommandError(str(error)) from None
        except CommandError as error:
            raise CommandError(str(error).replace("batch_size=", "--batch-size ")) from None


def describe_rival(task: Task, found: Discrimination) -> str:
    """The answer in one sentence."""
    name, other, total = task.name(task.target), task.name(task.top), task.num_players
    removed, needed = int(found.num_removed), int(found.num_needed)
    chances = np.asarray(found.removing.target_probabilities)
    others = np.asarray(found.removing.predicted_probabilities)
    level = task.stop.probability
    now = f"{percent(chances[removed])}, {other!r} {percent(others[removed])}"
    if np.isnan(found.needing.target_values[0]):
        best = int(np.nanargmax(chances))
        goal = f"become {task.place}" if level is None else f"reach {percent(level)}"
        ends = {0: "in the whole photo", total: "with every region hidden"}
        at = ends.get(best, f"without {best} of {total} regions")
        # One order of removals was followed: other groups were not looked at.
        along = f"at most {percent(chances[best])}, {at}"
        return f"{name!r} was not found to {goal}, removing one region after the other: {along}"
    verb = f"is {task.place}" if level is None else f"reaches {percent(level)}"
    if removed == total:
        return f"{name!r} {verb} with every region hidden, and not before ({now})"
    if removed:
        answer = f"without {_these(removed)} of {total} regions {name!r} {verb} ({now})"
    else:
        answer = f"{name!r} {f'is {task.place}' if level is None else 'is as sure as that'} in the whole photo ({now})"
    if needed == 0:
        return f"{answer}; it needs none of the others: the same holds with every region hidden"
    alone = percent(np.asarray(found.needing.target_probabilities)[needed])
    return f"{answer}; of the others, {_these(needed)} alone {'is' if needed == 1 else 'are'} enough for it ({alone})"


def _these(count: int) -> str:
    return f"this {count}" if count == 1 else f"these {count}"


def draw_rival(task: Task, found: Discrimination, answer: str, caption: str) -> Figure:
    """The picture: what was removed in red, what is needed of the rest in blue."""
    import jaxmoxi as jm

    return jm.plot.discrimination(
        task.photo,
        task.regions,
        found,
        target=task.name(task.target),
        predicted=task.name(task.top),
        title=answer[0].upper() + answer[1:],
        caption=caption,
    )


def rival_record(found: Discrimination) -> dict[str, Any]:
    """What the search found, for the JSON file."""
    removed, needed = int(found.num_removed), int(found.num_needed)
    return {
        "flipped": bool(found.flipped),
        "removed": found.removed[:removed],
        "kept": np.flatnonzero(found.kept),
        "needed": found.needed[:needed],
        "removing": _along(found.removing, removed + 1),
        "needing": _along(found.needing, 0 if np.isnan(found.needing.target_values[0]) else needed + 1),
        "num_evaluations": int(found.num_evaluations),
    }


def rival_arrays(task: Task, found: Discrimination) -> dict[str, np.ndarray]:
    """The arrays of the result: its fields, and of each phase the rows [P+1] of both classes."""
    phases = {"removing": found.removing, "needing": found.needing}
    data = {name: getattr(found, name) for name in found.__dataclass_fields__ if name not in phases}
    for phase, along in phases.items():
        data |= {f"{phase}_{name}": getattr(along, name) for name in along.__dataclass_fields__}
    data |= {"regions": task.regions, "photo": task.photo, "target": task.target, "predicted": task.top}
    return {name: np.asarray(value) for name, value in data.items() if value is not None}


def _along(along: TwoClasses, count: int) -> dict[str, Any]:
    rows = {name: getattr(along, name) for name in along.__dataclass_fields__}
    return {name: None if row is None else row[:count] for name, row in rows.items()}
