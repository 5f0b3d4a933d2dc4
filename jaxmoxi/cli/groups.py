"""`jaxmoxi explain --method minimal|beam`: the searches for small groups, in words, as a picture and as arrays.

`--necessary` adds the partner of a group that is enough: one without which the class is lost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from jaxmoxi.cli.report import TOP, percent
from jaxmoxi.cli.shared import CommandError, one_line
from jaxmoxi.cli.task import Task
from jaxmoxi.errors import NaNValueError, NoGroupError
from jaxmoxi.games.evaluation import readouts
from jaxmoxi.regions.pieces import Pieces, group_pieces
from jaxmoxi.types import Stop

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GROUP_METHODS = ("minimal", "beam")
WIDTH, ROUNDS = 8, 4
_GROUPS = 3  # how many groups without a player in common a beam search looks for
_DRAWN = 4


class Groups(NamedTuple):
    """Groups that a search found, the one of the answer first.

    groups:        bool[G, P], True for the regions shown.
    values, probabilities, leads: [G], of each group alone: payoff, probability of the class, whether it is on top.
    sizes:         of a beam search, the best group of every size looked at: bool[S+1, P]; else None.
    num_evaluations: what the search cost.
    pieces:        of a search for a group that lies together, its connected pieces; else None.
    """

    groups: np.ndarray
    values: np.ndarray
    probabilities: np.ndarray
    leads: np.ndarray
    sizes: np.ndarray | None
    num_evaluations: int
    pieces: Pieces | None = None


def check_connected(method: str, connected: bool) -> None:
    """Raises CommandError for a search that cannot prefer groups that lie together."""
    if connected and method not in ("minimal", "robust"):
        raise CommandError(
            f"--connected is of --method minimal and robust; --method {method} looks for no connected group"
        )


class Without(NamedTuple):
    """A group without which the class is lost.

    group:  bool[P], True for the regions hidden; None where the search found none, and the next three say nothing.
    value, probability, leads: what is said of the class while they are hidden.
    num_evaluations: what the search cost.
    pieces: of a search for a group that lies together, its connected pieces; else None.
    """

    group: np.ndarray | None
    value: float
    probability: float
    leads: bool
    num_evaluations: int
    pieces: Pieces | None = None


@contextmanager
def counted(name: str, bar: bool) -> Iterator[Callable[[int], None]]:
    """A bar of evaluations, for the callback of a search. What the library says is wrong becomes a CommandError."""
    from tqdm import tqdm

    disable = None if bar else True  # None: shown on a terminal only
    with tqdm(desc=name, unit=" evaluations", leave=False, disable=disable) as shown:

        def follow(count: int) -> None:
            shown.update(count - shown.n)

        try:
            with one_line():
                yield follow
        except NaNValueError as error:
            raise CommandError(str(error)) from None
        except CommandError as error:
            raise CommandError(str(error).replace("batch_size=", "--batch-size ")) from error.__cause__


def search_groups(task: Task, method: str, *, batch_size: int | None, bar: bool, connected: bool = False) -> Groups:
    """The search under a bar that counts evaluations. Raises CommandError for what the library says is wrong."""
    import jaxmoxi as jm

    v, players, stop = task.v, task.num_players, task.stop
    sizes = None
    with counted(method, bar) as follow:
        if method == "minimal":
            found = jm.search.minimal_group(
                v, players, stop=stop, batch_size=batch_size, callback=follow, connected=connected
            )
            groups, count = np.asarray(found.group)[None], found.num_evaluations
        else:
            goal: dict[str, Any] = (
                {"max_size": int(stop.size)} if stop.size is not None else {"stop": stop, "num_groups": _GROUPS}
            )
            beam = jm.search.beam_search(
                v, players, width=WIDTH, rounds=ROUNDS, batch_size=batch_size, callback=follow, **goal
            )
            sizes, count = np.asarray(beam.groups), beam.num_evaluations
            groups = sizes[::-1][:_DRAWN] if stop.size is not None else np.asarray(beam.minimal)
    outs = readouts(v, groups, batch_size=min(len(groups), batch_size or len(groups)))
    told = (np.asarray(outs.values), np.asarray(outs.probabilities), np.asarray(outs.leads))
    pieces = group_pieces(groups[0], task.regions) if connected else None
    return Groups(groups, *told, sizes, int(count), pieces)


def search_without(task: Task, *, batch_size: int | None, bar: bool, connected: bool = False) -> Without:
    """The search for a smallest group without which the goal is missed, under a bar; after that of a group enough."""
    import jaxmoxi as jm

    v, players = task.v, task.num_players
    try:
        with counted("necessary", bar) as follow:
            found = jm.search.minimal_group(
                v, players, insertion=False, stop=task.stop, batch_size=batch_size, callback=follow,
                connected=connected,
            )  # fmt: skip
    except CommandError as error:
        if isinstance(error.__cause__, NoGroupError):  # the goal itself was looked at by the search before
            return Without(None, np.nan, np.nan, False, 0)
        raise
    group = np.asarray(found.group)
    outs = readouts(v, ~group[None])
    return Without(
        group, float(outs.values[0]), float(np.asarray(outs.probabilities)[0]), bool(np.asarray(outs.leads)[0]),
        int(found.num_evaluations), group_pieces(group, task.regions) if connected and group.any() else None,
    )  # fmt: skip


def describe_groups(found: Groups, stop: Stop, name: str, place: str = TOP) -> str:
    """The answer in one sentence. name: of the class explained. place: what a class is that leads."""
    total = found.groups.shape[1]
    size, chance = int(found.groups[0].sum()), percent(found.probabilities[0])
    told = these(size, total)
    if stop.size is not None:
        now = place if found.leads[0] else f"not {place}"
        return f"of all groups looked at, {told} do{'es' if size == 1 else ''} most for {name!r}: {now}, {chance}"
    if size == 0:
        return f"no region is needed: {name!r} is at {chance} with every region hidden"
    left = "" if size == 1 else ", and none of them can be left out"
    if found.pieces is not None:
        kept = "" if size == 1 else ", and none of them can be left out without more pieces"
        left = f", in {found.pieces}{kept}"
    answer = f"{told} {'is' if size == 1 else 'are'} enough for {name!r}, {chance}{left}"
    others = [int(group.sum()) for group in found.groups[1:]]
    if others:
        verb = "is" if others == [1] else "are"
        more = [f"{n} other{'s'[: n > 1]}" for n in others]
        answer += f"; so {verb} {', and '.join(more)}"
    return answer


def describe_without(found: Without, task: Task) -> str:
    """The answer about the necessary group in one sentence."""
    name, level = task.name(task.target), task.stop.probability
    if found.group is None:
        lost = f"is no longer {task.place}" if level is None else f"falls to {percent(level)}"
        return f"no group is necessary: the search found none without which {name!r} {lost}"
    size, chance = int(found.group.sum()), percent(found.probability)
    if size == 0:
        seen = f"not {task.place} in the whole photo ({chance})" if level is None else f"at {chance} in the whole photo"
        return f"nothing has to be hidden: {name!r} is {seen}"
    left = "" if size == 1 else ", and none of them can be left out"
    if found.pieces is not None:
        left = f", in {found.pieces}" + ("" if size == 1 else f"{left} without more pieces")
    if level is None:
        return f"without {these(size, len(found.group))} it is no longer {name!r} ({chance}){left}"
    return f"without {these(size, len(found.group))} {name!r} falls to {chance}{left}"


def these(size: int, total: int) -> str:
    """So many regions, for print."""
    return f"this 1 of {total} regions" if size == 1 else f"these {size} of {total} regions"


def draw_groups(task: Task, found: Groups, answers: list[str], caption: str, without: Without | None = None) -> Figure:
    """The photo with its regions, and beside it each group; the necessary one is drawn as what is hidden.

    Of a connected group alone: its pieces, and what each region adds.
    """
    import jaxmoxi as jm

    title = "\n".join(answer[0].upper() + answer[1:] for answer in answers)
    if found.pieces is not None and without is None:
        group = found.groups[0]
        adds = jm.search.member_values(task.v, group)
        return jm.plot.group_parts(task.photo, task.regions, group, adds=adds, title=title, caption=caption)
    shown = [i for i in range(len(found.groups)) if found.groups[i].any() or i == 0][:_DRAWN]
    titles = [f"{int(found.groups[i].sum())} alone: {percent(found.probabilities[i])}" for i in shown]
    groups, hidden = found.groups[shown], [False] * len(shown)
    if without is not None and without.group is not None:
        groups, hidden = np.concatenate([groups, without.group[None]]), [*hidden, True]
        titles.append(f"without {int(without.group.sum())}: {percent(without.probability)}")
    return jm.plot.groups(task.photo, task.regions, groups, hidden=hidden, titles=titles, title=title, caption=caption)


def group_record(found: Groups) -> dict[str, Any]:
    """What the search found, for the JSON file."""
    record: dict[str, Any] = {
        "group": np.flatnonzero(found.groups[0]),
        "groups": [np.flatnonzero(group) for group in found.groups],
        "values": found.values,
        "probabilities": found.probabilities,
        "leads": found.leads,
    }
    if found.sizes is not None:
        record["best_of_each_size"] = [np.flatnonzero(group) for group in found.sizes]
    if found.pieces is not None:
        record |= {"pieces": found.pieces.count, "share_of_image": found.pieces.share}
    return record | {"num_evaluations": found.num_evaluations}


def group_arrays(task: Task, found: Groups) -> dict[str, np.ndarray]:
    """The arrays of the result: `group` holds region numbers, `groups` and `best_of_each_size` are bool[G, P]."""
    arrays = {
        "group": np.flatnonzero(found.groups[0]),
        "groups": found.groups,
        "values": found.values,
        "probabilities": found.probabilities,
        "leads": found.leads,
        "num_evaluations": np.asarray(found.num_evaluations),
        "regions": np.asarray(task.regions),
        "photo": task.photo,
        "target": np.asarray(task.target),
    }
    return arrays if found.sizes is None else arrays | {"best_of_each_size": found.sizes}


def without_record(found: Without) -> dict[str, Any]:
    """What is known of the necessary group, for the JSON file; its group is null where there is none."""
    group = None if found.group is None else np.flatnonzero(found.group)
    record = {name: value for name, value in found._asdict().items() if name != "pieces"} | {"group": group}
    if found.pieces is not None:
        record |= {"pieces": found.pieces.count, "share_of_image": found.pieces.share}
    return record


def without_arrays(found: Without) -> dict[str, np.ndarray]:
    """The arrays of the necessary group: `necessary` holds region numbers. None where there is no group."""
    if found.group is None:
        return {}
    told = {f"necessary_{name}": np.asarray(getattr(found, name)) for name in ("value", "probability", "leads")}
    return {"necessary": np.flatnonzero(found.group)} | told
