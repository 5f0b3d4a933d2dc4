"""What P2P learned on the synthetic scenes: the numbers of every run, the curves, and what was selected.

    jaxmoxi train --out runs/scenes-0                                # and --seed 1, --seed 2 in folders of their own
    jaxmoxi train --out runs/twin --black-box
    python examples/scenes_report.py runs/scenes-0 runs/scenes-1 runs/scenes-2 --twin runs/twin --out scenes

Writes into --out: report.md, history.png (the first run's curves), selected.png (what it saw of 16 scenes that no run
was trained on) and prediction.png (one of them in detail). The last table asks whether the masks smuggle the label.
"""

import argparse
import json
from pathlib import Path

import jax
import numpy as np

from jaxmoxi import p2p
from jaxmoxi.p2p.model import fill_colour

SHOWN, JUDGED = 16, 600


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="folders of jaxmoxi train --data scenes")
    parser.add_argument("--twin", type=Path, required=True, help="the folder of jaxmoxi train --black-box")
    parser.add_argument("--certainty", type=float, default=0.9, help="of the pictures and the last table")
    parser.add_argument("--out", type=Path, default=Path("scenes"))
    options = parser.parse_args()

    models = [p2p.load(run) for run in options.runs]
    twin, names = p2p.load(options.twin), p2p.load_class_names(options.runs[0])
    config = models[0].config
    scenes = p2p.data.scene_source(jax.random.key(2**31), JUDGED, image_size=config.image_size)
    loader = p2p.data.Loader(
        scenes, image_size=config.image_size, num_groups=config.num_groups, batch_size=JUDGED, train=False
    )
    batch = loader.batch(0)

    lines = ["| run | certainty | accuracy % | pixels seen % | of them on the object % | object seen % | minutes |"]
    lines.append("| --- " + "| ---: " * 6 + "|")
    for run in options.runs:
        found = json.loads((run / "evaluation.json").read_text())
        for i, certainty in enumerate(found["certainty"] or ["fixed"]):
            numbers = (100 * found[name][i] for name in ("accuracy", "hard_share", "precision", "recall"))
            cells = [run.name, str(certainty), *(f"{x:.1f}" for x in numbers), f"{found['seconds'] / 60:.1f}"]
            lines.append(f"| {' | '.join(cells)} |")
    found = json.loads((options.twin / "evaluation.json").read_text())
    cells = [options.twin.name, "", f"{100 * found['accuracy']:.1f}", "100", "", "100", f"{found['seconds'] / 60:.1f}"]
    lines += [f"| {' | '.join(cells)} |", ""]

    # Is it what the pixels show that tells the class, or only which were kept?
    classify = jax.jit(twin.modules()[1])
    images = np.asarray(twin.normalize(batch.images))
    fill = np.asarray(fill_colour(twin.config))
    objects = np.asarray(batch.masks)
    leak = p2p.mask_leakage(jax.random.key(0), objects, batch.labels, config.num_classes)
    whole = p2p.heldout_accuracy(classify, images, np.ones_like(objects), batch.labels, fill=fill)
    seen = p2p.heldout_accuracy(classify, images, objects, batch.labels, fill=fill)
    lines += ["| masks | told by the mask alone % | +- | by the twin, which never saw a mask, on what they keep % |"]
    lines += ["| --- | ---: | ---: | ---: |", f"| everything | | | {100 * whole:.1f} |"]
    row = f"{100 * leak.accuracy:.1f} | {100 * leak.standard_error:.1f} | {100 * seen:.1f}"
    lines.append(f"| the objects' own | {row} |")
    for run, model in zip(options.runs, models, strict=True):
        out = p2p.predict(model, batch.images, batch.regions, certainty=options.certainty)
        kept = np.asarray(out.pixel_mask)
        leak = p2p.mask_leakage(jax.random.key(0), kept, batch.labels, config.num_classes)
        seen = p2p.heldout_accuracy(classify, images, kept, batch.labels, fill=fill)
        row = f"{100 * leak.accuracy:.1f} | {100 * leak.standard_error:.1f} | {100 * seen:.1f}"
        lines.append(f"| {run.name} | {row} |")

    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "report.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))

    history = [json.loads(line) for line in (options.runs[0] / "history.jsonl").read_text().splitlines()]
    shown, labels = batch.images[:SHOWN], batch.labels[:SHOWN]
    out = p2p.predict(models[0], shown, batch.regions[:SHOWN], certainty=options.certainty)
    pictures = {
        "history": p2p.plot.history(history),
        "selected": p2p.plot.contact_sheet(shown, out, labels=labels, class_names=names),
        "prediction": p2p.plot.prediction(shown[0], batch.regions[0], out, class_names=names),
    }
    for name, figure in pictures.items():
        figure.savefig(options.out / f"{name}.png", dpi=110)
    print(f"wrote report.md, {', '.join(f'{name}.png' for name in pictures)} into {options.out}")


if __name__ == "__main__":
    main()
