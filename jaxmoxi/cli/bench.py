"""The command `jaxmoxi bench`: forward passes a second on this machine, by tokens, batch and dtype.

The machine's matrix-product rate is measured in the same run. A transformer's forward pass consists mostly of matrix
products, so this rate is its upper bound.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from jax.sharding import Mesh

from jaxmoxi.cli import shared as _command
from jaxmoxi.cli.rates import SIZES, forward_flops, matmul_rate, random_classifier, timed
from jaxmoxi.cli.shared import one_line
from jaxmoxi.errors import InputError
from jaxmoxi.files import write_whole
from jaxmoxi.games.image import token_value_fn
from jaxmoxi.games.sharding import shard_coalitions
from jaxmoxi.models.classifier import Classifier
from jaxmoxi.models.networks.base import image_shape

_OPTION = tyro.conf.arg


def throughput(
    model: Classifier,
    *,
    tokens: tuple[int, ...],
    batches: tuple[int, ...],
    dtypes: tuple[str, ...],
    repeats: int = 7,
    mesh: Mesh | None = None,
) -> Iterator[dict[str, Any]]:
    """Measures one row for every dtype, number of tokens (class token included) and batch of coalitions.

    Each row has dtype, tokens, batch, compile_seconds (not part of the other times), seconds (median, least and most of
    the timed runs), forwards_per_second (by the median), flops_per_second, matmul_flops_per_second (`matmul_rate`) and
    matmul_share, the ratio of these two. Batches that do not fit the memory are left out.

    repeats: timed runs of each row, at least 1.
    mesh:    the devices that share a batch (`jaxmoxi.local_mesh`); None for one device.
    Raises ValueError for token counts that the model does not have, and for `repeats` below 1.
    """
    config: Any = model.config  # `forward_flops` counts a vision transformer's operations
    if repeats < 1:
        raise InputError(f"expected at least 1 timed run; got {repeats}")
    rows, cols = model.token_grid or (0, 0)
    players = rows * cols
    wrong = [n for n in tokens if not 2 <= n <= players + 1]
    if wrong:
        raise InputError(f"expected 2 to {players + 1} tokens (the class token and {players} patches); got {wrong}")
    rng = np.random.default_rng(0)
    image = jnp.asarray(rng.normal(size=image_shape(config)), jnp.float32)
    for dtype in dtypes:
        rate = matmul_rate(dtype, mesh=mesh)
        v = token_value_fn(model.astype(dtype), image, 0)
        v = v if mesh is None else shard_coalitions(v, mesh)
        for count in tokens:
            for batch in batches:
                shown = np.argsort(rng.random((batch, players)), axis=1) < count - 1
                masks = jnp.asarray(shown)
                evaluate = jax.jit(lambda v, masks, visible=count - 1: v(masks, max_visible=visible))
                start = time.perf_counter()
                try:
                    compiled = evaluate.lower(v, masks).compile()
                    compile_seconds = time.perf_counter() - start
                    times = timed(compiled, (v, masks), repeats)
                except jax.errors.JaxRuntimeError as error:
                    if "RESOURCE_EXHAUSTED" not in str(error):
                        raise
                    continue  # this batch does not fit the memory
                middle = statistics.median(times)
                flops = forward_flops(config, count) * batch / middle
                yield {
                    "dtype": dtype,
                    "tokens": count,
                    "batch": batch,
                    "compile_seconds": compile_seconds,
                    "seconds": {"median": middle, "least": min(times), "most": max(times)},
                    "forwards_per_second": batch / middle,
                    "flops_per_second": flops,
                    "matmul_flops_per_second": rate,
                    "matmul_share": flops / rate,
                }


HEADER = f"{'dtype':>9} {'tokens':>7} {'batch':>6} {'forwards/s':>11} {'spread':>15} {'GFLOP/s':>9} {'of matmul':>9}"


def line(row: dict[str, Any]) -> str:
    """The text of a row of `throughput`, as `HEADER` names its columns."""
    spread = f"{row['batch'] / row['seconds']['most']:.0f}-{row['batch'] / row['seconds']['least']:.0f}"
    return (
        f"{row['dtype']:>9} {row['tokens']:>7} {row['batch']:>6} {row['forwards_per_second']:>11,.1f} {spread:>15} "
        f"{row['flops_per_second'] / 1e9:>9,.0f} {row['matmul_share']:>9.0%}"
    )


@dataclasses.dataclass(frozen=True)
class Bench:
    """Measure how many coalitions a second this machine evaluates, beside the rate of its matrix products.

    Without --model: a vision transformer of 14 x 14 patches with random weights.
    """

    model: Annotated[Path | None, _OPTION(metavar="FOLDER|NAME", help_behavior_hint="")] = None
    """A checkpoint folder of a vision transformer, or a name of the Hugging Face hub."""
    preprocessing: Annotated[str | None, _OPTION(metavar="imagenet|half|clip|FILE", help_behavior_hint="")] = None
    """With --model: how a photo becomes the network's input, by name or as a preprocessor_config.json. Left out: as the
    folder says."""
    image_size: Annotated[str | None, _OPTION(metavar="SIDE|HEIGHTxWIDTH", help_behavior_hint="")] = None
    """With --model: pixels of the images that the network sees, where not its weights' own; position embeddings
    are interpolated. Left out: the weights' own."""
    size: Literal["tiny", "small", "base"] = "tiny"
    """Without --model: how large."""
    tokens: tuple[int, ...] = (17, 33, 65, 129, 197)
    """Numbers of visible tokens, class token included."""
    batches: tuple[int, ...] = ()
    """Coalitions evaluated together. Left out: 8, 16 and 32 on a CPU, 64, 256 and 1024 elsewhere."""
    dtypes: tuple[Literal["float32", "bfloat16"], ...] = ()
    """Left out: float32 on a CPU, both elsewhere."""
    repeats: Annotated[int, _OPTION(metavar="N")] = 7
    """Timed runs of each row; the median counts."""
    out: Annotated[Path | None, _OPTION(metavar="FILE", help_behavior_hint="")] = None
    """A JSON file to write as well."""
    hub: tyro.conf.OmitArgPrefixes[_command.HubOptions] = _command.NO_HUB_OPTIONS

    def run(self) -> int:
        """Measures and prints. Returns the exit code."""
        _command.start_compilation_cache()
        mesh = _command.start_devices()
        on_cpu = jax.default_backend() == "cpu"
        with one_line():
            if self.out is not None:  # a place that cannot be written shows before the measuring
                self.out.parent.mkdir(parents=True, exist_ok=True)
                self.out.touch()
            if (self.model, self.preprocessing, self.image_size, self.hub) == (
                None, None, None, _command.NO_HUB_OPTIONS,
            ):  # fmt: skip
                model = random_classifier(SIZES[self.size])
            else:
                model = _command.load_model(self.model, self.preprocessing, self.image_size, hub=self.hub)
                if model.token_grid is None:
                    raise InputError(f"--model: {model.name} has no tokens; expected a vision transformer")
            rows = throughput(
                model,
                tokens=self.tokens,
                batches=self.batches or ((8, 16, 32) if on_cpu else (64, 256, 1024)),
                dtypes=self.dtypes or (("float32",) if on_cpu else ("float32", "bfloat16")),
                repeats=self.repeats,
                mesh=mesh,
            )
            print(f"{self.model or self.size} on {jax.devices()[0].device_kind}\n{HEADER}", flush=True)
            shown = []
            for row in rows:
                shown.append(row)
                print(line(row), flush=True)
        if self.out is not None:
            write_whole(
                self.out, json.dumps({"model": str(self.model or self.size), **_command.versions(), "rows": shown})
            )
            print(f"wrote {self.out}")
        return 0
