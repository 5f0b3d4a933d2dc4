"""`jaxmoxi explain --method robust`: a group that holds however its surroundings are removed, in words and files."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Bool

from jaxmoxi.cli.groups import counted, these
from jaxmoxi.cli.report import percent
from jaxmoxi.cli.shared import CommandError
from jaxmoxi.cli.task import Task
from jaxmoxi.cli.ways import METHOD, Ways, met, share
from jaxmoxi.errors import NoGroupError
from jaxmoxi.regions.pieces import group_pieces
from jaxmoxi.search.counterexamples import NoSharedGroupError
from jaxmoxi.search.robust import RobustGroup, usual_budget
from jaxmoxi.types import Readout

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Robust(NamedTuple):
    """A group that was found, and what it was asked in.

    found: None where the search found no group (a necessary one).
    met:   bool[U], in which of the unseen ways it reaches the goal.
    """

    found: RobustGroup | None
    met: Bool[np.ndarray, "U"]
    insertion: bool


def robust_evaluations(
    num_players: int, seen: Ways, hold: float | None, *, necessary: bool, connected: bool = False
) -> int:
    """About the evaluations of the search, of at most so many."""
    count = len(seen.games)
    total = 0
    for insertion in (True, False)[: 1 + necessary]:
        able = seen.able(insertion)
        # Where too few removals let everybody together be enough, a greedy search in all of them comes first.
        forward = count * num_players * (num_players + 1) // 2 * (able.mean() < share(hold, able))
        usual = (1 + connected) * usual_budget(num_players, count)
        total += min(usual + forward, count << min(num_players, 60))
    return int(total)


def search_robust(
    task: Task,
    seen: Ways,
    unseen: Ways,
    hold: float | None,
    *,
    insertion: bool,
    batch_size: int | None,
    bar: bool,
    connected: bool = False,
) -> Robust:
    """The search under a bar that counts evaluations. Raises CommandError for what the library says is wrong.

    Of a necessary group that no search finds, `found` is None.
    """
    import jaxmoxi as jm

    nobody = Robust(None, np.zeros(len(unseen.games), bool), insertion)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="in the games of the numbers")  # told already, in the photo's words
        try:
            with counted(METHOD if insertion else f"{METHOD}, necessary", bar) as follow:
                found = jm.search.robust_group(
                    seen.games, task.num_players, insertion=insertion, hold=share(hold, seen.able(insertion)),
                    stop=task.stop, batch_size=batch_size, unseen=unseen.games, callback=follow,
                    connected=connected,
                )  # fmt: skip
        except CommandError as error:
            missed = error.__cause__
            if isinstance(missed, NoGroupError) and not insertion:
                return nobody
            if not isinstance(missed, NoSharedGroupError):
                raise
            advice = "a lower --hold, or another --seed"
            if not seen.able(insertion).any():
                advice = "or another --target: the model does not answer this class for the whole photo"
            raise CommandError(missed.said(1, advice)) from error  # numbered as in the photo's warnings
    if found.stability is None:
        return nobody._replace(found=found)
    told = found.stability
    return nobody._replace(
        found=found, met=met(task.stop, Readout(told.values, told.leads, told.probabilities), insertion)
    )


def describe_robust(task: Task, seen: Ways, unseen: Ways, robust: Robust) -> tuple[str, str]:
    """The answer: (which group, how far it holds), which together are one sentence."""
    name, level, found = task.name(task.target), task.stop.probability, robust.found
    lost = f"is no longer {task.place}" if level is None else f"is at {percent(level)} or less"
    if found is None:
        return f"no group is necessary: the search found none without which {name!r} {lost}", ""
    size = int(found.size)
    if robust.insertion:
        goal = "" if level is None else f" at {percent(level)}"
        verb = "is" if size == 1 else "are"
        what = f"{these(size, task.num_players)} {verb} enough for {name!r}{goal}"
        if size == 0:
            at = task.place if level is None else f"at {percent(level)}"
            what = f"no region is needed: {name!r} is {at} with every region hidden"
    else:
        what = f"without {these(size, task.num_players)} {name!r} {lost}"
        if size == 0:
            what = f"nothing has to be hidden: {name!r} {lost.replace('no longer', 'not')} in the whole photo"
    count = len(seen.games)
    held = int(np.asarray(found.held).sum())
    where = "in the one removal searched" if count == 1 else f"in {held} of the {count} removals searched"
    reasons = list(filter(None, _failures(seen, np.asarray(found.held), robust.insertion)))
    where += f" ({'; '.join(reasons)})" if reasons else ""
    if found.pieces is not None and size:
        where += f", in {group_pieces(np.asarray(found.group), task.regions)}"
    if size > 1:
        without = "" if found.pieces is None else " without more pieces"
        where += f", and none of them can be left out{without}"
    if found.unseen is None or found.interval is None:
        return what, f"{where}; no other removal judged it"
    low, high = (f"{100 * float(end):.0f}" for end in found.interval)
    judges, (missed, unable) = len(unseen.games), _failures(unseen, robust.met, robust.insertion)
    where += (
        f"; of {judges} removal{'s'[: judges > 1]} that the search did not see, in {int(robust.met.sum())} "
        f"({100 * float(found.unseen):.0f} %, 95 % interval {low} to {high} %{missed and '; '}{missed})"
    )
    return what, f"{where}{unable and '; '}{unable}"


def _failures(ways: Ways, held: Bool[np.ndarray, "N"], insertion: bool) -> tuple[str, str]:
    """(in which kinds of removals a group fails, in how many it fails as everybody together does), "" for none.

    The kinds are told because a share of all removals may hide that a group holds in none of one kind; those come first
    where it fails most.
    """
    able = ways.able(insertion)
    counted = [(kind, told) for kind, told, fair in zip(ways.kinds, held, held | able, strict=True) if fair]
    failed = {kind: [not told for name, told in counted if name == kind] for kind, _ in counted}
    order = sorted((kind for kind in failed if any(failed[kind])), key=lambda kind: -np.mean(failed[kind]))
    missed = ", ".join(f"{sum(failed[kind])} of {len(failed[kind])} {kind}" for kind in order)
    alike = int((~able & ~held).sum())
    ends = "with the whole photo" if insertion else "with every region hidden"
    return missed and f"not in {missed}", f"in {alike} of the others the goal is missed {ends} too" if alike else ""


def panel_title(robust: Robust, unseen: Ways, count: int) -> str:
    """What stands above the group in the picture."""
    if robust.found is None:
        return "no necessary group"
    size, held = int(robust.found.size), int(np.asarray(robust.found.held).sum())
    judged = f", {int(robust.met.sum())} of {len(unseen.games)} unseen" if unseen.games else ""
    return f"{size} {'alone' if robust.insertion else 'hidden'}: in {held} of {count} searched{judged}"


def draw_robust(task: Task, seen: Ways, unseen: Ways, found: list[Robust], answers: list[str], caption: str) -> Figure:
    """The photo with its regions, and beside it the group; the necessary one is drawn as what is hidden."""
    import jaxmoxi as jm

    drawn = [robust for robust in found if robust.found is not None]
    return jm.plot.groups(
        task.photo,
        task.regions,
        np.stack([np.asarray(robust.found.group) for robust in drawn if robust.found is not None]),
        hidden=[not robust.insertion for robust in drawn],
        titles=[panel_title(robust, unseen, len(seen.games)) for robust in drawn],
        title="\n".join(answer[0].upper() + answer[1:] for answer in answers),
        caption=caption,
    )


def robust_record(robust: Robust) -> dict[str, Any]:
    """What a search found, for the JSON file."""
    data = robust_arrays(robust)
    group = None if robust.found is None else data["group"]
    return {"group": group} | {name: data[name] for name in data if name not in ("group", "mask")}


def robust_arrays(robust: Robust) -> dict[str, np.ndarray]:
    """The fields of the result; `group` holds region numbers, `mask` is bool[P]. Of no group nothing."""
    found = robust.found
    if found is None:
        return {}
    fields = {name: getattr(found, name) for name in found.__dataclass_fields__}
    group, told = fields.pop("group"), fields.pop("stability")
    data = {"group": np.flatnonzero(np.asarray(group)), "mask": group, **fields, "unseen_held": robust.met}
    if told is not None:
        data |= {f"unseen_{name}": getattr(told, name) for name in ("values", "leads", "probabilities")}
    return {name: np.asarray(value) for name, value in data.items() if value is not None}
