"""The command `jaxmoxi`: a thin shell over the library.

A subcommand is a dataclass whose fields are its options and whose `run` does the work and returns the exit code; it
is listed in `_COMMANDS`. What a user can get wrong ends as one line on stderr and exit code 2 (`CommandError`).
Anything else keeps its traceback: it is a mistake of ours.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from jaxmoxi.cli import shared as _command
from jaxmoxi.cli.explain import Task, prepare, search
from jaxmoxi.cli.predict import Predict
from jaxmoxi.cli.report import arrays, describe, group, percent, write_files
from jaxmoxi.cli.shared import CommandError
from jaxmoxi.cli.study import Study
from jaxmoxi.cli.train import Train
from jaxmoxi.errors import InputError

_OPTION = tyro.conf.arg


@dataclasses.dataclass(frozen=True)
class Explain:
    """Find the regions of a photo that together make a classifier see a class.

    Prints the answer, and writes a picture (.png), the arrays (.npz) and a record (.json) into the folder --out.
    Without any option it explains a photo of a cat with EfficientNet-Lite0, as if called with --target 'Egyptian cat'
    --until 0.7: which regions are enough for the model to be that sure?
    """

    photo: Annotated[tyro.conf.Positional[Path | None], _OPTION(metavar="[PHOTO]", help_behavior_hint="")] = None
    """An image file. Left out: a photo of a cat that comes with scikit-image."""
    model: Annotated[Path | None, _OPTION(metavar="FOLDER", help_behavior_hint="")] = None
    """A checkpoint folder (config.json, model.safetensors). Left out: EfficientNet-Lite0 of the `demo` extra."""
    target: Annotated[str | None, _OPTION(metavar="NAME|INDEX", help_behavior_hint="")] = None
    """The class to explain. Left out: the one the model sees in the photo."""
    regions: Annotated[str | None, _OPTION(metavar="grid:RxC|slic:N", help_behavior_hint="")] = None
    """The players: a grid, or about N superpixels. Left out: the model's tokens, or grid:7x7 when pixels are hidden."""
    method: Literal["insertion", "deletion"] = "insertion"
    """insertion: which regions are enough; deletion: which it cannot do without."""
    masking: Annotated[Literal["tokens", "pixels"] | None, _OPTION(metavar="tokens|pixels", help_behavior_hint="")] = (
        None
    )
    """How a region is hidden: its tokens are removed (vision transformers), or its pixels filled. Left out: tokens
    where the model has them."""
    until: Annotated[str | None, _OPTION(metavar="class|K|CONFIDENCE|all", help_behavior_hint="")] = None
    """When to stop: the class takes (insertion) or loses (deletion) the lead; after K regions; when its probability
    passes a level such as 0.9; or not before all regions are in order. Left out: class."""
    out: Annotated[Path, _OPTION(metavar="DIR")] = Path("jaxmoxi-out")
    """The folder to write to."""
    payoff: Literal["log_odds", "margin", "log_prob", "logit", "prob"] = "log_odds"
    """What the search drives up or down, of the target class."""
    fill: Annotated[str | None, _OPTION(metavar="NUMBER|mean|blur", help_behavior_hint="")] = None
    """What hidden pixels become: a number (in the network's normalised units), the photo's mean colour or the photo
    blurred. Left out: 0."""
    batch_size: Annotated[int | None, _OPTION(metavar="N", help_behavior_hint="")] = None
    """Coalitions evaluated at once. Left out: what fits the memory."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """What the network computes in; the payoffs are float32 always."""
    credit: Annotated[str | None, _OPTION(metavar="TEXT", help_behavior_hint="")] = None
    """Whose photo it is, for the line below the picture."""
    quiet: tyro.conf.FlagCreatePairsOff[bool] = False
    """Print the answer alone, without a progress bar."""

    def filled_in(self) -> Explain:
        """These options, with the demonstration's question where none is asked."""
        is_demo = self.photo is None and self.model is None
        if is_demo and (self.target, self.until, self.method) == (None, None, "insertion"):
            return dataclasses.replace(self, target="Egyptian cat", until="0.7")
        return dataclasses.replace(self, until=self.until or "class")

    def run(self) -> int:
        return self.filled_in().explain()

    def explain(self) -> int:
        _command.start_compilation_cache()
        task = prepare(self, _command.start_devices())
        _command.check_out(self.out)
        if not self.quiet:
            print(f"{task.model.name} sees {task.name(task.top)!r}, {percent(task.whole[task.top])}", flush=True)
        started = time.perf_counter()
        result, problem = search(task, self.method, batch_size=self.batch_size, bar=not self.quiet)
        seconds = time.perf_counter() - started
        if problem is None or int(result.num_steps):
            answer = f"unfinished: {int(result.num_steps)} of {task.num_players} regions in order"
            if problem is None:
                answer = describe(result, task.stop, task.name(task.target))
            files = _write(self, task, result, answer, seconds, finished=problem is None)
            print(answer)
            if not self.quiet:
                print(f"{int(result.num_evaluations):,} coalitions in {seconds:.1f} s")
                print(f"wrote {', '.join(map(str, files))}")
        if problem is not None:
            raise problem
        return 0


