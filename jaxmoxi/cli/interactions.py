"""The command `jaxmoxi interactions`: how the regions of a photo act together on a class."""

from __future__ import annotations

import dataclasses
import time
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import tyro

from jaxmoxi.cli import shared as _command
from jaxmoxi.cli.estimate import tell_length
from jaxmoxi.cli.findings import Found, describe, doubt, fit, is_model, table
from jaxmoxi.cli.names import Identity, choose_base, identify, locked
from jaxmoxi.cli.options import PhotoOptions
from jaxmoxi.cli.report import percent, write_files
from jaxmoxi.cli.shared import CommandError
from jaxmoxi.cli.task import Task, caption_of, prepare, record_of
from jaxmoxi.errors import NaNValueError
from jaxmoxi.escape import printable
from jaxmoxi.interactions.estimate import estimate
from jaxmoxi.interactions.exact import MOST_PLAYERS
from jaxmoxi.interactions.indices import INDICES, IndexName, check_request
from jaxmoxi.interactions.result import Interactions
from jaxmoxi.plot.sets import members_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_OPTION = tyro.conf.arg
_PAYOFFS = {"log_odds": "log-odds", "margin": "margin", "log_prob": "log-probability", "logit": "logit",
            "prob": "probability"}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class ShowInteractions(PhotoOptions):
    """Compute how the regions of a photo act together on a class: an interaction index of any order.

    All coalitions are evaluated where there are at most 20 regions and --budget allows it, and the index is exact;
    otherwise it is estimated from --budget coalitions, with standard errors. Prints the strongest sets, and writes four
    pictures (network over the photo, UpSet, matrix, waterfall), the arrays (.npz) and a record (.json) into the folder
    --out.
    """

    regions: Annotated[str | None, _OPTION(metavar="grid:RxC|slic:N", help_behavior_hint="")] = None
    """The players: a grid, or about N superpixels. Left out: grid:7x7. grid:3x3 and slic:12 are exact within the usual
    budget."""
    payoff: Literal["log_odds", "margin", "log_prob", "logit", "prob"] = "log_odds"
    """The quantity of the target class that the interactions are of."""
    index: IndexName = "k-SII"
    """What a set's value averages over. k-SII, STII and FSII share out the whole value among the sets; SII, BII, CHII
    and Co-Moebius are averages of a derivative; jm.interactions.INDICES has a sentence on each."""
    order: Annotated[int | None, _OPTION(metavar="N", help_behavior_hint="")] = None
    """The largest sets that are explained, 2 for pairs. Left out: 2, and 1 for SV and BV, which are of single regions.
    """
    p: Annotated[float, _OPTION(metavar="SHARE")] = 0.5
    """For BV, BII, FBII and BGV: the probability of every other region to be visible."""
    budget: Annotated[int, _OPTION(metavar="N")] = 4096
    """How many coalitions may be evaluated."""
    method: Annotated[str, _OPTION(metavar="NAME")] = "auto"
    """How an estimate is made (jm.interactions.estimate); of no matter where the index is exact."""
    seed: Annotated[int, _OPTION(metavar="N")] = 0
    """The seed of an estimate. The same seed gives the same numbers."""
    top: Annotated[int, _OPTION(metavar="N")] = 15
    """How many sets the UpSet picture and the record name."""
    edges: Annotated[int | None, _OPTION(metavar="N", help_behavior_hint="")] = None
    """How many pairs the network shows. Left out: two for each region, at most 30."""

    def run(self) -> int:
        """Computes, prints and writes. Returns the exit code."""
        return dataclasses.replace(self, regions=self.regions or "grid:7x7").show()

    @property
    def size(self) -> int:
        """The largest sets that are explained."""
        return (INDICES[self.index].largest or 2) if self.order is None else self.order

    def show(self) -> int:
        """`run` for options that are filled in."""
        for name, least in (("order", 1), ("budget", 2), ("top", 1), ("edges", 1), ("seed", 0)):
            given = getattr(self, name)
            if given is not None and given < least:
                raise CommandError(f"--{name}: expected a whole number of at least {least}; got {given}")
        _command.start_compilation_cache()
        task = prepare(self, _command.start_devices())
        with _command.one_line():
            check_request(self.index, task.num_players, self.size, self.p)
        _command.check_out(self.out)
        with _command.one_line():
            photo = identify(self.photo)
        kind = f"{self.index}-{self.size}"
        _, renamed = choose_base(self.out, task.stem, kind, photo)  # what cannot be written shows now
        exact, how = choose_way(task.num_players, self.budget)
        if not self.quiet:
            seen = f"{printable(task.model.name)} sees {task.name(task.top)!r}"
            print(f"{seen}, {percent(task.whole[task.top])}", flush=True)
            print(how, flush=True)
            count = 1 << task.num_players if exact else self.budget
            length = tell_length(task.model, task.image, task.v, task.num_players, count, bound="about")
            if length:
                print(length, flush=True)
        if renamed:
            _command.say(f"jaxmoxi: note: {printable(renamed)}")
        started = time.perf_counter()
        found = compute(self, task, exact)
        seconds = time.perf_counter() - started
        answer = describe(found.x, task.name(task.target))
        figures = draw(self, task, found)
        record = _record(self, task, found, photo, answer) | {"seconds": round(seconds, 3)} | _command.versions()
        try:
            with locked(self.out):  # another process may have written a photo of the same name meanwhile
                base, _ = choose_base(self.out, task.stem, kind, photo)
                files = write_files(base, figures, _arrays(task, found), record)
        except OSError as error:
            raise CommandError(f"--out {self.out}: could not write ({error})") from None
        warning = doubt(found.x)
        if warning:
            _command.say(f"jaxmoxi: warning: {warning}")
        print(answer)
        if not self.quiet:
            print(table(found.x, self.unit(task)))
            print(fit(found))
            print(f"{int(found.x.num_evaluations):,} coalitions in {seconds:.1f} s")
            if self.size == 1:
                print("order 1 has no pairs: no network and no matrix are drawn")
            print(f"wrote {printable(', '.join(map(str, files)))}")
        return 0

    def unit(self, task: Task) -> str:
        """What the values are in: `log-odds of 'cat'`."""
        return f"{_PAYOFFS[self.payoff]} of {task.name(task.target)!r}"


