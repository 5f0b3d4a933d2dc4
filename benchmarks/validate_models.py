"""Do the classifiers answer what they should? Logits against a stored reference, and top-1 on labelled photos.

    python benchmarks/validate_models.py --model FOLDER --images PHOTOS
    python benchmarks/validate_models.py --model efficientnet-lite0 --images PHOTOS --expected FILE.npz

PHOTOS holds images and `labels.csv` (columns `file`, `index`). The reference, by default `expected_logits.npz` in the
model's folder, holds `files` [N] and `logits` float32[N, K] of another implementation.
"""

import csv
import dataclasses
import json
import platform
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from PIL import Image

import jaxmoxi as jm


@dataclasses.dataclass
class Args:
    model: str
    """A checkpoint folder, or efficientnet-lite0 for the weights of the `demo` extra."""
    images: Path
    """The folder of photos, with labels.csv."""
    expected: Path | None = None
    """Reference logits, .npz with `files` and `logits`."""
    batch_size: int = 10
    tolerance: float = 1e-3
    """The largest logit difference that passes."""
    out: Path | None = None
    """Where to write the result as JSON."""


def main(args: Args) -> int:
    model = jm.models.demo() if args.model == "efficientnet-lite0" else jm.models.load(args.model)
    with open(args.images / "labels.csv", newline="") as f:
        labels = {row["file"]: int(row["index"]) for row in csv.DictReader(f)}
    photos = [Image.open(args.images / file) for file in labels]
    inputs = jnp.stack([model.preprocess(photo) for photo in photos])

    logits_fn = jax.jit(lambda model, images: model.logits(images))
    batches = [inputs[i : i + args.batch_size] for i in range(0, len(inputs), args.batch_size)]
    jax.block_until_ready(logits_fn(model, batches[0]))
    start = time.perf_counter()
    logits = np.concatenate([logits_fn(model, batch) for batch in batches])
    seconds = time.perf_counter() - start

    result = {
        "model": model.name,
        "photos": len(labels),
        "top1": float(np.mean(logits.argmax(1) == np.array(list(labels.values())))),
        "images_per_second": len(labels) / seconds,
        "device": jax.devices()[0].device_kind,
        "jax": jax.__version__,
        "python": platform.python_version(),
    }
    expected = args.expected or Path(args.model) / "expected_logits.npz"
    passed = True
    if expected.exists():
        reference = np.load(expected, allow_pickle=False)
        rows = {str(file): row for file, row in zip(reference["files"], reference["logits"], strict=True)}
        wanted = np.stack([rows[file] for file in labels])
        result["largest_logit_difference"] = float(np.abs(logits - wanted).max())
        result["same_top1"] = float(np.mean(logits.argmax(1) == wanted.argmax(1)))
        passed = result["largest_logit_difference"] <= args.tolerance
    print(json.dumps(result, indent=1))
    if args.out:
        args.out.write_text(json.dumps(result, indent=1) + "\n")
    if not passed:
        print(f"the logits differ from the reference by more than {args.tolerance}")
    return 0 if passed else 1


if __name__ == "__main__":
    raise SystemExit(main(tyro.cli(Args, description=__doc__)))
