"""From shards to a tidy table, figures and a report. Everything follows from the shards and the settings alone.

Names come from outside: of models, photos and classes. What is written into the report or drawn is escaped.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from etils import epath

from jaxmoxi.attribution import METHODS
from jaxmoxi.errors import InputError
from jaxmoxi.escape import markdown, printable, shorten
from jaxmoxi.files import write_whole
from jaxmoxi.games.removal import Removal
from jaxmoxi.metrics.registry import Column, all_columns
from jaxmoxi.models.classifier import Restriction
from jaxmoxi.study import across_report, figures
from jaxmoxi.study.measure import Setting
from jaxmoxi.study.photos import Photo
from jaxmoxi.study.records import Measured, Result
from jaxmoxi.study.store import Study, results_in

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
    """Whether a study has a number for any photo. report: the path of its report.

    Raises InputError that names the table where it cannot be read.
    """
    import pyarrow.parquet as pq

    path = epath.Path(report).parent / "table.parquet"
    try:
        with path.open("rb") as file:
            return pq.read_metadata(file).num_rows > 0
    except Exception as error:  # a damaged file makes errors of many kinds
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{path} cannot be read ({reason}); run the study again, which makes it anew") from None


def is_finished(report: epath.PathLike) -> bool:
    """Whether a report tells of all photos of its study. report: its path."""
    return _UNFINISHED not in epath.Path(report).read_text(encoding="utf-8")


_UNFINISHED = "**Not finished**"


def table_rows(
    name: str, photos: Sequence[Photo], results: Iterable[Result], restriction: Restriction | None = None
) -> list[Row]:
    """The tidy table of one model: photo after photo, method after method, the numbers in the order of the metrics.

    Labels and targets are among the classes of the whole head, also of a model that is restricted.
    """
    rows = []
    for result in results:
        if result.measured is not None:
            place = {method: i for i, method in enumerate(result.measured.methods)}
            target = result.measured.target
            target = target if restriction is None else restriction.classes[target]
            head = (name, result.photo, photos[result.index].label, target)
            for number in sorted(result.measured.numbers, key=lambda n: place[n.method]):
                rows.append(Row(*head, number.method, number.removal, number.column, number.value))
    return rows


def update_report(study: Study) -> None:
    """Writes table.parquet, the figures and, last of all, report.md, unless they are there and made of these shards.

    The last line of the report tells what it was made of, and what the table and the figures were: a report that is cut
    short has lost it, and a table that has changed is not the one it names. What else a reader writes into the report
    stays. Raises OSError, and InputError that names a shard which is damaged or another's.
    """
    made_of = _made_of(study)
    if not _is_current(study.out, made_of):
        write_report(study, made_of)


def write_report(study: Study, made_of: str) -> None:
    """Writes table.parquet, the figures and, last of all, report.md. Raises as `update_report`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows: list[Row] = []
    sections: list[str] = []
    files: dict[str, bytes] = {}
    stems = _stems([name for name, _ in study.settings])
    measured = 0
    for m, (name, task) in enumerate(study.settings):
        results = _results(study, m)
        measured += len(results)
        own = table_rows(name, study.photos, results, task.model.restriction)
        rows += own
        good = [(study.photos[r.index], r.measured) for r in results if r.measured is not None]
        drawn = _draw(stems[m], task, good, study.folder)
        files |= drawn
        sections.append(_section(name, task, results, own, list(drawn)))
    columns = list(zip(*rows, strict=True)) or [()] * len(_COLUMNS)
    types = [pa.string(), pa.string(), pa.int32(), pa.int32(), pa.string(), pa.string(), pa.string(), pa.float64()]
    table = pa.table([pa.array(c, t) for c, t in zip(columns, types, strict=True)], names=_COLUMNS)
    file = io.BytesIO()
    pq.write_table(table, file)
    files["table.parquet"] = file.getvalue()
    (study.out / "figures").mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        write_whole(study.out / name, data)
    hashes = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    sections += across_report.section(study, _UNFINISHED)
    text = "\n".join([_head(study, measured), *sections, _MADE_OF.format(json.dumps({"shards": made_of, **hashes}))])
    write_whole(report_path(study.out), text.encode())


_MADE_OF = "<!-- made of {} -->\n"


def _made_of(study: Study) -> str:
    """A hash of what is in the shards."""
    known = [(pair, study.path(pair)) for pair in study.shards]
    found = [(*pair, study.is_done(pair), results_in(path)) for pair, path in known if path is not None]
    if len(study.settings) > 1:
        found.append((-1, -1, True, across_report.made_of(study)))
    return hashlib.sha256(json.dumps(found).encode()).hexdigest()


def _is_current(out: epath.Path, made_of: str) -> bool:
    """Whether a report is there that was made of these shards, with the table and the figures that it was made with."""
    try:
        last = report_path(out).read_text(encoding="utf-8").rstrip().rsplit("\n", 1)[-1]
        before, after = _MADE_OF.strip().split("{}")
        told = json.loads(last.removeprefix(before).removesuffix(after))
        if told.pop("shards") != made_of or "table.parquet" not in told:
            return False
        return all(hashlib.sha256((out / name).read_bytes()).hexdigest() == digest for name, digest in told.items())
    except Exception:  # the report, or what it names, is missing or damaged in one of many ways: it is made anew
        return False


