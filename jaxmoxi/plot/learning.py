"""The learning curves of a P2P training, drawn while it runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def learning_curves(curves: Sequence[Mapping[str, Any]], history: Sequence[Mapping[str, Any]]) -> Figure:
    """Two panels over the epochs: the terms of the loss; accuracy and shares of the pixels, in training and validation.

    curves:  lines of `curves.jsonl`, see `p2p.training.curves`.
    history: lines of `history.jsonl`, see `p2p.fit`.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    losses, shares = figure.subplots(1, 2)
    ends = {line["epoch"]: line["step"] for line in history}
    length = next(
        (step / epoch for epoch, step in ends.items()), max((r["step"] / r["epoch"] for r in curves), default=1)
    )
    at = [row["step"] / length for row in curves]
    for name, title in (("loss", "loss"), ("target", "target"), ("sparsity", "sparsity term")):
        losses.plot(at, [row[name] for row in curves], label=title, linewidth=1)
    for name, title, colour in (
        ("accuracy", "accuracy", "tab:blue"), ("hard_share", "pixels kept", "tab:orange"),
        ("soft_share", "pixels kept in expectation", "tab:green"),
    ):  # fmt: skip
        shares.plot(at, [100 * row[name] for row in curves], label=title, linewidth=1, color=colour)
    checked = [line for line in history if "validation" in line]
    for name, title, colour in (("accuracy", "accuracy", "tab:blue"), ("hard_share", "pixels kept", "tab:orange")):
        values = [100 * line["validation"][name] for line in checked]
        shares.plot([line["epoch"] for line in checked], values, "o--", label=f"validation: {title}", color=colour)
    losses.set_yscale("symlog", linthresh=0.1)
    shares.set_ylim(0, 101)
    shares.set_ylabel("%")
    for axes in (losses, shares):
        axes.set_xlabel("epoch")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    return figure
