"""How small can a group be, how good an order, for how many forward passes? Every search against exact greedy.

    python benchmarks/search.py --model FOLDER --images PHOTOS --lines LINES.jsonl --count 100
    python benchmarks/search.py --model FOLDER --images PHOTOS --lines LINES.jsonl --count 0 --figure FRONT.png

    python benchmarks/search.py --model FOLDER --images PHOTOS --together 8 --grid 7 --out TOGETHER.json

One line of JSON for each photo and method is appended to LINES as soon as it is measured; what is there is not measured
again, so it can be stopped at any time. `--count 0` measures nothing and reports. Only photos that the model classifies
correctly count. FOLDER may be efficientnet-lite0, for the weights of the `demo` extra: hidden pixels then take the mean
colour, and the players are a 14 x 14 grid. A gradient is counted as three forward passes.

The dearest methods are the exact orders: DeiT-Tiny takes about 90 s (insertion) and 180 s (deletion) a photo on two
cores. `--methods` selects. What a study of the same photos measured at all sizes (`jaxmoxi study --preset paper
--masking mean`, or tokens for DeiT) is taken from its shards with `--study FOLDER`: MoXI's orders are the exact ones,
and every rival has its place in the figure.

`--together 8` compares the smallest groups of eight images in one loop (`minimal_groups`) with those of one after the
other; what OUT has of other forms, players and budgets stays.
"""

from __future__ import annotations

import csv
import dataclasses
import json
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from _common import environment, write
from _together import compare, game_of_grid
from PIL import Image

import jaxmoxi as jm
from jaxmoxi import search
from jaxmoxi.attribution import METHODS as METHODS_OF_STUDY
from jaxmoxi.moxi.curves import trapezoid_area
from jaxmoxi.study import StudyConfig
from jaxmoxi.study.store import read_shard

GRADIENT = 3  # forward passes that a forward and a backward pass take
FEW, MANY = 0.04, 0.10  # the shares of players at which accuracy is read: visible, and removed


@dataclasses.dataclass
class Args:
    model: str
    """A checkpoint folder, or efficientnet-lite0."""
    images: Path
    """The folder of photos, with labels.csv."""
    lines: Path = Path("search.jsonl")
    """Where the measurements are kept, one line of JSON each."""
    count: int = 100
    """How many correctly classified photos to measure; 0 reports what there is."""
    methods: tuple[str, ...] = ()
    """Which methods; none means all."""
    grid: int = 14
    """Players along one side, where the model has no tokens; with --together, of any model."""
    together: int = 0
    """Compare the smallest groups of so many images in one loop with those in turn, instead of the methods;
    --methods then names forms."""
    budget: int | None = None
    """Evaluations of each image, with --together; None is that of a whole order."""
    out: Path | None = None
    """Where to write the tables as JSON."""
    study: Path | None = None
    """A study of these photos, whose orders join the tables."""
    figure: Path | None = None
    """Where to draw quality against forward passes."""


@dataclasses.dataclass
class Case:
    """One photo as a game."""

    model: Any
    image: Any
    target: int
    v: Any
    num_players: int
    regions: Any


def order_row(case: Case, result: jm.GreedyResult, insertion: bool, gradients: int = 0) -> dict[str, Any]:
    assert result.probabilities is not None
    assert result.leads is not None
    curve = jnp.concatenate([jnp.atleast_1d(jnp.asarray(result.start_probability)), result.probabilities])
    leads = jnp.concatenate([jnp.atleast_1d(jnp.asarray(result.start_leads)), result.leads])
    return curve_row(case.num_players, curve, leads, insertion, int(result.num_evaluations) + GRADIENT * gradients)


def ordered(case: Case, order: Any, insertion: bool, forwards: int) -> dict[str, Any]:
    result = (jm.insertion_curve if insertion else jm.deletion_curve)(case.v, order)
    return curve_row(case.num_players, result.probabilities, result.leads, insertion, forwards)


def curve_row(num_players: int, curve: Any, leads: Any, insertion: bool, forwards: int) -> dict[str, Any]:
    """What an order is worth: the area under the class's probability, and whether the class leads at the shares."""
    return {
        "kind": "insertion" if insertion else "deletion",
        "area": float(trapezoid_area(curve)),
        "leads": bool(leads[max(1, round((FEW if insertion else MANY) * num_players))]),
        "forwards": forwards,
        "curve": [round(float(p), 4) for p in curve],
    }


