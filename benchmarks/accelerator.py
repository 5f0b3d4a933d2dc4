"""What does a GPU or TPU do for this library? All of it in one command, in less time than a machine is lent for.

    PYTHONPATH=. python benchmarks/accelerator.py --model FOLDER --photos DIR [--minutes 9] [--out FILE.json]

Runs from a checkout on a machine with jax, flax, optax, orbax-checkpoint, numpy, pillow, matplotlib and scikit-image,
and nothing else. Writes one JSON and, beside it, the same as one Markdown table, anew after every row, so that an end
that comes too early loses the row in flight alone. The parts come in the order of their worth; what does not fit into
the minutes is written down as "not run: time". `benchmarks/README.md` says what each figure means.
"""

from __future__ import annotations

import argparse
import os
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import _accelerator  # first: it stands in for packages that are missing
import jax
from _accelerator import device, forwards, orders, pixels, searches, training
from _accelerator.run import Part, Run
from _accelerator.sizes import ACCELERATOR, CPU, TINY
from _accelerator.subjects import Subjects, load, photos_for
from _common import environment

from jaxmoxi.errors import InputError

PARTS = (
    Part("device", "The machine", device.measure, share=0.12),
    Part("large", "Coalitions of the large network", forwards.measure_large, share=0.2),
    Part("orders", "Full orders of one photo", orders.measure, share=0.4),
    Part("small", "Coalitions of the given network", forwards.measure_small, share=0.2),
    Part("images", "Many photos together", orders.measure_images, share=0.25),
    Part("p2p", "P2P", training.measure, share=0.2),
    Part("searches", "Searches and interactions", searches.measure, share=0.3),
    Part("pixels", "Pixels as players, and superpixels", pixels.measure, share=0.2),
)
_PACKAGES = ("jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "pillow", "matplotlib", "scikit-image")
_SETTINGS = ("XLA_FLAGS", "XLA_PYTHON_CLIENT_PREALLOCATE", "XLA_PYTHON_CLIENT_MEM_FRACTION", "JAX_PLATFORMS")


def described() -> dict[str, Any]:
    """The machine, the versions, and the settings that figures depend on."""
    found = jax.local_devices()[0]
    platform = " ".join(str(getattr(found.client, "platform_version", "")).split())
    told = environment() | {"backend": jax.default_backend(), "platform": platform}
    for package in _PACKAGES:
        try:
            told[package] = version(package)
        except PackageNotFoundError:
            told[package] = "none"
    memory = found.memory_stats() or {}
    told["memory for arrays, bytes"] = memory.get("bytes_limit", "not told")
    told["settings"] = {name: os.environ[name] for name in _SETTINGS if name in os.environ}
    told["float32 products"] = str(jax.config.jax_default_matmul_precision or "the backend's own precision")  # type: ignore[attr-defined]
    told["compilation cache"] = str(jax.config.jax_compilation_cache_dir or "none")  # type: ignore[attr-defined]
    return told


def parsed(arguments: list[str] | None) -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(description="Measure what an accelerator does for this library, in minutes.")
    add = parser.add_argument
    add("--model", type=Path, help="a checkpoint folder of a vision transformer; left out: random weights")
    add("--photos", type=Path, help="a folder of photos; left out: made up")
    add("--minutes", type=float, default=9.0, help="of wall clock, start to end (9)")
    add("--out", type=Path, default=Path("accelerator.json"), help="the JSON; its Markdown is written beside it")
    add("--parts", nargs="+", choices=[p.name for p in PARTS], help="these parts alone, after the machine's own")
    add("--tiny", action="store_true", help="tiny sizes, to see that everything runs")
    args = parser.parse_args(arguments)
    if not args.minutes > 0.2:
        parser.error(f"--minutes: expected at least a quarter of one; got {args.minutes:g}")
    if args.out.suffix != ".json":
        parser.error(f"--out: expected a name that ends in .json; got {args.out}")
    return args


def main(arguments: list[str] | None = None) -> int:
    """Measures and writes. Returns the exit code: 0 where every part ran or had no time, 1 where one failed."""
    args = parsed(arguments)
    if args.tiny:  # nothing has to be fast: XLA, which starts below, need not optimise
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_backend_optimization_level=0".strip()
    try:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        sizes = TINY if args.tiny else CPU if jax.default_backend() == "cpu" else ACCELERATOR
        model = load(args.model, sizes.small)
        photos, where = photos_for(model, args.photos, sizes.images)
    except (InputError, OSError) as error:
        print(f"accelerator: {error}", file=sys.stderr)
        return 2
    record: dict[str, Any] = {
        "question": "what an accelerator does for this library",
        "model": model.name,
        "photos": where,
        "sizes": "tiny" if args.tiny else "of a CPU" if sizes is CPU else "of an accelerator",
        "minutes": args.minutes,
        "stand-ins for missing packages": _accelerator.STOOD_IN,
        "environment": described(),
    }
    run = Run(sizes, Subjects(model, photos), record, out=args.out, started=_accelerator.STARTED, minutes=args.minutes)
    run.all_parts([p for p in PARTS if not args.parts or p.name in ("device", *args.parts)])
    print(f"wrote {args.out} and {args.out.with_suffix('.md')}")
    return int(any("fail" in part["status"] for part in record["parts"]))


if __name__ == "__main__":
    sys.exit(main())
