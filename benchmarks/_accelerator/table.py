"""The record of a run as Markdown: what the JSON says, a line for each part and each of its rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_COLUMNS = ("what", "figure", "seconds, median (least to most)", "TFLOP/s", "of the matmul rate", "compiled, s", "also")
# What has a column of its own, or tells of the table's own making.
_SHOWN = {
    "what", "status", "rate", "unit", "seconds", "flops_per_second", "matmul_share", "compile_seconds", "error",
    "wall_seconds",
}  # fmt: skip


def as_markdown(record: Mapping[str, Any]) -> str:
    """The whole record as text. A part's line stands above its rows; its notes are its status, seconds and memory."""
    lines = [f"# {record['question']}", ""]
    lines += [f"- {name}: {_text(value)}" for name, value in record.items() if name not in ("question", "parts")]
    lines += ["", f"| {' | '.join(_COLUMNS)} |", f"|{'---|' * len(_COLUMNS)}"]
    for part in record["parts"]:
        also = {name: value for name, value in part.items() if name not in ("name", "title", "rows", "compile_seconds")}
        also |= {"peak_bytes": f"{part['peak_bytes'] / 2**30:.2f} GiB"} if part.get("peak_bytes") else {}
        compiled = f"{part['compile_seconds']:.1f}" if "compile_seconds" in part else ""
        lines.append(_line(f"**{part['title']}**", "", "", "", "", compiled, _notes(also)))
        lines += [_row(row) for row in part["rows"]]
    return "\n".join(lines) + "\n"


def _row(row: Mapping[str, Any]) -> str:
    times = row.get("seconds")
    notes = {name: value for name, value in row.items() if name not in _SHOWN}
    if row["status"] != "measured":
        notes = {row["status"]: row.get("error", ""), **notes}
    return _line(
        row["what"],
        f"{row['rate']:,.5g} {row['unit']}" if "rate" in row else "",
        f"{times['median']:.3g} ({times['least']:.3g} to {times['most']:.3g}, {_runs(times['runs'])})" if times else "",
        f"{row['flops_per_second'] / 1e12:.3g}" if "flops_per_second" in row else "",
        f"{row['matmul_share']:.0%}" if "matmul_share" in row else "",
        f"{row['compile_seconds']:.1f}" if "compile_seconds" in row else "",
        _notes(notes),
    )


def _runs(count: int) -> str:
    return "1 run" if count == 1 else f"{count} runs"


def _notes(notes: Mapping[str, Any]) -> str:
    return "; ".join(f"{name.replace('_', ' ')}: {_text(value)}".removesuffix(": ") for name, value in notes.items())


def _line(*cells: str) -> str:
    return f"| {' | '.join(cell.replace('|', '/').replace(chr(10), ' ') for cell in cells)} |"


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_text(v)}" for name, v in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_text, value)) or "none"
    return str(value)