def group_row(case: Case, group: Any, forwards: Any, insertion: bool = True) -> dict[str, Any]:
    """A group's size, in which share of other maskings and small shifts it holds, and whether the class leads at the
    shares: with no more players visible, by this group; or with no more removed, in spite of it."""
    fills = (0.0, "blur") if case.model.token_grid is None else (0.0, "mean", "blur")
    others = search.alternatives(case.model, case.image, case.target, case.regions, fills=fills)
    held = search.stability(others, jnp.asarray(group), insertion=insertion)
    assert held.leads is not None
    share = float(jnp.mean(held.leads == insertion))
    kind = "sufficient" if insertion else "necessary"
    size = int(np.sum(group))
    within = size <= max(1, round((FEW if insertion else MANY) * len(group)))
    return {"kind": kind, "size": size, "stable": share, "leads": within == insertion, "forwards": int(forwards)}


def game(model: Any, image: Any, target: int, regions: Any) -> Any:
    if model.token_grid is None:
        return jm.pixel_value_fn(model.logits, image, target, regions, fill="mean")
    return jm.token_value_fn(model, image, target)


def screened(insertion: bool, scorer: Any) -> Callable[[Case], dict[str, Any]]:
    def run(case: Case) -> dict[str, Any]:
        guess = search.class_attention(case.model, case.image) if scorer == "attention" else scorer
        found = search.screened_greedy(case.v, case.num_players, insertion=insertion, scorer=guess)
        row = order_row(case, found.greedy, insertion, int(found.num_gradients))
        return row | {"audits": int(found.num_audits), "missed": int(found.num_missed), "regret": float(found.regret)}

    return run


def backward_forward(insertion: bool, group: bool = False) -> Callable[[Case], dict[str, Any]]:
    """With a group: one that is enough comes first."""

    def run(case: Case) -> dict[str, Any]:
        given = search.backward_elimination(case.v, case.num_players, insertion=insertion) if group else None
        found = search.backward_forward_order(
            case.v, case.num_players, insertion=insertion, first=None if given is None else given.group
        )
        forwards = int(found.num_evaluations) + GRADIENT * int(found.num_gradients)
        return ordered(case, found.order, insertion, forwards + (0 if given is None else int(given.num_evaluations)))

    return run


