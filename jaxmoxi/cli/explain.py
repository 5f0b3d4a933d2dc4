"""The command `jaxmoxi explain`: which regions of a photo make a classifier see a class."""

from __future__ import annotations

import dataclasses
import time
from typing import Annotated, Any, Literal

import tyro

from jaxmoxi.cli import shared as _command
from jaxmoxi.cli.discriminate import METHOD as DISCRIMINATE
from jaxmoxi.cli.discriminate import check_named, check_rival
from jaxmoxi.cli.estimate import greedy_evaluations, group_evaluations, tell_length
from jaxmoxi.cli.groups import GROUP_METHODS, ROUNDS, WIDTH, check_connected
from jaxmoxi.cli.names import Identity, choose_base, identify, locked
from jaxmoxi.cli.options import PhotoOptions
from jaxmoxi.cli.outcomes import Outcome, find
from jaxmoxi.cli.report import percent, write_files
from jaxmoxi.cli.robust import robust_evaluations
from jaxmoxi.cli.shared import CommandError
from jaxmoxi.cli.task import Task, prepare, record_of, with_goal
from jaxmoxi.cli.ways import METHOD as ROBUST
from jaxmoxi.cli.ways import NO_ROBUST_OPTIONS, RobustOptions, Ways, draw_ways, tell_unable
from jaxmoxi.escape import printable
from jaxmoxi.types import Stop

_OPTION = tyro.conf.arg


@dataclasses.dataclass(frozen=True)
class Explain(PhotoOptions):
    """Find the regions of a photo that together make a classifier see a class.

    Prints the answer, and writes a picture (.png), the arrays (.npz) and a record (.json) into the folder --out.
    Without any option it explains a photo of a cat with EfficientNet-Lite0, as if called with --target 'Egyptian cat'
    --until 0.7: which regions are enough for the model to be that sure?
    """

    method: Literal["insertion", "deletion", "minimal", "beam", "robust", "discriminate"] = "insertion"
    """insertion finds regions that are enough; deletion finds regions that the answer cannot do without; minimal
    searches on for a smallest group that is enough; beam also for others that have no region in common with it;
    robust for one that is enough in many ways of hiding the other regions, and says how it holds in ways that it was
    not searched in; discriminate takes a --target that the model does not see: it removes what hides that class until
    it leads, and finds regions of the rest that are enough for it."""
    until: Annotated[str | None, _OPTION(metavar="class|K|CONFIDENCE|all", help_behavior_hint="")] = None
    """When to stop: the class takes (insertion) or loses (deletion) the lead; after K regions; when its probability
    passes a level such as 0.9; or not before all regions are in order. For minimal, robust and beam the goal of a
    group: class or a level (beam with K: the best groups of K regions and fewer); for discriminate class or a level.
    Left out: class."""
    connected: tyro.conf.FlagCreatePairsOff[bool] = False
    """With --method minimal and robust: a group that lies together, in at most three connected pieces, and in fewer
    where that takes no more than a quarter more regions. The picture of a minimal one then shows what each region
    adds."""
    necessary: tyro.conf.FlagCreatePairsOff[bool] = False
    """With --method minimal and robust: also find a smallest group without which the class is lost, and draw it beside
    the group that is enough."""
    robust: tyro.conf.OmitArgPrefixes[RobustOptions] = NO_ROBUST_OPTIONS
    warm: tyro.conf.FlagCreatePairsOff[bool] = False
    """Explain nothing: compile what insertion or deletion needs for this model, these regions and this masking, and
    keep it on disk. Explanations of any photo then start at once. Once for each machine, model and setting."""

    def filled_in(self) -> Explain:
        """These options with the defaults that depend on others. Without any, the question is the demonstration's."""
        is_demo = self.photo is None and self.model is None
        if is_demo and (self.target, self.until, self.method) == (None, None, "insertion"):
            return dataclasses.replace(self, target="Egyptian cat", until="0.7")
        return dataclasses.replace(self, until=self.until or "class")

    def run(self) -> int:
        """Explains, prints and writes. Returns the exit code."""
        return self.filled_in().explain()

    def explain(self) -> int:
        """`run` for options that are filled in."""
        _command.start_compilation_cache()
        check_connected(self.method, self.connected)
        self.robust.check(self.method, self.masking, self.fill)
        if self.necessary and self.method not in ("minimal", ROBUST):
            raise CommandError(
                f"--necessary asks for the partner of a group that is enough: --method minimal or robust; --method "
                f"{self.method} has none"
            )
        if self.method == DISCRIMINATE:
            check_named(self.target)
        if self.warm and self.method not in ("insertion", "deletion"):
            raise CommandError(
                f"--warm compiles ahead for --method insertion and deletion; --method {self.method} decides on the way "
                "what it asks: its programs are kept on disk by its first run"
            )
        task = with_goal(prepare(self, _command.start_devices()), self.method, self.until)
        if self.method == DISCRIMINATE:
            check_rival(task)
        if self.warm:
            return _warm(self, task)
        _command.check_out(self.out)
        with _command.one_line():
            photo = identify(self.photo)
        _, renamed = choose_base(self.out, task.stem, self.method, photo)  # what cannot be written shows now
        if not self.quiet:
            seen = f"{printable(task.model.name)} sees {task.name(task.top)!r}"
            print(f"{seen}, {percent(task.whole[task.top])}", flush=True)
        ways = None
        if self.method == ROBUST:
            ways = draw_ways(task, self.robust, self.payoff)
            tell_unable(task, *ways, necessary=self.necessary)
        length = "" if self.quiet else _length(self, task, ways)
        if length:
            print(length, flush=True)
        if renamed:
            _command.say(f"jaxmoxi: note: {printable(renamed)}")
        outcome = find(self, task, ways)
        record, figure = _record(self, task, outcome, photo), outcome.draw()
        try:
            with locked(self.out):  # another process may have written a photo of the same name meanwhile
                base, _ = choose_base(self.out, task.stem, self.method, photo)
                files = write_files(base, figure, outcome.arrays, record)
        except OSError as error:
            raise CommandError(f"--out {self.out}: could not write ({error})") from None
        print("\n".join(outcome.answers))
        if not self.quiet:
            print(f"{outcome.num_evaluations:,} coalitions in {outcome.seconds:.1f} s")
            print(f"wrote {printable(', '.join(map(str, files)))}")
        if outcome.problem is not None:
            raise outcome.problem
        return 0