@dataclasses.dataclass(frozen=True)
class Bench:
    """Measure how many coalitions a second this machine evaluates, beside the rate of its matrix products.

    Without --model: a vision transformer of 14 x 14 patches with random weights.
    """

    model: Annotated[Path | None, _OPTION(metavar="FOLDER", help_behavior_hint="")] = None
    """A checkpoint folder of a vision transformer."""
    size: Literal["tiny", "small", "base"] = "tiny"
    """Without --model: how large."""
    tokens: tuple[int, ...] = (17, 33, 65, 129, 197)
    """Numbers of visible tokens, class token included."""
    batches: tuple[int, ...] = ()
    """Coalitions evaluated together. Left out: 8, 16 and 32 on a CPU, 64, 256 and 1024 elsewhere."""
    dtypes: tuple[Literal["float32", "bfloat16"], ...] = ()
    """Left out: float32 on a CPU, both elsewhere."""
    out: Annotated[Path | None, _OPTION(metavar="FILE", help_behavior_hint="")] = None
    """A JSON file to write as well."""

    def run(self) -> int:
        _command.start_compilation_cache()
        mesh = _command.start_devices()
        import jax

        import jaxmoxi as jm
        from jaxmoxi.cli import bench as _bench

        on_cpu = jax.default_backend() == "cpu"
        try:
            if self.out is not None:
                self.out.parent.mkdir(parents=True, exist_ok=True)
                self.out.touch()
            model = _bench.random_classifier(_bench.SIZES[self.size])
            if self.model is not None:
                model = jm.models.load(self.model)
                if model.token_grid is None:
                    raise InputError(f"--model: {model.name} is no vision transformer: there are no tokens to count")
            rows = _bench.throughput(
                model,
                tokens=self.tokens,
                batches=self.batches or ((8, 16, 32) if on_cpu else (64, 256, 1024)),
                dtypes=self.dtypes or (("float32",) if on_cpu else ("float32", "bfloat16")),
                mesh=mesh,
            )
            print(f"{self.model or self.size} on {jax.devices()[0].device_kind}\n{_bench.HEADER}", flush=True)
            shown = []
            for row in rows:
                shown.append(row)
                print(_bench.line(row), flush=True)
        except (ValueError, OSError) as error:
            raise CommandError(str(error)) from error
        if self.out is not None:
            self.out.write_text(
                json.dumps({"model": str(self.model or self.size), **_command.versions(), "rows": shown})
            )
            print(f"wrote {self.out}")
        return 0


_COMMANDS: dict[str, Any] = {"explain": Explain, "train": Train, "predict": Predict, "study": Study, "bench": Bench}


def main(argv: list[str] | None = None) -> int:
    """Runs the command with these arguments (default: the process's) and returns its exit code."""
    argv = sys.argv[1:] if argv is None else argv
    if argv == ["--version"]:
        import jaxmoxi

        print(f"jaxmoxi {jaxmoxi.__version__}")
        return 0
    try:
        command = tyro.extras.subcommand_cli_from_dict(
            _COMMANDS,
            prog="jaxmoxi",
            description="Which regions of an image, together, make a classifier believe what it believes? "
            "`jaxmoxi --version` prints the version.",
            args=argv,
        )
    except SystemExit as stop:  # tyro has printed the help or what is wrong
        return stop.code if isinstance(stop.code, int) else 2
    try:
        return command.run()
    except CommandError as error:
        print(f"jaxmoxi: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("jaxmoxi: interrupted", file=sys.stderr)
        return 130


def _write(options: Explain, task: Task, result: Any, answer: str, seconds: float, finished: bool) -> list[Path]:

    import jaxmoxi as jm

    players = group(result, task.stop)
    name = task.name(task.target)
    fill = task.fill if isinstance(task.fill, str) else f"{task.fill or 0:g}"
    hidden = "tokens removed" if task.masking == "tokens" else f"pixels filled with {fill}"
    credit = options.credit or ("photo: Stéfan van der Walt, CC0" if options.photo is None else None)
    settings = [task.model.name, options.method, f"hidden: {hidden}", f"payoff {options.payoff}", task.spec, credit]
    figure = jm.plot.explanation(
        task.photo,
        task.regions,
        result,
        target=name,
        upto="flip" if task.stop == jm.Stop() else "all",
        heat_upto="all",
        title=answer[0].upper() + answer[1:],
        caption="  ·  ".join(filter(None, settings)),
        whole=float(task.whole[task.target]),
    )
    steps = int(result.num_steps)
    record = {
        "answer": answer,
        "finished": finished,
        "photo": None if options.photo is None else str(options.photo),
        "model": task.model.name,
        "target": {"index": task.target, "name": task.model.class_names[task.target]},
        "target_probability": task.whole[task.target],
        "prediction": {
            "index": task.top,
            "name": task.model.class_names[task.top],
            "probability": task.whole[task.top],
        },
        "method": options.method,
        "masking": task.masking,
        "fill": task.fill,
        "regions": task.spec,
        "num_regions": task.num_players,
        "payoff": options.payoff,
        "dtype": options.dtype,
        "until": options.until,
        "group": players,
        "order": result.order[:steps],
        "values": result.values[:steps],
        "probabilities": result.probabilities[:steps],
        "leads": result.leads[:steps],
        "start": {
            "value": result.start_value,
            "probability": result.start_probability,
            "leads": result.start_leads,
        },
        "num_evaluations": int(result.num_evaluations),
        "seconds": round(seconds, 3),
        **_command.versions(),
    }
    data = arrays(result, regions=task.regions, photo=task.photo, group=players, target=task.target)
    try:
        return write_files(options.out / f"{task.stem}-{options.method}", figure, data, record)
    except OSError as error:
        raise CommandError(f"--out {options.out}: could not write ({error})") from None