def choose_way(num_players: int, budget: int) -> tuple[bool, str]:
    """(whether all coalitions are evaluated, the line that says so)."""
    if num_players > MOST_PLAYERS:
        return False, f"estimate from {budget:,} coalitions: {num_players} regions are more than {MOST_PLAYERS}"
    if 1 << num_players > budget:
        more = f"{num_players} regions have {1 << num_players:,}, more than --budget"
        return False, f"estimate from {budget:,} coalitions: {more}"
    return True, f"exact: all {1 << num_players:,} coalitions of {num_players} regions, within --budget {budget:,}"


def compute(options: ShowInteractions, task: Task, exact: bool) -> Found:
    """The interactions. Raises CommandError for what the library says is wrong."""
    import jax

    import jaxmoxi as jm

    v, players = task.v, task.num_players
    try:
        with _command.one_line():
            if exact:
                values = jm.interactions.values_table(v, players, batch_size=options.batch_size)
                x = jm.interactions.from_table(values, index=options.index, order=options.size, p=options.p)
                return Found(x, float(values[-1]), _reconstructed(x, np.asarray(values, np.float64)))
            x = estimate(
                jax.random.key(options.seed), v, players, index=options.index, order=options.size,
                budget=options.budget, method=options.method, p=options.p, batch_size=options.batch_size,
            )  # fmt: skip
            everybody = jm.evaluate(v, np.ones((1, players), bool), batch_size=1)
            return Found(x, float(everybody[0]), None)
    except NaNValueError as error:
        raise CommandError(str(error)) from None
    except CommandError as error:
        told = str(error).replace("batch_size=", "--batch-size ").replace("budget=", "--budget ")
        raise CommandError(told) from None


def _reconstructed(x: Interactions, values: np.ndarray) -> float | None:
    """R^2 of `x.reconstruct` over all coalitions, for the indices that it is meant for."""
    if not is_model(x.index) or np.ptp(values) == 0:
        return None
    rows = np.arange(len(values))
    masks = (rows[:, None] >> np.arange(x.num_players)) & 1 == 1
    told = np.concatenate([np.asarray(x.reconstruct(masks[i : i + 4096])) for i in range(0, len(rows), 4096)])
    return float(1 - ((values - told) ** 2).sum() / ((values - values.mean()) ** 2).sum())


def draw(options: ShowInteractions, task: Task, found: Found) -> dict[str, Figure]:
    """The pictures by the ends of their files' names."""
    import jaxmoxi as jm

    x, unit = found.x, options.unit(task)
    common: dict[str, Any] = {"unit": unit, "caption": caption_of(options, task)}
    figures = {
        "-upset.png": jm.plot.upset(
            x, k=options.top, photo=task.photo, regions=np.asarray(task.regions), **common
        ),
        "-waterfall.png": jm.plot.waterfall(x, total=found.total, **common),
    }  # fmt: skip
    if x.order > 1:
        network = jm.plot.interaction_network(
            task.photo, np.asarray(task.regions), x, edges=options.edges, title=None, **common
        )
        figures = {"-network.png": network, "-matrix.png": jm.plot.heat_map(x, **common)} | figures
    return figures


def _arrays(task: Task, found: Found) -> dict[str, np.ndarray]:
    """The fields of the result as arrays; those that are None are left out."""
    x = found.x
    evaluated = None if x.evaluated is None else x.evaluated.combine(lambda part: part)
    fields = {
        "sets": x.sets, "values": x.values, "standard_errors": x.standard_errors, "baseline": x.baseline,
        "faithfulness": x.faithfulness, "num_evaluations": x.num_evaluations,
        "evaluated": evaluated, "index": x.index, "order": x.order,
        "num_players": x.num_players, "total": found.total, "reconstruction_r2": found.r2,
        "regions": task.regions, "photo": task.photo, "target": task.target,
    }  # fmt: skip
    return {name: np.asarray(value) for name, value in fields.items() if value is not None}


def _record(options: ShowInteractions, task: Task, found: Found, photo: Identity, answer: str) -> dict[str, Any]:
    """What was asked and what was found, for the JSON file."""
    x = found.x
    top = x.top(options.top)
    errors = [None] * len(top.values) if top.standard_errors is None else np.asarray(top.standard_errors)
    strongest = [
        {"players": members, "value": value, "standard_error": error}
        for members, value, error in zip(members_of(top), np.asarray(top.values), errors, strict=True)
    ]
    exact = not x.estimated
    return {
        "answer": answer,
        **record_of(options, task, photo),
        "index": x.index,
        "order": x.order,
        "exact": exact,
        "p": options.p,
        "budget": options.budget,
        "method": None if exact else x.method or options.method,
        "seed": None if exact else options.seed,
        "num_evaluations": int(x.num_evaluations),
        "num_sets": len(x.values),
        "baseline": x.baseline,
        "total": found.total,
        "faithfulness": x.faithfulness,
        "reconstruction_r2": found.r2,
        "strongest": strongest,
    }
