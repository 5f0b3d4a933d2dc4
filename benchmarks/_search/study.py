"""The orders of a study as lines like those measured here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from _search.rows import GRADIENT, curve_row
from jaxmoxi.attribution import METHODS as METHODS_OF_STUDY
from jaxmoxi.study import StudyConfig
from jaxmoxi.study.store import read_shard


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