def _results(study: Study, model: int) -> list[Result]:
    """The results of one model, in the order of the photos; label maps are kept for the contact sheet alone."""
    results: list[Result] = []
    good = 0
    for pair in study.shards:
        if pair[0] == model:
            for result in study.read(pair):
                if result.measured is not None:
                    good += 1
                    if good > _SHEET:
                        bare = result.measured._replace(regions=np.zeros((0, 0), np.int32))
                        result = result._replace(measured=bare)
                results.append(result)
    return results


_SHEET = 8  # photos on the contact sheet


def _head(study: Study, measured: int) -> str:
    left = len(study.photos) * len(study.settings) - measured
    of = f" under each of {len(study.settings)} models" if len(study.settings) > 1 else ""
    unfinished = (
        f"{_UNFINISHED}: {measured} of {measured + left} are measured. The same command goes on.\n\n" if left else ""
    )
    return (
        f"# Study\n\n{unfinished}{len(study.photos)} photos{of}. Every number with its 95 % confidence interval over "
        "photos (1.96 standard errors); ↑ higher is better, ↓ lower. `table.parquet` has every photo's own, `shards/` "
        "the orders and curves, `study.json` the settings.\n"
        + (f"\nFiles: {markdown(study.left_out)}.\n" if study.left_out else "")
    )


def _draw(stem: str, task: Setting, good: Sequence[tuple[Photo, Measured]], folder: epath.Path) -> dict[str, bytes]:
    """The figures of one model, as PNG, by the paths they will have."""
    made = {}
    measured = [m for _, m in good]
    for metric in task.metrics:
        if metric.panels is not None:
            removals = (line.removal for m in measured for line in m.lines if line.metric == metric.name)
            for removal in dict.fromkeys(removals):
                what = f"{metric.name}-{removal}" if removal else metric.name
                made[what] = figures.lines(metric, measured, task.methods, removal)
    if good:
        made["heat-maps"] = figures.contact_sheet(good[:_SHEET], task, folder)
    drawn = {}
    for what, figure in made.items():
        file = io.BytesIO()
        figure.savefig(file, format="png", metadata={"Software": None})
        drawn[f"figures/{stem}-{_stems([what])[0]}.png"] = file.getvalue()
    return drawn


def _stems(names: Sequence[str]) -> list[str]:
    """File names for names of any kind: short, of plain letters, and different where letter case is not told apart."""
    stems: list[str] = []
    for i, name in enumerate(names):
        stem = re.sub(r"[^A-Za-z0-9_.-]", "-", name)[:60].strip("-.") or "model"
        clash = stem.lower() in (other.lower() for other in stems)
        stems.append(f"{stem}-{i}" if clash else stem)
    return stems


def _section(name: str, task: Setting, results: Sequence[Result], rows: Sequence[Row], drawn: Sequence[str]) -> str:
    counts = Counter(result.status for result in results)
    told = ", ".join(f"{count} {status}" for status, count in sorted(counts.items(), key=lambda c: c[0] != "ok"))
    left_out = [m for m in task.config.methods if m not in task.methods]
    title = _text(name, 80)
    if task.config.share == "pixels":
        along = "the image's pixels (tokens, where they are removed)"
    else:
        along = "the players, whatever their size"
    lines = [
        f"## {title}",
        "",
        f"Photos: {told}. Methods play: {_REMOVALS[task.masking]}; players: {task.config.regions}. "
        f"Curves and their areas are over the share of {along}.",
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
    lines += [f"![{title}: {path}]({path})" for path in drawn]
    broken = [r for r in results if r.status in ("unreadable", "failed")]
    if broken:
        lines += ["", f"Photos without a result ({len(broken)}):", ""]
        lines += [f"- {_text(r.photo, 120)}: {r.status}: {_text(r.reason, 300)}" for r in broken]
    absent = [r for r in results if r.status == "of another class"]
    if absent:
        names = ", ".join(_text(r.photo, 120) for r in absent[:8]) + (", ..." if len(absent) > 8 else "")
        lines += ["", f"Left out, as this head does not have their classes ({len(absent)}): {names}."]
    prices = {m: task.price(m) for m in task.methods}
    cited = [
        f"- {m}: {METHODS[m].source}" + (f"; about {prices[m]:,} evaluations a photo" if prices[m] else "")
        for m in task.methods
    ]
    return "\n".join([*lines, "", "Methods:", "", *cited, ""])


def _text(name: str, limit: int) -> str:
    """A name, or what is said of it, as Markdown shows it."""
    return markdown(shorten(printable(name), limit))


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
    text = f"{found[0]:.{column.digits}f}" + ("" if np.isnan(found[1]) else f" ± {found[1]:.{column.digits}f}")
    return f"**{text}**" if found[0] == (max(of) if column.higher else min(of)) else text
