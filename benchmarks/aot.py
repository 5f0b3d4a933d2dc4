"""What the real TPU compiler makes of every public entry point, on a machine without a TPU.

    pip install 'jax[tpu]'
    python benchmarks/aot.py [--chips v5e v6e v5p] [--entries forward insertion ...] [--out FILE.json]
    python benchmarks/aot.py --scale FILE.json

For each program: CPU-seconds of compiling, the memory it needs against what the chip has, modelled seconds, the share of
the chip's bfloat16 peak, and the collectives in it. Nothing runs. The modelled seconds are XLA's own estimates of single
operations, added up over loops (`_hlo`); of the attention kernel, the cycles of its schedule (`kernels.short_attention`).
Chunks and stages are those that the library chooses on such a chip, of bfloat16 models.

CPU-seconds count all threads of the compiler; on a busy machine they grow.
"""  # noqa: E501

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

# One process for each kind of chip: the compiler reads these when it is loaded.
ACCELERATORS = {"v5e": "v5litepod-4", "v6e": "v6e-4", "v5p": "v5p-8"}
NAMES = (
    "forward", "sharded", "insertion", "deletion", "greedy_images", "pixels", "pairs", "slic", "p2p_predict",
    "p2p_train", "searches",
)  # fmt: skip


def compile_all(chip_name: str, entries: list[str], out: Path, *, first: bool) -> None:
    """Compiles for one kind of chip, in this process; the file is written after each program.

    first: only the first program of each entry.
    """
    import warnings

    import jax
    from _aot import CHIPS, measure
    from _aot_entries import ENTRIES
    from _common import environment
    from jax.experimental import topologies

    from jaxmoxi.games.hardware import Hardware, planned_for

    warnings.simplefilter("ignore")
    chip = CHIPS[chip_name]
    devices = list(topologies.get_topology_desc(platform="tpu", topology_name=chip.topology).devices)[:4]
    rows: list[dict[str, Any]] = []
    with planned_for(Hardware("tpu", int(0.95 * chip.hbm))):
        for name in entries:
            try:
                for program in itertools.islice(ENTRIES[name](devices), 1 if first else None):
                    row = {"chip": chip.name, "entry": name, **measure(program, chip)}
                    rows.append(row)
                    print(line(row), flush=True)
                    save(out, rows, environment())
                    jax.clear_caches()
            except Exception as error:  # the others are worth having
                text = " ".join(str(error).split())[:500]
                rows.append({"chip": chip.name, "entry": name, "error": f"{type(error).__name__}: {text}"})
                print(f"{chip.name} {name}: {rows[-1]['error']}", flush=True)
                save(out, rows, environment())


def save(out: Path, rows: list[dict[str, Any]], environment: dict[str, Any]) -> None:
    out.write_text(json.dumps({"environment": environment, "rows": rows}, indent=1) + "\n")


HEADER = (
    "| chip | program | compiling, CPU-s | HBM, GiB | modelled, s | share of peak | collectives |\n" + "|---" * 7 + "|"
)


def line(row: dict[str, Any]) -> str:
    share = row["share of peak"]
    collectives = ", ".join(f"{n} {kind}" for kind, n in row["collectives"].items()) or "none"
    seconds = row["modelled seconds"]
    return (
        f"| {row['chip']} | {row['program']} | {row['compile CPU-seconds']:.1f} | {row['HBM GiB']:.2f}"
        f"{'' if row['fits'] else ' (does not fit)'} | {seconds:.3g} | {'' if share is None else f'{share:.0%}'} "
        f"| {collectives} |"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chips", nargs="+", choices=list(ACCELERATORS), default=list(ACCELERATORS))
    parser.add_argument("--entries", nargs="+", choices=NAMES, default=list(NAMES))
    parser.add_argument("--out", type=Path)
    parser.add_argument("--first", action="store_true", help="only the first program of each entry")
    parser.add_argument("--scale", type=Path, help="compile nothing: what many images cost, from such a FILE.json")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.scale is not None:
        from _aot_scale import table

        print(table(json.loads(args.scale.read_text())["rows"]))
        return 0
    try:
        import libtpu  # noqa: F401  # pyright: ignore[reportMissingImports]
    except ImportError:
        print("aot: the TPU compiler is not installed: pip install 'jax[tpu]' (in an environment of its own)",
              file=sys.stderr)  # fmt: skip
        return 2
    if args.child:
        compile_all(args.chips[0], args.entries, args.out, first=args.first)
        return 0
    print(HEADER, flush=True)
    rows: list[dict[str, Any]] = []
    result: dict[str, Any] = {"question": "what the TPU compiler makes of every entry point"}
    for chip in args.chips:
        with tempfile.TemporaryDirectory() as folder:
            part = Path(folder) / "part.json"
            command = [sys.executable, __file__, "--child", "--chips", chip, "--entries", *args.entries]
            command += ["--first"] * args.first
            subprocess.run([*command, "--out", str(part)], env=_environment(chip), check=True)
            found = json.loads(part.read_text())
        rows += found["rows"]
        result |= {"environment": found["environment"], "rows": rows}
        if args.out is not None:
            args.out.parent.mkdir(parents=True, exist_ok=True)
            args.out.write_text(json.dumps(result, indent=1) + "\n")
    return int(any("error" in row for row in rows))


def _environment(chip: str) -> dict[str, str]:
    own = {
        "TPU_SKIP_MDS_QUERY": "1",
        "TPU_ACCELERATOR_TYPE": ACCELERATORS[chip],
        "TPU_WORKER_HOSTNAMES": "localhost",
        "TPU_WORKER_ID": "0",
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # nothing runs, so no two processes want the same chip
        "JAX_PLATFORMS": "cpu",
    }
    return os.environ | own


if __name__ == "__main__":
    sys.exit(main())
