"""From shards to a tidy table, figures and a report. Everything follows from the shards and the settings alone."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from etils import epath

from jaxmoxi.attribution import METHODS
from jaxmoxi.escape import markdown
from jaxmoxi.files import write_whole
from jaxmoxi.games.removal import Removal
from jaxmoxi.metrics.registry import Column, all_columns
from jaxmoxi.study import figures
from jaxmoxi.study.measure import Setting
from jaxmoxi.study.photos import Photo
from jaxmoxi.study.records import Measured, Result
from jaxmoxi.study.store import read_shard

_REMOVALS: dict[Removal, str] = {
    "tokens": "tokens removed",
    "zero": "pixels set to zero",
    "mean": "pixels set to the mean colour",
    "blur": "pixels blurred",
}
_COLUMNS = ("model", "photo", "label", "target", "method", "removal", "metric", "value")


class Row(NamedTuple):
    """One number of the table: of a photo, a method, a removal ("" where players were not hidden) and a metric's
    column.
    """

    model: str
    photo: str
    label: int
    target: int
    method: str
    removal: str
    metric: str
    value: float


def report_path(out: epath.Path) -> epath.Path:
    """The path of the report, which is the last file that a study writes."""
    return out / "report.md"


def has_results(report: epath.PathLike) -> bool:
    """Whether a finished study has a number for any photo. report: the path of its report."""
    import pyarrow.parquet as pq

    with (epath.Path(report).parent / "table.parquet").open("rb") as file:
        return pq.read_metadata(file).num_rows > 0


def table_rows(name: str, photos: Sequence[Photo], results: Iterable[Result]) -> list[Row]:
    """The tidy table of one model: photo after photo, method after method, the numbers in the order of the metrics."""
    rows = []
    for result in results:
        if result.measured is not None:
            place = {method: i for i, method in enumerate(result.measured.methods)}
            head = (name, result.photo, photos[result.index].label, result.measured.target)
            for number in sorted(result.measured.numbers, key=lambda n: place[n.method]):
                rows.append(Row(*head, number.method, number.removal, number.column, number.value))
    return rows


def write_report(
    out: epath.Path,
    photos: Sequence[Photo],
    settings: Sequence[tuple[str, Setting]],
    shards: Sequence[epath.Path],
    folder: epath.Path,
    *,
    files: str = "",
) -> None:
    """Writes table.parquet, the figures and, last of all, report.md. Raises OSError.

    files: what to say of the files that are not read as photos.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    per_model = len(shards) // len(settings)
    rows: list[Row] = []
    sections: list[str] = []
    for m, (name, task) in enumerate(settings):
        paths = shards[m * per_model : (m + 1) * per_model]
        results = [result for path in paths for result in read_shard(path)]
        own = table_rows(name, photos, results)
        rows += own
        good = [(photos[r.index], r.measured) for r in results if r.measured is not None]
        drawn = _draw(out, name, task, good, folder)
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
    if files:
        head += f"\nFiles: {markdown(files)}.\n"
    write_whole(report_path(out), (head + "\n" + "\n".join(sections)).encode())


def _draw(
    out: epath.Path, name: str, task: Setting, good: Sequence[tuple[Photo, Measured]], folder: epath.Path
) -> list[str]:
    """Writes the figures of one model and returns their names."""
    (out / "figures").mkdir(parents=True, exist_ok=True)
    made = {}
    measured = [m for _, m in good]
    for metric in task.metrics:
        if metric.panels is not None:
            removals = (line.removal for m in measured for line in m.lines if line.metric == metric.name)
            for removal in dict.fromkeys(removals):
                what = f"{metric.name}-{removal}" if removal else metric.name
                made[what] = figures.lines(metric, measured, task.methods, removal)
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
        f"Photos: {told}. Methods play: {_REMOVALS[task.masking]}; players: {task.config.regions}.",
        "",
    ]
    if left_out:
        lines += [f"Do not apply to this model: {', '.join(left_out)}.", ""]
    measured = next((r.measured for r in results if r.measured is not None), None)
    if measured is not None and task.config.sizes is not None:
        sizes = task.config.curve_sizes(measured.orders.shape[-1])
        lines += [text for metric in task.metrics if metric.note for text in (metric.note(sizes), "")]
    dropped = [r for r in task.config.removals or () if r not in task.removals]
    if dropped:
        lines += [f"This model has no {' and '.join(dropped)} to remove.", ""]
    for removal in dict.fromkeys(row.removal for row in rows):
        lines += _table(_title(task, removal), task.methods, [row for row in rows if row.removal == removal])
    lines += [f"![{name}: {path}]({path})" for path in drawn]
    broken = [r for r in results if r.status in ("unreadable", "failed")]
    if broken:
        lines += ["", f"Photos without a result ({len(broken)}):", ""]
        lines += [f"- `{r.photo}`: {r.status}: {r.reason}" for r in broken]
    cited = [f"- {m}: {METHODS[m].source}" for m in task.methods]
    return "\n".join([*lines, "", "Methods:", "", *cited, ""])


def _title(task: Setting, removal: str) -> str:
    """What a table's numbers have in common."""
    own = {name: title for metric in task.metrics for name, title in metric.removals}
    title = {"": "orders and places", **_REMOVALS, **own}.get(removal, removal)
    return f"{title[0].upper()}{title[1:]}"


def _table(title: str, methods: Sequence[str], rows: Sequence[Row]) -> list[str]:
    """The lines of one table: a row for each method, the mean over photos of each kind of number."""
    values: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        values.setdefault((row.method, row.metric), []).append(row.value)
    columns = [column for name, column in all_columns().items() if any(name == metric for _, metric in values)]
    means = {at: _mean(of) for at, of in values.items()}
    heads = [f"{column.name} {'↑' if column.higher else '↓'}" for column in columns]
    lines = [f"### {title}", "", f"| method | {' | '.join(heads)} |", f"| --- |{' ---: |' * len(columns)}"]
    for method in methods:
        cells = [_cell(means, method, column) for column in columns]
        if any(cells):
            lines.append(f"| {method} | {' | '.join(cells)} |")
    return [*lines, ""]


def _mean(values: Sequence[float]) -> tuple[float, float] | None:
    """(mean, half the width of its 95 % interval) of the values that are defined; None where none is."""
    values = [value for value in values if not np.isnan(value)]
    if not values:
        return None
    half = 1.96 * np.std(values, ddof=1) / np.sqrt(len(values)) if len(values) > 1 else float("nan")
    return float(np.mean(values)), float(half)


def _cell(means: Mapping[tuple[str, str], tuple[float, float] | None], method: str, column: Column) -> str:
    """A mean with half the width of its interval, in bold where it is the best of the methods."""
    found = means.get((method, column.name))
    if found is None:
        return ""
    of = [mean[0] for (_, name), mean in means.items() if name == column.name and mean is not None]
    text = f"{found[0]:.{column.digits}f} ± {found[1]:.{column.digits}f}"
    return f"**{text}**" if found[0] == (max(of) if column.higher else min(of)) else text
