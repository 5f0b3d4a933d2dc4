"""From shards to a tidy table, figures and a report. Everything follows from the shards and the settings alone."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath

import jaxmoxi.metrics as metrics
from jaxmoxi.attribution import METHODS
from jaxmoxi.files import write_whole
from jaxmoxi.study import figures
from jaxmoxi.study.measure import DIRECTIONS, LOCALISATION, ROAD_SHARES, Setting
from jaxmoxi.study.photos import Photo, as_text
from jaxmoxi.study.store import read_shard

# What each metric is called, and whether more of it is better.
HIGHER = {
    "insertion probability area": True,
    "insertion accuracy area": True,
    "deletion probability area": False,
    "deletion accuracy area": False,
    "smallest group that is enough": False,
    "smallest group to lose": False,
    "highest probability": True,
    "agreement with moxi": True,
    **dict.fromkeys(LOCALISATION, True),
    "ROAD, most important first": False,
    "ROAD, least important first": True,
}
_COLUMNS = ("model", "photo", "label", "target", "method", "removal", "metric", "value")


class Row(NamedTuple):
    """One number of the table: of a photo, a method, a removal ("" where it has none) and a metric."""

    model: str
    photo: str
    label: int
    target: int
    method: str
    removal: str
    metric: str
    value: float


class Result(NamedTuple):
    """One photo under one model, as a shard has it."""

    photo: Photo
    status: str
    reason: str
    seconds: float
    arrays: Mapping[str, np.ndarray]


def report_path(out: epath.Path) -> epath.Path:
    """Of the report; the last file that a study writes."""
    return out / "report.md"


def has_results(report: epath.PathLike) -> bool:
    """Whether the finished study of a report has a number for any photo."""
    import pyarrow.parquet as pq

    with (epath.Path(report).parent / "table.parquet").open("rb") as file:
        return pq.read_metadata(file).num_rows > 0


def read_results(path: epath.Path, photos: Sequence[Photo]) -> Iterator[Result]:
    """The photos of a shard, in their order."""
    shard = read_shard(path)
    for i, index in enumerate(shard["index"]):
        prefix = f"{index}/"
        arrays = {name[len(prefix) :]: array for name, array in shard.items() if name.startswith(prefix)}
        yield Result(
            photos[index], str(shard["status"][i]), str(shard["reason"][i]), float(shard["seconds"][i]), arrays
        )


def table_rows(name: str, methods: Sequence[str], results: Iterable[Result], config: Any) -> list[Row]:
    """The tidy table of one model."""
    rows = []
    for result in results:
        if result.status == "ok":
            for method, removal, metric, value in _numbers(result.arrays, methods, config):
                photo = result.photo
                target = int(result.arrays["target"])
                rows.append(Row(name, as_text(photo.name), photo.label, target, method, removal, metric, float(value)))
    return rows


def _numbers(arrays: Mapping[str, np.ndarray], methods: Sequence[str], config: Any) -> Iterator[tuple[Any, ...]]:
    num_players = arrays["orders"].shape[-1]
    for i, method in enumerate(methods):
        if "curves" in config.metrics:
            shares = arrays["sizes"] / num_players
            for removal in dict.fromkeys(key.split("/")[0] for key in arrays if key.endswith("/insertion/leads")):
                for direction in DIRECTIONS:
                    probabilities = arrays[f"{removal}/{direction}/probabilities"][i]
                    leads = arrays[f"{removal}/{direction}/leads"][i]
                    yield method, removal, f"{direction} probability area", np.trapezoid(probabilities, shares)
                    yield method, removal, f"{direction} accuracy area", np.trapezoid(leads.astype(float), shares)
                    flipped = np.flatnonzero(leads == (direction == "insertion"))
                    # As `metrics.smallest_flip` has it: one more than all where no group does.
                    size = arrays["sizes"][flipped[0]] if len(flipped) else num_players + 1
                    which = "smallest group that is enough" if direction == "insertion" else "smallest group to lose"
                    yield method, removal, which, size
                    if direction == "insertion":
                        yield method, removal, "highest probability", probabilities.max()
        if "agreement" in config.metrics and "moxi" in methods and method != "moxi":
            ours = arrays["orders"][methods.index("moxi")]
            yield method, "", "agreement with moxi", np.mean(_agreement(arrays["orders"][i], ours))
        for what, value in zip(
            LOCALISATION, arrays["localisation"][i] if "localisation" in arrays else (), strict=False
        ):
            yield method, "", what, value
        for which in ("most", "least"):
            if f"road/{which}" in arrays:
                curve = arrays[f"road/{which}"][i]
                span = ROAD_SHARES[-1] - ROAD_SHARES[0]
                yield method, "road", f"ROAD, {which} important first", np.trapezoid(curve, ROAD_SHARES) / span


@jax.jit
def _agreement(orders_a: Any, orders_b: Any) -> Any:
    """Kendall's tau of each order of a stack with its counterpart, float32[N]."""
    return jax.vmap(lambda a, b: metrics.order_agreement(a, b).kendall_tau)(orders_a, orders_b)


