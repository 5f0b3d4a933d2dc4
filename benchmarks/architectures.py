"""Do the networks answer what PyTorch's answer? Every family, every variant, in every library's names.

    python benchmarks/architectures.py [--only resnet] [--out FILE.json]
    python benchmarks/architectures.py --golden tests/golden/networks

Needs PyTorch with timm, transformers and torchvision. Each network gets weights made from its tensors' names, is
written as a checkpoint folder, loaded with `jm.models.load`, and asked about the same two images as PyTorch's.
"""

# pyright: reportMissingImports=false
from __future__ import annotations

import dataclasses
import json
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tyro
from _common import environment, write
from variants import Variant, every

import jaxmoxi as jm

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from support.networks import made_images, made_tensors


@dataclasses.dataclass
class Args:
    only: str = ""
    """Variants with this text in their names."""
    golden: Path | None = None
    """Write the small variants' answers into this folder instead, for the tests."""
    out: Path | None = None


def answers(variant: Variant, folder: Path) -> tuple[dict[str, Any], np.ndarray, np.ndarray]:
    """(what describes the folder, PyTorch's logits, ours) for two images."""
    import torch

    shapes: dict[str, tuple[int, ...]] = {}

    def tensors_of(found: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
        shapes.update(found)
        return made_tensors(found, variant.variance)

    module = variant.write(folder, tensors_of)
    images = made_images(variant.size, variant.channels)
    with torch.inference_mode():
        out = module(torch.from_numpy(images.transpose(0, 3, 1, 2)).contiguous(), **variant.forward)
    theirs = getattr(out, "logits", out).numpy()
    mean = (0.5,) * variant.channels
    preprocessing = jm.models.Preprocessing(resize=variant.size, mean=mean, std=mean)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = jm.models.load(folder, preprocessing=preprocessing, image_size=variant.image_size)
    ours = np.asarray(jax.jit(lambda model, images: model.logits(images))(model, images))
    settings = json.loads((folder / "config.json").read_text())
    described = {
        "settings": settings,
        "shapes": shapes,
        "image": [*variant.size, variant.channels],
        "image_size": variant.image_size,
        "logits": [[float(f"{x:.7g}") for x in row] for row in theirs.tolist()],
    }
    if variant.variance != 1:
        described["variance"] = variant.variance
    described["players"] = "tokens or pixels" if model.token_grid else "pixels"
    return described, theirs, ours


def main(args: Args) -> int:
    rows = []
    for variant in every("VARIANTS" if args.golden is None else "TINY"):
        if args.only.lower() not in f"{variant.architecture} {variant.naming}".lower():
            continue
        start = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            described, theirs, ours = answers(variant, Path(folder))
        row = {
            "architecture": variant.architecture,
            "naming": variant.naming,
            "largest difference": float(np.abs(theirs - ours).max()),
            "largest logit": float(np.abs(theirs).max()),
            "players": described.pop("players"),
            "seconds": round(time.perf_counter() - start, 1),
        }
        rows.append(row)
        print(json.dumps(row), flush=True)
        if args.golden is not None:
            path = args.golden / f"{variant.naming}-{variant.architecture.replace(' ', '-').lower()}.json"
            path.write_text(json.dumps(described, separators=(",", ":")) + "\n")
    if args.golden is None:
        import torch

        result = {"question": "logits against PyTorch's", "environment": environment() | {"torch": torch.__version__}}
        write(result | {"rows": rows}, args.out)
    worst = max((row["largest difference"] / max(1.0, row["largest logit"]) for row in rows), default=0.0)
    print(f"{len(rows)} variants; the largest difference is {worst:.1e} of the logits' size", file=sys.stderr)
    return 0 if worst <= 1e-3 else 1


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Args)))