def _warm(options: Explain, task: Task) -> int:
    """Compiles ahead, under a bar of programs, and tells of it."""
    import jax
    from tqdm import tqdm

    import jaxmoxi as jm

    started = time.perf_counter()
    with tqdm(desc="compiling", unit="program", leave=False, disable=True if options.quiet else None) as shown:

        def follow(done: int, total: int) -> None:
            shown.total = total
            shown.update(done - shown.n)

        with _command.one_line():
            count = jm.compile_greedy(
                task.v,
                task.num_players,
                insertion=options.method == "insertion",
                stop=task.stop,
                batch_size=options.batch_size,
                callback=follow,
            )
    folder = jax.config.jax_compilation_cache_dir  # type: ignore[attr-defined]
    kept = f"kept in {printable(str(folder))}" if folder else "kept nowhere, because no folder can be written to"
    programs = f"{count} program{'s' * (count > 1)}"
    print(f"compiled {programs} of --method {options.method} in {time.perf_counter() - started:.0f} s, {kept}")
    return 0


def _length(options: Explain, task: Task, ways: tuple[Ways, Ways] | None) -> str:
    """How long the search will take, where that is over a minute."""
    if ways is not None:
        count = robust_evaluations(
            task.num_players, ways[0], options.robust.hold, necessary=options.necessary, connected=options.connected
        )
        return tell_length(task.model, task.image, ways[0].games, task.num_players, count, bound="up to about")
    if options.method in GROUP_METHODS:
        size = None if task.stop.size is None else int(task.stop.size)
        count = group_evaluations(options.method, task.num_players, size, width=WIDTH, rounds=ROUNDS)
        count *= (1 + options.connected) * (1 + options.necessary)
        return tell_length(task.model, task.image, task.v, task.num_players, count, bound="about")
    # Both phases of --method discriminate together choose each region once at most.
    count = greedy_evaluations(task.num_players, Stop() if options.method == DISCRIMINATE else task.stop)
    return tell_length(task.model, task.image, task.v, task.num_players, count, bound="at most")


def _record(options: Explain, task: Task, outcome: Outcome, photo: Identity) -> dict[str, Any]:
    """What the search was asked and what it found, for the JSON file."""
    asked = {"method": options.method, "until": options.until, "connected": options.connected}
    done = {"finished": outcome.problem is None, "seconds": round(outcome.seconds, 3)}
    found = record_of(options, task, photo) | asked | outcome.record
    return {"answer": outcome.answers[0]} | found | _command.versions() | done