def two_ends(insertion: bool) -> Callable[[Case], dict[str, Any]]:
    """The front of the order by screened greedy (an eighth of an insertion, a third of a deletion, whose first players
    weigh most), the rest from the other end."""

    def run(case: Case) -> dict[str, Any]:
        stop = jm.Stop(size=max(1, case.num_players // (8 if insertion else 3)))
        found = search.screened_greedy(case.v, case.num_players, insertion=insertion, stop=stop)
        whole = search.complete_order(case.v, found.greedy)
        gradients = int(found.num_gradients) + int(whole.num_gradients)
        forwards = int(found.greedy.num_evaluations) + int(whole.num_evaluations) + GRADIENT * gradients
        row = ordered(case, whole.order, insertion, forwards)
        return row | {"audits": int(found.num_audits), "missed": int(found.num_missed), "regret": float(found.regret)}

    return run


def exact(insertion: bool) -> Callable[[Case], dict[str, Any]]:
    run = jm.greedy_insertion if insertion else jm.greedy_deletion
    return lambda case: order_row(case, run(case.v, case.num_players), insertion)


def blocks(choose: Any, count: int, insertion: bool) -> Callable[[Case], dict[str, Any]]:
    return lambda case: order_row(
        case,
        search.blockwise_greedy(case.v, case.num_players, players_per_step=count, choose=choose, insertion=insertion),
        insertion,
    )


def single(insertion: bool) -> Callable[[Case], dict[str, Any]]:
    def run(case: Case) -> dict[str, Any]:
        order = jm.single_player_order(case.v, case.num_players, insertion=insertion)
        return ordered(case, order, insertion, case.num_players + 1)

    return run


def greedy_group(insertion: bool) -> Callable[[Case], dict[str, Any]]:
    def run(case: Case) -> dict[str, Any]:
        search_ = jm.greedy_insertion if insertion else jm.greedy_deletion
        found = search_(case.v, case.num_players, stop=jm.Stop(flip=True))
        group = np.isin(np.arange(case.num_players), np.asarray(found.order[: int(found.num_steps)]))
        return group_row(case, group, found.num_evaluations, insertion)

    return run


def minimal(insertion: bool, share: float = 1.0) -> Callable[[Case], dict[str, Any]]:
    def run(case: Case) -> dict[str, Any]:
        budget = int(share * case.num_players * (case.num_players + 1) // 2)
        found = search.minimal_group(case.v, case.num_players, insertion=insertion, budget=budget)
        return group_row(case, found.group, found.num_evaluations, insertion)

    return run


def eliminated(case: Case) -> dict[str, Any]:
    found = search.backward_elimination(case.v, case.num_players)
    return group_row(case, found.group, found.num_evaluations)


def beam(case: Case) -> dict[str, Any]:
    found = search.beam_search(case.v, case.num_players, width=8)
    return group_row(case, found.minimal[0], found.num_evaluations)


def both(case: Case) -> dict[str, Any]:
    found = search.necessary_and_sufficient(case.v, case.num_players)
    return group_row(case, found.group, found.num_evaluations) | {"kind": "necessary and sufficient"}


def beam_few(case: Case) -> dict[str, Any]:
    """The best group of 4 % of the players, by the class's lead over the others."""
    at = max(1, round(FEW * case.num_players))
    found = search.beam_search(case.v.with_payoff("margin"), case.num_players, width=8, max_size=at)
    leads = bool(case.v.leads(found.groups[at : at + 1])[0])
    return {"kind": "4 % visible", "leads": leads, "forwards": int(found.num_evaluations)}


METHODS: dict[str, Callable[[Case], dict[str, Any]]] = {
    "greedy group": greedy_group(True),
    "backward elimination": eliminated,
    "minimal group": minimal(True),
    "minimal group, a quarter of the budget": minimal(True, 0.25),
    "beam of 8": beam,
    "best 4 %, beam of 8": beam_few,
    "greedy necessary group": greedy_group(False),
    "minimal necessary group": minimal(False),
    "minimal necessary group, a quarter of the budget": minimal(False, 0.25),
    "necessary and sufficient": both,
    **{
        f"{name} {'insertion' if insertion else 'deletion'}": make(insertion)
        for insertion in (True, False)
        for name, make in {
            "exact": exact,
            "single": single,
            "screened, completed": two_ends,
            "mixed": lambda i: screened(i, "mixed"),
            "backward, forward": backward_forward,
            "group, backward, forward": partial(backward_forward, group=True),
            "stale": lambda i: screened(i, "stale"),
            "gradient": lambda i: screened(i, "gradient"),
            "attention": lambda i: screened(i, "attention"),
            "two together": lambda i: blocks("together", 2, i),
            "top four": lambda i: blocks("top", 4, i),
            "both ends": lambda i: (
                lambda case: order_row(case, search.bidirectional_greedy(case.v, case.num_players, insertion=i), i)
            ),
        }.items()
    },
}


def together(args: Args) -> None:
    """The first photos that the model classifies correctly, in one loop and one after the other."""
    found = [game_of_grid(case.model, case.image, case.target, args.grid) for _, case in cases(args)]
    vs, num_players = [v for v, _ in found], found[0][1]
    compare(vs, num_players, budget=args.budget, forms=args.methods, out=args.out, name=Path(args.model).name)


def cases(args: Args) -> Iterator[tuple[str, Case]]:
    """The first `count` photos that the model classifies correctly."""
    model = jm.models.demo() if args.model == "efficientnet-lite0" else jm.models.load(args.model)
    logits = jax.jit(lambda model, image: model.logits(image[None])[0])
    with open(args.images / "labels.csv", newline="") as f:
        labels = [(row["file"], int(row["index"])) for row in csv.DictReader(f)]
    found = 0
    for file, target in labels:
        if found >= args.count:
            return
        image = model.preprocess(Image.open(args.images / file))
        if int(jnp.argmax(logits(model, image))) != target:
            continue
        found += 1
        rows, cols = model.token_grid or (args.grid, args.grid)
        regions = jm.grid_regions(*image.shape[:2], rows=rows, cols=cols)
        yield file, Case(model, image, target, game(model, image, target, regions), rows * cols, regions)


def measure(args: Args) -> None:
    args.lines.parent.mkdir(parents=True, exist_ok=True)
    known = {(line["file"], line["method"]) for line in read(args.lines)}
    for file, case in cases(args):
        for name in args.methods or METHODS:
            if (file, name) in known or ("attention" in name and case.model.token_grid is None):
                continue
            start = time.perf_counter()
            row = METHODS[name](case)
            line = {"file": file, "method": name, **row, "seconds": round(time.perf_counter() - start, 2)}
            with open(args.lines, "a") as f:
                f.write(json.dumps(line) + "\n")
            print(json.dumps({k: v for k, v in line.items() if k != "curve"}), flush=True)


def from_study(folder: Path, model: str, masking: str, num_players: int | None) -> list[dict[str, Any]]:
    """The orders of a study's model as lines like those measured here."""
    record = json.loads((folder / "study.json").read_text())
    if model not in record["models"]:
        raise SystemExit(f"{folder} studies {', '.join(record['models'])}, not {model}")
    config, methods = record["config"], record["models"][model]["methods"]
    asked = {"steps": None, "sizes": None, "payoff": "log_odds", "only_correct": True}
    if wrong := {name: config[name] for name, value in asked.items() if config[name] != value}:
        raise SystemExit(f"expected a study with {asked}; {folder} has {wrong}")
    lines = []
    for path in sorted((folder / "shards").glob(f"{record['order of the models'].index(model)}-*.npz")):
        for result in read_shard(path):
            if result.measured is None:  # not one of the photos that the model classifies correctly
                continue
            players = result.measured.orders.shape[-1]
            curves = {
                (line.removal, line.method, line.direction, line.quantity): line.values
                for line in result.measured.lines
                if line.metric == "curves"
            }
            removals = {removal for removal, *_ in curves}
            if removals != {masking} or num_players not in (None, players):
                raise SystemExit(
                    f"expected players hidden by {masking}, {num_players}; {folder} has {removals}, {players}"
                )
            for kind in ("insertion", "deletion"):
                for method in methods:
                    curve, leads = (curves[masking, method, kind, what] for what in ("probabilities", "leads"))
                    name = {"moxi": "exact", "moxi-single": "single"}.get(method, method)
                    forwards = study_forwards(method, players, StudyConfig(**config))
                    row = curve_row(players, curve, leads, kind == "insertion", forwards)
                    lines.append({"file": result.photo, "method": f"{name} {kind}", **row})
    return lines


def study_forwards(method: str, num_players: int, config: StudyConfig) -> int:
    """What a method of a study costs, in forward passes."""
    samples = METHODS_OF_STUDY[method].keywords(config.effort(num_players)).get("num_samples", 0)
    return {
        "random": 0,
        "attention-rollout": 1,
        "gradient": GRADIENT,
        "grad-cam": GRADIENT,
        "grad-cam++": GRADIENT,
        "integrated-gradients": 50 * GRADIENT,
        "occlusion": num_players + 1,
        "moxi-single": num_players + 1,
        "rise": samples,
        "hsic": samples,
        "shapley": samples * (num_players - 1) + 2,
        "moxi": num_players * (num_players + 1) // 2,
    }[method]


def read(path: Path) -> list[dict[str, Any]]:
    """The lines of a file; a last one that was cut off is measured again."""
    lines = []
    for text in path.read_text().splitlines() if path.exists() else ():
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            continue
    return lines


def tables(lines: list[dict[str, Any]]) -> dict[str, Any]:
    """Per method the mean of every number, with half the width of its 95 % confidence interval over photos.

    Where an exact or greedy counterpart was measured on the same photos, also the mean difference to it.
    """
    by_method: dict[str, dict[str, dict[str, Any]]] = {}
    for line in lines:
        by_method.setdefault(line["method"], {})[line["file"]] = line
    result = {}
    for method, rows in by_method.items():
        kind = next(iter(rows.values()))["kind"]
        base = {
            "insertion": "exact insertion",
            "deletion": "exact deletion",
            "necessary": "greedy necessary group",
        }.get(kind, "greedy group")
        entry: dict[str, Any] = {"kind": kind, "photos": len(rows)}
        for number in ("size", "area", "leads", "stable", "missed", "audits", "regret", "forwards", "seconds"):
            values = [row[number] for row in rows.values() if number in row]
            if values:
                entry[number] = interval(values)
            shared = [f for f in rows if f in by_method.get(base, {})]
            pairs = [(rows[f], by_method[base][f]) for f in shared]
            pairs = [(a, b) for a, b in pairs if number in a and number in b]
            if method != base and pairs and number in ("size", "area", "leads", "forwards"):
                difference = interval([float(a[number]) - float(b[number]) for a, b in pairs])
                mean = float(np.mean([float(b[number]) for _, b in pairs]))
                entry[f"{number} - {base}"] = {**difference, "base": mean, "photos": len(pairs)}
        result[method] = entry
    return result


def interval(values: list[Any]) -> dict[str, float]:
    array = np.asarray(values, float)
    half = 1.96 * array.std(ddof=1) / np.sqrt(len(array)) if len(array) > 1 else float("nan")
    return {"mean": float(array.mean()), "half": float(half)}


def label_points(figure: Any, axes: Any, texts: list[tuple[str, tuple[float, float], str]]) -> None:
    """Each name beside its point, where no other name is."""
    figure.draw_without_rendering()
    taken: list[Any] = []
    for name, place, colour in texts:
        for x, y, side in ((7, 3, "left"), (7, -10, "left"), (-7, 3, "right"), (-7, -10, "right"), (7, 13, "left")):
            text = axes.annotate(
                name, place, xytext=(x, y), textcoords="offset points", fontsize=8, color=colour, ha=side
            )
            box = text.get_window_extent()
            if not any(box.overlaps(other) for other in taken):
                break
            text.remove()
        else:
            text = axes.annotate(name, place, xytext=(7, 3), textcoords="offset points", fontsize=8, color=colour)
        taken.append(text.get_window_extent())


def draw(lines: list[dict[str, Any]], path: Path) -> None:
    """Quality against forward passes: group sizes, insertion areas, deletion areas, over the photos that all methods of
    a panel have in common. A line joins the best for a price."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

    figure = Figure(figsize=(17, 6), layout="constrained")
    panels = (
        ("sufficient", "size", "players of a group that is enough", "smaller is better", -1),
        ("insertion", "area", "area under the class's probability", "higher is better", 1),
        ("deletion", "area", "area under the class's probability", "lower is better", -1),
    )
    for axes, (kind, number, label, better, sign) in zip(figure.subplots(1, 3), panels, strict=True):
        rows: dict[str, dict[str, Any]] = {}
        for line in lines:
            if line["kind"] == kind:
                rows.setdefault(line["method"], {})[line["file"]] = line
        files = set.intersection(*(set(found) for found in rows.values())) if rows else set()
        axes.set(
            xscale="log", xlabel="forward passes a photo", ylabel=label, title=f"{kind}: {better}, photos: {len(files)}"
        )
        if not files:
            continue
        points = []
        for name, found in rows.items():
            forwards = np.mean([found[file]["forwards"] for file in files])
            points.append((max(forwards, 0.5), interval([found[file][number] for file in files]), name))
        best, front, texts = -np.inf, [], []
        for x, y, name in sorted(points, key=lambda point: point[0]):
            if sign * y["mean"] > best:
                best = sign * y["mean"]
                front.append((x, y["mean"]))
            name = name.removesuffix(f" {kind}")
            rival = name in METHODS_OF_STUDY
            colour = "#888888" if rival else "#d0021b" if name.startswith(("exact", "greedy")) else "#1f77b4"
            axes.errorbar(x, y["mean"], yerr=np.nan_to_num(y["half"]), fmt="o", elinewidth=0.4, color=colour)
            texts.append((name, (x, y["mean"]), colour))
        axes.plot(*zip(*front, strict=True), color="#1f77b4", linewidth=0.8, linestyle="--", zorder=0)
        axes.margins(x=0.25, y=0.08)
        axes.grid(alpha=0.3)
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if kind == "sufficient" else (1,)))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))
        axes.xaxis.set_minor_locator(NullLocator())
        label_points(figure, axes, texts)
    figure.supxlabel("bars: 95 % confidence intervals; red: greedy; blue: jaxmoxi.search; grey: rivals", fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def main(args: Args) -> None:
    if args.together:
        together(dataclasses.replace(args, count=args.together))
        return
    unknown = [name for name in args.methods if name not in METHODS]
    if unknown:
        raise SystemExit(f"unknown methods {unknown}; there are: {', '.join(METHODS)}")
    measure(args)
    name = Path(args.model).name
    lines = read(args.lines)
    if args.study:
        cnn = args.model == "efficientnet-lite0"
        lines += from_study(args.study, name, *(("mean", args.grid**2) if cnn else ("tokens", None)))
    table = tables(lines)
    write({"model": name, "environment": environment(), "methods": table}, args.out)
    if args.figure:
        draw(lines, args.figure)


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
