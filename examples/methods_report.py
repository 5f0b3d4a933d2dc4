"""P2P beside the methods that it is compared with, in one table: every run's own evaluation, a row for each certainty.

    jaxmoxi train --out runs/p2p                               # and with --method blackbox, blackbox-pixel-mask,
    jaxmoxi train --out runs/comet --method comet              # real-x, comet, comet-inverse in folders of their own
    python examples/methods_report.py runs/p2p runs/comet ...

The columns are: accuracy, the share of the pixels that the classifier sees, how many predictions its highest-ranked 10
and 20 % of the pixels recover, and (of data with masks) how much of what is kept lies on the object, and the average
precision of the pixels' ranking.
"""

import argparse
import json
from pathlib import Path

COLUMNS = ("run", "method", "certainty", "accuracy %", "pixels seen %", "from top 10 %", "from top 20 %", "on object %",
           "pixel AP", "minutes")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="folders of jaxmoxi train")
    lines = [COLUMNS, ("---", "---", *["---:"] * (len(COLUMNS) - 2))]
    for run in parser.parse_args().runs:
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
    print("\n".join(f"| {' | '.join(line)} |" for line in lines))


def percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f}"


def recovered(fidelity: dict[str, list], row: int, share: float) -> float | None:
    """The share of the predictions that these pixels give alone; None where it was not measured."""
    if fidelity is None or share not in fidelity["shares"]:
        return None
    return fidelity["insertion"][row][fidelity["shares"].index(share)]


if __name__ == "__main__":
    main()
