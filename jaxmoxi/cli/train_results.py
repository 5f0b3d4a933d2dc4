"""What `jaxmoxi train` says and draws while it trains, and how it judges the trained model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxmoxi.errors import warn
from jaxmoxi.files import write_whole

if TYPE_CHECKING:  # flax and its networks take seconds to import, and no other command needs them
    from jax.sharding import Mesh

    from jaxmoxi.cli.train import Train
    from jaxmoxi.cli.train_task import Task
    from jaxmoxi.p2p import P2P

_CERTAINTIES = (0.8, 0.9, 0.95, 0.99)
_NOTHING = 0.02  # of the pixels: next to none of them


def print_epoch(line: dict[str, Any]) -> None:
    """One line for the record of an epoch."""
    from tqdm import tqdm

    from jaxmoxi.p2p.training.curves import describe_epoch

    tqdm.write(describe_epoch(line))


def draw_curves(folder: Path) -> None:
    """Draws the learning curves of a run, as far as it is, into curves.png."""
    from jaxmoxi.p2p.training.curves import read_curves
    from jaxmoxi.plot.learning import learning_curves

    history = [json.loads(line) for line in (folder / "history.jsonl").read_text("utf-8").splitlines()]
    figure = learning_curves(read_curves(folder), history)
    write_whole(folder / "curves.png", lambda file: figure.savefig(file, format="png", dpi=120))


def evaluate(options: Train, task: Task, model: P2P, mesh: Mesh | None) -> tuple[str, dict[str, Any]]:
    """How the trained model does on the test images: a Markdown table, and a record."""
    from jaxmoxi import p2p
    from jaxmoxi.p2p.data import Loader
    from jaxmoxi.p2p.inference.fidelity import SHARES

    config = model.config
    loader = Loader(task.test, image_size=config.image_size, num_groups=config.num_groups, batch_size=32, train=False)
    evaluation = p2p.evaluate(
        model,
        loader,
        certainty=options.certainties or _CERTAINTIES,
        shares=SHARES if options.fidelity_shares is None else options.fidelity_shares,
        progress=not options.quiet,
        mesh=mesh,
        whole=not task.train.select,
        inverse=task.train.method == "comet-inverse",
    )
    record = evaluation.to_dict()
    if task.train.select and config.masking == "groups":
        warn_of_nothing(float(np.min(evaluation.hard_share)))
    if not task.train.select:  # as it was before other methods had numbers too
        record["accuracy"] = float(evaluation.accuracy[0])
    return evaluation.table(), record | {"method": task.train.method}


def warn_of_nothing(share: float) -> None:
    """Tells of a model that sees next to none of the pixels: its answers are about those for an empty image."""
    if share < _NOTHING:
        warn(
            f"the trained model keeps {100 * share:.2g} % of the pixels of the test images: its selector gives hardly "
            "any superpixel a probability above 1/2, and the figures are those of nearly empty images. More epochs, or "
            "a lower --regulariser-weight, may help"
        )
