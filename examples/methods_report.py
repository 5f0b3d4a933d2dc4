"""P2P beside the methods that it is compared with, in one table: every run's own evaluation, a row for each certainty.

    jaxmoxi train --out runs/p2p                               # and with --method blackbox, blackbox-pixel-mask,
    jaxmoxi train --out runs/comet --method comet              # real-x, comet, comet-inverse in folders of their own
    python examples/methods_report.py runs/p2p runs/comet ...
    python examples/methods_report.py runs/p2p runs/comet --cifar10 PATH --out report

The columns are: accuracy, the share of the pixels that the classifier sees, how many predictions its highest-ranked 10
and 20 % of the pixels recover, and (of data with masks) how much of what is kept lies on the object, and the average
precision of the pixels' ranking. With --out: report.md (the table), history.png (the first run's curves), and of
CIFAR-10 selected.png, what the first run saw of 16 test images, evenly spaced.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from jaxmoxi import p2p

SHOWN = 16
COLUMNS = ("run", "method", "certainty", "accuracy %", "pixels seen %", "from top 10 %", "from top 20 %", "on object %",
           "pixel AP", "minutes")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="folders of jaxmoxi train")
    parser.add_argument("--out", type=Path, help="a folder for the table and pictures")
    parser.add_argument(
        "--cifar10", metavar="PATH", help="where CIFAR-10 is; draws what the first run saw of test images"
    )
    parser.add_argument("--certainty", type=float, default=0.99, help="of the picture")
    options = parser.parse_args()
    if options.cifar10 and options.out is None:
        parser.error("--cifar10 draws a picture: --out says where")
    lines = [COLUMNS, ("---", "---", *["---:"] * (len(COLUMNS) - 2))]
    for run in options.runs:
        found = json.loads((run / "evaluation.json").read_text())
        for i, certainty in enumerate(found["certainty"] or ["fixed"]):
            numbers = [found[name] and found[name][i] for name in ("precision", "pixel_ap")]
            lines.append(
                (
                    run.name,
                    found["method"],
                    "" if found["method"] == "blackbox" else str(certainty),
                    percent(found["accuracy"] if isinstance(found["accuracy"], float) else found["accuracy"][i]),
                    percent(found["hard_share"][i]),
                    *(percent(recovered(found["fidelity"], i, share)) for share in (0.1, 0.2)),
                    percent(numbers[0]),
                    "" if numbers[1] is None else f"{numbers[1]:.3f}",
                    f"{found['seconds'] / 60:.1f}",
                )
            )
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    print(table)
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "report.md").write_text(table + "\n")
        for name, figure in pictures(options.runs[0], options.cifar10, options.certainty).items():
            figure.savefig(options.out / f"{name}.png", dpi=110)


def pictures(run: Path, cifar10: str | None, certainty: float) -> dict[str, Figure]:
    """The curves of a run and, where there is CIFAR-10, what its model saw of some test images."""
    lines = (run / "history.jsonl").read_text().splitlines()
    found = {"history": p2p.plot.history([json.loads(line) for line in lines])}
    if cifar10 is not None:
        model, names = p2p.load(run), p2p.load_class_names(run)
        test = p2p.data.CIFAR10(cifar10, split="test")
        some = p2p.data.Subset(test, np.arange(SHOWN) * (len(test) // SHOWN))
        size, groups = model.config.image_size, model.config.num_groups
        loader = p2p.data.Loader(some, image_size=size, num_groups=groups, batch_size=SHOWN, train=False)
        batch = loader.batch(0)
        out = p2p.predict(model, batch.images, batch.regions, certainty=certainty)
        found["selected"] = p2p.plot.contact_sheet(batch.images, out, labels=batch.labels, class_names=names)
    return found


def percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f}"


def recovered(fidelity: dict[str, list], row: int, share: float) -> float | None:
    """The share of the predictions that these pixels give alone; None where it was not measured."""
    if fidelity is None or share not in fidelity["shares"]:
        return None
    return fidelity["insertion"][row][fidelity["shares"].index(share)]


if __name__ == "__main__":
    main()