def write_report(
    out: epath.Path,
    photos: Sequence[Photo],
    settings: Sequence[tuple[str, Setting]],
    shards: Sequence[epath.Path],
    folder: epath.Path,
) -> None:
    """Writes table.parquet, the figures and, last of all, report.md. Raises OSError."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    per_model = len(shards) // len(settings)
    rows: list[Row] = []
    sections: list[str] = []
    for m, (name, task) in enumerate(settings):
        paths = shards[m * per_model : (m + 1) * per_model]
        results = [result for path in paths for result in read_results(path, photos)]
        own = table_rows(name, task.methods, results, task.config)
        rows += own
        drawn = _draw(out, name, task, results, folder)
        sections.append(_section(name, task, results, own, drawn))
    columns = list(zip(*rows, strict=True)) or [()] * len(_COLUMNS)
    types = [pa.string(), pa.string(), pa.int32(), pa.int32(), pa.string(), pa.string(), pa.string(), pa.float64()]
    table = pa.table([pa.array(c, t) for c, t in zip(columns, types, strict=True)], names=_COLUMNS)
    file = io.BytesIO()
    pq.write_table(table, file)
    write_whole(out / "table.parquet", file.getvalue())
    head = (
        f"# Study\n\n{len(photos)} photos. Every number with its 95 % confidence interval over photos (1.96 standard "
        "errors); ↑ higher is better, ↓ lower. `table.parquet` has every photo's own, `shards/` the orders and curves, "
        "`study.json` the settings.\n"
    )
    write_whole(report_path(out), (head + "\n" + "\n".join(sections)).encode())


def _draw(out: epath.Path, name: str, task: Setting, results: Sequence[Result], folder: epath.Path) -> list[str]:
    """Writes the figures of one model and returns their names."""
    (out / "figures").mkdir(parents=True, exist_ok=True)
    made = {}
    good = [r for r in results if r.status == "ok"]
    if good and "curves" in task.config.metrics:
        for removal in task.removals:
            made[f"curves-{removal}"] = figures.curves(good, task.methods, removal)
    if good:
        made["heat-maps"] = figures.contact_sheet(good[:8], task, folder)
    names = []
    for what, figure in made.items():
        file = io.BytesIO()
        figure.savefig(file, format="png", metadata={"Software": None})
        names.append(f"figures/{_plain(name)}-{what}.png")
        write_whole(out / names[-1], file.getvalue())
    return names


def _plain(name: str) -> str:
    return "".join(c if c.isalnum() or c in "-_." else "-" for c in name)


def _section(name: str, task: Setting, results: Sequence[Result], rows: Sequence[Row], drawn: Sequence[str]) -> str:
    counts = Counter(result.status for result in results)
    told = ", ".join(f"{count} {status}" for status, count in sorted(counts.items(), key=lambda c: c[0] != "ok"))
    left_out = [m for m in task.config.methods if m not in task.methods]
    lines = [
        f"## {name}",
        "",
        f"Photos: {told}. Methods play: {_SAY[task.masking]}; players: {task.config.regions}.",
        "",
    ]
    if left_out:
        lines += [f"Do not apply to this model: {', '.join(left_out)}.", ""]
    sizes = next((r.arrays["sizes"] for r in results if "sizes" in r.arrays), None)
    if sizes is not None and task.config.sizes is not None:
        lines += [
            f"Curves are measured at {len(sizes)} sizes ({', '.join(map(str, sizes[:8]))}, ...); a smallest group is "
            "the first of them that does it.",
            "",
        ]
    dropped = [r for r in task.config.removals or () if r not in task.removals]
    if dropped:
        lines += [f"This model has no {' and '.join(dropped)} to remove.", ""]
    for removal in dict.fromkeys(row.removal for row in rows):
        of = [row for row in rows if row.removal == removal]
        names = [metric for metric in HIGHER if any(row.metric == metric for row in of)]
        title = {"": "orders and places", "road": "pixels imputed (ROAD)"}.get(removal) or _SAY.get(removal, removal)
        lines += [f"### {title[0].upper()}{title[1:]}", ""]
        heads = [f"{n} {'↑' if HIGHER[n] else '↓'}" for n in names]
        lines += [f"| method | {' | '.join(heads)} |"]
        lines += [f"| --- |{' ---: |' * len(names)}"]
        means = {
            (m, n): _mean([r.value for r in of if (r.method, r.metric) == (m, n)]) for m in task.methods for n in names
        }
        for method in task.methods:
            cells = [_cell(means, method, n) for n in names]
            if any(cells):
                lines.append(f"| {method} | {' | '.join(cells)} |")
        lines.append("")
    lines += [f"![{name}: {path}]({path})" for path in drawn]
    broken = [r for r in results if r.status in ("unreadable", "failed")]
    if broken:
        lines += ["", f"Photos without a result ({len(broken)}):", ""]
        lines += [f"- `{as_text(r.photo.name)}`: {r.status}: {r.reason}" for r in broken]
    cited = [f"- {m}: {METHODS[m].source}" for m in task.methods]
    return "\n".join([*lines, "", "Methods:", "", *cited, ""])


_SAY = {
    "tokens": "tokens removed",
    "zero": "pixels set to zero",
    "mean": "pixels set to the mean colour",
    "blur": "pixels blurred",
}


def _mean(values: Sequence[float]) -> tuple[float, float] | None:
    """(mean, half width of its 95 % interval) of those that are defined."""
    values = [value for value in values if not np.isnan(value)]
    if not values:
        return None
    half = 1.96 * np.std(values, ddof=1) / np.sqrt(len(values)) if len(values) > 1 else float("nan")
    return float(np.mean(values)), float(half)


def _cell(means: Mapping[Any, Any], method: str, metric: str) -> str:
    found = means[method, metric]
    if found is None:
        return ""
    best = max((v[0] if HIGHER[metric] else -v[0]) for (_, n), v in means.items() if n == metric and v)
    digits = 1 if metric.startswith("smallest") else 3
    text = f"{found[0]:.{digits}f} ± {found[1]:.{digits}f}"
    return f"**{text}**" if (found[0] if HIGHER[metric] else -found[0]) == best else text
